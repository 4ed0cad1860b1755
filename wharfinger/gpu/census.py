"""Census: whether what a driver reports of a node's devices can be true.

A library that lies, or a GPU that falls off the bus while it is read, must not become an offer: silicon that is
counted twice would be given twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from wharfinger.core.errors import Corrupt, excerpt
from wharfinger.core.names import dns_label
from wharfinger.gpu.devices import Device
from wharfinger.gpu.partitions import COMPUTE_SLICES

MAX_DEVICES: Final = 4096
"""Devices that one node may report, slices counted."""


def checked(node: str, devices: Sequence[Device]) -> tuple[Device, ...]:
    """Return `devices`, sorted by GPU, if they can all be there at once. Raises `Corrupt` naming the first that cannot.

    A node has at most `MAX_DEVICES`, no name, UUID or PCI address of a GPU twice, no memory or counter below zero, and
    each slice lies on a GPU that is in partition mode and within what that GPU shares out.
    """
    if len(devices) > MAX_DEVICES:
        raise Corrupt(f"node {node}: expected at most {MAX_DEVICES} devices, got {len(devices)}")
    _distinct(node, "name", ((device.name, device.name) for device in devices))
    _distinct(node, "UUID", ((device.name, device.uuid) for device in devices))
    gpus = {device.uuid: device for device in devices if device.partition is None}
    _distinct(node, "PCI address", ((gpu.name, gpu.pci_bus_id) for gpu in gpus.values()))
    for device in devices:
        problem = _problem(device, gpus.get(device.gpu))
        if problem:
            raise Corrupt(f"node {node}, device {excerpt(device.name)}: {problem}")
    return tuple(sorted(devices, key=lambda device: (device.index, device.partition is not None, device.name)))


def _distinct(node: str, what: str, values: Iterable[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for name, value in values:
        if value in seen:
            raise Corrupt(
                f"node {node}: devices {excerpt(seen[value])} and {excerpt(name)} have one {what}, {excerpt(value)}"
            )
        seen[value] = name


def _problem(device: Device, gpu: Device | None) -> str:
    if dns_label(device.name):
        return "expected a name that is a DNS label"
    if not device.uuid or len(device.uuid) > 64 or not device.uuid.isprintable():
        return f"expected a UUID, got {excerpt(device.uuid)}"
    if not 0 < device.memory < 1 << 60:
        return f"expected its memory in bytes, got {device.memory}"
    if not 1 <= device.compute_slices <= COMPUTE_SLICES + 1:
        return f"expected 1 to {COMPUTE_SLICES} compute slices, got {device.compute_slices}"
    if gpu is None:
        return "its GPU is not there"
    partition = device.partition
    if partition is None:
        return ""
    if not gpu.partitionable:
        return f"{gpu.name} is not in partition mode"
    if device.memory > gpu.memory:
        return "it has more memory than its GPU"
    shared = {counter.name: counter.amount for counter in gpu.counters}
    for counter in partition.consumes:
        if not 0 <= counter.amount <= shared.get(counter.name, -1):
            return f"it takes {counter.amount} {counter.name} of {shared.get(counter.name, 0)}"
    if partition.size < 1 or partition.start < 0:
        return f"expected a place on {gpu.name}, got {partition.start} and {partition.size}"
    return ""
