"""The device door: which device nodes a pod may open, by its claims, under its grant.

A pod with claims is granted exactly the devices that its claims were allocated and that a grant for its identity and
its uid names. Each yes is judged and stored by the doorkeeper before a device opens; `check` looks again whenever a
grant changes and as time passes, and shuts the devices of a pod whose grant no longer permits them, whatever the pod's
own worker is doing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from wharfinger.core.clock import Clock
from wharfinger.core.errors import NotFound
from wharfinger.gpu.devices import Device, DeviceNode
from wharfinger.kinds.kind import GROUP
from wharfinger.local.node.cgroups import Groups
from wharfinger.policy.decision import Verdict
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.grant import Door, permits_any

Object = Mapping[str, Any]
Name = tuple[str, str, str]
"""Driver, pool, device."""

GRANT_NEEDED: Final = f"{GROUP}/grant"
"""Annotation of a pod that starts only under a Grant; its value is the artifact's digest, which the grant must name."""


class Silicon(Protocol):
    """What a node's driver does to devices around their use."""

    def prepare(self, name: Name) -> Device:
        """Return a device with all its nodes, cut first when it is a slice. Raises `NotFound`, `HostUnfit`."""
        ...

    def release(self, name: Name) -> None:
        """Let a device go that nobody uses any more."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """What a pod asks of the door: who it is, the artifact it needs, its devices; None while a claim is open."""

    uid: str
    who: str
    what: str | None
    devices: tuple[Name, ...] | None
    tenant: str = ""

    @property
    def needs_grant(self) -> bool:
        """Whether there is anything to ask."""
        return self.what is not None or self.devices is None or bool(self.devices)


@dataclass(slots=True)
class Opening:
    """What the door opened to one pod: `nodes` are its devices' own, `shared` those that other pods may need too.

    `groups` are the control groups that may open them.
    """

    request: Request
    uuids: tuple[str, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    shared: tuple[DeviceNode, ...] = ()
    groups: set[str] = field(default_factory=set)


def request_of(pod: Object, who: str, claims: Mapping[str, Object], tenant: str) -> Request:
    """Return what `pod` asks, by its own annotation and by what its claims were allocated."""
    what = (pod["metadata"].get("annotations") or {}).get(GRANT_NEEDED)
    return Request(pod["metadata"]["uid"], who, what, allocated(pod, claims), tenant)


def allocated(pod: Object, claims: Mapping[str, Object]) -> tuple[Name, ...] | None:
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
    return tuple(found)


def permitted(request: Request, uuids: Sequence[str], grants: Sequence[Object], now: int) -> Verdict:
    """Judge a pod's use of everything it asks for under the specs `grants`: one no is a no. Pure."""
    for uuid in uuids:
        verdict, _ = permits_any(grants, Door.DEVICE, request.who, request.what, uuid, None, now)
        if not verdict.allowed:
            return verdict
    if not uuids and request.what is not None:
        verdict, _ = permits_any(grants, Door.REGISTRY, request.who, request.what, None, None, now)
        return verdict
    return Verdict(True, "granted")


class DeviceDoor:
    """The door of one node process; threads share it."""

    def __init__(self, doorkeeper: Doorkeeper, silicon: Silicon, groups: Groups, clock: Clock) -> None:
        self._doorkeeper = doorkeeper
        self._silicon = silicon
        self._groups = groups
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Opening] = {}
        self._refused: dict[str, tuple[object, Verdict]] = {}
        self._prepared: dict[str, set[Name]] = {}
        """Devices by pod that are to be let go of, whatever the door said since."""

    def ask(self, request: Request, grants: Sequence[Object]) -> Verdict:
        """Say whether the pod may start; on a yes its devices are remembered as open to it.

        Every decision is stored before this returns. A refusal is asked anew only when grants or claims have changed,
        so that waiting leaves one decision and not one a second.
        """
        if not request.needs_grant:
            return self._opened(Opening(request))
        if request.devices is None:
            return Verdict(False, "its claim is not allocated yet", "device")
        mine = _of(request, grants)
        if not mine:
            return Verdict(False, "the control plane has not issued its grant yet", "grant")
        mark = (request, [dict(grant) for grant in mine])
        with self._lock:
            before = self._refused.get(request.uid)
        if before is not None and before[0] == mark:
            return before[1]
        verdict, opening = self._judge(request, mine)
        if not verdict.allowed:
            with self._lock:
                self._refused[request.uid] = (mark, verdict)
            return verdict
        return self._opened(opening)

    def admit(self, uid: str, group: str) -> None:
        """Let a container's control group open what is open to its pod; nothing when that was closed meanwhile."""
        with self._lock:
            opening = self._open.get(uid)
            if opening is not None and opening.nodes:
                opening.groups.add(group)
                nodes = (*opening.nodes, *opening.shared)
                self._groups.open(group, [(node.major, node.minor) for node in nodes])

    def opening(self, uid: str) -> Opening | None:
        """Return what is open to a pod."""
        with self._lock:
            return self._open.get(uid)

    def check(self, grants: Sequence[Object]) -> list[tuple[str, Verdict]]:
        """Close what `grants` no longer permit; return the pods it concerned with the reason.

        Devices are shut first, then the refusal is stored.
        """
        now = self._clock.now()
        shut: list[tuple[Opening, Verdict]] = []
        with self._lock:
            for uid, opening in list(self._open.items()):
                if not opening.request.needs_grant:
                    continue
                mine = _of(opening.request, grants)
                verdict = permitted(opening.request, opening.uuids, mine, now) if mine else _GONE
                if not verdict.allowed:
                    for group in opening.groups:
                        self._groups.open(group, ())
                    del self._open[uid]
                    shut.append((opening, verdict))
        for opening, _ in shut:
            self._judge_uuids(opening.request, opening.uuids, _of(opening.request, grants))
        return [(opening.request.uid, verdict) for opening, verdict in shut]

    def shut(self, group: str) -> None:
        """Shut every device to a control group: that of a container found running without a grant."""
        self._groups.open(group, ())

    def forget(self, uid: str) -> None:
        """Let go of a pod that has ended, and of its devices."""
        with self._lock:
            self._open.pop(uid, None)
            self._refused.pop(uid, None)
            mine = self._prepared.pop(uid, set())
            kept = {name for others in self._prepared.values() for name in others}
        for name in sorted(mine - kept):
            self._silicon.release(name)

    def _opened(self, opening: Opening) -> Verdict:
        with self._lock:
            self._refused.pop(opening.request.uid, None)
            self._open[opening.request.uid] = opening
        return Verdict(True, "granted" if opening.request.needs_grant else "no grant is needed")

    def _judge(self, request: Request, mine: Sequence[Object]) -> tuple[Verdict, Opening]:
        devices: list[Device] = []
        for name in request.devices or ():
            try:
                devices.append(self._silicon.prepare(name))
                with self._lock:
                    self._prepared.setdefault(request.uid, set()).add(name)
            except NotFound:
                return Verdict(False, f"this node has no device {'/'.join(name)}", "device"), Opening(request)
        uuids = tuple(device.uuid for device in devices)
        verdict = self._judge_uuids(request, uuids, mine)
        nodes = tuple(dict.fromkeys(node for device in devices for node in device.nodes))
        shared = tuple(dict.fromkeys(node for device in devices for node in device.shared))
        return verdict, Opening(request, uuids, nodes, shared)

    def _judge_uuids(self, request: Request, uuids: Sequence[str], mine: Sequence[Object]) -> Verdict:
        """Return the first no, or yes; each use is judged and stored by itself."""
        asked: list[tuple[Door, str | None]] = [(Door.DEVICE, uuid) for uuid in uuids] or [(Door.REGISTRY, None)]
        for door, device in asked:
            decision = self._doorkeeper.judge(
                door, mine, who=request.who, what=request.what, device=device, tenant=request.tenant
            )
            if not decision.verdict.allowed:
                return decision.verdict
        return Verdict(True, "granted")


_GONE: Final = Verdict(False, "its grant is gone", "grant")


def _of(request: Request, grants: Sequence[Object]) -> list[Object]:
    """Return the specs of the grants that are this pod's."""
    return [
        g["spec"]
        for g in grants
        if g["spec"].get("podUid") == request.uid and not g["metadata"].get("deletionTimestamp")
    ]
