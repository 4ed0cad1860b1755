"""Reconciles Tenants: their namespaces exist and say whose they are; what they use and owe stands in the status."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, Protocol, TypeAlias

from wharfinger.controllers.readiness import difference
from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, everything, own
from wharfinger.core.clock import MINUTE, Instant, Span
from wharfinger.kinds.condition import condition, find
from wharfinger.kinds.kind import GROUP

TENANT_LABEL: Final = f"{GROUP}/tenant"
BUDGET: Final = "WithinBudget"


class Usage(Protocol):
    """Counts what claims use: given the claims of one tenant and all published slices."""

    def __call__(self, claims: Iterable[Object], slices: Iterable[Object]) -> Mapping[str, Any]:
        """Return `{"memory": quantity text, "computeSlices": number}`."""
        ...


Spent: TypeAlias = Callable[[Object, Instant], str]
"""What a Tenant spent in the calendar month of an instant: a decimal amount at its rates."""


class TenantReconciler:
    """Namespaces, use and budget of Tenants."""

    kind = "tenants"

    def __init__(self, cache: Cache, writer: Writer, usage: Usage, spent: Spent) -> None:
        self._cache = cache
        self._writer = writer
        self._usage = usage
        self._spent = spent

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return tenants, their namespaces and the claims there."""
        every = everything(self._cache, self.kind)
        return {"tenants": own, "namespaces": every, "resourceclaims": self._of_namespace, "resourceslices": every}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Make the tenant's namespaces, count what it uses."""
        tenant = self._cache.get(self.kind, "", key.name)
        if tenant is None or deleting(tenant):
            return None
        leaving = []
        for name in tenant["spec"]["namespaces"]:
            namespace = self._cache.get("namespaces", "", name)
            if namespace is not None and deleting(namespace):
                leaving.append(name)
                continue
            labels = (namespace or {}).get("metadata", {}).get("labels") or {}
            if labels.get(TENANT_LABEL) != key.name:
                self._writer.apply(namespace_for(key.name, name))
            if self._cache.get("serviceaccounts", name, "default") is None:
                self._writer.apply(
                    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
                )
        claims = [c for name in tenant["spec"]["namespaces"] for c in self._cache.list("resourceclaims", name)]
        status = tenant.get("status") or {}
        fresh = {
            "used": dict(self._usage(claims, self._cache.list("resourceslices"))),
            "conditions": condition(
                status.get("conditions"),
                "Ready",
                not leaving,
                "NamespaceLeaving" if leaving else "Ready",
                f"namespace {', '.join(leaving)} is being deleted" if leaving else "namespaces and quota are in place",
                tenant["metadata"].get("generation", 0),
                now,
            ),
        }
        budget = tenant["spec"].get("budget")
        if budget:
            fresh["conditions"] = self._budget(tenant, budget, fresh["conditions"], now)
        if dict(status) != fresh:
            self._writer.status(self.kind, "", key.name, difference(status, fresh))
        return MINUTE if budget else None

    def _budget(self, tenant: Object, budget: Object, conditions: Any, now: Instant) -> list[dict[str, Any]]:
        """Return `conditions` with WithinBudget set; passing the budget is told in an event, too."""
        spent, monthly = self._spent(tenant, now), budget["monthly"]
        within = Decimal(spent) <= Decimal(monthly)
        currency = budget.get("currency", "USD")
        # The amount itself would make the status new every minute: it is in the bill.
        message = f"this month's bill is {'within' if within else 'over'} {monthly} {currency}"
        before = find(tenant.get("status", {}).get("conditions"), BUDGET) or {}
        if (before.get("status") == "False") == within:
            told = f"{message}: {spent} {currency} so far; wharf bill shows it"
            self._writer.event(tenant, "WithinBudget" if within else "OverBudget", told, warning=not within)
        return condition(
            conditions,
            BUDGET,
            within,
            "WithinBudget" if within else "OverBudget",
            message,
            tenant["metadata"].get("generation", 0),
            now,
        )

    def _of_namespace(self, o: Object) -> list[Key]:
        namespace = o["metadata"].get("namespace", "")
        return [
            Key("", t["metadata"]["name"])
            for t in self._cache.list(self.kind)
            if namespace in t["spec"].get("namespaces", ())
        ]


def namespace_for(tenant: str, name: str) -> dict[str, Any]:
    """Return the Namespace `name` as the tenant's."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {TENANT_LABEL: tenant}}}
