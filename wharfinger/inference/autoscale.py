"""Autoscaling, first version: replicas follow tokens in flight.

Up at once, to what the load needs; down to the most that was needed within the stabilisation time, so that a lull
does not end replicas that the next moment wants. Pure: the history is handed in and handed back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wharfinger.core.clock import Instant, Span


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far and how fast: replicas, tokens in flight that one carries, how long load must stay low."""

    least: int
    most: int
    tokens_per_replica: int
    down_after: Span


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted, why, and the needs to hand in the next time (instant, replicas)."""

    replicas: int
    reason: str
    needs: tuple[tuple[Instant, int], ...]


def decide(
    tokens_in_flight: int | None, current: int, bounds: Bounds, needs: Sequence[tuple[Instant, int]], now: Instant
) -> Wanted:
    """Return how many replicas there are to be.

    `tokens_in_flight` is None when the gateway does not answer: then the number stays, whatever it was.
    """
    if tokens_in_flight is None:
        held = min(max(current, bounds.least), bounds.most)
        return Wanted(held, "no measurement: the number stays", tuple(needs))
    need = min(max(math.ceil(tokens_in_flight / bounds.tokens_per_replica), bounds.least), bounds.most)
    kept = (*((at, n) for at, n in needs if now - at < bounds.down_after), (now, need))
    floor = max(n for _, n in kept)
    if need > current:
        reason = f"{tokens_in_flight} tokens in flight need {need}"
        return Wanted(need, reason, kept)
    if floor < current:
        return Wanted(floor, f"no more than {floor} were needed for {bounds.down_after // 10**9} s", kept)
    return Wanted(min(max(current, bounds.least), bounds.most), "as it should be", kept)
