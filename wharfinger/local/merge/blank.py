"""What an object of a built-in kind has before anyone sets anything.

kube-apiserver holds built-in kinds as Go structs, and these write some fields even when they are empty.
Such a field is there from the start, so who creates an object does not come to own it, only what is
below it. Custom resources have nothing from the start.
"""

from __future__ import annotations

from typing import Final

from wharfinger.core.document import Json

_POD_TEMPLATE: Final[Json] = {"metadata": {}, "spec": {"containers": None}}
_CLAIM: Final[Json] = {"devices": {"requests": None}}
_SOFTWARE: Final = (
    "architecture",
    "bootID",
    "containerRuntimeVersion",
    "kernelVersion",
    "kubeProxyVersion",
    "kubeletVersion",
    "machineID",
    "operatingSystem",
    "osImage",
    "systemUUID",
)
_BLANK: Final[dict[tuple[str, str], Json]] = {
    ("v1", "ConfigMap"): {},
    ("v1", "Event"): {
        "involvedObject": {},
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "reportingComponent": "",
        "reportingInstance": "",
    },
    ("v1", "Namespace"): {"spec": {}, "status": {}},
    ("v1", "Node"): {
        "spec": {},
        "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": dict.fromkeys(_SOFTWARE, ""),
        },
    },
    ("v1", "Pod"): {"spec": {"containers": None}, "status": {}},
    ("v1", "Secret"): {},
    ("v1", "Service"): {"spec": {}, "status": {"loadBalancer": {}}},
    ("v1", "ServiceAccount"): {},
    ("apps/v1", "Deployment"): {
        "spec": {"selector": None, "template": _POD_TEMPLATE, "strategy": {}},
        "status": {},
    },
    ("batch/v1", "Job"): {"spec": {"template": _POD_TEMPLATE}, "status": {}},
    ("coordination.k8s.io/v1", "Lease"): {"spec": {}},
    ("resource.k8s.io/v1", "DeviceClass"): {"spec": {}},
    ("resource.k8s.io/v1", "ResourceClaim"): {"spec": _CLAIM, "status": {}},
    ("resource.k8s.io/v1", "ResourceClaimTemplate"): {"spec": {"metadata": {}, "spec": _CLAIM}},
    ("resource.k8s.io/v1", "ResourceSlice"): {
        "spec": {"driver": "", "pool": {"generation": 0, "name": "", "resourceSliceCount": 0}}
    },
}


def blank(api_version: str, kind: str) -> Json | None:
    """Return the blank object of a built-in kind; None for a kind that is not one that we serve."""
    value = _BLANK.get((api_version, kind))
    return None if value is None else {"metadata": {}, **value}
