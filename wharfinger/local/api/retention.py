"""How long the past is kept: history for watches and pages, and events for people.

Time is measured by marks (this resourceVersion was the newest then) on a clock that never goes back, so
that a wall clock that is set wrong neither forgets too early nor keeps for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Final

from wharfinger.core.clock import HOUR, MINUTE, SECOND, Clock, Span
from wharfinger.core.errors import WharfingerError
from wharfinger.local.api.commit import Committer, Transaction
from wharfinger.local.api.objects import Call, Objects
from wharfinger.local.api.request import DeleteOptions, Target, WriteOptions
from wharfinger.local.api.served import Catalogue
from wharfinger.local.api.store import Key, Store

_log = logging.getLogger(__name__)

HISTORY: Final[Span] = 5 * MINUTE
"""What a watch may resume within (etcd's compaction interval under kube-apiserver)."""
EVENTS: Final[Span] = HOUR
"""How long an Event that does not change is kept (kube-apiserver's default)."""
EVERY: Final[Span] = MINUTE
_AT_ONCE: Final = 100


class Retention:
    """Compacts history and lets old Events go."""

    def __init__(
        self, catalogue: Catalogue, store: Store, committer: Committer, objects: Objects, clock: Clock, who: str
    ) -> None:
        self._store = store
        self._committer = committer
        self._objects = objects
        self._clock = clock
        self._who = who
        self._events = catalogue.named("events")
        self._marks: deque[tuple[Span, int]] = deque()

    async def run(self) -> None:
        """Look every minute, for ever."""
        while True:
            try:
                await self.tick()
            except WharfingerError as error:
                _log.warning("retention failed, trying again", extra={"fields": {"error": str(error)}})
            await asyncio.sleep(EVERY / SECOND)

    async def tick(self) -> None:
        """Set a mark, and forget what is older than it may be. Raises `HostUnfit` or `Corrupt`."""
        now = self._clock.monotonic()
        self._marks.append((now, self._store.rv))
        floor = self._mark(now - HISTORY)
        if floor > self._store.floor:
            await self._committer.compact(floor)
        while self._marks and self._marks[0][0] < now - EVENTS - EVERY:
            self._marks.popleft()
        stale = self._mark(now - EVENTS)
        if stale:
            await self._expire(stale)

    def _mark(self, before: Span) -> int:
        """Return the newest resourceVersion that is known to be older than the time `before`; 0 for none."""
        return max((rv for at, rv in self._marks if at <= before), default=0)

    async def _expire(self, rv: int) -> None:
        while keys := self._store.unchanged_since(self._events.number, rv, _AT_ONCE):
            await self._committer.run(partial(self._delete, keys, rv))

    def _delete(self, keys: list[Key], rv: int, transaction: Transaction) -> None:
        kind = self._events.kind
        for key in keys:
            held = transaction.get(key)
            if held is None or held.rv > rv:
                continue
            target = Target(kind.group, kind.version, kind.plural, key.namespace, key.name)
            call = Call(self._who, "delete", target, self._events, WriteOptions(), "", self._clock.now())
            self._objects.delete_held(transaction, call, held, DeleteOptions())
