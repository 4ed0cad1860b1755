"""Which namespaces are whose, as authorization needs it: read from the stored Tenants, kept until they change."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from wharfinger.local.api.served import Resource
from wharfinger.local.api.store import Event, Store
from wharfinger.policy.authorization import Attempt, Tenancy, authorize
from wharfinger.policy.decision import Verdict

_ALL = 100_000


class Tenants:
    """The tenancy of one store. `notice` is called with every durable change."""

    def __init__(self, store: Store, resource: Resource) -> None:
        self._store = store
        self._number = resource.number
        self._known: Tenancy | None = None
        self.changes = 0
        """How often the Tenants have changed: what was allowed before may be so no more."""

    def notice(self, events: Sequence[Event]) -> None:
        """Forget what was read when a Tenant changed."""
        if any(event.kind == self._number for event in events):
            self._known = None
            self.changes += 1

    @property
    def tenancy(self) -> Tenancy:
        """Who has which namespaces, and who their admins are."""
        if self._known is None:
            page = self._store.page(self._number, None, ("", ""), _ALL, self._store.newest())
            tenants = [orjson.loads(version.body) for version in page]
            self._known = Tenancy(
                tenant_of={
                    namespace: tenant["metadata"]["name"]
                    for tenant in tenants
                    for namespace in tenant["spec"].get("namespaces") or ()
                },
                admins={
                    tenant["metadata"]["name"]: frozenset(tenant["spec"].get("admins") or ()) for tenant in tenants
                },
            )
        return self._known

    def authorize(self, who: str | None, attempt: Attempt) -> Verdict:
        """Judge an attempt by the rules of `policy.authorization`."""
        return authorize(who, attempt, self.tenancy)
