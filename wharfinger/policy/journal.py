"""The journal: each process's own append-only segments of decisions and token accounts (design D5).

`append` returns when the record is on disk. Records that arrive while a write is under way share the
next one (group commit). Inputs of decisions are kept once, by content address, in the same segments.

A segment is a file of lines `crc32 json`, the checksum in 8 hex digits over the JSON's bytes. A line cut
short by a crash was never acknowledged: it is dropped when the journal is opened again. A damaged line
anywhere else is `Corrupt`: evidence is not read past a hole.
"""

from __future__ import annotations

import contextlib
import os
import queue
import stat
import threading
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Final

from wharfinger.core import failpoint
from wharfinger.core.document import Json, canonical, parse_json
from wharfinger.core.errors import Corrupt, HostUnfit, Malformed, NotFound, TooLarge, WharfingerError
from wharfinger.policy.decision import Decision, address

SEGMENT_BYTES: Final = 64 * 1024 * 1024
LONGEST_LINE: Final = 16 * 1024 * 1024
"""Bytes of one record or input."""
POD_PREFIX: Final = "pod-"
"""How the name of a journal begins that a pod writes; the pod's uid follows."""
RUNTIME: Final = "runtime"
"""The part as which a model's runtime decides, in its pod's journal."""
_BEFORE, _AFTER = failpoint.declare("journal.commit")
_Entry = tuple[bytes, "Future[None] | None"]


class Journal:
    """The journal of one process in one directory; threads share it.

    Raises `HostUnfit` when the directory cannot be written, `Corrupt` when a stored line is damaged.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._known: set[str] = set()
        self._known_lock = threading.Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._number, self._size = self._recover()
            self._file = self._open(self._number)
        except OSError as error:
            raise HostUnfit(
                f"journal {directory.name}: {error.strerror}", hint="free space or fix permissions"
            ) from error
        self._thread = threading.Thread(target=self._write_batches, name=f"journal-{directory.name}", daemon=True)
        self._thread.start()

    def submit(self, record: Mapping[str, Json], inputs: Mapping[str, Json] | None = None) -> Future[None]:
        """Queue `record`, and those of `inputs` not kept yet; the future is done when all is on disk.

        The future raises `HostUnfit` when it could not be written; then nothing of it counts as written.
        """
        lines: list[bytes] = []
        fresh: list[str] = []
        for value in (inputs or {}).values():
            digest = address(value)
            with self._known_lock:
                if digest in self._known:
                    continue
                self._known.add(digest)
            fresh.append(digest)
            lines.append(_line({"kind": "input", "digest": digest, "value": value}))
        lines.append(_line(record))
        done: Future[None] = Future()
        if fresh:
            done.add_done_callback(lambda future: self._forget(fresh) if future.exception() else None)
        self._queue.put((b"".join(lines), done))
        return done

    def append(self, record: Mapping[str, Json], inputs: Mapping[str, Json] | None = None) -> None:
        """Write `record` and its `inputs`; return when they are on disk. Raises `HostUnfit`."""
        self.submit(record, inputs).result()

    def decide(self, decision: Decision, inputs: Mapping[str, Json]) -> None:
        """Write `decision`, whose `inputs` are given by value; return when it is on disk. Raises `HostUnfit`."""
        self.append(decision.record(), inputs)

    def close(self) -> None:
        """Write what is queued and stop."""
        self._queue.put(None)
        self._thread.join()
        self._file.close()

    def _forget(self, digests: list[str]) -> None:
        with self._known_lock:
            self._known.difference_update(digests)

    def _recover(self) -> tuple[int, int]:
        numbers = _segments(self._directory)
        if not numbers:
            return 1, 0
        for number in numbers:
            path = _segment(self._directory, number)
            good = 0
            for size, record in _lines(path, last=number == numbers[-1]):
                good += size
                if record.get("kind") == "input":
                    self._known.add(str(record.get("digest")))
            if number == numbers[-1] and good < path.stat().st_size:
                os.truncate(path, good)
        return numbers[-1], good

    def _open(self, number: int) -> _Append:
        file = _Append(_segment(self._directory, number))
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return file

    def _write_batches(self) -> None:
        while True:
            entry = self._queue.get()
            batch: list[_Entry] = []
            while entry is not None:
                batch.append(entry)
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._write(batch)
            if entry is None:
                return

    def _write(self, batch: list[_Entry]) -> None:
        data = b"".join(lines for lines, _ in batch)
        try:
            if self._size and self._size + len(data) > self._segment_bytes:
                self._file.close()
                self._number, self._size = self._number + 1, 0
                self._file = self._open(self._number)
            failpoint.reached(_BEFORE)
            self._file.append(data)
            failpoint.reached(_AFTER)
            self._size += len(data)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.cut(self._size)
            problem = HostUnfit(f"journal {self._directory.name}: {error.strerror}", hint="free space on the disk")
            for _, done in batch:
                if done is not None:
                    done.set_exception(problem)
            return
        for _, done in batch:
            if done is not None and done.set_running_or_notify_cancel():
                done.set_result(None)


class _Append:
    """An append-only file whose `append` returns when the bytes are on disk."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fdatasync(self._descriptor)

    def cut(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        os.close(self._descriptor)


def read(directory: Path) -> Iterator[dict[str, Json]]:
    """Yield every record of a journal in order; safe beside the process that writes it.

    A last line that is not whole yet is left out. Raises `Corrupt` for any other damage.
    """
    numbers = _segments(directory)
    for number in numbers:
        for _, record in _lines(_segment(directory, number), last=number == numbers[-1]):
            yield record


def journals(directory: Path) -> list[Path]:
    """Return the journals below `directory`, one per process: those of the platform's parts, then those of pods.

    A pod writes its journal itself, so what it says comes after what the platform says, and cannot stand for it.
    """
    found = (path for path in directory.iterdir() if path.is_dir() and not path.is_symlink())
    return sorted(found, key=lambda path: (is_pods(path), path.name))


def is_pods(journal: Path) -> bool:
    """Say whether a pod writes this journal, rather than a part of the platform."""
    return journal.name.startswith(POD_PREFIX)


def find(directory: Path, decision: str) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return the record of a decision and its inputs by name, from the journals below `directory`; see `locate`."""
    _, record, inputs = locate(directory, decision)
    return record, inputs


def locate(directory: Path, decision: str) -> tuple[str, dict[str, Json], dict[str, Json]]:
    """Return the name of the journal that holds a decision, its record, and its inputs by name.

    A pod's journal is believed for decisions of a runtime alone; one that is damaged is passed over. Raises `NotFound`,
    or `Corrupt` when a part's journal is damaged, an input is missing or is not what its address says.
    """
    for journal in journals(directory):
        values: dict[str, Json] = {}
        found: dict[str, Json] | None = None
        try:
            for record in read(journal):
                if record.get("kind") == "input":
                    values[str(record.get("digest"))] = record.get("value")
                elif record.get("kind") == "decision" and record.get("id") == decision:
                    found = record
        except Corrupt:
            if is_pods(journal):
                continue
            raise
        if found is None or (is_pods(journal) and found.get("part") != RUNTIME):
            continue
        inputs: dict[str, Json] = {}
        for name, digest in found["inputs"].items():
            if digest not in values or address(values[digest]) != digest:
                raise Corrupt(f"decision {decision}: input {name} is not what {digest} names")
            inputs[name] = values[digest]
        return journal.name, found, inputs
    raise NotFound(f"no decision {decision}", hint="wharf get decisions lists them")


def _line(record: Mapping[str, Json]) -> bytes:
    body = canonical(dict(record))
    if len(body) > LONGEST_LINE - 10:
        raise TooLarge(f"expected a record of at most {LONGEST_LINE} bytes, got {len(body)}")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _segments(directory: Path) -> list[int]:
    """A pod writes its journal itself: what is no file there (a pipe, a link) is no segment."""
    found = (path for path in directory.glob("*.log") if path.stem.isdigit())
    return sorted(int(path.stem) for path in found if path.is_file() and not path.is_symlink())


def _segment(directory: Path, number: int) -> Path:
    return directory / f"{number:08}.log"


def opened(segment: Path) -> IO[bytes]:
    """Return a segment, open to be read. Raises `Corrupt` for what is no file, or cannot be read.

    Whoever writes a pod's journal may put anything in its place at any time: no link is followed, no pipe waited for.
    """
    try:
        descriptor = os.open(segment, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Corrupt(f"journal {segment.parent.name}/{segment.name}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Corrupt(f"journal {segment.parent.name}/{segment.name}: expected a file")
    return os.fdopen(descriptor, "rb")


def _lines(path: Path, *, last: bool) -> Iterator[tuple[int, dict[str, Json]]]:
    with opened(path) as lines:
        index = 0
        while line := lines.readline(LONGEST_LINE + 1):
            index += 1
            if not line.endswith(b"\n") and last and len(line) <= LONGEST_LINE:
                return
            body = line[9:-1]
            try:
                whole = int(line[:8], 16) == zlib.crc32(body) and line[8:9] == b" "
                record = parse_json(body, limit=LONGEST_LINE) if whole else None
            except (ValueError, Malformed, WharfingerError):
                record = None
            if not isinstance(record, dict):
                raise Corrupt(f"journal {path.parent.name}/{path.name}: line {index} is damaged")
            yield len(line), record
