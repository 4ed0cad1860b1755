"""A Deployment's pods, decided: how many of the present template, which of the others go, what its status says.

Pure. The rules are those of Kubernetes' Deployment controller, without ReplicaSets in between: pods are told apart by
the fingerprint of the template that they were made of, and a rollout may have any number of templates under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.controllers import podset
from wharfinger.core.clock import Instant, Span, parse_rfc3339
from wharfinger.core.intstr import scaled

Object = Mapping[str, Any]
TEMPLATE_LABEL: Final = "pod-template-hash"
_COUNTS: Final = (
    "replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas", "terminatingReplicas",
)  # fmt: skip
DEFAULT_DEADLINE: Final = 600


@dataclass(frozen=True, slots=True)
class Desired:
    """What there is to do: pods to make and to delete, the patch of the status, after how long to look again."""

    create: Sequence[dict[str, Any]]
    delete: Sequence[Object]
    status: Mapping[str, Any]
    again: Span | None = None


@dataclass(frozen=True, slots=True)
class _Pods:
    """The pods of a Deployment: of the present template, of others, ended, and on their way out."""

    new: Sequence[Object]
    old: Sequence[Object]
    ended: Sequence[Object]
    leaving: Sequence[Object]
    least: Span
    now: Instant

    def available(self, pods: Sequence[Object]) -> list[Object]:
        """Return those that have been ready for long enough."""
        return [pod for pod in pods if podset.available_in(pod, self.least, self.now) == 0]


def decide(deployment: Object, pods: Sequence[Object], now: Instant, refusal: str = "") -> Desired:
    """Return what `deployment` needs; `pods` are those it controls, `refusal` why the last pod was not made."""
    spec, meta = deployment["spec"], deployment["metadata"]
    mark = podset.fingerprint(spec["template"])
    least = podset.seconds(spec.get("minReadySeconds"))
    seen = _sorted(pods, mark, least, now)
    create: list[dict[str, Any]] = []
    delete: list[Object] = list(seen.ended)
    if not spec.get("paused"):
        missing, surplus = _recreated(spec, seen) if _recreates(spec) else _rolled(spec, seen)
        taken = {pod["metadata"]["name"] for pod in pods}
        labels = {TEMPLATE_LABEL: mark}
        for _, name in zip(range(missing), podset.names(f"{meta['name']}-{mark}", meta["uid"], taken), strict=False):
            create.append(podset.pod_of(deployment, name, spec["template"], labels))
        delete += surplus
    status, again = _status(deployment, seen, refusal)
    waits = [podset.available_in(pod, least, now) for pod in (*seen.new, *seen.old)]
    pauses = [pause for pause in (*waits, again) if pause]
    return Desired(create, delete, status, min(pauses) if pauses else None)


def _sorted(pods: Sequence[Object], mark: str, least: Span, now: Instant) -> _Pods:
    leaving = [pod for pod in pods if pod["metadata"].get("deletionTimestamp")]
    staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    active = [pod for pod in staying if podset.is_active(pod)]
    new = [pod for pod in active if (pod["metadata"].get("labels") or {}).get(TEMPLATE_LABEL) == mark]
    return _Pods(
        new=new,
        old=[pod for pod in active if pod not in new],
        ended=[pod for pod in staying if not podset.is_active(pod)],
        leaving=leaving,
        least=least,
        now=now,
    )


def _replicas(spec: Object) -> int:
    told = spec.get("replicas")
    return 1 if told is None else int(told)


def _recreates(spec: Object) -> bool:
    return bool((spec.get("strategy") or {}).get("type") == "Recreate")


def _recreated(spec: Object, seen: _Pods) -> tuple[int, list[Object]]:
    """Old pods go first, all of them; new ones come when none is left."""
    wanted = _replicas(spec)
    leaving = [p for p in seen.leaving if (p["metadata"].get("labels") or {}).get(TEMPLATE_LABEL)]
    if seen.old or (leaving and not seen.new):
        return 0, list(seen.old)
    return max(0, wanted - len(seen.new)), _least_useful(seen, seen.new)[: max(0, len(seen.new) - wanted)]


def _rolled(spec: Object, seen: _Pods) -> tuple[int, list[Object]]:
    """Return how many new pods to make and which pods to delete, within `maxSurge` and `maxUnavailable`."""
    wanted = _replicas(spec)
    surge, spare = _leeway(spec, wanted)
    total = len(seen.new) + len(seen.old)
    if len(seen.new) > wanted:
        surplus = _least_useful(seen, seen.new)[: len(seen.new) - wanted]
        return 0, [*surplus, *(seen.old if wanted == 0 else ())]
    missing = max(0, min(wanted - len(seen.new), wanted + surge - total))
    least = wanted - spare
    ready_new, ready_old = seen.available(seen.new), seen.available(seen.old)
    # What may go at most: new pods that are not available yet are counted as if they never will be.
    budget = total - least - (len(seen.new) - len(ready_new))
    broken = [pod for pod in seen.old if pod not in ready_old][: max(0, budget)]
    healthy = max(0, min(budget - len(broken), len(ready_new) + len(ready_old) - least))
    return missing, [*broken, *ready_old[:healthy]]


def _leeway(spec: Object, wanted: int) -> tuple[int, int]:
    told = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    surge = scaled(told.get("maxSurge", "25%"), wanted, round_up=True)
    spare = min(wanted, scaled(told.get("maxUnavailable", "25%"), wanted, round_up=False))
    return (surge, spare) if surge or spare else (0, 1)


def _least_useful(seen: _Pods, pods: Sequence[Object]) -> list[Object]:
    """Return pods in the order in which they can best be missed: unscheduled, unready, young ones first."""
    useful = seen.available(pods)
    young = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    return sorted(young, key=lambda pod: (bool(pod["spec"].get("nodeName")), podset.is_ready(pod), pod in useful))


def _status(deployment: Object, seen: _Pods, refusal: str) -> tuple[dict[str, Any], Span | None]:
    spec, meta, old = deployment["spec"], deployment["metadata"], deployment.get("status") or {}
    wanted = _replicas(spec)
    total = [*seen.new, *seen.old]
    available = len(seen.available(total))
    fresh: dict[str, Any] = {
        "observedGeneration": meta.get("generation", 0),
        "replicas": len(total),
        "updatedReplicas": len(seen.new),
        "readyReplicas": sum(1 for pod in total if podset.is_ready(pod)),
        "availableReplicas": available,
        "unavailableReplicas": max(0, wanted - available),
        "terminatingReplicas": len(seen.leaving),
    }
    _, spare = _leeway(spec, wanted) if not _recreates(spec) else (0, wanted)
    enough = available >= wanted - spare
    conditions = podset.with_condition(
        old.get("conditions"),
        "Available",
        enough,
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "Deployment has minimum availability." if enough else "Deployment does not have minimum availability.",
        "lastUpdateTime",
        seen.now,
    )
    if refusal:
        conditions = podset.with_condition(
            conditions, "ReplicaFailure", True, "FailedCreate", refusal, "lastUpdateTime", seen.now
        )
    else:
        conditions = [c for c in conditions if c["type"] != "ReplicaFailure"]
    done = len(seen.new) == wanted == available and not seen.old
    conditions, again = _progress(deployment, conditions, fresh, done, seen.now)
    fresh["conditions"] = conditions
    return podset.difference(old, fresh, _COUNTS), again


def _progress(
    deployment: Object, conditions: list[dict[str, Any]], fresh: Mapping[str, Any], done: bool, now: Instant
) -> tuple[list[dict[str, Any]], Span | None]:
    """Set Progressing: done, under way, or stuck for longer than `progressDeadlineSeconds`."""
    spec, old = deployment["spec"], deployment.get("status") or {}
    name = deployment["metadata"]["name"]
    was = next((c for c in conditions if c["type"] == "Progressing"), None)
    if done:
        reason, message, holds = "NewReplicaSetAvailable", f'Deployment "{name}" has successfully progressed.', True
        return podset.with_condition(conditions, "Progressing", holds, reason, message, "lastUpdateTime", now), None
    same = old.get("observedGeneration") == fresh["observedGeneration"]
    if was is not None and was["reason"] == "NewReplicaSetAvailable" and same:
        return conditions, None
    moved = ("updatedReplicas", "replicas", "availableReplicas", "readyReplicas", "observedGeneration")
    progressed = was is None or any(old.get(field, 0) != fresh[field] for field in moved)
    deadline = podset.seconds(spec.get("progressDeadlineSeconds") or DEFAULT_DEADLINE)
    if not progressed and was is not None:
        left = parse_rfc3339(was["lastUpdateTime"]) + deadline - now
        if was["status"] == "False" or left <= 0:
            message = f'Deployment "{name}" has timed out progressing.'
            reason = "ProgressDeadlineExceeded"
            return podset.with_condition(conditions, "Progressing", False, reason, message, "lastUpdateTime", now), None
        if was["reason"] == "ReplicaSetUpdated":
            return conditions, left
    message = f'Deployment "{name}" is progressing.'
    others = [c for c in conditions if c["type"] != "Progressing"]
    kept = [{**was, "reason": ""}] if was is not None else []
    made = podset.with_condition(
        [*others, *kept], "Progressing", True, "ReplicaSetUpdated", message, "lastUpdateTime", now
    )
    return made, deadline
