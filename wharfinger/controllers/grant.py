"""Reconciles Grants: says in each status whether it is in force, meters its silicon, clears away what is long over.

The meter's records are for the bill: in the control plane's journal, on disk before they count. What began is known
again after a restart from the journal itself; a grant that went while nobody looked ends when it is found gone. A
revoked grant whose pod is gone is evidence no more than the journals are: it is deleted after a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from wharfinger.controllers.readiness import settle
from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, own, tenant_of
from wharfinger.core.clock import MINUTE, Instant, Span, parse_rfc3339, rfc3339_micro
from wharfinger.core.document import Json
from wharfinger.govern.billing import BEGAN, ENDED, GPU
from wharfinger.gpu import quota
from wharfinger.gpu.partitions import COMPUTE_SLICES
from wharfinger.kinds.condition import condition, find
from wharfinger.policy.journal import Journal

ACTIVE: Final = "Active"
KEPT: Final[Span] = 5 * MINUTE
"""How long a grant that is over stays, for people to see why."""


class GrantReconciler:
    """Status, meter and end of Grants; `records` are those of the journal so far."""

    kind = "grants"

    def __init__(self, cache: Cache, writer: Writer, journal: Journal, records: Iterable[Mapping[str, Json]]) -> None:
        self._cache = cache
        self._writer = writer
        self._journal = journal
        self._lock = threading.Lock()
        self._open: dict[str, Key] = {}
        for record in records:
            if record.get("kind") == GPU:
                if record["event"] == BEGAN:
                    self._open[record["uid"]] = Key(record["namespace"], record["grant"])
                else:
                    self._open.pop(record["uid"], None)
        self._recovered = not self._open

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return the grants."""
        return {self.kind: own}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Meter one grant, say whether it is in force, delete it when it is long over."""
        with self._lock:
            if not self._recovered:
                self._recovered = True
                for gone in set(self._open.values()) - {key}:
                    self._meter(gone, now)
            self._meter(key, now)
        grant = self._cache.get(self.kind, key.namespace, key.name)
        if grant is None or deleting(grant):
            return None
        spec, meta = grant["spec"], grant["metadata"]
        status, reason, message = in_force(spec, now)
        old = (grant.get("status") or {}).get("conditions")
        conditions = condition(old, ACTIVE, status, reason, message, meta.get("generation", 0), now)
        settle(self._writer, self.kind, grant, {"conditions": conditions}, ACTIVE)
        if status:
            return max(parse_rfc3339(spec["notAfter"]) - now, 0) + MINUTE
        over = find(conditions, ACTIVE)
        assert over is not None
        left = parse_rfc3339(over["lastTransitionTime"]) + KEPT - now
        if left > 0:
            return left
        if not spec.get("pod") or self._cache.get("pods", key.namespace, spec["pod"]) is None:
            self._writer.delete(self.kind, key.namespace, key.name, meta["uid"])
            return None
        return KEPT

    def _meter(self, key: Key, now: Instant) -> None:
        grant = self._cache.get(self.kind, key.namespace, key.name)
        running = grant is not None and in_force(grant["spec"], now)[0]
        uid = grant["metadata"]["uid"] if grant is not None else ""
        for other in [u for u, where in self._open.items() if where == key and not (running and u == uid)]:
            self._write({"event": ENDED, "uid": other, "grant": key.name, "namespace": key.namespace}, now)
            del self._open[other]
        silicon = grant is not None and (grant["spec"].get("claim") or {}).get("devices")
        if grant is not None and running and silicon and uid not in self._open:
            self._write(self._began(grant, key), now)
            self._open[uid] = key

    def _began(self, grant: Object, key: Key) -> dict[str, Any]:
        spec = grant["spec"]
        worth = quota.silicon(self._cache.list("resourceslices"))
        tenant = tenant_of(self._cache, key.namespace)
        devices = []
        for device in spec["claim"]["devices"]:
            known = worth.get((device["driver"], device["pool"], device["device"]))
            slices = known.amount.compute_slices if known is not None else COMPUTE_SLICES
            devices.append({"uuid": device["uuid"], "slices": slices})
        return {
            "event": BEGAN,
            "uid": grant["metadata"]["uid"],
            "grant": key.name,
            "namespace": key.namespace,
            "tenant": tenant["metadata"]["name"] if tenant is not None else "",
            "service": spec.get("service", ""),
            "claim": spec["claim"]["uid"],
            "devices": devices,
            "notAfter": spec["notAfter"],
        }

    def _write(self, record: dict[str, Any], now: Instant) -> None:
        self._journal.append({"kind": GPU, "at": rfc3339_micro(now), **record})


def in_force(spec: Object, now: Instant) -> tuple[bool, str, str]:
    """Return whether a grant is in force, a reason in one word, and words."""
    if spec.get("revoked"):
        return False, "Revoked", spec.get("revokedReason") or "revoked"
    if now >= parse_rfc3339(spec["notAfter"]):
        return False, "Expired", f"it held until {spec['notAfter']}"
    return True, "Issued", f"every door knows it, until {spec['notAfter']}"
