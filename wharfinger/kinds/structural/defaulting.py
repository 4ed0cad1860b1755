"""Defaulting: what a schema fills in where an object says nothing (apiextensions, schema/defaulting).

A missing property gets its default; so does one that is null and may not be. What is filled in is itself
defaulted, and is never shared between objects. Properties that are null, may not be and have no default
are dropped by `compile_nulls`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from wharfinger.core.document import Json
from wharfinger.kinds.structural.node import Node

Change: TypeAlias = Callable[[Json], None]
"""Changes an object or list in place; leaves anything else alone."""


def compile_defaults(node: Node | None) -> Change | None:
    """Return what fills in the defaults of `node` and below; None when there are none."""
    if node is None:
        return None
    in_object, in_list = _object_defaults(node), _list_defaults(node.items)
    if in_object is None and in_list is None:
        return None

    def fill(value: Json) -> None:
        kind = type(value)
        if kind is dict:
            if in_object is not None:
                in_object(value)
        elif kind is list and in_list is not None:
            in_list(value)

    return fill


def _object_defaults(node: Node) -> Change | None:
    own = [
        (name, _maker(child.default), child.nullable)
        for name, child in node.properties.items()
        if child.default is not None
    ]
    below = [(name, step) for name, child in node.properties.items() if (step := compile_defaults(child)) is not None]
    further = _further_defaults(node)
    if not own and not below and further is None:
        return None

    def fill(value: Json) -> None:
        for name, make, nullable in own:
            if name not in value or (value[name] is None and not nullable):
                value[name] = make()
        for name, change in below:
            child = value.get(name)
            if child is not None:
                change(child)
        if further is not None:
            further(value)

    return fill


def _further_defaults(node: Node) -> Change | None:
    """Return what fills in the properties that only `additionalProperties` governs."""
    further = node.additional
    if not isinstance(further, Node):
        return None
    below, known = compile_defaults(further), node.properties
    replaced = further.default is not None and not further.nullable
    if below is None and not replaced:
        return None
    make = _maker(further.default)

    def fill(value: Json) -> None:
        for name, child in value.items():
            if name not in known:
                if child is None and replaced:
                    child = value[name] = make()
                if below is not None:
                    below(child)

    return fill


def _list_defaults(items: Node | None) -> Change | None:
    if items is None:
        return None
    below = compile_defaults(items)
    replaced = items.default is not None and not items.nullable
    if below is None and not replaced:
        return None
    make = _maker(items.default)

    def fill(value: Json) -> None:
        for index, child in enumerate(value):
            if child is None and replaced:
                child = value[index] = make()
            if below is not None:
                below(child)

    return fill


def compile_nulls(node: Node | None) -> Change | None:
    """Return what drops the nulls that `node` neither allows nor replaces; None when it can meet none."""
    if node is None:
        return None
    properties = {name: (_is_dropped(child), compile_nulls(child)) for name, child in node.properties.items()}
    further = node.additional if isinstance(node.additional, Node) else None
    other: _NullRule | None = (_is_dropped(further), compile_nulls(further)) if further is not None else None
    below = compile_nulls(node.items)
    if not properties and other is None and below is None:
        return None
    rule_of = properties.get

    def drop(value: Json) -> None:
        kind = type(value)
        if kind is dict:
            doomed = None
            for name, child in value.items():
                rule = rule_of(name, other)
                if rule is None:
                    continue
                if child is None:
                    if rule[0]:
                        doomed = [*(doomed or ()), name]
                elif rule[1] is not None:
                    rule[1](child)
            for name in doomed or ():
                del value[name]
        elif kind is list and below is not None:
            for child in value:
                below(child)

    return drop


_NullRule: TypeAlias = "tuple[bool, Change | None]"


def _is_dropped(node: Node) -> bool:
    return not node.nullable and node.default is None


def _maker(value: Json) -> Callable[[], Json]:
    """Return what makes a fresh copy of a default."""
    if isinstance(value, dict):
        if not value:
            return dict
        made = {name: _maker(child) for name, child in value.items()}
        return lambda: {name: make() for name, make in made.items()}
    if isinstance(value, list):
        if not value:
            return list
        items = [_maker(child) for child in value]
        return lambda: [make() for make in items]
    return lambda: value
