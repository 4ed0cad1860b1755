"""A platform of a test's own: started on a temporary directory, killed at will, and what is left of it afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Platform:
    """A platform on `directory`; commands are retried while a part of it is away."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.environment = {**os.environ, "WHARF_STATE_DIR": str(directory), "NO_COLOR": "1", **(environment or {})}
        self.environment.pop("KUBECONFIG", None)

    def wharf(self, *words: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command once."""
        command = [sys.executable, "-m", "wharfinger.cli.main", *words]
        try:
            return subprocess.run(
                command, input=stdin, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"{words} took longer than {timeout} s")

    def until(self, *words: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Run a command until it succeeds; return its stdout. A part that is away is no reason to give up."""
        deadline = time.monotonic() + seconds
        while True:
            done = self.wharf(*words, stdin=stdin)
            if done.returncode == 0:
                return done.stdout
            if time.monotonic() > deadline:
                raise AssertionError(f"wharf {' '.join(words)}: {done.stderr[-600:]}")
            time.sleep(0.3)

    def up(self, attempts: int = 60) -> None:
        """Start it; one that dies on the way (a failpoint) is started again on the same state."""
        for _ in range(attempts):
            done = self.wharf("up", "--detach", timeout=90)
            if done.returncode == 0 or "already running" in done.stderr:
                return
        raise AssertionError(f"it does not come up: {done.stderr[-600:]}")

    def down(self) -> None:
        """Stop it."""
        self.wharf("down", timeout=60)

    def pids(self) -> dict[str, int]:
        """Return the process of each part, and of the supervisor."""
        try:
            record = json.loads((self.directory / "run" / "supervisor.json").read_text())
        except (OSError, ValueError):
            return {}
        return {"supervisor": record["pid"], **{name: part["pid"] for name, part in record["parts"].items()}}

    def processes(self) -> dict[int, str]:
        """Return every process on this machine that belongs to the platform: its parts, launchers and pods."""
        mark = str(self.directory).encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                with contextlib.suppress(OSError):
                    command = (folder / "cmdline").read_bytes()
                    if mark in command or mark in (folder / "environ").read_bytes():
                        found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    def records(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the records of a kind in every journal."""
        from wharfinger.policy.journal import read

        for part in sorted((self.directory / "evidence").iterdir()):
            if part.is_dir():
                yield from (r for r in read(part) if r.get("kind") == kind)

    def kill(self, part: str) -> bool:
        """Kill a part as kill -9 does; say whether it was there."""
        pid = self.pids().get(part)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True
