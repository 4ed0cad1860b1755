"""Hardware: the devices of this machine's nodes, reached through a process that may hang or die.

A vendor's library runs in the caller's process, blocks in the kernel and crashes with it. So every question goes to a
process of its own (`python -m wharfinger.gpu.hardware`), has a time limit, and its answer is checked: what contradicts
itself is refused. `Hardware` is the port through which a node's device door prepares and releases devices.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from wharfinger.core import failpoint
from wharfinger.core.errors import Conflict, Corrupt, HostUnfit, NotFound, Unavailable, WharfingerError, excerpt
from wharfinger.gpu.census import checked
from wharfinger.gpu.devices import Device, DeviceNode

TIMEOUT: Final = 30.0
"""Seconds that a vendor's library may take for one question; cutting a slice on hardware takes about one."""
COMMAND: Final = (sys.executable, "-P", "-m", "wharfinger.gpu.hardware")
_BEFORE_CUT, _AFTER_CUT = failpoint.declare("silicon.prepare")
_BEFORE_RELEASE, _AFTER_RELEASE = failpoint.declare("silicon.release")
_MOST_BYTES: Final = 16 * 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1
_ERRORS: Final[Mapping[str, type[WharfingerError]]] = {
    error.code: error for error in (Conflict, Corrupt, HostUnfit, NotFound)
}  # fmt: skip


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked: to find every device, or to prepare or release the one called `name`.

    `root` is the root directory of the node, `declared` the folder of a declared one, None for real hardware.
    """

    verb: Literal["find", "prepare", "release"]
    root: str
    declared: str | None = None
    name: str = ""


class Answer(msgspec.Struct):
    """What came of it: devices (of `prepare` the one), the node's device files, or an error of our family."""

    devices: list[Device] = []
    files: list[DeviceNode] = []
    error: str = ""
    message: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node's hardware is: its root directory, and the folder of a declared node."""

    root: Path
    declared: Path | None = None


def ask(question: Question, *, command: Sequence[str] = COMMAND, timeout: float = TIMEOUT) -> Answer:
    """Return the answer of a process of its own.

    Raises `Unavailable` when it takes longer than `timeout` seconds, crashes or answers with something else, and
    `NotFound`, `Conflict`, `HostUnfit`, `Corrupt` as the driver does.
    """
    what = f"the vendor's library ({question.verb}{' ' + question.name if question.name else ''})"
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise Unavailable(f"{what}: {error.strerror}") from error
    try:
        out, told = process.communicate(msgspec.json.encode(question), timeout=timeout)
    except subprocess.TimeoutExpired as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # One that hangs in the kernel does not even die: it is left to whoever ends this process.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        raise Unavailable(
            f"{what} did not answer within {timeout:g} s", hint="nvidia-smi shows whether the driver hangs"
        ) from error
    if process.returncode < 0:
        raise Unavailable(f"{what} crashed ({signal.Signals(-process.returncode).name})")
    if process.returncode:
        last = told.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise Unavailable(f"{what} failed: {excerpt(last)}")
    try:
        answer = msgspec.json.decode(out[:_MOST_BYTES], type=Answer)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"{what}: expected devices, got {excerpt(out[:80].decode('utf-8', 'replace'))}") from error
    if answer.error:
        raise _ERRORS.get(answer.error, Unavailable)(answer.message, hint=answer.hint)
    return answer


@dataclass(slots=True)
class Hardware:
    """The devices of one machine's nodes. Threads share it; one question at a time is asked of the hardware.

    Implements the device door's port `Silicon`. `found` has what was found at the start, by node.
    """

    places: Mapping[str, Place]
    command: Sequence[str] = COMMAND
    timeout: float = TIMEOUT
    found: dict[str, tuple[Device, ...]] = field(init=False, default_factory=dict)
    files: dict[str, tuple[DeviceNode, ...]] = field(init=False, default_factory=dict)
    _ready: dict[tuple[str, str], Device] = field(init=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def find(self) -> None:
        """Find every device of every node. Raises as `ask` does, and `Corrupt` for what contradicts itself."""
        for node in sorted(self.places):
            answer = self._ask(node, "find")
            self.found[node] = checked(node, answer.devices)
            self.files[node] = tuple(answer.files)

    def prepare(self, name: tuple[str, str, str]) -> Device:
        """Return the device (driver, pool, device) with all its nodes, cut first when it is a slice.

        Raises `NotFound` for one that is not here, and what `ask` raises.
        """
        _, node, device = name
        if node not in self.places or device not in {found.name for found in self.found.get(node, ())}:
            raise NotFound(f"there is no device {excerpt('/'.join(name))} here")
        with self._lock:
            ready = self._ready.get((node, device))
            if ready is None:
                failpoint.reached(_BEFORE_CUT)
                told = self._ask(node, "prepare", device).devices
                failpoint.reached(_AFTER_CUT)
                if [one.name for one in told] != [device] or not told[0].nodes:
                    raise Corrupt(f"device {device} of {node}: expected it with its device nodes, got something else")
                ready = self._ready[node, device] = self._as_found(node, told[0])
            return ready

    def release(self, name: tuple[str, str, str]) -> None:
        """Let a device go that nobody uses any more: a slice is destroyed. One that is not here is none's concern.

        Raises what `ask` raises; a slice that stays is destroyed when another needs its place.
        """
        _, node, device = name
        held = next((found for found in self.found.get(node, ()) if found.name == device), None)
        if held is None:
            return
        with self._lock:
            self._ready.pop((node, device), None)
            if held.partition is not None:
                failpoint.reached(_BEFORE_RELEASE)
                self._ask(node, "release", device)
                failpoint.reached(_AFTER_RELEASE)

    def prepared(self, node: str) -> list[Device]:
        """Return the devices of a node that are prepared now."""
        with self._lock:
            return [device for (where, _), device in self._ready.items() if where == node]

    def _as_found(self, node: str, told: Device) -> Device:
        """Return a prepared device if it is the one that was found. Raises `Corrupt`: silicon does not change."""
        before = next(found for found in self.found[node] if found.name == told.name)
        if (before.uuid, before.gpu, before.memory) != (told.uuid, told.gpu, told.memory):
            raise Corrupt(f"device {told.name} of {node}: expected {before.uuid}, got {excerpt(told.uuid)}")
        overlapping = [key for key, other in self._ready.items() if key[0] == node and _overlap(other, told)]
        for key in overlapping:
            del self._ready[key]
        return told

    def _ask(self, node: str, verb: Literal["find", "prepare", "release"], name: str = "") -> Answer:
        place = self.places[node]
        question = Question(verb, str(place.root), str(place.declared) if place.declared else None, name)
        return ask(question, command=self.command, timeout=self.timeout)


def _overlap(one: Device, other: Device) -> bool:
    a, b = one.partition, other.partition
    if a is None or b is None or a.parent_uuid != b.parent_uuid:
        return False
    return a.start < b.start + b.size and b.start < a.start + a.size


def answer(question: Question) -> Answer:
    """Answer in this process."""
    from wharfinger.gpu.nvidia import Driver

    library: Any
    if question.declared is None:
        import pynvml

        library = pynvml
    else:
        from wharfinger.gpu.declared import Library

        library = Library(Path(question.declared))
    driver = Driver(library, Path(question.root))
    with driver.opened():
        if question.verb == "find":
            return Answer(devices=driver.devices(), files=driver.files())
        if question.verb == "prepare":
            return Answer(devices=[driver.prepare(question.name)])
        driver.release(question.name)
    return Answer()


def main() -> None:
    """Answer the question on stdin. The process dies with whoever asks."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        made = answer(msgspec.json.decode(sys.stdin.buffer.read(), type=Question))
    except WharfingerError as error:
        made = Answer(error=error.code, message=error.message, hint=error.hint)
    sys.stdout.buffer.write(msgspec.json.encode(made))


if __name__ == "__main__":
    main()
