"""The tail of a log: its newest entries, those that fill no bundle yet, each batch on disk before anything follows.

A file `tail-FIRST` of records `length crc32 batch`; FIRST is the index of its first entry, a multiple of a bundle's
width. A record cut short by a crash was never part of the log and is dropped; a damaged one before others is `Corrupt`.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wharfinger.core import failpoint
from wharfinger.core.errors import Corrupt, Malformed
from wharfinger.supply.disk import replace_file, sync_folder, unfit, write_all
from wharfinger.supply.tlog.tiles import WIDTH, Tile, encode_entries, split_all_entries

_APPENDED_BEFORE, _APPENDED_AFTER = failpoint.declare("log.append")
_TURNED_BEFORE, _TURNED_AFTER = failpoint.declare("log.turn")
_HEAD: Final = struct.Struct(">II")
_NAME: Final = re.compile(r"tail-([0-9]{12})", re.ASCII)


class Tail:
    """The tail of the log in `directory`; one process, one thread at a time.

    `first` is the index of its first entry, `entries` are all of them. Raises `HostUnfit` or `Corrupt`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            found = sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))
            if not found:
                # A new log, or one restored from a backup that was taken while one tail followed another.
                self._start(_full_bundles(directory) * WIDTH, [])
                return
            # A tail is begun before the one that it follows is removed: the newest is whole.
            for old in found[:-1]:
                old.unlink()
            self.first = int(found[-1].name[5:])
            self._path = found[-1]
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            self.entries, self._size = _recover(self._path, self._path.read_bytes())
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        except OSError as error:
            raise unfit("log", error) from error
        if self.first % WIDTH or len(self.entries) > WIDTH:
            raise Corrupt(f"log: {self._path.name} is not where a bundle begins, or longer than one")

    @property
    def room(self) -> int:
        """How many entries fill the bundle."""
        return WIDTH - len(self.entries)

    def append(self, batch: Sequence[bytes]) -> None:
        """Add `batch`, no more than there is room for; on disk when this returns.

        Raises `HostUnfit`: then nothing of it counts.
        """
        body = encode_entries(batch)
        data = _HEAD.pack(len(body), zlib.crc32(body)) + body
        failpoint.reached(_APPENDED_BEFORE)
        try:
            write_all(self._descriptor, data)
            os.fdatasync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise unfit("log", error) from error
        failpoint.reached(_APPENDED_AFTER)
        self._size += len(data)
        self.entries.extend(batch)

    def turn(self) -> None:
        """Begin the tail after the bundle that this one filled, whose tiles are on disk. Raises `HostUnfit`."""
        old, descriptor = self._path, self._descriptor
        failpoint.reached(_TURNED_BEFORE)
        try:
            self._start(self.first + len(self.entries), [])
            os.close(descriptor)
            old.unlink()
            sync_folder(self._directory)
        except OSError as error:
            raise unfit("log", error) from error
        failpoint.reached(_TURNED_AFTER)

    def close(self) -> None:
        """Close the file; again does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _start(self, first: int, entries: list[bytes]) -> None:
        path = self._directory / f"tail-{first:012}"
        replace_file(path, b"")
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._path, self.first, self.entries, self._size = path, first, entries, 0


def _full_bundles(directory: Path) -> int:
    """Return how many full bundles of entries there are, without a gap from the first."""
    count = 0
    while (directory / Tile(None, count).path).is_file():
        count += 1
    return count


def _recover(path: Path, data: bytes) -> tuple[list[bytes], int]:
    """Return the entries in the whole records of `data`, and the bytes that those are."""
    entries: list[bytes] = []
    at = 0
    while len(data) - at >= _HEAD.size:
        length, checksum = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        body = data[at + _HEAD.size : end]
        if len(body) < length:
            break
        if zlib.crc32(body) != checksum:
            if end == len(data):
                break
            raise Corrupt(f"log: {path.name} is damaged at byte {at}")
        try:
            entries.extend(split_all_entries(body))
        except Malformed as error:
            raise Corrupt(f"log: {path.name} is damaged at byte {at}") from error
        at = end
    return entries, at
