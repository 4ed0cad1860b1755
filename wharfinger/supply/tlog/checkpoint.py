"""Checkpoints: what a log says its tree is, the text of a signed note (C2SP tlog-checkpoint)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wharfinger.core.errors import Malformed, Unverified, excerpt
from wharfinger.supply.tlog.merkle import HASH_BYTES
from wharfinger.supply.tlog.note import Note, VerifierKey, verify

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree of the log `origin` at one time: its `size` in leaves and its `root`, 32 bytes."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The note text; `parse` reads it back."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions)
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint in a note's `text`. Raises `Malformed`."""
        if not text.endswith("\n"):
            raise Malformed("checkpoint: expected lines, each ended by a newline")
        lines = text[:-1].split("\n")
        if len(lines) < 3 or not all(lines):
            raise Malformed("checkpoint: expected origin, size and root, and no empty line")
        origin, size, encoded, *extensions = lines
        if _SIZE.fullmatch(size) is None:
            raise Malformed(f"checkpoint: expected a size in decimal, got {excerpt(size)}")
        try:
            root = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Malformed(f"checkpoint: expected a root in base64, got {excerpt(encoded)}") from error
        if len(root) != HASH_BYTES:
            raise Malformed(f"checkpoint: expected a root of {HASH_BYTES} bytes, got {len(root)}")
        return cls(origin, int(size), root, tuple(extensions))


def open_checkpoint(data: bytes, origin: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    """Return the checkpoint of the log `origin` in the signed note `data`.

    A signature of one of `keys` under the log's own name is demanded; cosignatures of witnesses among
    `keys` must hold but do not stand in for it. Raises `Malformed` or `Unverified`.
    """
    verified = verify(Note.parse(data), keys)
    checkpoint = Checkpoint.parse(verified.text)
    if checkpoint.origin != origin:
        raise Unverified(f"checkpoint: expected the log {origin}, got {excerpt(checkpoint.origin)}")
    if origin not in verified.signed_by:
        raise Unverified(f"checkpoint: expected a signature of the log {origin} itself")
    return checkpoint
