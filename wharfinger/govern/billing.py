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

from wharfinger.core.clock import HOUR, Instant, Span, parse_rfc3339, rfc3339
from wharfinger.core.document import Json

WHOLE: Final = 7
"""Compute slices of a whole GPU."""
GPU: Final = "gpu"
BEGAN: Final = "began"
ENDED: Final = "ended"
_MILLION: Final = Decimal(1_000_000)
_CENT_OF_CENT: Final = Decimal("0.0001")


@dataclass(slots=True)
class _Use:
    """What one tenant used."""

    tokens: int = 0
    answers: int = 0
    spans: dict[tuple[str, str], list[tuple[Instant, Instant]]] = field(default_factory=dict)
    slices: dict[tuple[str, str], int] = field(default_factory=dict)

    def gpu_hours(self) -> Decimal:
        """Return hours of whole GPUs."""
        total = sum(self.slices[key] * _length(spans) for key, spans in self.spans.items())
        return Decimal(total) / Decimal(WHOLE * HOUR)


def bill(records: Iterable[Mapping[str, Json]], tenants: Iterable[Mapping[str, Any]], now: Instant) -> dict[str, Json]:
    """Return the bill at `now`: `{"until", "since", "tenants": [line]}`, a line per Tenant object and per user of old.

    A line has `tenant`, `tokens`, `answers`, `gpuHours`, `amount`, `currency`, `rates`, and `budget` if there is one.
    """
    uses: dict[str, _Use] = {}
    seen: set[str] = set()
    open_at: dict[str, Mapping[str, Any]] = {}
    since: Instant | None = None
    for record in records:
        kind = record.get("kind")
        if kind not in ("tokens", GPU):
            continue
        at = parse_rfc3339(record["at"])
        since = at if since is None else min(since, at)
        if kind == "tokens":
            if record["id"] in seen:
                continue
            seen.add(record["id"])
            use = uses.setdefault(record["tenant"], _Use())
            use.tokens += int(record["tokens"])
            use.answers += 1
        elif record["event"] == BEGAN:
            open_at.setdefault(record["uid"], record)
        elif record["uid"] in open_at:
            _close(uses, open_at.pop(record["uid"]), at)
    for began in open_at.values():
        _close(uses, began, now)
    known = {t["metadata"]["name"]: t for t in tenants}
    lines = [_line(name, uses.get(name, _Use()), known.get(name)) for name in sorted({*uses, *known} - {""})]
    return {"since": rfc3339(since if since is not None else now), "until": rfc3339(now), "tenants": lines}


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


def _line(name: str, use: _Use, tenant: Mapping[str, Any] | None) -> dict[str, Json]:
    spec = tenant["spec"] if tenant is not None else {}
    rates = {key: str((spec.get("rates") or {}).get(key, "0")) for key in ("perMillionTokens", "perGpuHour")}
    hours = use.gpu_hours()
    amount = use.tokens * Decimal(rates["perMillionTokens"]) / _MILLION + hours * Decimal(rates["perGpuHour"])
    budget = spec.get("budget") or {}
    line: dict[str, Json] = {
        "tenant": name,
        "tokens": use.tokens,
        "answers": use.answers,
        "gpuHours": _written(hours),
        "amount": _written(amount),
        "currency": budget.get("currency", "USD"),
        "rates": rates,
    }
    if budget:
        line["budget"] = {"monthly": budget["monthly"], "over": amount > Decimal(budget["monthly"])}
    return line


def _written(value: Decimal) -> str:
    """Return an amount to a hundredth of a cent; what is something is never written as nothing."""
    rounded = value.quantize(_CENT_OF_CENT, ROUND_HALF_EVEN)
    return f"{value:.2g}" if value and not rounded and value > Decimal("1e-12") else f"{rounded:f}"
