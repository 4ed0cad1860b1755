"""Serves an ASGI application over TLS with SVIDs: uvicorn on uvloop and httptools, kept lean.

The application finds the peer's verified SPIFFE ID, or None, at `scope["extensions"]["wharfinger.peer"]`
(`peer_of(scope)`), checked once per connection. Every process answers three paths beside its own: `/livez`
(the process runs), `/readyz` (it can do its work; 503 and the reason when not), both open to anyone, and
`/metrics` (Prometheus text), open to the platform's own parts and the local admin.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import uvicorn
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from wharfinger.core.errors import HostUnfit
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import Part, SpiffeId
from wharfinger.identity.tls import ClientCerts, Expect, peer_id, server_context

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Readiness: TypeAlias = Callable[[], str | None]
"""Returns why the process cannot do its work now, None when it can."""

PEER: Final = "wharfinger.peer"
KEEP_ALIVE_SECONDS: Final = 75
GRACE_SECONDS: Final = 5
"""How long requests in flight may take once the server is asked to stop."""

_log = logging.getLogger(__name__)


def peer_of(scope: Scope) -> SpiffeId | None:
    """Return the verified SPIFFE ID of the connection that `scope` came over, None when it showed no SVID."""
    peer: SpiffeId | None = scope["extensions"][PEER]
    return peer


def bind(port: int = 0) -> socket.socket:
    """Return a listening socket on the loopback address; port 0 takes a free one.

    Raises `HostUnfit` when the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise HostUnfit(
            f"port {port} of 127.0.0.1: {error.strerror}", hint="stop what listens there or choose another port"
        ) from error
    listener.setblocking(False)
    return listener


class Server:
    """One HTTPS server of a process, inside a running event loop: `await start()`, then `await stop()`."""

    def __init__(
        self,
        application: Application,
        source: SvidSource,
        listener: socket.socket,
        *,
        client_certs: ClientCerts = "optional",
        expect: Expect = None,
        ready: Readiness = lambda: None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        context = server_context(source, client_certs=client_certs, expect=expect)

        def give_context(_config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
            return context

        self._listener = listener
        self.port: int = listener.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                observed(application, ready, registry),
                http=_Protocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                ssl_context_factory=give_context,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve until `stop`; returns when connections are accepted."""
        self._task = asyncio.create_task(self._server._serve([self._listener]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0)
        if self._task.done():
            self._task.result()
        _log.info("serving", extra={"fields": {"port": self.port}})

    async def stop(self) -> None:
        """Accept nothing more, give requests in flight `GRACE_SECONDS`, then close."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def observed(
    application: Application, ready: Readiness = lambda: None, registry: CollectorRegistry = REGISTRY
) -> Application:
    """Return `application` with `/livez`, `/readyz` and `/metrics` in front of it."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path not in _OWN_PATHS:
            await application(scope, receive, send)
            return
        if path == "/livez":
            await _text(send, 200, b"ok\n")
        elif path == "/readyz":
            why_not = ready()
            await _text(send, 200 if why_not is None else 503, b"ok\n" if why_not is None else why_not.encode() + b"\n")
        elif may_scrape(peer_of(scope)):
            await _text(send, 200, generate_latest(registry), CONTENT_TYPE_LATEST.encode())
        else:
            await _text(send, 403, b"metrics are for the platform's own parts\n")

    return answer


def may_scrape(peer: SpiffeId | None) -> bool:
    """Say whether `peer` may read metrics: they tell of every tenant, so only a part of the platform may."""
    return peer is not None and isinstance(peer.kind, Part)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` on uvloop until it returns; a process's shell."""
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_awaited(main))


async def _awaited(main: Callable[[], Awaitable[None]]) -> None:
    await main()


_OWN_PATHS: Final = frozenset({"/livez", "/readyz", "/metrics"})


async def _text(send: Send, status: int, body: bytes, kind: bytes = b"text/plain; charset=utf-8") -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which also knows its peer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._extensions = {PEER: peer_id(transport.get_extra_info("ssl_object"))}

    def shutdown(self) -> None:
        """Stop: a connection that waits for its next request is cut, as its client may never read our goodbye."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
