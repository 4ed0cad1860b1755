"""A channel to a registry or log: HTTPS with our SVID, answers streamed, errors in our family.

Synchronous, on `http.client`, one kept-alive connection per thread. A kept-alive connection that the server closed
meanwhile is opened anew once, and only for a request whose body can be sent again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from wharfinger.core.errors import (
    Conflict,
    Denied,
    HostUnfit,
    Invalid,
    Malformed,
    NotFound,
    Throttled,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unverified,
    WharfingerError,
    excerpt,
)

Body: TypeAlias = bytes | Iterator[bytes]
CHUNK: Final = 256 * 1024
LARGEST_ANSWER: Final = 8 * 1024 * 1024
"""Bytes of an answer that is read whole."""
_TIMEOUT: Final = 60.0
_STALE: Final = (ConnectionError, http.client.RemoteDisconnected, ssl.SSLEOFError)
"""How it shows that the other end has closed a connection that was kept."""
_BY_STATUS: Final[Mapping[int, type[WharfingerError]]] = {
    400: Malformed, 401: Unauthenticated, 403: Denied, 404: NotFound, 405: Malformed, 409: Conflict, 413: TooLarge,
    416: Conflict, 422: Invalid, 507: HostUnfit,
}  # fmt: skip


class Channel:
    """Speaks to `host` and `port`; threads share it, each over its own connection.

    `context` None is plain HTTP, for tests on loopback; `what` names the other end in errors.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, what: str) -> None:
        self.host = host
        self.port = port
        self._context = context
        self._what = what
        self._local = threading.local()

    @contextlib.contextmanager
    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        length: int | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and give its answer, whose body the caller reads; an answer of 400 or more is raised.

        A `body` of chunks has `length` bytes, or is sent in chunks where that is None. Raises the error that the
        answer stands for, `Unavailable` when there is none.
        """
        answer = self._send(method, path, dict(headers or {}), body, length)
        try:
            if answer.status >= 400:
                raise self._error(answer, f"{method} {path.partition('?')[0]}")
            yield answer
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unavailable(f"{self._what}: the answer broke off: {error or type(error).__name__}") from error
        finally:
            # Whoever leaves an answer half read leaves a connection that nobody else can use.
            if not answer.isclosed():
                self._finish(answer)

    def read(self, answer: http.client.HTTPResponse, limit: int = LARGEST_ANSWER) -> bytes:
        """Return the rest of an answer of at most `limit` bytes. Raises `TooLarge`."""
        data = answer.read(limit + 1)
        if len(data) > limit:
            raise TooLarge(f"{self._what}: expected an answer of at most {limit} bytes, got more")
        return data

    def get(self, path: str, *, accept: str = "*/*", limit: int = LARGEST_ANSWER) -> bytes:
        """Return the body of what is at `path`, at most `limit` bytes. Raises as `ask`, and `TooLarge`."""
        with self.ask("GET", path, headers={"Accept": accept}) as answer:
            return self.read(answer, limit)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: Body, length: int | None
    ) -> http.client.HTTPResponse:
        if isinstance(body, bytes):
            length = len(body)
        if length is not None and (length or method in ("POST", "PUT", "PATCH")):
            headers["Content-Length"] = str(length)
        for attempt in (1, 2):
            connection = getattr(self._local, "connection", None)
            fresh = connection is None
            if connection is None:
                connection = self._local.connection = self._connect()
            try:
                connection.request(method, path, body=body or None, headers=headers, encode_chunked=length is None)
                answer: http.client.HTTPResponse = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                early = self._early(connection, error)
                if early is not None:
                    return early
                self.close()
                again = isinstance(body, bytes) and not fresh and attempt == 1
                if not again or not isinstance(error, _STALE):
                    raise Unavailable(f"{self._what}: {error or type(error).__name__}") from error
            else:
                return answer
        raise AssertionError("unreachable")

    @staticmethod
    def _early(connection: http.client.HTTPConnection, error: Exception) -> http.client.HTTPResponse | None:
        """Return the answer that the server gave before it had read the whole request, if it did."""
        if not isinstance(error, BrokenPipeError | ConnectionResetError) or connection.sock is None:
            return None
        answer = http.client.HTTPResponse(connection.sock)
        try:
            answer.begin()
        except (OSError, http.client.HTTPException):
            return None
        return answer if answer.status >= 400 else None

    def _connect(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._context is None:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT)
        else:
            connection = http.client.HTTPSConnection(self.host, self.port, timeout=_TIMEOUT, context=self._context)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise Unavailable(
                f"{self._what} at {self.host}:{self.port}: {error}", hint="wharf status shows what runs"
            ) from error
        return connection

    def _finish(self, answer: http.client.HTTPResponse) -> None:
        try:
            if len(answer.read(CHUNK)) == CHUNK:
                self.close()
        except (OSError, http.client.HTTPException):
            self.close()

    def _error(self, answer: http.client.HTTPResponse, request: str) -> WharfingerError:
        data = answer.read(64 * 1024)
        message, hint, code = f"{self._what}: {request}: HTTP status {answer.status}", "", ""
        try:
            told = json.loads(data)["errors"][0]
            message, code = str(told["message"]), str(told.get("code"))
            detail = told.get("detail")
            hint = str(detail.get("hint", "")) if isinstance(detail, dict) else ""
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            if data:
                message += f": {excerpt(data[:200].decode('utf-8', 'replace'))}"
        if answer.status == 429:
            after = answer.headers.get("Retry-After", "1")
            return Throttled(message, retry_after=int(after) if after.isdigit() else 1, hint=hint)
        kind = Unverified if code == "UNVERIFIED" else _BY_STATUS.get(answer.status, Unavailable)
        return kind(message, hint=hint)
