"""What to do next with a pod, decided: from the pod as the API has it and what runs, to steps.

Pure. The worker (`local.node.podworker`) carries the steps out and asks again until there are none. The order is the
safe one: a pod that must end is ended before anything else is looked at, a device door is asked before anything is
prepared, and a command starts last. The rules are kubelet's, but for the door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from wharfinger.core.clock import SECOND, Instant, Span, parse_rfc3339
from wharfinger.local.node.podstatus import ContainerState, Known, backoff, phase, policy_of, restarts_again

REVOKED_GRACE: Final[Span] = SECOND // 2
"""How long a pod whose grant is gone may take to end; its devices are closed already."""
DEFAULT_GRACE: Final = 30


class Verb(StrEnum):
    """What a step does."""

    ASK = "ask"
    """Ask the device door."""
    PREPARE = "prepare"
    """Make folders, volumes and the identity's socket."""
    START = "start"
    TERMINATE = "terminate"
    KILL = "kill"
    FAIL = "fail"
    """Count the pod as failed."""
    RELEASE = "release"
    """Give back what it holds: identity, control groups, devices."""
    DELIVER = "deliver"
    """Store what the pod left as an artifact."""
    FINALIZE = "finalize"
    """Let the pod object go, whose containers have ended."""
    ABANDON = "abandon"
    """Remove every trace of it here."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `until` bounds a termination; `reason` and `message` are a failure's."""

    verb: Verb
    container: str = ""
    until: Instant = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What is so: `present` when the API has the pod, `leaving` by when it must have ended because the node ends.

    `door` is whether the device door has said yes; a yes taken back is a failure in `known`. `released` says that the
    pod holds nothing any more.
    """

    pod: Mapping[str, Any]
    known: Known
    present: bool = True
    leaving: Instant | None = None
    door: bool = False
    prepared: bool = False
    released: bool = False


def decide(view: View, now: Instant) -> tuple[Step, ...]:
    """Return the steps that are due; none when the pod is as it should be for now."""
    states = (*view.known.init, *view.known.main)
    alive = [state for state in states if state.running]
    if not view.present:
        return tuple(Step(Verb.KILL, s.name) for s in alive) or _release(view) or (Step(Verb.ABANDON),)
    deleted = view.pod["metadata"].get("deletionTimestamp")
    ends = [view.leaving] if view.leaving is not None else []
    ends += [parse_rfc3339(deleted)] if deleted else []
    ends += [view.known.failure.since + REVOKED_GRACE] if view.known.failure is not None else []
    if ends:
        finalize = (Step(Verb.FINALIZE),) if deleted and view.leaving is None else ()
        return _stop(alive, min(ends), now) if alive else _release(view) or finalize
    if is_settled(view.pod):
        return _stop(alive, now, now) if alive else _release(view)
    policy = policy_of(view.pod)
    if phase(policy, view.known) in ("Succeeded", "Failed"):
        return _release(view)
    late = _too_late(view.pod, now)
    if late is not None:
        return (late,)
    unhealthy = [state for state in alive if state.unhealthy or state.stop_by is not None]
    if unhealthy:
        steps = [step for s in unhealthy for step in _stop([s], s.stop_by or now + _grace(view.pod), now)]
        if steps:
            return tuple(steps)
    if not view.door:
        return (Step(Verb.ASK),)
    if not view.prepared:
        return (Step(Verb.PREPARE),)
    if view.known.owes and view.known.main and all(state.succeeded for state in view.known.main):
        return (Step(Verb.DELIVER),)
    return _start(view, policy, now)


def is_settled(pod: Mapping[str, Any]) -> bool:
    """Say whether the API says that the pod has ended for good: nothing of it runs again, whatever is known here."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def look_again(view: View, now: Instant) -> Span | None:
    """Return after how long time alone makes a step due; None when only a change can."""
    moments: list[Instant] = []
    policy = policy_of(view.pod)
    deleted = view.pod["metadata"].get("deletionTimestamp")
    for state in (*view.known.init, *view.known.main):
        if state.stop_by is not None and state.running:
            moments.append(state.stop_by)
        if state.past is not None and restarts_again(policy, state.past.code) and not deleted:
            moments.append(state.past.finished + backoff(state.streak))
    deadline = _deadline(view.pod)
    if deadline is not None and view.known.failure is None:
        moments.append(deadline)
    coming = [moment - now for moment in moments if moment > now]
    return min(coming) if coming else None


def _start(view: View, policy: str, now: Instant) -> tuple[Step, ...]:
    """Init containers one after the other, then all the others at once."""
    for state in view.known.init:
        if not state.succeeded:
            return () if state.running else _due([state], policy, now)
    return _due([state for state in view.known.main if not state.running], policy, now)


def _due(states: Sequence[ContainerState], policy: str, now: Instant) -> tuple[Step, ...]:
    steps = []
    for state in states:
        past = state.past
        if past is None or (restarts_again(policy, past.code) and now >= past.finished + backoff(state.streak)):
            steps.append(Step(Verb.START, state.name))
    return tuple(steps)


def _stop(states: Sequence[ContainerState], until: Instant, now: Instant) -> tuple[Step, ...]:
    steps = []
    for state in states:
        if now >= until:
            steps.append(Step(Verb.KILL, state.name))
        elif state.stop_by is None or state.stop_by > until:
            steps.append(Step(Verb.TERMINATE, state.name, until))
    return tuple(steps)


def _release(view: View) -> tuple[Step, ...]:
    return () if view.released else (Step(Verb.RELEASE),)


def _grace(pod: Mapping[str, Any]) -> Span:
    told = pod["spec"].get("terminationGracePeriodSeconds")
    return int(DEFAULT_GRACE if told is None else told) * SECOND


def _deadline(pod: Mapping[str, Any]) -> Instant | None:
    seconds = pod["spec"].get("activeDeadlineSeconds")
    started = (pod.get("status") or {}).get("startTime")
    return parse_rfc3339(started) + int(seconds) * SECOND if seconds is not None and started else None


def _too_late(pod: Mapping[str, Any], now: Instant) -> Step | None:
    deadline = _deadline(pod)
    if deadline is None or now < deadline:
        return None
    message = "Pod was active on the node longer than the specified deadline"
    return Step(Verb.FAIL, reason="DeadlineExceeded", message=message)
