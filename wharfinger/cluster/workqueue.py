"""A queue of keys: each key once, never to two workers at a time, later again when it failed.

The semantics of Kubernetes' rate-limited work queue: a key that is added while it is worked on is handed out again
when that work is done; a failing key comes back after a pause that doubles, with jitter, up to a cap.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from wharfinger.core.clock import MILLISECOND, SECOND, Clock, Span

K = TypeVar("K", bound=Hashable)

FIRST_PAUSE: Span = 50 * MILLISECOND
LONGEST_PAUSE: Span = 30 * SECOND


def backoff(failures: int, draw: float, first: Span = FIRST_PAUSE, longest: Span = LONGEST_PAUSE) -> Span:
    """Return the pause after the `failures`-th failure in a row: doubled each time, by `draw` in [0, 1) shortened.

    Full jitter over the upper half, so that many that failed together do not come back together.
    """
    whole = min(longest, first << min(failures - 1, 40)) if failures > 0 else 0
    return whole - int(whole * draw / 2)


class WorkQueue(Generic[K]):
    """A queue that threads share."""

    def __init__(self, clock: Clock, draw: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._draw = draw
        self._changed = threading.Condition()
        self._ready: deque[K] = deque()
        self._waiting: list[tuple[Span, int, K]] = []
        self._dirty: set[K] = set()
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._order = 0
        self._closed = False

    def add(self, key: K) -> None:
        """Have `key` worked on soon; adding it twice before that is adding it once."""
        with self._changed:
            if self._closed or key in self._dirty:
                return
            self._dirty.add(key)
            if key not in self._working:
                self._ready.append(key)
                self._changed.notify()

    def add_after(self, key: K, pause: Span) -> None:
        """Have `key` worked on in `pause` nanoseconds."""
        if pause <= 0:
            self.add(key)
            return
        with self._changed:
            if self._closed:
                return
            self._order += 1
            heapq.heappush(self._waiting, (self._clock.monotonic() + pause, self._order, key))
            self._changed.notify()

    def failed(self, key: K) -> Span:
        """Have `key` worked on again after a growing pause; return the pause."""
        with self._changed:
            count = self._failures[key] = self._failures.get(key, 0) + 1
        pause = backoff(count, self._draw())
        self.add_after(key, pause)
        return pause

    def succeeded(self, key: K) -> None:
        """Forget that `key` ever failed."""
        with self._changed:
            self._failures.pop(key, None)

    def take(self) -> K | None:
        """Return a key to work on, waiting for one; None when the queue is closed. `done` must follow."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                pause = self._ripen()
                if self._ready:
                    key = self._ready.popleft()
                    self._dirty.discard(key)
                    self._working.add(key)
                    return key
                self._changed.wait(None if pause is None else pause / SECOND)

    def done(self, key: K) -> None:
        """Say that the work on `key` is over; it is handed out again when it was added meanwhile."""
        with self._changed:
            self._working.discard(key)
            if key in self._dirty:
                self._ready.append(key)
                self._changed.notify()

    def close(self) -> None:
        """Hand out nothing more; every waiting `take` returns None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """Return how many keys are ready, waiting ones not counted."""
        with self._changed:
            return len(self._ready)

    def _ripen(self) -> Span | None:
        """Move keys whose time has come to the ready ones; return how long until the next, None when none waits."""
        now = self._clock.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            key = heapq.heappop(self._waiting)[2]
            if key not in self._dirty:
                self._dirty.add(key)
                if key not in self._working:
                    self._ready.append(key)
        return self._waiting[0][0] - now if self._waiting else None
