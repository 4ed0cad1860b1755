"""Authorization at the API: who may do which verb on which resource.

Fixed rules, not objects: the platform's parts each have what their duty needs, people have their tenant's
namespaces, workloads read their own grants. Nobody but the control plane writes a Grant or a status.
In a cluster the same rules are rendered as RBAC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wharfinger.policy.decision import Verdict

READ = frozenset({"get", "list", "watch"})
WRITE = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_SELF = frozenset({"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"})

_ADMIN_ONLY = frozenset({"secrets", "serviceaccounts"})
_TENANT_OWNED = frozenset(
    {
        "configmaps", "datasets", "deployments", "events", "grants", "inferencepolicies",
        "inferenceservices", "jobs", "leases", "models", "pipelineruns", "pods", "resourceclaims",
        "resourceclaimtemplates", "secrets", "serviceaccounts", "services",
    }
)  # fmt: skip
_PUBLIC = frozenset({"accesspolicies", "deviceclasses", "gpuprofiles", "trustpolicies"})

_PARTS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "node": {
        **dict.fromkeys(
            ("pods", "grants", "resourceclaims", "deviceclasses", "secrets", "configmaps", "serviceaccounts", "nodes",
             "resourceslices", "tenants", "services", "namespaces"), READ,
        ),
        **dict.fromkeys(("nodes", "nodes/status", "resourceslices", "pods/status", "resourceclaims/status", "leases",
                         "events"), READ | WRITE),
        # A pod that has ended is the node's to let go.
        "pods": READ | {"delete"},
    },
    "registry": {
        **dict.fromkeys(("grants", "tenants", "accesspolicies", "datasets", "models", "inferenceservices", "namespaces",
                         "pipelineruns"), READ),
        "events": READ | WRITE,
    },
    "gateway": {
        **dict.fromkeys(("grants", "tenants", "accesspolicies", "inferenceservices", "inferencepolicies", "models",
                         "namespaces", "pods", "secrets"), READ),
        "events": READ | WRITE,
    },
    "console": dict.fromkeys(sorted((_TENANT_OWNED - _ADMIN_ONLY) | _PUBLIC | {
        "nodes", "tenants", "namespaces", "resourceslices", "deviceclasses",
    }), READ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tenancy:
    """Which namespace is which tenant's, and who its admins are."""

    tenant_of: Mapping[str, str] = field(default_factory=dict)
    admins: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One API request: `resource` plural, `subresource` or empty, `namespace` empty when cluster-wide."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def target(self) -> str:
        """`resource` or `resource/subresource`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def authorize(who: str | None, attempt: Attempt, tenancy: Tenancy) -> Verdict:
    """Judge `attempt` by the caller with the SPIFFE ID `who`, None when nobody could be authenticated."""
    if who is None:
        return _no("an anonymous caller may do nothing", "identity")
    if attempt.resource in _SELF and attempt.verb == "create":
        return Verdict(True, "anyone may ask about themselves")
    path = who.removeprefix("spiffe://").split("/")[1:]
    match path:
        case ["wharfinger", part]:
            return _part(part, attempt)
        case ["tenant", tenant, "user", user]:
            return _person(tenant, user, attempt, tenancy)
        case ["ns", namespace, "sa", _]:
            return _workload(namespace, attempt)
        case _:
            return _no(f"{who} has no place in this API", "identity")


def _part(part: str, attempt: Attempt) -> Verdict:
    if part == "control":
        return Verdict(True, "the control plane")
    if part == "admin":
        if _is_control_planes(attempt):
            return _control_planes(attempt)
        return Verdict(True, "the local admin")
    verbs = _PARTS.get(part, {}).get(attempt.target, frozenset())
    if attempt.verb in verbs:
        return Verdict(True, f"the duty of {part}")
    return _no(f"{part} may not {attempt.verb} {attempt.target}", "verb")


def _person(tenant: str, user: str, attempt: Attempt, tenancy: Tenancy) -> Verdict:
    if attempt.resource in _PUBLIC and attempt.verb in READ:
        return Verdict(True, "everyone may read it")
    own = attempt.namespace != "" and tenancy.tenant_of.get(attempt.namespace) == tenant
    if attempt.resource == "tenants":
        if attempt.verb == "get" and attempt.name == tenant and not attempt.subresource:
            return Verdict(True, "a tenant's people may see their tenant")
        return _no(f"people of {tenant} may only get Tenant {tenant}", "namespace")
    if attempt.resource == "namespaces":
        if attempt.verb == "get" and tenancy.tenant_of.get(attempt.name) == tenant:
            return Verdict(True, "a tenant's people may see their namespaces")
        return _no(f"people of {tenant} may only get their own namespaces", "namespace")
    if not own:
        where = f"namespace {attempt.namespace}" if attempt.namespace else "the whole cluster"
        return _no(f"people of {tenant} have no part in {where}", "namespace")
    if _is_control_planes(attempt):
        return _control_planes(attempt)
    if attempt.resource not in _TENANT_OWNED:
        return _no(f"people of {tenant} may not {attempt.verb} {attempt.target}", "verb")
    if attempt.verb in READ and attempt.resource != "secrets":
        return Verdict(True, "in their own namespace")
    is_admin = user in tenancy.admins.get(tenant, frozenset())
    if (attempt.resource in _ADMIN_ONLY or attempt.resource == "grants") and not is_admin:
        return _no(f"only admins of {tenant} may {attempt.verb} {attempt.target}", "verb")
    return Verdict(True, "in their own namespace")


def _workload(namespace: str, attempt: Attempt) -> Verdict:
    if attempt.target == "grants" and attempt.verb in READ and attempt.namespace == namespace:
        return Verdict(True, "a workload may read the grants of its namespace")
    return _no(f"a workload may not {attempt.verb} {attempt.target}", "verb")


def _is_control_planes(attempt: Attempt) -> bool:
    writes = attempt.verb in WRITE
    grant_written = attempt.resource == "grants" and attempt.verb in {"create", "update", "patch"}
    return (writes and attempt.subresource == "status") or grant_written


def _control_planes(attempt: Attempt) -> Verdict:
    return _no(f"only the control plane may {attempt.verb} {attempt.target}", "verb")


def _no(reason: str, element: str) -> Verdict:
    return Verdict(False, reason, element)
