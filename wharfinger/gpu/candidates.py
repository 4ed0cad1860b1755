"""Candidates: the devices of one node that may be tried for a pod, and the pod's claims read against them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace

from wharfinger.core.errors import Invalid, excerpt
from wharfinger.gpu.inventory import Allowance, DeviceId, Features, Inventory, Object, Offer, Pool, node_matches
from wharfinger.gpu.request import MAX_DEVICES, Ask, Problem, selectors_of, tolerated


class Candidates:
    """The devices of one node that may be tried, numbered, and who holds what while a search goes on."""

    def __init__(
        self,
        inventory: Inventory,
        node: Object,
        taken: Set[DeviceId],
        forbidden: Collection[DeviceId] = (),
    ) -> None:
        self.inventory = inventory
        self.node = node
        self.pools = inventory.pools(node)
        self.offers: list[Offer] = []
        self.pool_of: list[Pool] = []
        for pool in self.pools:
            if not pool.problem:
                self.offers.extend(pool.offers)
                self.pool_of.extend([pool] * len(pool.offers))
        self.taken = [offer.id in taken for offer in self.offers]
        self.forbidden = [offer.id in forbidden for offer in self.offers]
        self._taken_ids = taken
        self._allowance = Allowance()
        self._free: dict[str, dict[tuple[str, str], int] | None] = {}

    def free(self, pool: Pool) -> dict[tuple[str, str], int] | None:
        """Return what the devices that are taken leave of a pool's counters.

        None where a counter is overdrawn: that stops every device of the pool that consumes any.
        """
        if pool.name not in self._free:
            left = dict(pool.counters)
            for offer in (*pool.offers, *pool.elsewhere):
                if offer.id in self._taken_ids:
                    for counter_set, name, amount in offer.consumes:
                        left[counter_set, name] -= amount
            self._free[pool.name] = None if any(amount < 0 for amount in left.values()) else left
        return self._free[pool.name]

    def selectable(self, ask: Ask, index: int) -> bool:
        """Say whether class, request and node selection admit a device. Raises `Invalid` when a selector errs."""
        offer = self.offers[index]
        if offer.device.get("bindingConditions"):
            return False
        for expression, whose in ask.selectors:
            try:
                if not self.inventory.matches(expression, offer, self._allowance):
                    return False
            except Invalid as error:
                raise Invalid(f"{whose} on device {'/'.join(offer.id)}: {error.message}") from error
        if offer.slice.get("perDeviceNodeSelection"):
            return node_matches(offer.device, self.node)
        return True

    def tolerable(self, ask: Ask, index: int) -> bool:
        """Say whether the taints of a device, if it has any, are tolerated by an ask."""
        return not self.inventory.features.device_taints or tolerated(self.offers[index], ask.tolerations)


def read(features: Features, classes: Mapping[str, Object], claims: Sequence[Object]) -> Problem:
    """Return the claims as asks, checked as far as no node is needed for it. Raises `Invalid` as `allocate` says."""
    asks = []
    for claim in claims:
        devices = claim["spec"].get("devices") or {}
        asks.append([_alternatives(features, classes, claim, r) for r in devices.get("requests") or ()])
        for i, constraint in enumerate(devices.get("constraints") or ()):
            if constraint.get("matchAttribute") is None:
                name = claim["metadata"]["name"]
                raise Invalid(f"claim {name}, constraint {i}: expected matchAttribute, got a kind that is not offered")
    every = [ask for requests in asks for alternatives in requests for ask in alternatives]
    problem = Problem(claims, asks, plain=bool(every) and not any(ask.everything or ask.admin for ask in every))
    if not any(ask.everything for ask in every):
        _check_sizes(problem)
    return problem


def pose(candidates: Candidates, problem: Problem) -> Problem:
    """Return a problem that was read as it is on one node: requests for all devices hold those that there are."""
    if all(not ask.everything for requests in problem.asks for alternatives in requests for ask in alternatives):
        return problem
    asks = [
        [
            [_with_every(candidates, claim, request, ask) if ask.everything else ask for ask in alternatives]
            for request, alternatives in zip(claim["spec"]["devices"]["requests"], requests, strict=True)
        ]
        for claim, requests in zip(problem.claims, problem.asks, strict=True)
    ]
    posed = Problem(problem.claims, asks)
    _check_sizes(posed)
    return posed


def _check_sizes(problem: Problem) -> None:
    for claim, requests in zip(problem.claims, problem.asks, strict=True):
        total = 0
        for alternatives in requests:
            least = min(ask.count for ask in alternatives)
            if least > MAX_DEVICES - total:
                raise Invalid(
                    f"claim {claim['metadata']['name']}, request {alternatives[0].parent or alternatives[0].name}: "
                    f"expected at most {MAX_DEVICES} devices in a claim, got {least} more than the {total} of other "
                    "requests"
                )
            total += least


def _alternatives(features: Features, classes: Mapping[str, Object], claim: Object, request: Object) -> list[Ask]:
    where = _where(claim, request)
    alternatives = request.get("firstAvailable") or ()
    if not alternatives:
        if request.get("exactly") is None:
            raise Invalid(f"{where}: expected exactly or firstAvailable, got neither")
        return [_ask(features, classes, request["exactly"], request["name"], "", where)]
    if not features.prioritized_list:
        raise Invalid(f"{where}: a list of alternatives is not offered")
    return [_ask(features, classes, each, each["name"], request["name"], where) for each in alternatives]


def _ask(features: Features, classes: Mapping[str, Object], asked: Object, name: str, parent: str, where: str) -> Ask:
    for unoffered in ("capacity", "derivedAttributes"):
        if asked.get(unoffered):
            raise Invalid(f"{where}: {unoffered} is not offered")
    selectors = selectors_of(asked, where)
    if asked.get("adminAccess") is not None and not features.admin_access:
        raise Invalid(f"{where}: admin access is not allowed here")
    class_name = asked.get("deviceClassName")
    if not class_name:
        raise Invalid(f"{where}: expected deviceClassName")
    device_class = classes.get(class_name)
    if device_class is None:
        raise Invalid(f"{where}: there is no DeviceClass {excerpt(class_name)}")
    mode = asked.get("allocationMode") or "ExactCount"
    if mode not in ("ExactCount", "All"):
        raise Invalid(f"{where}: expected allocationMode ExactCount or All, got {excerpt(mode)}")
    of_class = selectors_of(device_class["spec"], f"class {class_name}")
    return Ask(
        name=name,
        parent=parent,
        device_class=device_class,
        count=asked.get("count", 1),
        admin=bool(asked.get("adminAccess")) and not parent,
        selectors=(
            *((text, f"class {class_name}") for text in of_class),
            *((text, f"request {parent + '/' if parent else ''}{name}") for text in selectors),
        ),
        tolerations=asked.get("tolerations") or (),
        everything=mode == "All",
    )


def _with_every(candidates: Candidates, claim: Object, request: Object, ask: Ask) -> Ask:
    for pool in candidates.pools:
        if pool.problem:
            raise Invalid(
                f"{_where(claim, request)}: asks for all devices, but pool {pool.name} cannot be used: {pool.problem}"
            )
    every = tuple(index for index in range(len(candidates.offers)) if candidates.selectable(ask, index))
    return replace(ask, count=len(every), every=every)


def _where(claim: Object, request: Object) -> str:
    return f"claim {claim['metadata']['name']}, request {request['name']}"
