"""Bundle documents against the outside vectors: SPIFFE bundles, maps of them, plain JWK sets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from shared_material import material

from wharfinger.identity import bundledocument
from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.spiffeid import TrustDomain

Case = dict[str, Any]
NO_FILE = {"bundle-go-008": "the document does not exist: whoever reads files says so, the parser takes bytes"}
# One word of ours for a name that an object holds twice, whichever object it is.
SAME = {"duplicate_member": "duplicate_trust_domain"}


def _judged(case: Case) -> dict[str, Any]:
    data = material(f"spiffe/{case['document']}").read_bytes()
    try:
        match case["op"]:
            case "spiffe_bundle":
                return _counts(bundledocument.parse(data, TrustDomain(case["trust_domain"])))
            case "bundle_map":
                found = bundledocument.parse_map(data)
                return {"verdict": "accept", "trust_domains": {str(name) for name in found}}
            case op:
                use = bundledocument.JWT if op == "jwks_as_jwt_bundle" else bundledocument.WIT
                return {"verdict": "accept", "authorities": len(bundledocument.parse_jwks(data, use))}
    except BadIdentity as error:
        return {"verdict": "reject", "reason": error.reason}


def _counts(document: bundledocument.Document) -> dict[str, Any]:
    bundle = document.bundle
    return {
        "verdict": "accept",
        "x509_authorities": len(bundle.x509_authorities),
        "jwt_authorities": len(bundle.jwt_authorities),
        "wit_authorities": len(bundle.wit_authorities),
        "ignored_entries": document.ignored,
        "sequence": bundle.sequence,
        "refresh_hint_seconds": bundle.refresh_hint,
    }


def _agrees(got: dict[str, Any], want: dict[str, Any]) -> bool:
    if got["verdict"] != want["verdict"]:
        return False
    if got["verdict"] == "reject":
        reasons = {want["reason"], *want.get("also", ())}
        return got["reason"] in reasons or SAME.get(got["reason"]) in reasons
    return all(set(want[n]) == v if n == "trust_domains" else want[n] == v for n, v in got.items())


def test_every_document_is_judged_as_the_standard_judges_it() -> None:
    """Of 94 documents one does not exist; all others give the counts or the reason of the refusal."""
    cases = json.loads(material("spiffe/bundles.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 94
    judged = {case["id"]: (_judged(case), case["expect"]) for case in cases if case["id"] not in NO_FILE}
    assert {name: pair for name, pair in judged.items() if not _agrees(*pair)} == {}


@pytest.mark.parametrize("name", ["spiffebundle_valid_1", "spiffebundle_valid_2", "spiffebundle_valid_with_wit"])
def test_a_bundle_survives_being_written_and_read(name: str) -> None:
    """What `encode` writes, `parse` reads back as the same bundle."""
    domain = TrustDomain("domain.test")
    bundle = bundledocument.parse(material(f"spiffe/bundles/{name}.json").read_bytes(), domain).bundle
    assert bundledocument.parse(bundledocument.encode(bundle), domain) == bundledocument.Document(bundle, 0)
    assert bundledocument.parse_jwks(bundledocument.encode_jwks(bundle.jwt_authorities)) == bundle.jwt_authorities
