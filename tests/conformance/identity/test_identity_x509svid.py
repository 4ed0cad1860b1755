"""X.509-SVIDs, X.509 bundles and forgery between trust domains against the outside vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography import x509
from shared_material import material
from spiffe_vectors import agrees, judged

from wharfinger.core.clock import parse_rfc3339
from wharfinger.core.errors import Unauthenticated
from wharfinger.identity import bundledocument
from wharfinger.identity.bundle import Bundle, Bundles
from wharfinger.identity.fault import BadIdentity, UntrustedIdentity
from wharfinger.identity.spiffeid import TrustDomain
from wharfinger.identity.tls import check_expected
from wharfinger.identity.x509svid import X509Svid, certificates_from_der, certificates_from_pem, verify

Case = dict[str, Any]
LEFT_OUT = {
    "x509-parse-go-019": "the file does not exist: whoever reads files says so, the parser takes bytes",
    "x509-parse-go-020": "the same of the key's file",
    "x509-verify-go-003": "no bundles at all is the empty mapping here",
    "x509-verify-d-074": "X509-SVID 4.2 lets a validator refuse constrained names, since URI constraints are rarely right",
    "x509-parse_bundle-go-003": "an empty PEM file is refused: it is likelier a failed write than distrust of everyone",
}
SAME = {"certificate_not_pem": "not_pem"}
# A second fault, found first: the intermediate is of another trust domain and also constrains names.
# Without a key usage there is no keyCertSign either: the vectors have two words for it, we have one.
ALSO = {"fed-x509-016": "name_constraint", "x509-verify-d-027": "signer_without_key_cert_sign"}


def _certificates(root: Path, name: str) -> tuple[x509.Certificate, ...]:
    data = (root / name).read_bytes()
    if name.endswith(".der") or b"-----BEGIN" not in data:
        return certificates_from_der(data)
    return certificates_from_pem(data)


def _bundles(root: Path, files: dict[str, list[str]]) -> Bundles:
    domains = {TrustDomain(name): names for name, names in files.items()}
    return {
        name: Bundle(name, tuple(c for file in files for c in _certificates(root, file)))
        for name, files in domains.items()
    }


def _parse(root: Path, case: Case) -> dict[str, Any]:
    told = case["input"]
    certificates, key = (root / told["certificates"]).read_bytes(), (root / told["key"]).read_bytes()
    read = X509Svid.from_pem if told["encoding"] == "pem" else X509Svid.from_der
    svid = read(certificates, key)
    return {"spiffe_id": str(svid.id), "certificates": len(svid.certificates)}


def _verify(root: Path, case: Case) -> dict[str, Any]:
    told = case["input"]
    chain = _certificates(root, told["chain"]) if told["chain"] else ()
    spiffe_id = verify(chain, _bundles(root, told["bundles"]), parse_rfc3339(case["at"]))
    got: dict[str, Any] = {"spiffe_id": str(spiffe_id)}
    if "allowed_trust_domains" in told and str(spiffe_id.trust_domain) not in told["allowed_trust_domains"]:
        raise UntrustedIdentity("trust_domain_not_allowed", "a caller's own rule")
    if "authorize" in told:
        try:
            check_expected(spiffe_id, lambda peer: str(peer) in told["authorize"])
            got["authorized"] = True
        except Unauthenticated:
            got["authorized"] = False
    return got


def _parse_bundle(root: Path, case: Case) -> dict[str, Any]:
    data = (root / case["input"]["bundle"]).read_bytes()
    found = (certificates_from_pem if case["input"]["encoding"] == "pem" else certificates_from_der)(data)
    return {"authorities": len(found), "authorities_distinct": len(set(found))}


def _judged(root: Path, case: Case) -> dict[str, Any]:
    judge = {"parse": _parse, "verify": _verify, "parse_bundle": _parse_bundle}[case["op"]]
    try:
        return {"verdict": "accept", **judge(root, case)}
    except (BadIdentity, UntrustedIdentity) as error:
        return {
            "verdict": "reject",
            "reason": error.reason if case["op"] == "parse" else SAME.get(error.reason, error.reason),
        }


def _wanted(case: Case) -> dict[str, Any]:
    return {**case["expect"], "also": [*case["expect"].get("also", ()), ALSO.get(case["id"])]}


def test_every_certificate_is_judged_as_the_standard_judges_it() -> None:
    """Of 226 cases five are left out with their reason; 221 are accepted or refused for the reason given."""
    root = material("spiffe")
    cases = json.loads((root / "x509svid.json").read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 226
    judgements = {c["id"]: (_judged(root, c), _wanted(c)) for c in cases if c["id"] not in LEFT_OUT}
    assert len(judgements) == 221
    assert {name: pair for name, pair in judgements.items() if not agrees(*pair)} == {}


def test_no_authority_vouches_for_another_trust_domain() -> None:
    """Of 47 cases the 7 WIT-SVIDs are left out (nothing here issues or takes one); 40 are judged as given."""
    root = material("spiffe/federation_forgery")
    vectors = json.loads((root / "cases.json").read_text(encoding="utf-8"))
    assert len(vectors["cases"]) == 47
    wrong: dict[str, Any] = {}
    count = 0
    for case in vectors["cases"]:
        if case["kind"] == "wit":
            continue
        count += 1
        if case["kind"] == "jwt":
            domains = [TrustDomain(name) for name in case["bundles"]]
            got = judged(
                case,
                {d: bundledocument.parse((root / f"{d}.bundle.json").read_bytes(), d).bundle for d in domains},
            )
        else:
            told = {"chain": case["chain"], "bundles": vectors["bundle_sets"][case["bundle_set"]]}
            got = _judged(root, {"op": "verify", "input": told, "at": case["at"]})
        if not agrees(got, _wanted(case)):
            wrong[case["id"]] = (case["title"], got, case["expect"])
    assert count == 40
    assert wrong == {}
