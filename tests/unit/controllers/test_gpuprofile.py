"""GPUProfiles become DeviceClasses, claims come from templates and go with their pods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from quay import node, profile, slices
from world import NOW, World

from wharfinger.controllers.gpuprofile import GPUProfileReconciler
from wharfinger.controllers.resourceclaim import ResourceClaimReconciler, claim_name
from wharfinger.controllers.world import Key
from wharfinger.kinds.condition import find


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The shipped fleet's nodes and devices."""
    return World(*(node(name) for name in ("h100-a", "h100-b", "a100-a")), *slices(tmp_path))


def ready(world: World, name: str) -> Any:
    """Return the Ready condition of a profile."""
    return find(world.must("gpuprofiles", "", name)["status"]["conditions"], "Ready")


def test_a_profile_becomes_a_class_of_its_name_and_counts_what_it_fits(world: World) -> None:
    """The class has the profile's selectors and goes with it; the status says which class, and how many devices."""
    world.put(profile("large", "60Gi"))
    world.settle(GPUProfileReconciler(world, world))
    made = world.must("deviceclasses", "", "large")
    assert any("60Gi" in s["cel"]["expression"] for s in made["spec"]["selectors"])
    status = world.must("gpuprofiles", "", "large")["status"]
    assert (status["deviceClass"], status["matching"]) == ("large", 4)
    assert ready(world, "large")["reason"] == "Ready"
    world.delete("gpuprofiles", "", "large")
    assert world.get("deviceclasses", "", "large") is None


def test_a_changed_profile_changes_its_class(world: World) -> None:
    """Class and count follow the profile; a profile that did not change is not written."""
    world.put(profile("p", "60Gi"))
    reconciler = GPUProfileReconciler(world, world)
    world.settle(reconciler)
    before = len(world.writes)
    reconciler.reconcile(Key("", "p"), NOW)
    assert len(world.writes) == before
    world.put(profile("p", "39Gi") | {"status": world.must("gpuprofiles", "", "p")["status"]})
    world.settle(reconciler)
    assert world.must("gpuprofiles", "", "p")["status"]["matching"] == 10
    assert any("39Gi" in s["cel"]["expression"] for s in world.must("deviceclasses", "", "p")["spec"]["selectors"])


def test_a_profile_that_cannot_work_says_why(world: World) -> None:
    """A selector that does not compile, a class that is somebody else's, and a profile that fits nothing."""
    world.put(profile("broken", "1Gi", selector="device.attributes["))
    world.put(profile("taken", "1Gi"))
    world.put({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "taken"}, "spec": {}})
    world.put(profile("huge", "9Ti"))
    world.settle(GPUProfileReconciler(world, world))
    assert (ready(world, "broken")["status"], ready(world, "broken")["reason"]) == ("False", "Invalid")
    assert "does not compile" in ready(world, "broken")["message"]
    assert world.get("deviceclasses", "", "broken") is None
    assert ready(world, "taken")["reason"] == "NameTaken"
    assert world.must("deviceclasses", "", "taken")["spec"] == {}
    assert (ready(world, "huge")["status"], ready(world, "huge")["reason"]) == ("True", "NothingMatches")


def test_a_pods_claims_are_made_named_and_owned_by_it(world: World) -> None:
    """One claim an entry, by template; its name stands in the pod's status; it goes with the pod."""
    template = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "t", "namespace": "blue"},
        "spec": {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "large"}}]}}},
    }
    entry = {"name": "gpu", "resourceClaimTemplateName": "t"}
    pod = world.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "blue"},
            "spec": {"containers": [], "resourceClaims": [entry]},
        }
    )
    reconciler = ResourceClaimReconciler(world, world)
    reconciler.reconcile(Key("blue", "p"), NOW)
    assert not world.list("resourceclaims"), "without its template there is no claim"
    world.put(template)
    world.settle(reconciler)
    name = claim_name(pod, "gpu")
    assert world.must("resourceclaims", "blue", name)["spec"] == template["spec"]["spec"]
    assert world.must("pods", "blue", "p")["status"]["resourceClaimStatuses"] == [
        {"name": "gpu", "resourceClaimName": name}
    ]
    world.delete("pods", "blue", "p")
    assert not world.list("resourceclaims")


def ended(world: World) -> None:
    """Have the pod end."""
    world.status("pods", "blue", "p", {"phase": "Succeeded"})


def deleted(world: World) -> None:
    """Have the pod deleted."""
    world.delete("pods", "blue", "p")


def replaced(world: World) -> None:
    """Have another pod of the same name there."""
    old = world.must("pods", "blue", "p")
    world.delete("pods", "blue", "p")
    world.put({**old, "metadata": {"name": "p", "namespace": "blue"}})


def test_a_pod_waits_for_a_template_that_is_not_there_yet(world: World) -> None:
    """No claim is named that nobody makes; once the template is there the pod is looked at again."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "team"},
        "spec": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "later"}]},
    }
    world.put(pod)
    reconciler = ResourceClaimReconciler(world, world)
    reconciler.reconcile(Key("team", "p"), NOW)
    assert not (world.must("pods", "team", "p").get("status") or {}).get("resourceClaimStatuses")
    template = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "later", "namespace": "team"},
        "spec": {"spec": {"devices": {"requests": [{"name": "gpu"}]}}},
    }
    world.put(template)
    assert list(reconciler.watches()["resourceclaimtemplates"](template)) == [Key("team", "p")]
    reconciler.reconcile(Key("team", "p"), NOW)
    (told,) = world.must("pods", "team", "p")["status"]["resourceClaimStatuses"]
    assert world.get("resourceclaims", "team", told["resourceClaimName"]) is not None


@pytest.mark.parametrize("over", [ended, deleted, replaced])
def test_a_claim_is_freed_when_its_pod_is_over(over: Callable[[World], None], world: World) -> None:
    """The last pod to go frees the devices; while another has the claim they stay."""
    for name in ("p", "q"):
        world.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "blue"}, "spec": {}})
    holders = [
        {"resource": "pods", "name": n, "uid": world.must("pods", "blue", n)["metadata"]["uid"]} for n in ("p", "q")
    ]
    claim = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "spec": {}}
    for name, held in (("shared", holders), ("alone", holders[:1])):
        status = {"allocation": {"devices": {"results": []}}, "reservedFor": held}
        world.put({**claim, "metadata": {"name": name, "namespace": "blue"}, "status": status})
    over(world)
    reconciler = ResourceClaimReconciler(world, world)
    keys = {key for c in world.list("resourceclaims") for key in reconciler.watches()["resourceclaims"](c)}
    for key in sorted(keys):
        reconciler.reconcile(key, NOW)
    shared = world.must("resourceclaims", "blue", "shared")["status"]
    assert [h["name"] for h in shared["reservedFor"]] == ["q"] and "allocation" in shared
    assert world.must("resourceclaims", "blue", "alone")["status"] == {}
