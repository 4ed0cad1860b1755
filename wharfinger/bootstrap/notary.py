"""The notary: what the issuer signs for others, and what it looks at first.

Statements: typed in-toto statements of a predicate type that this platform has, under the name of a part that may say
it, each by a key of its own that lives for one signature. Checkpoints of the transparency log: only one that follows
the last one signed, which is on disk before the next one leaves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from wharfinger.core.document import Json
from wharfinger.core.errors import Conflict, Corrupt, Invalid, Unverified, WharfingerError, excerpt
from wharfinger.identity.issuer.authority import Authority
from wharfinger.identity.issuer.vault import Vault
from wharfinger.identity.spiffeid import Part, SpiffeId
from wharfinger.supply import dsse
from wharfinger.supply.bundle import Bundle, Chain
from wharfinger.supply.manifest import PREDICATE as MANIFEST
from wharfinger.supply.manifest import Manifest
from wharfinger.supply.predicates import (
    SIGNERS,
    dataset,
    decision,
    evaluation,
    proof,
    provenance,
    screening,
    summary,
)
from wharfinger.supply.statement import V1, Statement
from wharfinger.supply.tlog.checkpoint import Checkpoint, open_checkpoint
from wharfinger.supply.tlog.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from wharfinger.supply.tlog.note import KeyType, Note, NoteSignature, VerifierKey

PARSERS: Final[Mapping[str, Callable[[Statement], object]]] = {
    MANIFEST: Manifest.of_statement,
    dataset.TYPE: lambda statement: dataset.Dataset.parse(statement.predicate),
    decision.TYPE: lambda statement: decision.DecisionRecord.parse(statement.predicate),
    evaluation.TYPE: lambda statement: evaluation.Evaluation.parse(statement.predicate),
    proof.TYPE: lambda statement: proof.Parts.parse(statement.predicate),
    provenance.TYPE: lambda statement: provenance.Provenance.parse(statement.predicate),
    screening.TYPE: lambda statement: screening.Screening.parse(statement.predicate),
    summary.TYPE: lambda statement: summary.Summary.parse(statement.predicate),
}
"""What reads each predicate: nothing is signed that does not read as what its type says."""


class Notary:
    """Signs with the keys of `vault`; threads share it."""

    def __init__(self, vault: Vault, authority: Authority) -> None:
        self._vault = vault
        self._authority = authority
        self._lock = threading.Lock()
        self.log_key = VerifierKey(f"{vault.trust_domain}/log", KeyType.ED25519, vault.log_key)

    def statement(self, value: Json, signer: SpiffeId) -> tuple[Statement, Bundle]:
        """Return the statement in `value` and its bundle, signed as `signer`.

        Raises `Malformed` when it is not an in-toto statement v1 or its predicate is not what its type says, `Invalid`
        when the type is none of ours or `signer` is not one that may say it.
        """
        statement = Statement.of_json(value)
        allowed = SIGNERS.get(statement.predicate_type)
        if statement.type != V1 or allowed is None:
            raise Invalid(f"expected a predicate type of this platform, got {excerpt(statement.predicate_type)}")
        kind = signer.kind
        if not (isinstance(kind, Part) and kind.name in allowed and signer.member_of(self._vault.trust_domain)):
            raise Invalid(f"expected {' or '.join(sorted(allowed))} as signer, got {signer}")
        PARSERS[statement.predicate_type](statement)
        payload = statement.encode()
        leaf, signature = self._authority.sign_once(signer, dsse.pae(dsse.IN_TOTO, payload))
        envelope = dsse.Envelope(payload, dsse.IN_TOTO, (dsse.Signature(signature),))
        return statement, Bundle(envelope, Chain((leaf,), single=True))

    def checkpoint(self, new: Checkpoint, hashes: Sequence[bytes]) -> bytes:
        """Return the signed note of `new`, which `hashes` prove to follow the last one signed; it is kept before.

        Raises `Invalid` for another log's, `Conflict` when the log was rolled back or forked, `Corrupt` when the last
        checkpoint cannot be read, `HostUnfit` when the new one cannot be kept.
        """
        if new.origin != self.log_key.name or new.extensions or len(new.root) != HASH_BYTES:
            raise Invalid(f"expected a checkpoint of {self.log_key.name}, got one of {excerpt(new.origin)}")
        with self._lock:
            kept = self._vault.last_checkpoint()
            last = self._opened(kept)
            if last == new and kept:
                return kept
            follow(last, new, hashes)
            signature = NoteSignature(self.log_key.name, self.log_key.id, self._vault.sign_checkpoint(new.text))
            note = Note(new.text, (signature,)).encode()
            self._vault.keep_checkpoint(note)
            return note

    def last(self) -> bytes:
        """Return the note of the checkpoint that was signed last, empty where there is none. Raises `HostUnfit`."""
        with self._lock:
            return self._vault.last_checkpoint()

    def _opened(self, note: bytes) -> Checkpoint:
        if not note:
            return Checkpoint(self.log_key.name, 0, EMPTY_ROOT)
        try:
            return open_checkpoint(note, self.log_key.name, [self.log_key])
        except WharfingerError as error:
            raise Corrupt(
                f"the last checkpoint is not what was signed: {error}", hint="restore it from a backup"
            ) from error


def follow(last: Checkpoint, new: Checkpoint, hashes: Sequence[bytes]) -> None:
    """Raise `Conflict` unless the tree of `new` is that of `last` with leaves added.

    `hashes` are the consistency proof that shows it (RFC 9162 2.1.4).
    """
    if new.size < last.size:
        raise Conflict(
            f"the log was rolled back: a checkpoint of {last.size} entries was signed, got {new.size}",
            hint="restore the registry's log; wharf logs --part registry tells more",
        )
    if new.size == last.size:
        if new.root != last.root or hashes:
            raise Conflict(f"the log was forked: another tree of {last.size} entries was signed")
        return
    if last.size == 0:
        if hashes:
            raise Conflict("expected no proof that the empty log is a prefix")
        return
    try:
        verify_consistency(last.size, new.size, last.root, new.root, hashes)
    except Unverified as error:
        raise Conflict(
            f"the log was forked: its {new.size} entries do not begin with the {last.size} that were signed",
            hint="restore the registry's log",
        ) from error
