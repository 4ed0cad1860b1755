"""The API server in one piece: the database, what is served from it, and what follows up in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wharfinger.core.clock import Clock
from wharfinger.core.ids import Ids
from wharfinger.kinds.builtin.registry import BUILTINS
from wharfinger.kinds.registry import KINDS
from wharfinger.local.api.app import Api, Authenticate, PodLogs
from wharfinger.local.api.collector import Collector
from wharfinger.local.api.commit import Committer, Transaction
from wharfinger.local.api.metrics import Metrics
from wharfinger.local.api.objects import Admit, Call, Objects
from wharfinger.local.api.reading import BOOKMARK_EVERY, Reading
from wharfinger.local.api.request import Target, WriteOptions
from wharfinger.local.api.retention import Retention
from wharfinger.local.api.reviews import Authorize
from wharfinger.local.api.served import Catalogue
from wharfinger.local.api.store import Event, Key, Store
from wharfinger.local.api.tenancy import Tenants
from wharfinger.local.api.watch import Hub
from wharfinger.local.api.writing import Writing

NAMESPACES: Final = ("default", "kube-node-lease", "kube-public", "kube-system")
"""Namespaces that are always there."""


class ApiServer:
    """One server on one database: `await start()`, serve `app`, `await stop()`.

    `who` is the server's own SPIFFE ID, in the records of what it does by itself. `admit` is admission,
    `authenticate` names callers; without `authorize` the rules of `policy.authorization` apply, on the
    stored Tenants. `logs` is where pods' logs are read.
    """

    def __init__(
        self,
        path: Path,
        *,
        authenticate: Authenticate,
        admit: Admit,
        clock: Clock,
        ids: Ids,
        who: str,
        version: str,
        authorize: Authorize | None = None,
        logs: PodLogs | None = None,
        bookmark_every: float = BOOKMARK_EVERY,
        max_pages: int = 0,
    ) -> None:
        """Open the database at `path`. Raises `Corrupt` or `HostUnfit`, as `Store` does."""
        self.store = Store(path, max_pages=max_pages)
        self.hub = Hub(self.store.rv)
        self.committer = Committer(self.store, self._publish, self._committed)
        self.catalogue = Catalogue(KINDS, BUILTINS, self.store.enrol)
        self.tenants = Tenants(self.store, self.catalogue.named("tenants"))
        self.objects = Objects(self.catalogue, ids, admit)
        following = (self.catalogue, self.store, self.committer, self.objects, clock, who)
        self.collector = Collector(*following)
        self.retention = Retention(*following)
        self.metrics = Metrics(self.hub.count, lambda: self.hub.rv)
        self._clock = clock
        self._who = who
        reading = Reading(self.store, self.hub, clock, bookmark_every=bookmark_every)
        self.app = Api(
            catalogue=self.catalogue,
            store=self.store,
            committer=self.committer,
            reading=reading,
            writing=Writing(self.objects, self.committer, reading, clock),
            authenticate=authenticate,
            authorize=authorize or self.tenants.authorize,
            clock=clock,
            version=version,
            logs=logs,
            metrics=self.metrics,
            rule_changes=lambda: self.tenants.changes,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _committed(self, mutations: int, seconds: float) -> None:
        self.metrics.committed(mutations, seconds)

    def _publish(self, events: Sequence[Event]) -> None:
        self.tenants.notice(events)
        self.hub.publish(events)
        self.collector.notice(events)

    async def start(self) -> None:
        """Make the namespaces that are always there, and start to follow up."""
        await self.committer.run(self._make_namespaces)
        self._tasks = [asyncio.create_task(self.collector.run()), asyncio.create_task(self.retention.run())]

    def _make_namespaces(self, transaction: Transaction) -> None:
        resource = self.catalogue.named("namespaces")
        for name in NAMESPACES:
            if transaction.get(Key(resource.number, "", name)) is None:
                value = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                target = Target("", "v1", "namespaces")
                call = Call(self._who, "create", target, resource, WriteOptions(), "wharfinger-api", self._clock.now())
                self.objects.create(transaction, call, value)

    def why_not_ready(self) -> str | None:
        """Return why objects cannot be served now, None when they can: the port `identity.serve.Readiness`."""
        if not self._tasks:
            return "starting"
        ended = [task for task in self._tasks if task.done()]
        return "the follow-up of changes has ended" if ended else None

    def end_watches(self) -> None:
        """Cut every watch, and every one that begins from now on: what comes before the front end stops."""
        self.hub.close()

    async def stop(self) -> None:
        """End watches and background work, finish what is being committed, close the database."""
        self.end_watches()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.committer.close()
        self.store.close()
