"""JSON Web Keys and base64url, as strictly as signatures need them (RFC 7515 2, RFC 7517, RFC 7518 6)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from wharfinger.core.document import Json, canonical
from wharfinger.core.errors import excerpt
from wharfinger.identity.bundle import PublicKey
from wharfinger.identity.fault import BadIdentity

_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_CURVES: Final[Mapping[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
_NAMES: Final = {curve.name: name for name, curve in _CURVES.items()}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
LARGEST_RSA_BITS: Final = 8192
"""The largest RSA modulus that is read: a bigger one only costs time."""


class UnsupportedKey(BadIdentity):
    """A key of a type or curve that signs no SVID: a reader of sets passes over it."""


def decode(text: str) -> bytes:
    """Return the bytes of base64url `text`, without padding (RFC 7515 2).

    Raises `BadIdentity` for padding, other characters and stray bits at the end: one value, one spelling.
    """
    if _ALPHABET.fullmatch(text) is None:
        raise BadIdentity("malformed", f"expected base64url without padding, got {excerpt(text)}")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise BadIdentity("malformed", f"expected base64url, got {excerpt(text)}") from error
    if encode(data) != text:
        raise BadIdentity("malformed", f"expected base64url without stray bits, got {excerpt(text)}")
    return data


def encode(data: bytes) -> str:
    """Return `data` as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def parse(value: Mapping[str, Json]) -> PublicKey:
    """Return the public key of a JWK.

    Raises `UnsupportedKey` for a type or curve that is not among RSA, P-256, P-384 and P-521, `BadIdentity` for one
    that cannot be read, or that holds private parts, which nobody should have been shown.
    """
    kind = value.get("kty")
    if kind == "EC":
        _refuse_private(value)
        return _elliptic(value)
    if kind == "RSA":
        _refuse_private(value)
        return _rsa(value)
    raise UnsupportedKey("unsupported_key", f"expected a key of type EC or RSA, got {excerpt(kind)}")


def of(key: PublicKey) -> dict[str, Json]:
    """Return the JWK of a public `key`; `parse` reads it back. Raises `UnsupportedKey` for another curve."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    name = _NAMES.get(key.curve.name)
    if name is None:
        raise UnsupportedKey("unsupported_key", f"expected P-256, P-384 or P-521, got {key.curve.name}")
    point, size = key.public_numbers(), (key.curve.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": name,
        "x": encode(point.x.to_bytes(size, "big")),
        "y": encode(point.y.to_bytes(size, "big")),
    }


def thumbprint(key: PublicKey) -> str:
    """Return the SHA-256 thumbprint of `key` (RFC 7638), a key id that no two keys share."""
    return encode(hashlib.sha256(canonical(of(key))).digest())


def _elliptic(value: Mapping[str, Json]) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(value["crv"]) if isinstance(value.get("crv"), str) else None
    if curve is None:
        raise UnsupportedKey("unsupported_key", f"expected P-256, P-384 or P-521, got {excerpt(value.get('crv'))}")
    size = (curve.key_size + 7) // 8
    x, y = _bytes(value, "x"), _bytes(value, "y")
    if len(x) != size or len(y) != size:
        raise BadIdentity("invalid_key", f"expected x and y of {size} bytes, got {len(x)} and {len(y)}")
    try:
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve)
        return numbers.public_key()
    except ValueError as error:
        raise BadIdentity("invalid_key", f"expected a point on {curve.name}") from error


def _rsa(value: Mapping[str, Json]) -> rsa.RSAPublicKey:
    modulus, exponent = _bytes(value, "n"), _bytes(value, "e")
    if len(modulus) * 8 > LARGEST_RSA_BITS or len(exponent) > 8:
        raise BadIdentity("invalid_key", f"expected an RSA key of at most {LARGEST_RSA_BITS} bits")
    try:
        return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    except ValueError as error:
        raise BadIdentity("invalid_key", "expected an RSA modulus and exponent") from error


def _refuse_private(value: Mapping[str, Json]) -> None:
    found = sorted(_PRIVATE & set(value))
    if found:
        raise BadIdentity("private_key_in_bundle", f"expected a public key, got its private part {found[0]}")


def _bytes(value: Mapping[str, Json], name: str) -> bytes:
    text = value.get(name)
    if not isinstance(text, str) or not text:
        raise BadIdentity("invalid_key", f"expected {name} in base64url, got {excerpt(text)}")
    try:
        return decode(text)
    except BadIdentity as error:
        raise BadIdentity("invalid_key", f"{name}: {error.message}") from error


def _number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))
