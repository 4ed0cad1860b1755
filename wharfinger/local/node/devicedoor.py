"""The device door: which device nodes a pod may open, by its claims, under its grant.

A pod with claims is granted exactly the devices that its claims were allocated and that a grant for its identity and
its uid names. What is opened is the device's own character nodes; for a slice those of the slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wharfinger.gpu.devices import Device, DeviceNode
from wharfinger.local.node.podworker import Opening
from wharfinger.policy.decision import Verdict
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.grant import Door, permits_any

Object = Mapping[str, Any]
Name = tuple[str, str, str]
"""Driver, pool, device."""


def allocated(pod: Object, claims: Mapping[str, Object]) -> list[Name] | None:
    """Return the devices that the pod's claims were allocated for it; None while one is not."""
    found: list[Name] = []
    told = {s["name"]: s.get("resourceClaimName") for s in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
    for entry in pod["spec"].get("resourceClaims") or ():
        claim = claims.get(entry.get("resourceClaimName") or told.get(entry["name"]) or "")
        status = (claim or {}).get("status") or {}
        holders = [r.get("uid") for r in status.get("reservedFor") or ()]
        if not status.get("allocation") or pod["metadata"]["uid"] not in holders:
            return None
        results = (status["allocation"].get("devices") or {}).get("results") or ()
        found += [(r["driver"], r["pool"], r["device"]) for r in results]
    return found


class DeviceDoor:
    """Asks the doorkeeper, device by device."""

    def __init__(self, doorkeeper: Doorkeeper, devices: Mapping[Name, Device]) -> None:
        self._doorkeeper = doorkeeper
        self._devices = devices

    def ask(
        self, pod: Object, who: str, claims: Mapping[str, Object], grants: Sequence[Object], tenant: str, *, bare: bool
    ) -> Opening:
        """Return what the pod may open; each decision is stored before this returns.

        `bare` pods need a grant though they claim no device (a runtime on CPU).
        """
        names = allocated(pod, claims)
        if names is None:
            return Opening(Verdict(False, "its claim is not allocated yet", "device"))
        mine = [g["spec"] for g in grants if g["spec"].get("podUid") == pod["metadata"]["uid"]]
        if not mine:
            return Opening(Verdict(False, "the control plane has not issued its grant yet", "grant"))
        if bare and not names:
            return Opening(Verdict(True, "its grant is there"))
        nodes: list[DeviceNode] = []
        uuids: list[str] = []
        for name in names:
            device = self._devices.get(name)
            if device is None:
                return Opening(Verdict(False, f"this node has no device {'/'.join(name)}", "device"))
            decision = self._doorkeeper.judge(Door.DEVICE, mine, who=who, device=device.uuid, tenant=tenant)
            if not decision.verdict.allowed:
                return Opening(decision.verdict)
            nodes += device.nodes
            uuids.append(device.uuid)
        return Opening(Verdict(True, "granted"), tuple(dict.fromkeys(nodes)), tuple(uuids))


def still(pod: Object, who: str, opening: Opening, grants: Sequence[Object], now: int) -> Verdict:
    """Say whether what was opened may stay open under the grants as they are now."""
    mine = [g["spec"] for g in grants if g["spec"].get("podUid") == pod["metadata"]["uid"]]
    if not mine:
        return Verdict(False, "its grant is gone", "grant")
    for uuid in opening.uuids:
        verdict, _ = permits_any(mine, Door.DEVICE, who, None, uuid, None, now)
        if not verdict.allowed:
            return verdict
    if not opening.uuids and all(g.get("revoked") for g in mine):
        return Verdict(False, "its grant is revoked", "revocation")
    return Verdict(True, "granted")
