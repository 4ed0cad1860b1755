"""The runtime's own door: the grants of its pod, watched with its own identity, asked for every caller.

Only the gateway is heard, since guards, limits and the bill stand there; whoever else reaches the port is refused,
and the refusal is stored. The gateway's word is not enough either: the caller that it names is judged by the grant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from wharfinger.core.clock import Clock
from wharfinger.identity.spiffeid import SpiffeId
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
        gateway: SpiffeId,
        who: str,
        what: str,
        device: str | None,
    ) -> None:
        self._doorkeeper = doorkeeper
        self._grants = grants
        self._clock = clock
        self._gateway = gateway
        self._who = who
        self._what = what
        self._device = device

    async def permit(self, peer: SpiffeId | None, caller: str) -> Decision:
        """Return the decision on one call by `peer` in the name of `caller`, stored."""
        verdict = self.heard(peer, caller)
        if verdict.allowed:
            decision, stored = self._doorkeeper.submit(
                Door.RUNTIME, self._grants(), who=self._who, what=self._what, device=self._device, caller=caller
            )
        else:
            who = None if peer is None else peer.text
            decision, stored = self._doorkeeper.record(Door.RUNTIME, verdict, who=who, verb="call", what=self._what)
        await asyncio.wrap_future(stored)
        return decision

    def heard(self, peer: SpiffeId | None, caller: str) -> Verdict:
        """Judge who is at the other end of the connection: the gateway, in the name of somebody."""
        if peer != self._gateway:
            return Verdict(False, f"{peer or 'nobody'} is not the gateway: models are called through it", "peer")
        if not caller:
            return Verdict(False, "the request names no caller", "caller")
        return Verdict(True, "the gateway")

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
