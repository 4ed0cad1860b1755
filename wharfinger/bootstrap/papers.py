"""The desk's adapters: artifacts in the registry, signatures by the issuer, entries in the log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from wharfinger.bootstrap.part import Setting
from wharfinger.controllers.desk import Desk
from wharfinger.core.clock import MINUTE, Clock, Span
from wharfinger.core.errors import TooLarge
from wharfinger.identity.issuerclient import IssuerClient
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain
from wharfinger.supply import artifact as artifacts
from wharfinger.supply.artifact import Artifact
from wharfinger.supply.bundle import Bundle
from wharfinger.supply.registry.client import RegistryClient
from wharfinger.supply.statement import Statement
from wharfinger.supply.tlog.client import LogClient
from wharfinger.supply.tlog.memory import Memory
from wharfinger.supply.tlog.note import VerifierKey
from wharfinger.supply.trustroot import TrustRoot, of_trust_domain

_REFRESH: Final[Span] = MINUTE
MOST_KEPT: Final = 64 * 1024 * 1024
"""Bytes of bundles that are kept in memory."""
LARGEST_PAPERS: Final = 32 * 1024 * 1024
"""Bytes of all bundles of one artifact: anyone who may push to its repository may attach more."""
LARGEST_FILE: Final = 64 * 1024 * 1024
"""Bytes of a file that is read whole, to be screened."""


class RegistryShelf:
    """`controllers.desk.Shelf` on a registry."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self._read: dict[str, tuple[bytes, ...]] = {}

    def artifact(self, repository: str, digest: str) -> Artifact:
        """Return an artifact, its manifest verified; raises `NotFound`."""
        return artifacts.read(self._client, repository, digest)

    def manifest(self, repository: str, digest: str) -> bytes:
        """Return the bytes of an artifact's manifest, verified; raises `NotFound`."""
        return self._client.pull_manifest(repository, digest).data

    def files(self, artifact: Artifact) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of each file, verified. Raises `TooLarge` for one of more than `LARGEST_FILE` bytes."""
        for path, layer in artifact.layers.items():
            yield path, self._client.pull_blob(artifact.repository, layer, limit=LARGEST_FILE)

    def attached(self, repository: str, digest: str) -> Iterator[bytes]:
        """Yield the bundles that refer to an artifact; what was read once is not read again."""
        if sum(len(bundle) for held in self._read.values() for bundle in held) > MOST_KEPT:
            self._read = {}
        size = 0
        for bundle in artifacts.attached(self._client, repository, digest, known=self._read):
            size += len(bundle)
            if size > LARGEST_PAPERS:
                raise TooLarge(f"{repository}@{digest}: expected at most {LARGEST_PAPERS} bytes of bundles, got more")
            yield bundle

    def attach(self, repository: str, digest: str, bundle: bytes, predicate_type: str) -> str:
        """Have `bundle` refer to an artifact; return the digest of its bytes."""
        return artifacts.attach(self._client, repository, digest, bundle, predicate_type=predicate_type)

    def publish(self, artifact: Artifact, repository: str) -> Artifact:
        """Put the files of `artifact` to `repository` as a model."""
        return artifacts.publish(self._client, artifact, repository, "model")


class IssuerNotary:
    """`controllers.desk.Notary` on the issuer and the log. What is believed is asked anew every minute."""

    def __init__(self, issuer: IssuerClient, log: LogClient, clock: Clock) -> None:
        self._issuer = issuer
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._believed: tuple[Span, TrustRoot] | None = None

    def sign(self, statement: Statement, signer: str) -> bytes:
        """Return the bundle of `statement` by `signer`, with its log entry and inclusion proof.

        Raises `Unverified` when the log was rolled back or forked since the last signature.
        """
        bundle = self._issuer.sign_statement(statement.to_json(), SpiffeId(signer))
        logged = self._log.append(Bundle.of_json(bundle))
        # A log that does not go on from where it was is refused here: what is signed must be in the log of before.
        self._log.checkpoint()
        return logged.encode()

    @property
    def trust(self) -> TrustRoot:
        """What a verifier believes now."""
        now = self._clock.monotonic()
        with self._lock:
            if self._believed is None or now - self._believed[0] > _REFRESH:
                self._believed = (now, trust_root(self._issuer))
            return self._believed[1]


def trust_root(issuer: IssuerClient) -> TrustRoot:
    """Return the trust root that the issuer vouches for: its CA certificates and the log's key."""
    told = issuer.trust_root()
    return of_trust_domain(TrustDomain(told.trust_domain), told.authorities, VerifierKey.parse(told.log_key))


def desk(setting: Setting, source: SvidSource, clock: Clock) -> Desk:
    """Return the desk of this platform. Raises `Unavailable` when the issuer does not answer."""
    issuer = IssuerClient("127.0.0.1", setting.ports["issuer"], source)
    key = VerifierKey.parse(issuer.trust_root().log_key)
    port = setting.ports["registry"]
    log = LogClient("127.0.0.1", port, source, key, memory=Memory(setting.state.of("control") / "log-checkpoint", key))
    shelf = RegistryShelf(RegistryClient("127.0.0.1", port, source))
    return Desk(shelf, IssuerNotary(issuer, log, clock), setting.trust_domain)
