"""What a pod's status says, as kubelet writes it: phase, conditions and container statuses from what is known.

Pure: containers' states in, status out. Phases and reasons follow the Kubernetes documentation of the pod lifecycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wharfinger.core.clock import SECOND, Instant, Span, rfc3339
from wharfinger.kinds.condition import condition

FIRST_BACKOFF: Span = 10 * SECOND
LONGEST_BACKOFF: Span = 300 * SECOND


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What is known of one container. Exactly one of waiting, running since `started`, ended with `exit_code`."""

    name: str
    image: str = ""
    started: Instant | None = None
    finished: Instant | None = None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    ready: bool = False
    restarts: int = 0
    last: tuple[int, Instant, Instant] | None = None
    """Exit code, start and end of the run before this one."""

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.started is not None and self.finished is None


def backoff(restarts: int) -> Span:
    """Return the pause before the next start: none before the first restart, then 10 s doubling up to 5 minutes."""
    return 0 if restarts == 0 else min(LONGEST_BACKOFF, FIRST_BACKOFF << min(restarts - 1, 10))


def restarts_again(policy: str, exit_code: int) -> bool:
    """Say whether a container that ended starts again under the pod's restartPolicy."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def status(pod: Mapping[str, Any], states: Sequence[ContainerState], *, ip: str, now: Instant) -> dict[str, Any]:
    """Return the part of the pod's status that the node writes."""
    old = (pod.get("status") or {}).get("conditions")
    generation = pod["metadata"].get("generation", 0)
    phase = phase_of(pod["spec"].get("restartPolicy", "Always"), states)
    ready = bool(states) and all(s.ready and s.running for s in states)
    completed = phase == "Succeeded"
    reason = "PodCompleted" if completed else "ContainersNotReady" if not ready else ""
    waiting = [f"{s.name}: {s.message or s.reason}" for s in states if not s.ready and (s.message or s.reason)]
    message = "; ".join(waiting)
    conditions = condition(old, "Initialized", True, "", "", generation, now)
    conditions = condition(conditions, "ContainersReady", ready, reason, message, generation, now)
    conditions = condition(conditions, "Ready", ready, reason, message, generation, now)
    started = [s.started for s in states if s.started is not None]
    made: dict[str, Any] = {
        "phase": phase,
        "conditions": [_without_empty(c) for c in conditions],
        "containerStatuses": [_container(s) for s in states],
        "hostIP": "127.0.0.1",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
    }
    if started and not (pod.get("status") or {}).get("startTime"):
        made["startTime"] = rfc3339(min(started))
    failed = [s for s in states if s.exit_code not in (None, 0)]
    if phase == "Failed" and failed:
        made["reason"] = failed[0].reason or "Error"
        made["message"] = failed[0].message or f"container {failed[0].name} exited with {failed[0].exit_code}"
    return made


def phase_of(policy: str, states: Sequence[ContainerState]) -> str:
    """Return the pod's phase."""
    if not states or all(s.started is None and s.restarts == 0 and s.exit_code is None for s in states):
        return "Pending"
    over = [s for s in states if s.exit_code is not None and not restarts_again(policy, s.exit_code)]
    if len(over) == len(states):
        return "Failed" if any(s.exit_code != 0 for s in states) else "Succeeded"
    return "Running"


def _container(state: ContainerState) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": state.name,
        "image": state.image,
        "imageID": "",
        "ready": state.ready and state.running,
        "started": state.running,
        "restartCount": state.restarts,
        "lastState": {},
    }
    if state.running and state.started is not None:
        made["state"] = {"running": {"startedAt": rfc3339(state.started)}}
    elif state.exit_code is not None and state.started is not None and state.finished is not None:
        made["state"] = {"terminated": _terminated(state.exit_code, state.started, state.finished, state.message)}
    else:
        made["state"] = {"waiting": {"reason": state.reason or "ContainerCreating", "message": state.message}}
    if state.last is not None:
        code, started, finished = state.last
        made["lastState"] = {"terminated": _terminated(code, started, finished, "")}
    return made


def _terminated(code: int, started: Instant, finished: Instant, message: str) -> dict[str, Any]:
    reason = "Completed" if code == 0 else "OOMKilled" if code == 137 and "memory" in message else "Error"
    told = {"exitCode": code, "reason": reason, "startedAt": rfc3339(started), "finishedAt": rfc3339(finished)}
    if code > 128:
        told["signal"] = code - 128
    if message:
        told["message"] = message
    return told


def _without_empty(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value != "" or name in ("type", "status")}
