"""The certificates that the issuer gives, as unsigned templates: a root, an X.509-SVID, a leaf for one signature.

Each is what X509-SVID 4 and its Appendix A ask for; `issuer.authority` has the vault sign them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from wharfinger.core.clock import SECOND, Instant, datetime_of
from wharfinger.core.errors import Corrupt, Invalid
from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.spiffeid import Part, SpiffeId, TrustDomain
from wharfinger.identity.x509svid import MIN_RSA_BITS, extension

PEER: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
CODE_SIGNING: Final = (ExtendedKeyUsageOID.CODE_SIGNING,)
HOST_NAMES: Final[tuple[x509.GeneralName, ...]] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
)
"""What a part is reached at: clients that know nothing of SPIFFE (kubectl, oras, curl) look for these."""
BACKDATED: Final = 10 * SECOND
"""How far before now a certificate begins: clocks of one machine agree, whole seconds do not."""

_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
LeafKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def root(
    trust_domain: TrustDomain, key: ec.EllipticCurvePublicKey, start: Instant, end: Instant
) -> x509.CertificateBuilder:
    """Return the template of the root of `trust_domain`: its SPIFFE ID has no path (X509-SVID 3.2)."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Wharfinger"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{trust_domain.name[:48]} root"),
        ]
    )
    return (
        _builder(name, name, key, start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectAlternativeName([_uri(trust_domain.id)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def svid(
    spiffe_id: SpiffeId,
    key: LeafKey,
    issuer: x509.Certificate,
    start: Instant,
    end: Instant,
    *,
    uses: Sequence[ObjectIdentifier] = PEER,
) -> x509.CertificateBuilder:
    """Return the template of an X.509-SVID under the root `issuer`; a platform part's also names this host."""
    names: list[x509.GeneralName] = [_uri(spiffe_id)]
    if isinstance(spiffe_id.kind, Part) and uses is PEER:
        names += HOST_NAMES
    issuer_key = extension(issuer, x509.SubjectKeyIdentifier)
    assert issuer_key is not None
    return (
        _builder(_subject(spiffe_id), issuer.subject, key, start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key.value), critical=False)
    )


def trust_domain_of(certificate: x509.Certificate) -> TrustDomain:
    """Return the trust domain that a root's certificate names. Raises `Corrupt`."""
    try:
        names = extension(certificate, x509.SubjectAlternativeName)
        uris = [] if names is None else names.value.get_values_for_type(x509.UniformResourceIdentifier)
        return SpiffeId(uris[0]).trust_domain
    except (IndexError, BadIdentity) as error:
        raise Corrupt("the root's certificate names no trust domain") from error


def fit_key(key: object) -> LeafKey:
    """Return a public key that may stand in an SVID. Raises `Invalid` for one that is weak or of another kind."""
    if isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= 4 * MIN_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise Invalid(f"expected an EC key on P-256, P-384 or P-521, Ed25519, or RSA from {MIN_RSA_BITS} bits")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: LeafKey, start: Instant, end: Instant
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime_of(start).replace(microsecond=0))
        .not_valid_after(datetime_of(end).replace(microsecond=0))
    )


def _subject(spiffe_id: SpiffeId) -> x509.Name:
    """Return a subject for people's eyes: who it is, cut to what a common name may hold. Nothing decides by it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Wharfinger"),
            x509.NameAttribute(NameOID.COMMON_NAME, spiffe_id.path.lstrip("/")[-64:]),
        ]
    )


def _uri(spiffe_id: SpiffeId) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(str(spiffe_id))


def _usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _USAGES})
