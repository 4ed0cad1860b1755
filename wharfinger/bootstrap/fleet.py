"""The fleet of this machine: its own GPUs where there are some, else a declared one.

`keep_fleet` takes the file of `wharf up --fleet` into the state directory; `open_fleet` gives the node process what is
there: real NVIDIA GPUs if NVML answers and no file was given, else that file's nodes, else the shipped fleet's.

Layout of `state/fleet`: `fleet.yaml` (what the user gave), and for declared fleets one folder per node with `root`
(what the driver code reads) and `instances.json` (the slices that are cut).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from wharfinger.bootstrap.part import Setting
from wharfinger.bootstrap.state import State, write_file
from wharfinger.core import failpoint
from wharfinger.core.errors import HostUnfit, TooLarge
from wharfinger.gpu import declared
from wharfinger.gpu.devices import Device
from wharfinger.gpu.fleet import MAX_BYTES, DeclaredNode, parse
from wharfinger.gpu.hardware import Hardware, Place
from wharfinger.gpu.nvidia import ABSENT
from wharfinger.gpu.slices import republished
from wharfinger.kinds.kind import GROUP
from wharfinger.local.node.sandbox import ShownDevice

Source = Literal["hardware", "declared"]
FLEET_LABEL: Final = f"{GROUP}/fleet"
"""Label of a Node: `hardware` or `declared`."""
_MOST_PODS: Final = 110
_BEFORE_LAYOUT, _AFTER_LAYOUT = failpoint.declare("fleet.layout")


@dataclass(frozen=True, slots=True)
class Fleet:
    """What this machine has. `nodes` are Node objects (metadata, labels, capacity; conditions are the node's to add).

    `silicon` prepares and releases devices for the device door. `enforced` says whether device files are devices that
    a control group can shut; `reason` why they are not.
    """

    source: Source
    nodes: tuple[dict[str, Any], ...]
    silicon: Hardware
    enforced: bool
    reason: str = ""

    @property
    def devices(self) -> Mapping[str, tuple[Device, ...]]:
        """Every GPU and every slice that could be cut, by node."""
        return self.silicon.found

    def slices(self, node: str, published: Iterable[Mapping[str, Any]] = ()) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the ResourceSlices of `node` to apply and then the names of those to delete.

        `published` are the ResourceSlices that the API has: where they say already what is there, nothing is to do.
        """
        return republished(node, self.silicon.found.get(node, ()), published)

    def shown(self, node: str, open_paths: Sequence[str]) -> Sequence[ShownDevice]:
        """Return the device files that a pod on `node` sees, of which it may open `open_paths`.

        Where the control group decides, every file of the node and of the slices that it could have: to see a file is
        not to open it. Elsewhere those that are open to the pod alone.
        """
        place = self.silicon.places[node]
        if self.enforced:
            known = {file.path: file for file in self.silicon.files.get(node, ())}
            for device in self.silicon.prepared(node):
                known |= {file.path: file for file in (*device.nodes, *device.shared)}
            return [
                ShownDevice(f.path, f.major, f.minor) for f in sorted(known.values()) if (f.major, f.minor) != (0, 0)
            ]
        return [ShownDevice(path, 0, 0, str(place.root / path.lstrip("/"))) for path in sorted(set(open_paths))]


def keep_fleet(state: State, path: Path | None) -> None:
    """Take the fleet file at `path` into the state directory; None leaves what is there.

    Raises `HostUnfit` when it cannot be read or kept, and what `gpu.fleet.parse` raises; then nothing has changed.
    """
    if path is None:
        return
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise TooLarge(f"expected a fleet file of at most {MAX_BYTES} bytes, got more", hint=f"look at {path}")
        parse(data)
        state.of("fleet").mkdir(mode=0o700, exist_ok=True)
        write_file(state.of("fleet") / "fleet.yaml", data)
    except OSError as error:
        raise HostUnfit(f"fleet file {path}: {error.strerror}") from error


def open_fleet(setting: Setting) -> Fleet:
    """Return the fleet of this machine, every device found.

    Raises `Unavailable` when a vendor's library hangs or crashes, `Corrupt` when it contradicts itself or a kept file
    was changed, `HostUnfit` when a declared fleet cannot be laid out.
    """
    folder = setting.state.of("fleet")
    kept = folder / "fleet.yaml"
    if not kept.exists():
        try:
            return _hardware()
        except HostUnfit as error:
            if error.hint != ABSENT:
                raise
    try:
        data = kept.read_bytes() if kept.exists() else shipped()
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise HostUnfit(f"fleet {folder}: {error.strerror}") from error
    return _declared(folder, parse(data))


def shipped() -> bytes:
    """Return the fleet file that comes with the package."""
    return (resources.files("wharfinger.gpu") / "fleets/default.yaml").read_bytes()


def _hardware() -> Fleet:
    name = re.sub(r"[^a-z0-9]+", "-", platform.node().lower().partition(".")[0])[:63].strip("-") or "localhost"
    silicon = Hardware({name: Place(Path("/"))})
    silicon.find()
    if not silicon.found[name]:
        raise HostUnfit("NVML finds no GPU", hint=ABSENT)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    root = os.geteuid() == 0
    return Fleet(
        "hardware",
        (_node(name, {}, os.cpu_count() or 1, memory, "hardware"),),
        silicon,
        root,
        "" if root else "only root has control groups that decide on devices",
    )


def _declared(folder: Path, nodes: Sequence[DeclaredNode]) -> Fleet:
    major, reason = _major(folder)
    for left in set(folder.iterdir()) - {folder / name for name in ("fleet.yaml", *(node.name for node in nodes))}:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
    failpoint.reached(_BEFORE_LAYOUT)
    for node in nodes:
        declared.build(node, folder / node.name, major)
    failpoint.reached(_AFTER_LAYOUT)
    silicon = Hardware({node.name: Place(folder / node.name / "root", folder / node.name) for node in nodes})
    silicon.find()
    objects = tuple(_node(node.name, node.labels, node.cpus, node.memory, "declared") for node in nodes)
    return Fleet("declared", objects, silicon, major is not None, reason)


def _major(folder: Path) -> tuple[int | None, str]:
    """Return the number for declared device files, or None and why they are plain files."""
    if os.geteuid() != 0:
        return None, "only root can make device files"
    probe = folder / ".probe"
    try:
        major = declared.free_major(Path("/proc/devices").read_text(encoding="ascii"))
        probe.unlink(missing_ok=True)
        declared.device_file(probe, major, 0)
        probe.unlink()
    except OSError as error:
        return None, f"this host refuses device files: {error.strerror}"
    return major, ""


def _node(name: str, labels: Mapping[str, str], cpus: int, memory: int, source: Source) -> dict[str, Any]:
    capacity = {"cpu": str(cpus), "memory": f"{memory // 1024}Ki", "pods": str(_MOST_PODS)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, FLEET_LABEL: source, **labels}},
        "spec": {},
        "status": {"capacity": capacity, "allocatable": dict(capacity)},
    }
