# ruff: noqa: N802, N803
# The functions and their arguments are called as NVML calls them.
"""Declared GPUs: a fleet file made into what the NVIDIA driver code reads on hardware, at its lowest seam.

`build` lays out a node's root directory: sysfs tree, proc files and device files. As root each device file is a real
character device whose major number has no driver: opening it gets as far as the kernel lets the caller (ENXIO), or is
refused by the devices control group (EPERM). `Library` is a handle with NVML's functions over it. Slices that have been
cut are kept in a file, as a GPU keeps them, and survive whoever cut them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pynvml

from wharfinger.core.errors import Corrupt, HostUnfit
from wharfinger.gpu.devices import MEBIBYTE
from wharfinger.gpu.fleet import DeclaredGPU, DeclaredNode
from wharfinger.gpu.partitions import Profile

DRIVER_VERSION: Final = "580.95.05"
CUDA_VERSION: Final = 13000
MINORS: Final = 8192
"""Minor numbers that a node has to itself: GPUs from 0, capabilities from `_CAPABILITIES`."""
_CAPABILITIES: Final = 1024
_CONTROL: Final = {"nvidiactl": 255, "nvidia-uvm": 254}
_MAJORS: Final = range(384, 512)
"""Numbers that the kernel hands to drivers last (Documentation/admin-guide/devices.txt, dynamic range)."""
_INSTANCES: Final = 15
_COMPUTE: Final = 8
_COMPUTE_SLICES: Final = {0: 1, 1: 2, 2: 3, 3: 4, 4: 7}


def free_major(devices: str) -> int:
    """Return a character major that has no driver, by the text of /proc/devices. Raises `HostUnfit` for none."""
    text = devices.partition("Block devices:")[0]
    taken = {int(line.split()[0]) for line in text.splitlines() if line.split() and line.split()[0].isdigit()}
    for major in _MAJORS:
        if major not in taken:
            return major
    raise HostUnfit("every dynamic character device number has a driver")


def build(node: DeclaredNode, folder: Path, major: int | None) -> None:
    """Lay out `node` in `folder`, anew when it is another than was there; slices that were cut are kept.

    With a `major` the device files are character devices, without they are plain files. Raises `HostUnfit`.
    """
    mark = msgspec.json.encode({"node": node, "major": major})
    kept, root = folder / "node.json", folder / "root"
    try:
        if not kept.exists() or kept.read_bytes() != mark:
            shutil.rmtree(folder, ignore_errors=True)
        elif _is_whole(node, root, major):
            return
        # A restored backup has regular files alone: what the driver reads is laid out again.
        shutil.rmtree(root, ignore_errors=True)
        _lay_out(node, root, major)
        keep(kept, mark)
    except OSError as error:
        raise HostUnfit(f"declared node {node.name}: {error.strerror or error}") from error


def _is_whole(node: DeclaredNode, root: Path, major: int | None) -> bool:
    """Say whether the tree of a node is there with its links and device files."""
    devices = [*(f"nvidia{gpu.index}" for gpu in node.gpus), *(_CONTROL if node.gpus else ())]
    return (
        (root / "proc/driver/nvidia-caps/mig-minors").exists()
        and all(
            (root / "dev" / name).is_char_device() == (major is not None) and (root / "dev" / name).exists()
            for name in devices
        )
        and all((root / "sys/bus/pci/devices" / gpu.pci_bus_id / "numa_node").exists() for gpu in node.gpus)
    )


def _lay_out(node: DeclaredNode, root: Path, major: int | None) -> None:
    (root / "dev").mkdir(parents=True)
    (root / "sys/bus/pci/devices").mkdir(parents=True)
    (root / "proc/driver/nvidia-caps").mkdir(parents=True)
    for gpu in node.gpus:
        bridge = f"{gpu.pcie_root.removeprefix('pci')}:01.0"
        device = root / "sys/devices" / gpu.pcie_root / bridge / gpu.pci_bus_id
        device.mkdir(parents=True)
        (device / "numa_node").write_text(f"{gpu.numa_node}\n")
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030200\n")
        link = root / "sys/bus/pci/devices" / gpu.pci_bus_id
        link.symlink_to(os.path.relpath(device, link.parent))
        device_file(root / f"dev/nvidia{gpu.index}", major, node.number * MINORS + gpu.index)
    if node.gpus:
        for name, minor in _CONTROL.items():
            device_file(root / "dev" / name, major, node.number * MINORS + minor)
    lines = [f"{major} {name}" for name in ("nvidia", "nvidia-caps")] if major is not None else []
    (root / "proc/devices").write_text("\n".join(["Character devices:", *lines, ""]))
    minors = (f"{file} {minor}\n" for gpu in node.gpus for file, minor in _capabilities(node, gpu.index))
    (root / "proc/driver/nvidia-caps/mig-minors").write_text("config 1\nmonitor 2\n" + "".join(minors))


def _capabilities(node: DeclaredNode, gpu: int) -> Iterator[tuple[str, int]]:
    """Yield the capability files of a GPU's possible slices, each with its minor number."""
    for instance in range(_INSTANCES):
        first = node.number * MINORS + _CAPABILITIES + 3 + (gpu * _INSTANCES + instance) * (1 + _COMPUTE)
        yield f"gpu{gpu}/gi{instance}/access", first
        for compute in range(_COMPUTE):
            yield f"gpu{gpu}/gi{instance}/ci{compute}/access", first + 1 + compute


def device_file(path: Path, major: int | None, minor: int) -> None:
    """Make one device file; it stays when it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    if major is None:
        path.touch(mode=0o666)
        return
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    path.chmod(0o666)


def keep(path: Path, data: bytes) -> None:
    """Write `data` to `path` durably, whole or not at all. Raises `OSError`."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(slots=True)
class _Instance:
    """A slice that exists: on GPU `gpu`, as number `id`, with its compute instances by their profile."""

    gpu: int
    id: int
    profile_id: int
    start: int
    size: int
    compute: list[int]


class _Node(msgspec.Struct):
    node: DeclaredNode
    major: int | None


class Library:
    """NVML over one declared node: the functions of pynvml that the driver code calls, with their signatures.

    Names that are no function (constants, structures, errors) are pynvml's own. Raises `Corrupt` when what was kept
    cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            told = msgspec.json.decode((folder / "node.json").read_bytes(), type=_Node)
            self._node, self._major = told.node, told.major
            kept = folder / "instances.json"
            self._kept: list[_Instance] = (
                msgspec.json.decode(kept.read_bytes(), type=list[_Instance]) if kept.exists() else []
            )
            for held in self._kept:
                self._expose(held, f"gi{held.id}/access")
                for number in range(len(held.compute)):
                    self._expose(held, f"gi{held.id}/ci{number}/access")
        except (OSError, msgspec.MsgspecError) as error:
            raise Corrupt(f"declared node {folder.name}: {error}") from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvml"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        """Do nothing: a declared library is always there."""

    def nvmlShutdown(self) -> None:
        """Do nothing."""

    def nvmlSystemGetDriverVersion(self) -> str:
        """Return the version that declared drivers have."""
        return DRIVER_VERSION

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        """Return the CUDA version as NVML writes it."""
        return CUDA_VERSION

    def nvmlDeviceGetCount(self) -> int:
        """Return the number of GPUs."""
        return len(self._node.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> DeclaredGPU:
        """Return a GPU's handle."""
        if index not in range(len(self._node.gpus)):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self._node.gpus[index]

    def nvmlDeviceGetUUID(self, handle: DeclaredGPU) -> str:
        """Return the GPU's UUID."""
        return handle.uuid

    def nvmlDeviceGetName(self, handle: DeclaredGPU) -> str:
        """Return the product's name."""
        return handle.geometry.name

    def nvmlDeviceGetMinorNumber(self, handle: DeclaredGPU) -> int:
        """Return N of /dev/nvidiaN."""
        return handle.index

    def nvmlDeviceGetPciInfo(self, handle: DeclaredGPU) -> Any:
        """Return where the GPU is on the bus, with NVML's eight digits of domain."""
        return pynvml.nvmlPciInfo_t(busId=f"0000{handle.pci_bus_id}".encode())

    def nvmlDeviceGetMemoryInfo(self, handle: DeclaredGPU, version: int | None = None) -> Any:
        """Return how much memory the GPU has; nothing is in use."""
        total = handle.geometry.memory * MEBIBYTE
        return pynvml.c_nvmlMemory_t(total=total, free=total, used=0)

    def nvmlDeviceGetCudaComputeCapability(self, handle: DeclaredGPU) -> tuple[int, int]:
        """Return major and minor of the compute capability."""
        return handle.geometry.compute_capability

    def nvmlDeviceGetArchitecture(self, handle: DeclaredGPU) -> int:
        """Return NVML's number of the architecture."""
        return int(getattr(pynvml, f"NVML_DEVICE_ARCH_{handle.geometry.architecture.upper()}"))

    def nvmlDeviceGetMigMode(self, device: DeclaredGPU) -> list[int]:
        """Return current and pending mode."""
        return [int(device.mig), int(device.mig)]

    def nvmlDeviceGetGpuInstanceProfileInfo(self, device: DeclaredGPU, profile: int, version: int = 2) -> Any:
        """Return one kind of slice of the GPU."""
        for told in device.geometry.profiles:
            if told.index == profile:
                return _profile_info(told)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetGpuInstancePossiblePlacements(
        self,
        device: DeclaredGPU,
        profileId: int,
        placementsRef: Any,
        countRef: Any,
    ) -> int:
        """Fill in where a kind of slice may lie; only their number where there is no room to fill in."""
        profile = _profile(device, profileId)
        if placementsRef is not None:
            for i, start in enumerate(profile.starts):
                placementsRef[i].start, placementsRef[i].size = start, profile.size
        countRef._obj.value = len(profile.starts)
        return int(pynvml.NVML_SUCCESS)

    def nvmlDeviceCreateGpuInstanceWithPlacement(self, device: DeclaredGPU, profileId: int, placement: Any) -> Any:
        """Cut a slice: it must lie where it may, and nothing may lie there."""
        profile, start = _profile(device, profileId), int(placement._obj.start)
        if not device.mig:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        if start not in profile.starts or int(placement._obj.size) != profile.size:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        mine = [held for held in self._kept if held.gpu == device.index]
        alike = sum(1 for held in mine if held.profile_id == profileId)
        if alike >= profile.limit or any(h.start < start + profile.size and start < h.start + h.size for h in mine):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES)
        number = next(n for n in range(1, _INSTANCES) if n not in {held.id for held in mine})
        made = _Instance(device.index, number, profileId, start, profile.size, [])
        self._kept.append(made)
        self._store()
        self._expose(made, f"gi{number}/access")
        return _pointer(made, None)

    def nvmlDeviceGetGpuInstances(
        self,
        device: DeclaredGPU,
        profileId: int,
        gpuInstancesRef: Any,
        countRef: Any,
    ) -> int:
        """Fill in the slices of a kind that exist."""
        found = [h for h in self._kept if (h.gpu, h.profile_id) == (device.index, profileId)]
        for i, held in enumerate(found):
            gpuInstancesRef[i] = _pointer(held, None)
        countRef._obj.value = len(found)
        return int(pynvml.NVML_SUCCESS)

    def nvmlGpuInstanceGetInfo(self, gpuInstance: Any) -> Any:
        """Return what a slice is and where it lies."""
        held, _ = self._at(gpuInstance)
        place = pynvml.c_nvmlGpuInstancePlacement_t(start=held.start, size=held.size)
        return pynvml.c_nvmlGpuInstanceInfo_t(id=held.id, profileId=held.profile_id, placement=place)

    def nvmlGpuInstanceDestroy(self, gpuInstance: Any) -> int:
        """Destroy a slice that has no compute instance."""
        held, _ = self._at(gpuInstance)
        if held.compute:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_IN_USE)
        self._hide(held, f"gi{held.id}/access")
        self._kept.remove(held)
        self._store()
        return int(pynvml.NVML_SUCCESS)

    def nvmlGpuInstanceGetComputeInstanceProfileInfo(
        self,
        device: Any,
        profile: int,
        engProfile: int,
        version: int = 2,
    ) -> Any:
        """Return one kind of compute instance of a slice; its name is left empty."""
        held, _ = self._at(device)
        slices = _COMPUTE_SLICES.get(profile, 0)
        if not 0 < slices <= self._compute_slices(held):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        count = self._compute_slices(held) // slices
        return pynvml.c_nvmlComputeInstanceProfileInfo_t(id=profile, sliceCount=slices, instanceCount=count)

    def nvmlGpuInstanceCreateComputeInstance(self, gpuInstance: Any, profileId: int) -> Any:
        """Make a compute instance."""
        held, _ = self._at(gpuInstance)
        used = sum(_COMPUTE_SLICES[profile] for profile in held.compute)
        if used + _COMPUTE_SLICES[profileId] > self._compute_slices(held):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES)
        held.compute.append(profileId)
        self._store()
        number = len(held.compute) - 1
        self._expose(held, f"gi{held.id}/ci{number}/access")
        return _pointer(held, number)

    def nvmlGpuInstanceGetComputeInstances(
        self,
        gpuInstance: Any,
        profileId: int,
        computeInstancesRef: Any,
        countRef: Any,
    ) -> int:
        """Fill in the compute instances of a kind that exist."""
        held, _ = self._at(gpuInstance)
        found = [number for number, profile in enumerate(held.compute) if profile == profileId]
        for i, number in enumerate(found):
            computeInstancesRef[i] = ctypes.cast(_pointer(held, number), pynvml.c_nvmlComputeInstance_t)
        countRef._obj.value = len(found)
        return int(pynvml.NVML_SUCCESS)

    def nvmlComputeInstanceGetInfo(self, computeInstance: Any) -> Any:
        """Return a compute instance's number and kind."""
        held, number = self._at(computeInstance)
        return pynvml.c_nvmlComputeInstanceInfo_t(id=number, profileId=held.compute[number])

    def nvmlComputeInstanceDestroy(self, computeInstance: Any) -> int:
        """Destroy a compute instance: the last one that was made."""
        held, number = self._at(computeInstance)
        if number != len(held.compute) - 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_IN_USE)
        self._hide(held, f"gi{held.id}/ci{number}/access")
        held.compute.pop()
        self._store()
        return int(pynvml.NVML_SUCCESS)

    def _compute_slices(self, held: _Instance) -> int:
        return _profile(self._node.gpus[held.gpu], held.profile_id).compute_slices

    def _at(self, pointer: Any) -> tuple[_Instance, int]:
        value = ctypes.cast(pointer, ctypes.c_void_p).value or 0
        gpu, number, compute = value >> 16, value >> 8 & 0xFF, (value & 0xFF) - 2
        for held in self._kept:
            if (held.gpu, held.id) == (gpu, number) and compute < len(held.compute):
                return held, compute
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def _store(self) -> None:
        try:
            keep(self._folder / "instances.json", msgspec.json.encode(self._kept))
        except OSError as error:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN) from error

    def _expose(self, held: _Instance, name: str) -> None:
        path, minor = self._capability_file(held, name)
        device_file(path, self._major, minor)

    def _hide(self, held: _Instance, name: str) -> None:
        self._capability_file(held, name)[0].unlink(missing_ok=True)

    def _capability_file(self, held: _Instance, name: str) -> tuple[Path, int]:
        minor = dict(_capabilities(self._node, held.gpu))[f"gpu{held.gpu}/{name}"]
        return self._folder / f"root/dev/nvidia-caps/nvidia-cap{minor}", minor


def _pointer(held: _Instance, compute: int | None) -> Any:
    """Return a handle that says which slice, or compute instance, it is."""
    value = held.gpu << 16 | held.id << 8 | (1 if compute is None else compute + 2)
    return ctypes.cast(ctypes.c_void_p(value), pynvml.c_nvmlGpuInstance_t)


def _profile(gpu: DeclaredGPU, profile_id: int) -> Profile:
    for profile in gpu.geometry.profiles:
        if profile.profile_id == profile_id:
            return profile
    raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)


def _profile_info(profile: Profile) -> Any:
    made = pynvml.c_nvmlGpuInstanceProfileInfo_v2_t()
    made.id, made.sliceCount, made.instanceCount = profile.profile_id, profile.compute_slices, profile.limit
    made.multiprocessorCount, made.copyEngineCount = profile.multiprocessors, profile.copy_engines
    made.decoderCount, made.encoderCount = profile.decoders, profile.encoders
    made.jpegCount, made.ofaCount, made.memorySizeMB = profile.jpeg_engines, profile.ofa_engines, profile.memory
    made.name = f"MIG {profile.name}".encode()
    return made
