"""One listening socket of the data path: accepts connections for a handler, drains them when it is to stop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final

from wharfinger.core.errors import HostUnfit
from wharfinger.inference.http1 import Connection, Handler

HANDSHAKE_SECONDS: Final = 10.0
MOST_CONNECTIONS: Final = 8192
GRACE_SECONDS: Final = 5.0
_POLL: Final = 0.05


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket on a loopback address. Raises `HostUnfit` when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise HostUnfit(
            f"port {port} of {host}: {error.strerror}", hint="stop what listens there or choose another port"
        ) from error
    listener.setblocking(False)
    return listener


class Listener:
    """Serves `handler` on a socket inside a running event loop: `await start()`, then `await stop()`."""

    def __init__(self, handler: Handler, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        self._handler = handler
        self._socket = listener
        self._context = context
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.port: int = listener.getsockname()[1]

    async def start(self) -> None:
        """Accept connections from now on."""
        timeout = HANDSHAKE_SECONDS if self._context is not None else None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._handler, self._connections, most=MOST_CONNECTIONS),
            sock=self._socket,
            ssl=self._context,
            ssl_handshake_timeout=timeout,
        )

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Accept nothing more, give requests in flight `grace` seconds, then break them off."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.drain()
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        while self._connections and loop.time() < until:
            await asyncio.sleep(_POLL)
        for connection in list(self._connections):
            connection.abort()
