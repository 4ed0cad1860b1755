"""What the SPIFFE Workload API says on the wire: its methods, messages, and gRPC's frames around them.

Written by hand from `workload.proto`: five calls of two fields each need no code generator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives.serialization import Encoding

from wharfinger.core.document import Json
from wharfinger.core.errors import Unavailable
from wharfinger.identity import protowire as wire
from wharfinger.identity.bundle import Bundle, Bundles, PublicKey
from wharfinger.identity.bundledocument import encode_jwks, parse_jwks
from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain
from wharfinger.identity.x509svid import X509Svid, certificates_from_der

SERVICE: Final = "/SpiffeWorkloadAPI/"
FETCH_X509_SVID: Final = SERVICE + "FetchX509SVID"
FETCH_X509_BUNDLES: Final = SERVICE + "FetchX509Bundles"
FETCH_JWT_SVID: Final = SERVICE + "FetchJWTSVID"
FETCH_JWT_BUNDLES: Final = SERVICE + "FetchJWTBundles"
VALIDATE_JWT_SVID: Final = SERVICE + "ValidateJWTSVID"
SECURITY_HEADER: Final = ("workload.spiffe.io", "true")
"""Must come with each call (SPIFFE Workload Endpoint 5): what a server-side request forgery cannot set."""

LARGEST_MESSAGE: Final = 4 * 1024 * 1024
_PREFIX: Final = 5


class Status(IntEnum):
    """The gRPC status codes that are used here."""

    OK = 0
    INVALID_ARGUMENT = 3
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class CallFailed(Unavailable):
    """A call that ended with another gRPC status than OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message or f"gRPC status {status}")
        self.grpc_status = status


@dataclass(frozen=True, slots=True)
class JwtRequest:
    """What FetchJWTSVID asks: tokens for all of `audiences`; `spiffe_id` empty for every identity of the caller."""

    audiences: tuple[str, ...]
    spiffe_id: str = ""

    def encode(self) -> bytes:
        """Return the message."""
        return b"".join(wire.data(1, a.encode("utf-8")) for a in self.audiences) + wire.text(2, self.spiffe_id)

    @classmethod
    def parse(cls, message: bytes) -> JwtRequest:
        """Read the message. Raises `BadIdentity`."""
        return cls(tuple(wire.all_texts(message, 1)), wire.last_text(message, 2))


@dataclass(frozen=True, slots=True)
class ValidateRequest:
    """What ValidateJWTSVID asks: whether `token` holds for `audience`."""

    audience: str
    token: str

    def encode(self) -> bytes:
        """Return the message."""
        return wire.text(1, self.audience) + wire.text(2, self.token)

    @classmethod
    def parse(cls, message: bytes) -> ValidateRequest:
        """Read the message. Raises `BadIdentity`."""
        return cls(wire.last_text(message, 1), wire.last_text(message, 2))


def x509_svids(svids: Iterable[X509Svid], bundles: Bundles) -> bytes:
    """Return an X509SVIDResponse: each SVID with its own domain's bundle; bundles of other domains are federated."""
    out: list[bytes] = []
    own: set[TrustDomain] = set()
    for svid in svids:
        domain = svid.id.trust_domain
        own.add(domain)
        fields = (
            wire.text(1, str(svid.id)),
            wire.data(2, svid.chain_der()),
            wire.data(3, svid.key_der()),
            wire.data(4, authorities_der(bundles[domain])),
            wire.text(5, svid.hint),
        )
        out.append(wire.data(1, b"".join(fields)))
    out += [wire.entry(3, str(d.id), authorities_der(bundle)) for d, bundle in bundles.items() if d not in own]
    return b"".join(out)


def parse_x509_svids(message: bytes) -> tuple[tuple[X509Svid, ...], dict[TrustDomain, Bundle]]:
    """Return SVIDs and bundles of an X509SVIDResponse. Raises `BadIdentity` for one that does not fit together."""
    svids: list[X509Svid] = []
    bundles: dict[TrustDomain, Bundle] = {}
    for item in wire.all_bytes(message, 1):
        svid = X509Svid.from_der(wire.last_bytes(item, 2), wire.last_bytes(item, 3), wire.last_text(item, 5))
        if str(svid.id) != wire.last_text(item, 1):
            raise BadIdentity("id_mismatch", f"expected the SVID of {svid.id} under its own name")
        svids.append(svid)
        domain = svid.id.trust_domain
        bundles[domain] = Bundle(domain, certificates_from_der(wire.last_bytes(item, 4)))
    for name, der in wire.entries(message, 3).items():
        domain = SpiffeId(name).trust_domain
        bundles.setdefault(domain, Bundle(domain, certificates_from_der(der)))
    if not svids:
        raise BadIdentity("no_svid", "expected an SVID, got none")
    return tuple(svids), bundles


def x509_bundles(bundles: Bundles) -> bytes:
    """Return an X509BundlesResponse."""
    return b"".join(wire.entry(2, str(d.id), authorities_der(bundle)) for d, bundle in bundles.items())


def jwt_svids(tokens: Mapping[SpiffeId, str]) -> bytes:
    """Return a JWTSVIDResponse."""
    return b"".join(wire.data(1, wire.text(1, str(i)) + wire.text(2, token)) for i, token in tokens.items())


def parse_jwt_svids(message: bytes) -> dict[SpiffeId, str]:
    """Return the tokens of a JWTSVIDResponse. Raises `BadIdentity`."""
    found = {SpiffeId(wire.last_text(item, 1)): wire.last_text(item, 2) for item in wire.all_bytes(message, 1)}
    if not found or not all(found.values()):
        raise BadIdentity("no_svid", "expected a JWT-SVID, got none")
    return found


def jwt_bundles(bundles: Bundles) -> bytes:
    """Return a JWTBundlesResponse: a JWK set for each trust domain."""
    return b"".join(wire.entry(1, str(d.id), encode_jwks(bundle.jwt_authorities)) for d, bundle in bundles.items())


def parse_jwt_bundles(message: bytes) -> dict[TrustDomain, dict[str, PublicKey]]:
    """Return the JWT authorities by trust domain of a JWTBundlesResponse. Raises `BadIdentity`."""
    return {SpiffeId(name).trust_domain: parse_jwks(jwks) for name, jwks in wire.entries(message, 1).items()}


def validated(spiffe_id: SpiffeId, claims: Mapping[str, Json]) -> bytes:
    """Return a ValidateJWTSVIDResponse."""
    return wire.text(1, str(spiffe_id)) + wire.data(2, _struct(claims))


def authorities_der(bundle: Bundle) -> bytes:
    """Return the CA certificates of `bundle` as concatenated DER."""
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in bundle.x509_authorities)


def frame(message: bytes) -> bytes:
    """Return `message` in gRPC's length-prefixed form, not compressed."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def unframe(buffer: bytearray) -> list[bytes]:
    """Take the whole messages from the front of `buffer`. Raises `BadIdentity` for a compressed or too long one."""
    found: list[bytes] = []
    while len(buffer) >= _PREFIX:
        size = int.from_bytes(buffer[1:_PREFIX], "big")
        if buffer[0] != 0 or size > LARGEST_MESSAGE:
            raise BadIdentity("bad_frame", f"expected a plain message of at most {LARGEST_MESSAGE} bytes")
        if len(buffer) < _PREFIX + size:
            break
        found.append(bytes(buffer[_PREFIX : _PREFIX + size]))
        del buffer[: _PREFIX + size]
    return found


def status_text(text: str) -> str:
    """Return a gRPC status message as its trailer holds it: percent-encoded UTF-8."""
    return quote(text[:500], safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~\"")


def parse_status_text(text: str) -> str:
    """Return what `status_text` wrote."""
    return unquote(text[:2000], errors="replace")


def _struct(value: Mapping[str, Json]) -> bytes:
    """Return a google.protobuf.Struct."""
    return b"".join(wire.entry(1, str(name), _value(item)) for name, item in value.items())


def _value(value: Json) -> bytes:
    """Return a google.protobuf.Value; `core.document` has bounded how deep it nests."""
    if value is None:
        return wire.integer(1, 0)
    if isinstance(value, bool):
        return wire.integer(4, int(value))
    if isinstance(value, int | float):
        return wire.double(2, _float(value))
    if isinstance(value, str):
        return wire.data(3, value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        return wire.data(5, _struct(value))
    return wire.data(6, b"".join(wire.data(1, _value(item)) for item in value))


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
