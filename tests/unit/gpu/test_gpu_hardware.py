"""Hardware in a process of its own: what happens when it hangs, dies or lies."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from quay import SMALL, found

from wharfinger.core import failpoint
from wharfinger.core.errors import Corrupt, HostUnfit, NotFound, Unavailable
from wharfinger.gpu.census import checked
from wharfinger.gpu.declared import build
from wharfinger.gpu.devices import Counter, Device
from wharfinger.gpu.fleet import parse
from wharfinger.gpu.hardware import Hardware, Place, Question, ask
from wharfinger.gpu.nvidia import ABSENT

SLICE = ("gpu.wharfinger.io", "n2", "gpu-0-mig-1g5gb-0")


def says(code: str) -> tuple[str, ...]:
    """Return a command that is no driver."""
    return (sys.executable, "-c", code)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import time; time.sleep(60)", "did not answer within 0.3 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("raise SystemExit('no such bus')", 'failed: "no such bus"'),
        ("print('NVIDIA-SMI')", "expected devices, got"),
        ('print(\'{"devices": [{"name": 1}]}\')', "expected devices, got"),
        ("", "expected devices, got"),
    ],
)
def test_a_library_that_hangs_crashes_or_babbles_is_a_clear_error(code: str, words: str) -> None:
    """The caller lives, and is told what the library did."""
    timeout = 0.3 if "sleep" in code else 30
    with pytest.raises(Unavailable) as refused:
        ask(Question("find", "/"), command=says(code), timeout=timeout)
    assert words in str(refused.value)


def test_a_machine_without_nvml_says_so(tmp_path: Path) -> None:
    """That there is no driver is told apart from a driver that fails."""
    try:
        ask(Question("find", str(tmp_path)))
    except HostUnfit as error:
        assert error.hint == ABSENT
    else:
        pytest.skip("this machine has NVML")


def hardware(folder: Path) -> Hardware:
    """Return the small fleet as hardware, found."""
    nodes = parse(SMALL.encode())
    for node in nodes:
        build(node, folder / node.name, None)
    made = Hardware({node.name: Place(folder / node.name / "root", folder / node.name) for node in nodes})
    made.find()
    return made


def test_devices_are_found_prepared_and_released_through_the_process(tmp_path: Path) -> None:
    """The device door's port works over the process as the driver does within one."""
    silicon = hardware(tmp_path)
    assert {node: len(devices) for node, devices in silicon.found.items()} == {"n1": 4, "n2": 52}
    device = silicon.prepare(SLICE)
    assert device.nodes and device.uuid in {found.uuid for found in silicon.found["n2"]}
    assert silicon.prepare(SLICE) is device and silicon.prepared("n2") == [device]
    silicon.release(SLICE)
    assert silicon.prepared("n2") == []
    assert (tmp_path / "n2/instances.json").read_bytes() == b"[]"
    silicon.release(("gpu.wharfinger.io", "n2", "gpu-7"))
    with pytest.raises(NotFound):
        silicon.prepare(("gpu.wharfinger.io", "elsewhere", "gpu-0"))


def test_silicon_that_changed_since_it_was_found_is_refused(tmp_path: Path) -> None:
    """A grant names a UUID: a device that answers with another is not what was granted."""
    silicon = hardware(tmp_path)
    silicon.found["n1"] = tuple(replace(device, uuid=f"{device.uuid[:-1]}x") for device in silicon.found["n1"])
    with pytest.raises(Corrupt, match="expected GPU-"):
        silicon.prepare(("gpu.wharfinger.io", "n1", "gpu-0"))


def changed(devices: list[Device], at: int, **changes: object) -> list[Device]:
    """Return the devices with one of them otherwise."""
    return [replace(device, **changes) if i == at else device for i, device in enumerate(devices)]  # type: ignore[arg-type]


def test_an_inventory_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """Whatever cannot be true of a node's devices is refused by name, and the truth is not."""
    devices = found(tmp_path, SMALL.encode())["n2"]
    assert len(checked("n2", devices)) == len(devices)
    part = devices[1].partition
    assert part is not None
    lies = {
        "one UUID": changed(devices, 2, uuid=devices[1].uuid),
        "one name": changed(devices, 2, name=devices[1].name),
        "one PCI address": changed(devices, 26, pci_bus_id=devices[0].pci_bus_id),
        "memory in bytes": changed(devices, 0, memory=-1),
        "compute slices": changed(devices, 0, compute_slices=0),
        "not in partition mode": changed(devices, 0, partitionable=False),
        "more memory than its GPU": changed(devices, 1, memory=devices[0].memory + 1),
        "a DNS label": changed(devices, 0, name="GPU 0"),
        "expected a UUID": changed(devices, 0, uuid=""),
        "its GPU is not there": devices[1:],
        "it takes -1 decoders": changed(devices, 1, partition=replace(part, consumes=(Counter("decoders", -1),))),
        "it takes 99 decoders": changed(devices, 1, partition=replace(part, consumes=(Counter("decoders", 99),))),
        "at most 4096": devices * 100,
    }
    for words, told in lies.items():
        with pytest.raises(Corrupt, match=words):
            checked("n2", told)


class Died(Exception):
    """The end of a process, as a test sees it."""


def die() -> None:
    """Die."""
    raise Died


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("write", ["silicon.prepare", "silicon.release"])
def test_a_death_around_a_cut_or_a_release_is_followed_by_the_same_result(
    write: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that died before or after, and was started again, prepares the slice and releases it for good."""
    monkeypatch.setattr(failpoint, "_armed", {})
    failpoint.arm(f"{write}.{moment}", die)
    silicon = hardware(tmp_path)
    with pytest.raises(Died):
        silicon.prepare(SLICE)
        silicon.release(SLICE)
    monkeypatch.setattr(failpoint, "_armed", {})
    again = hardware(tmp_path)
    device = again.prepare(SLICE)
    assert all((tmp_path / "n2" / "root" / file.path.lstrip("/")).exists() for file in device.nodes)
    again.release(SLICE)
    assert (tmp_path / "n2/instances.json").read_bytes() == b"[]"
