"""HTTP/1.1 at the edge: strict, in any pieces, and never held up by a slow client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.inference.http1 import MAX_HEADERS, Connection, Reply, Request

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gate\r\n"
WHOLE = POST + b"Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        """Remember what goes out, until it is closed."""
        if not self.closed:
            self.sent += bytes(data)

    def close(self) -> None:
        """Close."""
        self.closed = True

    def abort(self) -> None:
        """Close at once."""
        self.closed = True

    def pause_reading(self) -> None:
        """Read no more."""
        self.reading = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take note of nothing."""


def talk(pieces: Sequence[bytes], turns: int = 3, **options: Any) -> tuple[list[Request], Wire]:
    """Return what a handler saw of the pieces of a connection, and the wire."""

    async def run() -> tuple[list[Request], Wire]:
        seen: list[Request] = []

        async def handler(request: Request, reply: Reply) -> None:
            seen.append(request)
            reply.send(200, [], b"ok")

        wire = Wire()
        connection = Connection(handler, set(), **options)
        connection.connection_made(wire)
        for piece in pieces:
            if not wire.closed:
                connection.data_received(piece)
                for _ in range(turns):
                    await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return seen, wire

    return asyncio.run(run())


REFUSED = {
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "one bare LF": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "length and coding": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "hexadecimal length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding after chunked": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "coding of HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk of no size": POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "chunks with LF": POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nAuthorization: x\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "blank in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    "HTTP/2 in the clear": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "two tokens": POST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 0\r\n\r\n",
    "no version of ours": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_servers_could_read_differently_is_refused(name: str) -> None:
    """No handler sees it; the answer is 400 and the connection ends."""
    for pieces in ([REFUSED[name]], [bytes([byte]) for byte in REFUSED[name]]):
        seen, wire = talk(pieces)
        assert seen == []
        assert wire.sent.startswith(b"HTTP/1.1 400 ")
        assert wire.closed


@pytest.mark.parametrize("request_", [WHOLE, CHUNKED], ids=["length", "chunked"])
def test_a_request_is_the_same_in_any_pieces(request_: bytes) -> None:
    """Cut anywhere, once or at every byte, the handler sees the same request."""
    wanted, _ = talk([request_])
    assert [(r.method, r.path, r.body) for r in wanted] == [("POST", "/v1/chat/completions", b"hello")]
    for cut in range(1, len(request_)):
        assert talk([request_[:cut], request_[cut:]])[0] == wanted
    assert talk([bytes([byte]) for byte in request_])[0] == wanted


def test_one_connection_carries_one_request_after_the_other() -> None:
    """The second request is answered after the first; one sent before its answer ends the connection."""
    seen, wire = talk([WHOLE, CHUNKED])
    assert len(seen) == 2
    assert wire.sent.count(b"HTTP/1.1 200 OK") == 2
    assert not wire.closed
    seen, wire = talk([WHOLE + WHOLE])
    assert len(seen) < 2
    assert wire.closed


@pytest.mark.parametrize("method", [b"HEAD", b"TRACE", b"CONNECT", b"PROPFIND"])
def test_methods_with_rules_of_their_own_are_refused(method: bytes) -> None:
    """None reaches a handler, and the answer to HEAD has no body that a client would take for the next answer."""
    seen, wire = talk([method + b" /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"])
    assert seen == []
    assert wire.sent.startswith(b"HTTP/1.1 405 ")
    assert wire.closed
    assert wire.sent.endswith(b"\r\n\r\n") == (method == b"HEAD")


def test_too_much_is_told_so() -> None:
    """Headers over the limit are 431, a body over it 413, whether it was announced or only comes."""
    _, wire = talk([b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"a" * (MAX_HEADERS + 1), b"\r\n\r\n"])
    assert wire.sent.startswith(b"HTTP/1.1 431 ")
    _, wire = talk([b"GET /" + b"a" * (MAX_HEADERS + 1)])
    assert wire.sent.startswith(b"HTTP/1.1 431 ")
    for told in (b"Content-Length: 11\r\n\r\n", b"Content-Length: 9999999999999\r\n\r\n"):
        assert talk([POST + told], max_body=10)[1].sent.startswith(b"HTTP/1.1 413 ")
    _, wire = talk([POST + b"Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n"], max_body=10)
    assert wire.sent.startswith(b"HTTP/1.1 413 ")


def test_a_request_that_trickles_in_is_ended() -> None:
    """A head or a body that does not come whole in time is 408, however many bytes keep coming."""
    for part in (POST, POST + b"Content-Length: 50\r\n\r\nhel"):
        seen, wire = talk([part, b"x", b"y"], turns=4, request_seconds=0)
        assert seen == []
        assert wire.sent.startswith(b"HTTP/1.1 408 ")
        assert wire.closed


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    """While its buffer is full the handler waits; after the time to stall the connection ends."""

    async def run() -> Wire:
        wire = Wire()
        connection = Connection(lambda _request, _reply: asyncio.sleep(3600), set(), stall_seconds=0)
        connection.connection_made(wire)
        connection.data_received(WHOLE)
        connection.pause_writing()
        for _ in range(4):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        return wire

    assert asyncio.run(run()).closed


def test_a_client_that_leaves_takes_its_request_with_it() -> None:
    """When the connection goes the handler is cancelled, at whatever it waits for."""

    async def run() -> bool:
        cancelled = False

        async def handler(_request: Request, _reply: Reply) -> None:
            nonlocal cancelled
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled = True
                raise

        connection = Connection(handler, set())
        connection.connection_made(Wire())
        connection.data_received(WHOLE)
        await asyncio.sleep(0)
        connection.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        return cancelled

    assert asyncio.run(run())


FRAGMENTS = [
    POST, b"Content-Length: 5\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"\r", b"\n", b"hello", b"5\r\nhello\r\n",
    b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b" ", b"X: y\r\n", b"\x00", b"\xff", b": ", b"Host: b\r\n", b"ffffffffffffffffff\r\n",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=8), max_size=12))
def test_any_bytes_are_a_request_a_refusal_or_a_wait(pieces: list[bytes]) -> None:
    """Whatever comes, nothing raises; a handler sees whole requests only, and each is answered once."""
    seen, wire = talk([piece for piece in pieces if piece])
    assert wire.sent.count(b"HTTP/1.1 200 ") == len(seen)
    assert all(request.method and request.target for request in seen)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([WHOLE, CHUNKED]), st.integers(0, 200), st.integers(0, 255))
def test_one_changed_byte_never_smuggles_a_second_request(request_: bytes, at: int, byte: int) -> None:
    """A request with any byte replaced is seen as one request at most."""
    at %= len(request_)
    seen, _ = talk([request_[:at] + bytes([byte]) + request_[at + 1 :]])
    assert len(seen) <= 1
