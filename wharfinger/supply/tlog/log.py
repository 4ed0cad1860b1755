"""The transparency log's writer: entries in, durable proofs out (C2SP tlog-tiles).

A batch of entries goes this way, and a crash at any point is followed by the same log:

1. The batch is on disk in the tail; from here on it is part of the tree, whatever happens.
2. Whoever holds the log's key signs the new checkpoint, if the tree grew out of the last one that they signed.
3. The tiles are written, full ones durably, then the checkpoint: what it says can be read.
4. The callers have their proofs.

Between 1 and 4 there is never more than one batch, so that the signer's last checkpoint is always this log's stored
one or the one that it asks for next. Only after both were restored from a backup may the signer's be an earlier one:
opening asks for it. A log that is behind what the signer signed, or beside it, does not open.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from wharfinger.core import failpoint
from wharfinger.core.clock import MINUTE, SECOND, Clock
from wharfinger.core.errors import (
    Conflict,
    Corrupt,
    Denied,
    HostUnfit,
    Malformed,
    NotFound,
    TooLarge,
    Unverified,
    WharfingerError,
)
from wharfinger.supply.bundle import Bundle, InclusionProof
from wharfinger.supply.disk import replace_file, sync_folder, unfit
from wharfinger.supply.tlog.checkpoint import Checkpoint, open_checkpoint
from wharfinger.supply.tlog.entry import SignatureEntry
from wharfinger.supply.tlog.merkle import EMPTY_ROOT, leaf_hash
from wharfinger.supply.tlog.note import VerifierKey
from wharfinger.supply.tlog.tail import Tail
from wharfinger.supply.tlog.tiles import (
    HEIGHT,
    LONGEST_ENTRY,
    WIDTH,
    Tile,
    encode_entries,
    split_entries,
    split_hashes,
)
from wharfinger.supply.tlog.tree import Tree

Sign: TypeAlias = Callable[[str, int, bytes, Sequence[bytes]], str]
"""`sign(origin, size, root, proof)`: the signed note of a checkpoint that follows the last one signed.

`proof` shows that it does. The same checkpoint again gives its note again. Raises `Conflict` or `Denied` when it does
not follow, `Unavailable` when nobody answers.
"""
CHECKPOINT: Final = "checkpoint"
MOST_CLOCK_STEP: Final = 5 * MINUTE
"""How far the clock may go back before the log takes nothing more: an entry's time is evidence."""
_MOST_TILES: Final = 256
_TILES_BEFORE, _TILES_AFTER = failpoint.declare("log.tiles")
_PUBLISHED_BEFORE, _PUBLISHED_AFTER = failpoint.declare("log.checkpoint")


@dataclass(frozen=True, slots=True)
class _Published:
    """One state that readers see: the signed note, and what its tree has beyond full tiles (level None: entries)."""

    note: bytes
    checkpoint: Checkpoint
    rows: Mapping[int | None, Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An entry on its way, the bundle that it is of, and whom to tell."""

    entry: SignatureEntry
    bundle: Bundle
    done: Future[Bundle]


class Log:
    """The log in `directory`, signed under `key`, whose name is the log's origin; one process, many threads.

    `last` gives the note that the signer signed last, empty where there is none; `remembered` is a checkpoint that
    somebody kept elsewhere. Opening raises `Unverified` for a log that was rolled back or forked, `Corrupt` for one
    whose files contradict each other, `HostUnfit`, and what `sign` raises.
    """

    def __init__(
        self,
        directory: Path,
        key: VerifierKey,
        sign: Sign,
        clock: Clock,
        *,
        last: Callable[[], str] = str,
        remembered: Checkpoint | None = None,
    ) -> None:
        self.key = key
        self.origin = key.name
        self._directory = directory
        self._sign = sign
        self._clock = clock
        self._fresh: dict[str, list[bytes]] = {}
        self._read: dict[Tile, list[bytes]] = {}
        self._refused: WharfingerError | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise unfit("log", error) from error
        self._tail = Tail(directory)
        self._published = self._stored()
        self._tree = Tree.resumed(self._tail.first, self._hashes)
        self._full = self._tree.extend(leaf_hash(entry) for entry in self._tail.entries)
        self._fresh.update({tile.path: row for tile, row in self._full})
        self._seconds = self._last_seconds()
        note = last()
        signed = open_checkpoint(note.encode(), self.origin, [self.key]) if note else self._published.checkpoint
        self._check_stored(stored=self._published.checkpoint, signed=signed, remembered=remembered)
        self._base = signed.size
        self._publish(opening=True)
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def size(self) -> int:
        """How many entries the published checkpoint has."""
        return self._published.checkpoint.size

    def why_not_ready(self) -> str | None:
        """Return why the log takes nothing more, None when it does."""
        return None if self._refused is None else str(self._refused)

    def append(self, bundle: Bundle) -> Bundle:
        """Return `bundle` with its entry in this log; the entry is on disk. Raises as `submit`."""
        return self.submit(bundle).result()

    def submit(self, bundle: Bundle) -> Future[Bundle]:
        """As `append`, without waiting.

        Raises `Malformed` or `Unverified` for a bundle whose signature does not hold, `TooLarge` for one whose entry
        does not fit; the future raises `HostUnfit` when the entry could not be stored, `Unavailable` when the
        checkpoint could not be signed (then the entry may be in the log all the same), `Unverified` when it was
        refused.
        """
        entry = SignatureEntry.of(bundle, self._clock.now())
        if len(entry.encode()) > LONGEST_ENTRY:
            raise TooLarge(f"expected a log entry of at most {LONGEST_ENTRY} bytes, got {len(entry.encode())}")
        done: Future[Bundle] = Future()
        self._queue.put(_Waiting(entry, bundle, done))
        return done

    def read(self, path: str) -> bytes:
        """Return the bytes at `path`: `checkpoint`, or a tile of the published tree (C2SP tlog-tiles).

        Raises `NotFound` for a tile that the published tree does not have, `Malformed` for no path of a tile.
        """
        published = self._published
        if path == CHECKPOINT:
            return published.note
        tile = Tile.parse(path)
        size = published.checkpoint.size
        available = (size >> (HEIGHT * (tile.level or 0))) - tile.index * WIDTH
        if tile.width > available:
            raise NotFound(f"the log of {size} entries has no {path}")
        if available < WIDTH:
            row = published.rows[tile.level][: tile.width]
            return encode_entries(row) if tile.level is None else b"".join(row)
        try:
            return self._cut(tile)
        except OSError as error:
            raise unfit(f"log {path}", error) from error

    def close(self) -> None:
        """Append what is queued and stop."""
        self._queue.put(None)
        self._thread.join()
        self._tail.close()

    def _run(self) -> None:
        left: list[_Waiting] = []
        ended = False
        while left or not ended:
            if not left:
                ended = not self._take(self._queue.get(), left)
            with contextlib.suppress(queue.Empty):
                while len(left) < WIDTH and not ended:
                    ended = not self._take(self._queue.get_nowait(), left)
            if left:
                left = self._append(left)

    @staticmethod
    def _take(waiting: _Waiting | None, left: list[_Waiting]) -> bool:
        """Add what was queued to `left`, unless its caller has gone; say whether more may come."""
        if waiting is not None and waiting.done.set_running_or_notify_cancel():
            left.append(waiting)
        return waiting is not None

    def _append(self, waiting: list[_Waiting]) -> list[_Waiting]:
        """Append as many of `waiting` as fill a bundle; return the others."""
        batch = waiting
        try:
            if self._refused is not None:
                raise self._refused
            self._publish()
            batch = waiting[: self._tail.room]
            seconds = self._now()
            entries = [replace(each.entry, seconds=seconds) for each in batch]
            bodies = [entry.encode() for entry in entries]
            first = self._tree.size
            # (1)
            self._tail.append(bodies)
            self._seconds = seconds
            self._full = self._tree.extend(map(leaf_hash, bodies))
            self._fresh.update({tile.path: row for tile, row in self._full})
            proofs = [self._tree.inclusion(first + number) for number in range(len(batch))]
            # (2), (3)
            self._publish()
        except WharfingerError as error:
            for each in batch:
                each.done.set_exception(error)
            return waiting[len(batch) :]
        # (4)
        now = self._published
        size, root, note = now.checkpoint.size, now.checkpoint.root, now.note.decode()
        for number, each in enumerate(batch):
            proof = InclusionProof(first + number, size, root, tuple(proofs[number]), note)
            logged = entries[number].logged(self.key.digest, proof)
            each.done.set_result(replace(each.bundle, entries=(*each.bundle.entries, logged)))
        return waiting[len(batch) :]

    def _now(self) -> int:
        """Return the second of the next entries, never before that of the last. Raises `HostUnfit`."""
        now = self._clock.now()
        if now + MOST_CLOCK_STEP < self._seconds * SECOND:
            raise HostUnfit(
                f"the clock is {self._seconds - now // SECOND} s behind the log's last entry", hint="set the clock"
            )
        return max(now // SECOND, self._seconds)

    def _publish(self, *, opening: bool = False) -> None:
        """Have the tree as it is signed and readable; nothing to do where it is.

        When the log is `opening` the signer is asked in any case: it knows when the log is behind.
        """
        try:
            if opening or self._tree.size != self._published.checkpoint.size:
                checkpoint = Checkpoint(self.origin, self._tree.size, self._tree.root())
                note = self._signed(checkpoint).encode()
                self._write_tiles()
                failpoint.reached(_PUBLISHED_BEFORE)
                replace_file(self._directory / CHECKPOINT, note)
                failpoint.reached(_PUBLISHED_AFTER)
                rows: dict[int | None, Sequence[bytes]] = {None: tuple(self._tail.entries)}
                rows.update(enumerate(map(tuple, self._tree.edge)))
                self._published, self._base = _Published(note, checkpoint, rows), checkpoint.size
            if self._tail.room == 0:
                self._tail.turn()
                for tile, _ in self._full:
                    self._forget_partial(tile)
                self._full = []
                self._fresh.clear()
        except OSError as error:
            raise unfit("log", error) from error

    def _signed(self, checkpoint: Checkpoint) -> str:
        proof = self._tree.consistency(self._base) if 0 < self._base < checkpoint.size else []
        try:
            note = self._sign(self.origin, checkpoint.size, checkpoint.root, proof)
        except (Conflict, Denied) as error:
            self._refused = Unverified(
                f"log {self.origin}: its checkpoint of {checkpoint.size} entries does not follow what was signed "
                f"before: {error}",
                hint="the log's files were rolled back or changed: restore log and issuer from one backup",
            )
            raise self._refused from error
        told = open_checkpoint(note.encode(), self.origin, [self.key])
        if (told.size, told.root) != (checkpoint.size, checkpoint.root):
            raise Unverified(f"log {self.origin}: expected the checkpoint that was asked for, got another")
        return note

    def _write_tiles(self) -> None:
        """Write what is new: full tiles durably; the others are made anew when the log is opened."""
        failpoint.reached(_TILES_BEFORE)
        if self._tail.room == 0:
            bundle = Tile(None, self._tail.first // WIDTH)
            self._write_tile(bundle, encode_entries(self._tail.entries), sync=True)
        elif self._tail.entries:
            bundle = Tile(None, self._tail.first // WIDTH, len(self._tail.entries))
            self._write_tile(bundle, encode_entries(self._tail.entries), sync=False)
        for tile, row in self._full:
            self._write_tile(tile, b"".join(row), sync=True)
        for tile, row in self._tree.partial():
            self._write_tile(tile, b"".join(row), sync=False)
        failpoint.reached(_TILES_AFTER)

    def _write_tile(self, tile: Tile, data: bytes, *, sync: bool) -> None:
        path = self._directory / tile.path
        missing = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)
        replace_file(path, data, sync=sync)
        if tile.width < WIDTH:
            # Static servers need the newest partial tile; a client with an older checkpoint reads a prefix of it here.
            for other in path.parent.iterdir():
                if other != path:
                    other.unlink()

    def _forget_partial(self, tile: Tile) -> None:
        paths = [tile.path] if tile.level else [tile.path, Tile(None, tile.index).path]
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._directory / f"{path}.p")

    def _cut(self, tile: Tile) -> bytes:
        """Return the first `tile.width` of a full tile."""
        whole = Tile(tile.level, tile.index)
        data = (self._directory / whole.path).read_bytes()
        if tile.width == WIDTH:
            return data
        if tile.level is None:
            return encode_entries(split_entries(data, whole)[: tile.width])
        return b"".join(split_hashes(data, whole)[: tile.width])

    def _hashes(self, tile: Tile) -> list[bytes]:
        """Return the hashes of a full tile."""
        fresh = self._fresh.get(tile.path)
        if fresh is not None:
            return fresh
        known = self._read.get(tile)
        if known is None:
            try:
                known = split_hashes((self._directory / tile.path).read_bytes(), tile)
            except (OSError, Malformed) as error:
                raise Corrupt(f"log: {tile.path} cannot be read: {error}") from error
            if len(self._read) >= _MOST_TILES:
                self._read.clear()
            self._read[tile] = known
        return known

    def _stored(self) -> _Published:
        try:
            note = (self._directory / CHECKPOINT).read_bytes()
        except FileNotFoundError:
            return _Published(b"", Checkpoint(self.origin, 0, EMPTY_ROOT), {})
        except OSError as error:
            raise unfit("log", error) from error
        return _Published(note, open_checkpoint(note, self.origin, [self.key]), {})

    def _last_seconds(self) -> int:
        if self._tail.entries:
            return SignatureEntry.parse(self._tail.entries[-1]).seconds
        if self._tail.first == 0:
            return 0
        tile = Tile(None, self._tail.first // WIDTH - 1)
        try:
            return SignatureEntry.parse(split_entries((self._directory / tile.path).read_bytes(), tile)[-1]).seconds
        except (OSError, Malformed) as error:
            raise Corrupt(f"log: {tile.path} cannot be read: {error}") from error

    def _check_stored(self, **known: Checkpoint | None) -> None:
        """Check the tree against every checkpoint that is `known`, by who knows it."""
        for what, checkpoint in known.items():
            if checkpoint is None:
                continue
            if checkpoint.size > self._tree.size:
                raise Unverified(
                    f"log {self.origin}: it has {self._tree.size} entries, its {what} checkpoint {checkpoint.size}",
                    hint="the log was rolled back: restore log and issuer from one backup",
                )
            if self._tree.root(checkpoint.size) != checkpoint.root:
                raise Unverified(
                    f"log {self.origin}: its entries are not those of its {what} checkpoint",
                    hint="the log was forked: restore log and issuer from one backup",
                )
