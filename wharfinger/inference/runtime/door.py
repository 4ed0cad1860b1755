"""The runtime's own door: the grants of its pod, watched with its own identity, asked for every caller.

The gateway's word is not enough. A replica that nobody grants anything serves nobody, whoever reaches its port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from wharfinger.core.clock import Clock
from wharfinger.policy.decision import Decision, Verdict
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.grant import Door, permits_any


class RuntimeDoor:
    """Judges callers for one replica: `who` serves the model `what` on `device` (None: on no GPU)."""

    def __init__(
        self,
        doorkeeper: Doorkeeper,
        grants: Callable[[], Sequence[dict[str, Any]]],
        clock: Clock,
        *,
        who: str,
        what: str,
        device: str | None,
    ) -> None:
        self._doorkeeper = doorkeeper
        self._grants = grants
        self._clock = clock
        self._who = who
        self._what = what
        self._device = device

    async def permit(self, caller: str) -> Decision:
        """Return the decision on one call, stored."""
        decision, stored = self._doorkeeper.submit(
            Door.RUNTIME, self._grants(), who=self._who, what=self._what, device=self._device, caller=caller
        )
        await asyncio.wrap_future(stored)
        return decision

    def still(self, caller: str) -> Verdict:
        """Judge a call under way by the grants of now; nothing is stored."""
        verdict, _ = permits_any(
            self._grants(), Door.RUNTIME, self._who, self._what, self._device, caller, self._clock.now()
        )
        return verdict

    async def cut(self, caller: str, verdict: Verdict) -> None:
        """Store why a call under way was ended."""
        _, stored = self._doorkeeper.record(Door.RUNTIME, verdict, who=caller, verb="stream", what=self._what)
        await asyncio.wrap_future(stored)
