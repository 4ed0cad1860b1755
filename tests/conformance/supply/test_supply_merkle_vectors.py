"""Merkle trees, proofs, notes and checkpoints against the outside vectors: every case, none left out."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from shared_material import material

from wharfinger.core.errors import Malformed, Unverified, WharfingerError
from wharfinger.supply.tlog import merkle
from wharfinger.supply.tlog.checkpoint import Checkpoint
from wharfinger.supply.tlog.note import Note, VerifierKey, cosigned_message, verify

Case = dict[str, Any]


@cache
def _load(name: str) -> dict[str, Any]:
    with material(f"merkle/{name}").open() as file:
        return json.load(file)


def _bytes(case: Case, name: str) -> bytes:
    return base64.b64decode(case[name] or "")


def _proof(case: Case) -> list[bytes]:
    return [base64.b64decode(value or "") for value in case["proof"] or ()]


_PROOFS: dict[str, Callable[[Case], None]] = {
    "inclusion": lambda c: merkle.verify_inclusion(
        c["leafIdx"], c["treeSize"], _bytes(c, "leafHash"), _proof(c), _bytes(c, "root")
    ),
    "consistency": lambda c: merkle.verify_consistency(
        c["size1"], c["size2"], _bytes(c, "root1"), _bytes(c, "root2"), _proof(c)
    ),
    "subtreeinclusion": lambda c: merkle.verify_subtree_inclusion(
        c["leafIdx"], c["start"], c["end"], _bytes(c, "leafHash"), _proof(c), _bytes(c, "root")
    ),
    "subtreeconsistency": lambda c: merkle.verify_subtree_consistency(
        c["start"], c["end"], c["size"], _bytes(c, "root1"), _bytes(c, "root2"), _proof(c)
    ),
}


@pytest.mark.parametrize(("kind", "count"), [
    ("inclusion", 98), ("consistency", 98), ("subtreeinclusion", 204), ("subtreeconsistency", 118),
])  # fmt: skip
def test_every_proof_is_judged_as_upstream_judges_it(kind: str, count: int) -> None:
    """A proof verifies exactly when transparency-dev's implementation says so."""
    cases = _load("proofs.json")[kind]
    assert len(cases) == count
    wrong = []
    for case in cases:
        try:
            _PROOFS[kind](case)
            got = "valid"
        except Unverified:
            got = "invalid"
        if got != case["expected"]:
            wrong.append((case["id"], got))
    assert not wrong


def test_roots_and_nodes_of_the_reference_tree() -> None:
    """Leaf, node and root hashes of the eight-leaf tree are those published."""
    tree = _load("tree.json")
    leaves = [merkle.leaf_hash(bytes.fromhex(text)) for text in tree["leaf_inputs_hex"]]
    levels = [[bytes.fromhex(text) for text in row] for row in tree["perfect_subtree_nodes_hex_by_level"]]
    assert leaves == levels[0]

    def nodes(level: int, index: int) -> bytes:
        return levels[level][index]

    roots = [merkle.root(size, nodes).hex() for size in range(9)]
    assert roots == tree["root_by_size_hex"]
    for below, above in itertools.pairwise(levels):
        assert [merkle.node_hash(below[2 * i], below[2 * i + 1]) for i in range(len(above))] == above
    for fact in tree["hasher"]:
        if fact["what"] == "leaf":
            assert merkle.leaf_hash(bytes.fromhex(fact["input_hex"])).hex() == fact["hex"]
        elif fact["what"] == "node":
            made = merkle.node_hash(bytes.fromhex(fact["left_hex"]), bytes.fromhex(fact["right_hex"]))
            assert made.hex() == fact["hex"]
        else:
            assert merkle.EMPTY_ROOT.hex() == fact["hex"]


def _judge_note(case: Case) -> str:
    try:
        keys = [VerifierKey.parse(text) for text in case["vkeys"]]
    except Malformed:
        return "bad-vkey"
    try:
        note = Note.parse(case["note"].encode())
    except WharfingerError:
        return "malformed"
    try:
        verified = verify(note, keys)
    except Unverified:
        return "invalid"
    if "cosignature_time" in case:
        assert case["cosignature_time"] in verified.cosigned_at.values(), case["id"]
    if "checkpoint" in case:
        _assert_checkpoint(Checkpoint.parse(verified.text), case["checkpoint"])
    return "valid"


def _assert_checkpoint(got: Checkpoint, want: Case) -> None:
    root = want["root_hex"] if "root_hex" in want else base64.b64decode(want["root_base64"]).hex()
    assert (got.origin, got.size, got.root.hex(), list(got.extensions)) == (
        want["origin"], want["size"], root, want["extensions"],
    )  # fmt: skip


def test_signed_notes_are_judged_as_the_specification_says() -> None:
    """Each signed note is valid, invalid, malformed or has a bad key, as the vector says."""
    cases = _load("notes.json")["verify"]
    assert len(cases) == 24
    assert {case["id"]: _judge_note(case) for case in cases} == {case["id"]: case["expected"] for case in cases}


def test_published_examples_parse_into_their_parts() -> None:
    """Notes whose keys are not published give the published names, key ids and checkpoint, and encode back."""
    for case in _load("notes.json")["parse"]:
        note = Note.parse(case["note"].encode())
        assert note.encode() == case["note"].encode()
        assert [
            {"name": s.name, "key_id_hex": s.key_id.hex(), "bytes": len(s.signature)} for s in note.signatures
        ] == case["signatures"]
        if "checkpoint" in case:
            _assert_checkpoint(Checkpoint.parse(note.text), case["checkpoint"])
        if "cosigned_message" in case:
            assert cosigned_message(note.text, case["cosignature_time"]).decode() == case["cosigned_message"]


def test_checkpoint_texts_are_well_formed_or_refused() -> None:
    """A checkpoint text parses exactly when the vector calls it valid, and writes back as it was."""
    cases = _load("notes.json")["checkpoint_texts"]
    assert len(cases) == 15
    for case in cases:
        try:
            got = "valid"
            assert Checkpoint.parse(case["text"]).text == case["text"]
        except Malformed:
            got = "malformed"
        assert got == case["expected"], case["id"]
