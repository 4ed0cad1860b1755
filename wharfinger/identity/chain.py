"""Certification paths: from a leaf over signing certificates to one authority of one bundle (RFC 5280 6.1).

`cryptography`'s verifier decides. When it says no, a second, simple walk names the reason, since "no path"
helps nobody; the walk never turns a no into a yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import verification
from cryptography.x509.oid import ExtensionOID

from wharfinger.core.clock import Instant, datetime_of, rfc3339
from wharfinger.core.errors import excerpt
from wharfinger.identity.fault import UntrustedIdentity

MAX_DEPTH: Final = 16
"""The most signing certificates between a leaf and its authority."""

_KNOWN_CRITICAL: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
    }
)
_UNREADABLE: Final = (x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
# What an extension must say is checked by `x509svid`; here every path rule of RFC 5280 holds, none of the web's.
_ANY: Final = verification.ExtensionPolicy.permit_all()
_CA: Final = _ANY.require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, None)


def validate(
    leaf: x509.Certificate, signers: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], now: Instant
) -> tuple[x509.Certificate, ...]:
    """Return the path from `leaf` to one of the `authorities` that holds at `now`, leaf first, authority last.

    `signers` may come in any order and may hold certificates that the path does not need.
    Raises `UntrustedIdentity` when there is no such path.
    """
    for certificate in (leaf, *signers):
        _check_readable(certificate)
    if not authorities:
        raise UntrustedIdentity("unknown_authority", "expected an authority that vouches, the bundle holds none")
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(authorities)))
        .time(datetime_of(now).replace(tzinfo=None, microsecond=0))
        .max_chain_depth(MAX_DEPTH)
        .extension_policies(ca_policy=_CA, ee_policy=_ANY)
        .build_client_verifier()
    )
    try:
        return tuple(verifier.verify(leaf, list(signers)).chain)
    except verification.VerificationError as error:
        raise _diagnosis(leaf, signers, authorities, now) or UntrustedIdentity(
            "no_path", f"expected a certification path: {excerpt(str(error))}"
        ) from error
    except ValueError as error:
        raise UntrustedIdentity("no_path", f"expected readable certificates: {excerpt(str(error))}") from error


def _check_readable(certificate: x509.Certificate) -> None:
    """Raise `UntrustedIdentity` unless each field can be read: most are read when they are asked for."""
    try:
        _ = (certificate.subject, certificate.issuer, certificate.signature_hash_algorithm, certificate.extensions)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm, *_UNREADABLE) as error:
        raise UntrustedIdentity(
            "certificate_unparseable", f"expected a readable certificate: {excerpt(str(error))}"
        ) from error


def _diagnosis(
    leaf: x509.Certificate, signers: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], now: Instant
) -> UntrustedIdentity | None:
    """Return why no path from `leaf` holds, None when the walk finds nothing wrong with the first path that it sees."""
    current, below = leaf, 0
    while True:
        fault = _fault_of(current, now)
        if fault is not None:
            return fault
        if current in authorities:
            return None
        named = [c for c in (*authorities, *signers) if _may_have_issued(c, current) and c != current]
        if not named:
            return _untrusted("unknown_authority", current, "no authority of its trust domain issued it")
        issuers = [c for c in named if _signed(c, current)]
        if not issuers:
            return _untrusted("bad_signature", current, "its signature is not its issuer's")
        # A path over a valid issuer is the better story, when there is one.
        current = next((c for c in issuers if _fault_of(c, now) is None), issuers[0])
        if below > MAX_DEPTH:
            return _untrusted("unknown_authority", current, "its signing certificates lead to no authority")
        fault = _constraint_fault(current, leaf, below)
        if fault is not None:
            return fault
        below += 1


def _fault_of(certificate: x509.Certificate, now: Instant) -> UntrustedIdentity | None:
    moment = datetime_of(now).replace(microsecond=0)
    if moment < certificate.not_valid_before_utc:
        return _untrusted("not_yet_valid", certificate, f"at {rfc3339(now)} it is not valid yet")
    if moment > certificate.not_valid_after_utc:
        return _untrusted("expired", certificate, f"at {rfc3339(now)} it is no longer valid")
    if isinstance(certificate.signature_hash_algorithm, hashes.SHA1 | hashes.MD5):
        return _untrusted("weak_signature", certificate, "it is signed over a broken hash")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            oid = extension.oid.dotted_string
            return _untrusted("unknown_critical_extension", certificate, f"it holds the critical extension {oid}")
    return None


def _constraint_fault(issuer: x509.Certificate, leaf: x509.Certificate, below: int) -> UntrustedIdentity | None:
    """Return what in `issuer` forbids a path to `leaf` with `below` signing certificates in between."""
    for extension in issuer.extensions:
        if isinstance(extension.value, x509.NameConstraints):
            return _untrusted("name_constraint", issuer, "it constrains names, which is not supported for SPIFFE IDs")
        if isinstance(extension.value, x509.BasicConstraints):
            limit = extension.value.path_length
            if limit is not None and below > limit:
                return _untrusted("path_too_long", leaf, f"its issuer allows {limit} signing certificates, got {below}")
    return None


def _may_have_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Say whether names and key ids (RFC 5280 4.2.1.1) allow that `issuer` issued `certificate`."""
    if issuer.subject != certificate.issuer:
        return False
    wanted = next(
        (e.value.key_identifier for e in certificate.extensions if isinstance(e.value, x509.AuthorityKeyIdentifier)),
        None,
    )
    offered = next((e.value.digest for e in issuer.extensions if isinstance(e.value, x509.SubjectKeyIdentifier)), None)
    return wanted is None or offered is None or wanted == offered


def _signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _untrusted(reason: str, certificate: x509.Certificate, text: str) -> UntrustedIdentity:
    return UntrustedIdentity(reason, f"certificate {certificate.serial_number:x}: {text}")
