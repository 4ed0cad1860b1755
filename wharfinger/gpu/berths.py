"""Berths: whether a claim may get what an allocator gave it, beside what other claims have.

The last word on an allocation, asked in the transaction that writes it. An allocator decides on what it has seen, which
may be old by then, and there may be several; this sees every claim as it is. So no device and no part of a GPU is ever
given twice, and no tenant holds more than its quota, however many write at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wharfinger.core.quantity import Quantity
from wharfinger.gpu.inventory import DeviceId
from wharfinger.gpu.quota import Amount, admit, allowed, amount_of, devices_of, held, silicon

Object = Mapping[str, Any]


def gains(new: Object, old: Object | None) -> bool:
    """Say whether a claim gets devices that it had not before."""
    return bool(set(devices_of(new)) - set(devices_of(old or {})))


def refusal(claim: Object, claims: Iterable[Object], slices: Sequence[Object], tenants: Iterable[Object]) -> str:
    """Return why `claim` may not have its devices, empty when it may.

    `claims` are all there are; the claim itself may be among them as it was before. Raises `Invalid` for slices or a
    tenant that cannot be read.
    """
    meta = claim["metadata"]
    others = [
        other
        for other in claims
        if (other["metadata"].get("namespace"), other["metadata"]["name"]) != (meta.get("namespace"), meta["name"])
    ]
    mine = set(devices_of(claim))
    taken = {device for other in others for device in devices_of(other)}
    for device in sorted(mine & taken):
        return f"device {'/'.join(device)} is another claim's"
    overdrawn = _overdrawn(mine, taken, slices)
    if overdrawn:
        return overdrawn
    return _over_quota(claim, others, mine, slices, tenants)


def _overdrawn(mine: set[DeviceId], taken: set[DeviceId], slices: Iterable[Object]) -> str:
    """Return which counter of a GPU the devices of a claim overdraw together with those that others have."""
    pools = {(driver, pool) for driver, pool, _ in mine}
    specs = [s["spec"] for s in slices if (s["spec"]["driver"], s["spec"]["pool"]["name"]) in pools]
    newest: dict[tuple[str, str], int] = {}
    for spec in specs:
        pool = (spec["driver"], spec["pool"]["name"])
        newest[pool] = max(newest.get(pool, 0), spec["pool"].get("generation", 0))
    left: dict[tuple[str, str, str, str], int] = {}
    used: dict[tuple[str, str, str, str], int] = {}
    touched: set[tuple[str, str, str, str]] = set()
    for spec in specs:
        driver, pool = spec["driver"], spec["pool"]["name"]
        if spec["pool"].get("generation", 0) < newest[driver, pool]:
            continue
        for counters in spec.get("sharedCounters") or ():
            for name, counter in (counters.get("counters") or {}).items():
                left[driver, pool, counters["name"], name] = Quantity.of_json(counter["value"]).nanos
        for device in spec.get("devices") or ():
            which = (driver, pool, device["name"])
            if which not in mine and which not in taken:
                continue
            for consumption in device.get("consumesCounters") or ():
                for name, counter in (consumption.get("counters") or {}).items():
                    key = (driver, pool, consumption["counterSet"], name)
                    used[key] = used.get(key, 0) + Quantity.of_json(counter["value"]).nanos
                    if which in mine:
                        touched.add(key)
    for key in sorted(touched):
        if used[key] > left.get(key, 0):
            return f"{key[3]} of {key[2]} in pool {key[0]}/{key[1]} is another claim's"
    return ""


def _over_quota(
    claim: Object, others: Sequence[Object], mine: set[DeviceId], slices: Sequence[Object], tenants: Iterable[Object]
) -> str:
    namespace = claim["metadata"].get("namespace", "")
    tenant = next((t for t in tenants if namespace in (t["spec"].get("namespaces") or ())), None)
    if tenant is None:
        return f"namespace {namespace} belongs to no tenant"
    worth = silicon(slices)
    namespaces = set(tenant["spec"]["namespaces"])
    used: Amount = held((o for o in others if o["metadata"].get("namespace", "") in namespaces), worth)
    over = admit(used, amount_of(mine, worth), allowed(tenant))
    return f"tenant {tenant['metadata']['name']}: {over}" if over else ""
