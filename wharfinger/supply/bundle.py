"""Bundles: an envelope with what is needed to verify it (Sigstore bundle v0.3, as OMS section 4 uses it).

Parsing only: whether anything holds is judged in `supply.signing` and `supply.sigstore`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from wharfinger.core.document import Json, canonical, parse_json
from wharfinger.core.errors import Malformed, TooLarge, excerpt
from wharfinger.supply.dsse import Envelope, is_unicode
from wharfinger.supply.publickey import decode_base64

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
LARGEST_BUNDLE: Final = 16 * 1024 * 1024
MOST_CERTIFICATES: Final = 16
MOST_LOG_ENTRIES: Final = 16
MOST_HASHES: Final = 64
_MEDIA_TYPES: Final = re.compile(
    r"application/vnd\.dev\.sigstore\.bundle(\.v0\.[1-3]\+json|\+json;version=0\.[1-3])", re.ASCII
)
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyHint:
    """The bundle was signed by a bare key; `hint` and `pem` say which, and prove nothing."""

    hint: str = ""
    pem: bytes = b""


@dataclass(frozen=True, slots=True)
class Chain:
    """The bundle was signed by the key of the first certificate; the others lead towards an authority.

    `single` is how it is written: one certificate by itself, as Fulcio and our issuer give it, or a chain.
    """

    certificates: tuple[x509.Certificate, ...]
    single: bool = False

    @property
    def leaf(self) -> x509.Certificate:
        """The signer's certificate."""
        return self.certificates[0]


Material: TypeAlias = KeyHint | Chain


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Why a leaf is in a log: its `index` in the tree of `size` and `root`; `checkpoint` is the signed note."""

    index: int
    size: int
    root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str

    def to_json(self) -> dict[str, Json]:
        """Return the proof as a JSON object (sigstore_rekor.proto, InclusionProof)."""
        return {
            "logIndex": str(self.index),
            "treeSize": str(self.size),
            "rootHash": base64.b64encode(self.root).decode(),
            "hashes": [base64.b64encode(value).decode() for value in self.hashes],
            "checkpoint": {"envelope": self.checkpoint},
        }


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of a transparency log (sigstore_rekor.proto, TransparencyLogEntry).

    `body` are the bytes that the log holds; `seconds` the POSIX second at which it took them, 0 where the log
    says none; `promise` a signed entry timestamp, empty where there is none.
    """

    index: int
    log_id: bytes
    kind: str
    version: str
    seconds: int
    body: bytes
    proof: InclusionProof | None = None
    promise: bytes = b""

    def to_json(self) -> dict[str, Json]:
        """Return the entry as a JSON object; `parse_entry` reads it back."""
        value: dict[str, Json] = {
            "logIndex": str(self.index),
            "logId": {"keyId": base64.b64encode(self.log_id).decode()},
            "kindVersion": {"kind": self.kind, "version": self.version},
            "integratedTime": str(self.seconds),
            "canonicalizedBody": base64.b64encode(self.body).decode(),
        }
        if self.proof is not None:
            value["inclusionProof"] = self.proof.to_json()
        if self.promise:
            value["inclusionPromise"] = {"signedEntryTimestamp": base64.b64encode(self.promise).decode()}
        return value


@dataclass(frozen=True, slots=True)
class Bundle:
    """A parsed bundle. Nothing about it is believed yet."""

    envelope: Envelope
    material: Material
    entries: tuple[LogEntry, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Return the bundle in JSON `data`. Raises `Malformed` or `TooLarge`."""
        return cls.of_json(parse_json(data, limit=LARGEST_BUNDLE))

    @classmethod
    def of_json(cls, value: Json) -> Bundle:
        """Return the bundle in a decoded JSON `value` (OMS schemas/v1.0/bundle). Raises `Malformed` or `TooLarge`."""
        bundle = _object(value, "bundle")
        unknown = set(bundle) - {"mediaType", "verificationMaterial", "dsseEnvelope"}
        if unknown:
            raise Malformed(f"bundle: expected no field {excerpt(min(unknown))}")
        media_type = bundle.get("mediaType")
        if not isinstance(media_type, str) or _MEDIA_TYPES.fullmatch(media_type) is None:
            raise Malformed(f"bundle: expected mediaType {MEDIA_TYPE}, got {excerpt(media_type)}")
        material = _object(bundle.get("verificationMaterial"), "bundle verificationMaterial")
        envelope = Envelope.of_json(_object(bundle.get("dsseEnvelope"), "bundle dsseEnvelope"))
        logged = material.get("tlogEntries")
        if "certificate" in material and logged is None:
            raise Malformed("bundle: expected tlogEntries beside a certificate")
        entries = _list(logged or [], MOST_LOG_ENTRIES, "tlogEntries")
        return cls(envelope, _material(material), tuple(parse_entry(entry) for entry in entries))

    def to_json(self) -> dict[str, Json]:
        """Return the bundle as a JSON object; `of_json` reads it back."""
        material: dict[str, Json]
        if isinstance(self.material, Chain):
            certificates = [{"rawBytes": _der(certificate)} for certificate in self.material.certificates]
            if self.material.single:
                material = {"certificate": certificates[0]}
            else:
                material = {"x509CertificateChain": {"certificates": certificates}}
        elif self.material.pem:
            material = {"publicKey": {"rawBytes": base64.b64encode(self.material.pem).decode()}}
        else:
            material = {"publicKey": {"hint": self.material.hint}}
        material["tlogEntries"] = [entry.to_json() for entry in self.entries]
        return {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": material,
            "dsseEnvelope": self.envelope.to_json(),
        }

    def encode(self) -> bytes:
        """Return the bundle as canonical JSON."""
        return canonical(self.to_json())


def parse_entry(value: Json) -> LogEntry:
    """Return the log entry in a decoded JSON `value`. Raises `Malformed`."""
    entry = _object(value, "log entry")
    kind = _object(entry.get("kindVersion"), "log entry kindVersion")
    name, version = kind.get("kind"), kind.get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        raise Malformed("log entry: expected a kind and a version")
    log_id = _object(entry.get("logId"), "log entry logId")
    promise = entry.get("inclusionPromise")
    proof = entry.get("inclusionProof")
    return LogEntry(
        index=_number(entry.get("logIndex"), "logIndex"),
        log_id=decode_base64(log_id.get("keyId"), "log entry keyId"),
        kind=name,
        version=version,
        seconds=_number(entry.get("integratedTime", "0"), "integratedTime"),
        body=decode_base64(entry.get("canonicalizedBody"), "log entry canonicalizedBody"),
        proof=None if proof is None else _proof(proof),
        promise=b""
        if promise is None
        else decode_base64(
            _object(promise, "inclusionPromise").get("signedEntryTimestamp"), "log entry signedEntryTimestamp"
        ),
    )


def _proof(value: Json) -> InclusionProof:
    proof = _object(value, "inclusion proof")
    checkpoint = _object(proof.get("checkpoint"), "inclusion proof checkpoint").get("envelope")
    if not isinstance(checkpoint, str) or not is_unicode(checkpoint):
        raise Malformed("inclusion proof: expected a checkpoint")
    hashes = _list(proof.get("hashes", []), MOST_HASHES, "hashes")
    return InclusionProof(
        index=_number(proof.get("logIndex", "0"), "logIndex"),
        size=_number(proof.get("treeSize"), "treeSize"),
        root=decode_base64(proof.get("rootHash"), "inclusion proof rootHash"),
        hashes=tuple(decode_base64(text, "inclusion proof hash") for text in hashes),
        checkpoint=checkpoint,
    )


def _material(value: Mapping[str, Json]) -> Material:
    named = [name for name in ("publicKey", "x509CertificateChain", "certificate") if value.get(name) is not None]
    if len(named) != 1:
        raise Malformed("bundle: expected one of publicKey, x509CertificateChain and certificate")
    content = _object(value[named[0]], f"bundle {named[0]}")
    if named[0] == "certificate":
        return Chain((_certificate(content),), single=True)
    if named[0] == "x509CertificateChain":
        certificates = _list(content.get("certificates"), MOST_CERTIFICATES, "certificates")
        if not certificates:
            raise Malformed("bundle: expected at least one certificate")
        return Chain(tuple(_certificate(item) for item in certificates))
    hint, raw = content.get("hint", ""), content.get("rawBytes")
    if not isinstance(hint, str) or not ("hint" in content or raw is not None):
        raise Malformed("bundle: expected a public key's hint or rawBytes")
    return KeyHint(hint, b"" if raw is None else decode_base64(raw, "bundle publicKey"))


def _certificate(value: Json) -> x509.Certificate:
    data = decode_base64(_object(value, "certificate").get("rawBytes"), "certificate")
    try:
        return x509.load_der_x509_certificate(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise Malformed(f"certificate: expected DER: {excerpt(str(error))}") from error


def _der(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def _object(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise Malformed(f"{what}: expected an object, got {excerpt(value)}")
    return value


def _list(value: Json, most: int, what: str) -> list[Json]:
    if not isinstance(value, list):
        raise Malformed(f"bundle: expected {what} as a list, got {excerpt(value)}")
    if len(value) > most:
        raise TooLarge(f"bundle: expected at most {most} {what}, got {len(value)}")
    return value


def _number(value: Json, what: str) -> int:
    """Protobuf's JSON writes 64-bit integers as text; a plain number is read too."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or _DECIMAL.fullmatch(text) is None:
        raise Malformed(f"log entry: expected {what} as a number, got {excerpt(value)}")
    return int(text)
