"""The bill: what each tenant used, from the records that say so, at the tenant's own rates.

Tokens come from the gateway's accounts, each answer once. Silicon comes from the control plane's records of grants:
from when a grant began until it ended, each device of each claim once however many grants followed each other, a
slice as its part of a GPU in compute. Amounts are exact decimals. Pure: records and tenants in, lines out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final

from wharfinger.core.clock import DAY, HOUR, Instant, Span, datetime_of, instant_of, parse_rfc3339, rfc3339
from wharfinger.core.document import Json

WHOLE: Final = 7
"""Compute slices of a whole GPU."""
GPU: Final = "gpu"
BEGAN: Final = "began"
ENDED: Final = "ended"
_MILLION: Final = Decimal(1_000_000)
_CENT_OF_CENT: Final = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` up to `end`."""

    start: Instant = 0
    end: Instant = 2**63 - 1

    def cut(self, start: Instant, end: Instant) -> tuple[Instant, Instant]:
        """Return of a span the part that lies in the period; it may be empty."""
        first = max(start, self.start)
        return first, max(first, min(end, self.end))


EVER: Final = Period()


def month_of(now: Instant) -> Period:
    """Return the calendar month (UTC) that `now` lies in."""
    moment = datetime_of(now).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = moment.replace(year=moment.year + moment.month // 12, month=moment.month % 12 + 1)
    return Period(instant_of(moment), instant_of(following))


@dataclass(slots=True)
class _Use:
    """What one tenant used: tokens and answers by day, and when it held each device of each claim."""

    answers: dict[Instant, tuple[int, int]] = field(default_factory=dict)
    spans: dict[tuple[str, str], list[tuple[Instant, Instant]]] = field(default_factory=dict)
    slices: dict[tuple[str, str], int] = field(default_factory=dict)

    def counted(self, period: Period) -> tuple[int, int]:
        """Return tokens and answers in the period."""
        found = [told for day, told in self.answers.items() if period.start <= day < period.end]
        return sum(tokens for tokens, _ in found), sum(answers for _, answers in found)


class Sheet:
    """Adds up records as they come, each once, in the order in which each journal has them."""

    def __init__(self) -> None:
        self._uses: dict[str, _Use] = {}
        self._seen: set[str] = set()
        self._open: dict[str, Mapping[str, Any]] = {}
        self.since: Instant | None = None

    def add(self, record: Mapping[str, Json]) -> None:
        """Take a record; those of other kinds are passed over."""
        kind = record.get("kind")
        if kind not in ("tokens", GPU):
            return
        at = parse_rfc3339(record["at"])
        self.since = at if self.since is None else min(self.since, at)
        if kind == "tokens":
            if record["id"] not in self._seen:
                self._seen.add(record["id"])
                use, day = self._uses.setdefault(record["tenant"], _Use()), at - at % DAY
                tokens, answers = use.answers.get(day, (0, 0))
                use.answers[day] = (tokens + int(record["tokens"]), answers + 1)
        elif record["event"] == BEGAN:
            self._open.setdefault(record["uid"], record)
        elif record["uid"] in self._open:
            _close(self._uses, self._open.pop(record["uid"]), at)

    def lines(self, tenants: Iterable[Mapping[str, Any]], now: Instant, period: Period = EVER) -> list[dict[str, Json]]:
        """Return a line per Tenant object and per user of old, of what was used in `period` until `now`."""
        running: dict[str, _Use] = {}
        for began in self._open.values():
            _close(running, began, now)
        known = {t["metadata"]["name"]: t for t in tenants}
        return [
            _line(
                name, [u for u in (self._uses.get(name), running.get(name)) if u is not None], known.get(name), period
            )
            for name in sorted({*self._uses, *running, *known} - {""})
        ]


def bill(records: Iterable[Mapping[str, Json]], tenants: Iterable[Mapping[str, Any]], now: Instant) -> dict[str, Json]:
    """Return the bill at `now`: `{"until", "since", "tenants": [line]}`, a line per Tenant object and per user of old.

    A line has `tenant`, `tokens`, `answers`, `gpuHours`, `amount`, `currency`, `rates`, and `budget` if there is one:
    whether this calendar month's amount is over it.
    """
    sheet, known = Sheet(), list(tenants)
    for record in records:
        sheet.add(record)
    lines = sheet.lines(known, now)
    spent = {line["tenant"]: line["amount"] for line in sheet.lines(known, now, month_of(now))}
    for line in lines:
        if "budget" in line:
            over = Decimal(spent[line["tenant"]]) > Decimal(line["budget"]["monthly"])
            line["budget"] = {**line["budget"], "spent": spent[line["tenant"]], "over": over}
    return {"since": rfc3339(sheet.since if sheet.since is not None else now), "until": rfc3339(now), "tenants": lines}


def _close(uses: dict[str, _Use], began: Mapping[str, Any], end: Instant) -> None:
    """Count the devices of a grant from its beginning to `end`, or until it had run out."""
    use = uses.setdefault(began["tenant"], _Use())
    start, last = parse_rfc3339(began["at"]), min(end, parse_rfc3339(began["notAfter"]))
    for device in began["devices"]:
        key = (began["claim"], device["uuid"])
        use.slices[key] = device["slices"]
        use.spans.setdefault(key, []).append((start, max(start, last)))


def _length(spans: list[tuple[Instant, Instant]]) -> Span:
    """Return how long the union of `spans` is."""
    total, reached = 0, 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _line(name: str, uses: list[_Use], tenant: Mapping[str, Any] | None, period: Period) -> dict[str, Json]:
    spec = tenant["spec"] if tenant is not None else {}
    rates = {key: str((spec.get("rates") or {}).get(key, "0")) for key in ("perMillionTokens", "perGpuHour")}
    counted = [use.counted(period) for use in uses]
    tokens, answers = sum(t for t, _ in counted), sum(a for _, a in counted)
    hours = _gpu_hours(uses, period)
    amount = tokens * Decimal(rates["perMillionTokens"]) / _MILLION + hours * Decimal(rates["perGpuHour"])
    budget = spec.get("budget") or {}
    line: dict[str, Json] = {
        "tenant": name,
        "tokens": tokens,
        "answers": answers,
        "gpuHours": _written(hours),
        "amount": _written(amount),
        "currency": budget.get("currency", "USD"),
        "rates": rates,
    }
    if budget:
        line["budget"] = {"monthly": budget["monthly"]}
    return line


def _gpu_hours(uses: list[_Use], period: Period) -> Decimal:
    """Return hours of whole GPUs: each device of each claim once, however many grants followed each other."""
    total = 0
    for key in {key for use in uses for key in use.spans}:
        spans = [period.cut(*span) for use in uses for span in use.spans.get(key, ())]
        total += next(use.slices[key] for use in uses if key in use.slices) * _length(spans)
    return Decimal(total) / Decimal(WHOLE * HOUR)


def _written(value: Decimal) -> str:
    """Return an amount to a hundredth of a cent; what is something is never written as nothing."""
    rounded = value.quantize(_CENT_OF_CENT, ROUND_HALF_EVEN)
    return f"{value:.2g}" if value and not rounded and value > Decimal("1e-12") else f"{rounded:f}"
