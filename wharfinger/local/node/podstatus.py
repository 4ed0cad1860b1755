"""What a pod's status says, as kubelet writes it: phase, conditions and container statuses from what is known.

Pure: containers' states in, status out. Phases, reasons and pauses are those of the Kubernetes pod lifecycle. Two
conditions are ours: `wharfinger.io/Isolation` says how the pod is kept apart, for provenance and TrustPolicies to read,
`wharfinger.io/Output` the digest of the artifact that a pipeline step left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.core.clock import MINUTE, SECOND, Instant, Span, rfc3339
from wharfinger.kinds.condition import condition
from wharfinger.kinds.kind import GROUP

FIRST_BACKOFF: Final[Span] = 10 * SECOND
LONGEST_BACKOFF: Final[Span] = 300 * SECOND
STEADY: Final[Span] = 10 * MINUTE
"""A run of this length ends a crash loop: the next pause is the first one again."""
ISOLATION: Final = f"{GROUP}/Isolation"
OUTPUT: Final = f"{GROUP}/Output"
TERMINATED: Final = "Terminated"
"""Why a pod failed whose containers were ended with the platform and may not start again."""


@dataclass(frozen=True, slots=True)
class Past:
    """How one run of a container ended."""

    code: int
    started: Instant
    finished: Instant
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What is known of one container.

    `started` is when this run began, None before the first; `past` how this run ended, None while it goes on; `last`
    the run before. `restarts` counts starts after the first, `streak` those since a run was `STEADY`. `reason` and
    `message` say why it does not run, or is not `ready`. `stop_by` is set once it was asked to end. `unhealthy` says
    which probe wants it ended.
    """

    name: str
    image: str = ""
    started: Instant | None = None
    past: Past | None = None
    last: Past | None = None
    restarts: int = 0
    streak: int = 0
    ready: bool = False
    begun: bool = False
    reason: str = ""
    message: str = ""
    unhealthy: str = ""
    stop_by: Instant | None = None

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.started is not None and self.past is None

    @property
    def succeeded(self) -> bool:
        """Whether it ran to a good end."""
        return self.past is not None and self.past.code == 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pod as a whole has failed, whatever its containers do; `since` when."""

    reason: str
    message: str
    since: Instant


@dataclass(frozen=True, slots=True)
class Known:
    """What the node knows of a pod beside its object.

    `owes` says that what it writes is to be stored as an artifact once it has succeeded; `output` is that artifact's
    digest then, `obstacle` why it is not stored yet.
    """

    init: Sequence[ContainerState]
    main: Sequence[ContainerState]
    ip: str
    isolation: str
    failure: Failure | None = None
    owes: bool = False
    output: str = ""
    obstacle: str = ""


def backoff(streak: int) -> Span:
    """Return the pause before the next start: none before the first restart, then 10 s doubling up to 5 minutes."""
    return 0 if streak <= 0 else min(LONGEST_BACKOFF, FIRST_BACKOFF << min(streak - 1, 10))


def restarts_again(policy: str, code: int) -> bool:
    """Say whether a container that ended with `code` starts again under the pod's restartPolicy."""
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def policy_of(pod: Mapping[str, Any]) -> str:
    """Return the pod's restartPolicy."""
    return str(pod["spec"].get("restartPolicy") or "Always")


def phase(policy: str, known: Known) -> str:
    """Return the pod's phase: one that has failed as a whole is Failed once nothing of it runs."""
    if known.failure is not None:
        return "Running" if any(state.running for state in (*known.init, *known.main)) else "Failed"
    for state in known.init:
        if not state.succeeded:
            broken = state.past is not None and policy == "Never"
            return "Failed" if broken else "Pending"
    over = [s.past.code for s in known.main if s.past is not None and not restarts_again(policy, s.past.code)]
    if known.main and len(over) == len(known.main):
        if any(over):
            return "Failed"
        return "Running" if known.owes and not known.output else "Succeeded"
    return "Running" if any(s.started is not None for s in known.main) else "Pending"


def status(pod: Mapping[str, Any], known: Known, now: Instant) -> dict[str, Any]:
    """Return the part of the pod's status that the node writes."""
    old = pod.get("status") or {}
    policy = policy_of(pod)
    now_in = phase(policy, known)
    init = [_container(pod, state, waiting="PodInitializing") for state in known.init]
    first = "PodInitializing" if known.init else "ContainerCreating"
    main = [_container(pod, state, waiting=first) for state in known.main]
    made: dict[str, Any] = {
        "phase": now_in,
        "conditions": _conditions(pod, known, now_in, now),
        "containerStatuses": main,
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "podIP": known.ip,
        "podIPs": [{"ip": known.ip}],
        "observedGeneration": pod["metadata"].get("generation", 0),
        "qosClass": quality(pod),
    }
    if init:
        made["initContainerStatuses"] = init
    if not old.get("startTime"):
        made["startTime"] = rfc3339(now)
    if known.failure is not None:
        made |= {"reason": known.failure.reason, "message": known.failure.message}
    return made


def quality(pod: Mapping[str, Any]) -> str:
    """Return the pod's quality-of-service class (Kubernetes: Configure Quality of Service for Pods)."""
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]
    told = [c.get("resources") or {} for c in containers]
    if not any((r.get("limits") or r.get("requests")) for r in told):
        return "BestEffort"
    for resources in told:
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        if any(name not in limits or requests.get(name, limits[name]) != limits[name] for name in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"


def unready(known: Known) -> str:
    """Return why the pod is not ready, in words; empty when every container is."""
    states = [s for s in known.init if not s.succeeded] or [s for s in known.main if not (s.ready and s.running)]
    if not states:
        return ""
    names = " ".join(state.name for state in states)
    why = "; ".join(f"{s.name}: {s.message or s.reason}" for s in states if s.message or s.reason)
    return f"containers with unready status: [{names}]" + (f" ({why})" if why else "")


def _conditions(pod: Mapping[str, Any], known: Known, now_in: str, now: Instant) -> list[dict[str, Any]]:
    generation = pod["metadata"].get("generation", 0)
    conditions = list((pod.get("status") or {}).get("conditions") or ())
    begun = all(state.succeeded for state in known.init)
    ready = (
        known.failure is None
        and bool(known.main)
        and begun
        and all(s.ready and s.running for s in known.main)
        and now_in == "Running"
    )
    why = "" if ready else "PodCompleted" if now_in == "Succeeded" else "PodFailed" if now_in == "Failed" else ""
    why = why or ("" if ready else "ContainersNotReady")
    words = "" if ready or why == "PodCompleted" else known.failure.message if known.failure else unready(known)
    isolated = known.isolation == "namespaces"
    set_now: Sequence[tuple[str, bool, str, str]] = (
        (ISOLATION, isolated, "Namespaces" if isolated else "None", "namespaces" if isolated else "none"),
        ("Initialized", begun, "" if begun else "ContainersNotInitialized", "" if begun else unready(known)),
        ("ContainersReady", ready, why, words),
        ("Ready", ready, why, words),
    )
    if known.failure is not None and known.failure.reason == TERMINATED:
        set_now = (*set_now, ("DisruptionTarget", True, "TerminationByKubelet", known.failure.message))
    if known.owes and (known.output or known.obstacle):
        stored = (OUTPUT, bool(known.output), "Stored" if known.output else "NotStored", known.output or known.obstacle)
        set_now = (*set_now, stored)
    for kind, holds, reason, message in set_now:
        conditions = condition(conditions, kind, holds, reason, message, generation, now)
    return [_without_empty(c) for c in conditions]


def _container(pod: Mapping[str, Any], state: ContainerState, *, waiting: str) -> dict[str, Any]:
    uid = pod["metadata"].get("uid", "")
    made: dict[str, Any] = {
        "name": state.name,
        "image": state.image,
        "imageID": "",
        "ready": (state.ready and state.running) or (waiting == "PodInitializing" and state.succeeded),
        "started": state.running and state.begun,
        "restartCount": state.restarts,
        "lastState": {"terminated": _terminated(state.last, uid, state.name)} if state.last is not None else {},
    }
    if state.started is not None:
        made["containerID"] = f"wharfinger://{uid}/{state.name}/{state.restarts}"
    if state.running and state.started is not None:
        made["state"] = {"running": {"startedAt": rfc3339(state.started)}}
    elif state.past is not None and restarts_again(policy_of(pod), state.past.code) and state.streak > 0:
        pause = backoff(state.streak) // SECOND
        message = f"back-off {pause}s restarting failed container={state.name} pod={pod['metadata']['name']}"
        made["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        made["lastState"] = {"terminated": _terminated(state.past, uid, state.name)}
    elif state.past is not None:
        made["state"] = {"terminated": _terminated(state.past, uid, state.name)}
    else:
        made["state"] = {"waiting": _without_empty({"reason": state.reason or waiting, "message": state.message})}
    return made


def _terminated(past: Past, uid: str, name: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "exitCode": past.code,
        "reason": past.reason,
        "startedAt": rfc3339(past.started),
        "finishedAt": rfc3339(past.finished),
        "containerID": f"wharfinger://{uid}/{name}",
    }
    if 128 < past.code < 193:
        made["signal"] = past.code - 128
    if past.message:
        made["message"] = past.message
    return made


def _without_empty(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value != "" or name in ("type", "status")}
