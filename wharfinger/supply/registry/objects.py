"""The objects that the registry's door looks at, kept by what it looks them up by.

Fed by informers, one call per change; read by many threads.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wharfinger.supply.registry.authorization import Known, Named

Object = Mapping[str, Any]
PLURALS: Final = ("accesspolicies", "datasets", "grants", "models", "tenants")
"""The kinds to feed."""


class Objects:
    """AccessPolicies, Datasets, Grants, Models and Tenants of one trust domain as last seen."""

    def __init__(self, trust_domain: str) -> None:
        self._trust_domain = trust_domain
        self._lock = threading.Lock()
        self._held: dict[str, dict[tuple[str, str], Object]] = {plural: {} for plural in PLURALS}
        self._named: dict[str, dict[tuple[str, str, str], Named]] = {}
        self._grants: dict[str, dict[tuple[str, str], Object]] = {}
        self._tenancy: tuple[Mapping[str, str], Mapping[str, frozenset[str]]] = ({}, {})
        self._policies: tuple[Object, ...] = ()

    def take(self, plural: str, change: str, item: Object) -> None:
        """Take one change (ADDED, MODIFIED, DELETED) of an object of a kind of `PLURALS`."""
        meta = item["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        with self._lock:
            held = self._held[plural]
            before, after = held.pop(key, None), item if change != "DELETED" else None
            if after is not None:
                held[key] = after
            if plural == "tenants":
                self._tenancy = _tenancy(held.values())
            elif plural == "accesspolicies":
                self._policies = tuple(held[name] for name in sorted(held))
            elif plural == "grants":
                _move(self._grants, key, _workload(before), _workload(after), after)
            else:
                named = None if after is None else _named(plural, key, after)
                kept = (plural, *key)
                _move(self._named, kept, _repository(before), _repository(after), named)

    def known(self, repository: str) -> Known:
        """Return what a ruling on `repository` is made on."""
        with self._lock:
            tenant_of, admins = self._tenancy
            named = tuple(self._named.get(repository, {}).values())
            return Known(self._trust_domain, tenant_of, admins, named, self._policies)

    def grants(self, who: str) -> Sequence[Object]:
        """Return the specs of the grants of the workload `who`."""
        with self._lock:
            return [grant["spec"] for grant in self._grants.get(who, {}).values()]


def _move(index: dict[str, dict[Any, Any]], key: object, old: str, new: str, item: object) -> None:
    """Have `item` in the `index` below `new` and no longer below `old`; empty names are nowhere."""
    if old in index:
        index[old].pop(key, None)
        if not index[old]:
            del index[old]
    if new:
        index.setdefault(new, {})[key] = item


def _tenancy(tenants: Any) -> tuple[Mapping[str, str], Mapping[str, frozenset[str]]]:
    tenant_of: dict[str, str] = {}
    admins: dict[str, frozenset[str]] = {}
    # A namespace is the oldest tenant's that claims it: a younger one cannot take it over.
    for tenant in sorted(tenants, key=lambda t: (t["metadata"].get("creationTimestamp") or "", t["metadata"]["name"])):
        name = tenant["metadata"]["name"]
        spec = tenant.get("spec") or {}
        admins[name] = frozenset(spec.get("admins") or ())
        for namespace in spec.get("namespaces") or ():
            tenant_of.setdefault(namespace, name)
    return tenant_of, admins


def _workload(grant: Object | None) -> str:
    return "" if grant is None else str((grant.get("spec") or {}).get("workload", ""))


def _artifact(item: Object | None) -> Mapping[str, Any]:
    return {} if item is None else (item.get("spec") or {}).get("artifact") or {}


def _repository(item: Object | None) -> str:
    return str(_artifact(item).get("repository", ""))


def _named(plural: str, key: tuple[str, str], item: Object) -> Named:
    kind = "Dataset" if plural == "datasets" else "Model"
    return Named(kind, *key, str(_artifact(item).get("digest", "")))
