"""The growing tree over tiles: grown, resumed or computed leaf by leaf, it is one tree."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.supply.tlog.merkle import leaf_hash, node_hash, verify_consistency, verify_inclusion
from wharfinger.supply.tlog.tiles import Tile
from wharfinger.supply.tlog.tree import Tree

SIZE = 256 * 256 + 256 * 3 + 77
"""Leaves that fill a tile of level 1, so that there is a level 2."""
LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(SIZE)]


def naive(leaves: list[bytes]) -> bytes:
    """Return the root as RFC 6962 2.1 defines it, level by level."""
    row = leaves
    while len(row) > 1:
        pairs = [node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
        row = pairs + ([row[-1]] if len(row) % 2 else [])
    return row[0] if row else hashlib.sha256().digest()


class Grown:
    """A tree with the tiles that it filled."""

    def __init__(self, size: int) -> None:
        self.tiles: dict[Tile, list[bytes]] = {}
        self.tree = Tree(self.read)
        for tile, row in self.tree.extend(LEAVES[:size]):
            self.tiles[tile] = row

    def read(self, tile: Tile) -> list[bytes]:
        """Return a full tile."""
        return self.tiles[tile]


WHOLE = Grown(SIZE)
ROOTS = {size: naive(LEAVES[:size]) for size in (1, 2, 255, 256, 257, 512, 65_535, 65_536, 65_537, 66_304, SIZE)}


def test_the_root_is_that_of_the_definition_at_every_edge_of_a_tile() -> None:
    """At sizes around the edges of tiles of each level, the tree's earlier roots are RFC 6962's."""
    for size, root in ROOTS.items():
        assert WHOLE.tree.root(size) == root


def test_a_resumed_tree_is_the_one_that_was_left() -> None:
    """From full tiles alone and the leaves that fill none, the same root and the same edge."""
    full = SIZE - SIZE % 256
    resumed = Tree.resumed(full, WHOLE.read)
    assert resumed.root() == naive(LEAVES[:full])
    resumed.extend(LEAVES[full:])
    assert resumed.root() == WHOLE.tree.root() and resumed.edge == WHOLE.tree.edge
    assert [tile.width for tile, _ in resumed.partial()] == [77, 3, 1]


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, SIZE - 1), first=st.integers(1, SIZE))
def test_proofs_hold(index: int, first: int) -> None:
    """Any leaf is shown to be in, any earlier size to be a prefix."""
    tree = WHOLE.tree
    verify_inclusion(index, SIZE, LEAVES[index], tree.inclusion(index), tree.root())
    verify_consistency(first, SIZE, tree.root(first), tree.root(), tree.consistency(first))


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_it_does_not_matter_in_which_batches_it_grew(parts: list[int]) -> None:
    """Leaf by leaf or many at once: the same tree, and the same full tiles."""
    grown, tree = Grown(sum(parts)), Tree(lambda tile: grown.tiles[tile])
    filled, at = [], 0
    for part in parts:
        filled += tree.extend(LEAVES[at : at + part])
        at += part
    assert tree.root() == grown.tree.root() and dict(filled) == grown.tiles
