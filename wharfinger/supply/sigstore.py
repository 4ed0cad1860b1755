"""Verifying what was signed with the public Sigstore instance, or one like it, offline (OMS 8.2, method sigstore).

Fulcio gave a certificate of minutes to whoever an OIDC issuer said they were, Rekor noted the signature and when. Both,
and the certificate transparency logs, are believed for the keys of a trust root that the verifier holds beforehand.
Read only: Wharfinger signs by SVIDs (`supply.signing`).
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.certificate_transparency import SignedCertificateTimestamp
from cryptography.x509.oid import ExtendedKeyUsageOID

from wharfinger.core.clock import SECOND, Instant, instant_of
from wharfinger.core.document import Json, canonical, parse_json
from wharfinger.core.errors import Malformed, Unverified, WharfingerError, excerpt
from wharfinger.identity.chain import validate
from wharfinger.supply import dsse
from wharfinger.supply.bundle import Bundle, Chain, LogEntry
from wharfinger.supply.publickey import PublicKey, decode_base64
from wharfinger.supply.signing import Signed, certificate_names
from wharfinger.supply.statement import Statement
from wharfinger.supply.tlog.checkpoint import Checkpoint
from wharfinger.supply.tlog.merkle import leaf_hash, verify_inclusion
from wharfinger.supply.tlog.note import Note
from wharfinger.supply.trustroot import Log, TrustRoot

_ISSUER: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_OLD_ISSUER: Final = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_KIND: Final = ("dsse", "0.0.1")


def verify_sigstore(bundle: Bundle, trust: TrustRoot, identity: str, issuer: str) -> Signed:
    """Return what `bundle` says, signed by `identity` as the OIDC `issuer` knows them.

    1. The envelope's signature is by the key of the bundle's certificate.
    2. Rekor promised the entry, and its checkpoint's tree holds it.
    3. The entry speaks of this very signature.
    4. At the entry's time a Fulcio of the trust root had issued the certificate, for signing code.
    5. A certificate transparency log of the trust root had seen it.
    6. It is of `identity`, vouched for by `issuer`.
    7. The payload is an in-toto statement.

    Raises `Unverified` or `Malformed`.
    """
    if not isinstance(bundle.material, Chain):
        raise Unverified("expected a bundle signed by a certificate, got one signed by a bare key")
    leaf = bundle.material.leaf
    # (1)
    payload = dsse.verify(bundle.envelope, [PublicKey.of(leaf)])
    # (2)
    entry = _entry(bundle)
    at = entry.seconds * SECOND
    log = trust.log(entry.log_id, at)
    _check_promise(entry, log)
    _check_inclusion(entry, log)
    # (3)
    _check_body(entry, bundle, leaf)
    # (4)
    above = _check_path(leaf, trust, at)
    # (5)
    _check_seen(leaf, above, trust)
    # (6)
    _check_identity(leaf, identity, issuer)
    # (7)
    return Signed(Statement.parse(payload), identity, at, entry.index)


def _entry(bundle: Bundle) -> LogEntry:
    for entry in bundle.entries:
        if (entry.kind, entry.version) == _KIND:
            return entry
    raise Unverified("expected an entry in the transparency log, got none")


def _check_promise(entry: LogEntry, log: Log) -> None:
    """Check Rekor's signature over entry and time (the signed entry timestamp)."""
    if not entry.promise:
        raise Unverified("log entry: expected a signed entry timestamp")
    promised = {
        "body": base64.b64encode(entry.body).decode(),
        "integratedTime": entry.seconds,
        "logID": entry.log_id.hex(),
        "logIndex": entry.index,
    }
    log.key.verify(entry.promise, canonical(promised))


def _check_inclusion(entry: LogEntry, log: Log) -> None:
    proof = entry.proof
    if proof is None:
        raise Unverified("log entry: expected an inclusion proof")
    verify_inclusion(proof.index, proof.size, leaf_hash(entry.body), proof.hashes, proof.root)
    note = Note.parse(proof.checkpoint.encode())
    checkpoint = Checkpoint.parse(note.text)
    if (checkpoint.size, checkpoint.root) != (proof.size, proof.root):
        raise Unverified("log entry: the proof is for another tree than the checkpoint's")
    for line in note.signatures:
        if line.name == log.origin and line.key_id == log.log_id[:4]:
            log.key.verify(line.signature, note.text.encode())
            return
    raise Unverified(f"checkpoint: expected a signature of {log.origin}")


def _check_body(entry: LogEntry, bundle: Bundle, leaf: x509.Certificate) -> None:
    spec = _spec(parse_json(entry.body))
    signatures = spec.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise Malformed("log entry: expected one signature")
    digest = _object(spec.get("payloadHash")).get("value")
    signed = decode_base64(signatures[0].get("signature"), "log entry signature")
    certificate = decode_base64(signatures[0].get("verifier"), "log entry verifier")
    if (
        digest != hashlib.sha256(bundle.envelope.payload).hexdigest()
        or [signature.signature for signature in bundle.envelope.signatures] != [signed]
        or certificate.strip() != leaf.public_bytes(Encoding.PEM).strip()
    ):
        raise Unverified("log entry: it speaks of another signature")


def _spec(value: Json) -> dict[str, Json]:
    body = _object(value)
    if (body.get("kind"), body.get("apiVersion")) != _KIND:
        raise Malformed(f"log entry: expected dsse 0.0.1, got {excerpt(body.get('kind'))}")
    return _object(body.get("spec"))


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise Malformed(f"log entry: expected an object, got {excerpt(value)}")
    return value


def _check_path(leaf: x509.Certificate, trust: TrustRoot, at: Instant) -> x509.Certificate:
    """Return the certificate that issued `leaf`, on a path to an authority that was believed at `at`."""
    believed = [a for a in trust.authorities if at in a.period and not a.uri.startswith("spiffe://")]
    trouble: WharfingerError | None = None
    for authority in believed:
        try:
            path = validate(leaf, authority.certificates[:-1], authority.certificates[-1:], at)
        except WharfingerError as error:
            trouble = error
            continue
        _check_code_signing(leaf)
        return path[1]
    raise Unverified(f"certificate: {trouble or 'no authority was believed at that time'}")


def _check_code_signing(leaf: x509.Certificate) -> None:
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise Unverified("certificate: expected an extended key usage") from error
    if ExtendedKeyUsageOID.CODE_SIGNING not in uses:
        raise Unverified("certificate: expected one for signing code")


def _check_seen(leaf: x509.Certificate, above: x509.Certificate, trust: TrustRoot) -> None:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps)
        stamps = list(extension.value)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise Unverified("certificate: expected the timestamp of a certificate transparency log") from error
    for stamp in stamps:
        at = instant_of(stamp.timestamp.replace(tzinfo=leaf.not_valid_before_utc.tzinfo))
        for log in trust.certificate_logs:
            if log.log_id == stamp.log_id and at in log.period:
                log.key.verify(stamp.signature, _stamped(stamp, at, leaf, above))
                return
    raise Unverified("certificate: no certificate transparency log of the trust root has seen it")


def _stamped(stamp: SignedCertificateTimestamp, at: Instant, leaf: x509.Certificate, above: x509.Certificate) -> bytes:
    """Return what a log signs of a certificate that it saw before it was issued (RFC 6962 3.2)."""
    issuer = above.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = leaf.tbs_precertificate_bytes
    return b"".join(
        (
            b"\x00\x00",
            (at // 1_000_000).to_bytes(8, "big"),
            b"\x00\x01",
            hashlib.sha256(issuer).digest(),
            len(body).to_bytes(3, "big"),
            body,
            len(stamp.extension_bytes).to_bytes(2, "big"),
            stamp.extension_bytes,
        )
    )


def _check_identity(leaf: x509.Certificate, identity: str, issuer: str) -> None:
    names = certificate_names(leaf)
    if identity not in names:
        raise Unverified(f"expected a certificate of {excerpt(identity)}, got one of {excerpt(', '.join(names))}")
    told = _issuer(leaf)
    if told != issuer:
        raise Unverified(f"expected a certificate vouched for by {excerpt(issuer)}, got one by {excerpt(told)}")


def _issuer(leaf: x509.Certificate) -> str:
    """Return the OIDC issuer that Fulcio asked (its extensions 1.8, as UTF8String, and 1.1, as bare text)."""
    found: dict[x509.ObjectIdentifier, bytes] = {
        extension.oid: extension.value.value
        for extension in leaf.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    try:
        if _ISSUER in found:
            value = found[_ISSUER]
            if value[:1] != b"\x0c" or len(value) < 2 or value[1] != len(value) - 2 or value[1] > 127:
                raise Unverified("certificate: expected its issuer as a UTF8String")
            return value[2:].decode("utf-8")
        return found.get(_OLD_ISSUER, b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unverified("certificate: expected its issuer in UTF-8") from error
