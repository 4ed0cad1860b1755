"""One request and its answer: the body in bounded pieces, JSON or a file back, errors as distribution-spec has them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from wharfinger.core.document import Json
from wharfinger.core.errors import (
    Conflict,
    Denied,
    DigestMismatch,
    HostUnfit,
    Malformed,
    NotFound,
    Throttled,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unverified,
    WharfingerError,
)
from wharfinger.identity.serve import Receive, Scope, Send
from wharfinger.supply.disk import StorageFull
from wharfinger.supply.registry.authentication import CHALLENGE
from wharfinger.supply.registry.catalog import MissingBlob
from wharfinger.supply.registry.routes import BadDigest, BadName, BadRange, BadTag

CHUNK: Final = 1024 * 1024
_CODES: Final[tuple[tuple[type[WharfingerError], int, str], ...]] = (
    (BadName, 400, "NAME_INVALID"),
    (BadDigest, 400, "DIGEST_INVALID"),
    (BadTag, 404, "MANIFEST_UNKNOWN"),
    (BadRange, 416, "SIZE_INVALID"),
    (MissingBlob, 404, "MANIFEST_BLOB_UNKNOWN"),
    (DigestMismatch, 400, "DIGEST_INVALID"),
    (Unverified, 422, "UNVERIFIED"),
    (StorageFull, 507, "STORAGE_FULL"),
    (Unauthenticated, 401, "UNAUTHORIZED"),
    (Denied, 403, "DENIED"),
    (Throttled, 429, "TOOMANYREQUESTS"),
    (TooLarge, 413, "SIZE_INVALID"),
    (Unavailable, 503, "UNAVAILABLE"),
    (HostUnfit, 500, "UNKNOWN"),
)
"""Error to status and code; what is not listed has its own status and the code that the endpoint gives."""


class Gone(Exception):
    """The client left in the middle of its request: there is nobody to answer."""


class Unsupported(WharfingerError):
    """The operation is none of this endpoint (UNSUPPORTED)."""

    code = "MethodNotAllowed"
    status = 405


class Exchange:
    """One request, `scope` and `receive`, and the way back, `send`."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self.started = False
        self._receive = receive
        self._send = send
        self._read_all = False

    def header(self, name: bytes) -> str:
        """Return a header's first value, empty where there is none."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    @property
    def length(self) -> int | None:
        """The body's length as it was announced, None when it was not. Raises `Malformed`."""
        text = self.header(b"content-length")
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise Malformed("expected Content-Length as a number")
        return int(text)

    async def chunks(self, size: int = CHUNK) -> AsyncIterator[bytes]:
        """Yield the body in pieces of about `size` bytes. Raises `Gone` when the client leaves."""
        held: list[bytes] = []
        have = 0
        while not self._read_all:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            self._read_all = not message.get("more_body", False)
            body = message.get("body", b"")
            if body:
                held.append(body)
                have += len(body)
            if have >= size:
                yield b"".join(held)
                held, have = [], 0
        if held:
            yield b"".join(held)

    async def body(self, limit: int) -> bytes:
        """Return the whole body. Raises `TooLarge` over `limit` bytes, `Gone`."""
        if (self.length or 0) > limit:
            raise TooLarge(f"expected a body of at most {limit} bytes, got {self.length}")
        data = b""
        async for chunk in self.chunks(limit + 1):
            data += chunk
            if len(data) > limit:
                raise TooLarge(f"expected a body of at most {limit} bytes, got more")
        return data

    async def answer(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        """Send an answer whose body is at hand; a HEAD's body is its length alone."""
        told = {"content-length": str(len(body)), **(headers or {})}
        await self._start(status, told)
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def json(self, value: Json, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        """Send a JSON answer."""
        body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        await self.answer(status, {"content-type": "application/json", **(headers or {})}, body)

    async def file(self, descriptor: int, start: int, end: int, status: int, headers: Mapping[str, str]) -> None:
        """Send the bytes [start, end) of an open file, as the client takes them."""
        await self._start(status, {"content-length": str(end - start), **headers})
        at = start
        while at < end and self.method != "HEAD":
            data = await asyncio.to_thread(os.pread, descriptor, min(CHUNK, end - at), at)
            if not data:
                # The head is out: breaking off is the only way to say that this is not the blob.
                raise OSError("a blob is shorter than the catalog says")
            at += len(data)
            await self._send({"type": "http.response.body", "body": data, "more_body": at < end})
        if start == end or self.method == "HEAD":
            await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, error: WharfingerError, unknown: str) -> None:
        """Send `error`; `unknown` is the code for what is not there or not well formed at this endpoint."""
        status, code = error.status, unknown
        for kind, known_status, known_code in _CODES:
            if isinstance(error, kind):
                status, code = known_status, known_code
                break
        else:
            if isinstance(error, Unsupported):
                code = "UNSUPPORTED"
            elif not isinstance(error, NotFound | Malformed | Conflict):
                code = "UNKNOWN"
        headers = {"connection": "close"} if not self._read_all and self.method in ("PUT", "PATCH", "POST") else {}
        if status == 401:
            headers["www-authenticate"] = CHALLENGE.decode()
        if isinstance(error, Throttled):
            headers["retry-after"] = str(error.retry_after)
        told: dict[str, Json] = {"code": code, "message": error.message}
        if error.hint:
            told["detail"] = {"hint": error.hint}
        await self.json({"errors": [told]}, headers, status)

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.started = True
        encoded = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
