"""The node agent: a worker per pod bound to one of this machine's nodes, woken by what concerns it.

One process is every node of the declared fleet. Pods have loopback addresses of their own, so their ports never
collide. A node that is started again finds its pods by their folders and goes on with those that run; what belongs to
no pod any more is swept.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from wharfinger.cluster.informer import Informers
from wharfinger.core.clock import SECOND, Clock, Span
from wharfinger.core.errors import Conflict, Invalid, NotFound, WharfingerError
from wharfinger.local.node import containers, podworker, sandbox, volumes
from wharfinger.local.node.cargo import Artifacts
from wharfinger.local.node.cgroups import Groups
from wharfinger.local.node.containers import Running
from wharfinger.local.node.devicedoor import DeviceDoor, Request, request_of
from wharfinger.local.node.podworker import PodWorker
from wharfinger.policy.decision import Verdict

Object = Mapping[str, Any]
LEAVE_WITHIN: Final[Span] = 4 * SECOND
"""How long pods may take to end when the node ends."""
CHECK_EVERY: Final = 0.25
"""Seconds between looks at the grants whose time runs out; a change of a grant is looked at when it happens."""
_BLOCKS: Final = 4096
_BLOCK: Final = 1024
_FIRST_ADDRESS: Final = int(ipaddress.IPv4Address("127.64.0.0"))
_log = logging.getLogger(__name__)


class Issuer(Protocol):
    """Where pods are made known, so that their processes get their identity and nobody else does."""

    def register(self, uid: str, container: str, spiffe_id: str, folder: Path, running: Running) -> None:
        """Serve `spiffe_id` on a socket in `folder` to the processes of `running`, a container of the pod, alone.

        Raises `Unavailable`; even then it is remembered, and told as soon as the issuer can be reached.
        """
        ...

    def unregister(self, uid: str) -> None:
        """Serve nothing to the containers of that pod any more."""
        ...


class Writer(Protocol):
    """How the agent writes: `cluster.writer.ObjectWriter` is one. Every method raises the error family."""

    def status(self, plural: str, namespace: str, name: str, status: Mapping[str, Any], *, version: str = "") -> object:
        """Merge a status into the object of that resourceVersion; raises `Conflict`."""
        ...

    def delete(self, plural: str, namespace: str, name: str, uid: str = "", grace: int | None = None) -> None:
        """Delete an object of that uid."""
        ...

    def event(self, about: Object, reason: str, message: str, *, warning: bool) -> None:
        """Record an event."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where the node keeps what is its own: `pods` for folders, `sockets` for identity sockets (their paths are short,
    since a socket's may have 107 bytes), `evidence` for pods' journals; `name` tells this platform from others on the
    machine.
    """

    pods: Path
    sockets: Path
    evidence: Path
    name: str


class Agent:
    """Runs pods. `nodes` are the Node objects that this process stands for.

    `find` reads other objects for pods (Secrets, ConfigMaps); `shown` gives the device nodes that a pod on a node sees.
    `guardian` is a pidfd of the process whose end is every pod's.
    """

    def __init__(
        self,
        *,
        place: Place,
        trust_domain: str,
        informers: Informers,
        writer: Writer,
        find: Callable[[str, str, str], Object | None],
        door: DeviceDoor,
        issuer: Issuer,
        artifacts: Artifacts,
        clock: Clock,
        host: sandbox.Host,
        groups: Groups,
        guardian: int,
        nodes: Sequence[str],
        shown: Callable[[str, Sequence[str]], Sequence[sandbox.ShownDevice]],
        endpoints: Mapping[str, str],
    ) -> None:
        self.clock = clock
        self.groups = groups
        self.host = host
        self.guardian = guardian
        self.artifacts = artifacts
        self.find = find
        self._place = place
        self._trust_domain = trust_domain
        self._informers = informers
        self._writer = writer
        self._door = door
        self._issuer = issuer
        self._nodes = frozenset(nodes)
        self._shown = shown
        self._endpoints = dict(endpoints)
        self._addresses = Addresses(place.name)
        self._lock = threading.Lock()
        self._workers: dict[str, PodWorker] = {}
        self._look = threading.Event()
        self._stopped = threading.Event()
        self._guard = threading.Thread(target=self._guard_doors, name="device-door", daemon=True)

    def start(self) -> None:
        """Sweep what belongs to no pod any more, then run pods."""
        self._place.pods.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._place.sockets.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._informers.synced()
        self._sweep()
        self._informers["pods"].on_change(self._pod_changed)
        self._informers["grants"].on_change(lambda _kind, _grant: self._look.set())
        for plural in ("grants", "resourceclaims", "tenants"):
            self._informers[plural].on_change(lambda _kind, _object: self._wake_all())
        self._guard.start()

    def stop(self) -> None:
        """End every pod's processes, gently and then by force; their objects stay."""
        self._stopped.set()
        self._look.set()
        until = self.clock.now() + LEAVE_WITHIN
        workers = self._all()
        for worker in workers:
            worker.leave(until)
        for worker in workers:
            worker.over.wait(LEAVE_WITHIN / SECOND + 1)
        self.groups.close()

    def log(self, namespace: str, name: str, uid: str, container: str, *, previous: bool) -> tuple[PodWorker, Path]:
        """Return a pod's worker and the log file of one of its containers. Raises `NotFound`."""
        for worker in self._all():
            if (worker.namespace, worker.name) == (namespace, name) and uid in ("", worker.uid):
                return worker, worker.log_of(container, previous=previous)
        raise NotFound(f"pod {namespace}/{name} does not run here")

    def pod(self, namespace: str, name: str) -> Object | None:
        """Return the pod as the API has it now."""
        return self._informers.get("pods", namespace, name)

    def ask(self, pod: Object) -> Verdict:
        """Ask the device door."""
        return self._door.ask(self._request(pod), self._informers.list("grants", pod["metadata"]["namespace"]))

    def admit(self, uid: str, group: str) -> None:
        """Let a container's control group open what the door opened to its pod."""
        self._door.admit(uid, group)

    def shut(self, group: str) -> None:
        """Shut every device to a control group."""
        self._door.shut(group)

    def shown(self, pod: Object) -> Sequence[sandbox.ShownDevice]:
        """Return the device nodes that the pod sees."""
        opening = self._door.opening(pod["metadata"]["uid"])
        return self._shown(
            pod["spec"].get("nodeName", ""), [n.path for n in (*opening.nodes, *opening.shared)] if opening else []
        )

    def environment(self, pod: Object, ip: str) -> dict[str, str]:
        """Return what the platform tells every container."""
        meta = pod["metadata"]
        opening = self._door.opening(meta["uid"])
        made = {
            "WHARF_POD_IP": ip,
            "WHARF_POD": meta["name"],
            "WHARF_POD_UID": meta["uid"],
            "WHARF_NAMESPACE": meta["namespace"],
            "WHARF_NODE": pod["spec"].get("nodeName", ""),
            "WHARF_TRUST_DOMAIN": self._trust_domain,
            "WHARF_ISOLATION": self.host.isolation,
            **{f"WHARF_{part.upper()}": url for part, url in self._endpoints.items()},
        }
        if opening is not None and opening.uuids:
            made["WHARF_DEVICES"] = ",".join(opening.uuids)
            made["WHARF_DEVICE_NODES"] = ",".join(node.path for node in opening.nodes)
        return made

    def journal_folder(self, uid: str) -> Path:
        """Return the folder of the pod's own journal, beside those of the platform's parts."""
        return self._place.evidence / f"pod-{uid}"

    def socket_folder(self, uid: str, container: str = "") -> Path:
        """Return the folder of a container's identity socket, or of all the pod's."""
        folder = self._place.sockets / uid.replace("-", "")[:16]
        return folder / f"{zlib.crc32(container.encode()):08x}" if container else folder

    def introduce(self, pod: Object, container: str, running: Running) -> None:
        """Make a container's processes known to the issuer."""
        uid = pod["metadata"]["uid"]
        self._issuer.register(uid, container, self.identity(pod), self.socket_folder(uid, container), running)

    def introduce_again(self, pod: Object, container: str, running: Running) -> None:
        """Make processes known that run already, now or when the issuer is back."""
        with contextlib.suppress(WharfingerError):
            self.introduce(pod, container, running)

    def forget(self, pod: Object) -> None:
        """Take back the pod's devices and identity."""
        uid = pod["metadata"]["uid"]
        self._door.forget(uid)
        with contextlib.suppress(WharfingerError):
            self._issuer.unregister(uid)

    def write_status(self, pod: Object, status: Mapping[str, Any]) -> None:
        """Merge the status into the pod as it was seen.

        A pod that is gone has none; one that has changed since, or is another of the same name, is looked at again when
        the change comes.
        """
        meta = pod["metadata"]
        with contextlib.suppress(NotFound, Conflict):
            self._writer.status(
                "pods", meta["namespace"], meta["name"], status, version=str(meta.get("resourceVersion", ""))
            )

    def finalize(self, pod: Object) -> None:
        """Remove the pod object."""
        meta = pod["metadata"]
        self._writer.delete("pods", meta["namespace"], meta["name"], uid=meta["uid"], grace=0)

    def event(self, pod: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an event."""
        self._writer.event(pod, reason, message, warning=warning)

    def identity(self, pod: Object) -> str:
        """Return the pod's SPIFFE ID."""
        account = pod["spec"].get("serviceAccountName") or "default"
        return f"spiffe://{self._trust_domain}/ns/{pod['metadata']['namespace']}/sa/{account}"

    def _request(self, pod: Object) -> Request:
        namespace = pod["metadata"]["namespace"]
        claims = {c["metadata"]["name"]: c for c in self._informers.list("resourceclaims", namespace)}
        return request_of(pod, self.identity(pod), claims, self._tenant(namespace))

    def _pod_changed(self, kind: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            worker = self._workers.get(uid)
            if worker is not None and worker.over.is_set():
                self._forget_worker(worker)
                worker = None
            if worker is None and kind != "DELETED" and pod["spec"].get("nodeName") in self._nodes:
                if self._stopped.is_set():
                    return
                worker = self._workers[uid] = self._worker(pod)
                worker.start()
        if worker is not None:
            worker.wake()

    def _worker(self, pod: Object) -> PodWorker:
        """Return a worker for a pod, at the address that it had when it was here before."""
        folder = self._place.pods / pod["metadata"]["uid"]
        home = podworker.read_home(folder)
        taken = {worker.ip for worker in self._workers.values()}
        if home is not None and home[0] not in taken:
            return PodWorker(pod, folder, home[0], home[1], self)
        base = sandbox.identity_base([worker.base for worker in self._workers.values()])
        return PodWorker(pod, folder, self._addresses.take(taken), base, self)

    def _forget_worker(self, worker: PodWorker) -> None:
        self._workers.pop(worker.uid, None)

    def _sweep(self) -> None:
        """End and remove what is left of pods that the API has no more, and of groups that nobody has."""
        kept = {p["metadata"]["uid"] for p in self._informers.list("pods") if p["spec"].get("nodeName") in self._nodes}
        for folder in self._place.pods.iterdir():
            if folder.name in kept:
                continue
            for container in (folder / "containers").glob("*"):
                running = containers.adopt(container)
                if running is not None:
                    running.destroy()
            volumes.remove(folder)
            volumes.remove(self.socket_folder(folder.name))
        for group in self.groups.names():
            if group.partition("_")[0] not in kept:
                self.groups.remove(group)

    def _guard_doors(self) -> None:
        """Shut what grants no longer permit: when one changes, and as their time runs out."""
        while not self._stopped.is_set():
            self._look.wait(CHECK_EVERY)
            self._look.clear()
            try:
                shut = self._door.check(self._informers.list("grants"))
            except WharfingerError as error:
                _log.error("door", extra={"fields": {"error": str(error)}})
                continue
            for uid, verdict in shut:
                with self._lock:
                    worker = self._workers.get(uid)
                if worker is not None:
                    worker.close(verdict)

    def _wake_all(self) -> None:
        for worker in self._all():
            worker.wake()

    def _all(self) -> list[PodWorker]:
        with self._lock:
            for worker in [worker for worker in self._workers.values() if worker.over.is_set()]:
                self._forget_worker(worker)
            return list(self._workers.values())

    def _tenant(self, namespace: str) -> str:
        for tenant in self._informers.list("tenants"):
            if namespace in tenant["spec"].get("namespaces", ()):
                return str(tenant["metadata"]["name"])
        return ""


class Addresses:
    """The pods' loopback addresses: a block of 127.64.0.0/10 by the platform's name, taken in turn."""

    def __init__(self, name: str) -> None:
        self._first = _FIRST_ADDRESS + zlib.crc32(name.encode()) % _BLOCKS * _BLOCK
        self._next = 1

    def take(self, taken: set[str]) -> str:
        """Return an address that is not `taken`, one that was not used for long. Raises `Invalid` when all are."""
        for _ in range(_BLOCK - 2):
            address = str(ipaddress.IPv4Address(self._first + self._next))
            self._next = self._next % (_BLOCK - 2) + 1
            if address not in taken:
                return address
        raise Invalid(f"expected fewer than {_BLOCK - 2} pods on this machine")
