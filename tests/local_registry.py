"""The registry in this process, on loopback TLS with certificates of a test authority, and objects set by hand."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop
from authority import TRUST_DOMAIN, Authority, identity
from logkeeper import LogKeeper
from prometheus_client import CollectorRegistry

from wharfinger.core.clock import HOUR, rfc3339
from wharfinger.core.errors import Invalid, Unauthenticated
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity import serve
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.journal import Journal, read
from wharfinger.supply.registry.app import Registry
from wharfinger.supply.registry.authentication import Authenticator
from wharfinger.supply.registry.catalog import Catalog
from wharfinger.supply.registry.client import RegistryClient
from wharfinger.supply.registry.door import RegistryDoor
from wharfinger.supply.registry.objects import Objects
from wharfinger.supply.registry.storage import Storage
from wharfinger.supply.tlog.client import LogClient
from wharfinger.supply.tlog.log import Log

REGISTRY = SpiffeId(identity("wharfinger/registry"))
CONTROL, ADMIN, NODE = "wharfinger/control", "wharfinger/admin", "wharfinger/node"
ALICE, ADA, MALLORY = "tenant/research/user/alice", "tenant/research/user/ada", "tenant/support/user/mallory"
"""Alice and Ada (an admin) are of the tenant that owns the namespace `research`, Mallory of that of `support`."""
SERVER, OTHER = "ns/research/sa/server", "ns/research/sa/other"


class LocalRegistry:
    """A registry on the folder `folder`; a token `token:PATH` stands for the SPIFFE ID at PATH."""

    def __init__(self, folder: Path, *, authority: Authority | None = None, port: int = 0, room: int = 0) -> None:
        self.folder = folder
        self.authority = authority or Authority()
        self.keeper = LogKeeper(path=folder / "keeper")
        self.objects = Objects(TRUST_DOMAIN)
        clock, ids = SystemClock(), SystemIds()
        self.journal = Journal(folder / "evidence")
        self.storage = Storage(folder / "registry", Catalog(folder / "registry" / "catalog.db"), clock, ids, room=room)
        self.log = Log(folder / "log", self.keeper.key, self.keeper.sign, clock)
        door = RegistryDoor(
            self.objects, Doorkeeper("registry", self.journal, clock, ids), self.journal, condition, clock, ids
        )
        self.app = Registry(self.storage, door, Authenticator(_holder), TRUST_DOMAIN, self.log)
        self._listener = serve.bind(port)
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[RegistryClient | LogClient] = []
        self.tenant("research", ["research"], ["ada"])
        self.tenant("support", ["support"])

    def start(self) -> LocalRegistry:
        """Serve from a thread until `stop`."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(30)
        return self

    def stop(self) -> None:
        """End it and wait."""
        for client in self._clients:
            client.close()
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(30)
        self.log.close()
        self.storage.close()
        self.storage.catalog.close()
        self.journal.close()

    def client(self, path: str) -> RegistryClient:
        """Return a client that calls as the SPIFFE ID at `path`; `stop` closes its connection."""
        made = RegistryClient("127.0.0.1", self.port, self.authority.source(path), expect=REGISTRY)
        self._clients.append(made)
        return made

    def log_client(self, path: str, **more: Any) -> LogClient:
        """Return a client of the log that calls as the SPIFFE ID at `path`."""
        source = self.authority.source(path)
        made = LogClient("127.0.0.1", self.port, source, self.keeper.key, expect=REGISTRY, **more)
        self._clients.append(made)
        return made

    @contextlib.contextmanager
    def connection(self, path: str) -> Any:
        """Give an HTTP connection as the SPIFFE ID at `path`."""
        context = client_context(self.authority.source(path), expect=REGISTRY)
        made = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=30)
        try:
            yield made
        finally:
            made.close()

    def ask(self, path: str, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """Send one request as the SPIFFE ID at `path`."""
        with self.connection(path) as connection:
            told = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body=body or None, headers=told)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())

    def tenant(self, name: str, namespaces: list[str], admins: list[str] | None = None) -> None:
        """Make a tenant."""
        spec = {"namespaces": namespaces, "admins": admins or []}
        self.objects.take("tenants", "ADDED", {"metadata": {"name": name}, "spec": spec})

    def policy(self, name: str, change: str = "ADDED", **spec: Any) -> None:
        """Make, change or delete an AccessPolicy."""
        self.objects.take("accesspolicies", change, {"metadata": {"name": name}, "spec": spec})

    def names(self, plural: str, namespace: str, name: str, repository: str, digest: str) -> None:
        """Make a Dataset or Model that names an artifact."""
        spec = {"artifact": {"repository": repository, "digest": digest}}
        self.objects.take(plural, "ADDED", {"metadata": {"namespace": namespace, "name": name}, "spec": spec})

    def grant(self, path: str, digest: str, *, revoked: bool = False, name: str = "g") -> None:
        """Make or change a grant of the workload at `path` for the artifact `digest`."""
        now = SystemClock().now()
        spec = {
            "workload": identity(path), "artifacts": [digest], "callers": [], "revoked": revoked,
            "notBefore": rfc3339(now - HOUR), "notAfter": rfc3339(now + HOUR),
        }  # fmt: skip
        self.objects.take("grants", "MODIFIED", {"metadata": {"namespace": "research", "name": name}, "spec": spec})

    def catalog_has(self, repository: str, reference: str) -> bool:
        """Say whether a repository holds a manifest."""
        return self.storage.catalog.resolve(repository, reference) is not None

    def decisions(self) -> list[dict[str, Any]]:
        """Return the decisions that are on disk."""
        return [record for record in read(self.folder / "evidence") if record["kind"] == "decision"]

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
            source = self.authority.source("wharfinger/registry")
            front = serve.Server(self.app, source, self._listener, registry=CollectorRegistry())
            await front.start()
            ready.set()
            await self._stopping.wait()
            await front.stop()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())


class Answer:
    """An HTTP answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def code(self) -> str:
        """The code of the error that the body holds."""
        import json

        return str(json.loads(self.body)["errors"][0]["code"])


def condition(text: str, variables: Mapping[str, Any]) -> bool:
    """Stand for CEL: `true`, `false`, and anything else is an error."""
    if text in ("true", "false"):
        return text == "true"
    raise Invalid("no such condition")


def _holder(token: str) -> SpiffeId:
    kind, _, path = token.partition(":")
    if kind != "token":
        raise Unauthenticated("expected a token of the test")
    return SpiffeId(identity(path))
