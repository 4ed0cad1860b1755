"""What the Node objects of this machine say: ready, how much there is, how pods are kept apart; and its heartbeat.

Pure. In a cluster kubelet writes the same; `wharfinger.io/Isolation` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.core.clock import SECOND, Instant, Span, rfc3339_micro
from wharfinger.kinds.condition import condition
from wharfinger.kinds.kind import GROUP
from wharfinger.local.node.podstatus import ISOLATION

ISOLATION_LABEL: Final = f"{GROUP}/isolation"
LEASE_NAMESPACE: Final = "kube-node-lease"
LEASE: Final[Span] = 40 * SECOND
BEAT: Final[Span] = 10 * SECOND


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine is: how it isolates (`reason` why not better), whether device nodes are doors (`doors` why
    not, empty when they are), its kernel and system in words.
    """

    isolation: str
    reason: str
    doors: str
    architecture: str
    kernel: str
    boot: str
    version: str


def node(told: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """Return the Node object to apply, of what the fleet `told`."""
    meta = told["metadata"]
    labels = {
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/os": "linux",
        "kubernetes.io/hostname": meta["name"],
        ISOLATION_LABEL: machine.isolation,
        **(meta.get("labels") or {}),
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": meta["name"], "labels": labels}}


def status(
    told: Mapping[str, Any], machine: Machine, old: Mapping[str, Any] | None, now: Instant, stopping: str = ""
) -> dict[str, Any]:
    """Return the status to write; `stopping` says why the node takes no pods any more."""
    kept = list((old or {}).get("conditions") or ())
    isolated = machine.isolation == "namespaces"
    rows = (
        ("Ready", not stopping, "NodeReady" if not stopping else "NodeStopped", stopping or "the node runs pods"),
        (ISOLATION, isolated, "Namespaces" if isolated else "None", machine.reason or machine.isolation),
        (f"{GROUP}/DeviceDoors", not machine.doors, "Enforced" if not machine.doors else "NotEnforced", machine.doors),
        ("MemoryPressure", False, "NotMeasured", "containers have limits of their own"),
    )
    for kind, holds, reason, message in rows:
        kept = [_plain(c) for c in condition(kept, kind, holds, reason, message, 0, now)]
    return {
        **(told.get("status") or {}),
        "conditions": kept,
        "addresses": [
            {"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "Hostname", "address": told["metadata"]["name"]},
        ],
        "nodeInfo": {
            "architecture": machine.architecture,
            "bootID": machine.boot,
            "containerRuntimeVersion": f"wharfinger://{machine.version}",
            "kernelVersion": machine.kernel,
            "kubeProxyVersion": "",
            "kubeletVersion": f"v{machine.version}",
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": "",
            "systemUUID": "",
        },
    }


def lease(name: str, now: Instant) -> dict[str, Any]:
    """Return the node's heartbeat."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE // SECOND,
            "renewTime": rfc3339_micro(now),
        },
    }


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """A node's conditions carry no generation."""
    return {name: value for name, value in told.items() if name != "observedGeneration"}
