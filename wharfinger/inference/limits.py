"""Token limits: reserve before, settle after, so that callers at the same time cannot pass the limit together.

A window holds what was used in the last minute, by second, and what requests under way have reserved. A request
reserves its estimate and its bound; when it settles, what it used takes the reservation's place. So in no minute is
more used than the limit, but for what an answer used beyond its bound. Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from wharfinger.core.clock import SECOND, Instant
from wharfinger.core.errors import Throttled

SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens used, by the second they were settled in, oldest first, and tokens reserved."""

    used: tuple[tuple[int, int], ...] = ()
    reserved: int = 0


def taken(window: Window, now: Instant) -> int:
    """Return how many tokens count at `now`; after a clock was set back, later ones count too."""
    return window.reserved + sum(tokens for second, tokens in window.used if _counts(second, now))


def reserve(window: Window, limit: int, tokens: int, whose: str, now: Instant) -> Window:
    """Return `window` with `tokens` reserved.

    Raises `Throttled`, saying when it pays to ask again, when fewer than `tokens` of `limit` are left; a request
    larger than the whole limit never fits and is told so by an hour's pause.
    """
    left = limit - taken(window, now)
    if tokens <= left:
        return replace(window, reserved=window.reserved + tokens)
    if tokens > limit:
        raise Throttled(
            f"{whose} may use {limit} tokens a minute, this request may take {tokens}",
            retry_after=3600,
            hint="ask for fewer max_tokens",
        )
    raise Throttled(
        f"{whose} may use {limit} tokens a minute, {max(0, left)} are left now",
        retry_after=_wait(window, tokens - left, now),
    )


def settle(window: Window, reserved: int, used: int, now: Instant) -> Window:
    """Return `window` with the reservation replaced by what was used."""
    kept = Window(window.used, max(0, window.reserved - reserved))
    return add(kept, used, now)


def add(window: Window, used: int, now: Instant) -> Window:
    """Return `window` with `used` tokens more, less what no longer counts."""
    kept = [(second, tokens) for second, tokens in window.used if _counts(second, now)]
    if used and kept and kept[-1][0] == now // SECOND:
        kept[-1] = (kept[-1][0], kept[-1][1] + used)
    elif used:
        kept.append((now // SECOND, used))
    return Window(tuple(kept), window.reserved)


def replay(uses: Iterable[tuple[Instant, int]]) -> Window:
    """Return the window that these `uses` (when, tokens), oldest first, leave.

    What a process settled before it ended counts on in the next; reservations that it held are free.
    """
    window = Window()
    for at, tokens in uses:
        window = add(window, tokens, at)
    return window


def _counts(second: int, now: Instant) -> bool:
    return now // SECOND - second <= SECONDS


def _wait(window: Window, missing: int, now: Instant) -> int:
    """Return in how many seconds `missing` tokens will have come free, or a second where running requests hold them."""
    wait = 1
    for second, tokens in window.used:
        if missing <= 0:
            break
        if _counts(second, now):
            missing -= tokens
            wait = max(wait, second + SECONDS + 1 - now // SECOND)
    return wait
