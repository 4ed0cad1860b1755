"""Path elements: one step from a value to a part of it, as the text that fieldsV1 uses for it.

Four kinds (structured-merge-diff v6, `fieldpath.PathElement`): a field of a map `f:spec`, an item of
a keyed list `k:{"name":"web"}`, an item of a set `v:"a"`, an index `i:3`. Inside Wharfinger an element
is always its canonical text, so that equal elements are equal strings: keys sorted by name, integral
numbers without a fraction, JSON as Go writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from wharfinger.core.document import Json, parse_json
from wharfinger.core.errors import Malformed, excerpt

_ESCAPED_IN_VALUES = re.compile('["\\\\\x00-\x1f<>&\u2028\u2029]')
_ESCAPED_IN_NAMES = re.compile('["\\\\\x00-\x1f]')
_SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_INDEX = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_SMALLEST_PLAIN, _FIRST_EXPONENT = 1e-6, 1e21
"""Go writes a float from the first to below the second without an exponent."""


def field(name: str) -> str:
    """Return the element of the field `name` of a map."""
    return "f:" + name


def index(position: int) -> str:
    """Return the element of the item at `position`, from 0."""
    return f"i:{position}"


def item(value: Json) -> str:
    """Return the element of the item `value` of a set."""
    return "v:" + value_text(value)


def keyed(keys: Iterable[tuple[str, Json]]) -> str:
    """Return the element of the item with these `keys` of a keyed list; the keys are sorted by name."""
    return "k:{" + ",".join([f"{_name_text(name)}:{value_text(value)}" for name, value in keys]) + "}"


def value_text(value: Json) -> str:
    """Return `value` as the JSON that Go's encoder writes: names sorted, `<`, `>` and `&` escaped."""
    kind = value.__class__
    if kind is str:
        return f'"{_ESCAPED_IN_VALUES.sub(_escape, value)}"'
    if kind is int:
        return int.__repr__(value)
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "null"
    if kind is float:
        return _float_text(value)
    if kind is list:
        return "[" + ",".join(value_text(one) for one in value) + "]"
    return "{" + ",".join(f"{value_text(name)}:{value_text(value[name])}" for name in sorted(value)) + "}"


def parse(text: str) -> str | None:
    """Return the canonical form of the element `text`; None for a kind that is unknown.

    Unknown kinds are for a later version of the format to know; readers drop them. Raises `Malformed`,
    also for keys that name one field twice and for text that is not Unicode (a lone surrogate).
    """
    kind = text[:2]
    if len(kind) < 2:
        raise Malformed(f"expected a path element of at least 2 characters, got {excerpt(text)}")
    if kind[1] != ":":
        raise Malformed(f"expected a path element such as f:spec, got {excerpt(text)}")
    if kind == "f:":
        return text
    if kind == "k:":
        keys = parse_json(text[2:])
        if keys is None:
            keys = {}
        if not isinstance(keys, dict):
            raise Malformed(f"expected the keys of a list item as an object, got {excerpt(text)}")
        return _unicode(keyed(sorted(keys.items())))
    if kind == "v:":
        return _unicode(item(parse_json(text[2:])))
    if kind == "i:":
        if _INDEX.fullmatch(text, 2) is None:
            raise Malformed(f"expected an index, got {excerpt(text)}")
        return index(int(text[2:]))
    return None


def show(element: str) -> str:
    """Return a canonical `element` as it is shown in a path: `.spec`, `[name="web"]`, `[="a"]`, `[3]`."""
    kind, rest = element[0], element[2:]
    if kind == "f":
        return "." + rest
    if kind == "k":
        return "[" + ",".join(f"{name}={_shown(value)}" for name, value in json.loads(rest).items()) + "]"
    if kind == "v":
        return f"[={_shown(json.loads(rest))}]"
    return f"[{rest}]"


def key_names(element: str) -> list[str]:
    """Return the names of the key fields that a canonical `element` holds; none for the other kinds."""
    return list(json.loads(element[2:])) if element.startswith("k:") else []


def order(element: str) -> tuple[Any, ...]:
    """Return what puts canonical elements into fieldsV1's order: ".", fields, keys, values, indexes."""
    kind = element[:2]
    if kind == "f:":
        return (1, element)
    if kind == "k:":
        return (2, [(name, _rank(value)) for name, value in json.loads(element[2:]).items()])
    if kind == "v:":
        return (3, _rank(json.loads(element[2:])))
    return (4, int(element[2:])) if kind == "i:" else (0,)


def _rank(value: Json) -> tuple[int, Any]:
    """Order values as Go's `value.Compare`: numbers, strings, booleans, lists, maps, null."""
    if value is None:
        return (5, None)
    if isinstance(value, bool):
        return (2, value)
    if isinstance(value, int | float):
        return (0, value)
    if isinstance(value, str):
        return (1, value)
    if isinstance(value, list):
        return (3, [_rank(one) for one in value])
    return (4, [(name, _rank(value[name])) for name in sorted(value)])


def _unicode(element: str) -> str:
    try:
        element.encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"expected a path element in Unicode, got {excerpt(element)}") from error
    return element


def _name_text(name: str) -> str:
    return f'"{_ESCAPED_IN_NAMES.sub(_escape, name)}"'


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return _SHORT_ESCAPES.get(character) or f"\\u{ord(character):04x}"


def _float_text(value: float) -> str:
    text = repr(value)
    if "e" in text and _SMALLEST_PLAIN <= abs(value) < _FIRST_EXPONENT:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def _shown(value: Json) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return "[" + ",".join(_shown(one) for one in value) + "]"
    if isinstance(value, dict):
        return "".join(f"{name}={_shown(one)}" for name, one in value.items())
    return value_text(value)


_GO_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
    '"': '\\"', "\\": "\\\\",
}  # fmt: skip


def quoted(text: str) -> str:
    """Return `text` in quotes, escaped as Go's `%q` does: safe to show."""
    return '"' + "".join(c if c.isprintable() and c not in _GO_ESCAPES else _go_escape(c) for c in text) + '"'


def _go_escape(character: str) -> str:
    if character in _GO_ESCAPES:
        return _GO_ESCAPES[character]
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
