"""Which nodes a pod may run on, apart from devices: readiness, taints, selectors, room (core/v1, PodSpec).

Pure. Required node affinity and node selectors are obeyed; preferences and affinity between pods are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wharfinger.core.errors import Invalid, Malformed
from wharfinger.core.quantity import Quantity
from wharfinger.gpu.inventory import node_matches
from wharfinger.kinds.condition import find

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Load:
    """What the pods of a node ask for together: processor time in thousandths, memory in bytes, their number."""

    cpu: int = 0
    memory: int = 0
    pods: int = 0

    def __add__(self, other: Load) -> Load:
        """Return both together."""
        return Load(self.cpu + other.cpu, self.memory + other.memory, self.pods + other.pods)


def load_of(pod: Object) -> Load:
    """Return what a pod asks for: its containers together, or its largest init container. Raises `Invalid`."""
    spec = pod["spec"]
    together = Load(pods=1)
    for container in spec.get("containers") or ():
        together += _asked(container)
    for container in spec.get("initContainers") or ():
        alone = _asked(container)
        together = Load(max(together.cpu, alone.cpu), max(together.memory, alone.memory), 1)
    return together


def loads(pods: Iterable[Object], known: dict[str, tuple[Object, Load]] | None = None) -> dict[str, Load]:
    """Return what runs on each node, by pods that are bound and not over.

    `known` remembers the load of each pod, by UID, for as long as its object is the same.
    """
    found: dict[str, Load] = {}
    remembered: dict[str, tuple[Object, Load]] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if not node or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        uid = str(pod["metadata"].get("uid", ""))
        held = (known or {}).get(uid)
        load = held[1] if held is not None and held[0] is pod else load_of(pod)
        remembered[uid] = (pod, load)
        found[node] = found.get(node, Load()) + load
    if known is not None:
        known.clear()
        known |= remembered
    return found


def obstacle(pod: Object, node: Object, load: Load) -> str:
    """Return why `pod` may not run on `node`, which has `load` already; empty when it may. Raises `Invalid`."""
    spec = node.get("spec") or {}
    status = node.get("status") or {}
    ready = find(status.get("conditions"), "Ready")
    if ready is not None and ready.get("status") != "True":
        return "it is not ready"
    if spec.get("unschedulable"):
        return "it is cordoned"
    for taint in spec.get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(pod, taint):
            return f"it has taint {taint.get('key')}"
    labels = node["metadata"].get("labels") or {}
    for key, value in (pod["spec"].get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return f"it lacks label {key}={value}"
    required = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if required is not None and not node_matches({"nodeSelector": required}, node):
        return "it does not match the pod's node affinity"
    return _room(load_of(pod), load, status.get("allocatable") or status.get("capacity") or {})


def _room(asked: Load, used: Load, capacity: Mapping[str, Any]) -> str:
    try:
        for name, scale, want, have in (
            ("cpu", -3, asked.cpu, used.cpu), ("memory", 0, asked.memory, used.memory), ("pods", 0, 1, used.pods),
        ):  # fmt: skip
            if want and name in capacity and have + want > Quantity.of_json(capacity[name]).scaled(scale):
                return f"too little {name} is left"
    except Malformed as error:
        raise Invalid(f"node capacity: {error.message}") from error
    return ""


def _asked(container: Object) -> Load:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    try:
        return Load(Quantity.of_json(asked.get("cpu")).scaled(-3), Quantity.of_json(asked.get("memory")).scaled())
    except Malformed as error:
        raise Invalid(f"container {container.get('name')}: {error.message}") from error


def _tolerated(pod: Object, taint: Object) -> bool:
    tolerations: Sequence[Object] = pod["spec"].get("tolerations") or ()
    for toleration in tolerations:
        if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
            continue
        if toleration.get("key") and toleration["key"] != taint.get("key"):
            continue
        if toleration.get("operator") == "Exists" or (
            toleration.get("key") and (toleration.get("value") or "") == (taint.get("value") or "")
        ):
            return True
    return False
