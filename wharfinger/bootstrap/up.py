"""The supervisor: starts the platform's processes in order, keeps them running, stops them together.

It holds the state directory's lock, tells the issuer which process is which part (over an inherited socket, with
a pidfd, so that no other process can claim to be one), and writes what runs to `run/supervisor.json`. A part that
dies is started again with growing pauses; a supervisor that dies takes every part with it (the parts ask the kernel
for that), so nothing is orphaned by any death.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from wharfinger.bootstrap import state as states
from wharfinger.bootstrap.part import AWAY
from wharfinger.bootstrap.state import State
from wharfinger.core.clock import SECOND, Span, rfc3339
from wharfinger.core.errors import Conflict, HostUnfit, Unavailable, WharfingerError
from wharfinger.core.systemclock import SystemClock

ORDER: Final = (("issuer",), ("api",), ("registry", "node", "control"), ("gateway", "console"))
"""Parts in the waves they start in; a wave starts when the one before it is ready."""

_MODULES: Final = {"console": "wharfinger.console"}
"""The parts whose process is not wired here: the console stands above this room."""
READY_WITHIN: Span = 60 * SECOND
_STOP_WITHIN: Span = 10 * SECOND
_BACKOFF: Final = (0.1, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class _Running:
    """One part's process and what the supervisor remembers of it."""

    name: str
    process: subprocess.Popen[bytes]
    ready_pipe: int
    started: Span
    ready: bool = False
    restarts: int = 0
    again_at: Span | None = None


@dataclass(slots=True)
class Supervisor:
    """Runs the parts on one state directory. `say` gets a line of progress per event."""

    state: State
    trust_domain: str
    ports: Mapping[str, int]
    say: Callable[[str], None]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    waves: tuple[tuple[str, ...], ...] = ORDER
    on_issuer: Callable[[], object] | None = None
    _running: dict[str, _Running] = field(default_factory=dict)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _clock: SystemClock = field(default_factory=SystemClock)
    _channel: socket.socket | None = None
    _stopping: bool = False

    def start(self) -> None:
        """Start every wave and wait for each to be ready.

        A part that is killed on the way, or finds another away, is started again. Raises `Unavailable`, with the end of
        its log, when one ends for a reason of its own or does not become ready in a minute.
        """
        for wave in self.waves:
            for name in wave:
                self._start(name)
            self._await(wave)
            if "issuer" in wave and self.on_issuer is not None:
                self._tell_admin(self.on_issuer)
        self._write_record()

    def watch(self) -> None:
        """Keep the parts running until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_soon)
        while not self._stopping:
            self._turn(0.25)

    def stop(self) -> None:
        """Stop every part, the last started first; kill what does not stop in ten seconds."""
        self._stopping = True
        for wave in reversed(self.waves):
            running = [self._running[name] for name in wave if name in self._running]
            for part in running:
                if part.process.poll() is None:
                    part.process.terminate()
            deadline = self._clock.monotonic() + _STOP_WITHIN
            for part in running:
                left = max(0.0, (deadline - self._clock.monotonic()) / SECOND)
                try:
                    part.process.wait(left)
                except subprocess.TimeoutExpired:
                    self.say(f"{part.name} does not stop: killed")
                    part.process.kill()
                    part.process.wait()
        with contextlib.suppress(FileNotFoundError):
            self.state.record.unlink()

    def _stop_soon(self, *_: object) -> None:
        self._stopping = True

    def _start(self, name: str, restarts: int = 0) -> None:
        reading, writing = os.pipe()
        environment = {**self.environment, "WHARF_READY_FD": str(writing), "WHARF_SUPERVISOR": str(os.getpid())}
        passed = [writing]
        theirs: socket.socket | None = None
        if name == "issuer":
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            environment["WHARF_PARTS_FD"] = str(theirs.fileno())
            passed.append(theirs.fileno())
        command = [
            sys.executable, "-m", _MODULES.get(name, f"wharfinger.bootstrap.{name}"),
            "--state-dir", str(self.state.root), "--trust-domain", self.trust_domain,
        ]  # fmt: skip
        with (self.state.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=passed
            )
        os.close(writing)
        if theirs is not None:
            theirs.close()
        os.set_blocking(reading, False)
        part = _Running(name, process, reading, self._clock.monotonic(), restarts=restarts)
        self._running[name] = part
        self._selector.register(reading, selectors.EVENT_READ, part)
        if name == "issuer":
            for other in self._running.values():
                self._introduce(other)
            self._introduce_self()
        else:
            self._introduce(part)

    def _introduce(self, part: _Running) -> None:
        """Tell the issuer that the process is the part; its pidfd makes the pid unambiguous."""
        if part.name != "issuer" and part.process.poll() is None:
            self._tell_issuer(part.name, part.process.pid)

    def _introduce_self(self) -> None:
        self._tell_issuer("admin", os.getpid())

    def _tell_issuer(self, name: str, pid: int) -> None:
        if self._channel is None:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        try:
            message = json.dumps({"part": name, "pid": pid}).encode()
            rights = array.array("i", [descriptor])
            self._channel.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError:
            self.say(f"the issuer cannot be told of {name}")
        finally:
            os.close(descriptor)

    def _await(self, wave: tuple[str, ...]) -> None:
        deadline = self._clock.monotonic() + READY_WITHIN
        while not all(self._running[name].ready for name in wave):
            if self._stopping:
                raise Unavailable("stopped while starting")
            late = self._clock.monotonic() > deadline
            for name in wave:
                part = self._running[name]
                code = part.process.poll()
                failed = code is not None and code >= 0 and code != AWAY
                if not part.ready and (late or failed):
                    how = "is not ready after a minute" if late else f"exited with {code}"
                    raise Unavailable(f"{name} {how}: {self._last_words(name)}", hint=f"wharf logs --part {name}")
            self._turn(0.05)

    def _tell_admin(self, tell: Callable[[], object]) -> None:
        """Do what follows the issuer's start; once more when the issuer died over it."""
        deadline = self._clock.monotonic() + READY_WITHIN
        while True:
            try:
                tell()
                return
            except Unavailable:
                if self._clock.monotonic() > deadline:
                    raise
                self._turn(0.05)
                self._await(("issuer",))

    def _turn(self, wait: float) -> None:
        changed = False
        for key, _ in self._selector.select(wait):
            part: _Running = key.data
            got = os.read(part.ready_pipe, 1)
            self._selector.unregister(part.ready_pipe)
            os.close(part.ready_pipe)
            part.ready_pipe = -1
            if got:
                part.ready = changed = True
                self.say(f"{part.name} ready")
        now = self._clock.monotonic()
        for part in list(self._running.values()):
            changed |= self._tend(part, now)
        if changed:
            self._write_record()

    def _tend(self, part: _Running, now: Span) -> bool:
        """Start a dead part again when its pause is over; return whether anything changed."""
        if part.process.poll() is None:
            return False
        if part.again_at is None:
            lived = now - part.started
            part.restarts = 0 if lived > 60 * SECOND else part.restarts + 1
            pause = _BACKOFF[min(part.restarts, len(_BACKOFF) - 1)]
            part.again_at, part.ready = now + int(pause * SECOND), False
            self.say(f"{part.name} exited with {part.process.returncode}; starts again in {pause} s")
            return True
        if now >= part.again_at:
            if part.ready_pipe >= 0:
                self._selector.unregister(part.ready_pipe)
                os.close(part.ready_pipe)
            self._start(part.name, part.restarts)
            return True
        return False

    def _last_words(self, name: str) -> str:
        with contextlib.suppress(OSError):
            lines = (self.state.logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
            return " / ".join(line[:300] for line in lines[-2:])
        return "it left no log"

    def _write_record(self) -> None:
        record = {
            "pid": os.getpid(),
            "stateDir": str(self.state.root),
            "trustDomain": self.trust_domain,
            "writtenAt": rfc3339(self._clock.now()),
            "parts": {
                part.name: {
                    "pid": part.process.pid,
                    "ready": part.ready,
                    "restarts": part.restarts,
                    "endpoint": f"https://127.0.0.1:{self.ports[part.name]}",
                    "log": str(self.state.logs / f"{part.name}.log"),
                }
                for part in self._running.values()
            },
        }
        states.write_file(self.state.record, json.dumps(record, indent=1).encode())


def run(
    root: Path,
    *,
    trust_domain: str,
    fleet: Path | None,
    ports: Mapping[str, int],
    say: Callable[[str], None],
    started: Callable[[State], None],
) -> None:
    """Run the platform on the state directory `root` in the foreground until a signal says stop.

    Raises what `state.prepare`, `state.lock` and `Supervisor.start` raise; then nothing is left running.
    """
    from wharfinger.bootstrap import admin

    state = states.prepare(root)
    descriptor = states.lock(state)
    try:
        admin.keep_fleet(state, fleet)
        chosen = states.ports(state, ports)
        environment = {name: value for name, value in os.environ.items() if name != "WHARF_UP_FD"}
        supervisor = Supervisor(state, trust_domain, chosen, say, environment)
        supervisor.on_issuer = lambda: admin.write_kubeconfig(state, trust_domain, chosen)
        try:
            supervisor.start()
            started(state)
            supervisor.watch()
        finally:
            supervisor.stop()
    finally:
        os.close(descriptor)


def detach(root: Path, arguments: list[str]) -> None:
    """Start the supervisor in a session of its own and wait until the platform is ready.

    Raises `Unavailable` with the end of its log when it ends before that, `Conflict` when one runs already.
    """
    state = states.prepare(root)
    if states.is_locked(state):
        raise Conflict(f"a platform is already running on {state.root}", hint="wharf status shows it")
    reading, writing = os.pipe()
    log_path = state.logs / "up.log"
    with log_path.open("ab") as log:
        before = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "wharfinger.bootstrap.up", "--state-dir", str(state.root), *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[writing],
            env={**os.environ, "WHARF_UP_FD": str(writing)},
        )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        if pipe.read(1) == b"1":
            return
    process.wait()
    with log_path.open("rb") as log:
        log.seek(before)
        words = log.read().decode(errors="replace").strip()
    raise Unavailable(words.removeprefix("error: ") or f"the supervisor exited with {process.returncode}")


def stop(root: Path, within: Span = 30 * SECOND) -> bool:
    """Stop the platform on `root`; return False when none runs.

    Raises `HostUnfit` when it is still there after `within`.
    """
    state = State(root.absolute())
    states.check_version(state)
    if not states.is_locked(state):
        return False
    pid = states.read_record(state).get("pid")
    if not isinstance(pid, int):
        raise HostUnfit(f"a platform is starting on {state.root}", hint="try again when it is up")
    clock = SystemClock()
    waited: list[int] = []
    with contextlib.ExitStack() as opened:
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            opened.callback(os.close, process)
            signal.pidfd_send_signal(process, signal.SIGTERM)
            waited.append(process)
        deadline = clock.monotonic() + within
        while states.is_locked(state):
            if clock.monotonic() > deadline:
                raise HostUnfit(f"supervisor {pid} does not stop", hint=f"see {state.logs}")
            time.sleep(0.05)
        # The lock goes a moment before its holder: who is told that the platform stopped finds no process of it.
        if waited:
            select.select(waited, [], [], _STOP_WITHIN / SECOND)
    return True


def main(arguments: list[str] | None = None) -> None:
    """Run the supervisor for `wharf up --detach`."""
    parser = argparse.ArgumentParser(prog="wharfinger up")
    parser.add_argument("--state-dir", required=True, type=Path)
    parser.add_argument("--trust-domain", default="wharfinger.local")
    parser.add_argument("--fleet", type=Path)
    parser.add_argument("--port", action="append", default=[])
    told = parser.parse_args(arguments)

    def started(_: State) -> None:
        descriptor = os.environ.pop("WHARF_UP_FD", "")
        if descriptor:
            os.write(int(descriptor), b"1")
            os.close(int(descriptor))

    def say(line: str, stream: IO[str] = sys.stderr) -> None:
        print(line, file=stream, flush=True)

    try:
        run(
            told.state_dir,
            trust_domain=told.trust_domain,
            fleet=told.fleet,
            ports=dict(map(states.parse_port, told.port)),
            say=say,
            started=started,
        )
    except WharfingerError as error:
        say(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
        sys.exit(2)


if __name__ == "__main__":
    main()
