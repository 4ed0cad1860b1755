"""The node agent: a worker per pod bound to one of this machine's nodes, woken by what concerns it.

One process is every node of the declared fleet. Pods have loopback addresses of their own (127.64.0.0/10), so their
ports never collide. When the process starts, whatever an earlier one left (groups, folders) is swept first: pods of a
dead node are dead with it, and start again as the API has them.
"""

from __future__ import annotations

import ipaddress
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from wharfinger.cluster.informer import Informers
from wharfinger.cluster.writer import ObjectWriter
from wharfinger.core.clock import Clock
from wharfinger.core.errors import NotFound, WharfingerError
from wharfinger.gpu.devices import Device
from wharfinger.local.node import devicedoor, sandbox
from wharfinger.local.node.cgroups import Cgroups
from wharfinger.local.node.podworker import GRANT_NEEDED, ISOLATION_ANNOTATION, Opening, PodWorker
from wharfinger.policy.decision import Verdict
from wharfinger.policy.doorkeeper import Doorkeeper

Object = Mapping[str, Any]
_NETWORK = ipaddress.IPv4Network("127.64.0.0/10")


class Issuer(Protocol):
    """Where pods are made known, so that their processes get their identity and nobody else does."""

    def register(self, pod_uid: str, spiffe_id: str, first_pid: int, folder: Path) -> None:
        """Serve `spiffe_id` on a socket in `folder` to the pid namespace of `first_pid` alone."""
        ...

    def unregister(self, pod_uid: str) -> None:
        """Serve nothing to that pod any more."""
        ...


class Agent:
    """Runs pods. `nodes` are the Node objects that this process stands for; `paths` their device nodes on the host."""

    def __init__(
        self,
        *,
        folder: Path,
        trust_domain: str,
        informers: Informers,
        writer: ObjectWriter,
        doorkeeper: Doorkeeper,
        issuer: Issuer,
        clock: Clock,
        host: sandbox.Host,
        cgroups: Cgroups,
        nodes: Sequence[str],
        devices: Mapping[devicedoor.Name, Device],
        paths: Callable[[str], Sequence[str]],
        endpoints: Mapping[str, str],
    ) -> None:
        self.clock = clock
        self.cgroups = cgroups
        self.host = host
        self._folder = folder
        self._trust_domain = trust_domain
        self._informers = informers
        self._writer = writer
        self._door = devicedoor.DeviceDoor(doorkeeper, devices)
        self._issuer = issuer
        self._nodes = frozenset(nodes)
        self._paths = paths
        self._endpoints = dict(endpoints)
        self._lock = threading.Lock()
        self._workers: dict[str, PodWorker] = {}
        self._openings: dict[str, Opening] = {}

    def start(self) -> None:
        """Sweep what an earlier node left, then run pods."""
        for pod in self.cgroups.left_over():
            self.cgroups.remove(pod)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._informers.synced()
        self._informers["pods"].on_change(self._pod_changed)
        for plural in ("grants", "resourceclaims", "resourceslices"):
            self._informers[plural].on_change(lambda _kind, _object: self._wake_all())

    def stop(self) -> None:
        """End every pod's processes."""
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.over.wait(5)

    def log(self, namespace: str, name: str, container: str) -> Path:
        """Return the log file of a pod's container. Raises `NotFound`."""
        with self._lock:
            for worker in self._workers.values():
                if (worker.namespace, worker.name) == (namespace, name):
                    return worker.log_of(container)
        raise NotFound(f"pod {namespace}/{name} does not run here")

    def pod(self, namespace: str, name: str) -> Object | None:
        """Return the pod as the API has it now."""
        return self._informers.get("pods", namespace, name)

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return another object."""
        return self._informers.get(plural, namespace, name)

    def ask(self, pod: Object) -> Opening:
        """Ask the device door."""
        namespace = pod["metadata"]["namespace"]
        opening = self._door.ask(
            pod,
            self.identity(pod),
            {c["metadata"]["name"]: c for c in self._informers.list("resourceclaims", namespace)},
            self._grants(namespace),
            self._tenant(namespace),
            bare=GRANT_NEEDED in (pod["metadata"].get("annotations") or {}),
        )
        if opening.verdict.allowed:
            self._openings[pod["metadata"]["uid"]] = opening
        return opening

    def still(self, pod: Object) -> Verdict:
        """Say whether the pod's devices may stay open."""
        opening = self._openings.get(pod["metadata"]["uid"])
        if opening is None:
            return Verdict(True, "no grant is needed")
        grants = self._grants(pod["metadata"]["namespace"])
        return devicedoor.still(pod, self.identity(pod), opening, grants, self.clock.now())

    def device_paths(self, pod: Object) -> Sequence[str]:
        """Return the device nodes that the pod sees: all of its node, the control group says which open."""
        if self.cgroups.available:
            return self._paths(pod["spec"].get("nodeName", ""))
        opening = self._openings.get(pod["metadata"]["uid"])
        known = self._paths(pod["spec"].get("nodeName", ""))
        granted = {Path(n.path).name for n in opening.nodes} if opening else set()
        return [path for path in known if Path(path).name in granted]

    def environment(self, pod: Object, ip: str) -> dict[str, str]:
        """Return what the platform tells every container."""
        meta = pod["metadata"]
        return {
            "WHARF_POD_IP": ip,
            "WHARF_POD": meta["name"],
            "WHARF_POD_UID": meta["uid"],
            "WHARF_NAMESPACE": meta["namespace"],
            "WHARF_NODE": pod["spec"].get("nodeName", ""),
            "WHARF_TRUST_DOMAIN": self._trust_domain,
            **{f"WHARF_{part.upper()}": url for part, url in self._endpoints.items()},
        }

    def introduce(self, pod: Object, first_pid: int, folder: Path) -> None:
        """Make the pod's processes known to the issuer."""
        self._issuer.register(pod["metadata"]["uid"], self.identity(pod), first_pid, folder)

    def forget(self, pod: Object) -> None:
        """Make the pod unknown to the issuer."""
        uid = pod["metadata"]["uid"]
        self._openings.pop(uid, None)
        try:
            self._issuer.unregister(uid)
        except WharfingerError:
            return
        finally:
            with self._lock:
                self._workers.pop(uid, None)

    def write_status(self, pod: Object, status: Mapping[str, Any]) -> None:
        """Merge the status; say how the pod is isolated."""
        meta = pod["metadata"]
        try:
            if (meta.get("annotations") or {}).get(ISOLATION_ANNOTATION) != self.host.isolation:
                note = {"metadata": {"annotations": {ISOLATION_ANNOTATION: self.host.isolation}}}
                self._writer.patch("pods", meta["namespace"], meta["name"], note)
            self._writer.status("pods", meta["namespace"], meta["name"], status)
        except NotFound:
            return

    def finalize(self, pod: Object) -> None:
        """Remove the pod object."""
        meta = pod["metadata"]
        self._writer.delete("pods", meta["namespace"], meta["name"], uid=meta["uid"], grace=0)

    def event(self, pod: Object, reason: str, message: str, *, warning: bool) -> None:
        """Record an event."""
        self._writer.event(pod, reason, message, warning=warning)

    def identity(self, pod: Object) -> str:
        """Return the pod's SPIFFE ID."""
        account = pod["spec"].get("serviceAccountName") or "default"
        return f"spiffe://{self._trust_domain}/ns/{pod['metadata']['namespace']}/sa/{account}"

    def _pod_changed(self, kind: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            worker = self._workers.get(uid)
            if worker is None and kind != "DELETED" and pod["spec"].get("nodeName") in self._nodes and not _over(pod):
                base = sandbox.identity_base([w.base for w in self._workers.values()])
                worker = PodWorker(pod, self._folder / uid, self._address(), base, self)
                self._workers[uid] = worker
                worker.start()
        if worker is not None:
            worker.wake()

    def _wake_all(self) -> None:
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.wake()

    def _address(self) -> str:
        taken = {worker.ip for worker in self._workers.values()}
        return next(ip for ip in _addresses() if ip not in taken)

    def _grants(self, namespace: str) -> list[Object]:
        return [g for g in self._informers.list("grants", namespace) if not g["metadata"].get("deletionTimestamp")]

    def _tenant(self, namespace: str) -> str:
        for tenant in self._informers.list("tenants"):
            if namespace in tenant["spec"].get("namespaces", ()):
                return str(tenant["metadata"]["name"])
        return ""


def _over(pod: Object) -> bool:
    """Say whether the pod has ended for good; one that is being deleted still needs its object to go."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed") and not pod["metadata"].get("deletionTimestamp")


def _addresses() -> Iterator[str]:
    for address in _NETWORK.hosts():
        yield str(address)


def this_host(interpreter: Sequence[str], search: str, isolation: str) -> sandbox.Host:
    """Return the host as this process sees it."""
    return sandbox.Host(tuple(interpreter), search, isolation, os.geteuid() == 0)
