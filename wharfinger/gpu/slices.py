"""ResourceSlices: what the driver found on a node, as Kubernetes' schedulers read it (resource.k8s.io/v1).

One pool per node. Whole GPUs share a slice; the partitions of each GPU that is in partition mode have one of their
own, and draw on shared counters, so that slices of silicon that overlap are never both allocated. Order matters,
since allocators take the first that fits: small partitions before large ones, from the far end of the GPU, so that
room for a large one is left at its start. Attributes are named as NVIDIA's driver for dynamic resource allocation names
them, with `resource.kubernetes.io`'s own for place, and ours for what is sold (`computeSlices`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from wharfinger.core.document import Json
from wharfinger.core.quantity import Format, Quantity
from wharfinger.gpu.devices import DRIVER, Counter, Device

MAX_COUNTER_SETS: Final = 8
MAX_DEVICES: Final = 64
"""Counter sets, and devices that may consume counters, in one slice (resource.k8s.io/v1 limits)."""
TYPE_GPU: Final = "gpu"
TYPE_PARTITION: Final = "partition"
NUMA_NODE: Final = "resource.kubernetes.io/numaNode"
PCIE_ROOT: Final = "resource.kubernetes.io/pcieRoot"
PCI_BUS_ID: Final = "resource.kubernetes.io/pciBusID"
_CAPACITIES: Final = {
    "multiprocessors": "multiprocessors", "copy-engines": "copyEngines", "decoders": "decoders",
    "encoders": "encoders", "jpeg-engines": "jpegEngines", "ofa-engines": "ofaEngines",
}  # fmt: skip


def resource_slices(node: str, devices: Iterable[Device], generation: int = 1) -> list[dict[str, Json]]:
    """Return the ResourceSlices of `node` in generation `generation` of its pool; none where it has no device."""
    every = sorted(devices, key=lambda device: (device.index, _rank(device)))
    contents: list[tuple[str, dict[str, Json]]] = []
    # A GPU in partition mode is not offered as a whole: CUDA finds only its partitions.
    whole = [device for device in every if device.partition is None and not device.partitionable]
    for number, chunk in enumerate(_chunks(whole, MAX_DEVICES)):
        contents.append((f"gpus-{number}", {"devices": [_device(device) for device in chunk]}))
    cut = [device for device in every if device.partition is None and device.partitionable]
    for gpu in cut:
        partitions = [d for d in every if d.partition is not None and d.gpu == gpu.uuid]
        for number, chunk in enumerate(_chunks(partitions, MAX_DEVICES)):
            content = {"devices": [_device(device) for device in chunk]}
            contents.append((f"partitions-{gpu.index:03}-{number}", content))
    for number, gpus in enumerate(_chunks(cut, MAX_COUNTER_SETS)):
        sets = [{"name": _counter_set(gpu.name), "counters": _counters(gpu.counters)} for gpu in gpus]
        contents.append((f"counters-{number}", {"sharedCounters": sets}))
    pool = {"name": node, "generation": generation, "resourceSliceCount": len(contents)}
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": f"{node}-{suffix}"},
            "spec": {"driver": DRIVER, "nodeName": node, "pool": dict(pool), **content},
        }
        for suffix, content in contents
    ]


def republished(
    node: str, devices: Iterable[Device], published: Iterable[Mapping[str, Any]]
) -> tuple[list[dict[str, Json]], list[str]]:
    """Return the ResourceSlices to apply, and the names of those to delete after that, given what `published` now.

    Nothing when the pool says already what was found; else all of it in a newer generation, so that a reader never
    mixes old and new.
    """
    mine = [s for s in published if s["spec"]["driver"] == DRIVER and s["spec"]["pool"]["name"] == node]
    generation = max((s["spec"]["pool"].get("generation", 0) for s in mine), default=0)
    kept = {s["metadata"]["name"]: s["spec"] for s in mine}
    wanted = resource_slices(node, devices, max(1, generation))
    if {s["metadata"]["name"]: s["spec"] for s in wanted} == kept:
        return [], []
    fresh = resource_slices(node, devices, generation + 1) if mine else wanted
    return fresh, sorted(set(kept) - {s["metadata"]["name"] for s in fresh})


def _rank(device: Device) -> tuple[int, bool, int, int, str]:
    partition = device.partition
    if partition is None:
        return (0, False, 0, 0, "")
    # A profile with media engines is scarce: it comes after its plain sister.
    return (device.compute_slices, "+" in partition.profile, partition.size, -partition.start, partition.profile)


def _device(device: Device) -> dict[str, Json]:
    attributes: dict[str, Json] = {
        "type": {"string": TYPE_PARTITION if device.partition else TYPE_GPU},
        "uuid": {"string": device.uuid},
        "vendor": {"string": device.vendor},
        "productName": {"string": device.product[:64]},
        "architecture": {"string": device.architecture},
        "index": {"int": device.index},
        "computeSlices": {"int": device.compute_slices},
        "driverVersion": {"version": semantic(device.driver_version)},
        "cudaDriverVersion": {"version": semantic(device.cuda_version)},
        "cudaComputeCapability": {"version": semantic(device.compute_capability)},
        PCI_BUS_ID: {"string": device.pci_bus_id},
        PCIE_ROOT: {"string": device.pcie_root},
    }
    if device.numa_node is not None:
        attributes[NUMA_NODE] = {"int": device.numa_node}
    made: dict[str, Json] = {"name": device.name, "attributes": attributes}
    capacity = {"memory": {"value": str(Quantity.of(device.memory, form=Format.BINARY_SI))}}
    made["capacity"] = capacity
    partition = device.partition
    if partition is not None:
        attributes["profile"] = {"string": partition.profile}
        attributes["parentUUID"] = {"string": partition.parent_uuid}
        attributes["parentIndex"] = {"int": device.index}
        attributes["placementStart"] = {"int": partition.start}
        attributes["placementSize"] = {"int": partition.size}
        capacity |= {
            _CAPACITIES[counter.name]: {"value": str(counter.amount)}
            for counter in partition.consumes
            if counter.name in _CAPACITIES
        }
        made["consumesCounters"] = [
            {"counterSet": _counter_set(partition.parent), "counters": _counters(partition.consumes)}
        ]
    return made


def semantic(version: str) -> str:
    """Return a vendor's version (`580.95.05`) as a semantic one (`580.95.5`); what is none of both as 0.0.0."""
    parts = version.split(".")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return "0.0.0"
    return ".".join(str(int(part)) for part in [*parts, "0", "0"][:3])


def _counter_set(gpu: str) -> str:
    return f"{gpu}-counters"


def _counters(counters: Iterable[Counter]) -> dict[str, Json]:
    return {counter.name: {"value": str(counter.amount)} for counter in counters}


def _chunks(devices: Sequence[Device], size: int) -> list[Sequence[Device]]:
    return [devices[i : i + size] for i in range(0, len(devices), size)]
