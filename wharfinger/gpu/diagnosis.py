"""Diagnosis: why a pod's claims do not fit on a node, in words that a tenant can act on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Final

from wharfinger.core.errors import Invalid
from wharfinger.gpu.allocation import Unfit, allocate
from wharfinger.gpu.candidates import Candidates, pose, read
from wharfinger.gpu.inventory import DeviceId, Inventory, Object
from wharfinger.gpu.request import MAX_DEVICES, Ask

_BRIEF: Final = 5_000
"""Devices that the search without constraints may try: it only serves the wording."""


def explain(
    inventory: Inventory,
    classes: Mapping[str, Object],
    node: Object,
    claims: Sequence[Object],
    taken: Set[DeviceId],
    forbidden: Mapping[DeviceId, str] | None = None,
) -> str:
    """Return why `claims`, which `allocate` found unfit for `node`, do not fit there.

    `forbidden` maps devices that may not be used to the reason. Raises `Invalid` as `allocate` does.
    """
    reasons = forbidden or {}
    candidates = Candidates(inventory, node, taken, reasons)
    if not candidates.pools:
        return "no devices"
    problem = pose(candidates, read(inventory.features, classes, claims))
    short = []
    for claim, requests in zip(claims, problem.asks, strict=True):
        for alternatives in requests:
            shortages = [_shortage(candidates, ask, reasons) for ask in alternatives]
            if all(shortages):
                short.append(_named(claims, claim, " or ".join(shortages)))
    problems = [f"pool {pool.name} cannot be used: {pool.problem}" for pool in candidates.pools if pool.problem]
    if short:
        return "; ".join([*short, *problems])
    attributes = _constraints(claims)
    if attributes and _fits_without_constraints(inventory, classes, node, claims, taken, reasons):
        apart = [
            _named(claims, claim, told)
            for claim, requests in zip(claims, problem.asks, strict=True)
            if (told := _apart(candidates, claim, requests, reasons))
        ]
        return "; ".join(apart) or f"enough devices are free; missing: same {' and '.join(attributes)}"
    together = _together(inventory, classes, node, claims, taken, reasons)
    return "; ".join([together or "each request fits alone, but not all of them together", *problems])


def _together(
    inventory: Inventory,
    classes: Mapping[str, Object],
    node: Object,
    claims: Sequence[Object],
    taken: Set[DeviceId],
    forbidden: Collection[DeviceId],
) -> str:
    """Return how many of the devices of one request fit beside each other; empty unless one request is all there is."""
    requests: Sequence[Object] = ()
    if len(claims) == 1:
        requests = (claims[0]["spec"].get("devices") or {}).get("requests") or ()
    if len(requests) != 1 or not requests[0].get("exactly"):
        return ""
    wanted = requests[0]["exactly"].get("count", 1)
    for count in range(min(wanted - 1, MAX_DEVICES), 0, -1):
        exactly = {**requests[0]["exactly"], "count": count}
        less = {**claims[0], "spec": {"devices": {"requests": [{**requests[0], "exactly": exactly}]}}}
        try:
            found = allocate(inventory, classes, node, [less], taken, forbidden=forbidden, attempts=_BRIEF)
        except Invalid:
            return ""
        if not isinstance(found, Unfit):
            return f"{requests[0]['name']}: {count} of {wanted} fit beside each other"
    return ""


def _named(claims: Sequence[Object], claim: Object, told: str) -> str:
    return told if len(claims) == 1 else f"claim {claim['metadata']['name']}: {told}"


def _apart(
    candidates: Candidates, claim: Object, requests: Sequence[Sequence[Ask]], reasons: Mapping[DeviceId, str]
) -> str:
    """Return how many devices agree in what a constraint over one request demands, empty where enough do."""
    for constraint in (claim["spec"].get("devices") or {}).get("constraints") or ():
        attribute = constraint["matchAttribute"]
        for ask in (alternatives[0] for alternatives in requests if len(alternatives) == 1):
            if constraint.get("requests") and ask.full_name not in constraint["requests"]:
                continue
            groups = Counter(
                repr(candidates.offers[i].attribute(attribute))
                for i in range(len(candidates.offers))
                if candidates.selectable(ask, i)
                and not _obstacle(candidates, ask, i, reasons)
                and candidates.offers[i].attribute(attribute) is not None
            )
            most = max(groups.values(), default=0)
            if most < ask.count:
                return f"{ask.full_name}: {most} of {ask.count} fit; missing: same {attribute.rpartition('/')[2]}"
    return ""


def _shortage(candidates: Candidates, ask: Ask, reasons: Mapping[DeviceId, str]) -> str:
    """Return what one request lacks, empty when by itself it does not."""
    matching = [index for index in range(len(candidates.offers)) if candidates.selectable(ask, index)]
    obstacles = Counter(_obstacle(candidates, ask, index, reasons) for index in matching)
    free = obstacles.pop("", 0)
    needed = ask.count if ask.every is None else max(1, len(ask.every))
    if free >= needed:
        return ""
    if not matching:
        return f"{ask.full_name}: none of {len(candidates.offers)} devices matches"
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(obstacles.items()))
    return f"{ask.full_name}: {free} of {needed} fit; {len(matching)} match" + f", {why}" * bool(why)


def _obstacle(candidates: Candidates, ask: Ask, index: int, reasons: Mapping[DeviceId, str]) -> str:
    offer, pool = candidates.offers[index], candidates.pool_of[index]
    if offer.id in reasons:
        return f"not allowed: {reasons[offer.id]}"
    if candidates.taken[index] and not ask.admin:
        return "in use"
    if not candidates.tolerable(ask, index):
        return "tainted"
    if offer.consumes:
        free = candidates.free(pool)
        if free is None or any(free[name, counter] < amount for name, counter, amount in offer.consumes):
            return "overlapping one in use"
    return ""


def _constraints(claims: Sequence[Object]) -> list[str]:
    return sorted(
        {
            constraint["matchAttribute"]
            for claim in claims
            for constraint in (claim["spec"].get("devices") or {}).get("constraints") or ()
        }
    )


def _fits_without_constraints(
    inventory: Inventory,
    classes: Mapping[str, Object],
    node: Object,
    claims: Sequence[Object],
    taken: Set[DeviceId],
    forbidden: Collection[DeviceId],
) -> bool:
    free = [{**c, "spec": {**c["spec"], "devices": {**c["spec"]["devices"], "constraints": []}}} for c in claims]
    try:
        found = allocate(inventory, classes, node, free, taken, forbidden=forbidden, attempts=_BRIEF)
    except Invalid:
        return False
    return not isinstance(found, Unfit)
