"""Pruning: dropping what a schema does not know (apiextensions, schema/pruning).

A property that is neither listed nor allowed by `additionalProperties` is dropped, unless the object preserves
unknown fields; below what is known, pruning goes on either way. `apiVersion`, `kind` and `metadata` of a resource
are kept whole: `objectmeta` judges them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from wharfinger.core.document import Json
from wharfinger.kinds.structural.node import Node

META_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata"})

Found: TypeAlias = "list[str] | None"
"""Paths of unknown fields, from here on: `.name`, `[0].name`."""

Step: TypeAlias = Callable[[Json, bool], Found]
"""Finds the unknown fields of an object or list; drops them when the second argument says so."""


def compile_pruning(node: Node, *, root: bool) -> Callable[[Json, bool], list[str]]:
    """Return what finds, and drops if asked, the unknown fields of values of `node`.

    `root` says that the value is a whole resource. The paths come sorted.
    """
    step = _step(replace(node, embedded=True) if root else node, top=True)

    def prune(value: Json, drop: bool) -> list[str]:
        kind = type(value)
        found = step(value, drop) if kind is dict or kind is list else None
        return sorted(path.removeprefix(".") for path in found) if found else []

    return prune


def _step(node: Node | None, *, top: bool = False) -> Step:
    if node is None:
        return _unknown_top if top else _unknown
    in_object = _object_step(node, top=top)
    if node.preserve:
        # A list in what is preserved is looked into only along schemas: what has none is kept.
        in_list = _list_step(_step(replace(node.items, preserve=True))) if node.items is not None else _keep
    else:
        in_list = _list_step(_step(node.items))
    return lambda value, drop: in_object(value, drop) if type(value) is dict else in_list(value, drop)


def _keep(_value: Json, _drop: bool) -> Found:
    return None


def _object_step(node: Node, *, top: bool) -> Step:
    steps: dict[str, Step | None] = {name: _step(child) for name, child in node.properties.items()}
    if node.embedded:
        steps.update(dict.fromkeys(META_FIELDS))
    other: Step | None = None
    if node.additional is not None:
        other = _step(node.additional if isinstance(node.additional, Node) else None)
    strict = other is None and not node.preserve
    step_of = steps.get
    known = steps.keys()

    def prune(value: Json, drop: bool) -> Found:
        found: Found = None
        doomed: list[str] | None = None
        for name, child in value.items():
            kind = type(child)
            if kind is dict or kind is list:
                step = step_of(name, other)
                if step is not None:
                    below = step(child, drop)
                    if below:
                        found = [*(found or ()), *(f".{name}{path}" for path in below)]
                    continue
            if strict and name not in known:
                doomed = [*(doomed or ()), name]
        if doomed:
            found = [*(found or ()), *(f".{name}" for name in doomed if not (top and name in META_FIELDS))]
            if drop:
                for name in doomed:
                    del value[name]
        return found

    return prune


def _list_step(items: Step) -> Step:
    def prune(value: Json, drop: bool) -> Found:
        found: Found = None
        for index, child in enumerate(value):
            kind = type(child)
            if kind is dict or kind is list:
                below = items(child, drop)
                if below:
                    found = [*(found or ()), *(f"[{index}]{path}" for path in below)]
        return found

    return prune


def _unknown(value: Json, drop: bool) -> Found:
    """Everything in an object without a schema is unknown."""
    if type(value) is list:
        return _unknown_items(value, drop)
    found = [f".{name}" for name in value]
    if drop:
        value.clear()
    return found


def _unknown_top(value: Json, drop: bool) -> Found:
    found = _unknown(value, drop)
    return [path for path in found or () if path[1:] not in META_FIELDS] if type(value) is dict else found


_unknown_items = _list_step(_unknown)
