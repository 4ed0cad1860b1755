"""Merging two values of one type: the second laid over the first (structured-merge-diff v6, `typed.Merge`).

Nothing is removed: maps keep the names of both, sets and keyed lists the items of both. Leaves and
atomic values are the second's. Items that both lists have stand in the second's order; the others of
the first keep their place between them.
"""

from __future__ import annotations

from wharfinger.core.document import Json
from wharfinger.local.merge import pathelement
from wharfinger.local.merge.schema import ListType, MapType, Type
from wharfinger.local.merge.typed import Mismatch, item_element


def merge(type_: Type, base: Json, over: Json) -> Json:
    """Return `over` laid over `base`, both of `type_`; the result shares parts with both.

    Raises `Mismatch` where a list of `over` has an item twice, or one without its keys.
    """
    if type_.leaf:
        return over
    shape = type_.shape(over)
    if shape is None or shape.atomic:
        return over
    if not base or base.__class__ is not shape.kind:
        return over
    if not over or over.__class__ is not shape.kind:
        return base
    return _merge_maps(shape, base, over) if isinstance(shape, MapType) else _merge_lists(shape, base, over)


def _merge_maps(type_: MapType, base: dict[str, Json], over: dict[str, Json]) -> dict[str, Json]:
    made = dict(base)
    for name, value in over.items():
        below = type_.of(name)
        if below is None:
            raise Mismatch(f".{name}: field not declared in schema")
        made[name] = merge(below, base[name], value) if name in base else value
    return made


def _merge_lists(type_: ListType, base: list[Json], over: list[Json]) -> list[Json]:
    lefts, base_items = _indexed(type_, base)
    rights, over_items = _indexed(type_, over)
    if len(over_items) < len(rights):
        twice = next(element for at, element in enumerate(rights) if element in rights[:at])
        raise Mismatch(f"duplicate entries for key {pathelement.show(twice)}")

    def merged(element: str) -> Json:
        item = over_items[element]
        return merge(type_.element, base_items[element], item) if element in base_items else item

    made: list[Json] = []
    placed: set[str] = set()
    shared = [element for element in rights if element in base_items]
    shared.reverse()
    left = right = 0
    while left < len(lefts) or right < len(rights):
        if left < len(lefts):
            element = lefts[left]
            if element not in over_items:
                made.append(base[left])
                left += 1
                continue
            if right == len(rights):
                left += 1
                continue
            if element == rights[right] or (element in placed and not shared):
                left += 1
            elif shared and shared[-1] != element:
                # Its place is where the other list has it.
                left += 1
                continue
        element = rights[right]
        made.append(merged(element))
        placed.add(element)
        right += 1
        if shared and shared[-1] == element:
            shared.pop()
    return made


def _indexed(type_: ListType, items: list[Json]) -> tuple[list[str], dict[str, Json]]:
    """Return the elements of `items` in order, and the item of each; null for one that occurs twice."""
    elements = [item_element(type_, item) for item in items]
    by_element: dict[str, Json] = {}
    for element, item in zip(elements, items, strict=True):
        by_element[element] = None if element in by_element else item
    return elements, by_element
