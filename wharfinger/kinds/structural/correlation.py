"""Correlation: which value of the stored object a value of the new one was, so that what is unchanged is excused.

Properties correlate by name, items of a map list by its keys; items of other lists do not (apiserver, cel/common
CorrelatedObject). Comparisons are kept, so that a walk over the whole tree stays linear.
"""

from __future__ import annotations

from wharfinger.core.document import Json
from wharfinger.kinds.structural.node import Node
from wharfinger.kinds.structural.sameness import identity, same

_TYPE_FIELDS = frozenset({"apiVersion", "kind"})


class Pair:
    """A value, and the one that was stored in its place."""

    __slots__ = ("_children", "_items", "_root", "_unchanged", "new", "node", "old")

    def __init__(self, new: Json, old: Json, node: Node | None, *, root: bool = False) -> None:
        """Pair `new` with `old`; at the `root` of an object its type fields correlate with nothing."""
        self.new = new
        self.old = old
        self.node = node
        self._root = root
        self._unchanged: bool | None = None
        self._children: dict[str | int, Pair | None] = {}
        self._items: dict[object, Json] | None = None

    @property
    def unchanged(self) -> bool:
        """Whether the value is what was stored."""
        if self._unchanged is None:
            self._unchanged = self._compare()
        return self._unchanged

    def key(self, name: str) -> Pair | None:
        """Return the pair of the property `name`; None when there was none or its schema is not known."""
        return None if self.is_type(name) else self._key(name)

    def is_type(self, name: str) -> bool:
        """Tell whether `name` is a field that says what a whole object is of."""
        return self._root and name in _TYPE_FIELDS

    def _key(self, name: str) -> Pair | None:
        if name in self._children:
            return self._children[name]
        new, old, made = self.new, self.old, None
        if self.node is not None and isinstance(new, dict) and isinstance(old, dict):
            below = self.node.child(name)
            if below is not None and name in new and name in old:
                made = Pair(new[name], old[name], below)
        self._children[name] = made
        return made

    def index(self, at: int) -> Pair | None:
        """Return the pair of the item at `at`; None when the list does not correlate or there was no such item."""
        if at not in self._children:
            self._children[at] = self._index(at)
        return self._children[at]

    def _index(self, at: int) -> Pair | None:
        node, new, old = self.node, self.new, self.old
        if node is None or node.items is None or not isinstance(new, list) or not isinstance(old, list):
            return None
        if node.list_type != "map" or not node.list_keys or at >= len(new):
            return None
        if self._items is None:
            self._items = {}
            for item in old:
                self._items.setdefault(_keys(item, node), item)
        keys = _keys(new[at], node)
        stored = None if keys is None else self._items.get(keys)
        return None if stored is None else Pair(new[at], stored, node.items)

    def _compare(self) -> bool:
        new, old = self.new, self.old
        if isinstance(new, dict) and isinstance(old, dict):
            pairs = (self._key(name) for name in new)
            return len(new) == len(old) and all(pair is not None and pair.unchanged for pair in pairs)
        if isinstance(new, list) and isinstance(old, list) and self.node is not None and self.node.list_type == "map":
            pairs = (self.index(at) for at in range(len(new)))
            return len(new) == len(old) and all(pair is not None and pair.unchanged for pair in pairs)
        return same(new, old)


def _keys(item: Json, node: Node) -> object:
    """Return what an item of a map list is known by; None when a key is missing or is no scalar."""
    if not isinstance(item, dict):
        return None
    values = [item.get(name) for name in node.list_keys]
    if any(value is None or isinstance(value, dict | list) for value in values):
        return None
    return tuple(map(identity, values))
