"""Pods' logs as `kubectl logs` reads them: which lines, in which form, and those that are still to come.

A log on disk is lines of the Container Runtime Interface, `TIME stdout F|P LINE`, in at most two files; what a caller
sees is the lines alone, or with their times. A line in parts (P) is put together again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from wharfinger.core.clock import SECOND, Instant, parse_rfc3339
from wharfinger.core.errors import Malformed, excerpt

_LOOK_EVERY: Final = 0.1
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """What of a log is asked for: PodLogOptions of core/v1. `tail` and `limit` (bytes) are None for all of it."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: Instant = 0
    tail: int | None = None
    limit: int | None = None


def options_of(query: Mapping[str, str], now: Instant) -> Options:
    """Return what the parameters of a request ask for. Raises `Malformed`."""
    if query.get("sinceSeconds") and query.get("sinceTime"):
        raise Malformed("expected at most one of sinceTime or sinceSeconds")
    since = 0
    if query.get("sinceTime"):
        since = parse_rfc3339(query["sinceTime"])
    elif query.get("sinceSeconds"):
        since = now - (_number(query, "sinceSeconds") or 0) * SECOND
    return Options(
        container=query.get("container", ""),
        follow=_flag(query, "follow"),
        previous=_flag(query, "previous"),
        timestamps=_flag(query, "timestamps"),
        since=since,
        tail=_number(query, "tailLines"),
        limit=_number(query, "limitBytes"),
    )


class Shown:
    """What of a log's lines a caller sees, in pieces."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._left = options.limit
        self._inside = False

    @property
    def over(self) -> bool:
        """Whether the caller has had as many bytes as asked for."""
        return self._left is not None and self._left <= 0

    def of(self, lines: Iterator[bytes]) -> bytes:
        """Return what a caller sees of whole lines of the file."""
        made = []
        for line in lines:
            moment, _, rest = line.partition(b" ")
            _, _, rest = rest.partition(b" ")
            tag, _, text = rest.partition(b" ")
            if not text or not self._is_asked_for(moment):
                continue
            if self._options.timestamps and not self._inside:
                made.append(moment + b" ")
            made.append(text if tag == b"F" else text[:-1])
            self._inside = tag == b"P"
        data = b"".join(made)
        if self._left is not None:
            data = data[: max(0, self._left)]
            self._left -= len(data)
        return data

    def _is_asked_for(self, moment: bytes) -> bool:
        if not self._options.since:
            return True
        try:
            return parse_rfc3339(moment.decode("ascii")) >= self._options.since
        except (Malformed, UnicodeDecodeError):
            return False


async def read(path: Path, options: Options, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield the log at `path` as the caller sees it; when it follows, until `ended` says that it is whole."""
    shown = Shown(options)
    with contextlib.ExitStack() as held:
        file = held.enter_context(_opened(path))
        lines = _lines(path, file) if options.tail is None else iter(_last(_lines(path, file), options.tail))
        for piece in _gathered(lines):
            if data := shown.of(iter(piece)):
                yield data
            if shown.over:
                return
        while options.follow and not shown.over:
            over = ended()
            piece = file.readlines(_CHUNK)
            if piece and not piece[-1].endswith(b"\n"):
                file.seek(-len(piece.pop()), os.SEEK_CUR)
            if data := shown.of(iter(piece)):
                yield data
            if not piece:
                if _is_another(path, file):
                    file = held.enter_context(_opened(path))
                    continue
                if over:
                    return
                await asyncio.sleep(_LOOK_EVERY)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return open(os.devnull, "rb")


def _is_another(path: Path, file: IO[bytes]) -> bool:
    """Say whether the log was rotated: the file at `path` is not the one that is read."""
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """Yield the whole lines of the rotated file, then of `file`, which is left after the last of them."""
    with contextlib.suppress(FileNotFoundError), path.with_name(f"{path.name}.1").open("rb") as older:
        yield from older
    for line in iter(file.readline, b""):
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def _last(lines: Iterator[bytes], count: int) -> list[bytes]:
    """Return the last `count` lines; one in parts counts once."""
    kept: list[list[bytes]] = []
    inside = False
    for line in lines:
        if inside:
            kept[-1].append(line)
        else:
            kept.append([line])
        inside = line.split(b" ", 3)[2:3] == [b"P"]
        if len(kept) > count + 1024:
            del kept[: len(kept) - count]
    return [part for parts in kept[len(kept) - count if count < len(kept) else 0 :] for part in parts] if count else []


def _gathered(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Yield lines in pieces of some size."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _flag(query: Mapping[str, str], name: str) -> bool:
    told = query.get(name, "false").lower()
    if told not in ("", "0", "1", "true", "false"):
        raise Malformed(f"{name}: expected true or false, got {excerpt(told)}")
    return told in ("", "1", "true")


def _number(query: Mapping[str, str], name: str) -> int | None:
    told = query.get(name)
    if told is None or told == "":
        return None
    if not (told.isascii() and told.isdigit() and len(told) < 16):
        raise Malformed(f"{name}: expected a number from 0, got {excerpt(told)}")
    return int(told)
