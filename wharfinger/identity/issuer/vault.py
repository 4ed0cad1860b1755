"""The vault: the only place where the trust domain's signing keys are, on disk and in memory.

Keys come in once, when the trust domain is made, and never go out: what leaves are signatures over what `authority`
builds. On disk it is one file, `keys.pem`, mode 0600, written at once: the root's key and certificate, the key for
JWT-SVIDs, the key of the transparency log, and a digest over all of it. Beside it lies the last checkpoint that was
signed (`checkpoint`).
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from wharfinger.core import failpoint
from wharfinger.core.clock import DAY, Instant, instant_of, rfc3339
from wharfinger.core.digests import sha256
from wharfinger.core.errors import Conflict, Corrupt, HostUnfit
from wharfinger.identity import jwk
from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.issuer import certificates
from wharfinger.identity.spiffeid import TrustDomain
from wharfinger.identity.x509svid import extension

ROOT_LIFE: Final = 3653 * DAY
"""How long the root is believed: ten years, since proofs verify against it long after their SVIDs are gone."""
_BEFORE, _AFTER = failpoint.declare("issuer.keys")
_CHECKPOINT_BEFORE, _CHECKPOINT_AFTER = failpoint.declare("issuer.checkpoint")
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z ]+)-----[A-Za-z0-9+/=\s]+-----END \1-----\n", re.ASCII)
_P256_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a trust domain."""

    root: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    jwt: ec.EllipticCurvePrivateKey
    log: ed25519.Ed25519PrivateKey

    def __repr__(self) -> str:
        """Show nothing of the keys."""
        return "_Keys(...)"


class Vault:
    """The keys of `trust_domain`, kept in `folder`; made there when there are none yet. Threads share it.

    Raises `HostUnfit` when the folder cannot be read or written or the clock stands before the root was made,
    `Corrupt` when what is stored is not whole, `Conflict` when it belongs to another trust domain.
    """

    def __init__(self, folder: Path, trust_domain: TrustDomain, now: Instant) -> None:
        self._folder = folder
        self.trust_domain = trust_domain
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
            _sweep(folder)
            self._keys = _opened(folder / "keys.pem", trust_domain, now)
        except OSError as error:
            raise HostUnfit(f"the issuer's keys: {error.strerror}", hint=f"fix the permissions of {folder}") from error

    @property
    def root(self) -> x509.Certificate:
        """The root's certificate."""
        return self._keys.certificate

    @property
    def jwt_authorities(self) -> dict[str, ec.EllipticCurvePublicKey]:
        """The public key of JWT-SVIDs under its id."""
        key = self._keys.jwt.public_key()
        return {jwk.thumbprint(key): key}

    @property
    def log_key(self) -> bytes:
        """The public key of the log's checkpoints, 32 bytes of Ed25519."""
        return self._keys.log.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign_certificate(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Return the certificate that `builder` describes, issued by the root."""
        return builder.sign(self._keys.root, hashes.SHA256())

    def sign_token(self, signed: bytes) -> bytes:
        """Return the ES256 signature (r || s, RFC 7518 3.4) over header and payload of a JWT-SVID."""
        r, s = decode_dss_signature(self._keys.jwt.sign(signed, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")

    def sign_checkpoint(self, text: str) -> bytes:
        """Return the Ed25519 signature over the text of a checkpoint; whether it follows is judged before."""
        return self._keys.log.sign(text.encode())

    def last_checkpoint(self) -> bytes:
        """Return the signed note that was kept last, empty when there is none. Raises `HostUnfit`."""
        try:
            return (self._folder / "checkpoint").read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise HostUnfit(f"the issuer's checkpoint: {error.strerror}") from error

    def keep_checkpoint(self, note: bytes) -> None:
        """Keep `note` durably; raises `HostUnfit`. Only what is kept may be told to anyone."""
        failpoint.reached(_CHECKPOINT_BEFORE)
        try:
            _write(self._folder / "checkpoint", note)
        except OSError as error:
            raise HostUnfit(f"the issuer's checkpoint: {error.strerror}", hint="free space on the disk") from error
        failpoint.reached(_CHECKPOINT_AFTER)


def _opened(path: Path, trust_domain: TrustDomain, now: Instant) -> _Keys:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        keys = _made(trust_domain, now)
        failpoint.reached(_BEFORE)
        _write(path, _encoded(keys))
        failpoint.reached(_AFTER)
        return keys
    if path.stat().st_mode & 0o077:
        raise HostUnfit(f"{path.name}: expected mode 0600, others can read it", hint=f"chmod 600 {path}")
    keys = _decoded(data)
    owner = certificates.trust_domain_of(keys.certificate)
    if owner != trust_domain:
        raise Conflict(
            f"the keys on this state directory are those of trust domain {owner}, not of {trust_domain}",
            hint=f"start with --trust-domain {owner}, or with another state directory",
        )
    made = instant_of(keys.certificate.not_valid_before_utc)
    if now < made:
        raise HostUnfit(
            f"the clock says {rfc3339(now)}, the trust domain was made at {rfc3339(made)}", hint="set the clock right"
        )
    return keys


def _made(trust_domain: TrustDomain, now: Instant) -> _Keys:
    root = ec.generate_private_key(ec.SECP256R1())
    builder = certificates.root(trust_domain, root.public_key(), now, now + ROOT_LIFE)
    return _Keys(
        root,
        builder.sign(root, hashes.SHA256()),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
    )


def _encoded(keys: _Keys) -> bytes:
    pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
    blocks = b"".join(
        (
            keys.root.private_bytes(pem, pkcs8, NoEncryption()),
            keys.certificate.public_bytes(pem),
            keys.jwt.private_bytes(pem, pkcs8, NoEncryption()),
            keys.log.private_bytes(pem, pkcs8, NoEncryption()),
        )
    )
    # A key with a bit changed is another key, and reads as well: the last line tells them apart.
    return blocks + sha256(blocks).encode() + b"\n"


def _decoded(data: bytes) -> _Keys:
    """Return the keys in `data`. Raises `Corrupt`; nothing of what was read is in the message."""
    text, _, digest = data[:-1].rpartition(b"\n")
    blocks = [block.group(0) for block in _BLOCK.finditer(data)]
    try:
        if len(blocks) != 4 or sha256(text + b"\n").encode() != digest:
            raise Corrupt("the issuer's keys.pem is not what was written", hint="restore it from a backup")
        root, jwt, log = (load_pem_private_key(blocks[index], None) for index in (0, 2, 3))
        certificate = x509.load_pem_x509_certificate(blocks[1])
        constraints = extension(certificate, x509.BasicConstraints)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, BadIdentity) as error:
        raise Corrupt("the issuer's keys.pem cannot be read", hint="restore it from a backup") from error
    whole = (
        isinstance(root, ec.EllipticCurvePrivateKey)
        and isinstance(jwt, ec.EllipticCurvePrivateKey)
        and isinstance(log, ed25519.Ed25519PrivateKey)
        and constraints is not None
        and constraints.value.ca
        and certificate.public_key() == root.public_key()
    )
    if not whole:
        raise Corrupt("the issuer's keys.pem: keys and certificate do not belong together")
    assert isinstance(root, ec.EllipticCurvePrivateKey)
    assert isinstance(jwt, ec.EllipticCurvePrivateKey)
    assert isinstance(log, ed25519.Ed25519PrivateKey)
    return _Keys(root, certificate, jwt, log)


def _sweep(folder: Path) -> None:
    """Remove what a write that a crash cut short left behind: it may hold keys that nobody uses."""
    for path in folder.glob(".*.new"):
        path.unlink()


def _write(path: Path, data: bytes) -> None:
    """Write `data` at once and durably: after a crash the file holds the old bytes or the new. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
