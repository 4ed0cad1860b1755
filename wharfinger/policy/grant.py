"""The grant: *this identity* may use *these artifacts* on *this silicon* for *these callers*.

The core of the product, two pure functions. `issue` writes a grant when every premise holds; `permits`
is what each door asks, of the grant's spec as it stands now: registry (pull), device node (open),
runtime and gateway (call). Both speak of plain values, so that a stored decision replays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from wharfinger.core.clock import HOUR, Instant, Span, parse_rfc3339, rfc3339
from wharfinger.core.document import Json
from wharfinger.core.errors import Denied, Malformed
from wharfinger.policy.decision import Verdict

DEFAULT_LIFETIME: Span = 24 * HOUR


class Door(StrEnum):
    """Where a grant is asked."""

    REGISTRY = "registry"
    DEVICE = "device"
    RUNTIME = "runtime"
    GATEWAY = "gateway"


NEEDS: Mapping[Door, frozenset[str]] = {
    Door.REGISTRY: frozenset({"identity", "artifact"}),
    Door.DEVICE: frozenset({"identity", "device"}),
    Door.RUNTIME: frozenset({"identity", "artifact", "caller"}),
    Door.GATEWAY: frozenset({"identity", "artifact", "caller"}),
}
"""The elements that a door must present; one that it presents beyond these is judged too."""


@dataclass(frozen=True, slots=True)
class Silicon:
    """One allocated device: its name in the fleet and the UUID of the GPU or slice behind it."""

    driver: str
    pool: str
    device: str
    uuid: str
    request: str = ""


@dataclass(frozen=True, slots=True)
class Premises:
    """What a grant is issued on.

    `artifact_verdicts` maps each artifact's digest to what verification under the TrustPolicies said;
    `serve` is what access policy said of the workload serving them; `calls` maps each caller to what it
    said of them. `claim_holder` is the uid of the pod that the claim is reserved for.
    """

    workload: str
    pod: str
    pod_uid: str
    service: str
    artifact_verdicts: Mapping[str, Verdict]
    serve: Verdict
    calls: Mapping[str, Verdict]
    claim_name: str = ""
    claim_uid: str = ""
    claim_holder: str = ""
    silicon: Sequence[Silicon] = ()
    needs_silicon: bool = True
    policy_revision: str = ""
    verification: Sequence[str] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the premises as a JSON object, for a decision's inputs; `of_json` reads them back."""
        return {
            "workload": self.workload,
            "pod": self.pod,
            "podUid": self.pod_uid,
            "service": self.service,
            "artifacts": {digest: _told(verdict) for digest, verdict in self.artifact_verdicts.items()},
            "serve": _told(self.serve),
            "calls": {caller: _told(verdict) for caller, verdict in self.calls.items()},
            "claim": {"name": self.claim_name, "uid": self.claim_uid, "holder": self.claim_holder},
            "silicon": [[s.driver, s.pool, s.device, s.uuid, s.request] for s in self.silicon],
            "needsSilicon": self.needs_silicon,
            "policyRevision": self.policy_revision,
            "verification": list(self.verification),
        }

    @classmethod
    def of_json(cls, value: Json) -> Premises:
        """Return the premises that `to_json` wrote. Raises `KeyError` or `TypeError` for anything else."""
        return cls(
            workload=value["workload"],
            pod=value["pod"],
            pod_uid=value["podUid"],
            service=value["service"],
            artifact_verdicts={digest: Verdict(**told) for digest, told in value["artifacts"].items()},
            serve=Verdict(**value["serve"]),
            calls={caller: Verdict(**told) for caller, told in value["calls"].items()},
            claim_name=value["claim"]["name"],
            claim_uid=value["claim"]["uid"],
            claim_holder=value["claim"]["holder"],
            silicon=[Silicon(*told) for told in value["silicon"]],
            needs_silicon=value["needsSilicon"],
            policy_revision=value["policyRevision"],
            verification=value["verification"],
        )


def _told(verdict: Verdict) -> dict[str, Json]:
    return {"allowed": verdict.allowed, "reason": verdict.reason, "element": verdict.element}


_OVER = frozenset({"revocation", "validity", "grant"})
"""The elements that a grant which is over, or cannot be read, is refused for."""


def issue(premises: Premises, decision: str, now: Instant, lifetime: Span = DEFAULT_LIFETIME) -> dict[str, Json]:
    """Return the spec of a Grant on these `premises`, valid from `now` for `lifetime`, issued by `decision`.

    A caller whom access policy refuses is left out of the grant, not in the way of it.
    Raises `Denied`, naming the premise that does not hold.
    """
    if not premises.artifact_verdicts:
        raise Denied(f"{premises.workload}: expected at least one verified artifact, got none")
    for digest, verdict in premises.artifact_verdicts.items():
        if not verdict.allowed:
            raise Denied(f"artifact {digest}: {verdict.reason}")
    if not premises.serve.allowed:
        raise Denied(f"{premises.workload} may not serve: {premises.serve.reason}")
    if premises.needs_silicon and not premises.silicon:
        raise Denied(f"pod {premises.pod}: expected an allocated claim, got none")
    if premises.silicon and premises.claim_holder != premises.pod_uid:
        raise Denied(f"claim {premises.claim_name} is not reserved for pod {premises.pod}")
    spec: dict[str, Json] = {
        "workload": premises.workload,
        "pod": premises.pod,
        "podUid": premises.pod_uid,
        "service": premises.service,
        "artifacts": sorted(premises.artifact_verdicts),
        "callers": sorted(caller for caller, verdict in premises.calls.items() if verdict.allowed),
        "policyRevision": premises.policy_revision,
        "notBefore": rfc3339(now),
        "notAfter": rfc3339(now + lifetime),
        "revoked": False,
        "decision": decision,
        "verification": list(premises.verification),
    }
    if premises.silicon:
        spec["claim"] = {
            "name": premises.claim_name,
            "uid": premises.claim_uid,
            "devices": [
                {"driver": s.driver, "pool": s.pool, "device": s.device, "uuid": s.uuid, "request": s.request}
                for s in premises.silicon
            ],
        }
    return spec


def permits(
    grant: Mapping[str, Json],
    door: Door,
    who: str | None,
    what: str | None,
    device: str | None,
    caller: str | None,
    now: Instant,
) -> Verdict:
    """Judge one use at `door` under the spec of one `grant`.

    `who` is the workload's SPIFFE ID, `what` an artifact's digest, `device` a GPU's or slice's UUID,
    `caller` the SPIFFE ID that asks; None for what the door does not present. A no names the first
    element that does not belong, in the order revocation, validity, identity, artifact, device, caller.
    Never raises: a grant that cannot be read is a no.
    """
    presented = {"identity": who, "artifact": what, "device": device, "caller": caller}
    try:
        if grant.get("revoked") is not False:
            reason = str(grant.get("revokedReason") or "revoked")
            return Verdict(False, f"the grant is revoked: {reason}", "revocation")
        if not parse_rfc3339(grant["notBefore"]) <= now < parse_rfc3339(grant["notAfter"]):
            return Verdict(False, f"the grant holds from {grant['notBefore']} until {grant['notAfter']}", "validity")
        for element in ("identity", "artifact", "device", "caller"):
            value = presented[element]
            if value is None:
                if element in NEEDS[door]:
                    return Verdict(False, f"the {door} door needs the {element}, got none", element)
                continue
            if not _holds(grant, element, value):
                return Verdict(False, f"{element} {value} is not in the grant", element)
    except (KeyError, TypeError, AttributeError, Malformed) as error:
        return Verdict(False, f"the grant cannot be read: {type(error).__name__}", "grant")
    return Verdict(True, f"granted to {grant['workload']}")


def permits_any(
    grants: Iterable[Mapping[str, Json]],
    door: Door,
    who: str | None,
    what: str | None,
    device: str | None,
    caller: str | None,
    now: Instant,
) -> tuple[Verdict, Mapping[str, Json] | None]:
    """Judge one use under several `grants`: the first that permits, else the refusal of the nearest.

    The nearest is the one under which the most elements hold before the first that does not, so that the
    refusal names the element that does not belong. One that is over (revoked, outside its time) is left aside where
    the same workload has one in force. Returns the verdict and the grant it speaks of.
    """
    refused: list[tuple[Verdict, Mapping[str, Json]]] = []
    for grant in grants:
        verdict = permits(grant, door, who, what, device, caller, now)
        if verdict.allowed:
            return verdict, grant
        refused.append((verdict, grant))
    if not refused:
        return Verdict(False, f"no grant speaks of {who or caller or what}", "identity"), None
    in_force = {_workload(grant) for verdict, grant in refused if verdict.element not in _OVER}
    presented = {"identity": who, "artifact": what, "device": device, "caller": caller}
    return max(
        (r for r in refused if r[0].element not in _OVER or _workload(r[1]) not in in_force),
        key=lambda r: _matching(r[1], presented),
    )


def caller_matches(pattern: str, caller: str) -> bool:
    """Say whether `pattern`, a SPIFFE ID or a `.../*` for everything below it, matches `caller`."""
    if pattern.endswith("/*"):
        return caller.startswith(pattern[:-1]) and len(caller) > len(pattern) - 1
    return caller == pattern


def _holds(grant: Mapping[str, Json], element: str, value: str) -> bool:
    if element == "identity":
        return bool(value == grant["workload"])
    if element == "artifact":
        return value in grant["artifacts"]
    if element == "device":
        return any(value == device["uuid"] for device in (grant.get("claim") or {}).get("devices", ()))
    return any(caller_matches(pattern, value) for pattern in grant.get("callers", ()))


def _workload(grant: Mapping[str, Json]) -> str:
    return str(grant.get("workload")) if isinstance(grant, Mapping) else ""


def _matching(grant: Mapping[str, Json], presented: Mapping[str, str | None]) -> int:
    try:
        return sum(1 for element, value in presented.items() if value is not None and _holds(grant, element, value))
    except (KeyError, TypeError, AttributeError):
        return 0
