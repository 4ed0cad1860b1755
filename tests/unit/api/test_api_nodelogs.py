"""Logs from the node: asked over HTTPS by the API server, refused in the node's words, ended when it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from authority import Authority, identity

from wharfinger.core.errors import Malformed, NotFound, Unavailable, WharfingerError
from wharfinger.identity import serve
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context
from wharfinger.local.api.nodelogs import NodeLogs

POD = {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}}


class Node:
    """A node that answers with a status and parts, and remembers what it was asked."""

    def __init__(self, status: int, *parts: bytes, whole: bool = True) -> None:
        self.status, self.parts, self.whole = status, parts, whole
        self.asked: list[tuple[str, bytes, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        self.asked.append((scope["path"], scope["query_string"], str(serve.peer_of(scope))))
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if self.whole:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def read(node: Node, options: dict[str, str] | None = None, expect: str = "wharfinger/node") -> bytes:
    """Read a log from a node, as the API server reads it."""
    authority = Authority()

    async def main() -> bytes:
        listener = serve.bind(0)
        front = serve.Server(node, authority.source("wharfinger/node"), listener, client_certs="required")
        await front.start()
        context = client_context(authority.source("wharfinger/api"), expect=SpiffeId(identity(expect)))
        try:
            parts = await NodeLogs(front.port, context).open(POD, options or {})
            return b"".join([part async for part in parts])
        finally:
            await front.stop()

    return asyncio.run(main())


def test_a_log_comes_whole_and_the_node_knows_who_asks() -> None:
    """The parts in order; options are passed on, others are not; the caller is the API server by its SVID."""
    node = Node(200, b"one\n", b"two\n")
    assert read(node, {"follow": "true", "tailLines": "5", "pretty": "1"}) == b"one\ntwo\n"
    ((path, query, who),) = node.asked
    assert path == "/v1/logs" and query == b"namespace=ns&pod=p&uid=u&follow=true&tailLines=5"
    assert who == identity("wharfinger/api")


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [(404, b'{"message":"no such container"}', NotFound, "no such container"),
     (400, b"tailLines is no number", Malformed, "tailLines is no number"),
     (500, b"oops", Unavailable, "status 500"), (404, b'{"code": 1}', NotFound, "code")],
)  # fmt: skip
def test_a_refusal_is_told_in_the_nodes_words(
    status: int, body: bytes, kind: type[WharfingerError], words: str
) -> None:
    """As JSON or as text."""
    with pytest.raises(kind, match=words):
        read(Node(status, body))


def test_a_node_that_breaks_off_ends_the_log() -> None:
    """What came is given; there is no error, as when a kubelet goes away."""
    assert read(Node(200, b"one\n", whole=False)) == b"one\n"


def test_another_at_the_nodes_port_is_not_believed() -> None:
    """Who is not the node by its SVID gives no log."""
    with pytest.raises(Unavailable, match="cannot be reached"):
        read(Node(200, b"lies"), expect="wharfinger/other")


def test_no_node_is_unavailable() -> None:
    """Nobody listens."""
    authority = Authority()
    listener = serve.bind(0)
    port = listener.getsockname()[1]
    listener.close()
    context = client_context(authority.source("wharfinger/api"), expect=SpiffeId(identity("wharfinger/node")))
    opened: Callable[[], Any] = lambda: NodeLogs(port, context).open(POD, {})  # noqa: E731
    with pytest.raises(Unavailable, match="cannot be reached"):
        asyncio.run(opened())
