"""Merkle trees and their proofs (RFC 6962 section 2.1, RFC 9162 section 2.1), SHA-256.

Verification raises `Unverified` or returns nothing. Proofs are made from any source of perfect subtree
hashes (`Nodes`), so that the same code serves a log's disk and a client that fetches tiles.
The subtree forms are those of draft-ietf-plants-merkle-tree-certs section 4; the ordinary consistency
proof is the one of a subtree that starts at 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from wharfinger.core.errors import Unverified

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""

Nodes: TypeAlias = Callable[[int, int], bytes]
"""`nodes(level, index)`: the hash over the leaves [index * 2^level, (index + 1) * 2^level), all of them present."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf that holds `data`."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash `leaf` is at `index` of the tree with `size` leaves and this `root`.

    RFC 9162 section 2.1.3.2. Raises `Unverified`.
    """
    if not 0 <= index < size:
        raise Unverified(f"inclusion: expected an index below the tree's size {size}, got {index}")
    _check_hashes("inclusion", (leaf, *proof))
    first, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Unverified("inclusion: the proof is longer than the path to the root")
        if first & 1 or first == last:
            computed = node_hash(sibling, computed)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        first, last = first >> 1, last >> 1
    if last:
        raise Unverified("inclusion: the proof is shorter than the path to the root")
    if computed != root:
        raise Unverified(f"inclusion: leaf {index} leads to another root than that of the tree of size {size}")


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `size1` leaves and `root1` is a prefix of the one of `size2` leaves and `root2`.

    RFC 9162 section 2.1.4.2; `size1` is at least 1: of the empty tree there is nothing to prove.
    Raises `Unverified`.
    """
    if size1 < 1:
        raise Unverified(f"consistency: expected a first size of at least 1, got {size1}")
    verify_subtree_consistency(0, size1, size2, root1, root2, proof)


def verify_subtree_inclusion(
    index: int, start: int, end: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf hash `leaf` is at `index` of the subtree over [`start`, `end`) with this `root`.

    Raises `Unverified`.
    """
    _check_subtree(start, end)
    if not start <= index < end:
        raise Unverified(f"inclusion: expected an index in [{start}, {end}), got {index}")
    verify_inclusion(index - start, end - start, leaf, proof, root)


def verify_subtree_consistency(
    start: int, end: int, size: int, subtree: bytes, root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that `subtree`, the hash over [`start`, `end`), is part of the tree of `size` leaves and this `root`.

    Raises `Unverified`.
    """
    _check_subtree(start, end)
    _check_hashes("consistency", proof)
    if end > size:
        raise Unverified(f"consistency: expected an end of at most the tree's size {size}, got {end}")
    if start == end:
        if proof or subtree != EMPTY_ROOT:
            raise Unverified("consistency: an empty subtree has the empty hash and an empty proof")
        return
    # Climb to where the proof begins: the largest perfect subtree that ends at `end`.
    first, middle, last = start, end - 1, size - 1
    at_the_edge = middle == last
    while first != middle and (at_the_edge or middle & 1):
        first, middle, last = first >> 1, middle >> 1, last >> 1
    rest = list(proof)
    if first == middle:
        seed = subtree
    elif rest:
        seed = rest.pop(0)
    else:
        raise Unverified("consistency: the proof is too short")
    old = new = seed
    for sibling in rest:
        if last == 0:
            raise Unverified("consistency: the proof is too long")
        if middle & 1 or middle == last:
            if first < middle:
                old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while not middle & 1 and middle:
                first, middle, last = first >> 1, middle >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        first, middle, last = first >> 1, middle >> 1, last >> 1
    if last:
        raise Unverified("consistency: the proof is too short")
    if old != subtree:
        raise Unverified(f"consistency: the proof does not lead to the hash over [{start}, {end})")
    if new != root:
        raise Unverified(f"consistency: the proof does not lead to the root of the tree of size {size}")


def root(size: int, nodes: Nodes) -> bytes:
    """Return the root of the tree with `size` leaves, of which `nodes` holds the perfect subtrees."""
    return range_hash(0, size, nodes)


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree of `size` leaves, index < size; from the leaf up."""
    start, end, proof = 0, size, []
    while end - start > 1:
        split = start + _largest_power_below(end - start)
        if index < split:
            proof.append(range_hash(split, end, nodes))
            end = split
        else:
            proof.append(range_hash(start, split, nodes))
            start = split
    proof.reverse()
    return proof


def consistency_proof(size1: int, size2: int, nodes: Nodes) -> list[bytes]:
    """Return the proof that the tree of `size1` leaves is a prefix of that of `size2`, 1 <= size1 <= size2."""
    start, end, whole, proof = 0, size2, True, []
    while size1 != end:
        split = start + _largest_power_below(end - start)
        if size1 <= split:
            proof.append(range_hash(split, end, nodes))
            end = split
        else:
            proof.append(range_hash(start, split, nodes))
            start, whole = split, False
    if not whole:
        proof.append(range_hash(start, end, nodes))
    proof.reverse()
    return proof


def range_hash(start: int, end: int, nodes: Nodes) -> bytes:
    """Return the hash over the leaves [`start`, `end`), a range that the tree's recursion visits.

    Such a range begins at a multiple of the smallest power of two that is not below its length, so it falls
    into perfect subtrees, the largest first.
    """
    if start == end:
        return EMPTY_ROOT
    hashes: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        hashes.append(nodes(level, start >> level))
        start += 1 << level
    computed = hashes.pop()
    while hashes:
        computed = node_hash(hashes.pop(), computed)
    return computed


def _largest_power_below(size: int) -> int:
    return 1 << ((size - 1).bit_length() - 1)


def _check_subtree(start: int, end: int) -> None:
    if not 0 <= start <= end:
        raise Unverified(f"subtree: expected 0 <= start <= end, got [{start}, {end})")
    if start != end and start % (1 << (end - start - 1).bit_length()):
        raise Unverified(f"subtree: [{start}, {end}) is not one that the tree has")


def _check_hashes(what: str, hashes: Sequence[bytes]) -> None:
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise Unverified(f"{what}: expected hashes of {HASH_BYTES} bytes, got one of {len(value)}")
