"""One pod on this node, from its start to its last trace: a thread that carries out what `podplan` decides.

The thread wakes when the pod, its grants or its containers change, and when time makes something due. Everything that
it knows can be had again from the API, the pod's folder and the processes themselves, so that a node that died in the
middle goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from wharfinger.core.clock import SECOND, Clock, Instant, Span
from wharfinger.core.errors import Invalid, Malformed, WharfingerError
from wharfinger.kinds.condition import find
from wharfinger.local.node import cargo as cargos
from wharfinger.local.node import containers, environment, podplan, podstatus, sandbox, volumes
from wharfinger.local.node.cargo import Artifacts, Cargo
from wharfinger.local.node.cgroups import Groups, limits_of
from wharfinger.local.node.containers import Container, Ended, Running
from wharfinger.local.node.podplan import Step, Verb, View
from wharfinger.local.node.podstatus import ContainerState, Failure, Known, Past
from wharfinger.local.node.probes import Prober, Role
from wharfinger.policy.decision import Verdict

Object = Mapping[str, Any]
REVOKED: Final = "GrantRevoked"
_TURN: Final[Span] = SECOND
_KEPT_LOGS: Final = 2
_WORDS_BYTES: Final = 4096
_log = logging.getLogger(__name__)


class Surroundings(Protocol):
    """What a pod's worker needs of the node."""

    clock: Clock
    groups: Groups
    host: sandbox.Host
    guardian: int
    artifacts: Artifacts

    def pod(self, namespace: str, name: str) -> Object | None:
        """Return the pod as the API has it now."""
        ...

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return another object, such as a Secret."""
        ...

    def ask(self, pod: Object) -> Verdict:
        """Ask the device door; the decision is stored when it returns."""
        ...

    def admit(self, uid: str, group: str) -> None:
        """Let a container's control group open what the door opened to its pod."""
        ...

    def shut(self, group: str) -> None:
        """Shut every device to a control group."""
        ...

    def shown(self, pod: Object) -> Sequence[sandbox.ShownDevice]:
        """Return the device nodes that the pod sees."""
        ...

    def environment(self, pod: Object, ip: str) -> dict[str, str]:
        """Return what the platform tells every container."""
        ...

    def journal_folder(self, uid: str) -> Path:
        """Return the folder of the pod's own journal."""
        ...

    def socket_folder(self, uid: str, container: str = "") -> Path:
        """Return the folder of a container's identity socket, or of all the pod's."""
        ...

    def introduce(self, pod: Object, container: str, running: Running) -> None:
        """Tell the issuer which processes are a container's, before its command runs. Raises `Unavailable`."""
        ...

    def introduce_again(self, pod: Object, container: str, running: Running) -> None:
        """Have the issuer told of processes that run already, now or as soon as it can be."""
        ...

    def forget(self, pod: Object) -> None:
        """Take back the pod's identity and devices."""
        ...

    def write_status(self, pod: Object, status: Mapping[str, Any]) -> None:
        """Merge the status."""
        ...

    def finalize(self, pod: Object) -> None:
        """Remove the pod object, whose containers have ended."""
        ...

    def event(self, pod: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an event."""
        ...


class PodWorker:
    """Keeps one pod as it should be. `ip` and `base` are its address and its range of users on this machine."""

    def __init__(self, pod: Object, folder: Path, ip: str, base: int, node: Surroundings) -> None:
        self.uid: str = pod["metadata"]["uid"]
        self.namespace: str = pod["metadata"]["namespace"]
        self.name: str = pod["metadata"]["name"]
        self.ip = ip
        self.base = base
        self.folder = folder
        self.over = threading.Event()
        self._node = node
        self._pod = pod
        self._present = True
        self._leaving: Instant | None = None
        self._left: Instant | None = None
        """When the node began to end, this time or the last: what broke since was ended with it."""
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, Container] = {}
        self._probers: dict[str, Prober] = {}
        self._volumes: dict[str, sandbox.Volume] = {}
        self._init = [c["name"] for c in pod["spec"].get("initContainers") or ()]
        self._specs = {c["name"]: c for c in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"])}
        self._states = {name: ContainerState(name, c.get("image") or "") for name, c in self._specs.items()}
        self._door = self._prepared = self._released = False
        self._failure: Failure | None = None
        self._output = self._obstacle = ""
        self._cargo = Cargo(
            folder,
            node.journal_folder(self.uid),
            base if node.host.is_root and node.host.isolation == "namespaces" else None,
        )
        self._written: object = None
        """The last status and the version that it was written over: what the API leaves out is not written for ever."""
        self._thread = threading.Thread(target=self._run, name=f"pod-{self.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look again: something changed."""
        self._wake.set()

    def leave(self, until: Instant) -> None:
        """End the containers, by force at `until`, since the node ends; the pod object stays."""
        self._left = self._node.clock.now()
        with contextlib.suppress(
            OSError
        ):  # a pod that was never prepared, or is being removed, has nothing to remember
            write_home(self.folder, self.ip, self.base, self._left)
        self._leaving = until
        self._wake.set()

    def close(self, verdict: Verdict) -> None:
        """End the pod, whose devices the door has shut."""
        with self._lock:
            if self._failure is None:
                self._failure = Failure(REVOKED, verdict.reason, self._node.clock.now())
        self._node.event(self._pod, REVOKED, verdict.reason, warning=True)
        self._wake.set()

    def log_of(self, container: str, *, previous: bool = False) -> Path:
        """Return the log file of a container, of the first for an empty name. Raises `Malformed` in kubelet's words."""
        name = container or self._pod["spec"]["containers"][0]["name"]
        state = self._states.get(name)
        if state is None:
            raise Malformed(f"container {name} is not valid for pod {self.name}")
        if state.started is None:
            why = state.reason or "ContainerCreating"
            raise Malformed(f'container "{name}" in pod "{self.name}" is waiting to start: {why}')
        attempt = state.restarts - (1 if previous else 0)
        if attempt < 0:
            raise Malformed(f'previous terminated container "{name}" in pod "{self.name}" not found')
        return self._folder_of(name) / f"{attempt}.log"

    def has_ended(self, container: str, log: Path) -> bool:
        """Say whether nothing will be added to a log any more."""
        name = container or self._pod["spec"]["containers"][0]["name"]
        state = self._states[name]
        return self.over.is_set() or not state.running or log.name != f"{state.restarts}.log"

    def _run(self) -> None:
        self._adopt()
        while not self.over.is_set():
            self._wake.clear()
            now = self._node.clock.now()
            pause = _TURN
            try:
                self._turn(now)
                pause = min(pause, podplan.look_again(self._view(), now) or pause)
            except WharfingerError as error:
                _log.warning("pod", extra={"fields": {"pod": f"{self.namespace}/{self.name}", "error": str(error)}})
            if not self.over.is_set():
                self._wake.wait(pause / SECOND)

    def _turn(self, now: Instant) -> None:
        pod = self._node.pod(self.namespace, self.name)
        self._present = pod is not None and pod["metadata"]["uid"] == self.uid
        if pod is not None and self._present:
            self._pod = pod
        done: set[Step] = set()
        while steps := [step for step in podplan.decide(self._view(), now) if step not in done]:
            for step in steps:
                done.add(step)
                self._perform(step, now)
        if self._present and not self.over.is_set():
            self._write(now)
        if self._leaving is not None and self._released:
            self.over.set()

    def _view(self) -> View:
        return View(
            pod=self._pod,
            known=self._known(),
            present=self._present,
            leaving=self._leaving,
            door=self._door,
            prepared=self._prepared,
            released=self._released,
        )

    def _known(self) -> Known:
        with self._lock:
            init = [self._states[name] for name in self._init]
            main = [state for name, state in self._states.items() if name not in self._init]
            host = self._node.host
            return Known(
                init,
                main,
                self.ip,
                host.isolation,
                self._failure,
                owes=cargos.gives_output(self._pod),
                output=self._output,
                obstacle=self._obstacle,
            )

    def _perform(self, step: Step, now: Instant) -> None:
        actions: dict[Verb, Callable[[], None]] = {
            Verb.ASK: self._ask,
            Verb.PREPARE: self._prepare,
            Verb.START: lambda: self._start(step.container, now),
            Verb.TERMINATE: lambda: self._terminate(step),
            Verb.KILL: lambda: self._kill(step),
            Verb.FAIL: lambda: self._fail(step, now),
            Verb.DELIVER: lambda: self._deliver(now),
            Verb.RELEASE: lambda: self._release(now),
            Verb.FINALIZE: lambda: self._finalize(now),
            Verb.ABANDON: self._abandon,
        }
        try:
            actions[step.verb]()
        except WharfingerError as error:
            if step.verb not in (Verb.ASK, Verb.PREPARE, Verb.START):
                raise
            reason = "CreateContainerConfigError" if step.verb is Verb.START else "ContainerCreating"
            self._waiting(step.container, reason, error.message)

    def _ask(self) -> None:
        """Ask the door; while it says no, containers wait and say for what. One that runs already is ended."""
        verdict = self._node.ask(self._pod)
        if verdict.allowed:
            self._door = True
            for name in list(self._running):
                self._node.admit(self.uid, self._group(name))
            return
        if self._running:
            for name in list(self._running):
                self._node.shut(self._group(name))
            self.close(verdict)
            return
        self._waiting("", "WaitingForGrant", verdict.reason)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        volumes.check_space(self.folder)
        write_home(self.folder, self.ip, self.base)
        for container in self._specs:
            self._node.socket_folder(self.uid, container).mkdir(mode=0o755, parents=True, exist_ok=True)
        self._volumes = volumes.prepare(self._pod, self.folder / "volumes", self._cargo.owner, self.ip, self._node.find)
        self._cargo.prepare(self._pod, self._node.artifacts)
        self._prepared = True

    def _start(self, name: str, now: Instant) -> None:
        spec, state = self._specs[name], self._states[name]
        folder, group = self._folder_of(name), self._group(name)
        attempt = state.restarts + (1 if state.past is not None else 0)
        self._make_folder(folder, attempt)
        if not self._running:
            self._cargo.begin(self._pod)
        told = self._environment(name, spec)
        self._node.groups.create(group, limits_of(spec))
        self._node.admit(self.uid, group)
        plan = sandbox.plan(
            self._node.host,
            self._pod,
            {**spec, **environment.command(spec, told)},
            environment=told,
            volumes=self._volumes,
            socket_folder=str(self._node.socket_folder(self.uid, name)),
            devices=self._node.shown(self._pod),
            base=self.base,
            cgroups=self._node.groups.join(group),
            folder=str(folder),
            attempt=attempt,
            cargo=self._cargo.mounts(self._pod),
        )
        running = containers.start(
            plan, self._node.guardian, lambda found: self._node.introduce(self._pod, name, found)
        )
        steady = state.past is not None and state.past.finished - state.past.started >= podstatus.STEADY
        streak = 0 if state.past is None else 1 if steady else state.streak + 1
        with self._lock:
            self._states[name] = ContainerState(
                name, state.image, started=now, last=state.past or state.last, restarts=attempt, streak=streak
            )
        self._watch(name, running, plan)
        self._node.event(self._pod, "Started", f"Started container {name}")

    def _watch(self, name: str, container: Container, plan: sandbox.Plan) -> None:
        """Follow a container that runs, started now or by a node before this one."""
        spec = self._specs[name]
        self._running[name] = container

        def inside(command: list[str], timeout: float) -> tuple[int, str]:
            return containers.run_inside(plan, container.running, command, timeout)

        prober = self._probers[name] = Prober(spec, self.ip, lambda *told: self._probed(name, *told), inside)
        with self._lock:
            begun = not spec.get("startupProbe")
            self._states[name] = replace(
                self._states[name], begun=begun, ready=begun and not spec.get("readinessProbe")
            )
        prober.start()
        container.watch(lambda ended, how: self._ended(name, ended, how))

    def _probed(self, name: str, role: Role, passed: bool, message: str) -> None:
        spec = self._specs[name]
        with self._lock:
            state = self._states[name]
            if role == "startup":
                ready = passed and not spec.get("readinessProbe")
                unhealthy = "" if passed else f"Startup probe failed: {message}"
                state = replace(state, begun=passed, ready=ready, unhealthy=unhealthy)
            elif role == "readiness":
                said = "" if passed else f"Readiness probe failed: {message}"
                state = replace(state, ready=passed, reason="" if passed else "Unhealthy", message=said)
            elif not passed:
                state = replace(state, unhealthy=f"Liveness probe failed: {message}")
            self._states[name] = state
        if not passed:
            self._node.event(self._pod, "Unhealthy", f"{role.capitalize()} probe failed: {message}", warning=True)
        self._wake.set()

    def _ended(self, name: str, container: Container, how: Ended) -> None:
        """Take note of a container's end, in the container's thread."""
        self._probers.pop(name).stop()
        group = self._group(name)
        if not how.known and self._node.host.isolation == "none":
            containers.sweep(self.uid, name)
        starved = how.code == containers.LOST and self._node.groups.out_of_memory(group)
        self._node.groups.remove(group)
        reason = "Completed" if how.code == 0 else "OOMKilled" if starved else "Error"
        reason = reason if how.known else "ContainerStatusUnknown"
        message = self._last_words(name, container.running.attempt, how)
        with self._lock:
            state = self._states[name]
            past = Past(how.code, state.started or how.at, how.at, reason, state.unhealthy or message)
            ended = replace(
                state, past=past, ready=False, begun=False, stop_by=None, unhealthy="", reason="", message=""
            )
            self._states[name] = self._cut_off(ended, how)
            self._running.pop(name, None)
        container.close()
        self._wake.set()

    def _cut_off(self, state: ContainerState, how: Ended) -> ContainerState:
        """Return the state of a container that has ended: if that was the platform's end, it is no crash of its own.

        It starts again without a pause, a pipeline step from its beginning; where its pod does not allow that, the pod
        has failed for this reason.
        """
        if not how.orphaned and (how.code == 0 or self._left is None or how.at < self._left):
            return state
        if cargos.gives_output(self._pod):
            return replace(state, started=None, past=None, last=state.past, restarts=state.restarts + 1, streak=0)
        if podstatus.policy_of(self._pod) == "Never" and self._failure is None:
            self._failure = Failure(podstatus.TERMINATED, "the platform ended while the pod ran", how.at)
        return replace(state, streak=-1)

    def _terminate(self, step: Step) -> None:
        prober = self._probers.get(step.container)
        if prober is not None:
            prober.stop()
        with self._lock:
            state = self._states[step.container]
            first = state.stop_by is None
            self._states[step.container] = replace(state, stop_by=step.until, ready=False)
            container = self._running.get(step.container)
        if first and container is not None:
            self._node.event(self._pod, "Killing", f"Stopping container {step.container}")
            container.terminate()

    def _kill(self, step: Step) -> None:
        container = self._running.get(step.container)
        if container is not None:
            container.destroy()

    def _fail(self, step: Step, now: Instant) -> None:
        with self._lock:
            self._failure = Failure(step.reason, step.message, now)

    def _deliver(self, now: Instant) -> None:
        """Store the pod's output. What cannot be stored fails the pod; a registry that is away is waited for."""
        try:
            self._output = self._cargo.deliver(self._pod, self._node.artifacts)
        except Invalid as error:
            self._failure = Failure("OutputRefused", error.message, now)
        except WharfingerError as error:
            self._obstacle = error.message

    def _release(self, now: Instant) -> None:
        if self._output and self._present:
            # What the output was made of goes only once the API knows the artifact: nobody could make it again.
            self._write(now)
        if self._leaving is None:
            # A pod that only the node's end has cut off writes on when it starts again.
            self._cargo.seal()
            self._cargo.unload()
        self._node.forget(self._pod)
        self._released = True

    def _finalize(self, now: Instant) -> None:
        self._write(now)
        self._node.finalize(self._pod)
        self._abandon()

    def _abandon(self) -> None:
        volumes.remove(self.folder)
        volumes.remove(self._node.socket_folder(self.uid))
        self.over.set()

    def _adopt(self) -> None:
        """Go on with containers that an earlier node started; what ended meanwhile is taken note of."""
        told = {
            s["name"]: s
            for field in ("initContainerStatuses", "containerStatuses")
            for s in (self._pod.get("status") or {}).get(field) or ()
        }
        stored = find((self._pod.get("status") or {}).get("conditions"), podstatus.OUTPUT)
        if stored is not None and stored.get("status") == "True":
            self._output = str(stored.get("message") or "")
        home = read_home(self.folder)
        self._left = home[2] if home is not None else None
        for name, spec in self._specs.items():
            folder = self._folder_of(name)
            running = containers.state_of(folder)
            if running is None:
                continue
            streak = running.attempt if told.get(name, {}).get("restartCount") else 0
            state = ContainerState(
                name, spec.get("image") or "", started=running.started, restarts=running.attempt, streak=streak
            )
            container = containers.adopt(folder)
            if container is None:
                how = containers.exit_of(folder, running.attempt)
                self._node.groups.remove(self._group(name))
                if how is None and self._node.host.isolation == "none":
                    containers.sweep(self.uid, name)
                how = how or Ended(containers.LOST, self._node.clock.now(), known=False)
                if not how.begun:
                    continue
                reason = "Completed" if how.code == 0 else "Error" if how.known else "ContainerStatusUnknown"
                words = self._last_words(name, running.attempt, how)
                ended = replace(state, past=Past(how.code, running.started, how.at, reason, words))
                self._states[name] = self._cut_off(ended, how)
                continue
            self._states[name] = state
            _log.info("adopted", extra={"fields": {"pod": f"{self.namespace}/{self.name}", "container": name}})
            self._node.introduce_again(self._pod, name, running)
            self._watch(name, container, self._adopted_plan(name, running))
        self._left = None

    def _adopted_plan(self, name: str, running: Running) -> sandbox.Plan:
        """Return a plan that is enough to run probes in a container that runs already."""
        spec = {**self._specs[name], "volumeMounts": ()}
        return sandbox.plan(
            self._node.host,
            self._pod,
            spec,
            environment=self._node.environment(self._pod, self.ip),
            volumes={},
            socket_folder="",
            devices=(),
            base=self.base,
            cgroups=self._node.groups.join(self._group(name)),
            folder=str(self._folder_of(name)),
            attempt=running.attempt,
        )

    def _environment(self, name: str, spec: Mapping[str, Any]) -> dict[str, str]:
        inside = self._node.host.isolation == "namespaces"
        outside = self._node.socket_folder(self.uid, name) / Path(sandbox.SOCKET).name
        given = {
            **self._node.environment(self._pod, self.ip),
            **self._cargo.environment(self._pod, isolated=inside),
            "WHARF_CONTAINER": name,
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{sandbox.SOCKET if inside else outside}",
        }
        return environment.environment(self._pod, spec, self.ip, given, self._node.find)

    def _make_folder(self, folder: Path, attempt: int) -> None:
        (folder / "root").mkdir(parents=True, exist_ok=True)
        for number in range(attempt - _KEPT_LOGS + 1):
            for stale in folder.glob(f"{number}.log*"):
                stale.unlink(missing_ok=True)
        last_words = folder / "termination-log"
        last_words.write_bytes(b"")
        last_words.chmod(0o666)
        if self._node.host.is_root:
            os.chown(last_words, self.base, self.base)

    def _write(self, now: Instant) -> None:
        if podplan.is_settled(self._pod):
            return
        fresh = podstatus.status(self._pod, self._known(), now)
        old = self._pod.get("status") or {}
        mark = (fresh, self._pod["metadata"].get("resourceVersion"))
        if mark != self._written and any(old.get(name) != value for name, value in fresh.items()):
            self._node.write_status(self._pod, fresh)
            self._written = mark

    def _waiting(self, container: str, reason: str, message: str) -> None:
        """Show a container, or all, as waiting for `reason`."""
        with self._lock:
            for name, state in self._states.items():
                if state.started is None and container in ("", name):
                    self._states[name] = replace(state, reason=reason, message=message)

    def _last_words(self, name: str, attempt: int, how: Ended) -> str:
        """Return what the container left in its termination log; else, when it broke, the end of its log."""
        folder = self._folder_of(name)
        try:
            with (folder / "termination-log").open("rb") as told:
                words = told.read(_WORDS_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            words = ""
        fall_back = self._specs[name].get("terminationMessagePolicy") == "FallbackToLogsOnError" and how.code != 0
        if words or not (fall_back or how.code in (125, 126, 127)):
            return words
        return containers.last_line(folder / f"{attempt}.log")

    def _folder_of(self, container: str) -> Path:
        return self.folder / "containers" / container

    def _group(self, container: str) -> str:
        return f"{self.uid}_{container}"


def write_home(folder: Path, ip: str, base: int, left: Instant | None = None) -> None:
    """Remember a pod's address and users, and when the node left it, for a node that is started again."""
    path = folder / "pod.json"
    path.with_suffix(".new").write_text(json.dumps({"ip": ip, "base": base, "left": left}))
    path.with_suffix(".new").replace(path)


def read_home(folder: Path) -> tuple[str, int, Instant | None] | None:
    """Return address and users of a pod that was here before, and when its node left it."""
    try:
        told = json.loads((folder / "pod.json").read_bytes())
        return str(told["ip"]), int(told["base"]), told.get("left")
    except (OSError, ValueError, KeyError, TypeError):
        return None
