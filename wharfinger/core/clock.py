"""Time as a value: integer nanoseconds since the Unix epoch, UTC.

Pure code takes `now: Instant` as an argument. What reads the machine's clock is
`wharfinger.core.systemclock`, which only process shells import.
Text forms are RFC 3339: whole seconds as in `metadata.creationTimestamp` (Kubernetes `Time`),
microseconds as in `Lease.spec.renewTime` (Kubernetes `MicroTime`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeAlias

from wharfinger.core.errors import Malformed, excerpt

Instant: TypeAlias = int
"""Nanoseconds since 1970-01-01T00:00:00Z."""

Span: TypeAlias = int
"""A length of time in nanoseconds."""

MILLISECOND: Span = 1_000_000
SECOND: Span = 1_000_000_000
MINUTE: Span = 60 * SECOND
HOUR: Span = 60 * MINUTE
DAY: Span = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Clock(Protocol):
    """Tells the time. Adapters: `systemclock.SystemClock`, and the tests' own that is set by hand."""

    def now(self) -> Instant:
        """Return the wall time."""
        ...

    def monotonic(self) -> Span:
        """Return a time that never goes back, from an unspecified start."""
        ...


def rfc3339(instant: Instant) -> str:
    """Return `instant` cut to whole seconds, as `2026-11-24T08:00:00Z`."""
    return (_EPOCH + timedelta(seconds=instant // SECOND)).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(instant: Instant) -> str:
    """Return `instant` cut to microseconds, as `2026-11-24T08:00:00.000000Z`."""
    return (_EPOCH + timedelta(microseconds=instant // 1000)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> Instant:
    """Return the instant that an RFC 3339 text names.

    Raises `Malformed` when it is not one (section 5.6; a leap second counts as the next second).
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise Malformed(f"expected an RFC 3339 time such as 2026-11-24T08:00:00Z, got {excerpt(text)}")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    leap = int(second) == 60
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour), int(minute), 59 if leap else int(second), tzinfo=UTC
        )
    except ValueError as error:
        raise Malformed(f"expected an RFC 3339 time, got {excerpt(text)}: {error}") from error
    offset = 0
    if zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[4:6])
        if hours > 23 or minutes > 59:
            raise Malformed(f"expected a zone offset up to 23:59, got {excerpt(text)}")
        offset = (hours * 3600 + minutes * 60) * (1 if zone[0] == "+" else -1)
    since = moment - _EPOCH
    seconds = since.days * 86400 + since.seconds + (1 if leap else 0) - offset
    return seconds * SECOND + int((fraction or "0").ljust(9, "0"))


def datetime_of(instant: Instant) -> datetime:
    """Return `instant` as an aware UTC datetime, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=instant // 1000)


def instant_of(moment: datetime) -> Instant:
    """Return the instant of an aware `moment`."""
    since = moment - _EPOCH
    return (since.days * 86400 + since.seconds) * SECOND + since.microseconds * 1000
