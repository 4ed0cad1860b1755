r"""Sets of fields, in the form in which `metadata.managedFields` stores them (fieldsV1).

A set is a tree of dicts. Its names are path elements (`pathelement`), and a path is a member when its
node is empty or holds ".":

    {"f:spec": {"f:replicas": {}, "f:ports": {".": {}, "k:{\"port\":80}": {}}}}

has the members `.spec.replicas`, `.spec.ports` and `.spec.ports[port=80]`. So the value is what is
stored and sent, with nothing to convert, and Python compares two sets.

Sets are values: nothing here changes its arguments, results share nodes with them, nobody may change
one. Every set is canonical: elements in fieldsV1's order (`pathelement.order`), no node that says
only what an empty one says, no "." at the root (nobody owns "the whole object").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt
from wharfinger.local.merge import pathelement

FieldSet: TypeAlias = dict[str, "FieldSet"]
Path: TypeAlias = tuple[str, ...]
"""Path elements, from the root."""

LEAF: FieldSet = {}
"""The node of a member that has nothing below it."""
EMPTY: FieldSet = {}
"""The set without members."""

_GUESSED_KEYS = ("id", "key", "name")


def parse(value: Json) -> FieldSet:
    """Return the set that the fieldsV1 `value` (parsed JSON) holds, in canonical form.

    Path elements of an unknown kind are dropped. Raises `Malformed`.
    """
    node = _parse(value)
    return {element: child for element, child in node.items() if element != "."} if "." in node else node


def _parse(value: Json) -> FieldSet:
    if value is None:
        return LEAF
    if not isinstance(value, dict):
        raise Malformed(f"expected a set of fields as an object, got {excerpt(value)}")
    node: FieldSet = {}
    for text, below in value.items():
        if text == ".":
            node["."] = LEAF
            continue
        element = pathelement.parse(text)
        if element is not None:
            child = _parse(below)
            node[element] = union_nodes(node[element], child) if element in node else child
    return normal(node)


def normal(node: FieldSet) -> FieldSet:
    """Return `node` with its elements in order; LEAF where it says only that it is a member."""
    if len(node) < 2:
        return LEAF if "." in node else node
    names = sorted(node)
    if names[-1][0] != "f":
        names.sort(key=pathelement.order)
    return {name: node[name] for name in names}


def union(a: FieldSet, b: FieldSet) -> FieldSet:
    """Return what is in `a` or in `b`."""
    if not a or not b or a is b:
        return a or b
    return _merged(a, b)


def union_nodes(a: FieldSet, b: FieldSet) -> FieldSet:
    """Return what is in `a` or in `b`, two nodes of one path, which itself may be a member of either."""
    if a is b:
        return a
    if not a:
        return b if "." in b or not b else {".": LEAF, **b}
    if not b:
        return a if "." in a else {".": LEAF, **a}
    return _merged(a, b)


def _merged(a: FieldSet, b: FieldSet) -> FieldSet:
    made = dict(a)
    for name, right in b.items():
        left = a.get(name)
        made[name] = right if left is None else union_nodes(left, right)
    return made if len(made) == len(a) else normal(made)


def intersection(a: FieldSet, b: FieldSet) -> FieldSet:
    """Return what is in both `a` and `b`."""
    made: FieldSet = {}
    if len(b) < len(a):
        a, b = b, a
    for name, left in a.items():
        right = b.get(name)
        if right is not None:
            both = _intersection(left, right)
            if both is not None:
                made[name] = both
    return made


def _intersection(a: FieldSet, b: FieldSet) -> FieldSet | None:
    if a is b:
        return a
    if not a or not b:
        return LEAF if is_member(a) and is_member(b) else None
    made = intersection(a, b)
    if not made:
        return None
    return LEAF if len(made) == 1 and "." in made else made


def difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """Return what is in `a` and not in `b`; what lies below a member of `b` stays."""
    if not a or not b:
        return a
    made = {}
    for name, left in a.items():
        right = b.get(name)
        rest = left if right is None else _difference(left, right)
        if rest is not None:
            made[name] = rest
    return made


def _difference(a: FieldSet, b: FieldSet) -> FieldSet | None:
    if not a:
        return None if is_member(b) else a
    if not b:
        return {name: child for name, child in a.items() if name != "."} if "." in a else a
    made = difference(a, b)
    if not made:
        return None
    return LEAF if len(made) == 1 and "." in made else made


def without(a: FieldSet, b: FieldSet) -> FieldSet:
    """Return `a` without the members of `b` and all that lies below them."""
    if not a or not b:
        return a
    made: FieldSet = {}
    for name, left in a.items():
        right = b.get(name)
        if right is None:
            made[name] = left
        elif not is_member(right):
            rest = without(left, right) if left else left
            if rest or not left:
                made[name] = LEAF if len(rest) == 1 and "." in rest else rest
    return made


def leaves(fields: FieldSet) -> FieldSet:
    """Return the members of `fields` that have no members below them."""
    return {name: leaves(child) for name, child in fields.items() if name != "."}


def is_member(node: FieldSet) -> bool:
    """Say whether the path of `node` itself is in the set."""
    return not node or "." in node


def paths(fields: FieldSet) -> Iterator[Path]:
    """Yield the members of `fields`: at each level first those of the level, then those below."""
    return _paths(fields, ())


def _paths(node: FieldSet, above: Path) -> Iterator[Path]:
    for name, child in node.items():
        if name != "." and is_member(child):
            yield (*above, name)
    for name, child in node.items():
        if child:
            yield from _paths(child, (*above, name))


def of_path(path: Path) -> FieldSet:
    """Return the set whose one member is `path`, of at least one element."""
    node = LEAF
    for element in reversed(path):
        node = {element: node}
    return node


def show(path: Path) -> str:
    """Return `path` as messages show it: `.spec.ports[port=80].name`."""
    return "".join(map(pathelement.show, path))


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which paths a filter keeps: `everything`, or those that begin as a name of `below` says.

    `below` maps a path element, or "*" for any, to the pattern of what lies below it; where there is
    "*", it alone counts.
    """

    everything: bool = False
    below: tuple[tuple[str, Pattern], ...] = ()

    def of(self, element: str) -> Pattern | None:
        """Return the pattern for what lies below `element`; None where it is not kept."""
        named = dict(self.below)
        return named.get("*") or named.get(element)


def matching(fields: FieldSet, pattern: Pattern) -> FieldSet:
    """Return the members of `fields` that `pattern` keeps."""
    if pattern.everything:
        return fields
    made: FieldSet = {}
    for name, child in fields.items():
        if name == ".":
            made[name] = child
            continue
        below = pattern.of(name)
        if below is None:
            continue
        kept = matching(child, below)
        if kept or not child:
            made[name] = LEAF if len(kept) == 1 and "." in kept else kept
    return made


def of_value(value: Json) -> FieldSet:
    """Return the leaves of `value` where no schema is known.

    Items of lists go by those of the keys id, key and name that they have, else by their index.
    """
    if isinstance(value, dict):
        made = {pathelement.field(name): of_value(child) for name, child in value.items() if not _hollow(child)}
    elif isinstance(value, list):
        made = {_guess(at, child): of_value(child) for at, child in enumerate(value) if not _hollow(child)}
    else:
        return LEAF
    return normal(made)


def _hollow(value: Json) -> bool:
    """Say whether `value` has no leaf in it."""
    if isinstance(value, dict):
        return all(map(_hollow, value.values()))
    return isinstance(value, list) and all(map(_hollow, value))


def _guess(at: int, value: Json) -> str:
    if isinstance(value, dict):
        scalars = (str, int, float)
        keys = [(name, value[name]) for name in _GUESSED_KEYS if isinstance(value.get(name), scalars)]
        if keys:
            return pathelement.keyed(keys)
    return pathelement.index(at)
