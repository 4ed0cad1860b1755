"""The scheduler: takes pods that have no node, decides by `placement`, writes what was decided.

    scheduler = Scheduler(informers, writer, clock)
    scheduler.start()    # returns at once; the informers must have been started
    scheduler.stop()

`informers` keep at least the kinds of `WATCHES`; `writer` is a `cluster.writer.ObjectWriter` of the control part. One
thread decides, so that two pods never get one device from it; what it has written counts at once, before it comes back
through a watch. Claims are written before the pod is bound, each in the version that was decided upon: who changed one
meanwhile wins, and the pod is decided anew from what was written. Claims that were allocated for a pod that then fits
nowhere are freed, so that it holds all its devices or none. The API server refuses an allocation that would give
silicon twice or pass a quota, whoever writes it (`gpu.berths`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from wharfinger.cluster.workqueue import WorkQueue
from wharfinger.core.clock import MILLISECOND, SECOND, Clock
from wharfinger.core.errors import Conflict, NotFound, WharfingerError
from wharfinger.gpu.inventory import Features, Inventory
from wharfinger.gpu.quota import silicon
from wharfinger.kinds.condition import condition, find
from wharfinger.local.scheduler.nodefit import Load, loads
from wharfinger.local.scheduler.placement import Placement, State, Waiting, decide

Object = Mapping[str, Any]
Name = tuple[str, str]
"""Namespace and name."""

WATCHES: Final = ("pods", "nodes", "resourceclaims", "resourceslices", "deviceclasses", "tenants")
"""The kinds whose informers a scheduler reads."""
NAME: Final = "default-scheduler"
_PAUSE: Final = 20 * MILLISECOND
"""How long changes that may make room are gathered before the waiting pods are looked at again."""
_log = logging.getLogger(__name__)


class Informer(Protocol):
    """What is read of one kind."""

    def on_change(self, handler: Callable[[str, Object], None]) -> None:
        """Call `handler` with ADDED, MODIFIED or DELETED and the object."""
        ...


class Informers(Protocol):
    """What is read: `cluster.informer.Informers` is one."""

    def __getitem__(self, plural: str) -> Informer:
        """Return the informer of a kind."""
        ...

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return an object as last seen."""
        ...

    def list(self, plural: str, namespace: str = "") -> Sequence[Object]:
        """Return the objects of a kind as last seen."""
        ...

    def synced(self, timeout: float | None = None) -> bool:
        """Wait until every first list is in."""
        ...


class Writer(Protocol):
    """What is written: `cluster.writer.ObjectWriter` is one. Every method raises the error family."""

    def status(
        self, plural: str, namespace: str, name: str, status: Mapping[str, Any], *, version: str = ""
    ) -> Mapping[str, Any]:
        """Merge into a status, of that resourceVersion alone; raises `Conflict`."""
        ...

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """Bind the pod of that uid; raises `Conflict`."""
        ...

    def event(self, about: Object, reason: str, message: str, *, warning: bool) -> None:
        """Record an event."""
        ...


class Scheduler:
    """Schedules pods in a thread of its own."""

    def __init__(self, informers: Informers, writer: Writer, clock: Clock) -> None:
        self._informers = informers
        self._writer = writer
        self._clock = clock
        self._queue: WorkQueue[Name] = WorkQueue(clock)
        self._lock = threading.Lock()
        self._waiting: dict[Name, str] = {}
        self._written: dict[Name, Object] = {}
        self._bound: dict[str, tuple[Name, str]] = {}
        self._loads: dict[str, tuple[Object, Load]] = {}
        self._inventory: tuple[Any, Sequence[Object], Inventory, Mapping[Any, Any]] | None = None
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin, once the caches are filled."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the pod in work and end."""
        self._queue.close()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def schedule(self, name: Name) -> None:
        """Decide one pod now and write what was decided. Raises the error family; then it is to be tried again."""
        pod = self._informers.get("pods", *name)
        with self._lock:
            # From before the state is read: room that is made meanwhile brings the pod back.
            self._waiting[name] = str(pod["metadata"].get("creationTimestamp", "")) if pod is not None else ""
        if pod is None or not pending(pod) or _uid(pod) in self._bound:
            self._done(name)
            return
        gates = [gate.get("name", "") for gate in pod["spec"].get("schedulingGates") or ()]
        if gates:
            self._tell(pod, "SchedulingGated", f"waits for its scheduling gates {', '.join(gates)}")
            return
        decision = decide(self.state(), pod)
        if isinstance(decision, Waiting):
            self._wait(name, pod, decision)
        else:
            self._place(name, pod, decision)

    def state(self) -> State:
        """Return what there is, with what was written already and has not come back yet."""
        claims = {_name(claim): claim for claim in self._informers.list("resourceclaims")}
        with self._lock:
            for name, written in list(self._written.items()):
                seen = claims.get(name)
                if seen is None or _uid(seen) != _uid(written) or _version(seen) >= _version(written):
                    del self._written[name]
                else:
                    claims[name] = written
        pods = self._informers.list("pods")
        unseen = [p for p in pods if _uid(p) in self._bound and not p["spec"].get("nodeName")]
        self._bound = {_uid(p): self._bound[_uid(p)] for p in unseen}
        assumed = [{**p, "spec": {**p["spec"], "nodeName": self._bound[_uid(p)][1]}} for p in unseen]
        inventory, worth = self._devices()
        return State(
            nodes=[n for n in self._informers.list("nodes") if not n["metadata"].get("deletionTimestamp")],
            loads=loads([*pods, *assumed], self._loads),
            claims=claims,
            inventory=inventory,
            worth=worth,
            classes={c["metadata"]["name"]: c for c in self._informers.list("deviceclasses")},
            tenants=self._informers.list("tenants"),
        )

    def _devices(self) -> tuple[Inventory, Mapping[Any, Any]]:
        """Return the devices; what was computed of them is kept as long as slices and nodes' labels are the same."""
        slices, nodes = self._informers.list("resourceslices"), self._informers.list("nodes")
        labels = [(n["metadata"]["name"], sorted((n["metadata"].get("labels") or {}).items())) for n in nodes]
        mark = ([id(s) for s in slices], labels)
        if self._inventory is None or self._inventory[0] != mark:
            # The slices are kept too, so that none of the marks can come to mean another.
            self._inventory = (mark, slices, Inventory(slices, Features(admin_access=False)), silicon(slices))
        return self._inventory[2], self._inventory[3]

    def _wait(self, name: Name, pod: Object, waiting: Waiting) -> None:
        for claim in waiting.release:
            self._take_back(pod, claim)
        if waiting.release:
            self._queue.add(name)
            return
        self._tell(pod, "Unschedulable", waiting.message, quietly=waiting.passing)

    def _place(self, name: Name, pod: Object, placement: Placement) -> None:
        for claim in dict.fromkeys([*placement.allocations, *placement.reserve]):
            self._give(pod, claim, placement.allocations.get(claim))
        self._writer.bind(*name, _uid(pod), placement.node)
        self._bound[_uid(pod)] = (name, placement.node)
        self._done(name)
        self._writer.event(pod, "Scheduled", f"{'/'.join(name)} is assigned to {placement.node}", warning=False)

    def _done(self, name: Name) -> None:
        with self._lock:
            self._waiting.pop(name, None)

    def _give(self, pod: Object, name: str, allocation: Mapping[str, Any] | None) -> None:
        """Write a claim's allocation, if it has none yet, and reserve it for the pod, in one step."""
        claim = self._claim(pod, name)
        status = claim.get("status") or {}
        holders = [dict(holder) for holder in status.get("reservedFor") or ()]
        if all(holder.get("uid") != _uid(pod) for holder in holders):
            holders.append({"resource": "pods", "name": pod["metadata"]["name"], "uid": _uid(pod)})
        fresh: dict[str, Any] = {"reservedFor": holders}
        if allocation is not None:
            fresh["allocation"] = allocation
        self._write(claim, fresh)

    def _take_back(self, pod: Object, name: str) -> None:
        """Free a claim of the pod's reservation, and of its devices when nobody else has it."""
        claim = self._claim(pod, name)
        status = claim.get("status") or {}
        kept = [dict(h) for h in status.get("reservedFor") or () if h.get("uid") != _uid(pod)]
        self._write(claim, {"reservedFor": kept} if kept else {"reservedFor": None, "allocation": None})

    def _claim(self, pod: Object, name: str) -> Object:
        key = (pod["metadata"]["namespace"], name)
        seen = self._informers.get("resourceclaims", *key)
        with self._lock:
            written = self._written.get(key)
        if seen is None:
            raise NotFound(f"ResourceClaim {name} is gone")
        if written is not None and _uid(written) == _uid(seen) and _version(written) > _version(seen):
            return written
        return seen

    def _write(self, claim: Object, status: Mapping[str, Any]) -> None:
        meta = claim["metadata"]
        written = self._writer.status(
            "resourceclaims", meta["namespace"], meta["name"], status, version=meta.get("resourceVersion", "")
        )
        with self._lock:
            self._written[_name(claim)] = written

    def _tell(self, pod: Object, reason: str, message: str, *, quietly: bool = False) -> None:
        """Write why a pod waits, when that is news; with an event unless `quietly`."""
        meta, status = pod["metadata"], pod.get("status") or {}
        known = find(status.get("conditions"), "PodScheduled") or {}
        if (known.get("status"), known.get("reason"), known.get("message")) == ("False", reason, message[:32768]):
            return
        conditions = condition(
            status.get("conditions"), "PodScheduled", False, reason, message, meta.get("generation", 0),
            self._clock.now(),
        )  # fmt: skip
        with contextlib.suppress(NotFound):
            self._writer.status(
                "pods", meta["namespace"], meta["name"], {"conditions": conditions},
                version=meta.get("resourceVersion", ""),
            )  # fmt: skip
            if not quietly:
                self._writer.event(pod, "FailedScheduling", message, warning=True)

    def _run(self) -> None:
        self._informers.synced()
        self._informers["pods"].on_change(self._pod_changed)
        self._informers["resourceclaims"].on_change(self._claim_changed)
        for plural in ("nodes", "resourceslices", "deviceclasses", "tenants"):
            self._informers[plural].on_change(lambda _event, _object: self._room())
        while (name := self._queue.take()) is not None:
            try:
                self.schedule(name)
                self._queue.succeeded(name)
            except (Conflict, NotFound):
                self._queue.failed(name)
            except WharfingerError as error:
                pause = self._queue.failed(name)
                _log.warning(
                    "pod not scheduled",
                    extra={"fields": {"pod": "/".join(name), "error": str(error), "again_s": pause / SECOND}},
                )
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
                # One pod, or a claim of it, that is not shaped as the API promises must not keep all others waiting.
                _log.exception("pod not scheduled", extra={"fields": {"pod": "/".join(name)}})
                self._queue.failed(name)
            finally:
                self._queue.done(name)

    def _pod_changed(self, event: str, pod: Object) -> None:
        if event == "DELETED":
            self._done(_name(pod))
        if event != "DELETED" and pending(pod):
            self._queue.add(_name(pod))
        elif pod["spec"].get("nodeName") and (event == "DELETED" or _over(pod)):
            self._room()

    def _claim_changed(self, event: str, claim: Object) -> None:
        """A claim that was freed makes room; one that was made is what its pod waits for."""
        if event == "DELETED" or not (claim.get("status") or {}).get("allocation"):
            self._room()

    def _room(self) -> None:
        """Look at the waiting pods again, soon, the oldest first; a pod's own `priority` is anybody's to write."""
        with self._lock:
            waiting = sorted((made, name) for name, made in self._waiting.items())
        for _, name in waiting:
            self._queue.add_after(name, _PAUSE)


def pending(pod: Object) -> bool:
    """Say whether a pod is this scheduler's to place, and not placed yet."""
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and not pod["metadata"].get("deletionTimestamp")
        and spec.get("schedulerName", NAME) == NAME
        and not _over(pod)
    )


def _over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _name(o: Object) -> Name:
    return o["metadata"].get("namespace", ""), o["metadata"]["name"]


def _uid(o: Object) -> str:
    return str(o["metadata"].get("uid", ""))


def _version(o: Object) -> int:
    text = str(o["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0
