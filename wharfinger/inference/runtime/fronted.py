"""Another model server behind the runtime's door: any that speaks the OpenAI API, started by the replica itself.

The server gets the verified files and a place to listen, a Unix socket or a port with a key drawn for this start, and
never meets a caller: identity, grant and evidence stay the replica's. In its command `{model}` is the folder of the
files, `{name}` the model's name, `{socket}` the socket, `{host}` and `{port}` the address, `{key}` the key; the same
stand in its environment as `WHARF_MODEL_PATH`, `WHARF_SERVER_SOCKET`, `WHARF_SERVER_HOST`, `WHARF_SERVER_PORT` and
`WHARF_SERVER_KEY`, and as the names that vLLM and llama.cpp read their keys from.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wharfinger.core.errors import Unavailable
from wharfinger.inference.http1 import Reply, Request
from wharfinger.inference.upstream import Pool, head_of

FIRST_BYTE_SECONDS: Final = 300.0
BETWEEN_BYTES_SECONDS: Final = 60.0
START_SECONDS: Final = 600.0
"""How long the server may take to load the model and answer."""
_POLL: Final = 0.2
_STOP_SECONDS: Final = 3.0
_MAX_ANSWER: Final = 64 * 1024 * 1024
_KEY_NAMES: Final = ("WHARF_SERVER_KEY", "VLLM_API_KEY", "LLAMA_API_KEY")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server listens, and what it is told."""

    model: Path
    name: str
    path: Path
    host: str
    port: int
    key: str

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the server's command with everything put in its place."""
        values = {
            "{model}": str(self.model), "{name}": self.name, "{socket}": str(self.path), "{host}": self.host,
            "{port}": str(self.port), "{key}": self.key,
        }  # fmt: skip
        made = []
        for word in words:
            for name, value in values.items():
                word = word.replace(name, value)
            made.append(word)
        return made

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the server's environment; where the replica's identity comes from is not part of it."""
        own = {name: value for name, value in given.items() if name != "SPIFFE_ENDPOINT_SOCKET"}
        return own | {
            "WHARF_MODEL_PATH": str(self.model),
            "WHARF_SERVER_SOCKET": str(self.path),
            "WHARF_SERVER_HOST": self.host,
            "WHARF_SERVER_PORT": str(self.port),
            **dict.fromkeys(_KEY_NAMES, self.key),
        }


def place(model: Path, name: str, folder: Path, host: str) -> Place:
    """Return a free place on `host`, and a socket in `folder`, for a server of `model`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    return Place(model, name, folder / "server.sock", host, port, secrets.token_urlsafe(32))


class Server:
    """The server's process, and the way to it."""

    def __init__(self, where: Place, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._place = where
        self._pool = Pool()
        try:
            self._process = subprocess.Popen(where.command(words), env=where.environment(environment))
        except OSError as error:
            raise Unavailable(f"the model's server: {error.strerror}: {words[0]}") from error

    @property
    def ended(self) -> str:
        """How the server ended; empty while it runs."""
        code = self._process.poll()
        return "" if code is None else f"the model's server exited with {code}"

    async def ready(self) -> None:
        """Wait until it answers. Raises `Unavailable` when it ends before that, or takes too long."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.ended:
                raise Unavailable(self.ended)
            for path in ("/v1/models", "/health"):
                with contextlib.suppress(Unavailable):
                    if (await self._ask("GET", path, b"", seconds=5.0))[0] == 200:
                        return
            await asyncio.sleep(_POLL)
        raise Unavailable(f"the model's server did not answer within {START_SECONDS:.0f} s")

    async def answer(self, request: Request, reply: Reply) -> None:
        """Pass a request on, and its answer back as it comes. Raises `Unavailable`."""
        host, port = self._where()
        head = head_of("POST", request.path, "server", self._headers(), len(request.body))
        answer = await self._pool.request(host, port, None, head, request.body, seconds=FIRST_BYTE_SECONDS)
        try:
            kind = answer.headers.get(b"content-type", b"application/json")
            if not kind.startswith(b"text/event-stream"):
                data = b"".join([chunk async for chunk in answer.chunks(BETWEEN_BYTES_SECONDS)])
                reply.send(answer.status, [(b"content-type", kind)], data)
                return
            reply.start(answer.status, [(b"content-type", kind)])
            async for chunk in answer.chunks(BETWEEN_BYTES_SECONDS):
                await reply.write(chunk)
            reply.finish()
        finally:
            self._pool.release(host, port, None, answer)

    def stop(self) -> None:
        """End the server."""
        self._pool.close()
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    async def _ask(self, method: str, path: str, body: bytes, *, seconds: float) -> tuple[int, bytes]:
        host, port = self._where()
        head = head_of(method, path, "server", self._headers(), len(body))
        answer = await self._pool.request(host, port, None, head, body, seconds=seconds)
        try:
            data = b""
            async for chunk in answer.chunks(seconds):
                data += chunk
                if len(data) > _MAX_ANSWER:
                    raise Unavailable("the model's server sent an answer without end")
            return answer.status, data
        finally:
            self._pool.release(host, port, None, answer)

    def _where(self) -> tuple[str, int]:
        if self._place.path.exists():
            return str(self._place.path), 0
        return self._place.host, self._place.port

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", b"application/json"),
            (b"authorization", b"Bearer " + self._place.key.encode("ascii")),
        ]


def private_folder() -> Path:
    """Return a new folder for the files, that nobody else may enter."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="model-", dir=os.environ.get("TMPDIR")))
