"""A growing tree over tiles: the hashes at its right edge in memory, full tiles read when they are needed.

No I/O: what reads a full tile is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from wharfinger.supply.tlog.merkle import consistency_proof, inclusion_proof, range_hash
from wharfinger.supply.tlog.tiles import HEIGHT, WIDTH, Tile, fold, tile_over

ReadTile: TypeAlias = Callable[[Tile], list[bytes]]
"""Returns the hashes of a full tile."""
_MOST_REMEMBERED: Final = 1 << 17


class Tree:
    """The tree of a log of `size` leaves; `edge[level]` are the hashes of the last tile of a level that is not full.

    A new tree is empty; `resumed` gives one whose full tiles are there already.
    """

    def __init__(self, read_tile: ReadTile) -> None:
        self.size = 0
        self.edge: list[list[bytes]] = [[]]
        self._read_tile = read_tile
        self._nodes: dict[tuple[int, int], bytes] = {}

    @classmethod
    def resumed(cls, full: int, read_tile: ReadTile) -> Tree:
        """Return the tree over the first `full` leaves, a multiple of a tile's width."""
        tree = cls(read_tile)
        tree.size = full
        level = 0
        while full >> (HEIGHT * (level + 1)):
            level += 1
            count = full >> (HEIGHT * level)
            first = count - count % WIDTH
            tree.edge.append([fold(read_tile(Tile(level - 1, index))) for index in range(first, count)])
        return tree

    def extend(self, leaves: Iterable[bytes]) -> list[tuple[Tile, list[bytes]]]:
        """Append the leaf hashes `leaves`; return the tiles that became full, lower levels first."""
        full: list[tuple[Tile, list[bytes]]] = []
        for leaf in leaves:
            self.size += 1
            level, value = 0, leaf
            while True:
                if level == len(self.edge):
                    self.edge.append([])
                row = self.edge[level]
                row.append(value)
                if len(row) < WIDTH:
                    break
                full.append((Tile(level, (self.size >> (HEIGHT * (level + 1))) - 1), row))
                value = fold(row)
                self._remember(HEIGHT * (level + 1), full[-1][0].index, value)
                self.edge[level] = []
                level += 1
        return full

    def partial(self) -> list[tuple[Tile, list[bytes]]]:
        """Return the tiles at the right edge that are not full, without the empty ones."""
        return [
            (Tile(level, self.size >> (HEIGHT * (level + 1)), len(row)), row)
            for level, row in enumerate(self.edge)
            if row
        ]

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a perfect subtree (`merkle.Nodes`)."""
        known = self._nodes.get((level, index))
        if known is None:
            tile, start, end = tile_over(level, index, self.size)
            assert tile.level is not None
            last = self.size >> (HEIGHT * (tile.level + 1))
            row = self.edge[tile.level] if tile.index == last else self._read_tile(tile)
            known = fold(row[start:end])
            self._remember(level, index, known)
        return known

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the tree, or of the one that it was when it had `size` leaves."""
        return range_hash(0, self.size if size is None else size, self.node)

    def inclusion(self, index: int) -> list[bytes]:
        """Return the proof that the leaf `index` is in the tree."""
        return inclusion_proof(index, self.size, self.node)

    def consistency(self, size: int) -> list[bytes]:
        """Return the proof that the tree of `size` leaves, at least 1, is a prefix of this one."""
        return consistency_proof(size, self.size, self.node)

    def _remember(self, level: int, index: int, value: bytes) -> None:
        if len(self._nodes) >= _MOST_REMEMBERED:
            self._nodes.clear()
        self._nodes[level, index] = value
