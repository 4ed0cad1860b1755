"""What a client remembers of a log: its newest checkpoint, so that the log cannot go back or become another.

The file is the signed note itself. It only ever moves forward, and only along a consistency proof.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from wharfinger.core import failpoint
from wharfinger.core.errors import Unverified
from wharfinger.supply.disk import replace_file, unfit
from wharfinger.supply.tlog.checkpoint import Checkpoint, open_checkpoint
from wharfinger.supply.tlog.merkle import EMPTY_ROOT, verify_consistency
from wharfinger.supply.tlog.note import VerifierKey

_BEFORE, _AFTER = failpoint.declare("log.memory")
_HINT: Final = "ask the log's operator; keep the remembered checkpoint, it is the evidence"


class Memory:
    """The newest checkpoint of the log of `key` that was seen, kept at `path`; processes share it."""

    def __init__(self, path: Path, key: VerifierKey) -> None:
        self._path = path
        self._key = key

    def checkpoint(self) -> Checkpoint:
        """Return the remembered checkpoint, that of an empty log where none is.

        Raises `Unverified` or `Malformed` when the file is not a note of the log, `HostUnfit` when it cannot be read.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Checkpoint(self._key.name, 0, EMPTY_ROOT)
        except OSError as error:
            raise unfit("remembered checkpoint", error) from error
        return open_checkpoint(data, self._key.name, [self._key])

    def advance(self, note: bytes, prove: Callable[[int], Sequence[bytes]]) -> Checkpoint:
        """Remember the checkpoint of the signed `note`, if the log grew to it; return it.

        `prove(size)` gives the proof that the tree of `size` leaves is a prefix of the new one; it is asked only where
        one is needed. A checkpoint of fewer leaves than remembered is refused, and so is another of as many. Raises
        `Unverified`, `Malformed`, `HostUnfit`.
        """
        with self._locked():
            return self._advance(note, prove)

    def follow(self, fetch: Callable[[], bytes], prove: Callable[[Checkpoint, int], Sequence[bytes]]) -> Checkpoint:
        """As `advance`, of the note that `fetch` gives, while nobody else advances; `prove` gets its checkpoint too.

        Who fetches first and then remembers may come after somebody with a newer one, and take that for a rollback.
        """
        with self._locked():
            note = fetch()
            seen = open_checkpoint(note, self._key.name, [self._key])
            return self._advance(note, lambda size: prove(seen, size))

    def _advance(self, note: bytes, prove: Callable[[int], Sequence[bytes]]) -> Checkpoint:
        seen, known = open_checkpoint(note, self._key.name, [self._key]), self.checkpoint()
        if seen.size < known.size:
            raise Unverified(
                f"log {self._key.name} was rolled back: it has {seen.size} entries, {known.size} are remembered",
                hint=_HINT,
            )
        if seen.size == known.size:
            if seen.root != known.root:
                raise Unverified(f"log {self._key.name} was forked at {seen.size} entries", hint=_HINT)
            return seen
        if known.size:
            try:
                verify_consistency(known.size, seen.size, known.root, seen.root, prove(known.size))
            except Unverified as error:
                raise Unverified(
                    f"log {self._key.name} was forked: its {seen.size} entries do not begin with the {known.size} "
                    f"remembered: {error}",
                    hint=_HINT,
                ) from error
        failpoint.reached(_BEFORE)
        try:
            replace_file(self._path, note)
        except OSError as error:
            raise unfit("remembered checkpoint", error) from error
        failpoint.reached(_AFTER)
        return seen

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self._path.with_name(f".{self._path.name}.lock")
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unfit("remembered checkpoint", error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
