"""The wire form of protocol buffers: fields to bytes and back, as much of it as the Workload API's messages need.

A reader takes any bytes and gives fields or `BadIdentity`; whoever asks for the known ones passes over the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from wharfinger.core.errors import excerpt
from wharfinger.identity.fault import BadIdentity

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST_FIELD: Final = 2**29 - 1


def text(number: int, value: str) -> bytes:
    """Return a string field; nothing for the empty string, its default."""
    return data(number, value.encode("utf-8")) if value else b""


def data(number: int, value: bytes) -> bytes:
    """Return a bytes or message field, also when it is empty: an element of a repeated one."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def entry(number: int, key: str, value: bytes) -> bytes:
    """Return one entry of a map from string to bytes or message."""
    return data(number, data(1, key.encode("utf-8", "replace")) + data(2, value))


def integer(number: int, value: int) -> bytes:
    """Return an integer, enum or bool field that is not negative."""
    return _varint(number << 3 | _VARINT) + _varint(value)


def double(number: int, value: float) -> bytes:
    """Return a double field."""
    return _varint(number << 3 | _FIXED64) + struct.pack("<d", value)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of `message` in order: ints for varints, bytes for all else.

    Raises `BadIdentity` when it is not a message.
    """
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        number, kind = key >> 3, key & 7
        if not 1 <= number <= _LARGEST_FIELD:
            raise _bad(f"field number {number}")
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise _bad(f"wire type {kind}")
        if size > len(message) - at:
            raise _bad(f"a field of {size} bytes, {len(message) - at} are left")
        yield number, message[at : at + size]
        at += size


def all_bytes(message: bytes, number: int) -> list[bytes]:
    """Return the values of a repeated bytes or message field. Raises `BadIdentity`."""
    return [value for found, value in fields(message) if found == number and isinstance(value, bytes)]


def all_texts(message: bytes, number: int) -> list[str]:
    """Return the values of a repeated string field. Raises `BadIdentity`."""
    return [_decoded(value) for value in all_bytes(message, number)]


def last_bytes(message: bytes, number: int) -> bytes:
    """Return a bytes field, the last where there are several, empty where there is none. Raises `BadIdentity`."""
    found = all_bytes(message, number)
    return found[-1] if found else b""


def last_text(message: bytes, number: int) -> str:
    """Return a string field, the last where there are several, empty where there is none. Raises `BadIdentity`."""
    return _decoded(last_bytes(message, number))


def entries(message: bytes, number: int) -> dict[str, bytes]:
    """Return a map from string to bytes; the last entry of a key counts. Raises `BadIdentity`."""
    return {last_text(item, 1): last_bytes(item, 2) for item in all_bytes(message, number)}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise _bad("a number that is cut short")
        octet = message[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise _bad("a number of more than ten bytes")


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(f"text that is not UTF-8: {excerpt(value[:40])}") from error


def _bad(what: str) -> BadIdentity:
    return BadIdentity("bad_message", f"expected a protobuf message, got {what}")
