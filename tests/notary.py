"""A notary for tests: signs statements as the issuer and the log do, in memory, at a time that is set by hand."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import timedelta

from authority import key_usage
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from world import SetClock

from wharfinger.core.clock import datetime_of
from wharfinger.core.digests import sha256
from wharfinger.core.errors import NotFound
from wharfinger.identity.spiffeid import TrustDomain
from wharfinger.supply.artifact import ARTIFACT_TYPES, Artifact, Kind, of_manifest
from wharfinger.supply.bundle import Bundle, Chain, InclusionProof
from wharfinger.supply.dsse import IN_TOTO, Envelope, Signature, pae
from wharfinger.supply.registry.client import Pulled
from wharfinger.supply.registry.oci import NOTHING, OCTETS, TITLE, Descriptor, Manifest
from wharfinger.supply.statement import Statement
from wharfinger.supply.tlog.checkpoint import Checkpoint
from wharfinger.supply.tlog.entry import SignatureEntry
from wharfinger.supply.tlog.merkle import inclusion_proof, leaf_hash, node_hash, root
from wharfinger.supply.tlog.note import KeyType, Note, NoteSignature, VerifierKey
from wharfinger.supply.trustroot import TrustRoot, of_trust_domain

DOMAIN = "wharfinger.local"
CONTROL = f"spiffe://{DOMAIN}/wharfinger/control"
BUILDER = f"spiffe://{DOMAIN}/wharfinger/builder"


class Notary:
    """The issuer's keys and the log of one trust domain."""

    def __init__(self, domain: str = DOMAIN, clock: SetClock | None = None) -> None:
        self.domain = domain
        self.clock = clock or SetClock()
        self.signed: list[tuple[str, str]] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._log_key = Ed25519PrivateKey.generate()
        self._leaves: list[bytes] = []
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "notary")])
        self.certificate = (
            self._builder(name, name, self._key.public_key(), timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def log_key(self) -> VerifierKey:
        """The log's key."""
        return VerifierKey(f"{self.domain}/log", KeyType.ED25519, self._log_key.public_key().public_bytes_raw())

    @property
    def trust(self) -> TrustRoot:
        """What a verifier believes beforehand."""
        return of_trust_domain(TrustDomain(self.domain), [self.certificate], self.log_key)

    def sign(self, statement: Statement, signer: str) -> bytes:
        """Return the bundle of `statement` by the SPIFFE ID `signer`, logged."""
        self.signed.append((statement.predicate_type, signer))
        return self.logged(self.bundle(statement, signer)).encode()

    def bundle(self, statement: Statement, signer: str) -> Bundle:
        """Return the bundle, not logged yet."""
        payload = statement.encode()
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            self._builder(x509.Name([]), self.certificate.subject, key.public_key(), timedelta(minutes=10))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(signer)]), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        signature = key.sign(pae(IN_TOTO, payload), ec.ECDSA(hashes.SHA256()))
        return Bundle(Envelope(payload, IN_TOTO, (Signature(signature),)), Chain((leaf,), single=True))

    def logged(self, bundle: Bundle) -> Bundle:
        """Return `bundle` with its log entry and proof."""
        entry = SignatureEntry.of(bundle, self.clock.now())
        self._leaves.append(leaf_hash(entry.encode()))
        size = len(self._leaves)
        top = root(size, self._node)
        text = Checkpoint(self.log_key.name, size, top).text
        signature = NoteSignature(self.log_key.name, self.log_key.id, self._log_key.sign(text.encode()))
        note = Note(text, (signature,)).encode().decode()
        proof = InclusionProof(size - 1, size, top, tuple(inclusion_proof(size - 1, size, self._node)), note)
        return Bundle(bundle.envelope, bundle.material, (entry.logged(self.log_key.digest, proof),))

    def _node(self, level: int, index: int) -> bytes:
        if level == 0:
            return self._leaves[index]
        return node_hash(self._node(level - 1, 2 * index), self._node(level - 1, 2 * index + 1))

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime_of(self.clock.now())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + life)
        )


class Shelf:
    """A registry in memory, by repository: artifacts, their blobs, and the bundles that refer to them."""

    def __init__(self) -> None:
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.bundles: dict[tuple[str, str], list[bytes]] = {}
        self.reads = 0

    def push(self, repository: str, files: Mapping[str, bytes], kind: Kind) -> str:
        """Put an artifact there; return its digest."""
        layers = tuple(Descriptor.of(OCTETS, data, {TITLE: path}) for path, data in sorted(files.items()))
        for data in files.values():
            self.blobs[sha256(data)] = data
        manifest = Manifest(config=NOTHING, layers=layers, artifact_type=ARTIFACT_TYPES[kind]).encode()
        self.manifests[repository, sha256(manifest)] = manifest
        return sha256(manifest)

    def artifact(self, repository: str, digest: str) -> Artifact:
        """Return an artifact. Raises `NotFound`."""
        data = self.manifests.get((repository, digest))
        if data is None:
            raise NotFound(f"no {repository}@{digest}")
        return of_manifest(repository, Pulled(Manifest.parse(data), digest, data))

    def manifest(self, repository: str, digest: str) -> bytes:
        """Return the bytes of a manifest."""
        self.artifact(repository, digest)
        return self.manifests[repository, digest]

    def files(self, artifact: Artifact) -> Iterator[tuple[str, bytes]]:
        """Yield the files of an artifact."""
        for path, layer in artifact.layers.items():
            self.reads += 1
            yield path, self.blobs[layer.digest]

    def attached(self, repository: str, digest: str) -> list[bytes]:
        """Return the bundles that refer to an artifact."""
        return list(self.bundles.get((repository, digest), ()))

    def attach(self, repository: str, digest: str, bundle: bytes, predicate_type: str) -> str:
        """Have a bundle refer to an artifact; return the digest of the bundle."""
        self.artifact(repository, digest)
        self.bundles.setdefault((repository, digest), []).append(bundle)
        return sha256(bundle)

    def publish(self, artifact: Artifact, repository: str) -> Artifact:
        """Have the files of an artifact in another repository as a model."""
        files = {path: self.blobs[layer.digest] for path, layer in artifact.layers.items()}
        return self.artifact(repository, self.push(repository, files, "model"))


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    """Return `data` with one bit changed."""
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def encoded(data: bytes) -> str:
    """Return base64 text."""
    return base64.b64encode(data).decode()
