"""A whole trust domain for tests: keys, an authority, a Workload API on a real socket, served from a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from wharfinger.core.clock import Clock
from wharfinger.core.errors import Denied
from wharfinger.core.systemclock import SystemClock
from wharfinger.identity.issuer.attestation import Process
from wharfinger.identity.issuer.authority import Authority, Lifetimes
from wharfinger.identity.issuer.vault import Vault
from wharfinger.identity.issuer.workloadserver import Attest, WorkloadServer
from wharfinger.identity.source import FileSource, Material
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain

T = TypeVar("T")
DOMAIN = TrustDomain("example.test")
CONTROL = SpiffeId.part(DOMAIN, "control")
TRAINER = SpiffeId.workload(DOMAIN, "research", "trainer")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.problems: list[dict[str, Any]] = []
        """What nobody handled."""
        self._loop = uvloop.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there; return what it returns."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(30)

    def close(self) -> None:
        """Stop the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Domain:
    """A trust domain in `folder`, with a Workload API for whomever `attest` knows."""

    def __init__(self, folder: Path, *, clock: Clock | None = None, lifetimes: Lifetimes | None = None) -> None:
        self.clock = clock or SystemClock()
        self.vault = Vault(folder / "issuer", DOMAIN, self.clock.now())
        self.authority = Authority(self.vault, self.clock, lifetimes)
        self.records: list[tuple[str, str, str, str]] = []
        self.loop = Loop()
        self._servers: list[WorkloadServer] = []

    def serve(self, path: Path, attest: Attest) -> WorkloadServer:
        """Serve the Workload API at `path`."""
        server = WorkloadServer(path, attest, self.authority, self._record, self.clock)
        self.loop.run(server.start(0o600))
        self._servers.append(server)
        return server

    async def _record(self, who: str, verb: str, what: str, refused: str = "") -> None:
        self.records.append((who, verb, what, refused))

    def source(self, spiffe_id: SpiffeId) -> FileSource:
        """Return a source that holds a fresh SVID of `spiffe_id`."""
        return FileSource(Material(self.authority.svid(spiffe_id), self.authority.bundles))

    def stop(self, server: WorkloadServer) -> None:
        """Stop one server."""
        self._servers.remove(server)
        self.loop.run(server.stop())

    def close(self) -> None:
        """Stop everything."""
        for server in list(self._servers):
            self.stop(server)
        self.loop.close()


def anyone(spiffe_id: SpiffeId) -> Attest:
    """Return what takes every process for `spiffe_id`."""
    return lambda _: spiffe_id


def nobody(process: Process) -> SpiffeId:
    """Take no process for anyone."""
    raise Denied(f"process {process.pid} is not known")


def eventually(condition: Callable[[], bool], changed: threading.Event, seconds: float = 20) -> None:
    """Wait until `condition` holds, looking whenever `changed` is set."""
    while not condition():
        assert changed.wait(seconds), "nothing changed any more"
        changed.clear()
