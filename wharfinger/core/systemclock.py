"""The adapter of the clock port that reads this machine's clocks."""

from __future__ import annotations

import time

from wharfinger.core.clock import Instant, Span


class SystemClock:
    """`clock.Clock` on `CLOCK_REALTIME` and `CLOCK_MONOTONIC`."""

    def now(self) -> Instant:
        """Return the wall time."""
        return time.time_ns()

    def monotonic(self) -> Span:
        """Return the monotonic time."""
        return time.monotonic_ns()
