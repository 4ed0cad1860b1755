"""What the parts of the platform ask of the issuer: typed requests, one method each, over mTLS.

Each request is authorised by the caller's SPIFFE ID: pods by `node`, persons and tokens by `admin`, signatures by
`control`, checkpoints by `registry`.
"""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from cryptography import x509

from wharfinger.cluster.client import error_of
from wharfinger.core.document import Json, canonical, parse_json
from wharfinger.core.errors import Invalid, Malformed, Unavailable, WharfingerError, excerpt
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context
from wharfinger.identity.x509svid import certificates_from_pem

TIMEOUT_SECONDS: Final = 30.0
LARGEST_ANSWER: Final = 128 * 1024 * 1024


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


def pod_json(pod: PodRegistration) -> dict[str, Json]:
    """Return the registration as a JSON object; `pod_of` reads it back."""
    return {
        "uid": pod.uid,
        "container": pod.container,
        "spiffeId": str(pod.spiffe_id),
        "folder": str(pod.folder),
        "pidns": pod.pidns,
        "pid": pod.pid,
        "ticks": pod.ticks,
    }


def pod_of(value: Json) -> PodRegistration:
    """Return the registration in a decoded JSON `value`. Raises `Malformed`, `Invalid` or `BadIdentity`."""
    if not isinstance(value, dict):
        raise Malformed(f"expected an object, got {excerpt(value)}")
    folder = Path(_text(value, "folder"))
    if not folder.is_absolute():
        raise Invalid(f"folder: expected an absolute path, got {excerpt(folder)}")
    return PodRegistration(
        uid=_text(value, "uid"),
        spiffe_id=SpiffeId(_text(value, "spiffeId")),
        folder=folder,
        pidns=_number(value, "pidns"),
        pid=_number(value, "pid"),
        ticks=_number(value, "ticks"),
        container=_text(value, "container") if value.get("container") else "",
    )


@dataclass(frozen=True, slots=True)
class IssuerRoot:
    """What the issuer says to be believed: CA certificates, the log's key (C2SP vkey), JWT authorities (JWKS).

    The name in `log_key` is the log's origin; `log_checkpoint` is the note of its last checkpoint, empty before any.
    """

    trust_domain: str
    authorities: tuple[x509.Certificate, ...]
    log_key: str
    jwt_authorities: dict[str, Any]
    log_checkpoint: str = ""


class IssuerClient:
    """Speaks to the issuer on `host` and `port` as the process whose identity `source` holds; threads share it.

    Methods raise `Denied` when the caller may not ask this, `Invalid` or `Malformed` for a request that is not well
    formed, `Conflict` for a checkpoint that does not follow or a pod whose process is gone, `Unavailable` when the
    issuer does not answer.
    """

    def __init__(self, host: str, port: int, source: SvidSource) -> None:
        self._host = host
        self._port = port
        self._source = source
        self._local = threading.local()

    def register_pod(self, pod: PodRegistration) -> Path:
        """Have `pod` known and its socket made; return the socket's path. Node only; again is the same."""
        return Path(str(self._ask("POST", "/v1/pods", pod_json(pod))["socket"]))

    def forget_pod(self, uid: str) -> None:
        """Have the pod forgotten, every container of it; an unknown one is no error. Node only."""
        self._ask("DELETE", f"/v1/pods/{quote(uid, safe='')}")

    def pods(self) -> tuple[PodRegistration, ...]:
        """Return the pods that are known, for the node to compare with its own. Node only."""
        return tuple(pod_of(pod) for pod in self._ask("GET", "/v1/pods")["pods"])

    def person_certificate(self, tenant: str, user: str, public_key_pem: str, ttl_seconds: int = 0) -> bytes:
        """Return the X.509-SVID chain of `user` of `tenant` as PEM over their public key; 0 is the default TTL.

        Admin only.
        """
        body = {"tenant": tenant, "user": user, "publicKeyPem": public_key_pem, "ttlSeconds": ttl_seconds}
        return str(self._ask("POST", "/v1/persons", body)["certificates"]).encode("ascii")

    def token(self, holder: SpiffeId, audience: str, ttl_seconds: int = 0) -> str:
        """Return a JWT-SVID of the person `holder` for `audience`; 0 is the default TTL. Admin only."""
        body = {"spiffeId": str(holder), "audience": audience, "ttlSeconds": ttl_seconds}
        return str(self._ask("POST", "/v1/tokens", body)["token"])

    def sign_statement(self, statement: dict[str, Any], signer: SpiffeId) -> dict[str, Any]:
        """Return the sigstore bundle, still without a log entry, of an in-toto `statement` by `signer`.

        `signer` is `.../wharfinger/control` or `.../wharfinger/builder`. Control only.
        """
        bundle = self._ask("POST", "/v1/signatures", {"statement": statement, "signer": str(signer)})["bundle"]
        if not isinstance(bundle, dict):
            raise Unavailable("expected a bundle from the issuer")
        return bundle

    def sign_checkpoint(self, origin: str, size: int, root: bytes, proof: Sequence[bytes]) -> str:
        """Return the signed note of a checkpoint that follows the last one signed; `proof` shows that it does.

        Registry only. Raises `Conflict` for a log that was rolled back or forked.
        """
        body = {"origin": origin, "size": size, "root": _base64(root), "proof": [_base64(item) for item in proof]}
        return str(self._ask("POST", "/v1/checkpoints", body)["note"])

    def trust_root(self) -> IssuerRoot:
        """Return what verifiers of this trust domain believe. Anyone who is known may ask."""
        told = self._ask("GET", "/v1/trust-root")
        return IssuerRoot(
            trust_domain=str(told["trustDomain"]),
            authorities=certificates_from_pem("".join(told["x509Authorities"]).encode("ascii")),
            log_key=str(told["logKey"]),
            log_checkpoint=str(told.get("logCheckpoint", "")),
            jwt_authorities=told["jwtAuthorities"],
        )

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _ask(self, method: str, path: str, body: Json = None) -> dict[str, Any]:
        data = None if body is None else canonical(body)
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if data else {})}
        for attempt in (1, 2):
            connection, fresh = self._connected()
            try:
                connection.request(method, path, body=data, headers=headers)
                answer = connection.getresponse()
                return _read(answer.status, answer.read(LARGEST_ANSWER))
            except (OSError, http.client.HTTPException) as error:
                self.close()
                # Each of these requests may be made twice; a kept connection that the issuer closed says nothing.
                if fresh or attempt == 2:
                    raise Unavailable(
                        f"the issuer does not answer: {error or type(error).__name__}",
                        hint="wharf status shows what runs",
                    ) from error
        raise AssertionError("unreachable")

    def _connected(self) -> tuple[http.client.HTTPSConnection, bool]:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            return connection, False
        expected = SpiffeId.part(self._source.material().svid.id.trust_domain, "issuer")
        connection = self._local.connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=TIMEOUT_SECONDS, context=client_context(self._source, expect=expected)
        )
        return connection, True


def _read(status: int, data: bytes) -> dict[str, Any]:
    try:
        told = parse_json(data, limit=LARGEST_ANSWER)
    except WharfingerError:
        told = None
    if status >= 400:
        known = isinstance(told, dict) and "message" in told
        raise error_of(told if known else {"message": f"the issuer answered {status}"}, status)
    if not isinstance(told, dict):
        raise Unavailable("expected a JSON object from the issuer")
    return told


def _text(value: dict[str, Json], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text or "\0" in text:
        raise Invalid(f"{name}: expected a text, got {excerpt(text)}")
    return text


def _number(value: dict[str, Json], name: str) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**63:
        raise Invalid(f"{name}: expected a number from 0, got {excerpt(number)}")
    return number


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
