"""Allocation: which devices of one node answer a pod's claims, as Kubernetes' structured allocator decides.

`allocate` is all or nothing over the claims of a pod. The search is depth first: claims, requests and devices in
their order (an ExactCount request tries combinations, not permutations), the first full solution is taken, so the
same state always gives the same devices, and those that kube-scheduler would pick. Offered: ExactCount and All,
CEL selectors, prioritized lists, matchAttribute, admin access, partitionable devices with shared counters, taints
and tolerations (resource.k8s.io/v1 of Kubernetes 1.37). Requests for other features are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid
from wharfinger.gpu.candidates import Candidates, pose, read
from wharfinger.gpu.inventory import DeviceId, Inventory, Object, Offer, Pool
from wharfinger.gpu.pruning import Pruning
from wharfinger.gpu.request import MAX_DEVICES, Ask, Problem
from wharfinger.gpu.result import Chosen, allocation_result

MAX_ATTEMPTS: Final = 100_000
"""Devices that one search on one node may try; an honest claim needs fewer than the node has devices."""
PLAIN_ATTEMPTS: Final = 2_000
"""Devices that are tried before it pays to look at all of them and prune."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why the claims do not fit on a node: the reason in words. Other nodes may still do."""

    reason: str
    gave_up: bool = False


def allocate(
    inventory: Inventory,
    classes: Mapping[str, Object],
    node: Object,
    claims: Sequence[Object],
    taken: Set[DeviceId],
    *,
    forbidden: Collection[DeviceId] = (),
    attempts: int = MAX_ATTEMPTS,
    problem: Problem | None = None,
) -> list[dict[str, Json]] | Unfit:
    """Return one AllocationResult per claim, or why they do not fit on `node`.

    `taken` are devices that other claims hold, `forbidden` those that this pod may not get though they are free.
    `problem` are the claims as `candidates.read` gives them, for a caller who asks for many nodes.
    Raises `Invalid` for what no node can mend: an unknown class, a selector that does not compile or errs, more
    devices than a claim may have, a feature that is not offered.
    """
    if problem is None:
        problem = read(inventory.features, classes, claims)
    if problem.plain and inventory.names(node) <= taken:
        return _unfit(inventory.pools(node))
    candidates = Candidates(inventory, node, taken, forbidden)
    problem = pose(candidates, problem)
    search = Search(candidates, problem, min(attempts, PLAIN_ATTEMPTS))
    outcome = search.run()
    if outcome is Outcome.GAVE_UP and attempts > PLAIN_ATTEMPTS:
        pruning = Pruning(candidates, problem) if Pruning.applies(problem) else None
        search = Search(candidates, problem, attempts, pruning)
        outcome = search.run()
    if outcome is Outcome.DONE:
        return [allocation_result(claim, search.chosen[i], search.selected(i), node) for i, claim in enumerate(claims)]
    if outcome is Outcome.GAVE_UP:
        return Unfit(f"gave up after trying {attempts} devices", gave_up=True)
    return _unfit(candidates.pools)


def _unfit(pools: Sequence[Pool]) -> Unfit:
    broken = (pool for pool in pools if pool.problem and not pool.incomplete)
    return Unfit("; ".join(f"pool {pool.name} is invalid: {pool.problem}" for pool in broken))


class Outcome(Enum):
    """How an attempt ended: `EXCEEDED` is a claim that would get more devices than it may."""

    DONE = "done"
    FAILED = "failed"
    EXCEEDED = "exceeded"
    GAVE_UP = "gave up"


@dataclass(frozen=True, slots=True)
class _At:
    """Where a search stands: the next device to choose. `alternative` is None before one has been picked."""

    claim: int
    request: int = 0
    alternative: int | None = None
    device: int = 0
    start: int = 0


@dataclass(slots=True)
class _Agreed:
    """A matchAttribute constraint: the value that the devices chosen so far share."""

    attribute: str
    requests: frozenset[str]
    value: tuple[str, Json] | None = None
    devices: int = 0

    def applies(self, ask: Ask) -> bool:
        return not self.requests or ask.full_name in self.requests or (ask.parent or ask.name) in self.requests

    def add(self, offer: Offer) -> bool:
        value = offer.attribute(self.attribute)
        if value is None:
            return False
        if self.devices == 0:
            self.value = value
        elif value[0] == "unknown" or value != self.value:
            return False
        self.devices += 1
        return True

    def remove(self) -> None:
        self.devices -= 1


@dataclass(slots=True)
class _Frame:
    """One choice of the search that can still be changed.

    `kind` is `device` (try the next device), `all` (this device or none), `list` (try the next alternative) or
    `claim` (the claim before is complete: a claim that exceeds its size is an ordinary failure here).
    """

    kind: str
    at: _At
    next: int = 0
    held: int = -1
    exceeded: bool = True
    state: tuple[object, ...] = ()
    tried: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Search:
    """A depth-first search with its own stack, so that no claim can exhaust the interpreter's."""

    candidates: Candidates
    problem: Problem
    attempts: int
    pruning: Pruning | None = None
    chosen: list[list[Chosen]] = field(init=False)
    _stack: list[_Frame] = field(init=False, default_factory=list)
    _holders: dict[int, list[int]] = field(init=False, default_factory=dict)
    _constraints: list[list[_Agreed]] = field(init=False)
    _alternative: dict[tuple[int, int], int] = field(init=False, default_factory=dict)
    _selectable: dict[tuple[int, int, int, int], bool] = field(init=False, default_factory=dict)
    _consumed: dict[tuple[str, str, str], int] = field(init=False, default_factory=dict)
    _held: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.chosen = [[] for _ in self.problem.claims]
        self._constraints = [
            [
                _Agreed(constraint["matchAttribute"], frozenset(constraint.get("requests") or ()))
                for constraint in (claim["spec"].get("devices") or {}).get("constraints") or ()
            ]
            for claim in self.problem.claims
        ]

    def selected(self, claim: int) -> list[Ask]:
        """Return the alternative that was picked for each request of a claim."""
        return [
            alternatives[self._alternative.get((claim, request), 0)]
            for request, alternatives in enumerate(self.problem.asks[claim])
        ]

    def run(self) -> Outcome:
        """Search; on DONE `chosen` holds the devices of each claim."""
        state: _At | Outcome = _At(0)
        while True:
            if isinstance(state, _At):
                state = self._enter(state)
            elif state in (Outcome.DONE, Outcome.GAVE_UP) or not self._stack:
                if state is Outcome.EXCEEDED:
                    raise Invalid(f"expected claims of at most {MAX_DEVICES} devices, got more in each alternative")
                return state
            else:
                state = self._retry(self._stack[-1], state)

    def _enter(self, at: _At) -> _At | Outcome:
        """Go one step forward from `at`."""
        if at.claim >= len(self.problem.claims):
            return Outcome.DONE
        requests = self.problem.asks[at.claim]
        if at.request >= len(requests):
            self._stack.append(_Frame("claim", at))
            return _At(at.claim + 1)
        alternatives = requests[at.request]
        if at.alternative is None:
            if self.pruning is not None and self.pruning.hopeless(at.claim, at.request, self._held):
                return Outcome.FAILED
            if alternatives[0].parent:
                frame = _Frame("list", at)
                self._stack.append(frame)
                return self._next_alternative(frame)
            return _At(at.claim, at.request, 0)
        ask = alternatives[at.alternative]
        if ask.every is not None and not ask.every:
            return Outcome.FAILED
        if at.device >= ask.count:
            return _At(at.claim, at.request + 1)
        if ask.count - at.device > MAX_DEVICES - len(self.chosen[at.claim]):
            return Outcome.EXCEEDED
        frame = _Frame("device" if ask.every is None else "all", at, next=at.start)
        if self.pruning is not None:
            frame.state = self._state(at)
            if self.pruning.has_failed(frame.state):
                return Outcome.FAILED
        self._stack.append(frame)
        return self._next_device(frame, ask) if ask.every is None else self._this_device(frame, ask, ask.every)

    def _retry(self, frame: _Frame, outcome: Outcome) -> _At | Outcome:
        """What follows from `frame`'s choice ended in `outcome`: undo it and try its next one, or give it up too."""
        ask = self._ask(frame.at) if frame.kind in ("device", "all") else None
        if ask is not None and frame.held >= 0:
            self._release(frame.at.claim, ask, frame.held)
            frame.held = -1
        if frame.kind == "device" and outcome is Outcome.FAILED and ask is not None:
            return self._next_device(frame, ask)
        if frame.kind == "list":
            frame.exceeded = frame.exceeded and outcome is Outcome.EXCEEDED
            return self._next_alternative(frame)
        self._stack.pop()
        return Outcome.FAILED if frame.kind == "claim" else outcome

    def _next_alternative(self, frame: _Frame) -> _At | Outcome:
        at, alternative = frame.at, frame.next
        if alternative >= len(self.problem.asks[at.claim][at.request]):
            self._stack.pop()
            return Outcome.EXCEEDED if frame.exceeded else Outcome.FAILED
        frame.next += 1
        self._alternative[at.claim, at.request] = alternative
        return _At(at.claim, at.request, alternative)

    def _next_device(self, frame: _Frame, ask: Ask) -> _At | Outcome:
        at = frame.at
        for index in range(frame.next, len(self.candidates.offers)):
            if self.pruning is not None and self.pruning.kind(index) in frame.tried:
                continue
            self.attempts -= 1
            if self.attempts < 0:
                return Outcome.GAVE_UP
            if self._busy(at.claim, ask, index) or not self._is_selectable(at, ask, index):
                continue
            if self.pruning is not None:
                frame.tried.add(self.pruning.kind(index))
            if self._hold(at.claim, ask, index) is None:
                frame.next, frame.held = index + 1, index
                return _At(at.claim, at.request, at.alternative, at.device + 1, index + 1)
        if self.pruning is not None:
            self.pruning.fails(frame.state)
        self._stack.pop()
        return Outcome.FAILED

    def _state(self, at: _At) -> tuple[object, ...]:
        """Return what the rest of the search depends on: where it stands, what is held, what is agreed."""
        agreed = tuple(
            c.value if c.devices else None for constraints in self._constraints[at.claim :] for c in constraints
        )
        return (at, self._held, agreed)

    def _this_device(self, frame: _Frame, ask: Ask, every: Sequence[int]) -> _At | Outcome:
        at = frame.at
        index = every[at.device]
        self.attempts -= 1
        refusal = "in use" if self._busy(at.claim, ask, index) else self._hold(at.claim, ask, index)
        if refusal is None:
            frame.held = index
            return _At(at.claim, at.request, at.alternative, at.device + 1)
        if refusal == "constraint":
            raise Invalid(
                f"claim {self.problem.claims[at.claim]['metadata']['name']}, request {ask.full_name}: asks for all "
                f"devices, but {'/'.join(self.candidates.offers[index].id)} does not satisfy a constraint of the claim"
            )
        self._stack.pop()
        return Outcome.FAILED

    def _ask(self, at: _At) -> Ask:
        return self.problem.asks[at.claim][at.request][at.alternative or 0]

    def _is_selectable(self, at: _At, ask: Ask, index: int) -> bool:
        key = (at.claim, at.request, at.alternative or 0, index)
        known = self._selectable.get(key)
        if known is None:
            known = self._selectable[key] = self.candidates.selectable(ask, index)
        return known

    def _busy(self, claim: int, ask: Ask, index: int) -> bool:
        if self.candidates.forbidden[index]:
            return True
        holders = self._holders.get(index)
        if ask.admin:
            return holders is not None and claim in holders
        return self.candidates.taken[index] or bool(holders)

    def _hold(self, claim: int, ask: Ask, index: int) -> str | None:
        """Take a device, or say what is in the way: `counters`, `taint` or `constraint`."""
        offer, pool = self.candidates.offers[index], self.candidates.pool_of[index]
        features = self.candidates.inventory.features
        consumes = offer.device.get("consumesCounters")
        if consumes and not (features.partitionable_devices and self._fits_counters(offer, pool)):
            return "counters"
        if not self.candidates.tolerable(ask, index):
            return "taint"
        constraints = [c for c in self._constraints[claim] if c.applies(ask)]
        for i, constraint in enumerate(constraints):
            if not constraint.add(offer):
                for added in constraints[:i]:
                    added.remove()
                return "constraint"
        for counter_set, name, amount in offer.consumes:
            key = (pool.name, counter_set, name)
            self._consumed[key] = self._consumed.get(key, 0) + amount
        self._holders.setdefault(index, []).append(claim)
        self._held |= 1 << index
        self.chosen[claim].append(Chosen(offer, ask.full_name, ask.admin, ask.tolerations))
        return None

    def _release(self, claim: int, ask: Ask, index: int) -> None:
        offer, pool = self.candidates.offers[index], self.candidates.pool_of[index]
        self.chosen[claim].pop()
        self._holders[index].remove(claim)
        if not self._holders[index]:
            self._held &= ~(1 << index)
        for constraint in self._constraints[claim]:
            if constraint.applies(ask):
                constraint.remove()
        for counter_set, name, amount in offer.consumes:
            self._consumed[pool.name, counter_set, name] -= amount

    def _fits_counters(self, offer: Offer, pool: Pool) -> bool:
        free = self.candidates.free(pool)
        if free is None:
            return False
        wanted: dict[tuple[str, str], int] = {}
        for counter_set, name, amount in offer.consumes:
            wanted[counter_set, name] = wanted.get((counter_set, name), 0) + amount
        return all(free[key] >= amount + self._consumed.get((pool.name, *key), 0) for key, amount in wanted.items())
