"""What `kubectl get` prints of built-in kinds when a JSONPath cannot say it. Pure.

Each function returns an object's cells, one for each of the kind's columns. Ages are as of `now`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wharfinger.core import selectors
from wharfinger.core.age import human_duration
from wharfinger.core.clock import Instant, parse_rfc3339
from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid, Malformed
from wharfinger.kinds.builtin.behaviour import Rows
from wharfinger.kinds.kind import Column

Cells = Sequence[Json]

_NONE: Final = "<none>"
_UNKNOWN: Final = "<unknown>"
NAME: Final = Column("Name", ".metadata.name")
AGE: Final = Column("Age", ".metadata.creationTimestamp")


def _wide(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "", priority=1) for name in names)


def _columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "") for name in names)


def age(text: Json, now: Instant) -> str:
    """Return how long ago the RFC 3339 time `text` was, as `5m` or `3d`; `<unknown>` for no time."""
    if not isinstance(text, str):
        return _UNKNOWN
    try:
        since = now - parse_rfc3339(text)
    except Malformed:
        return "<invalid>"
    return human_duration(since)


def _born(obj: Json, now: Instant) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _named(obj: Json) -> str:
    return str(obj["metadata"].get("name", ""))


def _containers(spec: Json) -> tuple[str, str]:
    containers = spec.get("containers") or []
    return (
        ",".join(str(container.get("name", "")) for container in containers),
        ",".join(str(container.get("image", "")) for container in containers),
    )


def _selector(selector: Json) -> str:
    try:
        return str(selectors.of_object(selector)) or _NONE
    except (Invalid, Malformed):
        return "<invalid>"


def _condition(status: Json, kind: str) -> Json:
    return next((entry for entry in status.get("conditions") or [] if entry.get("type") == kind), None)


def _holds(status: Json, kind: str) -> bool:
    found = _condition(status, kind)
    return found is not None and found.get("status") == "True"


# Pods: the one word in STATUS sums up phase, conditions and container states, the worst first.


def _is_sidecar(container: Json) -> bool:
    return bool(container.get("restartPolicy") == "Always")


def _ended(terminated: Json, prefix: str = "") -> str:
    if terminated.get("reason"):
        return f"{prefix}{terminated['reason']}"
    if terminated.get("signal"):
        return f"{prefix}Signal:{terminated['signal']}"
    return f"{prefix}ExitCode:{terminated.get('exitCode', 0)}"


class _PodSummary:
    """Reads a pod's status into ready containers, restarts and one word."""

    def __init__(self, pod: Json) -> None:
        self.spec, self.status = pod.get("spec") or {}, pod.get("status") or {}
        init = self.spec.get("initContainers") or []
        self.sidecars = {container.get("name") for container in init if _is_sidecar(container)}
        self.total = len(self.spec.get("containers") or []) + len(self.sidecars)
        self.ready = self.restarts = 0
        self.last_restart = ""
        self.word = str(self.status.get("reason") or self.status.get("phase") or "")
        scheduled = _condition(self.status, "PodScheduled")
        if scheduled and scheduled.get("reason") == "SchedulingGated":
            self.word = "SchedulingGated"
        starting = self._initializing(len(init))
        if not starting or _holds(self.status, "Initialized"):
            self._running()
        if pod["metadata"].get("deletionTimestamp"):
            self._terminating()

    def _count(self, container: Json) -> None:
        self.restarts += container.get("restartCount") or 0
        last = ((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        self.last_restart = max(self.last_restart, last)

    def _initializing(self, total: int) -> bool:
        """Read the init containers; say whether one of them has not ended well yet."""
        for index, container in enumerate(self.status.get("initContainerStatuses") or []):
            self._count(container)
            state = container.get("state") or {}
            terminated, waiting = state.get("terminated"), state.get("waiting") or {}
            if terminated is not None and terminated.get("exitCode") == 0:
                continue
            if container.get("name") in self.sidecars and container.get("started"):
                self.ready += 1 if container.get("ready") else 0
                continue
            if terminated is not None:
                self.word = _ended(terminated, "Init:")
            elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
                self.word = f"Init:{waiting['reason']}"
            else:
                self.word = f"Init:{index}/{total}"
            return True
        return False

    def _running(self) -> None:
        """Read the containers; from here on restarts are theirs and the sidecars'."""
        self.restarts, self.last_restart = 0, ""
        for container in self.status.get("initContainerStatuses") or []:
            if container.get("name") in self.sidecars:
                self._count(container)
        runs, failure = False, ""
        for container in reversed(self.status.get("containerStatuses") or []):
            self._count(container)
            state = container.get("state") or {}
            if (state.get("waiting") or {}).get("reason"):
                self.word = str(state["waiting"]["reason"])
            elif state.get("terminated") is not None:
                self.word = _ended(state["terminated"])
                if state["terminated"].get("exitCode"):
                    failure = self.word
            elif container.get("ready") and state.get("running") is not None:
                runs = True
                self.ready += 1
        if self.word == "Completed" and runs:
            self.word = "Running" if _holds(self.status, "Ready") else "NotReady"
        elif self.word == "Completed" and failure:
            self.word = failure

    def _terminating(self) -> None:
        if self.status.get("reason") == "NodeLost":
            self.word = "Unknown"
        elif self.status.get("phase") not in {"Failed", "Succeeded"}:
            self.word = "Terminating"


def _pod(pod: Json, now: Instant) -> Cells:
    seen = _PodSummary(pod)
    restarts = str(seen.restarts)
    if seen.restarts and seen.last_restart:
        restarts = f"{seen.restarts} ({age(seen.last_restart, now)} ago)"
    gates = seen.spec.get("readinessGates") or []
    passed = sum(1 for gate in gates if _holds(seen.status, gate.get("conditionType", "")))
    addresses = seen.status.get("podIPs") or []
    return (
        _named(pod),
        f"{seen.ready}/{seen.total}",
        seen.word,
        restarts,
        _born(pod, now),
        seen.status.get("podIP") or (addresses[0].get("ip") if addresses else "") or _NONE,
        seen.spec.get("nodeName") or _NONE,
        seen.status.get("nominatedNodeName") or _NONE,
        f"{passed}/{len(gates)}" if gates else _NONE,
    )


def _deployment(obj: Json, now: Instant) -> Cells:
    spec, status = obj["spec"], obj.get("status") or {}
    containers, images = _containers((spec.get("template") or {}).get("spec") or {})
    return (
        _named(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _born(obj, now),
        containers,
        images,
        _selector(spec.get("selector")),
    )


_JOB_WORDS: Final = (("Complete", "Complete"), ("Failed", "Failed"))
_LATER_JOB_WORDS: Final = ("Suspended", "FailureTarget", "SuccessCriteriaMet")


def _job(obj: Json, now: Instant) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    done, wanted, parallel = status.get("succeeded", 0), spec.get("completions"), spec.get("parallelism") or 0
    completions = f"{done}/{1 if wanted is None else wanted}"
    if wanted is None and parallel > 1:
        completions += f" of {parallel}"
    word = next((word for kind, word in _JOB_WORDS if _holds(status, kind)), "")
    if not word and obj["metadata"].get("deletionTimestamp"):
        word = "Terminating"
    word = word or next((kind for kind in _LATER_JOB_WORDS if _holds(status, kind)), "Running")
    duration = ""
    if status.get("startTime"):
        end = parse_rfc3339(status["completionTime"]) if status.get("completionTime") else now
        duration = human_duration(end - parse_rfc3339(status["startTime"]))
    containers, images = _containers((spec.get("template") or {}).get("spec") or {})
    return (
        _named(obj), word, completions, duration, _born(obj, now), containers, images, _selector(spec.get("selector"))
    )  # fmt: skip


def _service(obj: Json, now: Instant) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ports = ",".join(
        f"{port['port']}:{port['nodePort']}/{port.get('protocol', 'TCP')}"
        if port.get("nodePort")
        else f"{port['port']}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports") or []
    )
    kind = spec.get("type", "ClusterIP")
    outside = list(spec.get("externalIPs") or [])
    if kind == "ExternalName":
        outside = [spec.get("externalName", "")]
    elif kind == "LoadBalancer":
        ingress = (status.get("loadBalancer") or {}).get("ingress") or []
        outside += [entry.get("ip") or entry.get("hostname", "") for entry in ingress]
        outside = outside or ["<pending>"]
    inside = spec.get("clusterIPs") or [_NONE]
    labels = ",".join(f"{key}={value}" for key, value in sorted((spec.get("selector") or {}).items()))
    return (
        _named(obj), kind, inside[0], ",".join(outside) or _NONE, ports or _NONE, _born(obj, now), labels or _NONE
    )  # fmt: skip


def _node(obj: Json, now: Instant) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ready = _condition(status, "Ready")
    word = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    if spec.get("unschedulable"):
        word += ",SchedulingDisabled"
    labels = obj["metadata"].get("labels") or {}
    prefix = "node-role.kubernetes.io/"
    roles = {key.removeprefix(prefix) for key in labels if key.startswith(prefix) and key != prefix}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    info = status.get("nodeInfo") or {}
    kernel = info.get("kernelVersion") or _UNKNOWN
    if info.get("architecture"):
        kernel += f" ({info['architecture']})"
    addresses = {entry.get("type"): entry.get("address") for entry in reversed(status.get("addresses") or [])}
    return (
        _named(obj),
        word,
        ",".join(sorted(roles)) or _NONE,
        _born(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", _NONE),
        addresses.get("ExternalIP", _NONE),
        info.get("osImage") or _UNKNOWN,
        kernel,
        info.get("containerRuntimeVersion") or _UNKNOWN,
    )


def _event(obj: Json, now: Instant) -> Cells:
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or first
    count = obj.get("count") or 1
    if obj.get("series"):
        last, count = obj["series"].get("lastObservedTime"), obj["series"].get("count", count)
    about = obj.get("involvedObject") or {}
    target = "/".join(part for part in (str(about.get("kind", "")).lower(), about.get("name")) if part)
    source = obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    return (
        age(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        target,
        about.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        str(obj.get("message", "")).strip(),
        age(first, now),
        count,
        _named(obj),
    )


def _namespace(obj: Json, now: Instant) -> Cells:
    return (_named(obj), (obj.get("status") or {}).get("phase", ""), _born(obj, now))


def _secret(obj: Json, now: Instant) -> Cells:
    return (_named(obj), obj.get("type", ""), len(obj.get("data") or {}), _born(obj, now))


def _config_map(obj: Json, now: Instant) -> Cells:
    return (_named(obj), len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), _born(obj, now))


def _claim(obj: Json, now: Instant) -> Cells:
    status = obj.get("status") or {}
    words = [
        word
        for word, holds in (
            ("deleted", obj["metadata"].get("deletionTimestamp")),
            ("allocated", status.get("allocation")),
            ("reserved", status.get("reservedFor")),
        )
        if holds
    ]
    if not status.get("allocation"):
        words = [word for word in words if word == "deleted"] or ["pending"]
    return (_named(obj), ",".join(words), _born(obj, now))


POD: Final = Rows(
    (
        NAME,
        *_columns("Ready", "Status", "Restarts"),
        AGE,
        *_wide("IP", "Node", "Nominated Node", "Readiness Gates"),
    ),
    _pod,
)
DEPLOYMENT: Final = Rows(
    (
        NAME,
        *_columns("Ready"),
        Column("Up-to-date", "", "integer"),
        Column("Available", "", "integer"),
        AGE,
        *_wide("Containers", "Images", "Selector"),
    ),
    _deployment,
)
JOB: Final = Rows(
    (NAME, *_columns("Status", "Completions", "Duration"), AGE, *_wide("Containers", "Images", "Selector")), _job
)
SERVICE: Final = Rows(
    (NAME, *_columns("Type", "Cluster-IP", "External-IP", "Port(s)"), AGE, *_wide("Selector")), _service
)
NODE: Final = Rows(
    (
        NAME,
        *_columns("Status", "Roles"),
        AGE,
        *_columns("Version"),
        *_wide("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
    ),
    _node,
)
EVENT: Final = Rows(
    (
        *_columns("Last Seen", "Type", "Reason", "Object"),
        *_wide("Subobject", "Source"),
        *_columns("Message"),
        *_wide("First Seen", "Count"),
        Column("Name", ".metadata.name", priority=1),
    ),
    _event,
)
NAMESPACE: Final = Rows((NAME, *_columns("Status"), AGE), _namespace)
SECRET: Final = Rows((NAME, *_columns("Type"), Column("Data", "", "integer"), AGE), _secret)
CONFIG_MAP: Final = Rows((NAME, Column("Data", "", "integer"), AGE), _config_map)
RESOURCE_CLAIM: Final = Rows((NAME, *_columns("State"), AGE), _claim)
