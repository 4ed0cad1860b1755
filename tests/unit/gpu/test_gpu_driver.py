"""The NVIDIA driver code over declared nodes: what it finds, cuts and names."""

from __future__ import annotations

import errno
import inspect
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from wharfinger.core.errors import Conflict, Corrupt, HostUnfit, NotFound
from wharfinger.gpu import declared
from wharfinger.gpu.declared import Library, build, free_major
from wharfinger.gpu.fleet import parse
from wharfinger.gpu.nvidia import Driver

FLEET = b"""
apiVersion: wharfinger.io/v1alpha1
kind: Fleet
nodes:
- name: n1
  numaNodes: 2
  gpus: [{product: H100-80GB}, {product: A100-40GB, mig: true}]
"""
SMALLEST, NEXT, WHOLE = "gpu-1-mig-1g5gb-0", "gpu-1-mig-1g5gb-1", "gpu-1-mig-7g40gb-0"


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], Driver]:
    """A way to open the driver anew on one declared node, as a node process that was started again does."""
    (node,) = parse(FLEET)

    def open_it() -> Driver:
        build(node, tmp_path / "n1", None)
        return Driver(Library(tmp_path / "n1"), tmp_path / "n1" / "root")

    return open_it


def test_every_function_of_the_declared_library_is_nvmls_with_its_arguments() -> None:
    """The driver code cannot tell a declared library from nvidia-ml-py by how it is called."""
    functions = [name for name in vars(Library) if name.startswith("nvml")]
    assert len(functions) > 20
    for name in functions:
        ours = list(inspect.signature(getattr(Library, name)).parameters)[1:]
        theirs = inspect.signature(getattr(pynvml, name))
        assert len(ours) == len(theirs.parameters) or name == "nvmlInit", name
    used = {
        word for word in inspect.getsource(Driver).replace("(", " ").replace(")", " ").split() if "_nvml.nvml" in word
    }
    assert {word.rpartition(".")[2].rstrip(",:") for word in used} <= set(functions)


def test_a_gpu_is_found_with_its_place_and_its_files(opened: Callable[[], Driver]) -> None:
    """PCI address, root, NUMA node, memory and device files are those of NVML and sysfs."""
    gpu = opened().devices()[0]
    assert (gpu.name, gpu.product, gpu.architecture) == ("gpu-0", "NVIDIA H100 80GB HBM3", "Hopper")
    assert (gpu.pci_bus_id, gpu.pcie_root, gpu.numa_node) == ("0000:11:00.0", "pci0000:10", 0)
    assert gpu.memory == 81559 * 2**20
    assert (gpu.compute_capability, gpu.cuda_version) == ("9.0", "13.0")
    assert [file.path for file in gpu.nodes] == ["/dev/nvidia0"]
    assert [file.path for file in gpu.shared] == ["/dev/nvidiactl", "/dev/nvidia-uvm"]


def test_a_gpu_in_mig_mode_offers_every_slice_it_can_be_cut_into(opened: Callable[[], Driver]) -> None:
    """An A100 has 25 placements; each has a UUID of its own before it is cut, the same at every discovery."""
    slices = [device for device in opened().devices() if device.partition]
    assert len(slices) == 7 + 7 + 4 + 3 + 2 + 1 + 1
    assert len({device.uuid for device in slices}) == len(slices)
    assert [d.uuid for d in opened().devices()] == [d.uuid for d in opened().devices()]


def test_a_slice_is_cut_when_it_is_prepared_and_outlives_its_driver(opened: Callable[[], Driver]) -> None:
    """Preparing twice, with a restart between, gives the same slice and the same device files."""
    first = opened().prepare(SMALLEST)
    assert len(first.nodes) == 2 and all("nvidia-caps/nvidia-cap" in file.path for file in first.nodes)
    assert opened().prepare(SMALLEST) == first
    assert opened().prepare(NEXT).nodes != first.nodes
    assert "/dev/nvidia1" in {file.path for file in first.shared}


def test_a_released_slice_is_gone_and_its_files_with_it(opened: Callable[[], Driver], tmp_path: Path) -> None:
    """Releasing destroys the slice; releasing again does nothing."""
    files = [tmp_path / "n1/root" / file.path.lstrip("/") for file in opened().prepare(SMALLEST).nodes]
    assert all(file.exists() for file in files)
    opened().release(SMALLEST)
    opened().release(SMALLEST)
    assert not any(file.exists() for file in files)
    assert (tmp_path / "n1/instances.json").read_bytes() == b"[]"


def test_what_lies_in_the_way_of_a_slice_is_cleared(opened: Callable[[], Driver], tmp_path: Path) -> None:
    """A slice that was left behind gives way to the one that the allocator gave now."""
    opened().prepare(SMALLEST)
    opened().prepare(NEXT)
    opened().prepare(WHOLE)
    assert (tmp_path / "n1/instances.json").read_bytes().count(b"profile_id") == 1


def test_a_slice_in_use_stays(opened: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library says that a slice in the way is in use, the error says so and nothing is destroyed."""
    opened().prepare(SMALLEST)

    def busy(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_IN_USE)

    monkeypatch.setattr(Library, "nvmlGpuInstanceDestroy", busy)
    with pytest.raises(Conflict, match="slice of gpu-1 at 0, which gpu-1-mig-7g40gb-0 overlaps, is in use"):
        opened().prepare(WHOLE)


def test_a_device_that_is_not_there_is_not_found(opened: Callable[[], Driver]) -> None:
    """A name that the node does not have is an error that cuts the name."""
    with pytest.raises(NotFound, match="no device"):
        opened().prepare("gpu-9")


def test_every_error_of_the_library_is_one_of_ours(
    opened: Callable[[], Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that falls off the bus mid-read ends the reading with its number."""

    def lost(*_: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(Library, "nvmlDeviceGetMemoryInfo", lost)
    driver = opened()
    with pytest.raises(HostUnfit, match="GPU 0: GPU is lost"), driver.opened():
        driver.devices()


def test_a_gpu_that_sysfs_does_not_have_is_an_error(opened: Callable[[], Driver], tmp_path: Path) -> None:
    """NVML and the kernel must agree about where a GPU is."""
    driver = opened()
    (tmp_path / "n1" / "root" / "sys/bus/pci/devices/0000:11:00.0").unlink()
    with pytest.raises(HostUnfit, match="0000:11:00"):
        driver.devices()


def test_the_files_of_a_node_are_those_there_and_those_of_possible_slices(tmp_path: Path) -> None:
    """Where there are real device files, a pod can be shown slices that are cut only later."""
    (node,) = parse(FLEET)
    try:
        build(node, tmp_path / "n1", free_major(Path("/proc/devices").read_text()))
    except HostUnfit as error:
        pytest.skip(f"this user cannot make device files: {error}")
    driver = Driver(Library(tmp_path / "n1"), tmp_path / "n1" / "root")
    before = driver.files()
    assert len(before) == 2 + 2 + 14
    assert set(driver.prepare(SMALLEST).nodes) <= set(before)
    assert len({(file.major, file.minor) for file in before}) == len(before)


def test_a_declared_device_file_is_a_device_without_a_driver(tmp_path: Path) -> None:
    """As root, opening one gets as far as the absent driver: ENXIO."""
    try:
        major = free_major(Path("/proc/devices").read_text())
        declared.device_file(tmp_path / "nvidia0", major, 7)
    except OSError as error:
        pytest.skip(f"this user cannot make device files: {error}")
    with pytest.raises(OSError) as refused:
        os.open(tmp_path / "nvidia0", os.O_RDWR)
    if refused.value.errno in (errno.EACCES, errno.EPERM):
        pytest.skip("the temporary folder or this process's control group refuses devices")
    assert refused.value.errno == errno.ENXIO


def test_a_major_number_that_has_a_driver_is_not_taken() -> None:
    """The number is the first that no driver of /proc/devices has; where all have one, that is an error."""
    assert free_major("Character devices:\n  1 mem\n384 x\n\nBlock devices:\n385 y\n") == 385
    with pytest.raises(HostUnfit):
        free_major("Character devices:\n" + "".join(f"{n} x\n" for n in range(384, 512)))


def test_a_node_that_is_declared_otherwise_is_laid_out_anew(tmp_path: Path) -> None:
    """Slices survive a second start on the same file, not another fleet."""
    (node,) = parse(FLEET)
    build(node, tmp_path / "n1", None)
    Driver(Library(tmp_path / "n1"), tmp_path / "n1/root").prepare(SMALLEST)
    build(node, tmp_path / "n1", None)
    assert (tmp_path / "n1/instances.json").exists()
    (other,) = parse(FLEET.replace(b"A100-40GB", b"H100-80GB"))
    build(other, tmp_path / "n1", None)
    assert not (tmp_path / "n1/instances.json").exists()


def test_a_restored_node_is_laid_out_again_with_its_slices(opened: Callable[[], Driver], tmp_path: Path) -> None:
    """Of a backup, which has no links and no device files, the node comes back as it was."""
    before = opened().prepare(SMALLEST)
    devices = opened().devices()
    shutil.rmtree(tmp_path / "n1" / "root" / "dev")
    (tmp_path / "n1" / "root" / "sys/bus/pci/devices/0000:11:00.0").unlink()
    assert opened().devices() == devices
    assert opened().prepare(SMALLEST) == before


def test_kept_slices_that_cannot_be_read_are_an_error(opened: Callable[[], Driver], tmp_path: Path) -> None:
    """What a GPU holds is not guessed."""
    opened()
    (tmp_path / "n1/instances.json").write_text("[{]", encoding="utf-8")
    with pytest.raises(Corrupt, match="declared node n1"):
        opened()
