"""Conditions as the Kubernetes API conventions want them: set one, keep the rest, move the time only on change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wharfinger.core.clock import Instant, rfc3339

Conditions = Sequence[Mapping[str, Any]]


def condition(
    conditions: Conditions | None,
    kind: str,
    status: bool | None,
    reason: str,
    message: str,
    generation: int,
    now: Instant,
) -> list[dict[str, Any]]:
    """Return `conditions` with the one of type `kind` set; None as status is Unknown.

    `lastTransitionTime` is `now` only when the status changes, so that an unchanged state gives an unchanged
    object.
    """
    text = "Unknown" if status is None else str(status)
    made: dict[str, Any] = {
        "type": kind,
        "status": text,
        "reason": reason,
        "message": message[:32768],
        "observedGeneration": generation,
        "lastTransitionTime": rfc3339(now),
    }
    result: list[dict[str, Any]] = []
    seen = False
    for old in conditions or ():
        if old.get("type") != kind:
            result.append(dict(old))
            continue
        seen = True
        if old.get("status") == text:
            made["lastTransitionTime"] = old.get("lastTransitionTime", made["lastTransitionTime"])
        result.append(made)
    return result if seen else [*result, made]


def is_true(conditions: Conditions | None, kind: str) -> bool:
    """Say whether the condition `kind` is there and True."""
    return any(c.get("type") == kind and c.get("status") == "True" for c in conditions or ())


def find(conditions: Conditions | None, kind: str) -> Mapping[str, Any] | None:
    """Return the condition `kind`, None when it is not there."""
    return next((c for c in conditions or () if c.get("type") == kind), None)
