"""Ages as people read them: `45s`, `3h12m`, `5d`, `2y31d`."""

from __future__ import annotations

from wharfinger.core.clock import SECOND, Span

_INVALID = "<invalid>"


def human_duration(span: Span) -> str:
    """Return a length of time (nanoseconds) in two units at most, rounded down, as kubectl shows ages.

    Up to a second of the future counts as now (clocks differ); further ahead is `<invalid>`.
    """
    seconds = -(-span // SECOND) if span < 0 else span // SECOND
    if seconds < -1:
        return _INVALID
    seconds = max(seconds, 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _pair(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _pair(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    years, rest = divmod(days, 365)
    return _pair(years, "y", rest, "d") if years < 8 else f"{years}y"


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
