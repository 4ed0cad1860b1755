"""Where pods' logs are: the node, asked over HTTPS; the adapter of the port `app.PodLogs`.

One connection a log. What the node refuses is told in its words; a connection that breaks ends the log, as
kube-apiserver ends it when a kubelet goes away.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import urlencode

import httptools

from wharfinger.core.document import Json, parse_json
from wharfinger.core.errors import Malformed, NotFound, Unavailable, WharfingerError, excerpt

_OPTIONS: Final = (
    "container", "follow", "insecureSkipTLSVerifyBackend", "limitBytes", "previous", "sinceSeconds", "sinceTime",
    "tailLines", "timestamps",
)  # fmt: skip
_CHUNK: Final = 64 * 1024
_LONGEST_REFUSAL: Final = 64 * 1024
_ANSWER_WITHIN: Final = 10.0


class NodeLogs:
    """The logs of the pods of the node at `port` of the loopback address, reached by `context`."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._port = port
        self._context = context

    async def open(self, pod: Json, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Return the log of `pod` in parts. Raises `NotFound`, `Malformed`, or `Unavailable` when the node is away."""
        metadata = pod["metadata"]
        told = {"namespace": metadata["namespace"], "pod": metadata["name"], "uid": metadata["uid"]}
        told |= {name: options[name] for name in _OPTIONS if name in options}
        connection = await self._connect(f"/v1/logs?{urlencode(told)}")
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                while connection.answer.status is None:
                    await connection.read()
                if connection.answer.status != 200:
                    raise await _refusal(connection)
        except TimeoutError as error:
            connection.close()
            raise Unavailable("the node does not answer: expected a log", hint="wharf status shows it") from error
        except WharfingerError:
            connection.close()
            raise
        return _parts(connection)

    async def _connect(self, path: str) -> _Connection:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"the node cannot be reached: {error}", hint="wharf status shows it") from error
        writer.write(f"GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n".encode("ascii"))
        return _Connection(reader, writer)


class _Answer:
    """What has come of an HTTP answer so far; its methods are the callbacks of httptools."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.parts: list[bytes] = []
        self.is_over = False
        self.parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        self.is_over = True


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answer = _Answer()
        self._reader = reader
        self._writer = writer

    async def read(self) -> None:
        """Read on; raises `Unavailable` when the connection breaks before the answer is over."""
        try:
            data = await self._reader.read(_CHUNK)
            if data:
                self.answer.parser.feed_data(data)
        except (OSError, httptools.HttpParserError) as error:
            raise Unavailable(f"the log of the node broke: {error}") from error
        if not data and not self.answer.is_over:
            raise Unavailable("the log of the node broke")

    def close(self) -> None:
        self._writer.close()


async def _parts(connection: _Connection) -> AsyncIterator[bytes]:
    answer = connection.answer
    try:
        while True:
            if answer.parts:
                ready = b"".join(answer.parts)
                answer.parts.clear()
                yield ready
            elif answer.is_over:
                return
            else:
                await connection.read()
    except Unavailable:
        return
    finally:
        connection.close()


async def _refusal(connection: _Connection) -> WharfingerError:
    answer = connection.answer
    while not answer.is_over and sum(map(len, answer.parts)) < _LONGEST_REFUSAL:
        await connection.read()
    text = b"".join(answer.parts)
    try:
        told = parse_json(text)
        message = str(told["message"])
    except (WharfingerError, KeyError, TypeError):
        message = excerpt(text.decode("utf-8", "replace").strip())
    match answer.status:
        case 404:
            return NotFound(message)
        case 400 | 422:
            return Malformed(message)
        case _:
            return Unavailable(f"the node refused a log with status {answer.status}: {message}")
