"""NVIDIA's GPUs: found, cut and named through the vendor's library and the kernel's files.

The library is a handle with NVML's functions as nvidia-ml-py names them; the files are those below a root directory:
`sys/bus/pci/devices`, `dev/nvidiaN`, `proc/driver/nvidia-caps/mig-minors`, `proc/devices`. On hardware these are
`pynvml` and `/`; `gpu.declared` builds both for a machine that has none. It may block and it may crash: the platform
calls it in a process of its own (`gpu.hardware`).
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from wharfinger.core.errors import Conflict, HostUnfit, NotFound, excerpt
from wharfinger.gpu.devices import MEBIBYTE, Counter, Device, DeviceNode, Partition, silicon_uuid
from wharfinger.gpu.partitions import COMPUTE_SLICES, Profile

VENDOR: Final = "nvidia.com"
ABSENT: Final = "NoDriver"
"""Word in the error of a machine that has no NVIDIA driver, as against one whose driver fails."""
_ARCHITECTURES: Final = {
    2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada Lovelace", 9: "Hopper",
    10: "Blackwell", 13: "Rubin",
}  # fmt: skip
_CONTROL: Final = ("/dev/nvidiactl", "/dev/nvidia-uvm")
_CAPABILITY: Final = re.compile(r"(gpu\d+/gi\d+/(?:ci\d+/)?access) (\d+)")
_PROFILES: Final = 0x12
"""How many numbers NVML has for kinds of slices (NVML_GPU_INSTANCE_PROFILE_COUNT)."""


class Driver:
    """The NVIDIA devices of one node, through `library` and the files below `root`."""

    def __init__(self, library: Any, root: Path) -> None:
        self._nvml = library
        self._root = root

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Have the library ready inside. Raises `HostUnfit`, with `ABSENT` in its hint where there is no driver."""
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            absent = {self._nvml.NVML_ERROR_LIBRARY_NOT_FOUND, self._nvml.NVML_ERROR_DRIVER_NOT_LOADED}
            hint = ABSENT if error.value in absent else "nvidia-smi shows what the driver says"
            raise HostUnfit(f"NVML: {error}", hint=hint) from error
        try:
            yield
        except self._nvml.NVMLError as error:
            raise HostUnfit(f"NVML: {error}", hint="nvidia-smi shows what the driver says") from error
        finally:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def devices(self) -> list[Device]:
        """Return every GPU, and every slice that a GPU in MIG mode can be cut into. Raises `HostUnfit`."""
        found: list[Device] = []
        for index in range(self._nvml.nvmlDeviceGetCount()):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                gpu, profiles = self._gpu(handle, index)
                found.append(gpu)
                found += self._slices(gpu, profiles)
            except self._nvml.NVMLError as error:
                raise HostUnfit(f"NVML, GPU {index}: {error}", hint="nvidia-smi shows what the driver says") from error
        return found

    def files(self) -> list[DeviceNode]:
        """Return the device files of the node: those that are there, and those that its slices would have."""
        dev = self._below("/dev")
        there = sorted(path for path in (*dev.glob("nvidia*"), *dev.glob("nvidia-caps/*")) if not path.is_dir())
        found = [self._file(f"/dev/{path.relative_to(dev)}") for path in there]
        major, minors = self._capability_major(), self._capability_minors()
        if major is None:
            return found
        for index in range(self._nvml.nvmlDeviceGetCount()):
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            if not self._in_mig_mode(handle):
                continue
            gpu = f"gpu{self._nvml.nvmlDeviceGetMinorNumber(handle)}"
            for instance in range(1, COMPUTE_SLICES + 1):
                for file in (f"{gpu}/gi{instance}/access", f"{gpu}/gi{instance}/ci0/access"):
                    if file in minors:
                        found.append(DeviceNode(_capability_path(minors[file]), major, minors[file]))
        return list(dict.fromkeys(found))

    def prepare(self, name: str) -> Device:
        """Return the device `name` with its nodes; a slice is cut first, unless it is there.

        Slices in its way are destroyed: an allocator that gave this one has taken them back. Raises `NotFound` for a
        name that this node has not, `Conflict` when a slice in the way is in use, `HostUnfit`.
        """
        device = self._named(name)
        if device.partition is None:
            return device
        partition = device.partition
        handle = self._handle(partition.parent_uuid)
        gpu = f"gpu{self._nvml.nvmlDeviceGetMinorNumber(handle)}"
        instance = None
        for held in self._instances(handle):
            info = self._nvml.nvmlGpuInstanceGetInfo(held)
            start, end = info.placement.start, info.placement.start + info.placement.size
            if info.profileId == partition.profile_id and start == partition.start:
                instance = held
            elif start < partition.start + partition.size and partition.start < end:
                self._destroy(held, f"the slice of {partition.parent} at {start}, which {name} overlaps,")
        if instance is None:
            placement = self._nvml.c_nvmlGpuInstancePlacement_t(start=partition.start, size=partition.size)
            instance = self._nvml.nvmlDeviceCreateGpuInstanceWithPlacement(
                handle, partition.profile_id, ctypes.byref(placement)
            )
        number = self._nvml.nvmlGpuInstanceGetInfo(instance).id
        compute = self._compute(instance, device.compute_slices)
        files = (f"{gpu}/gi{number}/access", f"{gpu}/gi{number}/ci{compute}/access")
        return replace(device, nodes=tuple(self._capability(file) for file in files))

    def release(self, name: str) -> None:
        """Destroy the slice `name` if it is there; a whole GPU stays as it is. Raises as `prepare` does."""
        device = self._named(name)
        if device.partition is None:
            return
        for held in self._instances(self._handle(device.partition.parent_uuid)):
            info = self._nvml.nvmlGpuInstanceGetInfo(held)
            if (info.profileId, info.placement.start) == (device.partition.profile_id, device.partition.start):
                self._destroy(held, f"slice {name}")

    def _gpu(self, handle: Any, index: int) -> tuple[Device, list[tuple[Profile, tuple[tuple[int, int], ...]]]]:
        nvml = self._nvml
        minor = nvml.nvmlDeviceGetMinorNumber(handle)
        address = _text(nvml.nvmlDeviceGetPciInfo(handle).busId).lower()[-12:]
        root, numa_node = self._place(address)
        in_mig = self._in_mig_mode(handle)
        profiles = list(self._profiles(handle)) if in_mig else []
        major, minor_capability = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        gpu = Device(
            name=f"gpu-{index}",
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            vendor=VENDOR,
            product=_text(nvml.nvmlDeviceGetName(handle)),
            architecture=_ARCHITECTURES.get(nvml.nvmlDeviceGetArchitecture(handle), "unknown"),
            index=index,
            memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            compute_slices=COMPUTE_SLICES,
            pci_bus_id=address,
            pcie_root=root,
            numa_node=numa_node,
            driver_version=_text(nvml.nvmlSystemGetDriverVersion()),
            nodes=(self._file(f"/dev/nvidia{minor}"),),
            shared=tuple(self._file(path) for path in _CONTROL if self._below(path).exists()),
            partitionable=in_mig,
            counters=_counters(profiles),
            compute_capability=f"{major}.{minor_capability}",
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}",
        )
        return gpu, profiles

    def _in_mig_mode(self, handle: Any) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(handle)[0] == 1)
        except self._nvml.NVMLError as error:
            if error.value == self._nvml.NVML_ERROR_NOT_SUPPORTED:
                return False
            raise

    def _profiles(self, handle: Any) -> Iterator[tuple[Profile, tuple[tuple[int, int], ...]]]:
        """Yield the kinds of slices of a GPU in MIG mode, each with its placements (start, size)."""
        for number in range(_PROFILES):
            try:
                told = self._nvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number, version=2)
            except self._nvml.NVMLError as error:
                if error.value in (self._nvml.NVML_ERROR_NOT_SUPPORTED, self._nvml.NVML_ERROR_INVALID_ARGUMENT):
                    continue
                raise
            places = self._placements(handle, told.id)
            if not places:
                continue
            name = _text(told.name).removeprefix("MIG ") or f"{told.sliceCount}g.{round(told.memorySizeMB / 1024)}gb"
            yield (
                Profile(
                    name=name,
                    profile_id=told.id,
                    index=number,
                    compute_slices=told.sliceCount,
                    size=places[0][1],
                    starts=tuple(start for start, _ in places),
                    limit=told.instanceCount,
                    memory=told.memorySizeMB,
                    multiprocessors=told.multiprocessorCount,
                    copy_engines=told.copyEngineCount,
                    decoders=told.decoderCount,
                    encoders=told.encoderCount,
                    jpeg_engines=told.jpegCount,
                    ofa_engines=told.ofaCount,
                ),
                places,
            )

    def _placements(self, handle: Any, profile: int) -> tuple[tuple[int, int], ...]:
        count = ctypes.c_uint(0)
        self._nvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, None, ctypes.byref(count))
        array = (self._nvml.c_nvmlGpuInstancePlacement_t * max(1, count.value))()
        self._nvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, array, ctypes.byref(count))
        return tuple((array[i].start, array[i].size) for i in range(min(count.value, len(array))))

    def _slices(self, gpu: Device, profiles: list[tuple[Profile, tuple[tuple[int, int], ...]]]) -> Iterator[Device]:
        """Yield every slice that the GPU can be cut into, whether it is there now or not."""
        for profile, places in profiles:
            for start, size in places:
                yield replace(
                    gpu,
                    name=f"{gpu.name}-mig-{_label(profile.name)}-{start}",
                    uuid=silicon_uuid("MIG", gpu.uuid, profile.name, start),
                    memory=profile.memory * MEBIBYTE,
                    compute_slices=profile.compute_slices,
                    nodes=(),
                    shared=(*gpu.shared, *gpu.nodes),
                    partition=Partition(
                        gpu.name, gpu.uuid, profile.name, profile.profile_id, start, size, profile.consumes(start)
                    ),
                    partitionable=False,
                    counters=(),
                )

    def _named(self, name: str) -> Device:
        for device in self.devices():
            if device.name == name:
                return device
        raise NotFound(f"this node has no device {excerpt(name)}")

    def _handle(self, uuid: str) -> Any:
        for index in range(self._nvml.nvmlDeviceGetCount()):
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            if _text(self._nvml.nvmlDeviceGetUUID(handle)) == uuid:
                return handle
        raise HostUnfit(f"GPU {uuid} is gone")

    def _instances(self, handle: Any) -> list[Any]:
        """Return the slices that are there now."""
        found: list[Any] = []
        for profile, _ in self._profiles(handle):
            array = (self._nvml.c_nvmlGpuInstance_t * max(1, profile.limit))()
            count = ctypes.c_uint(0)
            self._nvml.nvmlDeviceGetGpuInstances(handle, profile.profile_id, array, ctypes.byref(count))
            found += [array[i] for i in range(min(count.value, len(array)))]
        return found

    def _compute_instances(self, instance: Any) -> list[Any]:
        found: list[Any] = []
        for number in range(self._nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
            try:
                told = self._compute_profile(instance, number)
            except self._nvml.NVMLError as error:
                if error.value in (self._nvml.NVML_ERROR_NOT_SUPPORTED, self._nvml.NVML_ERROR_INVALID_ARGUMENT):
                    continue
                raise
            array = (self._nvml.c_nvmlComputeInstance_t * max(1, told.instanceCount))()
            count = ctypes.c_uint(0)
            self._nvml.nvmlGpuInstanceGetComputeInstances(instance, told.id, array, ctypes.byref(count))
            found += [array[i] for i in range(min(count.value, len(array)))]
        return found

    def _compute_profile(self, instance: Any, number: int) -> Any:
        return self._nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
            instance, number, self._nvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
        )

    def _compute(self, instance: Any, slices: int) -> int:
        """Return the number of the compute instance over the whole of a slice; it is made where there is none."""
        held = self._compute_instances(instance)
        if not held:
            number = next(n for n, size in _COMPUTE_PROFILES.items() if size == slices)
            profile = self._compute_profile(instance, number).id
            held = [self._nvml.nvmlGpuInstanceCreateComputeInstance(instance, profile)]
        return int(self._nvml.nvmlComputeInstanceGetInfo(held[0]).id)

    def _destroy(self, instance: Any, what: str) -> None:
        try:
            for compute in self._compute_instances(instance):
                self._nvml.nvmlComputeInstanceDestroy(compute)
            self._nvml.nvmlGpuInstanceDestroy(instance)
        except self._nvml.NVMLError as error:
            if error.value == self._nvml.NVML_ERROR_IN_USE:
                raise Conflict(f"{what} is in use") from error
            raise

    def _place(self, address: str) -> tuple[str, int | None]:
        """Return PCIe root and NUMA node of a PCI address, as sysfs has them."""
        device = self._below(f"/sys/bus/pci/devices/{address}")
        try:
            resolved = device.resolve(strict=True)
            numa_node = int((resolved / "numa_node").read_text())
        except (OSError, ValueError) as error:
            raise HostUnfit(f"PCI device {address}: sysfs does not have it as NVML says") from error
        root = next((part for part in resolved.parts if re.fullmatch(r"pci[0-9a-f]{4}:[0-9a-f]{2}", part)), "")
        if not root:
            raise HostUnfit(f"PCI device {address}: expected it below a PCIe root, got {excerpt(str(resolved))}")
        return root, numa_node if numa_node >= 0 else None

    def _capability(self, file: str) -> DeviceNode:
        """Return the device node of a capability file of the driver; root makes it where it is missing."""
        minors = self._capability_minors()
        if file not in minors:
            raise HostUnfit(f"the driver names no device node for {file}")
        path = _capability_path(minors[file])
        if not self._below(path).exists():
            self._make_node(path, minors[file])
        return self._file(path)

    def _capability_minors(self) -> dict[str, int]:
        try:
            lines = self._below("/proc/driver/nvidia-caps/mig-minors").read_text().splitlines()
        except OSError:
            return {}
        return {m[1]: int(m[2]) for m in map(_CAPABILITY.fullmatch, lines) if m}

    def _capability_major(self) -> int | None:
        try:
            lines = self._below("/proc/devices").read_text().splitlines()
            return next((int(line.split()[0]) for line in lines if line.split()[1:] == ["nvidia-caps"]), None)
        except (OSError, ValueError):
            return None

    def _make_node(self, path: str, minor: int) -> None:
        place, major = self._below(path), self._capability_major()
        try:
            if major is None:
                raise FileNotFoundError
            place.parent.mkdir(exist_ok=True)
            os.mknod(place, stat.S_IFCHR | 0o444, os.makedev(major, minor))
        except OSError as error:
            raise HostUnfit(f"{path}: cannot make the device node", hint="nvidia-modprobe makes it") from error

    def _file(self, path: str) -> DeviceNode:
        """Return a device file with the numbers that the kernel knows it by; 0, 0 for one that is no device."""
        try:
            told = self._below(path).stat()
        except OSError as error:
            raise HostUnfit(f"{path}: {error.strerror}") from error
        if not stat.S_ISCHR(told.st_mode):
            return DeviceNode(path, 0, 0)
        return DeviceNode(path, os.major(told.st_rdev), os.minor(told.st_rdev))

    def _below(self, path: str) -> Path:
        return self._root / path.lstrip("/")


_COMPUTE_PROFILES: Final = {0: 1, 1: 2, 2: 3, 3: 4, 4: 7, 5: 8, 6: 6}
"""NVML's number of the compute instance that takes so many compute slices."""


def _counters(profiles: list[tuple[Profile, tuple[tuple[int, int], ...]]]) -> tuple[Counter, ...]:
    """Return what the slices of a GPU share: of each amount what the profile that takes most of it takes."""
    most: dict[str, int] = {}
    for profile, places in profiles:
        for start, _ in places:
            for counter in profile.consumes(start):
                most[counter.name] = max(most.get(counter.name, 0), counter.amount)
    return tuple(Counter(name, amount) for name, amount in most.items())


def _capability_path(minor: int) -> str:
    return f"/dev/nvidia-caps/nvidia-cap{minor}"


def _label(profile: str) -> str:
    """Return a profile's name as a part of a DNS label (`1g.10gb+me` is `1g10gb-me`)."""
    return re.sub(r"[^a-z0-9]+", "-", profile.lower().replace(".", "")).strip("-")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
