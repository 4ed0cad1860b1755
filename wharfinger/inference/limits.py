"""Token limits: reserve before, settle after, so that callers at the same time cannot pass the limit together.

A bucket of a minute's tokens that refills evenly. A request reserves its estimate and its bound; what it did not use
comes back when it settles, what it used beyond is taken too, so the bucket may go below zero and then takes longer.
Pure: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wharfinger.core.clock import MINUTE, SECOND, Instant
from wharfinger.core.errors import Throttled


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens left of `limit` a minute, as of `at`."""

    limit: int
    left: float
    at: Instant


def full(limit: int, now: Instant) -> Bucket:
    """Return a bucket nothing was taken from."""
    return Bucket(limit, float(limit), now)


def refill(bucket: Bucket, limit: int, now: Instant) -> Bucket:
    """Return `bucket` as it stands at `now` under `limit`; a clock set back adds nothing."""
    passed = max(0, now - bucket.at)
    return Bucket(limit, min(float(limit), bucket.left + limit * passed / MINUTE), max(now, bucket.at))


def reserve(bucket: Bucket, tokens: int, whose: str) -> Bucket:
    """Return `bucket` less `tokens`.

    Raises `Throttled`, saying when it pays to ask again, when fewer are left; a request larger than the whole
    limit never fits and is told so by an hour's pause.
    """
    if tokens <= bucket.left:
        return replace(bucket, left=bucket.left - tokens)
    if tokens > bucket.limit:
        raise Throttled(
            f"{whose} may use {bucket.limit} tokens a minute, this request may take {tokens}",
            retry_after=3600,
            hint="ask for fewer max_tokens",
        )
    wait = (tokens - bucket.left) * MINUTE / bucket.limit
    raise Throttled(
        f"{whose} may use {bucket.limit} tokens a minute, {max(0, int(bucket.left))} are left now",
        retry_after=max(1, -int(-wait // SECOND)),
    )


def settle(bucket: Bucket, reserved: int, used: int) -> Bucket:
    """Return `bucket` with the reservation replaced by what was used."""
    return replace(bucket, left=min(float(bucket.limit), bucket.left + reserved - used))
