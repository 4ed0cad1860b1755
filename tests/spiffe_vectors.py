"""How a SPIFFE token or document is judged, in the words of the outside vectors."""

from __future__ import annotations

import json
from typing import Any

from wharfinger.core.clock import SECOND
from wharfinger.identity.bundle import Bundles
from wharfinger.identity.bundledocument import parse as parse_bundle
from wharfinger.identity.fault import BadIdentity, UntrustedIdentity
from wharfinger.identity.jwtsvid import JwtSvid, parse, validate
from wharfinger.identity.spiffeid import TrustDomain

Case = dict[str, Any]


def bundles_of(documents: dict[str, Any]) -> Bundles:
    """Return the bundles that JWK sets by trust domain hold."""
    domains = {TrustDomain(name): document for name, document in documents.items()}
    return {name: parse_bundle(json.dumps(document).encode(), name).bundle for name, document in domains.items()}


def _svid(case: Case, bundles: Bundles) -> JwtSvid:
    """Validate as the case wants; a case without an audience of its own is for whomever the token names."""
    now = case["now"] * SECOND
    if case.get("mode") == "parse_insecure":
        svid = parse(case["token"])
        svid.check(svid.audiences if case["audience"] is None else case["audience"], now)
        return svid
    audiences = case["audience"]
    if audiences is None:
        audiences = parse(case["token"]).audiences
    return validate(case["token"], bundles, audiences, now)


def judged(case: Case, bundles: Bundles) -> dict[str, Any]:
    """Return the verdict on a token, as the vectors write one."""
    try:
        svid = _svid(case, bundles)
    except (BadIdentity, UntrustedIdentity) as error:
        return {"verdict": "reject", "reason": error.reason}
    return {
        "verdict": "accept",
        "spiffe_id": str(svid.id),
        "audience": list(svid.audiences),
        "expiry": svid.expiry,
    }


def agrees(got: dict[str, Any], want: dict[str, Any]) -> bool:
    """Say whether a verdict is the one wanted: the same reason, or another that is as right."""
    if got["verdict"] != want["verdict"]:
        return False
    if got["verdict"] == "reject":
        return got["reason"] == want["reason"] or got["reason"] in want.get("also", ())
    return all(int(want[n]) == int(v) if n == "expiry" else want[n] == v for n, v in got.items() if n in want)
