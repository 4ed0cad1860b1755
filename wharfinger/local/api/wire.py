"""The types of Kubernetes' built-in kinds as its own code has them: names, numbers, which are always there. Pure.

Read from `kinds/builtin/wire.json`, which `deploy/neighbours/wire.py` makes from the types of k8s.io/api.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

from wharfinger.core.errors import Malformed
from wharfinger.core.quantity import Quantity

SCALARS = frozenset(
    {"string", "int", "bool", "bytes", "double", "time", "microtime", "quantity", "intstr", "json", "[]string"}
)
"""Types of fields that are not messages."""


_ZERO: Final[dict[str, Any]] = {"string": "", "int": 0, "bool": False, "double": 0}


class Field(NamedTuple):
    """One field of a message, as the table has it."""

    name: str
    type: str
    is_list: bool
    is_map: bool
    optional: bool
    shown_when_zero: bool
    inline: bool


class Table(NamedTuple):
    """Messages by name, fields by number; the message of each `APIVERSION KIND`."""

    kinds: dict[str, str]
    messages: dict[str, dict[int, Field]]


@cache
def table() -> Table:
    """Return the table."""
    text = resources.files("wharfinger.kinds.builtin").joinpath("wire.json").read_bytes()
    loaded = json.loads(text)
    messages = {
        name: {int(entry.split(" ")[0]): _field(*entry.split(" ")[1:]) for entry in entries}
        for name, entries in loaded["messages"].items()
    }
    return Table(loaded["kinds"], messages)


def _field(name: str, text: str) -> Field:
    marks = text[len(text.rstrip("*!^")) :]
    kind = text.rstrip("*!^")
    is_map, kind = kind.startswith("{}"), kind.removeprefix("{}")
    is_list, kind = kind.startswith("[]") and not is_map, kind if is_map else kind.removeprefix("[]")
    return Field(name, kind, is_list, is_map, "*" in marks, "!" in marks, "^" in marks)


def empty(api_version: str, kind: str) -> dict[str, Any]:
    """Return what an object of a built-in kind has before anything is set, as Go writes it: records and zero values.

    Nobody comes to own them (`merge.managed`). Empty for a kind without a message.
    """
    message = table().kinds.get(f"{api_version} {kind}")
    return _empty(message) if message else {}


def _empty(message: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for field in _fields(message):
        if field.is_list or field.is_map or field.optional:
            if field.shown_when_zero:
                made[field.name] = None
        elif field.type not in SCALARS:
            made[field.name] = _empty(field.type)
        elif field.shown_when_zero:
            made[field.name] = _ZERO.get(field.type)
    return made


Normalize = Callable[[Any], None]


@cache
def normalizer(api_version: str, kind: str) -> Normalize | None:
    """Return what writes an object of a built-in kind, in place, as Go writes it after reading it; None without one.

    Records and zero values that are always there are filled in; empty lists and maps, and zero values that Go leaves
    out, go; quantities are written in their canonical form.
    """
    message = table().kinds.get(f"{api_version} {kind}")
    return _normalizer(message) if message else None


def _fields(message: str) -> Iterator[Field]:
    for field in table().messages[message].values():
        if field.inline:
            yield from _fields(field.type)
        else:
            yield field


@cache
def _normalizer(message: str) -> Normalize:
    plan: list[tuple[str, str, Any, str | None]] = []
    for field in _fields(message):
        below = None if field.type in SCALARS else field.type
        if field.is_list or field.is_map:
            sort = "list" if field.is_list else "quantities" if field.type == "quantity" else "map"
            plan.append((field.name, sort, field.shown_when_zero, below))
        elif below is not None:
            plan.append((field.name, "pointer" if field.optional else "record", None, below))
        elif field.type == "quantity":
            plan.append((field.name, "quantity", None, None))
        elif not field.optional and field.type in _ZERO:
            plan.append((field.name, "shown" if field.shown_when_zero else "scalar", _ZERO[field.type], None))

    def normalize(value: Any) -> None:
        for name, sort, extra, below in plan:
            child = value.get(name)
            if child is None:
                if sort == "record":
                    child = value[name] = {}
                elif sort == "shown":
                    value[name] = extra
                    continue
                else:
                    continue
            kind = type(child)
            if sort == "scalar":
                if child == extra and kind is type(extra):
                    del value[name]
            elif sort == "quantity":
                value[name] = _canonical(child)
            elif sort == "quantities":
                if kind is dict:
                    for key, amount in child.items():
                        child[key] = _canonical(amount)
                    if not child and not extra:
                        del value[name]
            elif sort == "list":
                if kind is list:
                    if not child and not extra:
                        del value[name]
                    elif below is not None:
                        _each(child, below)
            elif sort == "map":
                if kind is dict:
                    if not child and not extra:
                        del value[name]
                    elif below is not None:
                        _each(child.values(), below)
            elif kind is dict and below is not None:
                _normalizer(below)(child)

    return normalize


def _canonical(amount: Any) -> Any:
    """Return a quantity in its canonical form; what is none is left for validation to name."""
    try:
        return str(Quantity.parse(str(amount)))
    except Malformed:
        return amount


def _each(values: Iterable[Any], message: str) -> None:
    step = _normalizer(message)
    for value in values:
        if type(value) is dict:
            step(value)
