"""HTTP/1.1 on the data path: a strict server protocol on httptools, one request at a time per connection.

Strict means refused, not repaired (RFC 9112): both Content-Length and Transfer-Encoding, a repeated or malformed
Content-Length, a transfer coding other than chunked, bare CR or LF, folded headers, a second Host, control characters
in a field, trailers, more than `MAX_HEADERS` of headers, more than the limit of body, and a request pipelined behind
another. A request that does not come whole in `request_seconds` is 408; a client that reads nothing of its answer for
`stall_seconds` is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

import httptools

from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import peer_id

MAX_HEADERS: Final = 32 * 1024
MAX_BODY: Final = 8 * 1024 * 1024
HIGH_WATER: Final = 256 * 1024
REASONS: Final = {
    200: b"OK", 204: b"No Content", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large", 415: b"Unsupported Media Type",
    422: b"Unprocessable Content", 429: b"Too Many Requests", 431: b"Request Header Fields Too Large",
    500: b"Internal Server Error", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Request:
    """One request, whole. `peer` is the verified SPIFFE ID of the connection, None without a certificate."""

    method: str
    target: str
    headers: dict[bytes, bytes]
    peer: SpiffeId | None
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


Handler: TypeAlias = "Callable[[Request, Reply], Awaitable[None]]"


class Reply:
    """The answer to one request: `send` it whole, or `start`, `write` and `finish` a stream."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.started = False

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer at once."""
        self.started = True
        self._connection.write_head(status, [*headers, (b"content-length", b"%d" % len(body))], body)

    def start(self, status: int, headers: Headers) -> None:
        """Begin a chunked answer."""
        self.started = True
        self._connection.write_head(status, [*headers, (b"transfer-encoding", b"chunked")], b"")

    async def write(self, data: bytes) -> None:
        """Send a chunk; waits while the client is slow."""
        if data:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))
            await self._connection.writable()

    def finish(self) -> None:
        """End a chunked answer."""
        self._connection.write(b"0\r\n\r\n")

    def abort(self) -> None:
        """Break the connection off, so that a client never takes a cut answer for a whole one."""
        self._connection.abort()


@dataclass(slots=True)
class _Parsing:
    """What of a request has come so far."""

    whole: bool = False
    target: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    size: int = 0
    body: list[bytes] = field(default_factory=list)
    length: int = 0


class Connection(asyncio.Protocol):
    """One client's connection. `idle_seconds` bounds the wait for a request, `request_seconds` that for all of it."""

    def __init__(
        self,
        handler: Handler,
        connections: set[Connection],
        *,
        max_body: int = MAX_BODY,
        idle_seconds: float = 75.0,
        request_seconds: float = 30.0,
        stall_seconds: float = 60.0,
        most: int = 2**31,
    ) -> None:
        self._handler = handler
        self._connections = connections
        self._max_body = max_body
        self._idle_seconds = idle_seconds
        self._request_seconds = request_seconds
        self._stall_seconds = stall_seconds
        self._most = most
        self._parser: Any = httptools.HttpRequestParser(self)
        self._parsing = _Parsing()
        self._task: asyncio.Task[None] | None = None
        self._peer: SpiffeId | None = None
        self._keep_alive = True
        self._closing = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._begun = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over."""
        self._transport = cast(asyncio.Transport, transport)
        self._peer = peer_id(self._transport.get_extra_info("ssl_object"))
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        if len(self._connections) >= self._most:
            self._transport.abort()
        self._connections.add(self)
        self._arm(self._idle_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: so is its request."""
        self._connections.discard(self)
        self._disarm()
        self.resume_writing()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads slower than the answer comes."""
        self._writable.clear()
        if self._stall is None:
            self._stall = asyncio.get_running_loop().call_later(self._stall_seconds, self._transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable.set()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def data_received(self, data: bytes) -> None:
        """Parse; anything that is not strict HTTP/1.1 ends the connection with the status that says why."""
        if self._task is not None:
            self._closing = True
            self._transport.pause_reading()
            return
        try:
            self._parser.feed_data(data)
        except _Refused as refusal:
            self._refuse(refusal.status, refusal.reason)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, _Refused):
                self._refuse(cause.status, cause.reason)
            else:
                self._refuse(400, "expected strict HTTP/1.1")
        except httptools.HttpParserUpgrade:
            self._refuse(400, "no protocol to upgrade to")
        except httptools.HttpParserError:
            self._refuse(400, "expected strict HTTP/1.1")

    def on_message_begin(self) -> None:
        """httptools: a request begins."""
        if self._task is not None:
            raise _Refused(400, "one request at a time on a connection")
        self._parsing = _Parsing()
        self._begun = True
        self._arm(self._request_seconds)

    def on_url(self, url: bytes) -> None:
        """httptools: a piece of the target."""
        self._grow(len(url))
        self._parsing.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        self._grow(len(name) + len(value) + 4)
        if self._parsing.whole:
            raise _Refused(400, "no trailers")
        if b"\r" in value or b"\n" in value:
            raise _Refused(400, "a header on one line")
        key = name.lower()
        headers = self._parsing.headers
        if key in headers:
            if key in _SINGLE:
                raise _Refused(400, "a header that may come once came twice")
            value = headers[key] + b", " + value
        headers[key] = value

    def on_headers_complete(self) -> None:
        """httptools: the head is whole."""
        headers = self._parsing.headers
        self._parsing.whole = True
        length, coding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
        if length is not None and coding is not None:
            raise _Refused(400, "Content-Length or Transfer-Encoding, not both")
        if coding is not None and (coding.strip().lower() != b"chunked" or self._parser.get_http_version() != "1.1"):
            raise _Refused(400, "chunked is the only transfer coding, and of HTTP/1.1")
        if length is not None:
            if not length.isdigit():
                raise _Refused(400, "expected Content-Length in digits")
            if len(length) > 15 or int(length) > self._max_body:
                raise _Refused(413, "the body is too large")
        if self._parser.get_method() not in _METHODS:
            raise _Refused(405, "there is no such method here")
        if self._parser.should_upgrade():
            raise _Refused(400, "no protocol to upgrade to")
        if b"host" not in headers:
            raise _Refused(400, "expected a Host header")
        if headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """httptools: a piece of the body."""
        self._parsing.length += len(body)
        if self._parsing.length > self._max_body:
            raise _Refused(413, "the body is too large")
        self._parsing.body.append(body)

    def on_message_complete(self) -> None:
        """httptools: the request is whole; its handler runs."""
        self._disarm()
        self._begun = False
        self._keep_alive = bool(self._parser.should_keep_alive())
        try:
            target = self._parsing.target.decode("ascii")
        except UnicodeDecodeError as error:
            raise _Refused(400, "expected an ASCII target") from error
        request = Request(
            self._parser.get_method().decode("ascii"), target, self._parsing.headers, self._peer,
            b"".join(self._parsing.body),
        )  # fmt: skip
        self._task = asyncio.get_running_loop().create_task(self._serve(request))

    def write_head(self, status: int, headers: Headers, body: bytes) -> None:
        """Write an answer's head and, for a whole answer, its body."""
        lines = [b"HTTP/1.1 %d %b" % (status, REASONS.get(status, b"Status"))]
        lines += [b"%b: %b" % header for header in headers]
        if not self._keep_alive or self._closing:
            lines.append(b"connection: close")
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def write(self, data: bytes) -> None:
        """Write raw bytes of an answer."""
        self._transport.write(data)

    async def writable(self) -> None:
        """Wait until the client has read enough."""
        if not self._writable.is_set():
            await self._writable.wait()

    def abort(self) -> None:
        """Break the connection off."""
        self._transport.abort()

    def drain(self) -> None:
        """Finish the request in flight, if any, and close."""
        self._closing = True
        if self._task is None:
            self._transport.close()

    async def _serve(self, request: Request) -> None:
        reply = Reply(self)
        try:
            await self._handler(request, reply)
        finally:
            self._task = None
            if not reply.started or not self._keep_alive or self._closing:
                self._transport.close()
            else:
                self._arm(self._idle_seconds)

    def _grow(self, size: int) -> None:
        self._parsing.size += size
        if self._parsing.size > MAX_HEADERS:
            raise _Refused(431, "the headers are too large")

    def _refuse(self, status: int, reason: str) -> None:
        self._keep_alive = False
        body = reason.encode() + b"\n"
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        self.write_head(status, headers, b"" if self._parser.get_method() == b"HEAD" else body)
        self._transport.close()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._begun:
            self._refuse(408, "the request did not come whole in time")
        elif self._task is None:
            self._transport.close()


_METHODS: Final = frozenset({b"GET", b"POST", b"OPTIONS", b"DELETE", b"PUT", b"PATCH"})
"""What a handler sees; the others have rules of their own for bodies and tunnels (RFC 9110 9.3)."""
_SINGLE: Final = frozenset({b"content-length", b"host", b"transfer-encoding", b"authorization", b"content-type"})


class _Refused(Exception):
    """A request that is answered with `status` and nothing else."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
