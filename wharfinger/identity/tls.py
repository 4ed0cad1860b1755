"""TLS with SVIDs: contexts that follow rotation, and peers known by their SPIFFE ID.

OpenSSL does the handshake and checks the chain against the authorities of the newest bundles; then the chain
is verified once more as X509-SVID 5 wants it, under the bundle of the leaf's own trust domain, before a byte
of the peer's is read. Every new handshake uses the source's newest material, an old connection keeps what it
began with. No session is ever resumed, since resumption skips verification.
"""

from __future__ import annotations

import _ssl
import contextlib
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeAlias

from wharfinger.core.clock import Clock
from wharfinger.core.errors import Unauthenticated, WharfingerError
from wharfinger.core.systemclock import SystemClock
from wharfinger.identity.source import Material, SvidSource
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.x509svid import certificates_from_der, certificates_to_pem, verify

ClientCerts: TypeAlias = Literal["required", "optional"]
Expect: TypeAlias = SpiffeId | Callable[[SpiffeId], bool] | None
"""Whom a caller accepts: one ID, those a predicate accepts, or None for anyone who verifies."""

_MODES: Final = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL}


def server_context(
    source: SvidSource, *, client_certs: ClientCerts = "optional", expect: Expect = None, clock: Clock | None = None
) -> ssl.SSLContext:
    """Return a server's context: TLS 1.3, this process's SVID, and clients by SVID.

    With `optional` a client may come without a certificate (its peer id is None, as for a bearer token); one
    that is presented must verify either way, and satisfy `expect`.
    """
    return _LiveContext(source, ssl.PROTOCOL_TLS_SERVER, _MODES[client_certs], expect, clock or SystemClock())


def client_context(source: SvidSource, *, expect: Expect, clock: Clock | None = None) -> ssl.SSLContext:
    """Return a client's context: TLS 1.3, this process's SVID, and a server that satisfies `expect`.

    The server is judged by its SPIFFE ID, never by its host name. Works wherever an `ssl.SSLContext` does:
    `http.client`, `asyncio`, uvloop, urllib3.
    """
    return _LiveContext(source, ssl.PROTOCOL_TLS_CLIENT, ssl.CERT_REQUIRED, expect, clock or SystemClock())


def peer_id(connection: object) -> SpiffeId | None:
    """Return the verified SPIFFE ID of the peer of a TLS `connection` that was made by a context of this module.

    `connection` is an `ssl.SSLSocket`, or the `ssl.SSLObject` that a transport gives as its `ssl_object`.
    None when the client presented no certificate, or for anything else: nobody is known then.
    """
    return connection.peer if isinstance(connection, _Socket | _Object) else None


class _LiveContext(ssl.SSLContext):
    """A context that stands for the context of the newest material."""

    def __new__(cls, source: SvidSource, protocol: int, *_: object) -> _LiveContext:
        return super().__new__(cls, protocol)

    def __init__(self, source: SvidSource, protocol: int, mode: ssl.VerifyMode, expect: Expect, clock: Clock) -> None:
        self.check_hostname = False
        self.verify_mode = mode
        self._source = source
        self._protocol = protocol
        self._expect = expect
        self._clock = clock
        self._lock = threading.Lock()
        self._current: tuple[Material, _Context] | None = None

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        return self._newest().wrap_socket(*args, **kwargs)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self._newest().wrap_bio(*args, **kwargs)

    def _newest(self) -> _Context:
        material = self._source.material()
        current = self._current
        if current is not None and current[0] is material:
            return current[1]
        context = _Context(self._protocol)
        context.prepare(material, self.verify_mode, self._expect, self._clock)
        with self._lock:
            self._current = (material, context)
        return context


class _Context(ssl.SSLContext):
    """A context of one material."""

    def prepare(self, material: Material, mode: ssl.VerifyMode, expect: Expect, clock: Clock) -> None:
        self.check_hostname = False
        self.verify_mode = mode
        self.minimum_version = ssl.TLSVersion.TLSv1_3
        self.options |= ssl.OP_NO_TICKET
        if self.protocol == ssl.PROTOCOL_TLS_SERVER:
            self.num_tickets = 0
        self.sslsocket_class = _Socket
        self.sslobject_class = _Object
        self._bundles = material.bundles
        self._expect = expect
        self._clock = clock
        authorities = [a for bundle in material.bundles.values() for a in bundle.x509_authorities]
        if authorities:
            self.load_verify_locations(cadata=certificates_to_pem(authorities).decode("ascii"))
        with _in_memory(material.svid.key_pem() + material.svid.chain_pem()) as path:
            self.load_cert_chain(path)

    def judge(self, chain: list[bytes]) -> SpiffeId | None:
        """Return the SPIFFE ID of the peer with this DER `chain`; raises `ssl.SSLCertVerificationError`."""
        if not chain:
            return None
        try:
            spiffe_id = verify(certificates_from_der(b"".join(chain)), self._bundles, self._clock.now())
            check_expected(spiffe_id, self._expect)
        except WharfingerError as error:
            raise ssl.SSLCertVerificationError(1, f"peer refused: {error}") from error
        return spiffe_id


def check_expected(spiffe_id: SpiffeId, expect: Expect) -> None:
    """Raise `Unauthenticated` unless `spiffe_id` satisfies `expect`."""
    if expect is None or spiffe_id == expect or (callable(expect) and expect(spiffe_id)):
        return
    wanted = expect if isinstance(expect, SpiffeId) else "a peer that may answer here"
    raise Unauthenticated(f"expected {wanted}, got {spiffe_id}")


class _Socket(ssl.SSLSocket):
    """A TLS socket that knows its peer's SPIFFE ID once the handshake is done."""

    peer: SpiffeId | None = None

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        self.peer = _judge(self.context, self._sslobj)  # type: ignore[attr-defined]


class _Object(ssl.SSLObject):
    """A TLS connection over memory that knows its peer's SPIFFE ID once the handshake is done."""

    peer: SpiffeId | None = None

    def do_handshake(self) -> None:
        super().do_handshake()
        self.peer = _judge(self.context, self._sslobj)  # type: ignore[attr-defined]


def _judge(context: ssl.SSLContext, connection: Any) -> SpiffeId | None:
    # `get_unverified_chain` is public from Python 3.13 on; 3.11 has it one level below. What OpenSSL built
    # is not asked for: the verification here builds its own path from what the peer sent.
    chain = connection.get_unverified_chain() or []
    assert isinstance(context, _Context)
    # A server's chain begins with None where the client showed no certificate.
    return context.judge([item.public_bytes(_ssl.ENCODING_DER) for item in chain if item is not None])


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """Give `data` a path without a file: `ssl` loads keys from paths only, and a key should not touch a disk."""
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
