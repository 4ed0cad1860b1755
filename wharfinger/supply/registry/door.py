"""The registry's door: every use is ruled on, and the decision is on disk before a byte flows.

The ruling is `authorization.decide`; where it leaves the matter to grants, the doorkeeper asks them, as at every door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from wharfinger.core.clock import Clock
from wharfinger.core.document import Json
from wharfinger.core.errors import Denied
from wharfinger.core.ids import Ids
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.policy.access import Condition
from wharfinger.policy.decision import Decision, Verdict, address
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.grant import Door, permits
from wharfinger.policy.journal import Journal
from wharfinger.supply.registry.authorization import RULE, Action, Ask, Known, decide, inputs_of
from wharfinger.supply.registry.objects import Objects


class RegistryDoor:
    """Judges uses of the registry by `objects`, journals each decision."""

    def __init__(
        self,
        objects: Objects,
        doorkeeper: Doorkeeper,
        journal: Journal,
        condition: Condition,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._objects = objects
        self._doorkeeper = doorkeeper
        self._journal = journal
        self._condition = condition
        self._clock = clock
        self._ids = ids

    async def open(self, who: SpiffeId, action: Action, repository: str, digests: tuple[str, ...] = ()) -> Decision:
        """Return the decision that lets `who` do `action`; it is on disk.

        `digests` are the manifests through which what is pulled may be had (`authorization.Ask`). Raises `Denied`,
        whose decision is on disk as well, and `HostUnfit` when it could not be stored: the door stays shut.
        """
        ask = Ask(str(who), action, repository, digests)
        known = self._objects.known(repository)
        ruling = decide(ask, known, self._condition)
        tenant = known.tenant(who)
        if ruling.ask_grants:
            grants = self._objects.grants(ask.who)
            if grants:
                now = self._clock.now()
                held = (
                    d for d in digests for g in grants if permits(g, Door.REGISTRY, ask.who, d, None, None, now).allowed
                )
                what = next(held, ask.digest) or None
                decision, stored = self._doorkeeper.submit(Door.REGISTRY, grants, who=ask.who, what=what, tenant=tenant)
                await asyncio.wrap_future(stored)
                return _allowed(decision, ask)
        return _allowed(await self._store(ask, known, ruling.verdict, tenant), ask)

    async def look(self, who: SpiffeId, repository: str, digests: tuple[str, ...]) -> Decision:
        """As `open` for a pull; whoever may only push may look, too, whether it is there already."""
        pulls = decide(
            Ask(str(who), Action.PULL, repository, digests), self._objects.known(repository), self._condition
        )
        if pulls.ask_grants:
            pushes = decide(Ask(str(who), Action.PUSH, repository), self._objects.known(repository), self._condition)
            if pushes.verdict.allowed:
                return await self.open(who, Action.PUSH, repository)
        return await self.open(who, Action.PULL, repository, digests)

    async def refuse(self, why: str, what: str) -> None:
        """Record that a caller showed credentials that do not hold. Raises `HostUnfit`."""
        verdict = Verdict(False, why, "identity")
        _, stored = self._doorkeeper.record(Door.REGISTRY, verdict, who=None, verb="authenticate", what=what)
        await asyncio.wrap_future(stored)

    async def only_control(self, who: SpiffeId, trust_domain: str, verb: str, what: str) -> Decision:
        """Return the decision that lets the control plane do `verb`. Raises `Denied` for anyone else, `HostUnfit`."""
        ours = str(who) == f"spiffe://{trust_domain}/wharfinger/control"
        verdict = (
            Verdict(True, "the duty of control")
            if ours
            else Verdict(False, f"only the control plane may {verb} {what}", "identity")
        )
        decision, stored = self._doorkeeper.record(Door.REGISTRY, verdict, who=str(who), verb=verb, what=what)
        await asyncio.wrap_future(stored)
        if not verdict.allowed:
            raise Denied(verdict.reason, hint=f"wharf explain decision {decision.id}")
        return decision

    def may_see(self, who: SpiffeId, repository: str) -> bool:
        """Say whether `who` may see that there is `repository`; not a decision, since nothing is refused by it."""
        ask = Ask(str(who), Action.SEE, repository)
        return decide(ask, self._objects.known(repository), self._condition).verdict.allowed

    async def _store(self, ask: Ask, known: Known, verdict: Verdict, tenant: str) -> Decision:
        inputs: Mapping[str, Json] = inputs_of(ask, known)
        decision = Decision(
            id=self._ids.uid(),
            at=self._clock.now(),
            part="registry",
            rule=RULE,
            verdict=verdict,
            who=ask.who,
            verb=ask.action.value,
            what=f"{ask.repository}@{ask.digest}" if ask.digest else ask.repository,
            tenant=tenant,
            inputs={name: address(value) for name, value in inputs.items()},
        )
        await asyncio.wrap_future(self._journal.submit(decision.record(), inputs))
        return decision


def _allowed(decision: Decision, ask: Ask) -> Decision:
    if not decision.verdict.allowed:
        raise Denied(
            f"{ask.who} may not {ask.action} {ask.repository}: {decision.verdict.reason}",
            hint=f"wharf explain decision {decision.id}",
        )
    return decision
