"""The keeper of a log's key for tests: signs a checkpoint when it follows the last one, as the issuer does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wharfinger.core.errors import Conflict, Unavailable, Unverified
from wharfinger.supply.tlog.checkpoint import Checkpoint
from wharfinger.supply.tlog.merkle import EMPTY_ROOT, verify_consistency
from wharfinger.supply.tlog.note import KeyType, Note, NoteSignature, VerifierKey

ORIGIN = "wharfinger.local/log"


class LogKeeper:
    """Holds the key of one log and the last checkpoint that it signed; in `path`, where one is given.

    `absent` makes it not answer; `mute` makes it sign and then lose the answer.
    """

    def __init__(self, seed: bytes = b"k" * 32, path: Path | None = None) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._path = path
        self.absent = False
        self.mute = False
        self.last = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
        if path is not None and path.exists():
            size, top = json.loads(path.read_text())
            self.last = Checkpoint(ORIGIN, size, bytes.fromhex(top))

    @property
    def key(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(ORIGIN, KeyType.ED25519, self._key.public_key().public_bytes_raw())

    def sign(self, origin: str, size: int, root: bytes, proof: Sequence[bytes]) -> str:
        """Return the signed note, as the `Sign` port of the log wants it."""
        if self.absent:
            raise Unavailable("nobody answers")
        asked = Checkpoint(origin, size, root)
        if asked != self.last:
            if origin != ORIGIN or size < self.last.size or size == self.last.size:
                raise Conflict(f"the last checkpoint has {self.last.size} entries")
            if self.last.size:
                try:
                    verify_consistency(self.last.size, size, self.last.root, root, proof)
                except Unverified as error:
                    raise Conflict(str(error)) from error
        self.last = asked
        if self._path is not None:
            self._path.write_text(json.dumps([size, root.hex()]))
        if self.mute:
            raise Unavailable("the answer was lost")
        return self.note(asked)

    def last_note(self) -> str:
        """Return the note that was signed last, empty where there is none, as the `last` port of the log wants it."""
        return self.note(self.last) if self.last.size else ""

    def note(self, checkpoint: Checkpoint) -> str:
        """Return `checkpoint` signed, whatever it says."""
        text = checkpoint.text
        line = NoteSignature(ORIGIN, self.key.id, self._key.sign(text.encode()))
        return Note(text, (line,)).encode().decode()
