"""Who is who: the platform's parts, introduced by the supervisor, and the pods, registered by the node.

`part_of` and `belongs` are the rules; around them the table holds what keeps its entries true: a pidfd for each part, a
pidfd of the launcher and the pid namespace itself for each pod, so that no number in it can come to mean another
process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, field

from wharfinger.core.errors import Conflict, Denied, Invalid
from wharfinger.identity.issuer.attestation import Facts, Process, hold_namespace, own_pidns
from wharfinger.identity.issuerclient import PodRegistration
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain, Workload

PARTS = frozenset({"issuer", "api", "control", "node", "registry", "gateway", "console", "admin"})
"""The parts that there are; the supervisor is `admin`."""


def belongs(facts: Facts, pod: PodRegistration, host_pidns: int) -> bool:
    """Say whether the process of which `facts` tell is one of `pod`.

    In a pid namespace of its own a pod is whoever is in that namespace; one in the host's namespace is what descends
    from the process that started it.
    """
    if is_isolated(pod, host_pidns):
        return facts.pidns == pod.pidns
    return facts.pidns == host_pidns and (pod.pid, pod.ticks) in facts.ancestors


def is_isolated(pod: PodRegistration, host_pidns: int) -> bool:
    """Say whether the pod has a pid namespace of its own."""
    return pod.pidns not in {0, host_pidns}


@dataclass(slots=True)
class _Pod:
    registration: PodRegistration
    launcher: Process
    namespace: int | None

    def close(self) -> None:
        self.launcher.close()
        if self.namespace is not None:
            with contextlib.suppress(OSError):
                os.close(self.namespace)


@dataclass(slots=True)
class Registrations:
    """The table of one trust domain; threads share it."""

    trust_domain: TrustDomain
    _parts: dict[str, Process] = field(default_factory=dict)
    _pods: dict[tuple[str, str], _Pod] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _host_pidns: int = field(default_factory=own_pidns)

    def introduce(self, part: str, process: Process) -> None:
        """Have `process` be `part` from now on, in place of whichever was before. Raises `Invalid` for no part."""
        if part not in PARTS:
            process.close()
            raise Invalid(f"expected one of {', '.join(sorted(PARTS))}, got part {part}")
        with self._lock:
            before = self._parts.pop(part, None)
            self._parts[part] = process
        if before is not None:
            before.close()

    def part_of(self, peer: Process) -> SpiffeId:
        """Return the SPIFFE ID of the part that `peer` is. Raises `Denied` when it is none."""
        with self._lock:
            for name, process in self._parts.items():
                if process.pid == peer.pid and process.runs() and peer.runs():
                    return SpiffeId.part(self.trust_domain, name)
        raise Denied(f"process {peer.pid} is no part of the platform")

    def register(self, pod: PodRegistration) -> bool:
        """Have `pod` be known; return False when it was already, just so.

        Raises `Invalid` for an ID that is not a workload's of this trust domain, `Conflict` when the process that it
        names is not there any more or is another one.
        """
        if not isinstance(pod.spiffe_id.kind, Workload) or not pod.spiffe_id.member_of(self.trust_domain):
            raise Invalid(f"expected the SPIFFE ID of a workload of {self.trust_domain}, got {pod.spiffe_id}")
        key = (pod.uid, pod.container)
        with self._lock:
            known = self._pods.get(key)
            if known is not None and known.registration == pod and known.launcher.runs():
                return False
        fresh = self._held(pod)
        with self._lock:
            before = self._pods.pop(key, None)
            self._pods[key] = fresh
        if before is not None:
            before.close()
        return True

    def forget(self, uid: str) -> list[PodRegistration]:
        """Forget every container of a pod; return what was known of it."""
        with self._lock:
            gone = [self._pods.pop(key) for key in list(self._pods) if key[0] == uid]
        for pod in gone:
            pod.close()
        return [pod.registration for pod in gone]

    def pods(self) -> list[PodRegistration]:
        """Return the pods that are known."""
        with self._lock:
            return [pod.registration for pod in self._pods.values()]

    def pod_of(self, uid: str, container: str, peer: Process) -> SpiffeId:
        """Return the SPIFFE ID of the container's processes if `peer` is one. Raises `Denied` when it is not."""
        with self._lock:
            pod = self._pods.get((uid, container))
        if pod is None:
            raise Denied(f"process {peer.pid} asks for a pod that is not known")
        registration = pod.registration
        facts = peer.facts(descent=not is_isolated(registration, self._host_pidns))
        if not belongs(facts, registration, self._host_pidns):
            raise Denied(f"process {peer.pid} is not of this pod")
        with self._lock:
            # What holds the pod's numbers may have been let go meanwhile: then they mean nothing any more.
            if self._pods.get((uid, container)) is pod and pod.launcher.runs() and peer.runs():
                return registration.spiffe_id
        raise Denied(f"process {peer.pid} asks for a pod that has ended")

    def close(self) -> None:
        """Close every descriptor."""
        with self._lock:
            held: list[Process | _Pod] = [*self._parts.values(), *self._pods.values()]
            for entry in held:
                entry.close()
            self._parts.clear()
            self._pods.clear()

    def _held(self, pod: PodRegistration) -> _Pod:
        try:
            launcher = Process.open(pod.pid)
        except Denied as error:
            raise Conflict(f"pod {pod.uid}: {error}") from error
        try:
            if launcher.started() != pod.ticks:
                raise Conflict(f"pod {pod.uid}: process {pod.pid} is another than the one that was started")
            isolated = is_isolated(pod, self._host_pidns)
            namespace = hold_namespace(pod.pid, pod.pidns) if isolated else None
        except Denied as error:
            launcher.close()
            raise Conflict(f"pod {pod.uid}: {error}") from error
        except Conflict:
            launcher.close()
            raise
        return _Pod(pod, launcher, namespace)
