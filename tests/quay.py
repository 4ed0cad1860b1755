"""A declared fleet, tenants, classes, claims and pods as objects, for tests of devices and of the scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wharfinger.bootstrap.fleet import shipped
from wharfinger.gpu.declared import Library, build
from wharfinger.gpu.devices import Device
from wharfinger.gpu.fleet import parse
from wharfinger.gpu.nvidia import Driver
from wharfinger.gpu.profiles import device_class
from wharfinger.gpu.slices import resource_slices

GPU = "gpu.wharfinger.io"
SMALL = """
apiVersion: wharfinger.io/v1alpha1
kind: Fleet
nodes:
- name: n1
  numaNodes: 2
  gpus:
  - {product: H100-80GB, count: 4}
- name: n2
  gpus:
  - {product: A100-40GB, count: 2, mig: true}
"""
_ATTRIBUTES = f'device.attributes["{GPU}"]'
HALF: dict[str, Any] = {
    "metadata": {"name": "half"},
    "spec": {
        "selectors": [{"cel": {"expression": f'has({_ATTRIBUTES}.profile) && {_ATTRIBUTES}.profile == "3g.20gb"'}}]
    },
}
"""A class of the slices that are half of an A100."""


def found(folder: Path, data: bytes | None = None) -> dict[str, list[Device]]:
    """Return what the driver finds on each node of a fleet file, of the shipped one unless another is given."""
    made: dict[str, list[Device]] = {}
    for node in parse(shipped() if data is None else data):
        build(node, folder / node.name, None)
        driver = Driver(Library(folder / node.name), folder / node.name / "root")
        with driver.opened():
            made[node.name] = driver.devices()
    return made


def slices(folder: Path, data: bytes | None = None) -> list[dict[str, Any]]:
    """Return the ResourceSlices of a fleet file."""
    return [s for name, devices in found(folder, data).items() for s in resource_slices(name, devices)]


def node(name: str, **spec: Any) -> dict[str, Any]:
    """Return a Node that is ready."""
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec, "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def tenant(
    name: str, *namespaces: str, memory: str = "640Gi", slices: int = 70, isolation: str = "slice"
) -> dict[str, Any]:
    """Return a Tenant."""
    return {
        "apiVersion": "wharfinger.io/v1alpha1", "kind": "Tenant", "metadata": {"name": name},
        "spec": {
            "namespaces": list(namespaces or (name,)),
            "quota": {"gpu": {"memory": memory, "computeSlices": slices}},
            "isolation": {"fromOthers": isolation},
        },
    }  # fmt: skip


def profile(name: str, memory: str, sharing: str = "Exclusive", **spec: Any) -> dict[str, Any]:
    """Return a GPUProfile."""
    return {
        "apiVersion": "wharfinger.io/v1alpha1", "kind": "GPUProfile", "metadata": {"name": name},
        "spec": {"memory": memory, "sharing": sharing, **spec},
    }  # fmt: skip


def classes() -> dict[str, dict[str, Any]]:
    """Return the classes `whole` (a GPU of 40 GB or more) and `slice` (the smallest partition or more), by name."""
    return {
        "whole": device_class(profile("whole", "39Gi")),
        "slice": device_class(profile("slice", "4Gi", "Partition")),
    }


def claim(namespace: str, name: str, device_class: str, count: int = 1, **more: Any) -> dict[str, Any]:
    """Return a ResourceClaim for `count` devices of a class."""
    exactly = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count}
    return {
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": {**exactly, **more}}]}},
    }  # fmt: skip


def pod(namespace: str, name: str, *claims: str, **spec: Any) -> dict[str, Any]:
    """Return a Pod with claims that are there by name."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "containers": [{"name": "main", "image": "wharfinger.io/host", "command": ["true"]}],
            "resourceClaims": [{"name": c, "resourceClaimName": c} for c in claims],
            **spec,
        },
    }  # fmt: skip


def devices_of(claims: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return pool and device of everything that claims hold."""
    return [
        (result["pool"], result["device"])
        for c in claims
        for result in ((c.get("status") or {}).get("allocation") or {}).get("devices", {}).get("results", ())
    ]
