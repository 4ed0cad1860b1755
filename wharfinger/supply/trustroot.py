"""Trust roots: whom a verifier believes beforehand, written as Sigstore's `trusted_root.json` (v0.1, v0.2).

Ours names the CA certificates of a trust domain (an authority whose URI is `spiffe://DOMAIN`) and the key of
the transparency log (an Ed25519 note key, whose full digest is the log's id). The public Sigstore instance's
names Fulcio, Rekor and the certificate transparency logs. One reader serves both.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from wharfinger.core.clock import Instant, parse_rfc3339, rfc3339
from wharfinger.core.document import Json, canonical, parse_json
from wharfinger.core.errors import Malformed, Unverified, excerpt
from wharfinger.identity.bundle import Bundle as SpiffeBundle
from wharfinger.identity.bundle import Bundles
from wharfinger.identity.spiffeid import TrustDomain
from wharfinger.supply.publickey import PublicKey, decode_base64
from wharfinger.supply.tlog.note import KeyType, VerifierKey

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
_MEDIA_PREFIX: Final = "application/vnd.dev.sigstore.trustedroot"
_SPIFFE: Final = "spiffe://"
_FOREVER: Final[Instant] = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Period:
    """When something is believed: from `start` up to and including `end`."""

    start: Instant = 0
    end: Instant = _FOREVER

    def __contains__(self, at: Instant) -> bool:
        """Say whether `at` lies in the period."""
        return self.start <= at <= self.end

    def to_json(self) -> dict[str, Json]:
        """Return the period as a JSON object; an open end is left out."""
        value: dict[str, Json] = {"start": rfc3339(self.start)}
        if self.end != _FOREVER:
            value["end"] = rfc3339(self.end)
        return value


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: its certificates, the root last, and when it may have issued."""

    uri: str
    certificates: tuple[x509.Certificate, ...]
    period: Period = Period()


@dataclass(frozen=True, slots=True)
class Log:
    """A log: where it is (`base_url`), its key, its id, and when its word counts."""

    base_url: str
    key: PublicKey
    log_id: bytes
    period: Period = Period()

    @property
    def origin(self) -> str:
        """The name of the log in its checkpoints: the URL without scheme and final slash (C2SP tlog-tiles)."""
        return self.base_url.partition("://")[2].rstrip("/")

    def note_key(self) -> VerifierKey:
        """Return the log's key as a note key. Raises `Unverified` unless it is Ed25519 and its digest the log's id."""
        raw = self.key.ed25519()
        if raw is None:
            raise Unverified(f"log {excerpt(self.base_url)}: expected an Ed25519 key")
        key = VerifierKey(self.origin, KeyType.ED25519, raw)
        if key.digest != self.log_id:
            raise Unverified(f"log {excerpt(self.base_url)}: its id is not the digest of its key")
        return key


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """Everything that a verifier believes beforehand."""

    authorities: tuple[Authority, ...] = ()
    logs: tuple[Log, ...] = ()
    certificate_logs: tuple[Log, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> TrustRoot:
        """Return the trust root in JSON `data`; timestamp authorities are passed over. Raises `Malformed`."""
        value = parse_json(data)
        media_type = value.get("mediaType") if isinstance(value, dict) else None
        if not isinstance(media_type, str) or not media_type.startswith(_MEDIA_PREFIX):
            raise Malformed(f"expected a trust root ({MEDIA_TYPE}), got {excerpt(media_type)}")
        return cls(
            tuple(_authority(item) for item in _items(value, "certificateAuthorities")),
            tuple(_log(item) for item in _items(value, "tlogs")),
            tuple(_log(item) for item in _items(value, "ctlogs")),
        )

    def encode(self) -> bytes:
        """Return the trust root as canonical JSON; `parse` reads it back."""
        return canonical(
            {
                "mediaType": MEDIA_TYPE,
                "certificateAuthorities": [
                    {
                        "uri": authority.uri,
                        "certChain": {"certificates": [{"rawBytes": _der(c)} for c in authority.certificates]},
                        "validFor": authority.period.to_json(),
                    }
                    for authority in self.authorities
                ],
                "tlogs": [_log_json(log) for log in self.logs],
                "ctlogs": [_log_json(log) for log in self.certificate_logs],
            }
        )

    def log(self, log_id: bytes, at: Instant) -> Log:
        """Return the log with the id `log_id`, believed at `at`. Raises `Unverified` when there is none."""
        for log in self.logs:
            if log.log_id == log_id and at in log.period:
                return log
        raise Unverified(f"expected an entry of a known log, got one of {log_id.hex()[:16]}")

    def spiffe_bundles(self, at: Instant) -> Bundles:
        """Return the SPIFFE bundle of each trust domain: its authorities that were believed at `at`."""
        found: dict[TrustDomain, list[x509.Certificate]] = {}
        for authority in self.authorities:
            if authority.uri.startswith(_SPIFFE) and at in authority.period:
                found.setdefault(TrustDomain.of(authority.uri), []).extend(authority.certificates)
        return {domain: SpiffeBundle(domain, tuple(certificates)) for domain, certificates in found.items()}


def of_trust_domain(domain: TrustDomain, authorities: Sequence[x509.Certificate], log_key: VerifierKey) -> TrustRoot:
    """Return the trust root of our own: the CA certificates of `domain`, the current and the earlier ones, and the log.

    The name of `log_key` is the log's origin.
    """
    believed = tuple(Authority(f"{_SPIFFE}{domain}", (certificate,)) for certificate in authorities)
    key = PublicKey(Ed25519PublicKey.from_public_bytes(log_key.raw))
    return TrustRoot(believed, (Log(f"https://{log_key.name}", key, log_key.digest),))


def _items(value: dict[str, Json], name: str) -> Iterable[dict[str, Json]]:
    items = value.get(name, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Malformed(f"trust root: expected {name} as a list of objects")
    return items


def _authority(value: dict[str, Json]) -> Authority:
    uri, chain = value.get("uri", ""), value.get("certChain")
    certificates = chain.get("certificates") if isinstance(chain, dict) else None
    if not isinstance(uri, str) or not isinstance(certificates, list) or not certificates:
        raise Malformed("trust root: expected an authority with a URI and certificates")
    if uri.startswith(_SPIFFE):
        TrustDomain.of(uri)
    return Authority(uri, tuple(_certificate(item) for item in certificates), _period(value.get("validFor")))


def _certificate(value: Json) -> x509.Certificate:
    data = decode_base64(value.get("rawBytes") if isinstance(value, dict) else None, "trust root certificate")
    try:
        return x509.load_der_x509_certificate(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise Malformed(f"trust root: expected a certificate in DER: {excerpt(str(error))}") from error


def _log(value: dict[str, Json]) -> Log:
    base_url, key, log_id = value.get("baseUrl"), value.get("publicKey"), value.get("logId")
    if not isinstance(base_url, str) or not isinstance(key, dict) or not isinstance(log_id, dict):
        raise Malformed("trust root: expected a log with baseUrl, publicKey and logId")
    return Log(
        base_url,
        PublicKey.from_der(decode_base64(key.get("rawBytes"), "trust root log key")),
        decode_base64(log_id.get("keyId"), "trust root log id"),
        _period(key.get("validFor")),
    )


def _log_json(log: Log) -> dict[str, Json]:
    return {
        "baseUrl": log.base_url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": base64.b64encode(log.key.der).decode(),
            "keyDetails": log.key.details,
            "validFor": log.period.to_json(),
        },
        "logId": {"keyId": base64.b64encode(log.log_id).decode()},
    }


def _period(value: Json) -> Period:
    if value is None:
        return Period()
    if not isinstance(value, dict):
        raise Malformed(f"trust root: expected validFor as an object, got {excerpt(value)}")
    start, end = value.get("start"), value.get("end")
    if not isinstance(start, str | None) or not isinstance(end, str | None):
        raise Malformed("trust root: expected start and end as times")
    return Period(parse_rfc3339(start) if start else 0, parse_rfc3339(end) if end else _FOREVER)


def _der(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
