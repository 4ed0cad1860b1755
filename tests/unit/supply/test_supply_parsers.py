"""Every parser of the supply chain: any bytes are a value or an error of ours, never anything else."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notary import CONTROL, Notary

from wharfinger.core.errors import Malformed, TooLarge, Unverified, WharfingerError
from wharfinger.supply import dsse
from wharfinger.supply.artifact import of_manifest
from wharfinger.supply.bundle import Bundle
from wharfinger.supply.dsse import Envelope
from wharfinger.supply.manifest import Entry, Manifest, canonical_path, parse_shard
from wharfinger.supply.publickey import PublicKey
from wharfinger.supply.registry.authentication import token_of
from wharfinger.supply.registry.client import Pulled
from wharfinger.supply.registry.oci import NOTHING, Descriptor, parse_name, parse_reference
from wharfinger.supply.registry.oci import Manifest as OciManifest
from wharfinger.supply.registry.routes import Query, byte_range, content_range, route
from wharfinger.supply.signing import authenticate_bytes
from wharfinger.supply.statement import Resource, Statement
from wharfinger.supply.tlog import tail
from wharfinger.supply.tlog.checkpoint import Checkpoint
from wharfinger.supply.tlog.entry import SignatureEntry
from wharfinger.supply.tlog.note import Note, VerifierKey
from wharfinger.supply.tlog.tiles import Tile, split_all_entries
from wharfinger.supply.trustroot import TrustRoot

NOTARY = Notary()
SIGNED = Manifest("m", (Entry("a", "ab" * 32), Entry("b", "cd" * 32)))
BUNDLE = NOTARY.sign(SIGNED.statement(), CONTROL)
OCI = OciManifest(
    config=NOTHING, layers=(Descriptor.of("a/b", b"x", {"org.opencontainers.image.title": "x"}),),
    artifact_type="application/vnd.wharfinger.dataset.v1", subject=Descriptor.of("a/b", b"s"), annotations={"a": "b"},
)  # fmt: skip


def artifact(data: bytes) -> object:
    """Read an artifact's manifest."""
    return of_manifest("research/x", Pulled(OciManifest.parse(data), "sha256:" + "0" * 64, data))


def oms(data: bytes) -> object:
    """Read a statement as a manifest of files."""
    return Manifest.of_statement(Statement.parse(data))


DOCUMENTS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "bundle": (Bundle.parse, BUNDLE),
    "envelope": (Envelope.parse, json.dumps(Bundle.parse(BUNDLE).envelope.to_json()).encode()),
    "statement": (Statement.parse, SIGNED.statement().encode()),
    "manifest": (oms, SIGNED.statement().encode()),
    "trust root": (TrustRoot.parse, NOTARY.trust.encode()),
    "log entry": (SignatureEntry.parse, Bundle.parse(BUNDLE).entries[0].body),
    "oci manifest": (OciManifest.parse, OCI.encode()),
    "artifact": (artifact, OCI.encode()),
}
_proof = Bundle.parse(BUNDLE).entries[0].proof
assert _proof is not None
TEXTS: dict[str, tuple[Callable[[str], object], str]] = {
    "note": (lambda text: Note.parse(text.encode("utf-8", "surrogatepass")), _proof.checkpoint),
    "checkpoint": (Checkpoint.parse, _proof.checkpoint.partition("\n\n")[0] + "\n"),
    "verifier key": (VerifierKey.parse, str(NOTARY.log_key)),
    "tile": (Tile.parse, "tile/0/x001/234.p/7"),
    "shard": (parse_shard, "a:0:10"),
    "path": (canonical_path, "a/b"),
    "repository": (parse_name, "research/models/tiny"),
    "reference": (parse_reference, "v1.0"),
    "route": (route, "/v2/research/x/blobs/uploads/00000000-0000-4000-8000-000000000001"),
    "content range": (content_range, "0-10"),
    "query": (lambda text: Query.parse(text.encode("utf-8", "surrogatepass")).page(), "n=10&last=a"),
    "credentials": (lambda text: token_of(text.encode("latin-1", "replace")), "Basic YTpi"),
    "range": (lambda text: byte_range([text.encode("latin-1", "replace")], 100), "bytes=0-10"),
}
BINARIES: dict[str, Callable[[bytes], object]] = {
    "entries": split_all_entries,
    "tail": lambda data: tail._recover(Path("tail"), data),
    "public key in PEM": PublicKey.from_pem,
    "public key in DER": PublicKey.from_der,
    "note": Note.parse,
}
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def ours(parse: Callable[[Any], object], data: Any) -> None:
    """Parse; whatever is raised must be of our family."""
    try:
        parse(data)
    except WharfingerError as error:
        assert str(error)


@pytest.mark.parametrize("name", [*DOCUMENTS, *BINARIES])
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_value_or_our_error(name: str, data: bytes) -> None:
    """Random bytes."""
    ours(DOCUMENTS[name][0] if name in DOCUMENTS else BINARIES[name], data)


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_text_is_a_value_or_our_error(name: str, data: st.DataObject) -> None:
    """Random texts, and good ones with a piece replaced."""
    parse, good = TEXTS[name]
    parse(good)
    ours(parse, data.draw(st.text(max_size=60)))
    at = data.draw(st.integers(0, len(good)))
    ours(parse, good[:at] + data.draw(st.text(max_size=4)) + good[at + data.draw(st.integers(0, 4)) :])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything in a document."""
    found = [path]
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(child, (*path, key))
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_document_with_any_part_replaced_is_a_value_or_our_error(name: str, data: st.DataObject) -> None:
    """Every field in turn becomes something else, goes, or comes twice."""
    parse, good = DOCUMENTS[name]
    parse(good)
    value = json.loads(good)
    path = data.draw(st.sampled_from(places(value)[1:]))
    target = copy.deepcopy(value)
    parent = target
    for key in path[:-1]:
        parent = parent[key]
    if data.draw(st.booleans()):
        parent[path[-1]] = data.draw(_json)
    else:
        del parent[path[-1]]
    ours(parse, json.dumps(target).encode())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_names_that_come_twice_are_refused(name: str) -> None:
    """Two readers of one document must not see two things: a duplicate name at any depth is `Malformed`."""
    parse, good = DOCUMENTS[name]
    value = json.loads(good)
    for path in places(value)[1:]:
        if not isinstance(path[-1], str):
            continue
        target = json.loads(good)
        parent = target
        for key in path[:-1]:
            parent = parent[key]
        marked = f"{path[-1]}\x00twice"
        parent[marked] = parent[path[-1]]
        text = json.dumps(target).replace(json.dumps(marked), json.dumps(path[-1]))
        with pytest.raises(Malformed):
            parse(text.encode())


def test_a_statement_that_claims_another_type_is_not_read_as_one() -> None:
    """DSSE: the payload's type is signed, and a reader that wants statements takes nothing else."""
    bundle = Bundle.parse(BUNDLE)
    envelope = bundle.envelope
    key = PublicKey.of(bundle.material.leaf)  # type: ignore[union-attr]
    assert dsse.verify(envelope, [key]) == envelope.payload
    for other in ("text/plain", "application/vnd.in-toto+json ", "", "application/json"):
        confused = Envelope(envelope.payload, other, envelope.signatures)
        with pytest.raises(dsse.UnsupportedType):
            dsse.verify(confused, [key])
        with pytest.raises(Unverified):
            dsse.verify(confused, [key], types=[other])
    assert dsse.pae("a", b"b c") != dsse.pae("a 1 b", b"c")


def test_a_signed_statement_of_another_subject_proves_nothing() -> None:
    """What is signed about one artifact is not said of another, nor is one predicate another."""
    digest, other = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
    statement = Statement((Resource.of("it", digest),), "type/one", {})
    signed = authenticate_bytes(NOTARY.sign(statement, CONTROL), NOTARY.trust).statement
    assert signed.about(digest, "type/one") == statement
    for subject, kind in ((other, "type/one"), (digest, "type/two")):
        with pytest.raises(Unverified):
            signed.about(subject, kind)


def test_a_stranger_s_trust_root_believes_nothing() -> None:
    """The same names under other keys: neither the signature's path nor the log's word holds."""
    with pytest.raises(Unverified):
        authenticate_bytes(BUNDLE, Notary().trust)
    mixed = TrustRoot(NOTARY.trust.authorities, Notary().trust.logs)
    with pytest.raises(Unverified):
        authenticate_bytes(BUNDLE, mixed)


@pytest.mark.parametrize("path", ["../a", "/a", "a\x00b", "a//b", "./a", "a/", ".", "a/./b", "a/../b"])
def test_a_manifest_with_paths_that_leave_it_is_refused(path: str) -> None:
    """`..`, absolute, NUL and forms that are not canonical are no manifest, though the root digest holds."""
    manifest = Manifest("m", (Entry("a", "ab" * 32), Entry(path, "cd" * 32)))
    with pytest.raises(Malformed):
        Manifest.of_statement(manifest.statement())


def test_a_manifest_with_a_name_twice_or_a_wrong_root_is_refused() -> None:
    """Duplicate names, a root digest of other entries, no entry at all."""
    twice = Manifest("m", (Entry("a", "ab" * 32), Entry("a", "cd" * 32)))
    with pytest.raises(Malformed):
        Manifest.of_statement(twice.statement())
    value = SIGNED.statement().to_json()
    value["subject"][0]["digest"]["sha256"] = "00" * 32
    with pytest.raises(Malformed):
        Manifest.of_statement(Statement.of_json(value))
    value = SIGNED.statement().to_json()
    value["predicate"]["resources"] = []
    with pytest.raises(Malformed):
        Manifest.of_statement(Statement.of_json(value))


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(BUNDLE) - 1), bit=st.integers(0, 7))
def test_no_bit_of_a_bundle_can_be_changed(at: int, bit: int) -> None:
    """One flipped bit anywhere: refused, or, where base64 or white space allows another spelling, the same statement."""
    changed = BUNDLE[:at] + bytes([BUNDLE[at] ^ (1 << bit)]) + BUNDLE[at + 1 :]
    good = authenticate_bytes(BUNDLE, NOTARY.trust)
    try:
        found = authenticate_bytes(changed, NOTARY.trust)
    except WharfingerError:
        return
    assert (found.statement, found.signer, found.at) == (good.statement, good.signer, good.at)


def test_documents_are_bounded() -> None:
    """Too many bytes, levels, signatures or descriptors are refused before they cost anything."""
    for parse, _ in DOCUMENTS.values():
        with pytest.raises((Malformed, TooLarge)):
            parse(b"[" * 100_000)
    many = {"payload": "", "payloadType": "t", "signatures": [{"sig": base64.b64encode(b"x").decode()}] * 65}
    with pytest.raises(TooLarge):
        Envelope.of_json(many)
    with pytest.raises(TooLarge):
        OciManifest.parse(b" " * (5 * 1024 * 1024))
