"""DSSE envelopes, pre-authentication encodings and in-toto statements against the outside vectors: every case."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

from shared_material import material

from wharfinger.core.errors import Malformed, Unverified
from wharfinger.supply import dsse
from wharfinger.supply.publickey import PublicKey
from wharfinger.supply.statement import Resource, Statement

Case = dict[str, Any]


@cache
def _load(name: str) -> dict[str, Any]:
    with material(f"dsse/{name}").open(encoding="utf-8") as file:
        return json.load(file)


def test_pre_authentication_encodings() -> None:
    """Type and body encode to the published bytes."""
    cases = _load("pae.json")["cases"]
    assert len(cases) == 11
    for case in cases:
        made = dsse.pae(case["payload_type"], base64.b64decode(case["body_base64"]))
        assert made == base64.b64decode(case["pae_base64"]), case["id"]


def _judge(case: Case, keys: dict[str, PublicKey]) -> str:
    try:
        envelope = dsse.Envelope.parse(json.dumps(case["envelope"]).encode())
        payload = dsse.verify(
            envelope,
            [keys[name] for name in case["trusted"]],
            threshold=case["threshold"],
            types=case["supported_types"],
        )
    except Malformed:
        return "malformed"
    except dsse.UnsupportedType:
        return "unsupported-type"
    except Unverified:
        return "invalid"
    assert payload == base64.urlsafe_b64decode(case["envelope"]["payload"].replace("+", "-").replace("/", "_"))
    return "valid"


def test_envelopes_verify_as_the_protocol_says() -> None:
    """Each envelope gets its verdict; where the protocol leaves two, ours is the one of trying every key."""
    vectors = _load("envelopes.json")
    assert len(vectors["cases"]) == 29
    keys = {name: PublicKey.from_pem(key["pem"].encode()) for name, key in vectors["keys"].items()}
    assert {case["id"]: _judge(case, keys) for case in vectors["cases"]} == {
        case["id"]: case["expected"] for case in vectors["cases"]
    }


def _parses(parse: Any, document: Case) -> str:
    try:
        parsed = parse(document)
    except Malformed:
        return "invalid"
    assert parse(parsed.to_json()) == parsed
    return "valid"


def test_statements_and_descriptors_are_judged_as_in_toto_judges_them() -> None:
    """Statements and resource descriptors are valid or invalid as upstream's tests say."""
    vectors = _load("statements.json")
    assert len(vectors["statements"]) == 11 and len(vectors["resource_descriptors"]) == 8
    for case in vectors["statements"]:
        assert _parses(Statement.of_json, case["document"]) == case["expected"], case["id"]
    for case in vectors["resource_descriptors"]:
        assert _parses(Resource.parse, case["document"]) == case["expected"], case["id"]
