"""DSSE: a payload, its type, and signatures over both (Dead Simple Signing Envelope v1.0).

The key ids in an envelope are hints that nobody signed: they are kept, never decided by.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from wharfinger.core.document import Json, parse_json
from wharfinger.core.errors import Malformed, TooLarge, Unverified, excerpt
from wharfinger.supply.publickey import PublicKey, decode_base64

IN_TOTO: Final = "application/vnd.in-toto+json"
"""Payload type of in-toto statements."""
MOST_SIGNATURES: Final = 64
LARGEST_ENVELOPE: Final = 64 * 1024 * 1024
"""Bytes of an envelope in JSON: a manifest of a few hundred thousand files."""


class UnsupportedType(Unverified):
    """The payload is of a type that the reader did not ask for."""

    code = "UnsupportedType"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope, and the hint that came with it."""

    signature: bytes
    keyid: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. Nothing about it is believed yet: `payload` is for `verify` to hand out."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes) -> Envelope:
        """Return the envelope in JSON `data`. Raises `Malformed` or `TooLarge`."""
        return cls.of_json(parse_json(data, limit=LARGEST_ENVELOPE))

    @classmethod
    def of_json(cls, value: Json) -> Envelope:
        """Return the envelope in a decoded JSON `value`; fields that it does not know are passed over.

        Raises `Malformed`, or `TooLarge` for more than `MOST_SIGNATURES` signatures.
        """
        if not isinstance(value, dict):
            raise Malformed(f"envelope: expected an object, got {excerpt(value)}")
        payload_type, signatures = value.get("payloadType"), value.get("signatures")
        if not isinstance(payload_type, str) or not is_unicode(payload_type):
            raise Malformed(f"envelope: expected a payloadType, got {excerpt(payload_type)}")
        if not isinstance(signatures, list):
            raise Malformed(f"envelope: expected a list of signatures, got {excerpt(signatures)}")
        if len(signatures) > MOST_SIGNATURES:
            raise TooLarge(f"envelope: expected at most {MOST_SIGNATURES} signatures, got {len(signatures)}")
        payload = decode_base64(value.get("payload"), "envelope payload")
        return cls(payload, payload_type, tuple(_signature(item) for item in signatures))

    def to_json(self) -> dict[str, Json]:
        """Return the envelope as a JSON object; `of_json` reads it back."""
        return {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [
                {"sig": base64.b64encode(s.signature).decode(), **({"keyid": s.keyid} if s.keyid else {})}
                for s in self.signatures
            ],
        }

    @property
    def message(self) -> bytes:
        """What the signatures are over."""
        return pae(self.payload_type, self.payload)


def is_unicode(text: str) -> bool:
    """Say whether `text` can be written at all: JSON's escapes can name halves of characters, which cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding of a payload: what is signed (protocol.md, "Signature Definition")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def verify(
    envelope: Envelope, keys: Collection[PublicKey], *, threshold: int = 1, types: Collection[str] = (IN_TOTO,)
) -> bytes:
    """Return the payload of `envelope`, signed by at least `threshold` different keys among `keys`.

    Every signature is tried with every key; those that do not hold are passed over. Raises
    `UnsupportedType` when the payload type is not among `types`, `Unverified` when too few keys signed.
    """
    if threshold < 1:
        raise Unverified(f"envelope: expected a threshold of at least 1, got {threshold}")
    if envelope.payload_type not in types:
        raise UnsupportedType(
            f"envelope: expected payload type {' or '.join(sorted(types))}, got {excerpt(envelope.payload_type)}"
        )
    signed_by = {key for key in set(keys) if _signed(envelope, key)}
    if len(signed_by) < threshold:
        raise Unverified(
            f"envelope: expected signatures of {threshold} of {len(set(keys))} known keys, got {len(signed_by)}"
        )
    return envelope.payload


def _signed(envelope: Envelope, key: PublicKey) -> bool:
    message = envelope.message
    for signature in envelope.signatures:
        try:
            key.verify(signature.signature, message)
        except Unverified:
            continue
        return True
    return False


def _signature(value: Json) -> Signature:
    if not isinstance(value, dict):
        raise Malformed(f"envelope: expected a signature object, got {excerpt(value)}")
    keyid = value.get("keyid")
    if keyid is not None and not isinstance(keyid, str):
        raise Malformed(f"envelope: expected keyid as text, got {excerpt(keyid)}")
    return Signature(decode_base64(value.get("sig"), "envelope signature"), keyid or "")
