"""Diagnosis: why a pod's claims do not fit on a node, in words that a tenant can act on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from wharfinger.core.errors import Invalid
from wharfinger.gpu.allocation import Unfit, allocate
from wharfinger.gpu.candidates import Candidates, pose
from wharfinger.gpu.inventory import DeviceId, Inventory, Object
from wharfinger.gpu.request import Ask

_BRIEF: Final = 5_000
"""Devices that the search without constraints may try: it only serves the wording."""


def explain(
    inventory: Inventory,
    classes: Mapping[str, Object],
    node: Object,
    claims: Sequence[Object],
    taken: Collection[DeviceId],
    forbidden: Mapping[DeviceId, str] | None = None,
) -> str:
    """Return why `claims`, which `allocate` found unfit for `node`, do not fit there.

    `forbidden` maps devices that may not be used to the reason. Raises `Invalid` as `allocate` does.
    """
    reasons = forbidden or {}
    candidates = Candidates(inventory, node, taken, reasons)
    if not candidates.pools:
        return "no devices"
    problem = pose(candidates, classes, claims)
    short = []
    for claim, requests in zip(claims, problem.asks, strict=True):
        for alternatives in requests:
            shortages = [_shortage(candidates, ask, reasons) for ask in alternatives]
            if all(shortages):
                short.append(f"claim {claim['metadata']['name']}, " + "; ".join(shortages))
    problems = [f"pool {pool.name} cannot be used: {pool.problem}" for pool in candidates.pools if pool.problem]
    if short:
        return "; ".join([*short, *problems])
    attributes = _constraints(claims)
    if attributes and _fits_without_constraints(inventory, classes, node, claims, taken, reasons):
        return f"enough devices are free, but not with the same {' and '.join(attributes)}"
    return "; ".join(["each request fits alone, but not all of them together", *problems])


def _shortage(candidates: Candidates, ask: Ask, reasons: Mapping[DeviceId, str]) -> str:
    """Return what one request lacks, empty when by itself it does not."""
    matching = [index for index in range(len(candidates.offers)) if candidates.selectable(ask, index)]
    obstacles = Counter(_obstacle(candidates, ask, index, reasons) for index in matching)
    free = obstacles.pop("", 0)
    needed = ask.count if ask.every is None else max(1, len(ask.every))
    if free >= needed:
        return ""
    if not matching:
        return f"request {ask.full_name}: none of {len(candidates.offers)} devices matches"
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(obstacles.items()))
    return f"request {ask.full_name}: needs {needed}, {free} free of {len(matching)} that match" + f" ({why})" * bool(
        why
    )


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
    taken: Collection[DeviceId],
    forbidden: Collection[DeviceId],
) -> bool:
    free = [{**c, "spec": {**c["spec"], "devices": {**c["spec"]["devices"], "constraints": []}}} for c in claims]
    try:
        found = allocate(inventory, classes, node, free, taken, forbidden=forbidden, attempts=_BRIEF)
    except Invalid:
        return False
    return not isinstance(found, Unfit)
