"""Upstream connections: a pool per endpoint, an answer that streams as it comes.

A kept-alive connection that turns out closed before the answer's first byte is replaced once: inference requests
change nothing, so sending one again is safe. After the first byte nothing is ever sent again. A connection is used
again only for the same address and the same TLS context, which stands for the peer's identity: an address that passes
from one workload to another carries nothing over.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias, cast

import httptools

from wharfinger.core.errors import Unavailable
from wharfinger.inference.http1 import Headers

CONNECT_SECONDS: Final = 5.0
MAX_IDLE: Final = 64
_HIGH_WATER: Final = 1024 * 1024
_Key: TypeAlias = tuple[str, int, ssl.SSLContext | None]


class Answer(asyncio.Protocol):
    """One upstream connection and the answer that is coming over it.

    `framed` says that the answer itself tells where it ends; one that does not ends with its connection.
    """

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.complete = False
        self.framed = False
        self.closed = False
        self._broken = False
        self._kept = False
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The upstream is gone."""
        self.closed = True
        if exc is None and self.status and not self.framed and not self._broken:
            self.complete = True
        self._news.set()

    def data_received(self, data: bytes) -> None:
        """Parse a piece of the answer."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._broken = True
            self._transport.abort()
        self._news.set()

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """httptools: the head is whole; one that only informs (1xx) is passed over."""
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
            self.framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers

    def on_body(self, body: bytes) -> None:
        """httptools: a piece of the body."""
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > _HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """httptools: the answer is whole."""
        self.complete = bool(self.status)
        self._kept = bool(self._parser.should_keep_alive())  # afterwards the parser speaks of the next answer

    def send(self, request: bytes) -> None:
        """Send a request; whatever came of the one before is forgotten."""
        self._parser = httptools.HttpResponseParser(self)
        self.status, self.headers, self.complete, self.framed = 0, {}, False, False
        self._chunks, self._buffered = [], 0
        self._news.clear()
        self._transport.write(request)

    async def head(self, seconds: float) -> None:
        """Wait for the answer's head. Raises `Unavailable` when it does not come."""
        try:
            async with asyncio.timeout(seconds):
                while not self.status:
                    if self.closed or self._broken:
                        raise Unavailable("the model's server closed the connection before it answered")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            raise Unavailable(f"the model's server did not answer within {seconds:.0f} s") from error

    async def chunks(self, seconds: float) -> AsyncIterator[bytes]:
        """Yield the body as it comes; at most `seconds` between two pieces. Raises `Unavailable` when it breaks off."""
        while True:
            if self._chunks:
                data, self._chunks, self._buffered = b"".join(self._chunks), [], 0
                if self._paused:
                    self._paused = False
                    self._transport.resume_reading()
                yield data
                continue
            if self.complete:
                return
            if self.closed or self._broken:
                raise Unavailable("the model's server broke its answer off")
            self._news.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError as error:
                raise Unavailable(f"the model's server sent nothing for {seconds:.0f} s") from error

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        whole = self.complete and self.framed and not self._chunks
        return whole and self._kept and not self.closed and not self._broken

    def close(self) -> None:
        """Close the connection."""
        self._transport.abort()


class Pool:
    """Idle connections by endpoint; a host that begins with a slash is the path of a Unix socket."""

    def __init__(self) -> None:
        self._idle: dict[_Key, list[Answer]] = defaultdict(list)

    async def request(
        self, host: str, port: int, context: ssl.SSLContext | None, head: bytes, body: bytes, *, seconds: float
    ) -> Answer:
        """Send a request and return its answer once its head is there. `release` must follow.

        Raises `Unavailable` when the endpoint cannot be reached or does not answer.
        """
        idle = self._idle[host, port, context]
        while idle:
            answer = idle.pop()
            if not answer.reusable:
                answer.close()
                continue
            try:
                return await self._ask(answer, head + body, seconds)
            except Unavailable:
                if answer.status or not answer.closed:
                    raise
                break
        return await self._ask(await self._connect(host, port, context), head + body, seconds)

    def release(self, host: str, port: int, context: ssl.SSLContext | None, answer: Answer) -> None:
        """Give a connection back; one whose answer was not read whole is closed."""
        idle = self._idle[host, port, context]
        if answer.reusable and len(idle) < MAX_IDLE:
            idle.append(answer)
        else:
            answer.close()

    def prune(self) -> None:
        """Forget connections that the other end has closed, and endpoints that have none."""
        for key in list(self._idle):
            self._idle[key] = [answer for answer in self._idle[key] if answer.reusable]
            if not self._idle[key]:
                del self._idle[key]

    def close(self) -> None:
        """Close every idle connection."""
        for idle in self._idle.values():
            for answer in idle:
                answer.close()
        self._idle.clear()

    async def _ask(self, answer: Answer, request: bytes, seconds: float) -> Answer:
        answer.send(request)
        try:
            await answer.head(seconds)
        finally:
            if not answer.status:
                answer.close()
        return answer

    async def _connect(self, host: str, port: int, context: ssl.SSLContext | None) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if host.startswith("/"):
                    _, answer = await loop.create_unix_connection(Answer, host, ssl=context)
                else:
                    _, answer = await loop.create_connection(
                        Answer, host, port, ssl=context, server_hostname=host if context else None
                    )
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"the model's server at {host}:{port} cannot be reached: {error}") from error
        return answer


def head_of(method: str, path: str, host: str, headers: Headers, length: int) -> bytes:
    """Return the head of a request."""
    lines = [f"{method} {path} HTTP/1.1".encode("ascii"), b"host: " + host.encode("ascii")]
    lines += [b"%b: %b" % header for header in headers]
    lines.append(b"content-length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"
