"""Where a request goes: from the objects to the service that a model's name means, and the replica that takes it.

Pure: the gateway rebuilds the table when an object changes, and asks it for every request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wharfinger.core.errors import NotFound, Unavailable, excerpt
from wharfinger.inference.guards import Rules, combine
from wharfinger.policy.grant import caller_matches

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that may get requests, and the specs of the grants that speak of its pod."""

    pod: str
    host: str
    port: int
    device: str | None
    grants: tuple[Object, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A service as the gateway serves it. `workload` is the SPIFFE ID that its replicas must show."""

    namespace: str
    name: str
    tenant: str
    workload: str
    digest: str
    model: str
    replicas: tuple[Replica, ...]
    callers: tuple[str, ...]
    rules: Rules
    max_tokens: int
    tenant_limit: int
    caller_limit: int | None
    external: str = ""
    external_secret: str = ""
    salt_by_caller: bool = False
    reason: str = ""

    @property
    def id(self) -> str:
        """What a client says as `model`."""
        return f"{self.namespace}/{self.name}"

    def lists(self, caller: str) -> bool:
        """Say whether the caller is one that the service names."""
        return any(caller_matches(pattern, caller) for pattern in self.callers)


@dataclass(frozen=True, slots=True)
class Table:
    """All services."""

    services: Mapping[str, Service] = field(default_factory=dict)

    def find(self, model: str, caller: str) -> Service:
        """Return the service that `model` names: `namespace/name`, or a name alone when the caller may call one such.

        Raises `NotFound`, in the same words whether there is none or the caller may not know of it.
        """
        found = self.services.get(model)
        if found is not None:
            return found
        near = [s for s in self.services.values() if s.name == model and s.lists(caller)]
        if len(near) == 1:
            return near[0]
        raise NotFound(f"there is no model {excerpt(model)} for you", hint="GET /v1/models lists those you may call")

    def of(self, caller: str) -> list[Service]:
        """Return the services that the caller may call, by id."""
        return [service for _, service in sorted(self.services.items()) if service.lists(caller)]


def build(
    services: Iterable[Object],
    grants: Iterable[Object],
    policies: Iterable[Object],
    tenants: Iterable[Object],
    trust_domain: str,
) -> Table:
    """Return the table that the objects make."""
    by_pod: dict[tuple[str, str], list[Object]] = {}
    for grant in grants:
        if not grant["metadata"].get("deletionTimestamp"):
            key = grant["metadata"]["namespace"], grant["spec"].get("pod", "")
            by_pod.setdefault(key, []).append(grant["spec"])
    tenant_of = {ns: t for t in tenants for ns in t["spec"].get("namespaces", ())}
    in_namespace: dict[str, list[Object]] = {}
    for policy in policies:
        in_namespace.setdefault(policy["metadata"]["namespace"], []).append(policy["spec"])
    made = {}
    for service in services:
        if service["metadata"].get("deletionTimestamp"):
            continue
        namespace = service["metadata"]["namespace"]
        one = _service(service, by_pod, in_namespace.get(namespace, ()), tenant_of.get(namespace), trust_domain)
        made[one.id] = one
    return Table(made)


def choose(service: Service, in_flight: Callable[[Replica], int], avoid: frozenset[str] = frozenset()) -> Replica:
    """Return the replica with the fewest tokens in flight, the first by name among equals.

    Raises `Unavailable` with the service's own reason when none may get requests.
    """
    able = [replica for replica in service.replicas if replica.pod not in avoid]
    if not able:
        raise Unavailable(f"model {service.id} has no replica that serves: {service.reason or 'none is ready'}")
    return min(able, key=lambda replica: (in_flight(replica), replica.pod))


def _service(
    service: Object,
    by_pod: Mapping[tuple[str, str], Sequence[Object]],
    policies: Iterable[Object],
    tenant: Object | None,
    trust_domain: str,
) -> Service:
    meta, spec, status = service["metadata"], service["spec"], service.get("status") or {}
    namespace, name = meta["namespace"], meta["name"]
    mine = [p for p in policies if not p.get("services") or name in p["services"]]
    limits = [p.get("limits") or {} for p in mine]
    caller_limits = [c for c in (limit.get("callerTokensPerMinute") for limit in limits) if c is not None]
    external = (spec.get("runtime") or {}).get("external") or {}
    ready: Object = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    return Service(
        namespace=namespace,
        name=name,
        tenant=tenant["metadata"]["name"] if tenant else "",
        workload=f"spiffe://{trust_domain}/ns/{namespace}/sa/{spec.get('serviceAccountName', 'default')}",
        digest=status.get("modelDigest", ""),
        model=spec["model"],
        replicas=tuple(
            _replica(endpoint, by_pod.get((namespace, endpoint["pod"]), ()))
            for endpoint in status.get("endpoints") or ()
            if endpoint.get("ready") and endpoint.get("address")
        ),
        callers=tuple(spec.get("callers") or ()),
        rules=combine(mine),
        max_tokens=min((limit.get("maxTokens", 4096) for limit in limits), default=4096),
        tenant_limit=((tenant or {}).get("spec", {}).get("quota") or {}).get("tokensPerMinute", 0),
        caller_limit=min(caller_limits) if caller_limits else None,
        external=external.get("url", "") if (spec.get("runtime") or {}).get("type") == "External" else "",
        external_secret=external.get("secretName", ""),
        salt_by_caller=any(p.get("cacheIsolation") == "Caller" for p in mine),
        reason=str(ready.get("message", "")),
    )


def _replica(endpoint: Object, grants: Sequence[Object]) -> Replica:
    host, _, port = endpoint["address"].rpartition(":")
    return Replica(endpoint["pod"], host, int(port), endpoint.get("device") or None, tuple(grants))
