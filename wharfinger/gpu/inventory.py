"""Inventory: what the published ResourceSlices offer on each node.

Kubernetes' rules of resource pools (resource.k8s.io/v1, ResourceSliceSpec): slices of an older generation than
the newest of their pool do not count; a pool of which slices are missing is incomplete, one that contradicts
itself is invalid, and nothing is allocated from either. Pools come by driver and name, slices by name, devices as
listed, so that an allocation does not depend on the order in which slices were read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid, Malformed, excerpt
from wharfinger.core.quantity import Quantity
from wharfinger.core.selectors import Requirement
from wharfinger.policy import cel

Object: TypeAlias = Mapping[str, Json]
DeviceId: TypeAlias = tuple[str, str, str]
"""Driver, pool and device: what names a device in an allocation."""
PoolId: TypeAlias = tuple[str, str]


MOST_WORK: Final = 20_000
"""Units of CEL work that one selector may take on one device; an honest one takes less than 200."""
ALLOWANCE: Final = 500_000
"""Units that the selectors of a pod's claims may take on one node's devices: some 0.2 s."""
MAX_KEPT: Final = 500_000
"""Verdicts of selectors on devices that an inventory remembers."""


@dataclass(slots=True)
class Allowance:
    """What is left of the CEL work that one search may do."""

    left: int = ALLOWANCE


@dataclass(frozen=True, slots=True)
class Features:
    """The parts of dynamic resource allocation that may be used, as Kubernetes' feature gates name them."""

    admin_access: bool = True
    prioritized_list: bool = True
    partitionable_devices: bool = True
    device_taints: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """One device that a slice offers to a node.

    `consumes` lists counter set, counter and amount in nanos.
    """

    id: DeviceId
    device: Object
    slice: Object
    consumes: tuple[tuple[str, str, int], ...]

    def attribute(self, name: str) -> tuple[str, Json] | None:
        """Return kind and value of the attribute with the fully qualified `name`, None where there is none."""
        attributes = self.device.get("attributes") or {}
        found = attributes.get(name)
        if found is None:
            domain, slash, short = name.partition("/")
            if not slash or domain != self.id[0]:
                return None
            found = attributes.get(short)
            if found is None:
                return None
        for kind in ("string", "int", "bool", "version"):
            if found.get(kind) is not None:
                return kind, found[kind]
        return "unknown", None


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """A pool as one node sees it. `problem` says why nothing can be allocated from it; empty when something can.

    `elsewhere` are the devices that other nodes see; they share `counters` with those here.
    """

    id: PoolId
    incomplete: bool = False
    problem: str = ""
    offers: tuple[Offer, ...] = ()
    elsewhere: tuple[Offer, ...] = ()
    counters: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`driver/pool`."""
        return "/".join(self.id)


class Inventory:
    """The slices of a fleet at one moment, and what has been computed of them.

    The slices must not change afterwards. Not for several threads at once: it remembers what it computed.
    """

    def __init__(self, slices: Iterable[Object], features: Features | None = None) -> None:
        self.features = features or Features()
        self._pools: dict[PoolId, list[Object]] = {}
        self._local: dict[str, list[Object]] = {}
        self._shared: list[Object] = []
        self._by_node: dict[str, list[Pool]] = {}
        self._names: dict[str, frozenset[DeviceId]] = {}
        self._variables: dict[int, dict[str, Any]] = {}
        self._matches: dict[tuple[str, int], bool] = {}
        self._offers: dict[int, tuple[Offer, ...]] = {}
        for resource_slice in sorted(slices, key=lambda s: str(s["metadata"]["name"])):
            spec = resource_slice["spec"]
            self._pools.setdefault((spec["driver"], spec["pool"]["name"]), []).append(resource_slice)
            if spec.get("nodeName"):
                self._local.setdefault(spec["nodeName"], []).append(resource_slice)
            else:
                self._shared.append(resource_slice)

    def pools(self, node: Object) -> list[Pool]:
        """Return the pools that offer something to `node`, sorted.

        A node is known by its name: its labels count at the first call. Raises `Invalid` for a node selector that
        is none.
        """
        name = node["metadata"]["name"]
        if name not in self._by_node:
            self._by_node[name] = self._gather(node)
        return self._by_node[name]

    def names(self, node: Object) -> frozenset[DeviceId]:
        """Return the devices that may be allocated on `node`. Raises `Invalid` as `pools` does."""
        name = node["metadata"]["name"]
        if name not in self._names:
            usable = (pool for pool in self.pools(node) if not pool.problem)
            self._names[name] = frozenset(offer.id for pool in usable for offer in pool.offers)
        return self._names[name]

    def _gather(self, node: Object) -> list[Pool]:
        found: dict[PoolId, list[Object]] = {}
        for resource_slice in (*self._local.get(node["metadata"]["name"], ()), *self._shared):
            spec = resource_slice["spec"]
            if not self._readable(spec) or not _reaches(spec, node):
                continue
            pool = found.setdefault((spec["driver"], spec["pool"]["name"]), [])
            generation = spec["pool"].get("generation", 0)
            newest = pool[0]["spec"]["pool"].get("generation", 0) if pool else generation
            if generation > newest:
                pool.clear()
            if generation >= newest:
                pool.append(resource_slice)
        for pool in found.values():
            pool.sort(key=lambda s: str(s["metadata"]["name"]))
        pools = (self._pool(pool_id, found[pool_id]) for pool_id in sorted(found))
        return [pool for pool in pools if pool is not None]

    def matches(self, expression: str, offer: Offer, allowance: Allowance | None = None) -> bool:
        """Say whether a device selector selects `offer`. What is known from before takes nothing of `allowance`.

        Raises `Invalid` when the selector does not compile or errs, and when the allowance is used up.
        """
        key = (expression, id(offer))
        known = self._matches.get(key)
        if known is None:
            variables = self._variables.get(id(offer))
            if variables is None:
                variables = self._variables[id(offer)] = cel.device_variables(offer.id[0], offer.device)
            program, allowance = cel.DEVICE.compile(expression), allowance or Allowance()
            value, work = program.metered(variables, budget=min(MOST_WORK, allowance.left))
            allowance.left -= work
            if type(value) is not bool:
                raise Invalid(f"CEL {excerpt(expression)}: expected a bool, got {excerpt(value)}")
            if len(self._matches) >= MAX_KEPT:
                self._matches.clear()
            known = self._matches[key] = value
        return known

    def _readable(self, spec: Object) -> bool:
        if not self.features.partitionable_devices and (
            spec.get("perDeviceNodeSelection") is not None or spec.get("sharedCounters")
        ):
            return False
        # Compatibility groups are a feature that is not offered: such a slice makes its pool incomplete.
        return not _grouped(spec)

    def _pool(self, pool_id: PoolId, here: list[Object]) -> Pool | None:
        """Return the pool of the slices `here`, None where a newer generation has left this node."""
        pool_spec = here[0]["spec"]["pool"]
        others: list[Object] = []
        if len(here) != pool_spec["resourceSliceCount"]:
            generation = pool_spec.get("generation", 0)
            generations = [s["spec"]["pool"].get("generation", 0) for s in self._pools[pool_id]]
            if max(generations) > generation:
                return None
            every = [
                s
                for s, g in zip(self._pools[pool_id], generations, strict=True)
                if g == generation and not _grouped(s["spec"])
            ]
            if len(every) != pool_spec["resourceSliceCount"]:
                return Pool(pool_id, incomplete=True, problem="the pool is being updated")
            seen = {s["metadata"]["name"] for s in here}
            others = [s for s in every if s["metadata"]["name"] not in seen]
        return self._checked(pool_id, here, others)

    def _checked(self, pool_id: PoolId, here: list[Object], others: list[Object]) -> Pool:
        counting = self.features.partitionable_devices
        counter_slices = [s for s in (*here, *others) if counting and s["spec"].get("sharedCounters")]
        offers = self._offered(s for s in here if not (counting and s["spec"].get("sharedCounters")))
        elsewhere = self._offered(s for s in others if not (counting and s["spec"].get("sharedCounters")))
        names: set[str] = set()
        for offer in offers:
            if offer.id[2] in names:
                return Pool(pool_id, problem=f"device {offer.id[2]} is published twice")
            names.add(offer.id[2])
        if not counting:
            return Pool(pool_id, offers=offers)
        counters: dict[tuple[str, str], int] = {}
        sets: set[str] = set()
        for resource_slice in counter_slices:
            for counter_set in resource_slice["spec"]["sharedCounters"]:
                if counter_set["name"] in sets:
                    return Pool(pool_id, problem=f"counter set {counter_set['name']} is published twice")
                sets.add(counter_set["name"])
                for name, counter in (counter_set.get("counters") or {}).items():
                    counters[counter_set["name"], name] = Quantity.of_json(counter["value"]).nanos
        for offer in (*offers, *elsewhere):
            missing = _missing(offer, sets, counters)
            if missing:
                return Pool(pool_id, problem=f"device {offer.id[2]} consumes {missing}, which is not published")
        return Pool(pool_id, offers=offers, elsewhere=elsewhere, counters=counters)

    def _offered(self, slices: Iterable[Object]) -> tuple[Offer, ...]:
        made: list[Offer] = []
        for resource_slice in slices:
            known = self._offers.get(id(resource_slice))
            if known is None:
                known = self._offers[id(resource_slice)] = _offers(resource_slice)
            made.extend(known)
        return tuple(made)


def _offers(resource_slice: Object) -> tuple[Offer, ...]:
    spec = resource_slice["spec"]
    driver, pool = spec["driver"], spec["pool"]["name"]
    made = []
    for device in spec.get("devices") or ():
        try:
            consumes = tuple(
                (consumption["counterSet"], name, Quantity.of_json(counter["value"]).nanos)
                for consumption in device.get("consumesCounters") or ()
                for name, counter in (consumption.get("counters") or {}).items()
            )
        except Malformed as error:
            raise Invalid(f"device {driver}/{pool}/{excerpt(device.get('name'))}: {error.message}") from error
        made.append(Offer((driver, pool, device["name"]), device, spec, consumes))
    return tuple(made)


def _missing(offer: Offer, sets: set[str], counters: Mapping[tuple[str, str], int]) -> str:
    for consumption in offer.device.get("consumesCounters") or ():
        name = consumption["counterSet"]
        if name not in sets:
            return f"counter set {name}"
        for counter in consumption.get("counters") or ():
            if (name, counter) not in counters:
                return f"counter {counter} of {name}"
    return ""


def _grouped(spec: Object) -> bool:
    return any(
        consumption.get("compatibilityGroups")
        for device in spec.get("devices") or ()
        for consumption in device.get("consumesCounters") or ()
    )


def _reaches(spec: Object, node: Object) -> bool:
    if spec.get("nodeName") or spec.get("allNodes") or spec.get("nodeSelector") is not None:
        return node_matches(spec, node)
    if spec.get("perDeviceNodeSelection"):
        return any(node_matches(device, node) for device in spec.get("devices") or ())
    return False


def node_matches(where: Object, node: Object) -> bool:
    """Say whether the `nodeName`, `allNodes` or `nodeSelector` of a slice or device means `node`.

    Raises `Invalid` for a node selector that is none.
    """
    if where.get("nodeName"):
        return bool(where["nodeName"] == node["metadata"]["name"])
    if where.get("allNodes"):
        return True
    selector = where.get("nodeSelector")
    if selector is None:
        return False
    return any(_term_matches(term, node) for term in selector.get("nodeSelectorTerms") or ())


_OPERATORS: Final = {
    "In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": "gt", "Lt": "lt",
}  # fmt: skip


def _term_matches(term: Object, node: Object) -> bool:
    """Judge one term of a core/v1 NodeSelector; one without conditions matches nothing."""
    expressions: Sequence[Object] = term.get("matchExpressions") or ()
    fields: Sequence[Object] = term.get("matchFields") or ()
    labels = node["metadata"].get("labels") or {}
    names = {"metadata.name": node["metadata"]["name"]}
    matched = [_requirement(entry, labels) for entry in expressions] + [_requirement(entry, names) for entry in fields]
    return bool(matched) and all(matched)


def _requirement(entry: Object, texts: Mapping[str, str]) -> bool:
    operator = _OPERATORS.get(entry.get("operator", ""))
    if operator is None:
        raise Invalid(f"expected a node selector operator, got {excerpt(entry.get('operator'))}")
    requirement = Requirement.checked(entry["key"], operator, [str(value) for value in entry.get("values") or ()])
    return requirement.matches(texts)
