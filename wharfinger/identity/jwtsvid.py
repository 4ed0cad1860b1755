"""JWT-SVIDs: verified strictly as the SPIFFE JWT-SVID standard writes them.

Only the three headers of JWT-SVID 2 may stand in one, so nothing in a token can point to a key of its own choosing.
The key comes from the bundle of the subject's own trust domain, by its id; the algorithm must be one of 2.1 and fit
that key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from wharfinger.core.clock import SECOND, Instant
from wharfinger.core.document import Json, parse_json
from wharfinger.core.errors import Malformed, TooLarge, excerpt
from wharfinger.identity import jwk
from wharfinger.identity.bundle import Bundles, PublicKey
from wharfinger.identity.fault import BadIdentity, UntrustedIdentity
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.x509svid import MIN_RSA_BITS

LONGEST_TOKEN: Final = 16 * 1024
"""The longest token that is looked at, in characters."""

_HEADERS: Final = frozenset({"alg", "kid", "typ"})
_TYPES: Final = frozenset({"JWT", "JOSE"})
_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVE_OF: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
ALGORITHMS: Final = frozenset(family + bits for family in ("RS", "ES", "PS") for bits in _HASHES)
"""The signature algorithms of JWT-SVID 2.1."""
_FAR: Final = 2**53
_Number: TypeAlias = int | float


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A parsed JWT-SVID. Nothing about it is believed yet, unless `validate` returned it.

    `expiry` and `not_before` are seconds since the epoch; `claims` is everything in the payload.
    """

    id: SpiffeId
    audiences: tuple[str, ...]
    expiry: _Number
    not_before: _Number | None
    claims: Mapping[str, Json]
    algorithm: str
    key_id: str
    signed: bytes
    signature: bytes

    def check(self, audiences: Collection[str], now: Instant) -> None:
        """Raise `UntrustedIdentity` unless it holds at `now` for one of `audiences`.

        JWT-SVID 3.2 and 3.3, RFC 7519 4.1.5. There is no leeway.
        """
        seconds = now / SECOND
        if self.expiry <= seconds:
            raise UntrustedIdentity("expired", f"{self.id}: the JWT-SVID expired {seconds - self.expiry:.0f} s ago")
        if self.not_before is not None and self.not_before > seconds:
            raise UntrustedIdentity("not_yet_valid", f"{self.id}: the JWT-SVID is not valid yet")
        if not any(audience and audience in self.audiences for audience in audiences):
            raise UntrustedIdentity(
                "wrong_audience",
                f"{self.id}: expected a JWT-SVID for {excerpt(' or '.join(audiences))}, "
                f"got one for {excerpt(', '.join(self.audiences))}",
            )


def verify(token: str, bundles: Bundles, audience: str, now: Instant) -> SpiffeId:
    """Return the SPIFFE ID that `token` proves to `audience` at `now` under the JWT authorities of `bundles`.

    Raises `BadIdentity` when it is not a JWT-SVID, `UntrustedIdentity` when it proves nothing here and now.
    """
    return validate(token, bundles, (audience,), now).id


def validate(token: str, bundles: Bundles, audiences: Collection[str], now: Instant) -> JwtSvid:
    """Return the JWT-SVID in `token` if it holds at `now` for one of `audiences`.

    1. It has the form of a JWT-SVID (`parse`).
    2. The subject's own trust domain names the bundle; no other is looked at (JWT-SVID 5).
    3. The bundle holds a key for JWT-SVIDs with its key id, strong enough, and of the algorithm's kind.
    4. The signature is that key's.
    5. It has not expired and is for this audience (3.2, 3.3).

    Raises `BadIdentity` in step 1, `UntrustedIdentity` in the others.
    """
    # (1)
    svid = parse(token)
    # (2)
    bundle = bundles.get(svid.id.trust_domain)
    if bundle is None:
        raise UntrustedIdentity(
            "no_bundle_for_trust_domain", f"{svid.id}: no bundle of {svid.id.trust_domain} is known here"
        )
    # (3)
    key = bundle.jwt_authorities.get(svid.key_id)
    if key is None:
        raise UntrustedIdentity(
            "unknown_kid", f"{svid.id}: the bundle of {svid.id.trust_domain} holds no key {excerpt(svid.key_id)}"
        )
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise UntrustedIdentity("weak_key", f"{svid.id}: expected an RSA key of {MIN_RSA_BITS} bits or more")
    # (4)
    if not _is_signed(svid, key):
        raise UntrustedIdentity("bad_signature", f"{svid.id}: the signature is not that of key {excerpt(svid.key_id)}")
    # (5)
    svid.check(audiences, now)
    return svid


def parse(token: str) -> JwtSvid:
    """Return the JWT-SVID in `token`, unverified: its form alone (JWT-SVID 2, 3; RFC 7515 7.1).

    Raises `BadIdentity`, naming the first rule broken.
    """
    if len(token) > LONGEST_TOKEN:
        raise BadIdentity("malformed", f"expected a token of at most {LONGEST_TOKEN} characters, got {len(token)}")
    parts = token.split(".")
    if len(parts) != 3:
        raise BadIdentity("malformed", f"expected a token of three parts, got {len(parts)}")
    header = _object(parts[0], "header")
    algorithm, key_id = _checked_header(header)
    claims = _object(parts[1], "payload")
    return JwtSvid(
        id=_subject(claims),
        audiences=_audiences(claims),
        expiry=_expiry(claims),
        not_before=_not_before(claims),
        claims=claims,
        algorithm=algorithm,
        key_id=key_id,
        signed=f"{parts[0]}.{parts[1]}".encode("ascii"),
        signature=jwk.decode(parts[2]),
    )


def _checked_header(header: Mapping[str, Json]) -> tuple[str, str]:
    """Return algorithm and key id of a header that keeps the rules (JWT-SVID 2)."""
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise BadIdentity("unsupported_algorithm", f"expected an algorithm of JWT-SVID 2.1, got {excerpt(algorithm)}")
    others = sorted(set(header) - _HEADERS)
    if others:
        raise BadIdentity("header_not_allowed", f"expected headers alg, kid and typ alone, got {excerpt(others[0])}")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise BadIdentity("wrong_typ", f"expected typ JWT or JOSE, got {excerpt(kind)}")
    if key_id is not None and not isinstance(key_id, str):
        raise BadIdentity("malformed", f"expected kid as text, got {excerpt(key_id)}")
    if not key_id:
        raise BadIdentity("missing_kid", "expected the id of a key as kid, got none")
    return algorithm, key_id


def _subject(claims: Mapping[str, Json]) -> SpiffeId:
    subject = claims.get("sub", "")
    if subject == "":
        raise BadIdentity("missing_sub", "expected a subject, got none")
    if not isinstance(subject, str):
        raise BadIdentity("invalid_sub", f"expected a SPIFFE ID as subject, got {excerpt(subject)}")
    try:
        return SpiffeId(subject)
    except BadIdentity as error:
        raise BadIdentity("invalid_sub", f"subject: {error.message}") from error


def _audiences(claims: Mapping[str, Json]) -> tuple[str, ...]:
    told = claims.get("aud")
    if told is None or told == []:
        raise BadIdentity("missing_aud", "expected an audience, got none")
    audiences = [told] if isinstance(told, str) else told
    if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
        raise BadIdentity("invalid_aud", f"expected audiences as texts, got {excerpt(told)}")
    return tuple(audiences)


def _expiry(claims: Mapping[str, Json]) -> _Number:
    told = claims.get("exp")
    if told is None:
        raise BadIdentity("missing_exp", "expected an expiry, got none")
    return _date(told, "exp")


def _not_before(claims: Mapping[str, Json]) -> _Number | None:
    told = claims.get("nbf")
    return None if told is None else _date(told, "nbf")


def _date(value: Json, claim: str) -> _Number:
    """Return a NumericDate (RFC 7519 2)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_FAR <= value <= _FAR:
        raise BadIdentity(f"invalid_{claim}", f"expected {claim} as a number of seconds, got {excerpt(value)}")
    return value


def _object(part: str, what: str) -> dict[str, Json]:
    try:
        value = parse_json(jwk.decode(part))
    except (Malformed, TooLarge) as error:
        raise BadIdentity("malformed", f"{what}: {error.message}") from error
    if not isinstance(value, dict):
        raise BadIdentity("malformed", f"{what}: expected an object, got {excerpt(value)}")
    return value


def _is_signed(svid: JwtSvid, key: PublicKey) -> bool:
    family, digest = svid.algorithm[:2], _HASHES[svid.algorithm[2:]]
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            signature = _der(key, svid)
            if signature is None:
                return False
            key.verify(signature, svid.signed, ec.ECDSA(digest))
        elif family == "RS":
            key.verify(svid.signature, svid.signed, padding.PKCS1v15(), digest)
        elif family == "PS":
            # RFC 7518 3.5: the salt is as long as the hash.
            scheme = padding.PSS(padding.MGF1(digest), digest.digest_size)
            key.verify(svid.signature, svid.signed, scheme, digest)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _der(key: ec.EllipticCurvePublicKey, svid: JwtSvid) -> bytes | None:
    """Return the signature r || s (RFC 7518 3.4) as DER, None when it is not one for this algorithm and key."""
    half = (key.curve.key_size + 7) // 8
    if _CURVE_OF.get(svid.algorithm) != key.curve.name or len(svid.signature) != 2 * half:
        return None
    return encode_dss_signature(
        int.from_bytes(svid.signature[:half], "big"), int.from_bytes(svid.signature[half:], "big")
    )
