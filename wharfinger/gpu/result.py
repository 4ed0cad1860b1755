"""Allocation results: what is written into a claim's status once its devices are chosen (resource.k8s.io/v1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid
from wharfinger.gpu.inventory import Object, Offer


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """One device, and the request (or `request/alternative`) that it answers."""

    offer: Offer
    request: str
    admin: bool
    tolerations: Sequence[Object]


class Asked(Protocol):
    """What this module reads of a request: the part of `allocation.Ask` that configuration depends on."""

    @property
    def full_name(self) -> str:
        """The name of the request, `request/alternative` in a list."""
        ...

    @property
    def parent(self) -> str:
        """The request that an alternative belongs to, else empty."""
        ...

    @property
    def device_class(self) -> Object:
        """Its DeviceClass."""
        ...


def allocation_result(claim: Object, chosen: Sequence[Chosen], asks: Sequence[Asked], node: Object) -> dict[str, Json]:
    """Return the AllocationResult of one claim.

    `asks` are its requests in order, of a list the alternative that was picked. Raises `Invalid` for a slice with
    a node selector that the API does not allow.
    """
    results: list[dict[str, Json]] = []
    for each in chosen:
        driver, pool, device = each.offer.id
        result: dict[str, Json] = {"request": each.request, "driver": driver, "pool": pool, "device": device}
        if each.admin:
            result["adminAccess"] = True
        if each.tolerations:
            result["tolerations"] = [dict(toleration) for toleration in each.tolerations]
        results.append(result)
    devices: dict[str, Json] = {}
    if results:
        devices["results"] = results
    configuration = _configuration(claim, asks)
    if configuration:
        devices["config"] = configuration
    made: dict[str, Json] = {"devices": devices}
    selector = _node_selector(chosen, node)
    if selector is not None:
        made["nodeSelector"] = selector
    return made


def _configuration(claim: Object, asks: Sequence[Asked]) -> list[dict[str, Json]]:
    """Return the configuration from classes, each once, and from the claim, as far as it concerns what was picked."""
    made: list[dict[str, Json]] = []
    of_class: dict[str, list[dict[str, Json]]] = {}
    for ask in asks:
        name = ask.device_class["metadata"]["name"]
        if name not in of_class:
            of_class[name] = [
                {"source": "FromClass", "requests": [], **_kept(config)}
                for config in ask.device_class["spec"].get("config") or ()
            ]
            made.extend(of_class[name])
        for config in of_class[name]:
            config["requests"].append(ask.full_name)
    names = [{ask.full_name, ask.parent or ask.full_name} for ask in asks]
    for config in (claim["spec"].get("devices") or {}).get("config") or ():
        requests = list(config.get("requests") or ())
        if not requests or any(of_ask & set(requests) for of_ask in names):
            made.append({"source": "FromClaim", "requests": requests, **_kept(config)})
    for config in made:
        # An empty list means all requests.
        if not config["requests"] or all(of_ask & set(config["requests"]) for of_ask in names):
            del config["requests"]
    return made


def _kept(config: Object) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "requests"}


def _node_selector(chosen: Sequence[Chosen], node: Object) -> dict[str, Json] | None:
    """Return the nodes on which the allocation can be used; None for every node."""
    fields: list[Json] = []
    expressions: list[Json] = []
    for each in chosen:
        per_device = each.offer.slice.get("perDeviceNodeSelection")
        where = each.offer.device if per_device else each.offer.slice
        if where.get("nodeName") or each.offer.device.get("bindsToNode"):
            here = {"key": "metadata.name", "operator": "In", "values": [node["metadata"]["name"]]}
            return {"nodeSelectorTerms": [{"matchFields": [here]}]}
        terms = (where.get("nodeSelector") or {}).get("nodeSelectorTerms") or ()
        if len(terms) > 1:
            raise Invalid(f"expected one term in the node selector of a ResourceSlice, got {len(terms)}")
        for term in terms:
            _add(term.get("matchFields") or (), fields)
            _add(term.get("matchExpressions") or (), expressions)
    made = {"matchExpressions": expressions, "matchFields": fields}
    term = {name: entries for name, entries in made.items() if entries}
    return {"nodeSelectorTerms": [term]} if term else None


def _add(requirements: Sequence[Object], to: list[Json]) -> None:
    for requirement in requirements:
        if not any(_same(requirement, other) for other in to):
            to.append(dict(requirement))


def _same(one: Object, other: Object) -> bool:
    return (
        one.get("key") == other.get("key")
        and one.get("operator") == other.get("operator")
        and set(one.get("values") or ()) == set(other.get("values") or ())
    )
