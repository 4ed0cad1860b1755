"""Placement: which node a pod goes to and which devices its claims get, or why it waits.

Pure. All or nothing per pod: `decide` gives every claim its devices or none. A pod's devices stay within the quota of
its tenant and at the distance from other tenants that both demand. Among the nodes that fit, the pod goes where it
takes the least silicon, then where most is taken already; ties go by name, so that the same state gives the same
answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.core.document import Json
from wharfinger.core.errors import WharfingerError
from wharfinger.gpu.allocation import Unfit, allocate
from wharfinger.gpu.candidates import read
from wharfinger.gpu.diagnosis import explain
from wharfinger.gpu.inventory import DeviceId, Inventory, node_matches
from wharfinger.gpu.isolation import forbidden
from wharfinger.gpu.quota import Amount, Silicon, admit, allowed, amount_of, devices_of, held
from wharfinger.local.scheduler.nodefit import Load, obstacle

Object = Mapping[str, Any]

MAX_FITS: Final = 16
"""Nodes that fit among which the best is chosen; more are not looked for."""
MAX_EXPLAINED: Final = 20
"""Nodes for which it is said why they do not fit."""
MAX_RESERVED: Final = 256
"""Pods that may use one claim (resource.k8s.io/v1, ResourceClaimReservedForMaxSize)."""

_NOT_MADE: Final = "waits for the making of its claim"


@dataclass(frozen=True, slots=True)
class State:
    """What there is. `claims` are all ResourceClaims by namespace and name, `worth` what each device is worth."""

    nodes: Sequence[Object]
    loads: Mapping[str, Load]
    claims: Mapping[tuple[str, str], Object]
    inventory: Inventory
    worth: Mapping[DeviceId, Silicon]
    classes: Mapping[str, Object]
    tenants: Sequence[Object]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a pod goes.

    `allocations` are the AllocationResults of claims that have none yet, by name; `reserve` names the claims that are
    not reserved for the pod yet.
    """

    node: str
    allocations: Mapping[str, dict[str, Json]]
    reserve: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a pod cannot be placed now, in words.

    `release` names claims that were allocated for it alone in vain; `passing` says that what it waits for is being made
    and no news to anybody.
    """

    message: str
    release: tuple[str, ...] = ()
    passing: bool = False


@dataclass(frozen=True, slots=True)
class _Fit:
    node: str
    results: Sequence[dict[str, Json]]
    asked: Amount


def decide(state: State, pod: Object) -> Placement | Waiting:
    """Return where `pod` goes, or why it waits."""
    try:
        names, problem = _claims_of(state, pod)
        if problem:
            return Waiting(problem, passing=problem.startswith(_NOT_MADE))
        namespace = pod["metadata"]["namespace"]
        claims = [state.claims[namespace, name] for name in names]
        return _place(state, pod, claims)
    except WharfingerError as error:
        return Waiting(error.message)


def _claims_of(state: State, pod: Object) -> tuple[list[str], str]:
    """Return the names of the pod's claims, or what keeps one of them from being used."""
    meta = pod["metadata"]
    told = {s["name"]: s.get("resourceClaimName") for s in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
    names: list[str] = []
    for entry in pod["spec"].get("resourceClaims") or ():
        made = entry.get("resourceClaimTemplateName")
        if made and entry["name"] in told and not told[entry["name"]]:
            continue
        name = told.get(entry["name"]) if made else entry.get("resourceClaimName")
        if not name:
            return [], f"{_NOT_MADE} {entry['name']} from template {made}"
        claim = state.claims.get((meta["namespace"], name))
        if claim is None:
            return [], f"there is no ResourceClaim {name} in {meta['namespace']}"
        if claim["metadata"].get("deletionTimestamp"):
            return [], f"ResourceClaim {name} is being deleted"
        owners = claim["metadata"].get("ownerReferences") or ()
        if made and not any(o.get("uid") == meta["uid"] for o in owners):
            return [], f"ResourceClaim {name} was not made for this pod"
        holders = (claim.get("status") or {}).get("reservedFor") or ()
        if len(holders) >= MAX_RESERVED and all(holder.get("uid") != meta["uid"] for holder in holders):
            return [], f"ResourceClaim {name} is in use by {MAX_RESERVED} pods already"
        if name not in names:
            names.append(name)
    return names, ""


def _place(state: State, pod: Object, claims: Sequence[Object]) -> Placement | Waiting:
    have = [claim for claim in claims if _allocation(claim)]
    need = [claim for claim in claims if not _allocation(claim)]
    tenant = _tenant(state, pod["metadata"]["namespace"])
    if need and tenant is None:
        return Waiting(f"namespace {pod['metadata']['namespace']} belongs to no tenant: it has no quota for devices")
    holders = _holders(state)
    barred = _barred(state, tenant, holders) if need else {}
    problem = read(state.inventory.features, state.classes, need)
    reasons: dict[str, str] = {}
    fits: list[_Fit] = []
    refused: list[str] = []
    unfit: list[Object] = []
    for node in _in_order(state, holders):
        name = node["metadata"]["name"]
        why = obstacle(pod, node, state.loads.get(name, Load())) or _elsewhere(have, node)
        if why:
            reasons[name] = why
            continue
        found: list[dict[str, Json]] | Unfit = []
        if need:
            found = allocate(
                state.inventory, state.classes, node, need, holders.keys(), forbidden=barred, problem=problem
            )
        if isinstance(found, Unfit):
            unfit.append(node)
            reasons[name] = found.reason
            continue
        asked = amount_of(_devices(found), state.worth)
        over = _over_quota(state, tenant, asked) if need and tenant is not None else ""
        if over:
            refused.append(over)
            continue
        fits.append(_Fit(name, found, asked))
        if len(fits) >= MAX_FITS:
            break
    if fits:
        best = min(fits, key=lambda fit: (fit.asked.memory, fit.asked.compute_slices))
        return _placement(pod, claims, need, best)
    if refused:
        return Waiting(min(refused, key=len), _in_vain(pod, have))
    for node in unfit[:MAX_EXPLAINED]:
        name = node["metadata"]["name"]
        reasons[name] = explain(state.inventory, state.classes, node, need, holders.keys(), barred) or reasons[name]
    return Waiting(_told(state.nodes, reasons), _in_vain(pod, have))


def _placement(pod: Object, claims: Sequence[Object], need: Sequence[Object], best: _Fit) -> Placement:
    given = {claim["metadata"]["name"]: result for claim, result in zip(need, best.results, strict=True)}
    uid = pod["metadata"]["uid"]
    reserve = tuple(
        claim["metadata"]["name"]
        for claim in claims
        if all(holder.get("uid") != uid for holder in (claim.get("status") or {}).get("reservedFor") or ())
    )
    return Placement(best.node, given, reserve)


def _in_order(state: State, holders: Mapping[DeviceId, str]) -> list[Object]:
    """Return the nodes, those first where most devices are taken, then those with fewest pods."""
    taken: dict[str, int] = {}
    for device in holders:
        silicon = state.worth.get(device)
        if silicon is not None:
            taken[silicon.node] = taken.get(silicon.node, 0) + silicon.amount.compute_slices

    def rank(node: Object) -> tuple[int, int, str]:
        name = node["metadata"]["name"]
        return (-taken.get(name, 0), state.loads.get(name, Load()).pods, name)

    return sorted(state.nodes, key=rank)


def _holders(state: State) -> dict[DeviceId, str]:
    """Return which device is held, and by whose namespace."""
    return {device: namespace for (namespace, _), claim in state.claims.items() for device in devices_of(claim)}


def _barred(state: State, tenant: Object | None, holders: Mapping[DeviceId, str]) -> dict[DeviceId, str]:
    names = {n: t["metadata"]["name"] for t in state.tenants for n in t["spec"].get("namespaces") or ()}
    demands = {
        t["metadata"]["name"]: (t["spec"].get("isolation") or {}).get("fromOthers", "slice") for t in state.tenants
    }
    mine = tenant["metadata"]["name"] if tenant else ""
    return forbidden(mine, demands, [(d, names.get(n, "")) for d, n in holders.items()], state.worth)


def _over_quota(state: State, tenant: Object, asked: Amount) -> str:
    namespaces = set(tenant["spec"].get("namespaces") or ())
    used = held((claim for (where, _), claim in state.claims.items() if where in namespaces), state.worth)
    refusal = admit(used, asked, allowed(tenant))
    return f"tenant {tenant['metadata']['name']}: {refusal}" if refusal else ""


def _tenant(state: State, namespace: str) -> Object | None:
    return next((t for t in state.tenants if namespace in (t["spec"].get("namespaces") or ())), None)


def _allocation(claim: Object) -> Mapping[str, Any]:
    return (claim.get("status") or {}).get("allocation") or {}


def _elsewhere(have: Sequence[Object], node: Object) -> str:
    """Return which claim that is allocated already cannot be used on `node`."""
    for claim in have:
        selector = _allocation(claim).get("nodeSelector")
        if selector is not None and not node_matches({"nodeSelector": selector}, node):
            return f"ResourceClaim {claim['metadata']['name']} is allocated elsewhere"
    return ""


def _in_vain(pod: Object, have: Sequence[Object]) -> tuple[str, ...]:
    """Return the claims that nobody but this pod, which cannot use them, holds."""
    uid = pod["metadata"]["uid"]
    return tuple(
        claim["metadata"]["name"]
        for claim in have
        if {holder.get("uid") for holder in (claim.get("status") or {}).get("reservedFor") or ()} <= {uid}
    )


def _devices(results: Sequence[Mapping[str, Any]]) -> list[DeviceId]:
    return [device for result in results for device in devices_of({"status": {"allocation": result}})]


def _told(nodes: Sequence[Object], reasons: Mapping[str, str]) -> str:
    """Say why no node fits; nodes with one reason together."""
    if not nodes:
        return "there is no node"
    alike: dict[str, list[str]] = {}
    for name in sorted(reasons):
        alike.setdefault(reasons[name] or "its claims do not fit", []).append(name)
    shown = list(alike.items())[:MAX_EXPLAINED]
    parts = [f"node{'s' * (len(names) > 1)} {', '.join(names[:8])}: {reason}" for reason, names in shown]
    return f"0 of {len(nodes)} nodes fit; {'; '.join(parts)}"
