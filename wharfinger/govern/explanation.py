"""A decision in words: who wanted what, what was decided, and why, for people who were not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from wharfinger.core.clock import rfc3339
from wharfinger.core.document import Json
from wharfinger.govern.replay import RULES
from wharfinger.policy.decision import Decision

_ELEMENTS: Final[Mapping[str, str]] = {
    "identity": "the workload is not the one that the grant names",
    "artifact": "the artifact is not one that the grant names",
    "device": "the device is not one that the grant names",
    "caller": "the caller is not one that the grant names",
    "validity": "the grant was not valid at that time",
    "revocation": "the grant had been revoked",
    "grant": "the grant could not be read",
}
_PRESENTED: Final = (("workload", "who"), ("artifact", "what"), ("device", "device"), ("caller", "caller"))


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
    if decision.rule == "grant.permits_any":
        lines += _at_a_door(decision, request, inputs)
    elif decision.rule == "grant.issue":
        lines += _issued(inputs)
    lines += _policies(inputs)
    how = (
        f"replay it with: wharf replay decision {decision.id}"
        if decision.rule in RULES
        else "what it read is not kept, so it is not replayed"
    )
    return [*lines, f"Judged by {decision.rule}; {how}"]


def _at_a_door(decision: Decision, request: Mapping[str, Any], inputs: Mapping[str, Json]) -> Iterator[str]:
    verdict = decision.verdict
    if not verdict.allowed and verdict.element in _ELEMENTS:
        yield f"What did not belong: the {verdict.element}; {_ELEMENTS[verdict.element]}."
    presented = [f"{name} {request[key]}" for name, key in _PRESENTED if request.get(key)]
    if presented:
        yield "It presented " + ", ".join(presented) + "."
    for grant in inputs.get("grants") or ():
        if verdict.allowed:
            which = "The grant that allowed it"
        elif grant.get("revoked"):
            which = "The grant in question, revoked,"
        else:
            which = "The grant that comes nearest"
        yield f"{which} {_names(grant)}"
        yield _validity(grant)


def _issued(inputs: Mapping[str, Json]) -> Iterator[str]:
    for premises, grant in zip(inputs.get("premises") or (), inputs.get("grants") or (), strict=False):
        yield f"The grant for pod {grant.get('pod')} {_names(grant)}"
        yield _validity(grant)
        for digest, told in premises["artifacts"].items():
            yield f"It rests on artifact {digest}: {told['reason']}."
        yield f"It rests on the workload's right to serve: {premises['serve']['reason']}."
        for caller, told in premises["calls"].items():
            yield f"Caller {caller} is {'in it' if told['allowed'] else 'left out'}: {told['reason']}."


def _policies(inputs: Mapping[str, Json]) -> Iterator[str]:
    policies = inputs.get("policies")
    if isinstance(policies, list) and policies:
        names = [f"{p.get('kind', 'AccessPolicy')} {p['metadata']['name']}" for p in policies]
        yield f"Policies that had a say: {', '.join(names)}."


def _names(grant: Mapping[str, Any]) -> str:
    devices = [f"{d['uuid']} ({d['pool']}/{d['device']})" for d in (grant.get("claim") or {}).get("devices", ())]
    return (
        f"names workload {grant.get('workload')}, artifacts {', '.join(grant.get('artifacts', ()))}, "
        f"silicon {', '.join(devices) or 'none'}, callers {', '.join(grant.get('callers', ())) or 'nobody'}."
    )


def _validity(grant: Mapping[str, Any]) -> str:
    return (
        f"It holds from {grant.get('notBefore')} until {grant.get('notAfter')}, was issued under policies "
        f"{grant.get('policyRevision')} by decision {grant.get('decision')}."
    )
