"""Reconciles the policy kinds: says of each, in its Ready condition, whether it can be enforced as written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wharfinger.controllers.world import Cache, Key, Object, Writer, own
from wharfinger.core.clock import Instant, Span
from wharfinger.core.errors import WharfingerError
from wharfinger.kinds.condition import condition


class PolicyReconciler:
    """One policy kind; `check` raises the error family when a spec cannot be enforced."""

    def __init__(self, kind: str, cache: Cache, writer: Writer, check: Callable[[Object], None]) -> None:
        self._kind = kind
        self._cache = cache
        self._writer = writer
        self._check = check

    @property
    def kind(self) -> str:
        """The plural of the policy kind."""
        return self._kind

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return the policies themselves."""
        return {self._kind: own}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Set the policy's Ready condition."""
        policy = self._cache.get(self._kind, key.namespace, key.name)
        if policy is None:
            return None
        holds, reason, message = True, "Enforced", "every rule of it can be enforced"
        try:
            self._check(policy["spec"])
        except WharfingerError as error:
            holds, reason, message = False, error.code, error.message
        old = (policy.get("status") or {}).get("conditions")
        fresh = condition(old, "Ready", holds, reason, message, policy["metadata"].get("generation", 0), now)
        if fresh != old:
            self._writer.status(self._kind, key.namespace, key.name, {"conditions": fresh})
        return None
