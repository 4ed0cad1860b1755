"""Containers as processes: started by the launcher, watched to their end, gone with the node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wharfinger.core.errors import HostUnfit
from wharfinger.local.node.sandbox import Plan

LAUNCHER: Final = Path(__file__).parent / "launcher.py"
LOG_BYTES: Final = 16 * 1024 * 1024


class Container:
    """One running container."""

    def __init__(self, process: subprocess.Popen[bytes], node_end: int, log: Path) -> None:
        self._process = process
        self._node_end = node_end
        self.log = log
        self.exit_code: int | None = None

    @property
    def pid(self) -> int:
        """The launcher's pid."""
        return self._process.pid

    def first_pid(self) -> int | None:
        """Return the host's pid of the first process inside, None while there is none.

        The launcher's child waits in this pid namespace; its child is process 1 of the container's.
        """
        found = self.pid
        for _ in range(2):
            try:
                children = Path(f"/proc/{found}/task/{found}/children").read_text().split()
            except OSError:
                return None
            if not children:
                return None
            found = int(children[0])
        return found

    def terminate(self) -> None:
        """Ask the container to end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the container and everything in it."""
        if self._node_end >= 0:
            os.close(self._node_end)
            self._node_end = -1

    def wait(self) -> int:
        """Wait for the end; return the exit status as the launcher tells it."""
        self.exit_code = self._process.wait()
        self.kill()
        if self.exit_code < 0:
            self.exit_code = 128 - self.exit_code
        return self.exit_code

    def trim_log(self) -> None:
        """Keep the newest part of a log that has grown too long; the writer appends, so it goes on at the end."""
        try:
            if self.log.stat().st_size <= LOG_BYTES:
                return
            with self.log.open("rb") as source:
                source.seek(-LOG_BYTES // 2, os.SEEK_END)
                tail = source.read()
            with self.log.open("r+b") as target:
                target.truncate(0)
                target.write(tail[tail.find(b"\n") + 1 :])
        except OSError:
            return


def start(plan: Plan, ended: Callable[[Container, int], None]) -> Container:
    """Start the container of `plan`; `ended` is called, in a thread, with its exit status.

    Raises `HostUnfit` when the launcher cannot be started.
    """
    plan_read, plan_write = os.pipe()
    node_read, node_write = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", str(LAUNCHER), str(plan_read), str(node_read)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[plan_read, node_read], env={}, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        os.close(plan_write)
        os.close(node_write)
        raise HostUnfit(f"a container cannot be started: {error.strerror}") from error
    finally:
        os.close(plan_read)
        os.close(node_read)
    with os.fdopen(plan_write, "wb") as pipe:
        pipe.write(json.dumps(plan.document()).encode())
    container = Container(process, node_write, Path(plan.log))

    def watch() -> None:
        ended(container, container.wait())

    threading.Thread(target=watch, name=f"container-{process.pid}", daemon=True).start()
    return container


def can_isolate() -> bool:
    """Say whether this host lets this user make the namespaces that isolate a pod, by making some."""
    code = (
        "import ctypes,os,sys\nl=ctypes.CDLL(None)\n"
        "r=l.unshare(0x20000|0x8000000|0x4000000|0x20000000) if os.geteuid()==0 else l.unshare(0x10000000)\n"
        "r=r or (l.unshare(0x20000|0x20000000) if os.geteuid() else l.unshare(0x10000000))\nsys.exit(r!=0)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], check=False, capture_output=True)
    return done.returncode == 0
