"""What the kernel says about the process at the other end of a Unix socket: nothing that the process says itself.

The peer is held by a pidfd taken from the socket, so that its pid cannot become another process's between being read
and being judged: facts count only while the pidfd's process still runs after they were gathered.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wharfinger.core.errors import Conflict, Denied

_SO_PEERPIDFD: Final = 77
_MOST_ANCESTORS: Final = 64
_CREDENTIALS: Final = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so about a process: its pid namespace by inode, its ancestors as (pid, start in ticks), nearest first."""

    pid: int
    pidns: int
    ancestors: tuple[tuple[int, int], ...]


class Process:
    """A process, held by a descriptor that is closed with `close`: its pid means nobody else while `runs`."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd

    @classmethod
    def open(cls, pid: int) -> Process:
        """Return the process that has `pid` now. Raises `Denied` when there is none."""
        try:
            return cls(pid, os.pidfd_open(pid))
        except (OSError, ValueError, OverflowError) as error:
            raise Denied(f"process {pid} is not there") from error

    @classmethod
    def peer(cls, connection: socket.socket) -> Process:
        """Return the process that made a `connection` over a Unix socket. Raises `Denied` when it cannot be told."""
        try:
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid = _CREDENTIALS.unpack(told)[0]
        except OSError as error:
            raise Denied(f"the peer cannot be told: {error.strerror}") from error
        if pid <= 0:
            raise Denied("the peer is in a pid namespace that cannot be seen from here")
        try:
            return cls(pid, int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4), "little"))
        except OSError:
            # Kernels before 6.5 have no such option. A pid that was reused since `connect` is then told from its
            # first owner by nothing; what is registered is held by a pidfd of its own, which narrows it to that race.
            return cls.open(pid)

    def runs(self) -> bool:
        """Say whether the process still runs: one that has exited, reaped or not, proves nothing any more."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def facts(self, *, descent: bool = True) -> Facts:
        """Return what is so about the process; its ancestors only where its `descent` matters.

        Raises `Denied` when it cannot be told, or the process is gone.
        """
        try:
            pidns = Path(f"/proc/{self.pid}/ns/pid").stat().st_ino
            ancestors = tuple(_ancestors(self.pid)) if descent else ()
        except (OSError, ValueError, IndexError) as error:
            raise Denied(f"process {self.pid} cannot be told") from error
        if not self.runs():
            raise Denied(f"process {self.pid} is gone")
        return Facts(self.pid, pidns, ancestors)

    def started(self) -> int:
        """Return when the process started, in ticks since boot. Raises `Denied` when it is gone."""
        try:
            ticks = _stat(self.pid)[1]
        except (OSError, ValueError, IndexError) as error:
            raise Denied(f"process {self.pid} is not there") from error
        if not self.runs():
            raise Denied(f"process {self.pid} is gone")
        return ticks

    def close(self) -> None:
        """Close the descriptor."""
        with contextlib.suppress(OSError):
            os.close(self._pidfd)


def own_pidns() -> int:
    """Return the inode of this process's own pid namespace."""
    return Path("/proc/self/ns/pid").stat().st_ino


def hold_namespace(pid: int, pidns: int) -> int:
    """Return a descriptor that keeps the pid namespace `pidns` of `pid` or its children from ending.

    While it is held the inode names no other namespace: the kernel gives freed numbers away at once. Raises `Conflict`
    when neither `pid` nor a child of it is in that namespace.
    """
    for path in _namespaces(pid):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(descriptor).st_ino == pidns:
                return descriptor
            os.close(descriptor)
    raise Conflict(f"process {pid} has no processes in pid namespace {pidns}")


def _namespaces(pid: int) -> list[str]:
    children: list[str] = []
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    own = (f"/proc/{pid}/ns/pid", f"/proc/{pid}/ns/pid_for_children")
    return [*own, *(f"/proc/{child}/ns/pid" for child in children)]


def _ancestors(pid: int) -> list[tuple[int, int]]:
    """Return parent, grandparent, ... of `pid`; raises what `_stat` raises when one is gone meanwhile."""
    found: list[tuple[int, int]] = []
    parent = _stat(pid)[0]
    while parent > 0 and len(found) < _MOST_ANCESTORS:
        above, ticks = _stat(parent)
        found.append((parent, ticks))
        parent = above
    return found


def _stat(pid: int) -> tuple[int, int]:
    """Return parent and start of a process: fields 4 and 22 of `/proc/PID/stat`, whose second may hold anything."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[1]), int(fields[19])
