"""Public keys that sign envelopes: Ed25519, and ECDSA on P-256, P-384, P-521 with the curve's own hash.

The algorithms of the OpenSSF Model Signing registry, and Ed25519. Each key has exactly one scheme, so that
no header or hint chooses it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, SECP384R1, SECP521R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from wharfinger.core.errors import Malformed, Unverified, excerpt

_Key: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    SECP256R1.name: hashes.SHA256(),
    SECP384R1.name: hashes.SHA384(),
    SECP521R1.name: hashes.SHA512(),
}

_DETAILS: Final = {
    SECP256R1.name: "PKIX_ECDSA_P256_SHA_256",
    SECP384R1.name: "PKIX_ECDSA_P384_SHA_384",
    SECP521R1.name: "PKIX_ECDSA_P521_SHA_512",
}


@dataclass(frozen=True, slots=True, eq=False)
class PublicKey:
    """A public key with its one signature scheme. Equal when the keys are."""

    _key: _Key

    @classmethod
    def from_pem(cls, text: bytes) -> PublicKey:
        """Return the key in PEM `text` (SubjectPublicKeyInfo). Raises `Malformed`."""
        try:
            return cls(_supported(load_pem_public_key(text)))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Malformed(f"expected a public key in PEM: {excerpt(str(error))}") from error

    @classmethod
    def from_der(cls, data: bytes) -> PublicKey:
        """Return the key in DER `data` (SubjectPublicKeyInfo). Raises `Malformed`."""
        try:
            return cls(_supported(load_der_public_key(data)))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Malformed(f"expected a public key in DER: {excerpt(str(error))}") from error

    @classmethod
    def of(cls, certificate: x509.Certificate) -> PublicKey:
        """Return the key of `certificate`. Raises `Malformed` for an algorithm that is not among ours."""
        try:
            return cls(_supported(certificate.public_key()))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Malformed(f"certificate: {excerpt(str(error))}") from error

    @property
    def der(self) -> bytes:
        """SubjectPublicKeyInfo in DER."""
        return self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def pem(self) -> bytes:
        """SubjectPublicKeyInfo in PEM, with a final newline."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """What a bundle's `publicKey.hint` holds: hex SHA-256 over the PEM form (OMS 4.1)."""
        return hashlib.sha256(self.pem).hexdigest()

    @property
    def details(self) -> str:
        """The algorithm as Sigstore names it (sigstore_common.proto, PublicKeyDetails)."""
        return "PKIX_ED25519" if isinstance(self._key, Ed25519PublicKey) else _DETAILS[self._key.curve.name]

    def ed25519(self) -> bytes | None:
        """Return the 32 bytes of an Ed25519 key, None for a key of another kind."""
        if not isinstance(self._key, Ed25519PublicKey):
            return None
        return self._key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check that `signature` over `message` is this key's. Raises `Unverified`.

        ECDSA signatures are DER; the fixed-length form r || s is read too (the DSSE protocol's own example).
        """
        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, message)
            else:
                self._key.verify(_der_signature(self._key, signature), message, ECDSA(_HASHES[self._key.curve.name]))
        except (InvalidSignature, ValueError) as error:
            raise Unverified(f"the signature is not that of key {self.fingerprint[:16]}") from error

    def __eq__(self, other: object) -> bool:
        """Compare the keys."""
        return isinstance(other, PublicKey) and self.der == other.der

    def __hash__(self) -> int:
        """Hash the key."""
        return hash(self.der)


def decode_base64(text: object, what: str) -> bytes:
    """Return the bytes of base64 `text`, standard or URL-safe alphabet, padded. Raises `Malformed`, naming `what`."""
    if not isinstance(text, str):
        raise Malformed(f"{what}: expected base64, got {excerpt(text)}")
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{what}: expected base64, got {excerpt(text)}") from error


def _supported(key: object) -> _Key:
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _HASHES:
        return key
    raise ValueError(f"expected Ed25519 or ECDSA on P-256, P-384 or P-521, got {type(key).__name__}")


def _der_signature(key: EllipticCurvePublicKey, signature: bytes) -> bytes:
    half = (key.curve.key_size + 7) // 8
    # A DER signature begins with a SEQUENCE tag; one of exactly this length that is not DER is r || s.
    if len(signature) == 2 * half and not (signature[0] == 0x30 and signature[1] == len(signature) - 2):
        return encode_dss_signature(int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
    return signature
