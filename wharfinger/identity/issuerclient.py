"""What the parts of the platform ask of the issuer: typed requests, one method each, over mTLS.

Each request is authorised by the caller's SPIFFE ID: pods by `node`, persons and tokens by `admin`, signatures by
`control`, checkpoints by `registry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId


@dataclass(frozen=True, slots=True)
class PodRegistration:
    """A pod, or one container of it, whose processes may have an SVID.

    `folder` is where its Workload API socket `workload.sock` is made. Its processes are those of the pid namespace with
    the inode `pidns`; 0, or the host's own, where pods are not isolated: then they are the descendants of `pid`. `pid`
    is the process that holds it up, inside or its parent outside; with it the pod's identity ends. It started `ticks`
    clock ticks after boot (`/proc/PID/stat`, field 22).
    """

    uid: str
    spiffe_id: SpiffeId
    folder: Path
    pidns: int
    pid: int
    ticks: int
    container: str = ""


@dataclass(frozen=True, slots=True)
class IssuerRoot:
    """What the issuer says to be believed: CA certificates, the log's key (C2SP vkey), JWT authorities (JWKS)."""

    trust_domain: str
    authorities: tuple[x509.Certificate, ...]
    log_key: str
    jwt_authorities: dict[str, Any]


class IssuerClient:
    """Speaks to the issuer on `host` and `port` as the process whose identity `source` holds; threads share it.

    Methods raise `Denied` when the caller may not ask this, `Invalid` or `Malformed` for a request that is not well
    formed, `Conflict` for a checkpoint that does not follow, `Unavailable` when the issuer does not answer.
    """

    def __init__(self, host: str, port: int, source: SvidSource) -> None:
        self._host = host
        self._port = port
        self._source = source

    def register_pod(self, pod: PodRegistration) -> Path:
        """Have `pod` known and its socket made; return the socket's path. Node only; again is the same."""
        raise NotImplementedError

    def forget_pod(self, uid: str) -> None:
        """Have the pod forgotten and its socket gone; an unknown one is no error. Node only."""
        raise NotImplementedError

    def pods(self) -> tuple[PodRegistration, ...]:
        """Return the pods that are known, for the node to compare with its own. Node only."""
        raise NotImplementedError

    def person_certificate(self, tenant: str, user: str, public_key_pem: str, ttl_seconds: int = 0) -> bytes:
        """Return the X.509-SVID chain of `user` of `tenant` as PEM over their public key; 0 is the default TTL.

        Admin only.
        """
        raise NotImplementedError

    def token(self, holder: SpiffeId, audience: str, ttl_seconds: int = 0) -> str:
        """Return a JWT-SVID of the person `holder` for `audience`; 0 is the default TTL. Admin only."""
        raise NotImplementedError

    def sign_statement(self, statement: dict[str, Any], signer: SpiffeId) -> dict[str, Any]:
        """Return the sigstore bundle, still without a log entry, of an in-toto `statement` by `signer`.

        `signer` is `.../wharfinger/control` or `.../wharfinger/builder`. Control only.
        """
        raise NotImplementedError

    def sign_checkpoint(self, origin: str, size: int, root: bytes, proof: Sequence[bytes]) -> str:
        """Return the signed note of a checkpoint that follows the last one signed; `proof` shows that it does.

        Registry only. Raises `Conflict` for a log that was rolled back or forked.
        """
        raise NotImplementedError

    def trust_root(self) -> IssuerRoot:
        """Return what verifiers of this trust domain believe. Anyone who is known may ask."""
        raise NotImplementedError

    def close(self) -> None:
        """Close this thread's connection."""
        raise NotImplementedError
