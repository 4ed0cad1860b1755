"""The local API server in this process, on loopback TLS with certificates of a test authority."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvloop
from authority import TRUST_DOMAIN, Authority, identity

from wharfinger.cluster.client import Client
from wharfinger.cluster.endpoint import Endpoint
from wharfinger.core.errors import Unauthenticated, WharfingerError
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity import serve
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context
from wharfinger.local.api.authn import Authenticator
from wharfinger.local.api.server import ApiServer

API = SpiffeId(identity("wharfinger/api"))
ADMIN, CONTROL, NODE = "wharfinger/admin", "wharfinger/control", "wharfinger/node"


def admit_all(*_: Any) -> None:
    """Admit everything: for tests of the API itself, which a cluster's server is compared with."""


class LocalApi:
    """A server on `path`; `tokens` maps bearer tokens to SPIFFE IDs."""

    def __init__(
        self,
        path: Path,
        *,
        authority: Authority | None = None,
        tokens: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.authority = authority or Authority()
        self._tokens = dict(tokens or {})
        self._path = path
        self._options: dict[str, Any] = {"admit": admit_all, "clock": SystemClock(), "ids": SystemIds(), **options}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener = serve.bind(0)
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> LocalApi:
        """Serve from a thread until `stop`; returns when it is ready."""
        ready = threading.Event()
        failed: list[Exception] = []
        self._thread = threading.Thread(target=self._run, args=(ready, failed), daemon=True)
        self._thread.start()
        ready.wait(30)
        if failed:
            raise failed[0]
        return self

    def stop(self) -> None:
        """End it and wait."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(30)

    def run(self, step: Callable[[], Any]) -> Any:
        """Run `step`, or await what it returns, in the server's loop."""

        async def awaited() -> Any:
            made = step()
            return await made if asyncio.iscoroutine(made) else made

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(30)

    def client(self, path: str = CONTROL, **more: Any) -> Client:
        """Return a client that calls as the SPIFFE ID at `path`."""
        context = client_context(self.authority.source(path), expect=API)
        return Client(Endpoint("127.0.0.1", self.port, context), **more)

    def kubeconfig(self, folder: Path, path: str = ADMIN, namespace: str = "default") -> Path:
        """Write a kubeconfig of the ID at `path`; return its file."""
        certificate, key = self.authority.pem(path)
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority-data": _b64(self.authority.bundle),
        }
        user = {"client-certificate-data": _b64(certificate), "client-key-data": _b64(key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        }
        file = folder / f"{path.replace('/', '-')}.kubeconfig"
        file.write_text(json.dumps(config), encoding="utf-8")
        return file

    def _run(self, ready: threading.Event, failed: list[Exception]) -> None:
        async def main() -> None:
            try:
                self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
                self.server = ApiServer(
                    self._path, authenticate=Authenticator(self._holder), who=API.text, version="test", **self._options
                )
                source = self.authority.source("wharfinger/api")
                front = serve.Server(self.server.app, source, self._listener, ready=self.server.why_not_ready)
                await self.server.start()
                await front.start()
            except (WharfingerError, OSError, TypeError) as error:
                failed.append(error)
                return
            finally:
                ready.set()
            await self._stopping.wait()
            self.server.end_watches()
            await front.stop()
            await self.server.stop()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    def _holder(self, token: str) -> SpiffeId:
        if token not in self._tokens:
            raise Unauthenticated("expected a token of this test")
        return SpiffeId(self._tokens[token])


def person(tenant: str, user: str) -> str:
    """Return the path of a person's ID."""
    return f"tenant/{tenant}/user/{user}"


def workload(namespace: str, account: str) -> str:
    """Return the path of a workload's ID."""
    return f"ns/{namespace}/sa/{account}"


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


__all__ = ["ADMIN", "API", "CONTROL", "NODE", "TRUST_DOMAIN", "LocalApi", "identity", "person", "workload"]
