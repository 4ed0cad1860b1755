r"""Kubernetes' protobuf, read into the JSON that it stands for. Pure.

Typed Go clients (kubectl's `create`, `run` and `auth` among them) send built-in kinds in protobuf and
accept JSON back; so requests are read, and answers are never written, in it. A body is the four bytes
`k8s\0` and a `runtime.Unknown` message, which holds kind and apiVersion and the object's own message.
Numbers and types of the fields are those of `kinds/builtin/wire.json`. Zero values, which these
messages always carry, are left out where JSON would leave them out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

from wharfinger.core.clock import MILLISECOND, SECOND, rfc3339, rfc3339_micro
from wharfinger.core.document import Json, parse_json
from wharfinger.core.errors import Malformed, WharfingerError
from wharfinger.local.api.wire import table

MAGIC: Final = b"k8s\x00"
_DEEPEST: Final = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MICROSECOND: Final = MILLISECOND // 1000


def read(data: bytes) -> Json:
    """Return the object that the protobuf body `data` holds.

    Raises `Malformed` for anything that is not one, and for kinds that have no protobuf form here.
    """
    if not data.startswith(MAGIC):
        raise Malformed("expected a protobuf body of Kubernetes, which starts with k8s\\0")
    kind = version = ""
    raw = b""
    for number, value in _entries(data[len(MAGIC) :]):
        if number == 1 and isinstance(value, bytes):
            for inner, text in _entries(value):
                if inner == 1 and isinstance(text, bytes):
                    version = _text(text)
                elif inner == 2 and isinstance(text, bytes):
                    kind = _text(text)
        elif number == 2 and isinstance(value, bytes):
            raw = value
    kinds = table().kinds
    message = kinds.get(f"{version} {kind}") or kinds.get(f"* {kind}")
    if message is None:
        raise Malformed(f"{version} {kind} has no protobuf form here: send it as JSON")
    return {"apiVersion": version, "kind": kind, **_message(raw, message, 0)}


def _message(data: bytes, name: str, depth: int) -> dict[str, Any]:
    if depth > _DEEPEST:
        raise Malformed(f"expected at most {_DEEPEST} levels of nesting")
    fields = table().messages[name]
    made: dict[str, Any] = {}
    for number, raw in _entries(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.inline:
            made.update(_message(_bytes(raw), field.type, depth + 1))
        elif field.is_map:
            key, value = _pair(_bytes(raw), field.type, depth)
            made.setdefault(field.name, {})[key] = value
        elif field.is_list:
            made.setdefault(field.name, []).extend(_items(raw, field.type, depth))
        else:
            value = _value(raw, field.type, depth)
            if field.optional or field.shown_when_zero or value not in ("", 0, False, None, {}):
                made[field.name] = value
    return made


def _items(raw: int | bytes, kind: str, depth: int) -> list[Any]:
    """Return the items of one entry of a list; numbers may come packed."""
    if kind in {"int", "bool"} and isinstance(raw, bytes):
        found, position = [], 0
        while position < len(raw):
            number, position = _varint(raw, position)
            found.append(_value(number, kind, depth))
        return found
    return [_value(raw, kind, depth)]


def _pair(data: bytes, kind: str, depth: int) -> tuple[str, Any]:
    key, value = "", _value(b"", kind, depth) if kind not in {"int", "bool", "double"} else 0
    for number, raw in _entries(data):
        if number == 1:
            key = _text(_bytes(raw))
        elif number == 2:
            value = _value(raw, kind, depth)
    return key, value


def _value(raw: int | bytes, kind: str, depth: int) -> Any:
    match kind:
        case "string":
            return _text(_bytes(raw))
        case "int":
            number = _int(raw)
            return number - (1 << 64) if number >= 1 << 63 else number
        case "bool":
            return _int(raw) != 0
        case "bytes":
            return base64.b64encode(_bytes(raw)).decode("ascii")
        case "time" | "microtime":
            return _time(_bytes(raw), micro=kind == "microtime")
        case "quantity":
            return next((_text(_bytes(value)) for number, value in _entries(_bytes(raw)) if number == 1), "0")
        case "intstr":
            return _int_or_string(_bytes(raw))
        case "json":
            return _json(_bytes(raw))
        case "[]string":
            return [_text(_bytes(value)) for number, value in _entries(_bytes(raw)) if number == 1]
        case _:
            return _message(_bytes(raw), kind, depth + 1)


def _time(data: bytes, *, micro: bool) -> str | None:
    found = dict(_entries(data))
    seconds, nanos = _value(found.get(1, 0), "int", 0), _value(found.get(2, 0), "int", 0)
    if not found or not 0 <= seconds < 1 << 37:
        return None
    return (
        rfc3339_micro(seconds * SECOND + nanos // _MICROSECOND * _MICROSECOND) if micro else rfc3339(seconds * SECOND)
    )


def _int_or_string(data: bytes) -> int | str:
    found = dict(_entries(data))
    if _value(found.get(1, 0), "int", 0):
        return _text(_bytes(found.get(3, b"")))
    number: int = _value(found.get(2, 0), "int", 0)
    return number


def _json(data: bytes) -> Json:
    raw = next((_bytes(value) for number, value in _entries(data) if number == 1), b"")
    try:
        return parse_json(raw) if raw else None
    except WharfingerError as error:
        raise Malformed(f"expected JSON inside the protobuf body: {error.message}") from error


def _entries(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and raw value of every entry of a message (protobuf encoding, "Message Structure")."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == _BYTES:
            length, position = _varint(data, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise Malformed(f"expected a protobuf wire type of 0, 1, 2 or 5, got {wire}")
        if position + length > len(data):
            raise Malformed("expected a whole protobuf message, got one that is cut off")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise Malformed("expected a protobuf number of at most 64 bits, got one that is cut off or longer")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
        shift += 7


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("expected UTF-8 in a text of the protobuf body") from error


def _bytes(raw: int | bytes) -> bytes:
    if isinstance(raw, int):
        raise Malformed("expected bytes in the protobuf body, got a number")
    return raw


def _int(raw: int | bytes) -> int:
    if isinstance(raw, bytes):
        raise Malformed("expected a number in the protobuf body, got bytes")
    return raw
