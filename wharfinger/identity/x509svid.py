"""X509-SVIDs: parsing, and verification of a chain at a given time (X509-SVID).

Verification never puts the roots of two trust domains into one pool: the leaf names its trust domain, that
domain's bundle alone is asked, and only then is a signature looked at (X509-SVID 5.1). The path itself is
validated by `cryptography`'s verifier (RFC 5280); the rules of SPIFFE come on top. Where the standard
demands something of the document that some libraries let pass (critical key usage, both extended key
usages, key usage on every signer), it is demanded here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from wharfinger.core.clock import Instant
from wharfinger.core.errors import excerpt
from wharfinger.identity.bundle import Bundles
from wharfinger.identity.chain import validate
from wharfinger.identity.fault import BadIdentity, UntrustedIdentity
from wharfinger.identity.spiffeid import SpiffeId

MAX_CHAIN: Final = 16
"""The longest chain that is parsed or validated, in certificates."""

MIN_RSA_BITS: Final = 2048
"""The weakest RSA key that is trusted."""

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

Extension = TypeVar("Extension", bound=x509.ExtensionType)

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class X509Svid:
    """An X509-SVID with its key: what its holder proves its identity with.

    `certificates` starts with the leaf, signing certificates follow; the root is not among them. `hint` is the
    Workload API's word on what the SVID is for, empty when there is one only.
    """

    id: SpiffeId
    certificates: tuple[x509.Certificate, ...]
    key: PrivateKey
    hint: str = ""

    @classmethod
    def from_pem(cls, certificates: bytes, key: bytes) -> X509Svid:
        """Parse PEM `certificates` (leaf first) and a PEM `key`; blocks of other types are passed over.

        Raises `BadIdentity` when either cannot be read, the key is not the leaf's, or the form is not that of
        an X509-SVID; no signature and no time is checked.
        """
        chain = certificates_from_pem(certificates)
        blocks = list(_BLOCK.finditer(key))
        if not blocks:
            raise BadIdentity("key_not_pem", "expected a private key in PEM, got no PEM block")
        keys = [block.group(0) for block in blocks if block.group(1).endswith(b"PRIVATE KEY")]
        if not keys:
            raise BadIdentity("no_private_key", f"expected a private key, got only {excerpt(blocks[0].group(1))}")
        return cls._of(chain, _key(keys[0], pem=True))

    @classmethod
    def from_der(cls, certificates: bytes, key: bytes, hint: str = "") -> X509Svid:
        """Parse concatenated DER `certificates` and a PKCS#8 `key`, the Workload API's form; raises `BadIdentity`."""
        return cls._of(certificates_from_der(certificates), _key(key, pem=False), hint)

    @classmethod
    def _of(cls, chain: Sequence[x509.Certificate], key: PrivateKey, hint: str = "") -> X509Svid:
        if not chain:
            raise BadIdentity("no_certificate", "expected a certificate, got none")
        spiffe_id = check_form(chain)
        if key.public_key() != chain[0].public_key():
            raise BadIdentity("key_mismatch", f"expected the private key of {spiffe_id}'s certificate, got another")
        return cls(spiffe_id, tuple(chain), key, hint)

    def chain_pem(self) -> bytes:
        """Return the certificates as PEM, leaf first."""
        return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in self.certificates)

    def chain_der(self) -> bytes:
        """Return the certificates as concatenated DER, leaf first."""
        return b"".join(c.public_bytes(serialization.Encoding.DER) for c in self.certificates)

    def key_pem(self) -> bytes:
        """Return the private key as PKCS#8 PEM, unencrypted."""
        return self._key_bytes(serialization.Encoding.PEM)

    def key_der(self) -> bytes:
        """Return the private key as PKCS#8 DER, unencrypted."""
        return self._key_bytes(serialization.Encoding.DER)

    def _key_bytes(self, encoding: serialization.Encoding) -> bytes:
        return self.key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificates_from_pem(data: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates among the PEM blocks of `data`, in their order.

    Raises `BadIdentity` when there is no PEM block, none that is a certificate, or one that cannot be read.
    """
    blocks = list(_BLOCK.finditer(data))
    if not blocks:
        raise BadIdentity("certificate_not_pem", "expected certificates in PEM, got no PEM block")
    found = [block.group(0) for block in blocks if block.group(1) == b"CERTIFICATE"]
    if not found:
        raise BadIdentity("no_certificate", f"expected a certificate, got only {excerpt(blocks[0].group(1))}")
    try:
        return tuple(x509.load_pem_x509_certificate(block) for block in found)
    except (ValueError, x509.InvalidVersion) as error:
        raise BadIdentity("certificate_unparseable", f"expected a certificate: {excerpt(str(error))}") from error


def certificates_from_der(data: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates that are concatenated in `data`, none when it is empty; raises `BadIdentity`."""
    try:
        return tuple(x509.load_der_x509_certificate(item) for item in _der_items(data))
    except (ValueError, x509.InvalidVersion) as error:
        raise BadIdentity("certificate_unparseable", f"expected a certificate: {excerpt(str(error))}") from error


def certificates_to_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return `certificates` as PEM, in their order."""
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def check_form(chain: Sequence[x509.Certificate]) -> SpiffeId:
    """Return the SPIFFE ID of the leaf of `chain` if leaf and signers have the form of an X509-SVID.

    Checks, in this order: the leaf is no CA (4.1) and says so, its key usage is digitalSignature without
    keyCertSign and cRLSign (4.3), it has one URI SAN (2), a SPIFFE ID with a path (3.1); each signing
    certificate is a CA with keyCertSign (4.1, 4.3). Neither signatures nor times are looked at.
    Raises `BadIdentity`, naming the first rule broken.
    """
    if len(chain) > MAX_CHAIN:
        raise BadIdentity("chain_too_long", f"expected at most {MAX_CHAIN} certificates, got {len(chain)}")
    leaf, *signers = chain
    constraints = extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.value.ca:
        raise BadIdentity("leaf_is_ca", "expected a leaf certificate, got a CA's")
    spiffe_id = _uri(leaf)
    if constraints is None:
        raise BadIdentity("leaf_without_basic_constraints", f"{spiffe_id}: expected basic constraints with cA false")
    usage = extension(leaf, x509.KeyUsage)
    if usage is None:
        raise BadIdentity("leaf_without_key_usage", f"{spiffe_id}: expected a key usage, got none")
    if not usage.value.digital_signature:
        raise BadIdentity("leaf_without_digital_signature", f"{spiffe_id}: expected digitalSignature in the key usage")
    if usage.value.key_cert_sign:
        raise BadIdentity("leaf_with_key_cert_sign", f"{spiffe_id}: expected a leaf without keyCertSign")
    if usage.value.crl_sign:
        raise BadIdentity("leaf_with_crl_sign", f"{spiffe_id}: expected a leaf without cRLSign")
    for signer in signers:
        check_signer(signer)
    return spiffe_id


def check_signer(certificate: x509.Certificate) -> None:
    """Raise `BadIdentity` unless `certificate` is a CA that may sign certificates (X509-SVID 4.1, 4.3)."""
    constraints = extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.value.ca:
        raise BadIdentity("signer_not_ca", f"expected a CA certificate, got {_subject(certificate)} without cA")
    usage = extension(certificate, x509.KeyUsage)
    if usage is None or not usage.value.key_cert_sign:
        raise BadIdentity(
            "signer_without_key_cert_sign", f"expected keyCertSign in the key usage of {_subject(certificate)}"
        )


def extension(certificate: x509.Certificate, kind: type[Extension]) -> x509.Extension[Extension] | None:
    """Return the extension of `kind`, None when there is none; raises `BadIdentity` when any cannot be read."""
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise BadIdentity("unparseable_extension", f"expected readable extensions: {excerpt(str(error))}") from error


class Use(StrEnum):
    """What a leaf may be used for, by its extended key usage."""

    PEER = "peer"
    """Either end of a TLS connection: serverAuth and clientAuth (X509-SVID 4.4)."""
    CODE_SIGNING = "code signing"
    """Signing artifacts and statements, nothing else: codeSigning, as Fulcio issues it."""


def verify(chain: Sequence[x509.Certificate], bundles: Bundles, now: Instant, use: Use = Use.PEER) -> SpiffeId:
    """Return the SPIFFE ID that `chain`, leaf first, proves at `now` under `bundles`, for `use`.

    1. The leaf and the signing certificates have the form of an X509-SVID (X509-SVID 5.2, `check_form`).
    2. The leaf's own trust domain names the bundle; no other is looked at (5.1).
    3. A path leads from the leaf to a CA certificate of that bundle, valid at `now` (5.1, RFC 5280 6.1).
    4. No signing certificate on the path claims the ID of a workload (3.2).
    5. The leaf keeps the rules on criticality, extended key usage (3.1, 4.3, 4.4) and key strength.

    Raises `BadIdentity` in step 1, `UntrustedIdentity` in the others.
    """
    if not chain:
        raise BadIdentity("empty_chain", "expected at least a leaf certificate, got an empty chain")
    # (1)
    spiffe_id = check_form(chain)
    leaf, *signers = chain
    # (2)
    bundle = bundles.get(spiffe_id.trust_domain)
    if bundle is None:
        raise UntrustedIdentity(
            "no_bundle_for_trust_domain", f"{spiffe_id}: no bundle of {spiffe_id.trust_domain} is known here"
        )
    # (3)
    if leaf in bundle.x509_authorities:
        raise UntrustedIdentity("authority_not_ca", f"{spiffe_id}: expected a CA in the bundle, got the leaf itself")
    authorities = [a for a in bundle.x509_authorities if is_ca(a)]
    path = validate(leaf, signers, authorities, now)
    # (4)
    for signer in path[1:]:
        _check_signer_id(signer)
    # (5)
    _check_leaf_profile(leaf, spiffe_id, use)
    for certificate in path:
        _check_strength(certificate, spiffe_id)
    return spiffe_id


def is_ca(certificate: x509.Certificate) -> bool:
    """Say whether `certificate` is a CA's, and so may be an authority of a bundle."""
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.value.ca


_USES: Final[dict[Use, frozenset[x509.ObjectIdentifier]]] = {
    Use.PEER: frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}),
    Use.CODE_SIGNING: frozenset({ExtendedKeyUsageOID.CODE_SIGNING}),
}


def _check_leaf_profile(leaf: x509.Certificate, spiffe_id: SpiffeId, use: Use) -> None:
    usage = extension(leaf, x509.KeyUsage)
    if usage is None or not usage.critical:
        raise UntrustedIdentity("key_usage_not_critical", f"{spiffe_id}: expected its key usage to be critical")
    names = extension(leaf, x509.SubjectAlternativeName)
    if not leaf.subject.rdns and (names is None or not names.critical):
        raise UntrustedIdentity("san_not_critical", f"{spiffe_id}: expected a critical SAN beside an empty subject")
    purposes = extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None and use is Use.PEER:
        return  # 4.4: the extension may be absent
    if purposes is None or not _USES[use] <= set(purposes.value):
        raise UntrustedIdentity(
            "extended_key_usage_incomplete", f"{spiffe_id}: its extended key usage does not allow {use}"
        )


def _check_signer_id(signer: x509.Certificate) -> None:
    names = extension(signer, x509.SubjectAlternativeName)
    for uri in [] if names is None else names.value.get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith("spiffe://") and "/" in uri.removeprefix("spiffe://"):
            raise UntrustedIdentity(
                "signer_id_with_path", f"expected a signing certificate's ID without a path, got {excerpt(uri)}"
            )


def _check_strength(certificate: x509.Certificate, spiffe_id: SpiffeId) -> None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise UntrustedIdentity(
            "weak_key", f"{spiffe_id}: expected RSA keys of at least {MIN_RSA_BITS} bits, got {key.key_size}"
        )


def _uri(leaf: x509.Certificate) -> SpiffeId:
    names = extension(leaf, x509.SubjectAlternativeName)
    uris = [] if names is None else names.value.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        raise BadIdentity("no_uri_san", f"expected one URI SAN in {_subject(leaf)}, got none")
    if len(uris) > 1:
        raise BadIdentity("multiple_uri_sans", f"expected one URI SAN, got {len(uris)}")
    try:
        spiffe_id = SpiffeId(uris[0])
    except BadIdentity as error:
        raise BadIdentity("invalid_spiffe_id", error.message) from error
    if not spiffe_id.path:
        raise BadIdentity("leaf_id_without_path", f"expected the SPIFFE ID of a leaf to have a path, got {spiffe_id}")
    return spiffe_id


def _subject(certificate: x509.Certificate) -> str:
    try:
        return excerpt(certificate.subject.rfc4514_string())
    except (ValueError, TypeError):
        return "a certificate whose subject cannot be read"


def _key(data: bytes, *, pem: bool) -> PrivateKey:
    load = serialization.load_pem_private_key if pem else serialization.load_der_private_key
    try:
        key = load(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadIdentity("key_unparseable", "expected an unencrypted PKCS#8 private key") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise BadIdentity("key_unparseable", f"expected an RSA, EC or Ed25519 key, got {type(key).__name__}")
    return key


def _der_items(data: bytes) -> list[bytes]:
    """Cut concatenated DER SEQUENCEs apart; raises `ValueError` where none starts."""
    items: list[bytes] = []
    start = 0
    while start < len(data):
        header = data[start : start + 6]
        if len(header) < 2 or header[0] != 0x30:
            raise ValueError(f"no SEQUENCE at byte {start}")
        size = header[1]
        body = 2
        if size & 0x80:
            octets = size & 0x7F
            if not 1 <= octets <= 4 or len(header) < 2 + octets:
                raise ValueError(f"bad length at byte {start + 1}")
            size = int.from_bytes(header[2 : 2 + octets], "big")
            body = 2 + octets
        end = start + body + size
        if end > len(data):
            raise ValueError(f"item at byte {start} is cut short")
        items.append(data[start:end])
        start = end
    return items
