"""Authorization at the API: who is kept from what."""

from __future__ import annotations

import pytest

from wharfinger.kinds.registry import KINDS
from wharfinger.policy.authorization import READ, WRITE, Attempt, Tenancy, authorize

TD = "spiffe://wharfinger.local"
TENANCY = Tenancy({"red-ml": "red", "blue-ml": "blue"}, {"red": frozenset({"ada"}), "blue": frozenset({"bob"})})
ADMIN, MEMBER, STRANGER = f"{TD}/tenant/red/user/ada", f"{TD}/tenant/red/user/eve", f"{TD}/tenant/blue/user/bob"
WORKLOAD = f"{TD}/ns/red-ml/sa/chat"
EVERY_VERB = sorted(READ | WRITE)


def may(
    who: str | None, verb: str, resource: str, namespace: str = "red-ml", name: str = "x", subresource: str = ""
) -> bool:
    """Ask for one attempt."""
    return authorize(who, Attempt(verb, "wharfinger.io", resource, subresource, namespace, name), TENANCY).allowed


@pytest.mark.parametrize(
    "who", [ADMIN, MEMBER, STRANGER, WORKLOAD, f"{TD}/wharfinger/admin", f"{TD}/wharfinger/gateway"]
)
@pytest.mark.parametrize("verb", ["create", "update", "patch"])
def test_only_the_control_plane_writes_grants(who: str, verb: str) -> None:
    """Neither a tenant's admin nor the local one writes a Grant."""
    assert not may(who, verb, "grants")
    assert may(f"{TD}/wharfinger/control", verb, "grants")


@pytest.mark.parametrize("kind", [k.plural for k in KINDS])
def test_no_person_writes_a_status(kind: str) -> None:
    """A status is what the control plane saw, whoever would like it otherwise."""
    for who in (ADMIN, MEMBER, STRANGER, WORKLOAD, f"{TD}/wharfinger/admin"):
        for verb in ("update", "patch"):
            assert not may(who, verb, kind, subresource="status")


@pytest.mark.parametrize("verb", EVERY_VERB)
@pytest.mark.parametrize("kind", ["models", "inferenceservices", "secrets", "pods", "grants", "configmaps"])
def test_another_tenant_sees_and_changes_nothing(kind: str, verb: str) -> None:
    """People have no part in a namespace that is not their tenant's, nor in none's, nor in all at once."""
    assert not may(STRANGER, verb, kind)
    assert not may(ADMIN, verb, kind, namespace="default")
    assert not may(ADMIN, verb, kind, namespace="")


def test_people_see_their_own_tenant_alone() -> None:
    """A tenant's people get their Tenant and namespaces by name and list none."""
    assert may(MEMBER, "get", "tenants", "", "red")
    assert not may(MEMBER, "get", "tenants", "", "blue")
    assert not may(MEMBER, "list", "tenants", "", "")
    assert not may(ADMIN, "patch", "tenants", "", "red")
    assert may(MEMBER, "get", "namespaces", "", "red-ml")
    assert not may(MEMBER, "get", "namespaces", "", "blue-ml")


def test_secrets_are_the_admins() -> None:
    """A member reads no secret, an admin of the tenant does, the console never."""
    assert not may(MEMBER, "get", "secrets")
    assert may(ADMIN, "get", "secrets")
    assert not may(f"{TD}/wharfinger/console", "list", "secrets", "")


@pytest.mark.parametrize("part", ["node", "registry", "gateway", "console", "issuer", "nobody"])
def test_a_part_has_its_duty_and_no_more(part: str) -> None:
    """No part but control writes what decides: tenants, policies, grants, services, roles."""
    who = f"{TD}/wharfinger/{part}"
    for kind in ("tenants", "trustpolicies", "accesspolicies", "inferenceservices", "grants", "models", "datasets"):
        for verb in WRITE:
            assert not may(who, verb, kind)


def test_a_workload_reads_the_grants_of_its_namespace_and_nothing_else() -> None:
    """A runtime sees its own grants; not the pods, not another namespace's."""
    assert may(WORKLOAD, "list", "grants")
    assert not may(WORKLOAD, "list", "grants", "blue-ml")
    for kind in ("pods", "secrets", "models", "tenants"):
        assert not may(WORKLOAD, "list", kind)


@pytest.mark.parametrize(
    "who",
    [
        None,
        "",
        "spiffe://",
        f"{TD}",
        f"{TD}/",
        f"{TD}/wharfinger",
        f"{TD}/wharfinger/control/x",
        f"{TD}/tenant/red/user/ada/x",
        f"{TD}/ns/red-ml/sa/chat/..",
        "spiffe:///wharfinger",
    ],
)
def test_an_identity_without_a_place_may_nothing(who: str | None) -> None:
    """No id and odd ids are refused everything that is somebody's."""
    for verb in EVERY_VERB:
        assert not may(who, verb, "models")
