"""Bundles as documents: a trust domain's keys as a JWK set (SPIFFE Trust Domain and Bundle 4, X509-SVID 6, JWT-SVID 5).

Three forms: the SPIFFE bundle of one trust domain, a map of such bundles by trust domain, and the plain JWK set of the
Workload API. Where the standard says that an entry is to be ignored, it is; what claims to be a key of ours and is none
spoils the document.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from wharfinger.core.document import Json, RepeatedName, canonical, parse_json
from wharfinger.core.errors import Malformed, TooLarge, excerpt
from wharfinger.identity import jwk
from wharfinger.identity.bundle import Bundle, Bundles, PublicKey
from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.spiffeid import TrustDomain
from wharfinger.identity.x509svid import is_ca

LARGEST_DOCUMENT: Final = 4 * 1024 * 1024
MOST_KEYS: Final = 1024
X509: Final = "x509-svid"
JWT: Final = "jwt-svid"
WIT: Final = "wit-svid"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed bundle document and how many of its entries were passed over, as the standard wants."""

    bundle: Bundle
    ignored: int


@dataclass(slots=True)
class _Keys:
    """What the entries of one document came to."""

    x509: list[x509.Certificate] = field(default_factory=list)
    jwt: dict[str, PublicKey] = field(default_factory=dict)
    wit: dict[str, PublicKey] = field(default_factory=dict)
    ignored: int = 0


def parse(data: bytes, trust_domain: TrustDomain) -> Document:
    """Return the SPIFFE bundle of `trust_domain` that JSON `data` holds. Raises `BadIdentity`, naming the rule."""
    return _document(_object(_json(data), "bundle"), trust_domain)


def parse_map(data: bytes) -> Bundles:
    """Return the bundles of a map `{"trust_domains": {name: bundle}}`, all or none. Raises `BadIdentity`."""
    value = _object(_json(data), "bundle map")
    domains = value.get("trust_domains")
    if domains is None:
        raise BadIdentity("trust_domains_missing", "expected trust_domains, got none")
    if not isinstance(domains, dict):
        raise BadIdentity("trust_domains_not_object", f"expected trust_domains as an object, got {excerpt(domains)}")
    found: dict[TrustDomain, Bundle] = {}
    for name, document in domains.items():
        try:
            trust_domain = TrustDomain(name)
        except BadIdentity as error:
            raise BadIdentity("invalid_trust_domain", error.message) from error
        found[trust_domain] = _document(_object(document, f"bundle of {name}"), trust_domain).bundle
    return found


def parse_jwks(data: bytes, use: str = JWT) -> dict[str, PublicKey]:
    """Return the keys by id of a plain JWK set for SVIDs of one `use` (Workload API 6.2.2): entries need not say it.

    Entries that are for something else are passed over. Raises `BadIdentity`.
    """
    found: dict[str, PublicKey] = {}
    for entry in _entries(_object(_json(data), "JWK set")):
        if entry.get("use", use) == use:
            _add_key(found, (), entry)
    return found


def encode(bundle: Bundle) -> bytes:
    """Return `bundle` as a SPIFFE bundle document in canonical JSON; `parse` reads it back."""
    keys: list[Json] = [_x509_entry(certificate) for certificate in bundle.x509_authorities]
    for use, authorities in ((JWT, bundle.jwt_authorities), (WIT, bundle.wit_authorities)):
        keys += [{"use": use, "kid": key_id, **jwk.of(key)} for key_id, key in authorities.items()]
    value: dict[str, Json] = {"keys": keys}
    if bundle.sequence is not None:
        value["spiffe_sequence"] = bundle.sequence
    if bundle.refresh_hint is not None:
        value["spiffe_refresh_hint"] = bundle.refresh_hint
    return canonical(value)


def encode_jwks(authorities: Mapping[str, PublicKey]) -> bytes:
    """Return JWT `authorities` as the JWK set of the Workload API; `parse_jwks` reads it back."""
    return canonical({"keys": [{"use": JWT, "kid": key_id, **jwk.of(key)} for key_id, key in authorities.items()]})


def _document(value: Mapping[str, Json], trust_domain: TrustDomain) -> Document:
    keys = _Keys()
    for entry in _entries(value):
        _add(keys, entry)
    bundle = Bundle(
        trust_domain,
        tuple(keys.x509),
        keys.jwt,
        keys.wit,
        sequence=_count(value, "spiffe_sequence", "invalid_sequence"),
        refresh_hint=_count(value, "spiffe_refresh_hint", "invalid_refresh_hint"),
    )
    return Document(bundle, keys.ignored)


def _add(keys: _Keys, entry: Mapping[str, Json]) -> None:
    use = entry.get("use")
    try:
        if use == X509:
            certificate = _certificate(entry)
            if certificate is None:
                keys.ignored += 1
            elif certificate not in keys.x509:
                keys.x509.append(certificate)
        elif use == JWT:
            _add_key(keys.jwt, keys.wit, entry)
        elif use == WIT:
            _add_key(keys.wit, keys.jwt, entry)
        else:
            keys.ignored += 1
    except jwk.UnsupportedKey:
        keys.ignored += 1


def _add_key(keys: dict[str, PublicKey], others: Iterable[str], entry: Mapping[str, Json]) -> None:
    key = jwk.parse(entry)
    key_id = entry.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise BadIdentity("missing_kid", f"expected the id of a key as kid, got {excerpt(key_id)}")
    if key_id in keys or key_id in others:
        raise BadIdentity("duplicate_kid", f"expected each kid once, got {excerpt(key_id)} twice")
    keys[key_id] = key


def _certificate(entry: Mapping[str, Json]) -> x509.Certificate | None:
    """Return the CA certificate of an x509-svid entry, None for one to ignore: without x5c (X509-SVID 6.2)."""
    if not isinstance(entry.get("kty"), str):
        return None
    chain = entry.get("x5c")
    if not isinstance(chain, list) or not chain:
        return None
    try:
        text = "".join(str(chain[0]).split())
        certificate = x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
        own = certificate.public_key()
    except (binascii.Error, ValueError) as error:
        raise BadIdentity("invalid_x5c", "expected a certificate in base64 as x5c") from error
    except (x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise BadIdentity("invalid_x5c", "expected a certificate of version 3 with a key of a known kind") from error
    if not is_ca(certificate):
        raise BadIdentity("not_a_ca_certificate", "expected a CA's certificate in x5c, got a leaf's")
    if jwk.parse(entry) != own:
        raise BadIdentity("invalid_x5c", "expected the key of the certificate in x5c, got another")
    return certificate


def _x509_entry(certificate: x509.Certificate) -> dict[str, Json]:
    key = certificate.public_key()
    der = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii")
    return {"use": X509, "x5c": [der], **jwk.of(key)}  # type: ignore[arg-type]


def _entries(value: Mapping[str, Json]) -> list[dict[str, Json]]:
    entries = value.get("keys")
    if entries is None:
        raise BadIdentity("keys_missing", "expected keys, got none")
    if not isinstance(entries, list):
        raise BadIdentity("keys_not_array", f"expected keys as a list, got {excerpt(entries)}")
    if len(entries) > MOST_KEYS:
        raise BadIdentity("too_many_keys", f"expected at most {MOST_KEYS} keys, got {len(entries)}")
    for entry in entries:
        if not isinstance(entry, dict):
            raise BadIdentity("invalid_entry", f"expected keys to hold objects, got {excerpt(entry)}")
    return entries


def _count(value: Mapping[str, Json], name: str, reason: str) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise BadIdentity(reason, f"expected {name} as a whole number from 0, got {excerpt(number)}")
    return number


def _json(data: bytes) -> Json:
    try:
        return parse_json(data, limit=LARGEST_DOCUMENT)
    except RepeatedName as error:
        raise BadIdentity("duplicate_member", error.message) from error
    except (Malformed, TooLarge) as error:
        raise BadIdentity("not_json", error.message) from error


def _object(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise BadIdentity("not_an_object", f"{what}: expected an object, got {excerpt(value)}")
    return value
