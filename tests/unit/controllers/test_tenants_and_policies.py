"""Tenants have their namespaces and say what they use; policies say whether they can be enforced; the loop goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest
from world import NOW, World

from wharfinger.bootstrap.control import deciders, used
from wharfinger.cluster.client import Event, Resource
from wharfinger.cluster.informer import Informers
from wharfinger.controllers.loop import Loop
from wharfinger.controllers.policies import PolicyReconciler
from wharfinger.controllers.tenant import TENANT_LABEL, TenantReconciler
from wharfinger.controllers.world import Key, on_spec, own
from wharfinger.core.clock import MINUTE, Instant, Span
from wharfinger.core.errors import Conflict, Unavailable
from wharfinger.core.systemclock import SystemClock
from wharfinger.kinds.condition import find
from wharfinger.policy.cel import ACCESS

API = "wharfinger.io/v1alpha1"


def tenant(*namespaces: str) -> dict[str, Any]:
    """Return the tenant research."""
    return {
        "apiVersion": API,
        "kind": "Tenant",
        "metadata": {"name": "research"},
        "spec": {"namespaces": list(namespaces)},
    }


def test_a_tenants_namespaces_are_made_and_marked() -> None:
    """Each namespace exists, bears the tenant's label and has a service account; the tenant is ready."""
    world = World(tenant("research", "lab"))
    world.settle(TenantReconciler(world, world, used, lambda *_: "0"))
    for name in ("research", "lab"):
        assert world.must("namespaces", "", name)["metadata"]["labels"][TENANT_LABEL] == "research"
        assert world.get("serviceaccounts", name, "default") is not None
    status = world.must("tenants", "", "research")["status"]
    assert find(status["conditions"], "Ready")["status"] == "True"  # type: ignore[index]
    assert status["used"]["computeSlices"] == 0


def test_a_namespace_on_its_way_out_is_waited_for() -> None:
    """It is not written to while it goes; the tenant says so, and has it again when it is gone."""
    world = World(tenant("research"))
    reconciler = TenantReconciler(world, world, used, lambda *_: "0")
    world.settle(reconciler)
    held = world.must("namespaces", "", "research")
    world.put({**held, "metadata": {**held["metadata"], "finalizers": ["kubernetes"]}})
    world.delete("namespaces", "", "research")
    world.settle(reconciler)
    found = find(world.must("tenants", "", "research")["status"]["conditions"], "Ready")
    assert found is not None
    assert found["reason"] == "NamespaceLeaving"
    world.patch("namespaces", "", "research", {"metadata": {"finalizers": None}})
    world.settle(reconciler)
    assert world.must("namespaces", "", "research")["metadata"]["labels"] == {TENANT_LABEL: "research"}


def test_passing_the_budget_is_a_condition_and_an_event() -> None:
    """Within it until a cent more is spent; told once; a new month begins anew."""
    world = World({**tenant("research"), "spec": {"namespaces": ["research"], "budget": {"monthly": "10"}}})
    spent = "10"
    reconciler = TenantReconciler(world, world, used, lambda *_: spent)
    told = []
    for amount in ("10", "10.01", "11", "0"):
        spent = amount
        assert reconciler.reconcile(Key("", "research"), world.clock.now()) == MINUTE
        world.settle(reconciler)
        found = find(world.must("tenants", "", "research")["status"]["conditions"], "WithinBudget")
        assert found is not None
        told.append(found["status"])
    assert told == ["True", "False", "False", "True"]
    assert [reason for _, reason, _ in world.events] == ["OverBudget", "WithinBudget"]


def test_what_claims_hold_is_counted() -> None:
    """A slice counts with its memory and its sevenths; claims of other tenants do not."""
    device = {
        "name": "mig-0",
        "attributes": {"uuid": {"string": "MIG-0"}, "computeSlices": {"int": 2}},
        "capacity": {"memory": {"value": "20Gi"}},
    }
    spec = {"driver": "gpu.wharfinger.io", "pool": {"name": "a"}, "devices": [device]}
    result = {"driver": "gpu.wharfinger.io", "pool": "a", "device": "mig-0", "request": "gpu"}
    world = World(tenant("research"))
    world.put({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "a"}, "spec": spec})
    for namespace in ("research", "support"):
        world.put(
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaim",
                "metadata": {"name": "c", "namespace": namespace},
                "spec": {},
                "status": {"allocation": {"devices": {"results": [result]}}},
            }
        )
    world.settle(TenantReconciler(world, world, used, lambda *_: "0"))
    assert world.must("tenants", "", "research")["status"]["used"] == {"memory": "20Gi", "computeSlices": 2}


@pytest.mark.parametrize(
    ("condition", "status", "reason"),
    [("", "True", "Enforced"), ("verb == 'call'", "True", "Enforced"), ("verb == 1 +", "False", "Invalid")],
)
def test_a_policy_says_whether_it_can_be_enforced(condition: str, status: str, reason: str) -> None:
    """A condition that does not compile is told in the policy's own status."""
    spec = {"identities": ["spiffe://x/y"], "verbs": ["call"], "condition": condition}
    world = World({"apiVersion": API, "kind": "AccessPolicy", "metadata": {"name": "p"}, "spec": spec})

    def check(told: Mapping[str, Any]) -> None:
        if told["condition"]:
            ACCESS.compile(told["condition"])

    world.settle(PolicyReconciler("accesspolicies", world, world, check))
    found = find(world.must("accesspolicies", "", "p")["status"]["conditions"], "Ready")
    assert found is not None
    assert (found["status"], found["reason"]) == (status, reason)


def test_a_change_of_status_alone_concerns_nobody() -> None:
    """Keys come for a new object, a changed spec and a deletion; not when only the status was written."""
    world = World(tenant("research"))
    keys = on_spec(world, "tenants", own)
    seen = [list(keys(world.must("tenants", "", "research")))]
    world.status("tenants", "", "research", {"used": {"computeSlices": 3}})
    seen.append(list(keys(world.must("tenants", "", "research"))))
    world.patch("tenants", "", "research", {"spec": {"weight": 2}})
    seen.append(list(keys(world.must("tenants", "", "research"))))
    last = world.must("tenants", "", "research")
    world.delete("tenants", "", "research")
    seen.append(list(keys(last)))
    assert [len(each) for each in seen] == [1, 0, 1, 1]


class Listed:
    """A source with one tenant, whose watch never says anything."""

    def __init__(self) -> None:
        self._end = threading.Event()

    def list(self, resource: Resource, namespace: str = "", *, limit: int = 0) -> dict[str, Any]:
        """Return the list."""
        item = {"metadata": {"name": "research", "resourceVersion": "1"}, "spec": {"namespaces": []}}
        return {"metadata": {"resourceVersion": "1"}, "items": [item]}

    def watch(
        self, resource: Resource, namespace: str = "", *, resource_version: str, on_open: Any = None
    ) -> Iterator[Event]:
        """Wait until the end."""
        self._end.wait()
        yield from ()

    def stop(self) -> None:
        """End every watch."""
        self._end.set()


class Counting:
    """A reconciler that fails in each of the given ways, then succeeds."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.done = threading.Event()
        self.keys: list[Key] = []

    kind = "tenants"

    def watches(self) -> Mapping[str, Callable[[Any], Iterable[Key]]]:
        """Return the tenants."""
        return {"tenants": own}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Fail as told, then be done."""
        self.keys.append(key)
        if self.failures:
            raise self.failures.pop(0)
        self.done.set()
        return None


def test_the_loop_goes_on_after_every_failure() -> None:
    """A conflict, an error of ours and a bug come back; two reconcilers of one kind each have their own key."""
    source = Listed()
    informers = Informers(source, [Resource("wharfinger.io", "v1alpha1", "tenants", "Tenant", False)])
    first = Counting(Conflict("changed"), Unavailable("gone"), ValueError("a bug"))
    second = Counting()
    loop = Loop(informers, [first, second], SystemClock(), workers=2)
    informers.start()
    loop.start()
    assert first.done.wait(20)
    assert second.done.wait(20)
    loop.stop()
    source.stop()
    informers.stop()
    assert first.keys == [Key("", "research")] * 4


def test_every_kind_of_ours_is_reconciled() -> None:
    """No kind without a controller: each is some reconciler's, among those that the process runs."""
    from wharfinger.bootstrap import control
    from wharfinger.controllers.dataset import DatasetReconciler
    from wharfinger.controllers.model import ModelReconciler
    from wharfinger.controllers.pipelinerun import PipelineRunReconciler
    from wharfinger.kinds.registry import KINDS

    world: Any = World()
    quick = deciders(world, world, None, "x", world.clock, world.ids, lambda *_: "0")  # type: ignore[arg-type]
    slow = {DatasetReconciler.kind, ModelReconciler.kind, PipelineRunReconciler.kind}
    assert {kind.plural for kind in KINDS} <= {r.kind for r in quick} | slow
    assert {plural for r in quick for plural in r.watches()} <= set(control.PLURALS)
    assert NOW > 0
