"""What our log holds of a signature: whose, over what, and when the log took it.

The time stands in the entry itself, so that the tree, and with it every checkpoint, commits to it: it is by
this time that a signer's short certificate is judged. The payload is not in the log, only its digest.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from wharfinger.core.clock import SECOND, Instant
from wharfinger.core.digests import parse_sha256, sha256
from wharfinger.core.document import canonical, parse_json
from wharfinger.core.errors import Malformed, Unverified, excerpt
from wharfinger.supply.bundle import Bundle, Chain, InclusionProof, LogEntry
from wharfinger.supply.publickey import PublicKey, decode_base64
from wharfinger.supply.tlog.checkpoint import open_checkpoint
from wharfinger.supply.tlog.merkle import leaf_hash, verify_inclusion
from wharfinger.supply.tlog.tiles import LONGEST_ENTRY
from wharfinger.supply.trustroot import TrustRoot

KIND: Final = "wharfinger.io/dsse"
VERSION: Final = "0.1"
_FIELDS: Final = {"kind", "version", "integratedTime", "payloadHash", "signature", "certificate"}


@dataclass(frozen=True, slots=True)
class SignatureEntry:
    """One entry: the `signature` by the key of `certificate` (DER) over a payload with the digest `payload_hash`.

    `seconds` is the POSIX second at which the log took it.
    """

    seconds: int
    payload_hash: str
    signature: bytes
    certificate: bytes

    @classmethod
    def of(cls, bundle: Bundle, now: Instant) -> SignatureEntry:
        """Return the entry of `bundle` at `now`.

        Raises `Malformed` when it has not exactly one certificate-backed signature, `Unverified` when the signature
        does not hold: the log takes no nonsense. Who the signer is and whether to believe them is the verifier's to
        judge.
        """
        if not isinstance(bundle.material, Chain) or len(bundle.envelope.signatures) != 1:
            raise Malformed("expected a bundle with a certificate and exactly one signature")
        leaf, signature = bundle.material.leaf, bundle.envelope.signatures[0].signature
        PublicKey.of(leaf).verify(signature, bundle.envelope.message)
        return cls(now // SECOND, sha256(bundle.envelope.payload), signature, leaf.public_bytes(Encoding.DER))

    @classmethod
    def parse(cls, data: bytes) -> SignatureEntry:
        """Return the entry in the log's bytes `data`, the one way to write it. Raises `Malformed`."""
        value = parse_json(data, limit=LONGEST_ENTRY)
        if not isinstance(value, dict) or set(value) != _FIELDS:
            raise Malformed("log entry: expected " + ", ".join(sorted(_FIELDS)))
        if (value["kind"], value["version"]) != (KIND, VERSION):
            raise Malformed(f"log entry: expected {KIND} {VERSION}, got {excerpt(value['kind'])}")
        seconds, payload_hash = value["integratedTime"], value["payloadHash"]
        if type(seconds) is not int or seconds < 0 or not isinstance(payload_hash, str):
            raise Malformed("log entry: expected integratedTime in seconds and a payloadHash")
        entry = cls(
            seconds,
            parse_sha256(payload_hash),
            decode_base64(value["signature"], "log entry signature"),
            decode_base64(value["certificate"], "log entry certificate"),
        )
        if entry.encode() != data:
            raise Malformed("log entry: expected canonical JSON")
        return entry

    def encode(self) -> bytes:
        """Return the bytes that the log holds."""
        return canonical(
            {
                "kind": KIND,
                "version": VERSION,
                "integratedTime": self.seconds,
                "payloadHash": self.payload_hash,
                "signature": base64.b64encode(self.signature).decode(),
                "certificate": base64.b64encode(self.certificate).decode(),
            }
        )

    def logged(self, log_id: bytes, proof: InclusionProof) -> LogEntry:
        """Return the entry as a bundle carries it, with the `proof` that the log `log_id` holds it."""
        return LogEntry(proof.index, log_id, KIND, VERSION, self.seconds, self.encode(), proof)


def verify_logged(bundle: Bundle, trust: TrustRoot) -> tuple[LogEntry, Instant]:
    """Return the first entry of `bundle` in a log of ours that `trust` names, and the time it gives the signature.

    1. The entry is of a log that was believed at the entry's time.
    2. Its checkpoint is signed by that log.
    3. The entry is in the tree of the checkpoint.
    4. The entry speaks of this very signature: payload, signature and certificate.

    Raises `Unverified` when one does not hold or there is no entry, `Malformed` when it cannot be read.
    """
    for logged in bundle.entries:
        if logged.kind != KIND:
            continue
        entry = SignatureEntry.parse(logged.body)
        at = entry.seconds * SECOND
        # (1)
        log = trust.log(logged.log_id, at)
        if logged.proof is None:
            raise Unverified("log entry: expected an inclusion proof")
        # (2)
        checkpoint = open_checkpoint(logged.proof.checkpoint.encode(), log.origin, [log.note_key()])
        if (checkpoint.size, checkpoint.root) != (logged.proof.size, logged.proof.root):
            raise Unverified("log entry: the proof is for another tree than the checkpoint's")
        # (3)
        verify_inclusion(
            logged.proof.index, checkpoint.size, leaf_hash(logged.body), logged.proof.hashes, checkpoint.root
        )
        # (4)
        if (logged.index, logged.seconds) != (logged.proof.index, entry.seconds):
            raise Unverified("log entry: index or time beside the entry are not the entry's")
        if entry != SignatureEntry.of(bundle, at):
            raise Unverified("log entry: it speaks of another signature")
        return logged, at
    raise Unverified("expected an entry in the transparency log, got none")
