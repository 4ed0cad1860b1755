"""The loop that runs reconcilers: changes become keys, keys become reconciles, failures come back later."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client import Counter

from wharfinger.cluster.informer import Informers
from wharfinger.cluster.workqueue import WorkQueue
from wharfinger.controllers.world import Key, Object, Reconciler
from wharfinger.core.clock import SECOND, Clock
from wharfinger.core.errors import Conflict, WharfingerError

RECONCILES: Final = Counter("wharf_reconciles_total", "Reconciles, by how they ended.", ["kind", "outcome"])
SECONDS: Final = Counter("wharf_reconcile_seconds_total", "Seconds spent in reconciles.", ["kind"])
_log = logging.getLogger(__name__)
_Task = tuple[int, Key]
"""The number of the reconciler, and the key: two may reconcile one kind, each with its own pauses."""


class Loop:
    """Runs `reconcilers` over `informers` with `workers` threads. No key is worked on by two at a time."""

    def __init__(
        self, informers: Informers, reconcilers: Sequence[Reconciler], clock: Clock, *, workers: int = 4
    ) -> None:
        self._informers = informers
        self._reconcilers = tuple(reconcilers)
        self._clock = clock
        self._queue: WorkQueue[_Task] = WorkQueue(clock)
        self._threads = [
            threading.Thread(target=self._work, name=f"reconcile-{number}", daemon=True) for number in range(workers)
        ]

    def start(self) -> None:
        """Wait for the caches, then begin: every object there is is looked at once."""
        self._informers.synced()
        for number, reconciler in enumerate(self._reconcilers):
            for plural, keys in reconciler.watches().items():
                self._informers[plural].on_change(self._handler(number, keys))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what is being worked on and end."""
        self._queue.close()
        until = self._clock.monotonic() + 5 * SECOND
        for thread in [t for t in self._threads if t.is_alive()]:
            thread.join(timeout=max(0, until - self._clock.monotonic()) / SECOND)

    def _handler(self, number: int, keys: Callable[[Object], Iterable[Key]]) -> Callable[[str, Object], None]:
        def handle(_event: str, changed: Object) -> None:
            for key in keys(changed):
                self._queue.add((number, key))

        return handle

    def _work(self) -> None:
        while (task := self._queue.take()) is not None:
            number, key = task
            reconciler = self._reconcilers[number]
            kind = reconciler.kind
            began = self._clock.monotonic()
            outcome = "error"
            try:
                again = reconciler.reconcile(key, self._clock.now())
                self._queue.succeeded(task)
                outcome = "ok"
                if again is not None:
                    self._queue.add_after(task, again)
            except Conflict:
                outcome = "conflict"
                self._queue.failed(task)
            except WharfingerError as error:
                pause = self._queue.failed(task)
                _log.warning(
                    "reconcile failed",
                    extra={"fields": {"kind": kind, "key": str(key), "error": str(error), "again_s": pause / SECOND}},
                )
            except Exception:  # noqa: BLE001  one broken reconcile must not end all: it is told, and tried again
                _log.exception("reconcile broke", extra={"fields": {"kind": kind, "key": str(key)}})
                self._queue.failed(task)
            finally:
                RECONCILES.labels(kind, outcome).inc()
                SECONDS.labels(kind).inc((self._clock.monotonic() - began) / SECOND)
                self._queue.done(task)
