"""A process's identity from the SPIFFE Workload API: its X.509-SVID and bundles, rotated in time, and JWT-SVIDs.

`WorkloadSource(path)` is the adapter of `source.SvidSource` that every part and every workload uses. One thread holds
one HTTP/2 connection with two streams, SVIDs and JWT bundles; when it breaks, the last material stays in use while the
thread connects again, with growing pauses.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from wharfinger.core.clock import SECOND, Clock, Instant
from wharfinger.core.errors import Malformed, Unavailable, WharfingerError, excerpt
from wharfinger.core.systemclock import SystemClock
from wharfinger.identity import jwtsvid, workloadapi
from wharfinger.identity.bundle import Bundle, Bundles, PublicKey
from wharfinger.identity.source import Material, Subscribers
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain
from wharfinger.identity.workloadapi import CallFailed

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
CALL_SECONDS: Final = 10.0
"""How long connecting and a call with one answer may take."""

_log = logging.getLogger(__name__)


def socket_path(environment: Mapping[str, str]) -> Path:
    """Return the Workload API socket that `SPIFFE_ENDPOINT_SOCKET` names (SPIFFE Workload Endpoint 4).

    Raises `Malformed` when it is not `unix:` and an absolute path, `Unavailable` when it is not set.
    """
    told = environment.get("SPIFFE_ENDPOINT_SOCKET", "")
    if not told:
        raise Unavailable("expected SPIFFE_ENDPOINT_SOCKET, got nothing", hint="run as a workload of the platform")
    path = told.removeprefix("unix:")
    path = path.removeprefix("//") if path.startswith("///") else path
    if not told.startswith("unix:") or not path.startswith("/") or path.startswith("//"):
        raise Malformed(f"expected unix:///PATH in SPIFFE_ENDPOINT_SOCKET, got {excerpt(told)}")
    return Path(path)


class WorkloadSource:
    """`SvidSource` on a Workload API socket.

    `wait` is how many seconds `material` waits for the first SVID. The socket need not exist yet.
    """

    def __init__(self, socket: Path, *, wait: float = 30.0, clock: Clock | None = None) -> None:
        self._path = socket
        self._wait = wait
        self._clock = clock or SystemClock()
        self._subscribers = Subscribers()
        self._changed = threading.Condition()
        self._material: Material | None = None
        self._trouble: WharfingerError | None = None
        self._closed = threading.Event()
        self._connection: _Connection | None = None
        self._tokens: dict[SpiffeId, _Token] = {}
        self._thread = threading.Thread(target=self._follow, name="workload-source", daemon=True)
        self._thread.start()

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> WorkloadSource:
        """Return a source on the socket that `environment` names; raises what `socket_path` raises."""
        return cls(socket_path(environment))

    @property
    def id(self) -> SpiffeId:
        """The SPIFFE ID of this process; waits for the first SVID. Raises `Unavailable`."""
        return self.material().svid.id

    def material(self) -> Material:
        """Return the newest material; waits for the first. Raises `Unavailable` when there is none to be had."""
        found = self._material
        if found is not None:
            return found
        with self._changed:
            self._changed.wait_for(lambda: self._material is not None or self._closed.is_set(), self._wait)
            if self._material is None:
                raise Unavailable(
                    f"expected an SVID from {self._path}, got none: {self._trouble or 'no answer'}",
                    hint="only processes that the platform started get one",
                )
            return self._material

    def jwt_svid(self, audience: SpiffeId) -> str:
        """Return a JWT-SVID for `audience` with at least half its life left; raises `Unavailable`."""
        kept = self._tokens.get(audience)
        if kept is None or self._clock.now() >= kept.renew_at:
            kept = self._tokens[audience] = self._fetch_token(audience)
        return kept.text

    def jwt_bundles(self) -> Bundles:
        """Return the bundles by which JWT-SVIDs are judged: those of `material`, kept current. Raises `Unavailable`."""
        return self.material().bundles

    def subscribe(self, changed: Callable[[Material], None]) -> Callable[[], None]:
        """Call `changed` with each new material, from this source's thread; return what ends that."""
        return self._subscribers.add(changed)

    def close(self) -> None:
        """End the streams and their thread."""
        self._closed.set()
        connection = self._connection
        if connection is not None:
            connection.abort()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(CALL_SECONDS)

    def _fetch_token(self, audience: SpiffeId) -> _Token:
        request = workloadapi.JwtRequest((str(audience),))
        try:
            with contextlib.closing(_Connection(self._path)) as connection:
                token = next(
                    iter(
                        workloadapi.parse_jwt_svids(
                            connection.call(workloadapi.FETCH_JWT_SVID, request.encode())
                        ).values()
                    )
                )
            expiry = jwtsvid.parse(token).expiry
        except WharfingerError as error:
            raise Unavailable(f"expected a JWT-SVID for {audience}: {error}") from error
        now = self._clock.now()
        return _Token(token, now + (int(expiry * SECOND) - now) // 2)

    def _follow(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            try:
                with contextlib.closing(_Connection(self._path)) as connection:
                    self._connection = connection
                    if self._closed.is_set():
                        return
                    for stream in _streams(connection):
                        pause = FIRST_PAUSE
                        self._take(stream)
                self._trouble = Unavailable("the stream ended")
            except WharfingerError as error:
                self._trouble = error
            finally:
                self._connection = None
            if not self._closed.wait(pause * random.uniform(0.5, 1.0)):
                pause = min(pause * 2, LONGEST_PAUSE)

    def _take(self, material: Material) -> None:
        with self._changed:
            self._material = material
            self._changed.notify_all()
        _log.info("identity", extra={"fields": {"id": str(material.svid.id)}})
        self._subscribers.tell(material)


@dataclass(frozen=True, slots=True)
class _Token:
    """A JWT-SVID and when to fetch the next."""

    text: str
    renew_at: Instant


def _streams(connection: _Connection) -> Iterator[Material]:
    """Yield the material that both streams together say, anew whenever one says more."""
    svids = connection.open(workloadapi.FETCH_X509_SVID, b"")
    jwt = connection.open(workloadapi.FETCH_JWT_BUNDLES, b"")
    material: Material | None = None
    authorities: dict[TrustDomain, dict[str, PublicKey]] | None = None
    for stream, message in connection.messages():
        if stream == svids:
            found, bundles = workloadapi.parse_x509_svids(message)
            # The first is the default identity (SPIFFE Workload API 5.2.1).
            material = Material(found[0], bundles)
        elif stream == jwt:
            authorities = workloadapi.parse_jwt_bundles(message)
        if material is not None and authorities is not None:
            yield Material(material.svid, _joined(material.bundles, authorities))


def _joined(bundles: Bundles, authorities: Mapping[TrustDomain, Mapping[str, PublicKey]]) -> Bundles:
    """Return one bundle for each trust domain that either knows."""
    domains = [*bundles, *(domain for domain in authorities if domain not in bundles)]
    return {
        domain: replace(bundles.get(domain, Bundle(domain)), jwt_authorities=authorities.get(domain, {}))
        for domain in domains
    }


@dataclass(slots=True)
class _Stream:
    """One call on a connection: what came of the message that is under way, and how the call ended."""

    buffer: bytearray = field(default_factory=bytearray)
    status: int | None = None
    text: str = ""


class _Connection:
    """An HTTP/2 connection to a Workload API socket; one thread uses it, any may `abort` it.

    Raises `Unavailable` when nobody listens; its methods raise `Unavailable` (`CallFailed` with the status) and
    `BadIdentity` for what is not gRPC.
    """

    def __init__(self, path: Path) -> None:
        self._socket = _connected(path)
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._http.initiate_connection()
        self._streams: dict[int, _Stream] = {}
        self._flush()

    def open(self, method: str, message: bytes, security: tuple[str, str] = workloadapi.SECURITY_HEADER) -> int:
        """Call `method` with `message`; return the stream's number."""
        number = self._http.get_next_available_stream_id()
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"),
            ("content-type", "application/grpc"), ("te", "trailers"), security,
        ]  # fmt: skip
        self._http.send_headers(number, headers)
        self._http.send_data(number, workloadapi.frame(message), end_stream=True)
        self._streams[number] = _Stream()
        self._flush()
        return number

    def call(self, method: str, message: bytes) -> bytes:
        """Call `method` and return its one answer; raises `Unavailable` when none comes in `CALL_SECONDS`."""
        self._socket.settimeout(CALL_SECONDS)
        self.open(method, message)
        for _, answer in self.messages():
            return answer
        raise Unavailable("the call ended without an answer")

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """Yield stream and message as they come; returns when the peer closes the connection."""
        while data := self._receive():
            try:
                events = self._http.receive_data(data)
            except h2.exceptions.ProtocolError as error:
                raise Unavailable(f"the issuer does not speak HTTP/2: {error}") from error
            for event in events:
                yield from self._on(event)
            self._flush()

    def _on(self, event: h2.events.Event) -> Iterator[tuple[int, bytes]]:
        if isinstance(event, h2.events.DataReceived):
            stream = self._streams.get(event.stream_id)
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if stream is not None:
                stream.buffer += event.data
                for message in workloadapi.unframe(stream.buffer):
                    yield event.stream_id, message
        elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            self._take_headers(event.stream_id, dict(event.headers))
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            self._end(event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            raise Unavailable("the issuer ended the connection")

    def _take_headers(self, number: int, headers: Mapping[Any, Any]) -> None:
        stream = self._streams.get(number)
        told = headers.get(b"grpc-status")
        if stream is not None and told is not None:
            stream.status = int(told) if told.isdigit() and len(told) < 4 else -1
            stream.text = workloadapi.parse_status_text(headers.get(b"grpc-message", b"").decode("ascii", "replace"))

    def _end(self, number: int) -> None:
        """End the connection with a stream of it: both are wanted for as long as the process lives."""
        stream = self._streams.pop(number, None)
        if stream is not None:
            raise CallFailed(-1 if stream.status is None else stream.status, stream.text or "the stream ended")

    def abort(self) -> None:
        """End the connection from another thread: the thread in `messages` returns."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError as error:
            raise Unavailable(f"the issuer does not answer: {error.strerror or error}") from error

    def _flush(self) -> None:
        try:
            self._socket.sendall(self._http.data_to_send())
        except OSError as error:
            raise Unavailable(f"the issuer does not answer: {error.strerror or error}") from error


def _connected(path: Path) -> socket.socket:
    """Connect to the socket at `path`, however long the path is: the folder is opened first, then named by number."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(CALL_SECONDS)
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    except OSError as error:
        connection.close()
        raise Unavailable(f"{path}: {error.strerror or error}") from error
    connection.settimeout(None)
    return connection
