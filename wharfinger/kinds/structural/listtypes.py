"""List types: items of a set, and keys of a map list, occur once (apiextensions, schema/listtype)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from wharfinger.core.causes import duplicate, invalid
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem
from wharfinger.kinds.structural.node import Node
from wharfinger.kinds.structural.sameness import identity

Check: TypeAlias = Callable[[Json, str], Iterator[FieldProblem]]
"""Yields the duplicates in a value at a path."""

_UNSPECIFIED: Final = ("unspecified",)


def compile_uniqueness(node: Node | None) -> Check | None:
    """Return the check of all sets and map lists of `node` and below; None when there are none."""
    if node is None:
        return None
    properties = {name: step for name, child in node.properties.items() if (step := compile_uniqueness(child))}
    further = compile_uniqueness(node.additional) if isinstance(node.additional, Node) else None
    items = compile_uniqueness(node.items)
    own = {"set": _set_problems, "map": _map_problems}.get(node.list_type)
    if not properties and further is None and items is None and own is None:
        return None

    def in_object(value: Json, path: str) -> Iterator[FieldProblem]:
        if further is not None:
            for name, child in value.items():
                yield from further(child, f"{path}[{name}]")
        for name, step in properties.items():
            if name in value:
                yield from step(value[name], f"{path}.{name}" if path else name)

    def in_list(value: Json, path: str) -> Iterator[FieldProblem]:
        if own is not None and value:
            yield from own(value, node, path)
        if items is not None:
            for index, child in enumerate(value):
                yield from items(child, f"{path}[{index}]")

    def check(value: Json, path: str) -> Iterator[FieldProblem]:
        kind = type(value)
        if kind is dict:
            yield from in_object(value, path)
        elif kind is list:
            yield from in_list(value, path)

    return check


def _repeated(keys: list[object]) -> Iterator[int]:
    """Yield where a key occurs for the second time."""
    if len(set(keys)) == len(keys):
        return
    seen: dict[object, int] = {}
    for index, key in enumerate(keys):
        seen[key] = seen.get(key, 0) + 1
        if seen[key] == 2:
            yield index


def _are_distinct(keys: list[Json]) -> bool:
    """Tell of texts whether each occurs once; of anything else, say no: it takes a closer look."""
    return set(map(type, keys)) == {str} and len(set(keys)) == len(keys)


def _set_problems(value: list[Json], _node: Node, path: str) -> Iterator[FieldProblem]:
    if _are_distinct(value):
        return
    for index in _repeated([identity(item) for item in value]):
        yield duplicate(f"{path}[{index}]", value[index])


def _map_problems(value: list[Json], node: Node, path: str) -> Iterator[FieldProblem]:
    for index, item in enumerate(value):
        if item is not None and type(item) is not dict:
            yield invalid(f"{path}[{index}]", item, "must be an object for an array of list-type map")
            return
    names = node.list_keys
    if len(names) == 1 and _are_distinct([None if item is None else item.get(names[0]) for item in value]):
        return
    keys: list[object] = [
        tuple(identity(item[name]) if item is not None and name in item else _UNSPECIFIED for name in names)
        for item in value
    ]
    for index in _repeated(keys):
        item = value[index] or {}
        yield duplicate(f"{path}[{index}]", {name: item[name] for name in names if name in item})
