"""Tiles: a log as files that never change, 256 hashes or entries each (C2SP tlog-tiles).

Paths and encodings only; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from wharfinger.core.errors import Malformed, TooLarge, excerpt
from wharfinger.supply.tlog.merkle import HASH_BYTES, node_hash

WIDTH: Final = 256
"""Hashes in a full tile, entries in a full bundle."""
HEIGHT: Final = 8
"""Levels of the tree in one tile."""
LONGEST_ENTRY: Final = 65535
"""Bytes of an entry: its length is written in 16 bits."""
_LAST_LEVEL: Final = 63
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its `level` (None for a bundle of entries), `index` in the level, and `width` up to 256."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """The tile's path below the log's prefix."""
        level = "entries" if self.level is None else str(self.level)
        digits = f"{self.index:03}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        path = "/".join([*("x" + group for group in groups[:-1]), groups[-1]])
        return f"tile/{level}/{path}" + (f".p/{self.width}" if self.width < WIDTH else "")

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Return the tile at `path`, the one way to write it. Raises `Malformed`."""
        match = _PATH.fullmatch(path) if len(path) <= 100 else None
        if match is None:
            raise Malformed(f"expected the path of a tile, got {excerpt(path)}")
        level = None if match["level"] == "entries" else int(match["level"])
        tile = cls(level, int(match["index"].replace("x", "").replace("/", "")), int(match["width"] or WIDTH))
        if tile.path != path or (level or 0) > _LAST_LEVEL:
            raise Malformed(f"expected the path of a tile, got {excerpt(path)}")
        return tile


def tile_over(level: int, index: int, size: int) -> tuple[Tile, int, int]:
    """Return the tile of a log of `size` that holds or covers the tree node (`level`, `index`).

    Beside it the range of the tile's hashes that the node is over, [start, end). The node must be perfect
    in a tree of `size`.
    """
    tile_level, rest = divmod(level, HEIGHT)
    first = index << rest
    number, start = divmod(first, WIDTH)
    available = (size >> (tile_level * HEIGHT)) - number * WIDTH
    return Tile(tile_level, number, min(WIDTH, available)), start, start + (1 << rest)


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the hash over `hashes`, the leaves of a perfect subtree (a power of two of them)."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def split_hashes(data: bytes, tile: Tile) -> list[bytes]:
    """Return the hashes that the bytes of `tile` hold. Raises `Malformed` when they are not as many."""
    if len(data) != tile.width * HASH_BYTES:
        raise Malformed(f"{tile.path}: expected {tile.width * HASH_BYTES} bytes, got {len(data)}")
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def encode_entries(entries: Iterable[bytes]) -> bytes:
    """Return the bundle of `entries`. Raises `TooLarge` for one of more than `LONGEST_ENTRY` bytes."""
    made = bytearray()
    for entry in entries:
        if len(entry) > LONGEST_ENTRY:
            raise TooLarge(f"expected a log entry of at most {LONGEST_ENTRY} bytes, got {len(entry)}")
        made += len(entry).to_bytes(2, "big") + entry
    return bytes(made)


def split_entries(data: bytes, tile: Tile) -> list[bytes]:
    """Return the entries in the bytes of the bundle `tile`. Raises `Malformed` when they are not as many."""
    try:
        entries = split_all_entries(data)
    except Malformed as error:
        raise Malformed(f"{tile.path}: {error}") from error
    if len(entries) != tile.width:
        raise Malformed(f"{tile.path}: expected {tile.width} entries, got {len(entries)}")
    return entries


def split_all_entries(data: bytes) -> list[bytes]:
    """Return the entries in `data`, however many. Raises `Malformed` when the last one is cut short."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if len(data) - at < 2 or end > len(data):
            raise Malformed(f"entry {len(entries)} is cut short")
        entries.append(data[at + 2 : end])
        at = end
    return entries
