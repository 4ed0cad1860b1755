"""The SPIFFE Workload API on a Unix socket: gRPC over HTTP/2, the peer attested by the kernel at each call.

One `WorkloadServer` is one socket. Whom it serves is asked of `Attest` with the process that made the connection; what
it gives out comes from an `Authority`, and is recorded before it leaves. Streams send again at half the life of what
they sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from wharfinger.core.clock import SECOND, Clock, Span, instant_of
from wharfinger.core.errors import Denied, HostUnfit, WharfingerError, excerpt
from wharfinger.identity import jwtsvid, workloadapi
from wharfinger.identity.fault import BadIdentity, UntrustedIdentity
from wharfinger.identity.issuer.attestation import Process
from wharfinger.identity.issuer.authority import Authority
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.workloadapi import JwtRequest, Status, ValidateRequest
from wharfinger.identity.x509svid import X509Svid

Attest: TypeAlias = Callable[[Process], SpiffeId]
"""Returns the SPIFFE ID of the process; raises `Denied` for one that has none here."""

MOST_CONNECTIONS: Final = 64
MOST_STREAMS: Final = 32
LARGEST_REQUEST: Final = 64 * 1024
MOST_AT_ONCE: Final = 100
CALLS_PER_SECOND: Final = 20
"""What one socket answers at once, and then in the long run: each answer is a signature and a line on disk."""
LONGEST_SLEEP: Final = 30.0
"""Seconds after which a stream looks at the wall clock again: it may have been set."""

_log = logging.getLogger(__name__)


class Record(Protocol):
    """Where each answer is recorded before it is given."""

    def __call__(self, who: str, verb: str, what: str, refused: str = "") -> Awaitable[None]:
        """Return when it is on disk that `who` got `what`, or why they were `refused`; `verb` is `fetch`.

        Raises `HostUnfit`.
        """
        ...


class TooMany(WharfingerError):
    """More calls at one socket than it answers."""

    code = "TooManyRequests"
    status = 429


class Pace:
    """Lets `MOST_AT_ONCE` calls through, and `CALLS_PER_SECOND` after that (a token bucket)."""

    def __init__(self, now: Span) -> None:
        self._left = float(MOST_AT_ONCE)
        self._at = now

    def take(self, now: Span) -> None:
        """Take one call at the monotonic time `now`. Raises `TooMany` when there is none left."""
        self._left = min(float(MOST_AT_ONCE), self._left + (now - self._at) / SECOND * CALLS_PER_SECOND)
        self._at = now
        if self._left < 1:
            raise TooMany(f"expected at most {CALLS_PER_SECOND} calls a second at one socket")
        self._left -= 1


class WorkloadServer:
    """The Workload API on one socket, for whomever `attest` knows; inside a running event loop."""

    def __init__(self, path: Path, attest: Attest, authority: Authority, record: Record, clock: Clock) -> None:
        self.path = path
        self.attest = attest
        self.authority = authority
        self.record = record
        self.clock = clock
        self.pace = Pace(clock.monotonic())
        self._server: asyncio.AbstractServer | None = None
        self.connections: set[_Connection] = set()

    async def start(self, mode: int) -> None:
        """Make the socket, with this `mode`, in place of whatever is at its path. Raises `HostUnfit`."""
        try:
            listener = _listening(self.path, mode)
        except OSError as error:
            raise HostUnfit(f"socket {self.path}: {error.strerror or error}") from error
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Connection(self), sock=listener)

    async def stop(self) -> None:
        """Take the socket away and end every connection."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
        for connection in list(self.connections):
            connection.end()
        await asyncio.sleep(0)


@dataclass(slots=True)
class _Call:
    """One call: its request as it comes, its answer as flow control lets it go."""

    method: str
    request: bytearray = field(default_factory=bytearray)
    pending: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[str, str]] | None = None
    answering: bool = False
    task: asyncio.Task[None] | None = None


class _Connection(asyncio.Protocol):
    """One HTTP/2 connection of one process."""

    def __init__(self, server: WorkloadServer) -> None:
        self._server = server
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._calls: dict[int, _Call] = {}
        self._transport: asyncio.Transport | None = None
        self._peer: Process | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is its own
        self._transport = transport
        if len(self._server.connections) >= MOST_CONNECTIONS:
            transport.abort()
            return
        self._server.connections.add(self)
        try:
            # uvloop shows a socket without options; a duplicate has them.
            with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
                self._peer = Process.peer(connection)
        except Denied as error:
            _log.warning("peer", extra={"fields": {"refused": str(error)}})
        self._http.local_settings.update({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS})
        self._http.initiate_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        for call in self._calls.values():
            if call.task is not None:
                call.task.cancel()
        self._calls.clear()
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._http.receive_data(data):
                self._on(event)
        except h2.exceptions.ProtocolError:
            self._flush()
            self.end()
            return
        self._flush()

    def end(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._http.data_to_send())

    # HTTP/2's side.

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._begin(event.stream_id, dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            call = self._calls.get(event.stream_id)
            if call is not None and len(call.request) <= LARGEST_REQUEST:
                call.request += event.data
        elif isinstance(event, h2.events.StreamEnded):
            call = self._calls.get(event.stream_id)
            if call is not None and call.task is None and call.trailers is None:
                call.task = asyncio.get_running_loop().create_task(self._answer(event.stream_id, call))
                call.task.add_done_callback(partial(self._ended, event.stream_id, call))
        elif isinstance(event, h2.events.StreamReset):
            call = self._calls.pop(event.stream_id, None)
            if call is not None and call.task is not None:
                call.task.cancel()
        elif isinstance(event, h2.events.WindowUpdated):
            for number in [event.stream_id] if event.stream_id else list(self._calls):
                self._push(number)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.end()

    def _begin(self, number: int, headers: Mapping[Any, Any]) -> None:
        call = self._calls[number] = _Call(headers.get(b":path", b"").decode("ascii", "replace"))
        if headers.get(b":method") != b"POST" or not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            self._finish(number, call, Status.UNIMPLEMENTED, "expected a gRPC call")
        elif call.method not in _METHODS:
            self._finish(number, call, Status.UNIMPLEMENTED, f"no method {excerpt(call.method)}")
        elif headers.get(workloadapi.SECURITY_HEADER[0].encode()) != workloadapi.SECURITY_HEADER[1].encode():
            self._finish(number, call, Status.INVALID_ARGUMENT, "security header missing from request")

    def _ended(self, number: int, call: _Call, task: asyncio.Task[None]) -> None:
        """Tell the caller of a defect of ours; its trace is in the log."""
        if not task.cancelled() and task.exception() is not None:
            _log.error("call", extra={"fields": {"method": call.method}}, exc_info=task.exception())
            self._finish(number, call, Status.INTERNAL, "internal error")
            self._flush()

    async def _answer(self, number: int, call: _Call) -> None:
        """Run the call to its end; every error of ours becomes its status."""
        try:
            await self._run(number, call)
        except (BadIdentity, UntrustedIdentity) as error:
            self._finish(number, call, Status.INVALID_ARGUMENT, str(error))
        except Denied as error:
            self._finish(number, call, Status.PERMISSION_DENIED, f"no identity issued: {error}")
        except TooMany as error:
            self._finish(number, call, Status.RESOURCE_EXHAUSTED, str(error))
        except WharfingerError as error:
            _log.error("call", extra={"fields": {"method": call.method, "error": str(error)}})
            self._finish(number, call, Status.UNAVAILABLE, str(error))
        else:
            self._finish(number, call, Status.OK, "")
        self._flush()

    async def _run(self, number: int, call: _Call) -> None:
        self._server.pace.take(self._server.clock.monotonic())
        messages = workloadapi.unframe(call.request)
        if len(messages) != 1 or call.request:
            raise BadIdentity("bad_frame", "expected one whole message")
        identity = await self._attested(call)

        async def send(message: bytes) -> None:
            # The process may have ended, or been forgotten, while the answer was made.
            if await self._attested(call) != identity:
                raise Denied("the caller is not who it was")
            self._send(number, call, message)

        await _METHODS[call.method](self._server, identity, messages[0], send)

    async def _attested(self, call: _Call) -> SpiffeId:
        peer = self._peer
        try:
            if peer is None:
                raise Denied("the peer is not known")
            return self._server.attest(peer)
        except Denied as error:
            who = f"pid {peer.pid}" if peer is not None else "unknown"
            await self._server.record(who, "fetch", call.method.rpartition("/")[2], refused=str(error))
            raise

    def _send(self, number: int, call: _Call, message: bytes) -> None:
        self._head(number, call)
        call.pending += workloadapi.frame(message)
        self._push(number)
        self._flush()

    def _head(self, number: int, call: _Call) -> None:
        if not call.answering and number in self._calls:
            call.answering = True
            self._http.send_headers(number, [(":status", "200"), ("content-type", "application/grpc")])

    def _finish(self, number: int, call: _Call, status: Status, message: str) -> None:
        if number not in self._calls:
            return
        told = [("grpc-message", workloadapi.status_text(message))] if message else []
        call.trailers = [("grpc-status", str(int(status))), *told]
        self._head(number, call)
        self._push(number)

    def _push(self, number: int) -> None:
        """Send what flow control allows of a call's answer, and its trailers once all of it has gone."""
        call = self._calls.get(number)
        if call is None:
            return
        try:
            while call.pending:
                window = self._http.local_flow_control_window(number)
                size = min(len(call.pending), window, self._http.max_outbound_frame_size)
                if size <= 0:
                    return
                self._http.send_data(number, bytes(call.pending[:size]))
                del call.pending[:size]
            if call.trailers is not None:
                self._calls.pop(number)
                self._http.send_headers(number, call.trailers, end_stream=True)
        except h2.exceptions.ProtocolError:
            self._calls.pop(number, None)


_Send: TypeAlias = Callable[[bytes], Awaitable[None]]


async def _fetch_x509_svid(server: WorkloadServer, identity: SpiffeId, _: bytes, send: _Send) -> None:
    while True:
        svid = server.authority.svid(identity)
        await server.record(str(identity), "fetch", "x509-svid")
        await send(workloadapi.x509_svids([svid], server.authority.bundles))
        await half_life(server.clock, svid)


async def _fetch_x509_bundles(server: WorkloadServer, _identity: SpiffeId, _: bytes, send: _Send) -> None:
    await send(workloadapi.x509_bundles(server.authority.bundles))
    await asyncio.Event().wait()


async def _fetch_jwt_svid(server: WorkloadServer, identity: SpiffeId, message: bytes, send: _Send) -> None:
    request = JwtRequest.parse(message)
    if not any(request.audiences):
        raise BadIdentity("missing_aud", "expected an audience, got none")
    if request.spiffe_id not in {"", str(identity)}:
        raise Denied(f"the caller is not {excerpt(request.spiffe_id)}")
    token = server.authority.token(identity, request.audiences)
    await server.record(str(identity), "fetch", f"jwt-svid for {excerpt(', '.join(request.audiences))}")
    await send(workloadapi.jwt_svids({identity: token}))


async def _fetch_jwt_bundles(server: WorkloadServer, _identity: SpiffeId, _: bytes, send: _Send) -> None:
    await send(workloadapi.jwt_bundles(server.authority.bundles))
    await asyncio.Event().wait()


async def _validate_jwt_svid(server: WorkloadServer, _identity: SpiffeId, message: bytes, send: _Send) -> None:
    request = ValidateRequest.parse(message)
    if not request.audience or not request.token:
        raise BadIdentity("missing_field", "expected an audience and a token")
    svid = jwtsvid.validate(request.token, server.authority.bundles, (request.audience,), server.clock.now())
    await send(workloadapi.validated(svid.id, svid.claims))


async def half_life(clock: Clock, svid: X509Svid) -> None:
    """Wait until half of the life that a fresh SVID has left is over, by the wall clock, also when that is set."""
    leaf = svid.certificates[0]
    start, end = instant_of(leaf.not_valid_before_utc), instant_of(leaf.not_valid_after_utc)
    issued = clock.now()
    renew_at = issued + (end - issued) // 2
    while start <= clock.now() < renew_at:
        await asyncio.sleep(min((renew_at - clock.now()) / SECOND, LONGEST_SLEEP))


_METHODS: Final[dict[str, Callable[[WorkloadServer, SpiffeId, bytes, _Send], Coroutine[Any, Any, None]]]] = {
    workloadapi.FETCH_X509_SVID: _fetch_x509_svid,
    workloadapi.FETCH_X509_BUNDLES: _fetch_x509_bundles,
    workloadapi.FETCH_JWT_SVID: _fetch_jwt_svid,
    workloadapi.FETCH_JWT_BUNDLES: _fetch_jwt_bundles,
    workloadapi.VALIDATE_JWT_SVID: _validate_jwt_svid,
}


def _listening(path: Path, mode: int) -> socket.socket:
    """Return a listening socket at `path`, however long that is: its folder is opened, then named by number."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=folder)
        # The mode is the socket's own before it has a name: by name, `chmod` could be led elsewhere by whoever may
        # write in that folder.
        os.fchmod(listener.fileno(), mode)
        mask = os.umask(0)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.umask(mask)
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(folder)
    return listener
