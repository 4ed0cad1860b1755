"""The API client over a server that misbehaves: dropped connections, refusals, broken streams."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wharfinger.cluster.client import Client, Resource
from wharfinger.cluster.endpoint import Endpoint
from wharfinger.core.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    Gone,
    Invalid,
    Malformed,
    NotFound,
    Throttled,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WharfingerError,
)

THINGS = Resource("example.com", "v1", "things", "Thing")
Deed = Callable[[socket.socket, bytes], bool]
"""What the server does with a request on a connection; returns whether the connection lives on."""


def answer(value: Any, status: int = 200, headers: str = "", *, keep: bool = True) -> Deed:
    """Answer with a value as JSON."""

    def deed(connection: socket.socket, _request: bytes) -> bool:
        data = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n{headers}\r\n"
        connection.sendall(head.encode() + data)
        return keep

    return deed


def drop(_connection: socket.socket, _request: bytes) -> bool:
    """Close without an answer."""
    return False


def raw(*parts: bytes) -> Deed:
    """Send bytes as they are and close."""

    def deed(connection: socket.socket, _request: bytes) -> bool:
        for part in parts:
            connection.sendall(part)
        return False

    return deed


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(value: Any) -> bytes:
    """Return one line of a watch as a chunk."""
    data = json.dumps(value).encode() + b"\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Misbehaving:
    """A server on loopback that does the deeds it is given, one for each request, and remembers the requests."""

    def __init__(self, *deeds: Deed) -> None:
        self.requests: list[bytes] = []
        self._deeds = list(deeds)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def client(self) -> Client:
        """A client of it."""
        return Client(Endpoint("127.0.0.1", self._listener.getsockname()[1]), timeout=5)

    def _serve(self) -> None:
        while self._deeds:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                while self._deeds and (request := self._read(connection)):
                    self.requests.append(request)
                    if not self._deeds.pop(0)(connection, request):
                        break

    def _read(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Callable[..., Misbehaving]]:
    """Make servers that are closed afterwards."""
    made: list[Misbehaving] = []

    def make(*deeds: Deed) -> Misbehaving:
        made.append(Misbehaving(*deeds))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_connection_is_kept_and_a_closed_one_is_replaced(server: Callable[..., Misbehaving]) -> None:
    """The server closes after the first answer: the next request, a write too, goes over a new connection."""
    running = server(answer({"items": [], "metadata": {}}, keep=False), answer({"metadata": {"name": "a"}}))
    client = running.client
    client.list(THINGS, "ns")
    running_thread_has_closed(client)
    assert client.create(THINGS, {"metadata": {"namespace": "ns"}})["metadata"]["name"] == "a"
    assert len(running.requests) == 2


def running_thread_has_closed(client: Client) -> None:
    """Wait until the end of the kept connection has arrived."""
    connection = client._local.connection
    connection.sock.settimeout(5)
    assert connection.sock.recv(1, socket.MSG_PEEK) == b""


def test_a_read_that_was_swallowed_is_sent_again(server: Callable[..., Misbehaving]) -> None:
    """GET is safe: a kept connection that breaks under it costs nothing."""
    running = server(answer({"items": [], "metadata": {}}), drop, answer({"metadata": {"name": "a"}}))
    client = running.client
    client.list(THINGS, "ns")
    assert client.get(THINGS, "ns", "a")["metadata"]["name"] == "a"
    assert len(running.requests) == 3


def test_a_write_that_may_have_been_seen_is_not_sent_again(server: Callable[..., Misbehaving]) -> None:
    """The server got it whole and vanished: whether it happened is the caller's to find out."""
    running = server(answer({"items": [], "metadata": {}}), drop, answer({}))
    client = running.client
    client.list(THINGS, "ns")
    with pytest.raises(Unavailable):
        client.create(THINGS, {"metadata": {"namespace": "ns"}})
    assert len(running.requests) == 2


def test_nobody_there_is_unavailable() -> None:
    """A port where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        client = Client(Endpoint("127.0.0.1", probe.getsockname()[1]), timeout=2)
        with pytest.raises(Unavailable, match="refused"):
            client.list(THINGS)


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [(400, "BadRequest", Malformed), (401, "Unauthorized", Unauthenticated), (403, "Forbidden", Denied),
     (404, "NotFound", NotFound), (409, "AlreadyExists", AlreadyExists), (409, "Conflict", Conflict),
     (410, "Expired", Gone), (410, "Gone", Gone), (413, "RequestEntityTooLarge", TooLarge), (422, "Invalid", Invalid),
     (503, "ServiceUnavailable", Unavailable), (504, "Timeout", Unavailable), (500, "InternalError", Unavailable)],
)  # fmt: skip
def test_a_status_becomes_an_error_of_the_family(
    server: Callable[..., Misbehaving], status: int, reason: str, kind: type[WharfingerError]
) -> None:
    """By its reason, else by its code; the message and the fields come along."""
    told = {"kind": "Status", "status": "Failure", "message": "because", "reason": reason, "code": status,
            "details": {"causes": [{"field": "spec.x", "message": "wrong", "reason": "FieldValueInvalid"}]}}  # fmt: skip
    with pytest.raises(kind, match="because") as caught:
        server(answer(told, status)).client.get(THINGS, "ns", "a")
    assert [problem.field for problem in caught.value.fields] == ["spec.x"]


@pytest.mark.parametrize("where", ["header", "details"])
def test_a_429_says_how_long_to_wait(server: Callable[..., Misbehaving], where: str) -> None:
    """From Retry-After, or from the Status."""
    told: dict[str, Any] = {"kind": "Status", "code": 429, "message": "slow down"}
    if where == "details":
        told["details"] = {"retryAfterSeconds": 7}
    with pytest.raises(Throttled) as caught:
        server(answer(told, 429, "retry-after: 7\r\n" if where == "header" else "")).client.list(THINGS)
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("text", [b"<html>", b"[]", b"\xff", b""])
def test_an_answer_that_is_no_object_is_unavailable(server: Callable[..., Misbehaving], text: bytes) -> None:
    """Whatever stands in between is not believed."""
    data = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text)
    with pytest.raises(Unavailable):
        server(raw(data)).client.get(THINGS, "ns", "a")


def test_pages_are_gathered(server: Callable[..., Misbehaving]) -> None:
    """A list in pages is one list, with the last page's metadata."""
    first = {"items": [{"metadata": {"name": "a"}}], "metadata": {"resourceVersion": "5", "continue": "t&t"}}
    second = {"items": [{"metadata": {"name": "b"}}], "metadata": {"resourceVersion": "5"}}
    running = server(answer(first), answer(second))
    found = running.client.list(THINGS, "ns", limit=1)
    assert [item["metadata"]["name"] for item in found["items"]] == ["a", "b"]
    assert b"continue=t%26t" in running.requests[1] and "continue" not in found["metadata"]


def test_a_watch_yields_events_until_the_server_ends_it(server: Callable[..., Misbehaving]) -> None:
    """Each line is an event; bookmarks are asked for."""
    event = {"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": "6"}}}
    running = server(raw(CHUNKED, chunk(event), b"0\r\n\r\n"))
    seen = list(running.client.watch(THINGS, "ns", resource_version="5"))
    assert [each.object["metadata"]["name"] for each in seen] == ["a"]
    assert b"allowWatchBookmarks=true" in running.requests[0] and b"resourceVersion=5" in running.requests[0]


def test_a_watch_that_is_told_410_raises_gone(server: Callable[..., Misbehaving]) -> None:
    """In the stream or as its status."""
    told = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    for deed in (raw(CHUNKED, chunk({"type": "ERROR", "object": told}), b"0\r\n\r\n"), answer(told, 410)):
        with pytest.raises(Gone):
            list(server(deed).client.watch(THINGS, resource_version="1"))


@pytest.mark.parametrize("rest", [b"", b'20\r\n{"type":', b"zz\r\n", b"5\r\nrubbi\r\n"])
def test_a_watch_that_breaks_is_unavailable(server: Callable[..., Misbehaving], rest: bytes) -> None:
    """Cut between events, in an event, in the framing, or with rubbish: it ends; what came before was seen."""
    event = {"type": "ADDED", "object": {"metadata": {"name": "a"}}}
    watch = server(raw(CHUNKED, chunk(event), rest)).client.watch(THINGS, resource_version="1")
    assert next(watch).type == "ADDED"
    try:
        assert list(watch) == []
    except Unavailable:
        pass


def test_another_thread_can_end_a_watch(server: Callable[..., Misbehaving]) -> None:
    """It gets the connection's socket when the watch is open."""
    hold = threading.Event()

    def deed(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(CHUNKED)
        hold.wait(10)
        return False

    def end(held: socket.socket) -> None:
        threading.Thread(target=held.shutdown, args=(socket.SHUT_RDWR,)).start()

    try:
        assert list(server(deed).client.watch(THINGS, resource_version="1", on_open=end)) == []
    except Unavailable:
        pass
    finally:
        hold.set()
