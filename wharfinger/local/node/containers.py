"""Containers as processes: started by a launcher that keeps them, found again by a node that is started anew.

A container's folder says all there is to know of it: `state.json` (its launcher's pid with what makes that unambiguous,
its first process), `exit.json` once it has ended, `N.log` of its N-th attempt. The node may die and come back in
between; nothing but the folder and the processes themselves is needed to go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wharfinger.core.clock import Instant
from wharfinger.core.errors import HostUnfit, Unavailable
from wharfinger.local.node import launcher
from wharfinger.local.node.sandbox import Plan

LAUNCHER: Final = Path(launcher.__file__)
LOST: Final = 137
"""Exit status of a container whose launcher was killed before it could tell: as by SIGKILL."""
_START_WITHIN: Final = 30.0
_PATIENCE: Final = 2.0
_SWEEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended.

    `known` is False when nobody was left to tell, `begun` when its command never ran; `orphaned` says that it was ended
    because the platform had ended.
    """

    code: int
    at: Instant
    known: bool = True
    begun: bool = True
    orphaned: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A container's processes: the launcher's pid and start (in the kernel's ticks), the first process inside and the
    inode of its pid namespace, both as the host sees them.
    """

    attempt: int
    pid: int
    ticks: int
    boot: str
    first: int
    pidns: int
    started: Instant


class Container:
    """One container that was started, here or by a node before this one; `running` says which processes it is."""

    def __init__(self, folder: Path, running: Running, pidfd: int, process: subprocess.Popen[bytes] | None) -> None:
        self.folder = folder
        self.running = running
        self._pidfd = pidfd
        self._process = process
        self._over = threading.Event()
        self._held = threading.Lock()
        """Held while the descriptor is used: once closed, its number may be another container's."""

    def watch(self, ended: Callable[[Container, Ended], None]) -> None:
        """Call `ended` once, in a thread of its own, when every process of the container is gone."""

        def wait() -> None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll()
            code = self._process.wait() if self._process is not None else None
            self._over.set()
            ended(self, exit_of(self.folder, self.running.attempt) or _unknown(code))

        threading.Thread(target=wait, name=f"container-{self.running.pid}", daemon=True).start()

    def terminate(self) -> None:
        """Ask the command to end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End every process of the container now; its launcher follows when the log is whole."""
        self._send(launcher.KILL_NOW)

    def destroy(self) -> None:
        """End the container even when its launcher does not answer; returns when it is gone."""
        self.kill()
        if not self._gone():
            self._send(signal.SIGKILL)
            self._gone()

    def close(self) -> None:
        """Forget the container, which has ended."""
        if self._over.wait(_PATIENCE):
            with self._held:
                os.close(self._pidfd)
                self._pidfd = -1

    def _send(self, number: int) -> None:
        with self._held, contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)

    def _gone(self) -> bool:
        with self._held:
            return self._pidfd < 0 or _gone(self._pidfd, _PATIENCE)


def start(plan: Plan, guardian: int, introduce: Callable[[Running], None]) -> Container:
    """Start the container of `plan`; its command runs once `introduce` has returned.

    `guardian` is a pidfd of the process whose end is the container's. Raises `HostUnfit` when the launcher cannot be
    started, `Unavailable` with its last words when the sandbox could not be built, and what `introduce` raises.
    """
    folder = Path(plan.folder)
    for stale in ("state.json", "exit.json"):
        (folder / stale).unlink(missing_ok=True)
    ours, theirs = socket.socketpair()
    ours.settimeout(_START_WITHIN)
    try:
        process = _launch("run", plan, theirs.fileno(), guardian)
    finally:
        theirs.close()
    pidfd = os.pidfd_open(process.pid)
    running = None
    try:
        told = _told(ours)
        introduce(told)
        ours.sendall(b"go")
        running = told
    except OSError:
        running = None
    finally:
        ours.close()
        if running is None:
            _end(pidfd, process)
    if running is None:
        words = last_line(folder / f"{plan.attempt}.log") or "the launcher did not answer"
        raise Unavailable(words.removeprefix("error: "))
    return Container(folder, running, pidfd, process)


def adopt(folder: Path) -> Container | None:
    """Return the container in `folder` that an earlier node started, when it still runs; None otherwise."""
    running = state_of(folder)
    if running is None or running.boot != _boot() or exit_of(folder, running.attempt) is not None:
        return None
    try:
        pidfd = os.pidfd_open(running.pid)
    except OSError:
        return None
    if _ticks(running.pid) != running.ticks or _gone(pidfd, 0):
        os.close(pidfd)
        return None
    return Container(folder, running, pidfd, None)


def run_inside(plan: Plan, running: Running, command: Sequence[str], timeout: float) -> tuple[int, str]:
    """Run `command` inside a running container; return its exit status and the end of what it said.

    124 when it took longer than `timeout` seconds, as of timeout(1).
    """
    inside = {**plan.document(), "command": list(command), "first": running.first}
    try:
        process = _launch("enter", inside)
    except HostUnfit as error:
        return launcher.BROKEN, error.message
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return 124, f"took longer than {timeout:g} s"
    return launcher.status_of(_wait_status(process.returncode)), said[-1024:].decode("utf-8", "replace").strip()


def sweep(uid: str, container: str) -> None:
    """End what a container left that was not isolated and whose launcher was killed: whoever has its environment.

    Where there are namespaces nothing is left; here a process that changed its environment is not found.
    """
    marks = {f"WHARF_POD_UID={uid}".encode(), f"WHARF_CONTAINER={container}".encode()}
    for _ in range(_SWEEPS):
        left = False
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if marks <= set((entry / "environ").read_bytes().split(b"\0")):
                    os.kill(int(entry.name), signal.SIGKILL)
                    left = True
        if not left:
            return


def state_of(folder: Path) -> Running | None:
    """Return what the launcher last recorded of the container in `folder`."""
    told = _document(folder / "state.json")
    try:
        return Running(**{name: told[name] for name in Running.__slots__}) if told else None
    except KeyError:
        return None


def exit_of(folder: Path, attempt: int) -> Ended | None:
    """Return how that attempt ended; None when it runs, or when nobody was left to tell."""
    told = _document(folder / "exit.json")
    if told is None or told.get("attempt") != attempt:
        return None
    begun = told.get("begun") is not False
    return Ended(int(told["code"]), int(told["finished"]), begun=begun, orphaned=bool(told.get("orphaned")))


def last_line(log: Path) -> str:
    """Return the last line of a log, without its time; empty when there is none."""
    try:
        with log.open("rb") as text:
            text.seek(max(0, log.stat().st_size - 4096))
            lines = text.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].split(" ", 3)[-1][:500] if lines else ""


def _launch(mode: str, plan: Plan | Mapping[str, Any], *rest: int) -> subprocess.Popen[bytes]:
    document = plan.document() if isinstance(plan, Plan) else dict(plan)
    where = str(document["folder"])
    reading, writing = os.pipe()
    output = subprocess.PIPE if mode == "enter" else subprocess.DEVNULL
    passed = [number for number in rest if number >= 0]
    try:
        process = subprocess.Popen(
            # The folder is for who looks at the machine's processes: it says whose each one is.
            [sys.executable, "-I", "-S", str(LAUNCHER), mode, str(reading), *map(str, passed), where],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if mode == "enter" else output,
            pass_fds=[reading, *passed], env={}, cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        os.close(writing)
        raise HostUnfit(f"a container cannot be started: {error.strerror}") from error
    finally:
        os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(json.dumps(document).encode())
    return process


def _told(node: socket.socket) -> Running:
    """Return what the launcher says of its container; raises `OSError` when it ends or is silent instead."""
    data = b""
    while not data.endswith(b"\n"):
        more = node.recv(4096)
        if not more:
            raise ConnectionAbortedError("the launcher ended")
        data += more
    told = json.loads(data)
    return Running(**{name: told[name] for name in Running.__slots__})


def _end(pidfd: int, process: subprocess.Popen[bytes]) -> None:
    """End a launcher whose container never ran; it has a moment to write why."""
    if not _gone(pidfd, _PATIENCE):
        process.kill()
    process.wait()
    os.close(pidfd)


def _gone(pidfd: int, patience: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(int(patience * 1000)))


def _unknown(code: int | None) -> Ended:
    if code is None or code < 0:
        return Ended(LOST, time.time_ns(), known=False)
    return Ended(code, time.time_ns())


def _wait_status(returncode: int) -> int:
    return returncode << 8 if returncode >= 0 else -returncode


def _document(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _ticks(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
