"""The desk where the papers of artifacts are read and written: registry, issuer and log, as reconcilers see them.

Signing is idempotent: a statement that a signer has signed already, and that is attached to the artifact, is not
signed again, so that a crash between any two steps is followed by the same papers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from wharfinger.core.errors import NotFound
from wharfinger.supply.artifact import Artifact
from wharfinger.supply.signing import Signed, authenticate_bytes
from wharfinger.supply.statement import Statement
from wharfinger.supply.trustroot import TrustRoot
from wharfinger.supply.verification import Papers, read


class Shelf(Protocol):
    """Where artifacts lie. Every method raises the error family."""

    def artifact(self, repository: str, digest: str) -> Artifact:
        """Return an artifact, its manifest verified; raises `NotFound`."""
        ...

    def manifest(self, repository: str, digest: str) -> bytes:
        """Return the bytes of an artifact's manifest, verified; raises `NotFound`."""
        ...

    def files(self, artifact: Artifact) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of each file, verified."""
        ...

    def attached(self, repository: str, digest: str) -> Iterable[bytes]:
        """Return the bundles that refer to an artifact."""
        ...

    def attach(self, repository: str, digest: str, bundle: bytes, predicate_type: str) -> str:
        """Have `bundle` refer to an artifact; return the digest of its bytes."""
        ...

    def publish(self, artifact: Artifact, repository: str) -> Artifact:
        """Put the files of `artifact` to `repository` as a model, the same files always giving the same digest."""
        ...


class Notary(Protocol):
    """Has statements signed and logged, and says whom a verifier believes."""

    def sign(self, statement: Statement, signer: str) -> bytes:
        """Return the bundle of `statement` by the SPIFFE ID `signer`, with its log entry and inclusion proof."""
        ...

    @property
    def trust(self) -> TrustRoot:
        """What a verifier believes now."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """Reads and writes papers for the platform of `trust_domain`."""

    shelf: Shelf
    notary: Notary
    trust_domain: str

    @property
    def control(self) -> str:
        """Who vouches for what the control plane saw."""
        return f"spiffe://{self.trust_domain}/wharfinger/control"

    @property
    def builder(self) -> str:
        """Who vouches for what a run built."""
        return f"spiffe://{self.trust_domain}/wharfinger/builder"

    def papers(self, repository: str, digest: str) -> Papers:
        """Return the papers of an artifact; none when the artifact is not there."""
        try:
            return read(self.shelf.attached(repository, digest), self.notary.trust)
        except NotFound:
            return Papers()

    def sign(self, artifact: Artifact, statement: Statement, signer: str, papers: Papers) -> Signed:
        """Return `statement` signed by `signer` and attached to `artifact`, of `papers` when it is among them."""
        for signed in papers.signed:
            if signed.signer == signer and signed.statement == statement:
                return signed
        bundle = self.notary.sign(statement, signer)
        fresh = authenticate_bytes(bundle, self.notary.trust)
        self.shelf.attach(artifact.repository, artifact.digest, bundle, statement.predicate_type)
        return fresh
