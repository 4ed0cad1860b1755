"""OpenSSF Model Signing v1.0: the specification's examples, manifests, bundles and signed models from outside."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from shared_material import material

from wharfinger.core.clock import Instant, parse_rfc3339
from wharfinger.core.errors import Invalid, Malformed, Unverified
from wharfinger.supply.bundle import Bundle, Chain, KeyHint
from wharfinger.supply.hashing import check, measure
from wharfinger.supply.manifest import (
    OLD_PREDICATE,
    Entry,
    Manifest,
    Serialization,
    canonical_path,
    check_ignored,
    compare,
    is_ignored,
    named_as_signed,
    parse_shard,
    shard_name,
    shard_ranges,
)
from wharfinger.supply.publickey import PublicKey
from wharfinger.supply.signing import Signed, verify_certificate, verify_key
from wharfinger.supply.sigstore import verify_sigstore
from wharfinger.supply.statement import Statement
from wharfinger.supply.trustroot import TrustRoot

OMS = material("oms")
NOW: Instant = parse_rfc3339("2026-11-25T00:00:00Z")
SIGNER = "CN=intermediate-ca"
"""The one name of the test certificate: it has no alternative ones."""
_OUTSIDE = "a link out of the artifact is refused: what it leads to is not the signer's to vouch for"
LEFT_OUT: Mapping[str, str] = {
    "v0.2.0-certificate": "format 0.2.0 signs Python's repr of the payload, with SHA-256 on every curve, and the "
    "specification lets a verifier of 1.0 refuse it",
    "symlink_model_folder_files": _OUTSIDE,
    "symlink_model_folder_shard": _OUTSIDE,
    "symlink_model_folder_small_shards": _OUTSIDE,
}
"""Cases that differ, by id, with the reason: each is refused where upstream accepts."""


def cases(file: str) -> list[dict[str, Any]]:
    """Return the cases of a file."""
    found: list[dict[str, Any]] = json.loads((OMS / file).read_text(encoding="utf-8"))["cases"]
    return found


EXAMPLES: dict[str, Any] = json.loads((OMS / "spec-examples.json").read_text(encoding="utf-8"))
MANIFESTS: dict[str, Any] = json.loads((OMS / "manifests.json").read_text(encoding="utf-8"))


# The specification's examples


@pytest.mark.parametrize("case", EXAMPLES["canonical_paths"]["cases"], ids=lambda c: str(c.get("in", "bytes")))
def test_paths_are_canonical(case: dict[str, Any]) -> None:
    """OMS 6.1.2: a path has one form, or none."""
    text = (
        bytes.fromhex(case["in_bytes_hex"]).decode(errors="surrogateescape") if "in_bytes_hex" in case else case["in"]
    )
    if "reject" in case:
        with pytest.raises(Malformed):
            canonical_path(text)
    else:
        assert canonical_path(text) == case["out"]


@pytest.mark.parametrize("case", EXAMPLES["exclusion"]["cases"], ids=lambda c: f"{c['ignore']}-{c['path']}")
def test_some_paths_are_no_part_of_an_artifact(case: dict[str, Any]) -> None:
    """OMS 6.2: version control at the top, what is ignored and what is below it."""
    assert is_ignored(case["path"], case["ignore"]) is case["excluded"]


@pytest.mark.parametrize("text", EXAMPLES["exclusion"]["bad_ignore_entries"])
def test_patterns_and_paths_out_of_the_artifact_cannot_be_ignored(text: str) -> None:
    """OMS 6.2: an ignore path is a path, not a pattern."""
    with pytest.raises(Malformed):
        check_ignored(text)


@pytest.mark.parametrize("case", EXAMPLES["shards"]["cases"], ids=lambda c: f"{c['name']}-{c['bytes']}")
def test_files_fall_into_shards(case: dict[str, Any]) -> None:
    """OMS 6.3.2: ranges of one size, the last one shorter."""
    size = case.get("shard_size", EXAMPLES["shards"]["default_size"])
    names = [shard_name(case["name"], start, end) for start, end in shard_ranges(case["bytes"], size)]
    assert names == case["resource_names"]


@pytest.mark.parametrize("case", EXAMPLES["shards"]["parse"], ids=lambda c: str(c["resource"]))
def test_a_shard_is_read_from_the_right(case: dict[str, Any]) -> None:
    """OMS 6.3.2: the path of a shard may hold colons."""
    assert parse_shard(case["resource"]) == (case["path"], case["start"], case["end"])


@pytest.mark.parametrize("case", EXAMPLES["root_digest"]["cases"], ids=lambda c: str(c["root"][:8]))
def test_a_root_digest_is_over_the_digests(case: dict[str, Any]) -> None:
    """OMS 6.5.1: the sha256 over the raw digests in the order of names."""
    entries = tuple(Entry(r["name"], r["digest"]) for r in case["resources"])
    assert Manifest("m", entries).digest == f"sha256:{case['root']}"


@pytest.mark.parametrize("value", EXAMPLES["serialization_objects"]["valid"], ids=str)
def test_a_serialization_reads_and_writes(value: dict[str, Any]) -> None:
    """OMS 5.2.2: what reads is written back as it was."""
    assert Serialization.parse(value).to_json() == value


@pytest.mark.parametrize(
    "value",
    EXAMPLES["serialization_objects"]["invalid_by_schema"] + EXAMPLES["serialization_objects"]["invalid_by_text_only"],
    ids=str,
)
def test_a_bad_serialization_is_refused(value: dict[str, Any]) -> None:
    """OMS 5.2.2: missing, unknown and contradicting fields."""
    with pytest.raises(Malformed):
        Serialization.parse(value)


# Manifests


@pytest.mark.parametrize("case", MANIFESTS["cases"], ids=lambda c: str(c["id"]))
def test_a_directory_has_the_manifest_of_the_reference_implementation(case: dict[str, Any], tmp_path: Path) -> None:
    """Resources and digests are those of the reference; where the specification accepts no such model, neither do we."""
    model = MANIFESTS["models"][case["model"]]
    root = tmp_path / model["root"]
    if model.get("single_file"):
        root.write_text(next(iter(model["files"].values())), encoding="utf-8")
    else:
        root.mkdir()
        for path, text in model["files"].items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
    for path, text in model.get("symlinks_to_outside_file", {}).items():
        (tmp_path / "outside").write_text(text, encoding="utf-8")
        (root / path).symlink_to(tmp_path / "outside")
    serialization = Serialization(case["method"], case["hash"], case["allow_symlinks"], case["shard_size"] or 0)
    if not case["spec_v1_0_accepts_model"] or case["id"] in LEFT_OUT:
        with pytest.raises(Invalid):
            measure(root, serialization)
        return
    found = measure(root, serialization)
    if model.get("single_file"):
        listed = tuple(Entry(r["name"], r["digest"]) for r in case["resources"])
        found = named_as_signed(found, Manifest("", listed, serialization))
    assert {entry.name: entry.digest for entry in found.entries} == {r["name"]: r["digest"] for r in case["resources"]}
    # The reference lists shards by offset; a root digest reads the entries in the order in which they are listed.
    order = [r["name"] for r in case["resources"]]
    listed = tuple(sorted(found.entries, key=lambda entry: order.index(entry.name)))
    assert replace(found, entries=listed).digest == f"sha256:{case['root_digest_sha256']}"


# Bundles by schema


@pytest.mark.parametrize("case", cases("schema-cases.json"), ids=lambda c: str(c["id"]))
def test_a_bundle_is_read_or_refused_where_the_schemas_do(case: dict[str, Any]) -> None:
    """Valid bundles read, write and read again as the same; invalid ones are refused at the same place."""
    data = (OMS / case["bundle"]).read_bytes()
    if case["rejected_at"] in ("json", "bundle"):
        with pytest.raises(Malformed):
            Bundle.parse(data)
        return
    bundle = Bundle.parse(data)
    assert Bundle.parse(bundle.encode()) == bundle
    assert isinstance(bundle.material, KeyHint if case["method"] == "key" else Chain) or case["method"] is None
    statement = Statement.parse(bundle.envelope.payload)
    if case["rejected_at"] == "statement" and statement.predicate_type != OLD_PREDICATE:
        with pytest.raises(Malformed):
            Manifest.of_statement(statement)
    else:
        assert Manifest.of_statement(statement).entries


# Signed models


@pytest.mark.parametrize("case", cases("verify-cases.json"), ids=lambda c: str(c["id"]))
def test_a_signed_model_is_believed_or_not(case: dict[str, Any], tmp_path: Path) -> None:
    """Thirteen signed models of four formats verify, and every way of changing one of them is found."""
    root, signature = prepared(case, tmp_path)
    if case["expected"] == "valid" and case["id"] not in LEFT_OUT:
        assert verified(case, root, signature).manifest.entries
    else:
        with pytest.raises((Unverified, Malformed, Invalid)):
            verified(case, root, signature)


def verified(case: dict[str, Any], root: Path, signature: Path) -> Signed:
    """Verify signature and files as the case says; return what is signed."""
    bundle = Bundle.parse(signature.read_bytes())
    at = parse_rfc3339(case["verify_at"]) if "verify_at" in case else NOW
    if case["method"] == "key":
        signed = verify_key(bundle, [PublicKey.from_pem((OMS / case["public_key"]).read_bytes())])
    elif case["method"] == "certificate":
        authorities = [x509.load_pem_x509_certificate((OMS / path).read_bytes()) for path in case["ca_certificates"]]
        signed = verify_certificate(bundle, authorities, [SIGNER], at)
    else:
        trust = TrustRoot.parse((OMS / case["trusted_root"]).read_bytes())
        signed = verify_sigstore(bundle, trust, case["identity"], case["issuer"])
    found = check(
        root,
        signed.manifest,
        without=[signature],
        ignore_paths=case["ignore_paths"],
        allow_unsigned=case.get("ignore_unsigned_files", False),
    )
    compare(signed.manifest, found, allow_unsigned=True)
    return signed


def prepared(case: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Copy the case's model and signature below `folder` and change them as it says."""
    source, root = OMS / case["model"], folder / "model"
    if source.is_dir():
        shutil.copytree(source, root)
        signature = root / "model.sig"
    else:
        folder.joinpath("one").mkdir()
        root = Path(shutil.copy(source, folder / "one" / source.name))
        signature = folder / "one" / "model.sig"
    shutil.copy(OMS / case["signature"], signature)
    for change in case.get("mutate", ()):
        mutate(root, signature, change)
    return root, signature


def mutate(root: Path, signature: Path, change: dict[str, Any]) -> None:
    """Change one file of the model, or the signature."""
    op = change["op"]
    if op.startswith("json-"):
        value = json.loads(signature.read_bytes())
        edit(value, change)
        signature.write_text(json.dumps(value), encoding="utf-8")
        return
    path = root / change["path"]
    if op == "append":
        path.write_bytes(path.read_bytes() + change["text"].encode())
    elif op == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(change["text"], encoding="utf-8")
    elif op == "delete":
        path.unlink()
    elif op == "rename":
        path.rename(root / change["to"])
    elif op == "symlink":
        path.symlink_to(change["to"])
    else:
        assert op == "swap"
        path.rename(root / "swapping")
        (root / change["to"]).rename(path)
        (root / "swapping").rename(root / change["to"])


def edit(value: Any, change: dict[str, Any]) -> None:
    """Change a signature's JSON."""
    if change["op"] == "json-payload-replace":
        payload = base64.b64decode(value["dsseEnvelope"]["payload"])
        changed = payload.replace(change["from"].encode(), change["to"].encode())
        assert changed != payload
        value["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
        return
    *path, last = change["pointer"].split("/")[1:]
    for part in path:
        value = value[int(part)] if isinstance(value, list) else value[part]
    key: Any = int(last) if isinstance(value, list) else last
    if change["op"] == "json-delete":
        del value[key]
    elif change["op"] == "json-set":
        value[key] = change["value"]
    else:
        assert change["op"] == "json-flip-b64"
        data = bytearray(base64.b64decode(value[key]))
        data[-1] ^= 1
        value[key] = base64.b64encode(data).decode()


def test_the_table_of_cases_left_out_names_cases() -> None:
    """What is left out is there to be left out, and says why."""
    known = {case["id"] for case in (*cases("verify-cases.json"), *MANIFESTS["cases"])}
    assert set(LEFT_OUT) <= known and all(LEFT_OUT.values())
    assert len(cases("verify-cases.json")) == 57 and len(cases("schema-cases.json")) == 21
