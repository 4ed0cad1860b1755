"""A decision in words: who wanted what, what was decided, and why, for people who were not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wharfinger.core.clock import rfc3339
from wharfinger.core.document import Json
from wharfinger.policy.decision import Decision

_ELEMENTS: Mapping[str, str] = {
    "identity": "the workload is not the one that the grant names",
    "artifact": "the artifact is not one that the grant names",
    "device": "the device is not one that the grant names",
    "caller": "the caller is not one that the grant names",
    "validity": "the grant was not valid at that time",
    "revocation": "the grant had been revoked",
    "grant": "the grant could not be read",
}


def explain(decision: Decision, inputs: Mapping[str, Json]) -> list[str]:
    """Return the story of `decision`, a sentence a line, told from its record and its `inputs` alone."""
    request: Mapping[str, Any] = inputs.get("request") or {}
    verdict = decision.verdict
    lines = [
        f"At {rfc3339(decision.at)} {decision.who} asked to {decision.verb} {decision.what}"
        + (f" at the {request['door']} door" if request.get("door") else "")
        + (f", for tenant {decision.tenant}." if decision.tenant else "."),
        f"{decision.part} {'allowed' if verdict.allowed else 'refused'} it: {verdict.reason}.",
    ]
    if not verdict.allowed and verdict.element in _ELEMENTS:
        lines.append(f"What did not belong: the {verdict.element}; {_ELEMENTS[verdict.element]}.")
    presented = [
        f"{name} {request[key]}"
        for name, key in (("workload", "who"), ("artifact", "what"), ("device", "device"), ("caller", "caller"))
        if request.get(key)
    ]
    if presented:
        lines.append("It presented " + ", ".join(presented) + ".")
    for grant in inputs.get("grants") or ():
        lines.extend(_grant(grant))
    lines.append(f"Judged by {decision.rule}; replay it with: wharf replay decision {decision.id}")
    return lines


def _grant(grant: Mapping[str, Any]) -> list[str]:
    devices = [f"{d['uuid']} ({d['pool']}/{d['device']})" for d in (grant.get("claim") or {}).get("devices", ())]
    lines = [
        f"The grant {'that allowed it' if not grant.get('revoked') else 'in question, revoked,'} names workload "
        f"{grant.get('workload')}, artifacts {', '.join(grant.get('artifacts', ()))}, "
        f"silicon {', '.join(devices) or 'none'}, callers {', '.join(grant.get('callers', ())) or 'nobody'}.",
        f"It holds from {grant.get('notBefore')} until {grant.get('notAfter')}, was issued under policies "
        f"{grant.get('policyRevision')} by decision {grant.get('decision')}.",
    ]
    return lines
