"""Comparing two values of one type: which fields were removed, modified, added.

structured-merge-diff v6, `typed.Compare`. Of a value that is on one side only, every part counts,
also the maps and lists that lead to its leaves.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from wharfinger.core.document import Json
from wharfinger.local.merge import fieldpath
from wharfinger.local.merge.fieldpath import EMPTY, LEAF, FieldSet
from wharfinger.local.merge.schema import ListType, MapType, Type
from wharfinger.local.merge.typed import Mismatch, item_element

_PLAIN = frozenset((str, int, type(None)))
"""Classes of values whose equality is Python's, as long as both values are of the same class."""


class Comparison(NamedTuple):
    """What one value has that the other has not. No path is a member of two of the sets."""

    removed: FieldSet = EMPTY
    modified: FieldSet = EMPTY
    added: FieldSet = EMPTY


SAME = Comparison()
"""The comparison of two equal values."""

_Nodes: TypeAlias = tuple[FieldSet | None, FieldSet | None, FieldSet | None]
"""A comparison of parts: for each set the node of the part, None where nothing of it is in the set."""
_MODIFIED: _Nodes = (None, LEAF, None)


def compare(type_: Type, old: Json, new: Json) -> Comparison:
    """Return what changed from `old` to `new`, both of `type_`. Raises `Mismatch`."""
    nodes = _compare(type_, old, new)
    return SAME if nodes is None else Comparison(*(node or EMPTY for node in nodes))


def all_fields(type_: Type, value: Json) -> FieldSet:
    """Return every field of `value`: what comparing it to an empty map adds. Raises `Mismatch`."""
    node = _whole(type_, value)
    return {name: child for name, child in node.items() if name != "."}


def equal(a: Json, b: Json) -> bool:
    """Say whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    return bool(a == b) and _of_one_kind(a, b)


def _of_one_kind(a: Json, b: Json) -> bool:
    """Say whether `a` and `b`, equal to Python, nowhere are a number on one side and a boolean on the other."""
    kind = a.__class__
    if kind is str or a is b:
        return True
    if kind is dict:
        return all(_of_one_kind(child, b[name]) for name, child in a.items())
    if kind is list:
        return all(map(_of_one_kind, a, b))
    return (kind is bool) is (b.__class__ is bool)


def _whole(type_: Type, value: Json) -> FieldSet:
    if type_.leaf or not value:
        return LEAF
    shape = type_.shape(value)
    if shape is None or shape.atomic or value.__class__ is not shape.kind:
        return LEAF
    made: FieldSet = {".": LEAF}
    if isinstance(shape, MapType):
        fields = shape.fields
        for name in sorted(value):
            declared = fields.get(name)
            if declared is not None:
                made[declared[0]] = LEAF if declared[1].leaf else _whole(declared[1], value[name])
            elif shape.element is not None:
                made["f:" + name] = _whole(shape.element, value[name])
            else:
                raise Mismatch(f".{name}: field not declared in schema")
        return made
    for child in value:
        element = item_element(shape, child)
        made[element] = LEAF if element in made else _whole(shape.element, child)
    return fieldpath.normal(made) if len(made) > 2 else made


def _compare(type_: Type, old: Json, new: Json) -> _Nodes | None:
    """Return the nodes for a part that is on both sides; None where it is the same."""
    if old is new:
        return None
    if type_.leaf:
        return None if equal(old, new) else _MODIFIED
    shape = type_.shape(new)
    before = type_.shape(old)
    if shape is before:
        return _compare_as(shape, old, new)
    return _joined(_compare_as(before, old, new), _compare_as(shape, old, new))


def _compare_as(shape: ListType | MapType | None, old: Json, new: Json) -> _Nodes | None:
    if shape is not None and not shape.atomic:
        left = old if old.__class__ is shape.kind else shape.kind()
        right = new if new.__class__ is shape.kind else shape.kind()
        if left or right:
            if isinstance(shape, MapType):
                return _compare_maps(shape, left, right)
            return None if equal(left, right) else _compare_lists(shape, left, right)
    return None if equal(old, new) else _MODIFIED


def _compare_maps(type_: MapType, old: dict[str, Json], new: dict[str, Json]) -> _Nodes | None:
    removed: FieldSet = {}
    modified: FieldSet = {}
    added: FieldSet = {}
    fields, others = type_.fields, type_.element
    for name, before in old.items():
        declared = fields.get(name)
        if declared is not None:
            element, below = declared
        elif others is not None:
            element, below = "f:" + name, others
        else:
            raise Mismatch(f".{name}: field not declared in schema")
        if name not in new:
            removed[element] = LEAF if below.leaf else _whole(below, before)
            continue
        after = new[name]
        if before is after or (before.__class__ in _PLAIN and before.__class__ is after.__class__ and before == after):
            continue
        nodes = _compare(below, before, after)
        if nodes is not None:
            _place(element, nodes, removed, modified, added)
    for name, after in new.items():
        if name in old:
            continue
        declared = fields.get(name)
        if declared is not None:
            added[declared[0]] = LEAF if declared[1].leaf else _whole(declared[1], after)
        elif others is not None:
            added["f:" + name] = _whole(others, after)
        else:
            raise Mismatch(f".{name}: field not declared in schema")
    return _gathered(removed, modified, added)


def _compare_lists(type_: ListType, old: list[Json], new: list[Json]) -> _Nodes | None:
    removed: FieldSet = {}
    modified: FieldSet = {}
    added: FieldSet = {}
    before, after = _by_element(type_, old), _by_element(type_, new)
    for element, lefts in before.items():
        rights = after.get(element, [])
        if len(lefts) > 1 and len(rights) > 1:
            # Items that occur more than once are compared as if they were one atomic item.
            if not equal(lefts, rights):
                modified[element] = LEAF
        elif len(lefts) > 1:
            if rights:
                added[element] = _whole(type_.element, rights[0])
            removed[element] = LEAF
        elif len(rights) > 1:
            removed[element] = _whole(type_.element, lefts[0])
            added[element] = LEAF
        elif not rights:
            removed[element] = _whole(type_.element, lefts[0])
        else:
            nodes = _compare(type_.element, lefts[0], rights[0])
            if nodes is not None:
                _place(element, nodes, removed, modified, added)
    for element, rights in after.items():
        if element not in before:
            added[element] = LEAF if len(rights) > 1 else _whole(type_.element, rights[0])
    return _gathered(removed, modified, added)


def _by_element(type_: ListType, items: list[Json]) -> dict[str, list[Json]]:
    made: dict[str, list[Json]] = {}
    for item in items:
        made.setdefault(item_element(type_, item), []).append(item)
    return made


def _place(element: str, nodes: _Nodes, removed: FieldSet, modified: FieldSet, added: FieldSet) -> None:
    if nodes[0] is not None:
        removed[element] = nodes[0]
    if nodes[1] is not None:
        modified[element] = nodes[1]
    if nodes[2] is not None:
        added[element] = nodes[2]


def _gathered(removed: FieldSet, modified: FieldSet, added: FieldSet) -> _Nodes | None:
    if not removed and not modified and not added:
        return None
    return (
        fieldpath.normal(removed) if removed else None,
        fieldpath.normal(modified) if modified else None,
        fieldpath.normal(added) if added else None,
    )


def _joined(a: _Nodes | None, b: _Nodes | None) -> _Nodes | None:
    if a is None or b is None:
        return a or b
    removed, modified, added = (
        right if left is None else left if right is None else fieldpath.union_nodes(left, right)
        for left, right in zip(a, b, strict=True)
    )
    return removed, modified, added
