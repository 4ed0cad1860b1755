"""The types of Kubernetes' built-in kinds as its own code has them: names, numbers, which are always there. Pure.

Read from `kinds/builtin/wire.json`, which `deploy/neighbours/wire.py` makes from the types of k8s.io/api.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

SCALARS = frozenset(
    {"string", "int", "bool", "bytes", "double", "time", "microtime", "quantity", "intstr", "json", "[]string"}
)
"""Types of fields that are not messages."""


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
    """Return what an object of a built-in kind has before anything is set: the records that are always there.

    Nobody comes to own them (`merge.managed`). Empty for a kind without a message.
    """
    message = table().kinds.get(f"{api_version} {kind}")
    return _empty(message) if message else {}


def _empty(message: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for field in table().messages[message].values():
        if field.type in SCALARS or field.is_list or field.is_map or field.optional:
            continue
        if field.inline:
            made.update(_empty(field.type))
        else:
            made[field.name] = _empty(field.type)
    return made
