"""Pruning: which parts of an allocation search cannot hold a solution, without changing which one is found first.

Three laws, each sound: devices that are alike for every request are tried once; a request that has fewer free
devices than it needs fails at once; what has failed from a state fails again from the same state. They hold only where
a search ends in yes or no (`applies`): a problem that asks for all devices under a constraint, uses admin access or
could exceed a claim's size is searched plainly, so that its error is the one that Kubernetes gives.
"""

from __future__ import annotations

from collections.abc import Sequence

from wharfinger.gpu.candidates import Candidates
from wharfinger.gpu.inventory import Offer
from wharfinger.gpu.request import MAX_DEVICES, Ask, Problem


class Pruning:
    """What is known of one problem before it is searched, and what the search has learnt."""

    def __init__(self, candidates: Candidates, problem: Problem) -> None:
        """Look at every device for every request. Raises `Invalid` when a selector errs on one that is free."""
        self._masks: list[list[list[int]]] = []
        self._needs: list[list[list[int]]] = []
        for requests in problem.asks:
            self._masks.append([[_mask(candidates, ask) for ask in alternatives] for alternatives in requests])
            self._needs.append([[ask.count for ask in alternatives] for alternatives in requests])
        self._kinds = self._alike(candidates.offers, problem)
        self._failed: set[tuple[object, ...]] = set()

    @staticmethod
    def applies(problem: Problem) -> bool:
        """Say whether a search for `problem` ends in yes or no, unless a selector errs."""
        for claim, requests in zip(problem.claims, problem.asks, strict=True):
            constrained = bool((claim["spec"].get("devices") or {}).get("constraints"))
            if sum(max(ask.count for ask in alternatives) for alternatives in requests) > MAX_DEVICES:
                return False
            asks = [ask for alternatives in requests for ask in alternatives]
            if any(ask.admin or (ask.every is not None and constrained) for ask in asks):
                return False
        return True

    def kind(self, index: int) -> int:
        """Return a number that devices share if no request and no constraint can tell them apart."""
        return self._kinds[index]

    def hopeless(self, claim: int, request: int, held: int) -> bool:
        """Say whether this or a later request has too few free devices. `held` is a bit set of device numbers."""
        for c in range(claim, len(self._masks)):
            for r in range(request if c == claim else 0, len(self._masks[c])):
                masks, needs = self._masks[c][r], self._needs[c][r]
                if all((mask & ~held).bit_count() < need for mask, need in zip(masks, needs, strict=True)):
                    return True
        return False

    def has_failed(self, state: tuple[object, ...]) -> bool:
        """Say whether the search failed from this state before."""
        return state in self._failed

    def fails(self, state: tuple[object, ...]) -> None:
        """Remember that the search fails from this state."""
        self._failed.add(state)

    def _alike(self, offers: Sequence[Offer], problem: Problem) -> list[int]:
        attributes = sorted(
            {
                constraint["matchAttribute"]
                for claim in problem.claims
                for constraint in (claim["spec"].get("devices") or {}).get("constraints") or ()
            }
        )
        masks = [mask for requests in self._masks for alternatives in requests for mask in alternatives]
        numbers: dict[tuple[object, ...], int] = {}
        kinds = []
        for index, offer in enumerate(offers):
            likeness = (
                tuple(mask >> index & 1 for mask in masks),
                tuple(offer.attribute(name) for name in attributes),
                (offer.id[:2], tuple(sorted(offer.consumes))) if offer.consumes else (),
                bool(offer.device.get("consumesCounters")),
            )
            kinds.append(numbers.setdefault(likeness, len(numbers)))
        return kinds


def _mask(candidates: Candidates, ask: Ask) -> int:
    mask = 0
    for index in range(len(candidates.offers)):
        open_here = not (candidates.taken[index] or candidates.forbidden[index])
        if open_here and candidates.selectable(ask, index) and candidates.tolerable(ask, index):
            mask |= 1 << index
    return mask
