"""A Job's pods, decided: what still has to run, whether it has succeeded or failed, what its status says.

Pure. The rules are those of Kubernetes' Job controller for `completions`, `parallelism`, `backoffLimit`,
`activeDeadlineSeconds`, `suspend`, `ttlSecondsAfterFinished` and Indexed completion. Success and failure policies are
not acted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.controllers import podset
from wharfinger.core.clock import MINUTE, SECOND, Instant, Span, parse_rfc3339, rfc3339
from wharfinger.kinds.condition import find, is_true

Object = Mapping[str, Any]
INDEX: Final = "batch.kubernetes.io/job-completion-index"
DEFAULT_BACKOFF_LIMIT: Final = 6
DISRUPTED: Final = "Terminated"
"""Reason of a pod that failed because its node ended: no failure of the job's."""
FIRST_PAUSE: Final[Span] = 10 * SECOND
LONGEST_PAUSE: Final[Span] = 6 * MINUTE
_COUNTS: Final = ("active", "ready", "succeeded", "failed", "terminating")


@dataclass(frozen=True, slots=True)
class Desired:
    """What there is to do: pods to make and to delete, the patch of the status, after how long to look again.

    `over` says that the job itself is to be deleted now.
    """

    create: Sequence[dict[str, Any]]
    delete: Sequence[Object]
    status: Mapping[str, Any]
    again: Span | None = None
    over: bool = False


def decide(job: Object, pods: Sequence[Object], now: Instant) -> Desired:
    """Return what `job` needs; `pods` are those it controls."""
    spec, old = job["spec"], job.get("status") or {}
    finished = _finished(old.get("conditions"))
    if finished is not None:
        return _after(job, finished, pods, now)
    active = [pod for pod in pods if podset.is_active(pod)]
    succeeded = [pod for pod in pods if _phase(pod) == "Succeeded"]
    failed = [pod for pod in pods if _phase(pod) == "Failed" and (pod["status"].get("reason") != DISRUPTED)]
    leaving = [pod for pod in pods if pod["metadata"].get("deletionTimestamp") and not _phase(pod)]
    fresh: dict[str, Any] = {
        "active": len(active),
        "ready": sum(1 for pod in active if podset.is_ready(pod)),
        "succeeded": _successes(spec, succeeded),
        "failed": len(failed),
        "terminating": len(leaving),
        "conditions": [dict(c) for c in old.get("conditions") or ()],
    }
    if _indexed(spec):
        fresh["completedIndexes"] = _ranges(sorted({_index(pod) for pod in succeeded}))
    if spec.get("suspend"):
        return _suspended(old, fresh, active, now)
    if is_true(old.get("conditions"), "Suspended"):
        fresh["conditions"] = _condition(fresh["conditions"], "Suspended", False, "JobResumed", "Job resumed", now)
    fresh["startTime"] = old.get("startTime") or rfc3339(now)
    verdict = _verdict(spec, fresh, active, failed, now)
    if verdict is not None:
        return _ended(old, fresh, verdict, active, now)
    create, again = _missing(job, pods, active, succeeded, failed, now)
    surplus = active[_width(spec) :]
    left = _deadline(spec, fresh, now)
    pauses = [pause for pause in (again, left) if pause]
    return Desired(create, surplus, podset.difference(old, fresh, _COUNTS), min(pauses) if pauses else None)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How a job has ended."""

    complete: bool
    reason: str
    message: str


def _verdict(
    spec: Object, fresh: Mapping[str, Any], active: Sequence[Object], failed: Sequence[Object], now: Instant
) -> _Verdict | None:
    if fresh["succeeded"] >= _completions(spec) and (spec.get("completions") is not None or not active):
        return _Verdict(True, "CompletionsReached", "Reached expected number of succeeded pods")
    restarts = sum(_restarts(pod) for pod in active) if _restarts_in_place(spec) else 0
    limit = spec.get("backoffLimit")
    if len(failed) + restarts > (DEFAULT_BACKOFF_LIMIT if limit is None else int(limit)):
        words = f": {said}" if (said := _last_words(failed)) else ""
        return _Verdict(False, "BackoffLimitExceeded", f"Job has reached the specified backoff limit{words}")
    if _deadline(spec, fresh, now) == 0:
        return _Verdict(False, "DeadlineExceeded", "Job was active longer than specified deadline")
    return None


def _ended(old: Object, fresh: dict[str, Any], verdict: _Verdict, active: Sequence[Object], now: Instant) -> Desired:
    """Say that the job has ended, first that it is about to: what still runs is deleted."""
    about, kind = ("SuccessCriteriaMet", "Complete") if verdict.complete else ("FailureTarget", "Failed")
    for one in (about, kind):
        fresh["conditions"] = _condition(fresh["conditions"], one, True, verdict.reason, verdict.message, now)
    if verdict.complete:
        fresh["completionTime"] = rfc3339(now)
    fresh |= {"active": 0, "ready": 0}
    return Desired((), active, podset.difference(old, fresh, _COUNTS))


def _suspended(old: Object, fresh: dict[str, Any], active: Sequence[Object], now: Instant) -> Desired:
    fresh["conditions"] = _condition(fresh["conditions"], "Suspended", True, "JobSuspended", "Job suspended", now)
    fresh["startTime"] = None
    patch = podset.difference(old, fresh, _COUNTS)
    if old.get("startTime") is None:
        patch.pop("startTime", None)
    return Desired((), active, patch)


def _after(job: Object, finished: Object, pods: Sequence[Object], now: Instant) -> Desired:
    """What is left to do once the job has ended: end what still runs, and, in time, the job."""
    spec = job["spec"]
    stray = [pod for pod in pods if podset.is_active(pod)]
    told = spec.get("ttlSecondsAfterFinished")
    if told is None:
        return Desired((), stray, {})
    left = parse_rfc3339(finished["lastTransitionTime"]) + podset.seconds(told) - now
    return Desired((), stray, {}, left if left > 0 else None, over=left <= 0)


def _missing(
    job: Object,
    pods: Sequence[Object],
    active: Sequence[Object],
    succeeded: Sequence[Object],
    failed: Sequence[Object],
    now: Instant,
) -> tuple[list[dict[str, Any]], Span | None]:
    """Return the pods to make now, and after how long the next may be: each failure makes it wait twice as long."""
    spec, meta = job["spec"], job["metadata"]
    count = _width(spec) - len(active)
    if spec.get("completions") is not None:
        count = min(count, _completions(spec) - _successes(spec, succeeded) - len(active))
    elif succeeded:
        return [], None
    if count <= 0:
        return [], None
    if failed:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE << min(len(failed) - 1, 10))
        left = max(_finished_at(pod) for pod in failed) + pause - now
        if left > 0:
            return [], left
    labels = {
        "job-name": meta["name"], "batch.kubernetes.io/job-name": meta["name"],
        "controller-uid": meta["uid"], "batch.kubernetes.io/controller-uid": meta["uid"],
    }  # fmt: skip
    taken = {pod["metadata"]["name"] for pod in pods}
    if not _indexed(spec):
        free = podset.names(meta["name"], meta["uid"], taken)
        return [
            podset.pod_of(job, name, spec["template"], labels) for _, name in zip(range(count), free, strict=False)
        ], None
    busy = {_index(pod) for pod in (*active, *succeeded)}
    indexes = [number for number in range(_completions(spec)) if number not in busy][:count]
    return [_indexed_pod(job, number, taken, labels) for number in indexes], None


def _indexed_pod(job: Object, number: int, taken: set[str], labels: Mapping[str, str]) -> dict[str, Any]:
    meta = job["metadata"]
    name = next(podset.names(f"{meta['name']}-{number}", meta["uid"], taken))
    pod = podset.pod_of(job, name, job["spec"]["template"], {**labels, INDEX: str(number)})
    pod["metadata"]["annotations"] = {**(pod["metadata"].get("annotations") or {}), INDEX: str(number)}
    told = {"name": "JOB_COMPLETION_INDEX", "value": str(number)}
    pod["spec"]["containers"] = [{**c, "env": [*(c.get("env") or ()), told]} for c in pod["spec"]["containers"]]
    return pod


def _condition(
    conditions: Sequence[Object], kind: str, holds: bool, reason: str, message: str, now: Instant
) -> list[dict[str, Any]]:
    return podset.with_condition(conditions, kind, holds, reason, message, "lastProbeTime", now)


def _finished(conditions: Sequence[Object] | None) -> Object | None:
    for kind in ("Complete", "Failed"):
        found = find(conditions, kind)
        if found is not None and found.get("status") == "True":
            return found
    return None


def _phase(pod: Object) -> str:
    phase = (pod.get("status") or {}).get("phase")
    return str(phase) if phase in ("Succeeded", "Failed") else ""


def _completions(spec: Object) -> int:
    told = spec.get("completions")
    return 1 if told is None else int(told)


def _width(spec: Object) -> int:
    told = spec.get("parallelism")
    return 1 if told is None else int(told)


def _indexed(spec: Object) -> bool:
    return bool(spec.get("completionMode") == "Indexed")


def _index(pod: Object) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, -1))


def _successes(spec: Object, succeeded: Sequence[Object]) -> int:
    return len({_index(pod) for pod in succeeded}) if _indexed(spec) else len(succeeded)


def _restarts_in_place(spec: Object) -> bool:
    return bool(spec["template"]["spec"].get("restartPolicy") == "OnFailure")


def _restarts(pod: Object) -> int:
    return sum(int(s.get("restartCount") or 0) for s in (pod.get("status") or {}).get("containerStatuses") or ())


def _deadline(spec: Object, fresh: Mapping[str, Any], now: Instant) -> Span | None:
    """Return how much time is left, None when there is no limit."""
    told = spec.get("activeDeadlineSeconds")
    if told is None:
        return None
    return max(0, parse_rfc3339(fresh["startTime"]) + podset.seconds(told) - now)


def _finished_at(pod: Object) -> Instant:
    """Return when a pod ended, its creation when it does not say."""
    ends = [
        s["state"]["terminated"]["finishedAt"]
        for s in (pod.get("status") or {}).get("containerStatuses") or ()
        if (s.get("state") or {}).get("terminated")
    ]
    return max(map(parse_rfc3339, ends or [pod["metadata"]["creationTimestamp"]]))


def _last_words(failed: Sequence[Object]) -> str:
    """Return what the last pod that failed said of it."""
    last = max(failed, key=_finished_at, default=None)
    if last is None:
        return ""
    status = last.get("status") or {}
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode"):
            return f"pod {last['metadata']['name']} exited with {ended['exitCode']}"
    return str(status.get("message") or "")


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as Kubernetes writes them: `1,3-5`."""
    made: list[str] = []
    start = last = -2
    for number in [*numbers, -1]:
        if number == last + 1:
            last = number
            continue
        if last >= 0:
            made.append(str(start) if start == last else f"{start}-{last}" if last > start + 1 else f"{start},{last}")
        start = last = number
    return ",".join(made)
