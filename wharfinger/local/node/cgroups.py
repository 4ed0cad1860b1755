"""Control groups: which devices a pod may open, how much memory and how many processes it may have.

Version 1 controllers, as hybrid hosts have them: one group per pod below a group of the state directory's own. Needs
root; where it cannot be had, `Cgroups.available` is False and devices are kept apart by mounts alone. A pod starts with
the plain devices (null, zero, full, random, urandom, tty, ptmx) and nothing else; `allow` and `deny` change what `open`
may do at once, also for processes that run already (cgroup-v1/devices.rst).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from wharfinger.core.errors import HostUnfit

ROOT: Final = Path("/sys/fs/cgroup")
CONTROLLERS: Final = ("devices", "memory", "pids")
_PLAIN: Final = ("c 1:3 rw", "c 1:5 rw", "c 1:7 rw", "c 1:8 r", "c 1:9 r", "c 5:0 rw", "c 5:2 rw", "c 136:* rw")


class Cgroups:
    """The groups of one node process; `name` keeps platforms on one machine apart."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        self._name = name
        self._root = root
        self.available = os.geteuid() == 0 and all((root / c / "cgroup.procs").exists() for c in CONTROLLERS)

    def create(self, pod: str, *, memory: int = 0, processes: int = 512) -> list[str]:
        """Make the groups of `pod`; return the files that a process writes 0 to in order to join.

        `memory` is bytes, 0 for no limit. Raises `HostUnfit`.
        """
        if not self.available:
            return []
        try:
            for controller in CONTROLLERS:
                self._group(controller, pod).mkdir(parents=True, exist_ok=True)
            devices = self._group("devices", pod)
            (devices / "devices.deny").write_text("a")
            for rule in _PLAIN:
                (devices / "devices.allow").write_text(rule)
            (self._group("pids", pod) / "pids.max").write_text(str(processes))
            if memory:
                (self._group("memory", pod) / "memory.limit_in_bytes").write_text(str(memory))
        except OSError as error:
            raise HostUnfit(f"control group of pod {pod}: {error.strerror}") from error
        return [str(self._group(controller, pod) / "cgroup.procs") for controller in CONTROLLERS]

    def allow(self, pod: str, numbers: Iterable[tuple[int, int]]) -> None:
        """Let `pod` open the character devices with these major and minor numbers. Raises `HostUnfit`."""
        self._rule(pod, "devices.allow", numbers)

    def deny(self, pod: str, numbers: Iterable[tuple[int, int]]) -> None:
        """Keep `pod` from opening these devices from now on. A pod that is gone has none. Raises `HostUnfit`."""
        with contextlib.suppress(FileNotFoundError):
            self._rule(pod, "devices.deny", numbers)

    def remove(self, pod: str) -> None:
        """Kill what is left in the pod's groups and remove them."""
        if not self.available:
            return
        self.kill(pod)
        for controller in CONTROLLERS:
            for _ in range(50):
                try:
                    self._group(controller, pod).rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)

    def kill(self, pod: str) -> None:
        """Kill every process of the pod."""
        with contextlib.suppress(OSError):
            for line in (self._group("pids", pod) / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line), signal.SIGKILL)

    def left_over(self) -> list[str]:
        """Return the pods that have groups here: those of a node that died."""
        folder = self._root / "pids" / self._name
        return [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []

    def close(self) -> None:
        """Remove the node's own groups, once the pods' are gone."""
        for controller in CONTROLLERS:
            with contextlib.suppress(OSError):
                (self._root / controller / self._name).rmdir()

    def _group(self, controller: str, pod: str) -> Path:
        return self._root / controller / self._name / pod

    def _rule(self, pod: str, file: str, numbers: Iterable[tuple[int, int]]) -> None:
        if not self.available:
            return
        for major, minor in numbers:
            try:
                (self._group("devices", pod) / file).write_text(f"c {major}:{minor} rw")
            except FileNotFoundError:
                raise
            except OSError as error:
                raise HostUnfit(f"devices of pod {pod}: {error.strerror}") from error
