"""Signing and verifying artifacts (OpenSSF Model Signing v1.0, section 8).

Three methods verify here: `key`, `certificate`, and `SVID`, our own: the bundle is signed by an X.509-SVID that
lived for minutes, and the transparency log says when, so that it verifies long after. A fourth, the public
Sigstore instance's, is in `supply.sigstore`. Each returns the statement together with whom it is by; a signer
is always named beforehand, never "anyone whose certificate verifies".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cryptography import x509

from wharfinger.core.clock import Instant
from wharfinger.core.digests import sha256
from wharfinger.core.errors import Unverified, WharfingerError, excerpt
from wharfinger.identity.chain import validate
from wharfinger.identity.fault import BadIdentity, UntrustedIdentity
from wharfinger.identity.x509svid import Use
from wharfinger.identity.x509svid import verify as verify_svid_chain
from wharfinger.policy.grant import caller_matches
from wharfinger.supply import dsse
from wharfinger.supply.bundle import Bundle, Chain
from wharfinger.supply.manifest import Manifest
from wharfinger.supply.publickey import PublicKey
from wharfinger.supply.statement import Statement
from wharfinger.supply.tlog.entry import verify_logged
from wharfinger.supply.trustroot import TrustRoot


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement whose signature holds: by whom, and since when.

    `signer` is a SPIFFE ID, the name in a certificate, or a key's fingerprint. `at` is the time by which the
    certificate was judged; None for a bare key. `log_index` is None without a log. `bundle` is the digest of the
    bundle's bytes, empty where it was not read from any.
    """

    statement: Statement
    signer: str
    at: Instant | None = None
    log_index: int | None = None
    bundle: str = ""

    @property
    def manifest(self) -> Manifest:
        """The manifest of an OMS statement. Raises `Malformed` for a statement of another kind."""
        return Manifest.of_statement(self.statement)


def verify_key(bundle: Bundle, keys: Collection[PublicKey]) -> Signed:
    """Return what `bundle` says, signed by one of `keys` (OMS 8.2, method key).

    The bundle's own word on which key it is decides nothing. Raises `Unverified` or `Malformed`.
    """
    if isinstance(bundle.material, Chain):
        raise Unverified("expected a bundle signed by a bare key, got one with a certificate")
    for key in keys:
        try:
            payload = dsse.verify(bundle.envelope, [key])
        except dsse.UnsupportedType:
            raise
        except Unverified:
            continue
        return Signed(Statement.parse(payload), key.fingerprint)
    raise Unverified(f"expected a signature of one of {len(keys)} known keys, got none that holds")


def verify_certificate(
    bundle: Bundle, authorities: Sequence[x509.Certificate], names: Collection[str], at: Instant
) -> Signed:
    """Return what `bundle` says, signed at `at` by a certificate that bears one of `names` (OMS 8.2).

    `names` are subject alternative names (URI, e-mail address, DNS name), or, for a certificate that has none,
    its subject as RFC 4514 writes it. Raises `Unverified` or `Malformed`.
    """
    chain = _chain(bundle)
    payload = dsse.verify(bundle.envelope, [PublicKey.of(chain.leaf)])
    _check_path(chain, authorities, at)
    _check_digital_signature(chain.leaf)
    own = certificate_names(chain.leaf)
    matching = [name for name in own if name in names]
    if not matching:
        raise Unverified(
            f"expected a certificate of {' or '.join(sorted(names))}, got one of {excerpt(', '.join(own))}"
        )
    return Signed(Statement.parse(payload), matching[0], at)


def verify_svid(bundle: Bundle, trust: TrustRoot, signers: Sequence[str]) -> Signed:
    """Return what `bundle` says, signed by an X.509-SVID of one of `signers` (SPIFFE IDs or `.../*` patterns).

    Raises `Unverified` or `Malformed`, as `authenticate`; `Unverified` also for another signer.
    """
    signed = authenticate(bundle, trust)
    if not any(caller_matches(pattern, signed.signer) for pattern in signers):
        raise Unverified(f"expected a signature of {' or '.join(signers)}, got one of {signed.signer}")
    return signed


def authenticate(bundle: Bundle, trust: TrustRoot, *, digest: str = "") -> Signed:
    """Return what `bundle` says and which SPIFFE ID says so; whether they may is for a policy to judge.

    1. The envelope's signature is by the key of the bundle's certificate.
    2. The log holds this signature and gives it its time (`tlog.entry.verify_logged`).
    3. At that time the certificate was an X509-SVID for signing, under the authorities of its own trust domain.
    4. The payload, the very bytes that were verified, is an in-toto statement.

    `digest` is noted as the bundle's. Raises `Unverified` or `Malformed`.
    """
    chain = _chain(bundle)
    # (1)
    payload = dsse.verify(bundle.envelope, [PublicKey.of(chain.leaf)])
    # (2)
    logged, at = verify_logged(bundle, trust)
    # (3)
    try:
        signer = verify_svid_chain(chain.certificates, trust.spiffe_bundles(at), at, Use.CODE_SIGNING)
    except (BadIdentity, UntrustedIdentity) as error:
        raise Unverified(f"signer: {error}") from error
    # (4)
    return Signed(Statement.parse(payload), str(signer), at, logged.index, digest)


def authenticate_bytes(data: bytes, trust: TrustRoot) -> Signed:
    """Return what the bundle in `data` says and who says so, as `authenticate`; its digest is noted."""
    return authenticate(Bundle.parse(data), trust, digest=sha256(data))


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """Return the subject alternative names of `certificate`, or its subject where it has none.

    Raises `Unverified` when they cannot be read.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        kinds = (x509.UniformResourceIdentifier, x509.RFC822Name, x509.DNSName)
        return [name for kind in kinds for name in names.get_values_for_type(kind)]
    except x509.ExtensionNotFound:
        return [certificate.subject.rfc4514_string()]
    except ValueError as error:
        raise Unverified(f"certificate: {excerpt(str(error))}") from error


def _chain(bundle: Bundle) -> Chain:
    if not isinstance(bundle.material, Chain):
        raise Unverified("expected a bundle signed by a certificate, got one signed by a bare key")
    return bundle.material


def _check_path(chain: Chain, authorities: Sequence[x509.Certificate], at: Instant) -> None:
    try:
        validate(chain.leaf, chain.certificates[1:], authorities, at)
    except WharfingerError as error:
        raise Unverified(f"certificate: {error}") from error


def _check_digital_signature(leaf: x509.Certificate) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise Unverified("certificate: expected a key usage") from error
    if not usage.digital_signature:
        raise Unverified("certificate: expected a key that may sign")
