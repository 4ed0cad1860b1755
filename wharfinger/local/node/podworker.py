"""One pod on this node, from its start to its last trace: a thread that the pod's events wake.

Each turn looks at the pod as the API has it, its grants and its containers, does the one next thing, and writes the
status when it differs. A container's process never starts before the door has said yes, and the device closes before
anything else happens when a grant goes.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from wharfinger.core.clock import SECOND, Clock, Instant
from wharfinger.core.errors import NotFound, WharfingerError
from wharfinger.gpu.devices import DeviceNode
from wharfinger.kinds.kind import GROUP
from wharfinger.local.node import containers, podstatus, sandbox, volumes
from wharfinger.local.node.cgroups import Cgroups
from wharfinger.local.node.podstatus import ContainerState
from wharfinger.policy.decision import Verdict

Object = Mapping[str, Any]
ISOLATION_ANNOTATION: Final = f"{GROUP}/isolation"
GRANT_NEEDED: Final = f"{GROUP}/grant"
_LAST_WORDS: Final = "termination-log"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opening:
    """What the device door said of a pod: the verdict, and the devices that it opens."""

    verdict: Verdict
    nodes: tuple[DeviceNode, ...] = ()
    uuids: tuple[str, ...] = ()


class Surroundings(Protocol):
    """What a pod's worker needs of the node."""

    clock: Clock
    cgroups: Cgroups
    host: sandbox.Host

    def pod(self, namespace: str, name: str) -> Object | None:
        """Return the pod as the API has it now."""
        ...

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return another object."""
        ...

    def ask(self, pod: Object) -> Opening:
        """Ask the device door; the decision is stored when it returns."""
        ...

    def still(self, pod: Object) -> Verdict:
        """Say whether what `ask` opened may stay open, without a decision of its own."""
        ...

    def device_paths(self, pod: Object) -> Sequence[str]:
        """Return the host's device nodes that the pod sees below /dev."""
        ...

    def environment(self, pod: Object, ip: str) -> dict[str, str]:
        """Return what the platform tells every container."""
        ...

    def introduce(self, pod: Object, first_pid: int, folder: Path) -> None:
        """Tell the issuer which processes the pod's are; its socket is below `folder`."""
        ...

    def forget(self, pod: Object) -> None:
        """Tell the issuer that the pod is gone."""
        ...

    def write_status(self, pod: Object, status: Mapping[str, Any]) -> None:
        """Merge the status."""
        ...

    def finalize(self, pod: Object) -> None:
        """Remove the pod object, whose containers have ended."""
        ...

    def event(self, pod: Object, reason: str, message: str, *, warning: bool) -> None:
        """Record an event."""
        ...


class PodWorker:
    """Keeps one pod as it should be."""

    def __init__(self, pod: Object, folder: Path, ip: str, base: int, node: Surroundings) -> None:
        self.uid: str = pod["metadata"]["uid"]
        self.namespace: str = pod["metadata"]["namespace"]
        self.name: str = pod["metadata"]["name"]
        self.base = base
        self.ip = ip
        self.folder = folder
        self.over = threading.Event()
        self._node = node
        self._seen = pod
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, containers.Container] = {}
        self._states = {c["name"]: ContainerState(c["name"], c.get("image", "")) for c in pod["spec"]["containers"]}
        self._prepared = False
        self._opened: Opening | None = None
        self._closed_by = ""
        self._kill_at: Instant | None = None
        self._again: dict[str, Instant] = {}
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=f"pod-{self.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look again: something changed."""
        self._wake.set()

    def end(self) -> None:
        """Kill everything of the pod and end the worker; the object stays."""
        self._stop = True
        for container in list(self._running.values()):
            container.kill()
        self._wake.set()

    def log_of(self, container: str) -> Path:
        """Return the log file of a container, the first one's for an empty name. Raises `NotFound`."""
        name = container or next(iter(self._states))
        if name not in self._states:
            raise NotFound(f"pod {self.name} has no container {name}")
        return self.folder / name / "log"

    def _run(self) -> None:
        while not self.over.is_set():
            self._wake.clear()
            try:
                self._turn()
            except WharfingerError as error:
                _log.warning("pod", extra={"fields": {"pod": self.name, "error": str(error)}})
                self._say(reason=error.code, message=error.message)
            if not self.over.is_set():
                self._wake.wait(self._pause())

    def _pause(self) -> float:
        return 0.25 if self._kill_at is not None or not self._all_ready() else 1.0

    def _turn(self) -> None:
        now = self._node.clock.now()
        pod = self._node.pod(self.namespace, self.name)
        gone = pod is None or pod["metadata"]["uid"] != self.uid
        if pod is not None and not gone:
            self._seen = pod
        if self._stop or gone or (self._seen["metadata"].get("deletionTimestamp")):
            self._wind_down(now, at_once=self._stop or gone)
            return
        if self._opened is not None and not self._closed_by:
            self._check_door()
        if self._closed_by or podstatus.phase_of(self._policy(), self._all()) in ("Succeeded", "Failed"):
            self._write(now)
            return
        if self._opened is None and not self._open(now):
            return
        if not self._prepared:
            self._prepare()
        for container in self._seen["spec"]["containers"]:
            self._tend(container, now)
        self._write(now)

    def _check_door(self) -> None:
        """Close the devices when the grant no longer permits them; the pod ends."""
        verdict = self._node.still(self._seen)
        if verdict.allowed or self._opened is None:
            return
        self._closed_by = verdict.reason
        self._node.cgroups.deny(self.uid, [(n.major, n.minor) for n in self._opened.nodes])
        self._node.event(self._seen, "DeviceClosed", verdict.reason, warning=True)
        for container in self._running.values():
            container.terminate()

    def _open(self, now: Instant) -> bool:
        """Ask the door; say what the pod waits for while it says no."""
        if not (
            self._seen["spec"].get("resourceClaims")
            or GRANT_NEEDED in (self._seen["metadata"].get("annotations") or {})
        ):
            self._opened = Opening(Verdict(True, "no grant is needed"))
            return True
        opening = self._node.ask(self._seen)
        if opening.verdict.allowed:
            self._opened = opening
            return True
        self._say(reason="WaitingForGrant", message=opening.verdict.reason, now=now)
        return False

    def _prepare(self) -> None:
        volumes.free_space(self.folder.parent)
        owner = self.base if self._node.host.is_root and self._node.host.isolation == "namespaces" else None
        (self.folder / "identity").mkdir(parents=True, exist_ok=True)
        (self.folder / "identity").chmod(0o755)
        self._volumes = volumes.prepare(self._seen, self.folder / "volumes", owner, self._node.find)
        self._cgroup_files = self._node.cgroups.create(self.uid)
        assert self._opened is not None
        self._node.cgroups.allow(self.uid, [(n.major, n.minor) for n in self._opened.nodes])
        self._prepared = True

    def _tend(self, container: Mapping[str, Any], now: Instant) -> None:
        name = container["name"]
        state = self._states[name]
        if state.running:
            self._probe(container, state)
            self._running[name].trim_log()
            return
        if state.exit_code is not None and not podstatus.restarts_again(self._policy(), state.exit_code):
            return
        if now >= self._again.get(name, 0):
            self._start(container, state, now)

    def _start(self, container: Mapping[str, Any], state: ContainerState, now: Instant) -> None:
        name = container["name"]
        folder = self.folder / name
        (folder / "root").mkdir(parents=True, exist_ok=True)
        last_words = folder / _LAST_WORDS
        last_words.write_bytes(b"")
        if self._node.host.is_root:
            os.chown(last_words, self.base, self.base)
        told = {
            **self._node.environment(self._seen, self.ip),
            **volumes.environment(self._seen, container, self.ip, self._node.find),
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{self._socket()}",
        }
        assert self._opened is not None
        if self._opened.uuids:
            told["WHARF_DEVICES"] = ",".join(self._opened.uuids)
            told["WHARF_DEVICE_NODES"] = ",".join(f"/dev/{Path(n.path).name}" for n in self._opened.nodes)
        plan = sandbox.plan(
            self._node.host,
            name=self.name,
            container=container,
            environment=told,
            volumes=self._volumes,
            socket_folder=str(self.folder / "identity"),
            device_paths=[*self._node.device_paths(self._seen), str(last_words)],
            base=self.base,
            cgroups=self._cgroup_files,
            folder=str(folder),
        )
        last = state.last
        if state.exit_code is not None and state.started is not None and state.finished is not None:
            last = (state.exit_code, state.started, state.finished)
        running = containers.start(plan, lambda c, code: self._ended(name, code))
        with self._lock:
            self._running[name] = running
            restarts = state.restarts + (1 if state.exit_code is not None else 0)
            self._states[name] = ContainerState(name, state.image, started=now, restarts=restarts, last=last)
        first = None
        for _ in range(400):
            first = running.first_pid() if self._node.host.isolation == "namespaces" else running.pid
            if first is not None or running.exit_code is not None:
                break
            threading.Event().wait(0.005)
        if first is not None:
            self._node.introduce(self._seen, first, self.folder / "identity")

    def _socket(self) -> str:
        return (
            sandbox.SOCKET
            if self._node.host.isolation == "namespaces"
            else str(self.folder / "identity" / "agent.sock")
        )

    def _ended(self, name: str, code: int) -> None:
        now = self._node.clock.now()
        with self._lock:
            state = self._states[name]
            message = self._last_words(name, code)
            self._states[name] = replace(state, finished=now, exit_code=code, ready=False, message=message)
            again = podstatus.restarts_again(self._policy(), code)
            if again:
                lived = now - (state.started or now)
                restarts = 0 if lived > 600 * SECOND else state.restarts
                self._again[name] = now + podstatus.backoff(restarts)
        self._wake.set()

    def _probe(self, container: Mapping[str, Any], state: ContainerState) -> None:
        probe = container.get("readinessProbe")
        ready, message = True, ""
        if probe is not None:
            ready, message = _ready(probe, container, self.ip)
        if (ready, message) != (state.ready, state.message):
            with self._lock:
                current = self._states[state.name]
                if current.running:
                    reason = "" if ready else "NotReady"
                    self._states[state.name] = replace(current, ready=ready, message=message, reason=reason)

    def _wind_down(self, now: Instant, *, at_once: bool) -> None:
        """End the containers, gently until the grace period is over; then clean up and let the object go."""
        alive = [c for c in self._running.values() if c.exit_code is None]
        if alive:
            if at_once:
                for container in alive:
                    container.kill()
            elif self._kill_at is None:
                grace = self._seen["metadata"].get("deletionGracePeriodSeconds", 30)
                self._kill_at = now + int(grace) * SECOND
                for container in alive:
                    container.terminate()
            elif now >= self._kill_at:
                for container in alive:
                    container.kill()
            if not at_once:
                return
            for container in alive:
                container.wait()
        self._node.forget(self._seen)
        self._node.cgroups.remove(self.uid)
        if not self._stop:
            if not at_once:
                self._write(now)
                self._node.finalize(self._seen)
            volumes.remove(self.folder)
        self.over.set()

    def _write(self, now: Instant) -> None:
        fresh = podstatus.status(self._seen, self._all(), ip=self.ip, now=now)
        if self._closed_by:
            fresh |= {"reason": "GrantRevoked", "message": self._closed_by}
        old = self._seen.get("status") or {}
        if any(old.get(name) != value for name, value in fresh.items()):
            self._node.write_status(self._seen, fresh)

    def _say(self, *, reason: str, message: str, now: Instant | None = None) -> None:
        """Show every container that has not started as waiting for `reason`."""
        with self._lock:
            for name, state in self._states.items():
                if state.started is None:
                    self._states[name] = replace(state, reason=reason, message=message)
        try:
            self._write(now if now is not None else self._node.clock.now())
        except WharfingerError as error:
            _log.warning("status", extra={"fields": {"pod": self.name, "error": str(error)}})

    def _all(self) -> list[ContainerState]:
        with self._lock:
            return list(self._states.values())

    def _all_ready(self) -> bool:
        return all(state.ready for state in self._all())

    def _policy(self) -> str:
        return str(self._seen["spec"].get("restartPolicy", "Always"))

    def _last_words(self, name: str, code: int) -> str:
        """Return what the container wrote to /dev/termination-log, else why it could not be started."""
        folder = self.folder / name
        try:
            with (folder / _LAST_WORDS).open("rb") as told:
                words = told.read(4096).decode("utf-8", "replace").strip()
            if words or code not in (125, 126, 127):
                return words
            return (folder / "log").read_text(errors="replace").strip().splitlines()[-1][:500]
        except (OSError, IndexError):
            return ""


def _ready(probe: Mapping[str, Any], container: Mapping[str, Any], ip: str) -> tuple[bool, str]:
    """Return whether a readiness probe passes, and why not. Kinds: tcpSocket, httpGet (a connection is enough)."""
    told = probe.get("tcpSocket") or probe.get("httpGet")
    if told is None:
        return True, ""
    port = told["port"]
    if isinstance(port, str):
        named = {p.get("name"): p["containerPort"] for p in container.get("ports") or ()}
        port = named.get(port, 0)
    host = told.get("host") or ip
    try:
        with socket.create_connection((host, int(port)), timeout=probe.get("timeoutSeconds", 1)):
            return True, ""
    except OSError as error:
        return False, f"nothing listens on {host}:{port}: {os.strerror(error.errno) if error.errno else error}"
