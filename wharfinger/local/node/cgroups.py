"""Control groups: which devices a container may open, and how much memory, time and processes it may have.

Two kinds: `Hybrid` on hosts with version 1 controllers, `Unified` on hosts with version 2 alone, where devices are
decided by an eBPF program. One group per container, below one of the platform's own. They need root; an ordinary
user's containers are kept apart by namespaces and rlimits, and see no device node but their own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from wharfinger.core.errors import HostUnfit, Invalid, Malformed
from wharfinger.core.quantity import Quantity
from wharfinger.local.node import bpf, devicefilter
from wharfinger.local.node.devicefilter import PLAIN, Number

ROOT: Final = Path("/sys/fs/cgroup")
_NEEDED: Final = ("devices", "memory", "pids")
_PERIOD: Final = 100_000
_MOST_PROCESSES: Final = 1024
_TRIES: Final = 100
_TRIAL: Final = "trial"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may use: bytes of memory and thousandths of a CPU, 0 for no limit; a share of CPU when it is
    scarce, in thousandths asked for; processes.
    """

    memory: int = 0
    cpu: int = 0
    cpu_request: int = 0
    processes: int = _MOST_PROCESSES


def limits_of(container: Mapping[str, Any]) -> Limits:
    """Return the limits that a container of a pod declares. Raises `Invalid`."""
    told = container.get("resources") or {}
    limits, requests = told.get("limits") or {}, told.get("requests") or {}
    try:
        return Limits(
            memory=Quantity.of_json(limits.get("memory")).scaled(),
            cpu=Quantity.of_json(limits.get("cpu")).scaled(-3),
            cpu_request=Quantity.of_json(requests.get("cpu", limits.get("cpu"))).scaled(-3),
        )
    except Malformed as error:
        raise Invalid(f"container {container['name']}: {error.message}") from error


class Groups(Protocol):
    """The control groups of one node process. A group is named by its pod's uid and its container."""

    devices: bool
    """Whether groups decide which devices open."""
    reason: str
    """Why they do not."""

    def create(self, group: str, limits: Limits) -> None:
        """Make a group that may open the plain devices only."""
        ...

    def join(self, group: str) -> list[str]:
        """Return the files that a process joins the group by, writing 0 to each."""
        ...

    def open(self, group: str, numbers: Iterable[tuple[int, int]]) -> None:
        """Let the group open exactly these devices beside the plain ones, at once. A group that is gone has none."""
        ...

    def out_of_memory(self, group: str) -> bool:
        """Say whether the kernel killed something in the group for want of memory."""
        ...

    def remove(self, group: str) -> None:
        """Kill what is left in the group and remove it."""
        ...

    def names(self) -> list[str]:
        """Return the groups there are, those of an earlier node included."""
        ...

    def close(self) -> None:
        """Remove the platform's own group once the containers' are gone."""
        ...


def groups(name: str, root: Path = ROOT) -> Groups:
    """Return the control groups below `name` that this host and this user can have, after trying one."""
    if os.geteuid() != 0:
        return Without("only root has control groups that decide on devices")
    made: Groups
    if all((root / c / "cgroup.procs").exists() for c in _NEEDED):
        made = Hybrid(name, root)
    elif (root / "cgroup.controllers").exists():
        made = Unified(name, root)
    else:
        return Without("this host has no control groups")
    try:
        made.create(_TRIAL, Limits())
        made.remove(_TRIAL)
    except HostUnfit as error:
        return Without(f"this host refuses control groups: {error.message}")
    return made


class Without:
    """No control groups: neither limits nor devices; `reason` says why."""

    devices = False

    def __init__(self, reason: str = "") -> None:
        self.reason = reason

    def create(self, group: str, limits: Limits) -> None:
        """Do nothing."""

    def join(self, group: str) -> list[str]:
        """Return none."""
        return []

    def open(self, group: str, numbers: Iterable[tuple[int, int]]) -> None:
        """Do nothing."""

    def out_of_memory(self, group: str) -> bool:
        """Return False: nobody counts."""
        return False

    def remove(self, group: str) -> None:
        """Do nothing."""

    def names(self) -> list[str]:
        """Return none."""
        return []

    def close(self) -> None:
        """Do nothing."""


class Hybrid:
    """Version 1 controllers, each with a tree of its own."""

    devices = True
    reason = ""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        self._name = name
        self._root = root
        self._controllers = [c for c in (*_NEEDED, "cpu") if (root / c / "cgroup.procs").exists()]

    def create(self, group: str, limits: Limits) -> None:
        """Make a group in each tree. Raises `HostUnfit`."""
        with _wrapped(group):
            for controller in self._controllers:
                self._path(controller, group).mkdir(parents=True, exist_ok=True)
            self._set_devices(group, PLAIN)
            (self._path("pids", group) / "pids.max").write_text(str(limits.processes))
            if limits.memory:
                (self._path("memory", group) / "memory.limit_in_bytes").write_text(str(limits.memory))
            cpu = self._path("cpu", group)
            if limits.cpu_request and cpu.is_dir():
                (cpu / "cpu.shares").write_text(str(max(2, limits.cpu_request * 1024 // 1000)))
            if limits.cpu and (cpu / "cpu.cfs_quota_us").exists():
                (cpu / "cpu.cfs_quota_us").write_text(str(max(1000, limits.cpu * _PERIOD // 1000)))

    def join(self, group: str) -> list[str]:
        """Return the control files of the group in each tree."""
        return [str(self._path(controller, group) / "cgroup.procs") for controller in self._controllers]

    def open(self, group: str, numbers: Iterable[tuple[int, int]]) -> None:
        """Let the group open exactly these devices beside the plain ones. Raises `HostUnfit`."""
        if self._path("devices", group).is_dir():
            with _wrapped(group):
                self._set_devices(group, [*PLAIN, *numbers])

    def out_of_memory(self, group: str) -> bool:
        """Say whether the kernel killed something in the group for want of memory."""
        return _count(self._path("memory", group) / "memory.oom_control", "oom_kill") > 0

    def remove(self, group: str) -> None:
        """Kill what is left in the group and remove it from each tree."""
        _kill(self._path("pids", group) / "cgroup.procs")
        for controller in self._controllers:
            _remove(self._path(controller, group))

    def names(self) -> list[str]:
        """Return the groups there are."""
        found = set[str]()
        for controller in self._controllers:
            found |= _folders(self._root / controller / self._name)
        return sorted(found)

    def close(self) -> None:
        """Remove the platform's own group."""
        for controller in self._controllers:
            with contextlib.suppress(OSError):
                (self._root / controller / self._name).rmdir()

    def _set_devices(self, group: str, wanted: Iterable[Number]) -> None:
        folder = self._path("devices", group)
        gone, new = devicefilter.changes((folder / "devices.list").read_text(), wanted)
        for rule in gone:
            (folder / "devices.deny").write_text("a" if rule.startswith("a") else rule)
        for rule in new:
            (folder / "devices.allow").write_text(rule)

    def _path(self, controller: str, group: str) -> Path:
        return self._root / controller / self._name / group


class Unified:
    """Version 2: one tree; controllers where they are enabled, devices by eBPF."""

    devices = True
    reason = ""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        self._root = root
        self._top = root / name

    def create(self, group: str, limits: Limits) -> None:
        """Make the group. Raises `HostUnfit`."""
        path = self._top / group
        with _wrapped(group):
            self._top.mkdir(exist_ok=True)
            for parent in (self._root, self._top):
                self._delegate(parent)
            path.mkdir(exist_ok=True)
            for file, value in (
                ("pids.max", str(limits.processes)),
                ("memory.max", str(limits.memory) if limits.memory else "max"),
                ("memory.swap.max", "0" if limits.memory else "max"),
                ("cpu.max", f"{max(1000, limits.cpu * _PERIOD // 1000)} {_PERIOD}" if limits.cpu else "max"),
                ("cpu.weight", str(min(10_000, max(1, limits.cpu_request // 10))) if limits.cpu_request else "100"),
            ):
                if (path / file).exists():
                    (path / file).write_text(value)
        bpf.replace_device_filter(path, devicefilter.program(PLAIN))

    def join(self, group: str) -> list[str]:
        """Return the group's control file."""
        return [str(self._top / group / "cgroup.procs")]

    def open(self, group: str, numbers: Iterable[tuple[int, int]]) -> None:
        """Let the group open exactly these devices beside the plain ones. Raises `HostUnfit`."""
        path = self._top / group
        if path.is_dir():
            bpf.replace_device_filter(path, devicefilter.program([*PLAIN, *numbers]))

    def out_of_memory(self, group: str) -> bool:
        """Say whether the kernel killed something in the group for want of memory."""
        return _count(self._top / group / "memory.events", "oom_kill") > 0

    def remove(self, group: str) -> None:
        """Kill what is left in the group and remove it."""
        with contextlib.suppress(OSError):
            (self._top / group / "cgroup.kill").write_text("1")
        _remove(self._top / group)

    def names(self) -> list[str]:
        """Return the groups there are."""
        return sorted(_folders(self._top))

    def close(self) -> None:
        """Remove the platform's own group."""
        with contextlib.suppress(OSError):
            self._top.rmdir()

    def _delegate(self, parent: Path) -> None:
        offered = set((parent / "cgroup.controllers").read_text().split())
        enabled = set((parent / "cgroup.subtree_control").read_text().split())
        for controller in sorted((offered & {"cpu", "memory", "pids"}) - enabled):
            # Where somebody else rules the tree (systemd) a controller may be refused: its limit is then missing.
            with contextlib.suppress(OSError):
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")


@contextlib.contextmanager
def _wrapped(group: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostUnfit(f"control group {group}: {error.strerror}") from error


def _count(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        return 0
    return 0


def _folders(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir() if entry.is_dir()} if path.is_dir() else set()


def _kill(file: Path) -> None:
    with contextlib.suppress(OSError):
        for line in file.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line), signal.SIGKILL)


def _remove(path: Path) -> None:
    """Remove a group; processes that were just killed may take a moment to leave it."""
    for _ in range(_TRIES):
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
