"""The archive of a proof: a tar (POSIX ustar) that can be written in one way only.

Any tar reads it. Ours reads it strictly: the same parts give the same bytes, and other bytes are refused, so that no
byte of a proof can be changed without notice, not even one that no tool looks at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from wharfinger.core.errors import Malformed, excerpt

_BLOCK: Final = 512
_RECORD: Final = 20 * _BLOCK
MOST_PARTS: Final = 256
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*", re.ASCII)
LONGEST_NAME: Final = 99


def write(parts: Mapping[str, bytes]) -> bytes:
    """Return the archive of `parts`, in the order of their names. Raises `Malformed` for a name that is no path."""
    made = bytearray()
    for name, data in sorted(parts.items()):
        made += _header(name, len(data)) + data + bytes(-len(data) % _BLOCK)
    made += bytes(2 * _BLOCK)
    return bytes(made + bytes(-len(made) % _RECORD))


def read(data: bytes) -> dict[str, bytes]:
    """Return the parts in the archive `data`; its other bytes are for `check` to judge. Raises `Malformed`."""
    parts: dict[str, bytes] = {}
    at = 0
    while at + _BLOCK <= len(data):
        header = data[at : at + _BLOCK]
        if not any(header):
            return parts
        name = header[:100].split(b"\0", 1)[0]
        size = header[124:136].strip(b"\0 ")
        try:
            length, path = int(size or b"x", 8), name.decode("ascii")
        except ValueError as error:
            raise Malformed(f"archive: expected a header at byte {at}") from error
        start = at + _BLOCK
        if length < 0 or start + length > len(data):
            raise Malformed(f"archive: {excerpt(path)} is cut short")
        if path in parts or len(parts) >= MOST_PARTS:
            raise Malformed(f"archive: expected at most {MOST_PARTS} parts, each once, got {excerpt(path)}")
        parts[path] = data[start : start + length]
        at = start + length + (-length % _BLOCK)
    raise Malformed("archive: expected an end, got none")


def check(parts: Mapping[str, bytes], data: bytes) -> None:
    """Raise `Malformed` unless `data` is the one way to write `parts`, naming the first byte that differs."""
    wanted = write(parts)
    if wanted == data:
        return
    at = next((i for i, (one, other) in enumerate(zip(wanted, data, strict=False)) if one != other), len(wanted))
    raise Malformed(f"archive: byte {at} is not what it is to be")


def _header(name: str, size: int) -> bytes:
    if _NAME.fullmatch(name) is None or len(name) > LONGEST_NAME:
        raise Malformed(f"archive: expected a plain path, got {excerpt(name)}")
    fields = (
        name.encode().ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size, b"00000000000\0",
        b" " * 8, b"0", bytes(100), b"ustar\x0000", bytes(32), bytes(32), bytes(8), bytes(8), bytes(155),
    )  # fmt: skip
    header = b"".join(fields).ljust(_BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]
