"""Signed notes: a text with signature lines under it (C2SP signed-note), and cosignatures (C2SP tlog-cosignature).

A note is believed for the keys that the reader already holds. Signatures of unknown keys are passed over;
one of a known key that does not verify spoils the whole note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wharfinger.core.errors import Malformed, TooLarge, Unverified, excerpt

LONGEST_NOTE: Final = 1024 * 1024
MOST_SIGNATURES: Final = 100
_SIGNATURE_PREFIX: Final = "\u2014 "
_KEY_ID_BYTES: Final = 4
_ED25519_BYTES: Final = 64
_HEX8: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)


class KeyType(IntEnum):
    """Signature types that are understood (signed-note, "Signature types")."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key that may sign notes, under its `name`; `raw` is the Ed25519 key of 32 bytes."""

    name: str
    type: KeyType
    raw: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 over name, type and key: its first 4 bytes are the key id, all of it a Sigstore log id."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.raw).digest()

    @property
    def id(self) -> bytes:
        """The key id, 4 bytes."""
        return self.digest[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        """Return the written form, `name+id+key`."""
        key = base64.b64encode(bytes([self.type]) + self.raw).decode()
        return f"{self.name}+{self.id.hex()}+{key}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Return the key that `text`, `name+id+key`, describes.

        Raises `Malformed` when the form, the type or the id is wrong.
        """
        parts = text.split("+", 2)
        if len(parts) != 3 or not _is_key_name(parts[0]) or _HEX8.fullmatch(parts[1]) is None:
            raise Malformed(f"expected a verifier key name+id+key, got {excerpt(text)}")
        body = _base64(parts[2], "verifier key")
        if len(body) != 33 or body[0] not in tuple(KeyType):
            raise Malformed(f"expected an Ed25519 or cosignature key, got {excerpt(text)}")
        key = cls(parts[0], KeyType(body[0]), body[1:])
        if key.id.hex() != parts[1]:
            raise Malformed(f"verifier key {excerpt(parts[0])}: expected id {key.id.hex()}, got {parts[1]}")
        return key


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: the key's name and id, and what was signed with it. Nothing about it is checked."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note; `text` ends with a newline. Nothing about it is believed yet."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Return the note that `data` holds (signed-note, "Format").

        Raises `Malformed`, or `TooLarge` for more than `LONGEST_NOTE` bytes or `MOST_SIGNATURES` signatures.
        """
        if len(data) > LONGEST_NOTE:
            raise TooLarge(f"expected a note of at most {LONGEST_NOTE} bytes, got {len(data)}")
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"note: expected UTF-8, got byte {data[error.start]} at {error.start}") from error
        if any(character != "\n" and character < " " for character in whole):
            raise Malformed("note: expected no control characters but newlines")
        split = whole.rfind("\n\n")
        if split < 0 or not whole.endswith("\n"):
            raise Malformed("note: expected a text, an empty line and signature lines, each ended by a newline")
        lines = whole[split + 2 : -1].split("\n") if len(whole) > split + 2 else []
        if not lines:
            raise Malformed("note: expected at least one signature")
        if len(lines) > MOST_SIGNATURES:
            raise TooLarge(f"expected a note with at most {MOST_SIGNATURES} signatures, got {len(lines)}")
        return cls(whole[: split + 1], tuple(_signature(line) for line in lines))

    def encode(self) -> bytes:
        """Return the note's bytes; `parse` reads them back."""
        lines = (
            f"{_SIGNATURE_PREFIX}{s.name} {base64.b64encode(s.key_id + s.signature).decode()}\n"
            for s in self.signatures
        )
        return (self.text + "\n" + "".join(lines)).encode()


@dataclass(frozen=True, slots=True)
class VerifiedNote:
    """A note that at least one known key signed.

    `signed_by` names those keys; `cosigned_at` gives, for the names of cosigners, the POSIX second at which
    they saw it.
    """

    text: str
    signed_by: tuple[str, ...]
    cosigned_at: dict[str, int]


def verify(note: Note, keys: Sequence[VerifierKey]) -> VerifiedNote:
    """Return what `note` says, signed by at least one of `keys`.

    Raises `Unverified` when no known key signed it, or a known key's signature does not hold.
    """
    known = {(key.name, key.id): key for key in keys}
    signed_by: list[str] = []
    cosigned_at: dict[str, int] = {}
    for line in note.signatures:
        key = known.get((line.name, line.key_id))
        if key is None:
            continue
        if key.type is KeyType.COSIGNATURE:
            cosigned_at[key.name] = _verify_cosignature(key, note.text, line.signature)
        else:
            _check_signature(key, note.text.encode(), line.signature)
        if key.name not in signed_by:
            signed_by.append(key.name)
    if not signed_by:
        names = ", ".join(sorted({line.name for line in note.signatures}))
        raise Unverified(f"note: expected a signature of a known key, got those of {excerpt(names)}")
    return VerifiedNote(note.text, tuple(signed_by), cosigned_at)


def cosigned_message(text: str, seconds: int) -> bytes:
    """Return what a cosigner signs when it saw the note `text` at POSIX second `seconds`."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _verify_cosignature(key: VerifierKey, text: str, signature: bytes) -> int:
    if len(signature) != 8 + _ED25519_BYTES:
        raise Unverified(f"note: expected a cosignature of 72 bytes by {excerpt(key.name)}, got {len(signature)}")
    seconds = int.from_bytes(signature[:8], "big")
    _check_signature(key, cosigned_message(text, seconds), signature[8:])
    return seconds


def _check_signature(key: VerifierKey, message: bytes, signature: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Unverified(f"note: the signature of {excerpt(key.name)} does not hold") from error


def _signature(line: str) -> NoteSignature:
    if not line.startswith(_SIGNATURE_PREFIX):
        raise Malformed(f"note: expected a signature line, got {excerpt(line)}")
    name, space, encoded = line[len(_SIGNATURE_PREFIX) :].partition(" ")
    if not space or not _is_key_name(name):
        raise Malformed(f"note: expected a key name and a signature, got {excerpt(line)}")
    body = _base64(encoded, "note signature")
    if len(body) <= _KEY_ID_BYTES:
        raise Malformed(f"note: expected a key id and a signature, got {len(body)} bytes")
    return NoteSignature(name, body[:_KEY_ID_BYTES], body[_KEY_ID_BYTES:])


def _is_key_name(name: str) -> bool:
    return name != "" and "+" not in name and not any(character.isspace() for character in name)


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{what}: expected base64, got {excerpt(text)}") from error
