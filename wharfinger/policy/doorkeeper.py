"""The doorkeeper: what stands at every door, the same at each.

It asks `grant.permits_any` under the grants that its door knows, and has the decision on disk before it
answers. Registry, device node, runtime and gateway hold one each; what they do with the answer is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future

from wharfinger.core.clock import Clock
from wharfinger.core.document import Json
from wharfinger.core.ids import Ids
from wharfinger.policy.decision import Decision, Verdict, address
from wharfinger.policy.grant import Door, permits_any
from wharfinger.policy.journal import Journal

RULE = "grant.permits_any"
_VERBS: Mapping[Door, str] = {Door.REGISTRY: "pull", Door.DEVICE: "open", Door.RUNTIME: "call", Door.GATEWAY: "call"}


class Doorkeeper:
    """Judges uses at the doors of one process `part` and journals each decision; threads share it."""

    def __init__(self, part: str, journal: Journal, clock: Clock, ids: Ids) -> None:
        self._part = part
        self._journal = journal
        self._clock = clock
        self._ids = ids

    def judge(
        self,
        door: Door,
        grants: Iterable[Mapping[str, Json]],
        *,
        who: str | None,
        what: str | None = None,
        device: str | None = None,
        caller: str | None = None,
        tenant: str = "",
    ) -> Decision:
        """Return the decision on one use under the specs of `grants`; it is on disk when this returns.

        Raises `HostUnfit` when the decision could not be stored: then the door stays shut.
        """
        decision, stored = self.submit(door, grants, who=who, what=what, device=device, caller=caller, tenant=tenant)
        stored.result()
        return decision

    def submit(
        self,
        door: Door,
        grants: Iterable[Mapping[str, Json]],
        *,
        who: str | None,
        what: str | None = None,
        device: str | None = None,
        caller: str | None = None,
        tenant: str = "",
    ) -> tuple[Decision, Future[None]]:
        """As `judge`, without waiting: the door stays shut until the future is done, and when it fails."""
        now = self._clock.now()
        known = list(grants)
        verdict, grant = permits_any(known, door, who, what, device, caller, now)
        request = {"door": door.value, "who": who, "what": what, "device": device, "caller": caller, "now": now}
        inputs: dict[str, Json] = {"request": request, "grants": [grant] if grant is not None else []}
        return self._store(
            door, verdict, inputs, who=caller or who, verb=_VERBS[door], what=what or device, tenant=tenant
        )

    def record(
        self, door: Door, verdict: Verdict, *, who: str | None, verb: str, what: str, tenant: str = ""
    ) -> tuple[Decision, Future[None]]:
        """Store a verdict that another rule than a grant gave (no identity, a guard, a limit), without waiting.

        What the rule read is not kept, since it may be a prompt: such a decision is explained, not replayed.
        """
        inputs: dict[str, Json] = {
            "request": {"door": door.value, "who": who, "verb": verb, "what": what, "now": self._clock.now()},
            "verdict": {"reason": verdict.reason, "element": verdict.element},
        }
        return self._store(door, verdict, inputs, who=who, verb=verb, what=what, tenant=tenant, rule="door.record")

    def _store(
        self,
        door: Door,
        verdict: Verdict,
        inputs: dict[str, Json],
        *,
        who: str | None,
        verb: str,
        what: str | None,
        tenant: str,
        rule: str = RULE,
    ) -> tuple[Decision, Future[None]]:
        decision = Decision(
            id=self._ids.uid(),
            at=inputs["request"]["now"],
            part=self._part,
            rule=rule,
            verdict=verdict,
            who=who or "anonymous",
            verb=verb,
            what=what or door.value,
            tenant=tenant,
            inputs={name: address(value) for name, value in inputs.items()},
        )
        return decision, self._journal.submit(decision.record(), inputs)
