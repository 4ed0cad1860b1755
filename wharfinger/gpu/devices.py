"""Devices: what a node has, in terms that no vendor owns.

A `Device` is a whole GPU or one hardware partition that a GPU can be cut into (a MIG slice). Both are
allocated, published and opened the same way. The vendors' drivers make these values, everything else
(ResourceSlices, quota, isolation, the node's device doors) reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wharfinger.core.digests import sha256

DRIVER: Final = "gpu.wharfinger.io"
"""Name of our DRA driver: the domain of our device attributes and the `driver` of every allocation."""

MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, order=True)
class DeviceNode:
    """One character device: `path` below the node's root (`/dev/nvidia0`), and the numbers the kernel knows it by."""

    path: str
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class Counter:
    """An amount of something that the partitions of one GPU share: `name` is a DNS label, `amount` not negative."""

    name: str
    amount: int


@dataclass(frozen=True, slots=True)
class Partition:
    """How a slice lies on its GPU.

    `profile` is the vendor's name (`1g.10gb`), `start` and `size` the memory slices that it covers, `consumes`
    what it takes from the GPU's counters.
    """

    parent: str
    parent_uuid: str
    profile: str
    profile_id: int
    start: int
    size: int
    consumes: tuple[Counter, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a slice of one.

    `name` is unique on its node and a DNS label. `uuid` names the silicon for grants and doors and is the same
    at every discovery; a slice has one before it is cut. `memory` is in bytes. `compute_slices` counts compute in
    sevenths of a GPU: 7 for a whole one. `numa_node` is None where the kernel knows none. `nodes` are the
    device nodes that open exactly this device; a slice has them once it has been cut (`hardware.Hardware.prepare`).
    `shared` are nodes that its user needs too, and so do the users of other devices: the driver's control nodes, and
    for a slice that of its GPU, which alone opens no slice. `partitionable` says that this GPU is in a mode (MIG) in
    which only its slices can be used. `compute_capability` is CUDA's (`9.0`), `cuda_version` the newest that the
    driver speaks.
    """

    name: str
    uuid: str
    vendor: str
    product: str
    architecture: str
    index: int
    memory: int
    compute_slices: int
    pci_bus_id: str
    pcie_root: str
    numa_node: int | None
    driver_version: str
    nodes: tuple[DeviceNode, ...] = ()
    shared: tuple[DeviceNode, ...] = ()
    partition: Partition | None = None
    partitionable: bool = False
    counters: tuple[Counter, ...] = ()
    compute_capability: str = ""
    cuda_version: str = ""

    @property
    def gpu(self) -> str:
        """The UUID of the GPU that this is, or is cut from."""
        return self.partition.parent_uuid if self.partition else self.uuid


def silicon_uuid(prefix: str, *parts: object) -> str:
    """Return `PREFIX-` and a UUID that follows from `parts` alone, for silicon that has no name of its own yet."""
    digits = sha256("/".join(map(str, parts)).encode()).removeprefix("sha256:")
    return f"{prefix}-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
