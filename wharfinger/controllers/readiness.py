"""Status as reconcilers write it: only what differs, and an event when a condition changes its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wharfinger.controllers.world import Object, Writer, key_of
from wharfinger.core.clock import Instant
from wharfinger.kinds.condition import condition, find


def ready(o: Object, holds: bool | None, reason: str, message: str, now: Instant) -> list[dict[str, Any]]:
    """Return the conditions of `o` with Ready set for its present generation."""
    old = (o.get("status") or {}).get("conditions")
    return condition(old, "Ready", holds, reason, message, o["metadata"].get("generation", 0), now)


def settle(writer: Writer, plural: str, o: Object, fresh: Object, kind: str = "Ready") -> None:
    """Make `fresh` the status of `o`, whole; write nothing when it is that already.

    An event is recorded when the condition `kind` changes its reason: a warning when it is False.
    """
    old = o.get("status") or {}
    if dict(old) == dict(fresh):
        return
    before = find(old.get("conditions"), kind) or {}
    after = find(fresh.get("conditions"), kind) or {}
    if after and before.get("reason") != after.get("reason"):
        writer.event(o, after["reason"], after["message"], warning=after["status"] == "False")
    key = key_of(o)
    writer.status(plural, key.namespace, key.name, difference(old, fresh))


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON merge patch that makes `new` of `old` (RFC 7396)."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        held = old.get(name)
        if isinstance(value, Mapping) and isinstance(held, Mapping):
            inner = difference(held, value)
            if inner:
                patch[name] = inner
        elif name not in old or held != value:
            patch[name] = value
    return patch


def holds(there: Any, desired: Any) -> bool:
    """Say whether what is `there` says all that is `desired`; it may say more, as the API server's defaults do."""
    if isinstance(desired, Mapping):
        return isinstance(there, Mapping) and all(
            name in there and holds(there[name], value) for name, value in desired.items()
        )
    if isinstance(desired, list):
        return (
            isinstance(there, list)
            and len(there) == len(desired)
            and all(holds(one, other) for one, other in zip(there, desired, strict=True))
        )
    return bool(there == desired)
