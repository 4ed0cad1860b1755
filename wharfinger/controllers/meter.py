"""Records when grants of silicon begin and end, for the bill: in the control plane's journal, on disk before it counts.

What began is known again after a restart from the journal itself; a grant that went while nobody looked ends when it is
found gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wharfinger.controllers.world import Cache, Key, Object, own, tenant_of
from wharfinger.core.clock import Instant, Span, rfc3339_micro
from wharfinger.core.document import Json
from wharfinger.govern.billing import BEGAN, ENDED, GPU
from wharfinger.gpu import quota
from wharfinger.gpu.partitions import COMPUTE_SLICES
from wharfinger.policy.journal import Journal


class GrantMeter:
    """Keyed by Grant; `records` are those of the journal so far, from which what runs is known again."""

    kind = "grants"

    def __init__(self, cache: Cache, journal: Journal, records: Iterable[Mapping[str, Json]]) -> None:
        self._cache = cache
        self._journal = journal
        self._open: dict[str, Key] = {}
        for record in records:
            if record.get("kind") == GPU:
                if record["event"] == BEGAN:
                    self._open[record["uid"]] = Key(record["namespace"], record["grant"])
                else:
                    self._open.pop(record["uid"], None)
        self._recovered = not self._open
        self._lock = threading.Lock()

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return the grants."""
        return {self.kind: own}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Record that one grant began, or that what was there under this name ended."""
        with self._lock:
            if not self._recovered:
                self._recovered = True
                for gone in set(self._open.values()) - {key}:
                    self._look(gone, now)
            self._look(key, now)
        return None

    def _look(self, key: Key, now: Instant) -> None:
        grant = self._cache.get(self.kind, key.namespace, key.name)
        running = grant is not None and not grant["spec"].get("revoked")
        uid = grant["metadata"]["uid"] if grant is not None else ""
        for other in [u for u, where in self._open.items() if where == key and not (running and u == uid)]:
            self._write({"event": ENDED, "uid": other, "grant": key.name, "namespace": key.namespace}, now)
            del self._open[other]
        if (
            grant is not None
            and running
            and uid not in self._open
            and (grant["spec"].get("claim") or {}).get("devices")
        ):
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
