"""Objects of Kubernetes' own kinds, and what becomes of them when fields are changed to what nobody meant."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from mutants import mutate

_CONTAINER = {
    "name": "c",
    "image": "i",
    "command": ["a"],
    "args": ["b"],
    "env": [
        {"name": "A", "value": "b"},
        {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ],
    "ports": [{"containerPort": 80, "name": "http"}],
    "resources": {"requests": {"cpu": 0.5, "memory": "1Gi"}, "limits": {"cpu": 1.5}},
    "volumeMounts": [{"name": "v", "mountPath": "/x"}],
    "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5},
}
_POD = {
    "containers": [_CONTAINER],
    "volumes": [{"name": "v", "emptyDir": {}}],
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
    "terminationGracePeriodSeconds": 5,
}
_SELECTORS = [{"cel": {"expression": 'device.driver == "a"'}}]
OBJECTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pods": ("v1", "Pod", {"spec": _POD}),
    "deployments": (
        "apps/v1",
        "Deployment",
        {
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": _POD},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            }
        },
    ),
    "jobs": (
        "batch/v1",
        "Job",
        {"spec": {"backoffLimit": 2, "completions": 1, "template": {"spec": {**_POD, "restartPolicy": "Never"}}}},
    ),
    "services": (
        "v1",
        "Service",
        {
            "spec": {
                "selector": {"a": "b"},
                "ports": [{"name": "h", "port": 80, "targetPort": 81}, {"name": "m", "port": 81}],
            }
        },
    ),
    "configmaps": ("v1", "ConfigMap", {"data": {"a": "b"}, "binaryData": {"c": "AAA="}, "immutable": False}),
    "secrets": ("v1", "Secret", {"type": "Opaque", "data": {"a": "YQ=="}, "stringData": {"b": "c"}}),
    "serviceaccounts": ("v1", "ServiceAccount", {"imagePullSecrets": [{"name": "s"}]}),
    "leases": (
        "coordination.k8s.io/v1",
        "Lease",
        {"spec": {"holderIdentity": "h", "leaseDurationSeconds": 15, "renewTime": "2026-11-24T08:00:00.000000Z"}},
    ),
    "resourceclaims": (
        "resource.k8s.io/v1",
        "ResourceClaim",
        {
            "spec": {
                "devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "g", "selectors": _SELECTORS}}]}
            }
        },
    ),
    "nodes": ("v1", "Node", {"spec": {"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]}}),
}
"""By plural: apiVersion, kind, and an object's fields."""


def builtin_mutants(seed: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the plural and value of `count` objects, each changed at up to two places; the same for the same seed."""
    dice = random.Random(seed)
    for number in range(count):
        plural = dice.choice(list(OBJECTS))
        version, kind, fields = OBJECTS[plural]
        value = {"apiVersion": version, "kind": kind, "metadata": {"name": "mutant", "labels": {"a": "b"}}}
        value |= copy.deepcopy(fields)
        for _ in range(number % 3):
            mutate(value, dice)
        yield plural, value
