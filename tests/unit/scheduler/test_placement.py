"""Placement: where pods go, what their claims get, and why some wait."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from quay import SMALL, classes, devices_of, node, pod, slices, tenant
from quay import claim as bare_claim

from wharfinger.gpu.inventory import Features, Inventory
from wharfinger.gpu.quota import silicon
from wharfinger.local.scheduler.nodefit import Load, loads, obstacle
from wharfinger.local.scheduler.placement import Placement, State, Waiting, decide

Object = dict[str, Any]


def claim(name: str, device_class: str = "whole", count: int = 1, namespace: str = "blue", **more: Any) -> Object:
    """Return a claim of the tenant blue."""
    return bare_claim(namespace, name, device_class, count, **more)


def numbered(p: Object) -> Object:
    """Return a pod with a UID."""
    return {**p, "metadata": {**p["metadata"], "uid": f"uid-{p['metadata']['name']}"}}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """The slices of a fleet of two nodes: n1 has 4 GPUs on two NUMA nodes, n2 has 2 GPUs that are cut."""
    return slices(tmp_path_factory.mktemp("fleet"), SMALL.encode())


def state(published: list[Object], *claims: Object, **changes: Any) -> State:
    """Return a state of the small fleet with these claims."""
    told: dict[str, Any] = {
        "nodes": [node("n1"), node("n2")],
        "loads": {},
        "claims": {(c["metadata"]["namespace"], c["metadata"]["name"]): c for c in claims},
        "inventory": Inventory(published, Features(admin_access=False)),
        "worth": silicon(published),
        "classes": classes(),
        "tenants": [tenant("blue"), tenant("red")],
    }
    return State(**{**told, **changes})


def given(c: Object, placement: Placement, holder: str = "") -> Object:
    """Return a claim with what a placement gave it."""
    status: Object = {"allocation": placement.allocations[c["metadata"]["name"]]}
    if holder:
        status["reservedFor"] = [{"resource": "pods", "name": holder, "uid": f"uid-{holder}"}]
    return {**c, "status": status}


def placed(s: State, p: Object) -> Placement:
    """Return the placement of a pod that fits."""
    made = decide(s, numbered(p))
    assert isinstance(made, Placement), made
    return made


def waits(s: State, p: Object) -> Waiting:
    """Return why a pod waits."""
    made = decide(s, numbered(p))
    assert isinstance(made, Waiting), made
    return made


def test_a_pod_goes_where_its_claims_fit(small: list[Object]) -> None:
    """Every claim gets its devices on the node of the pod, and is to be reserved for it."""
    made = placed(state(small, claim("a", count=2), claim("b")), pod("blue", "p", "a", "b"))
    assert made.node == "n1" and made.reserve == ("a", "b")
    got = [(r["pool"], r["device"]) for a in made.allocations.values() for r in a["devices"]["results"]]
    assert got == [("n1", "gpu-0"), ("n1", "gpu-1"), ("n1", "gpu-2")]


def test_all_claims_of_a_pod_or_none(small: list[Object]) -> None:
    """One claim that does not fit keeps the pod's other claims from getting anything."""
    told = waits(state(small, claim("a"), claim("b", count=4)), pod("blue", "p", "a", "b"))
    assert "node n1: each request fits alone, but not all of them together" in told.message


def test_a_pod_that_fits_nowhere_is_told_why_for_each_node(small: list[Object]) -> None:
    """The message counts what would fit, what matches and what is in the way."""
    first = placed(state(small, claim("a", count=2)), pod("blue", "p", "a"))
    told = waits(state(small, given(claim("a", count=2), first), claim("b", count=4)), pod("blue", "q", "b"))
    assert told.message == (
        "0 of 2 nodes fit; node n1: gpu: 2 of 4 fit; 4 match, 2 in use; node n2: gpu: none of 50 devices matches"
    )


def test_devices_that_must_share_a_numa_node_say_how_many_do(small: list[Object]) -> None:
    """Enough free devices on different NUMA nodes are not enough, and the message says what is missing."""
    c = claim("a", count=3)
    c["spec"]["devices"]["constraints"] = [{"matchAttribute": "resource.kubernetes.io/numaNode"}]
    told = waits(state(small, c), pod("blue", "p", "a"))
    assert "node n1: gpu: 2 of 3 fit; missing: same numaNode" in told.message


def test_a_quota_is_told_with_its_figures(small: list[Object]) -> None:
    """Over quota, a pod waits although devices are free, and its message names the tenant and the amounts."""
    tenants = [tenant("blue", memory="160Gi", slices=70)]
    first = placed(state(small, claim("a")), pod("blue", "p", "a"))
    held = given(claim("a"), first)
    told = waits(state(small, held, claim("b", count=2), tenants=tenants), pod("blue", "q", "b"))
    assert told.message == "tenant blue: quota memory 160Gi, in use 81559Mi, asks 163118Mi"
    few = [tenant("blue", slices=6)]
    assert "quota compute slices 6, in use 0, asks 7: more than the quota alone" in (
        waits(state(small, claim("b"), tenants=few), pod("blue", "q", "b")).message
    )


def test_a_namespace_of_no_tenant_has_no_devices(small: list[Object]) -> None:
    """Quota is a tenant's: without one there are pods, not devices."""
    s = state(small, claim("a", namespace="green"), tenants=[])
    assert "belongs to no tenant" in waits(s, pod("green", "p", "a")).message
    assert placed(s, pod("green", "p")).node == "n1"


def test_slices_that_overlap_are_never_both_given(small: list[Object]) -> None:
    """Once every seventh of both GPUs is given, the next slice waits."""
    claims: list[Object] = []
    for number in range(14):
        c = claim(f"c{number}", "slice")
        claims.append(given(c, placed(state(small, *claims, c), pod("blue", f"p{number}", f"c{number}"))))
    assert len(set(devices_of(claims))) == 14
    told = waits(state(small, *claims, claim("one", "slice")), pod("blue", "p", "one"))
    assert "14 in use, 36 overlapping one in use" in told.message


def test_a_tenant_that_wants_a_gpu_to_itself_is_not_put_beside_another(small: list[Object]) -> None:
    """The neighbour's GPU is barred, and the reason does not name the neighbour."""
    tenants = [tenant("blue", isolation="device"), tenant("red")]
    first = placed(state(small, claim("r", "slice", namespace="red")), pod("red", "p", "r"))
    theirs = given(claim("r", "slice", namespace="red"), first)
    made = placed(state(small, theirs, claim("b", "slice"), tenants=tenants), pod("blue", "q", "b"))
    gpus = [theirs, given(claim("b", "slice"), made)]
    assert len({device.rpartition("-mig")[0] for _, device in devices_of(gpus)}) == 2
    apart = [tenant("blue", isolation="node"), tenant("red")]
    told = waits(state(small, theirs, claim("b", "slice"), tenants=apart), pod("blue", "q", "b"))
    assert "not allowed: another tenant is on the node" in told.message and "red" not in told.message


def test_a_claim_that_is_allocated_keeps_its_pods_on_its_node(small: list[Object]) -> None:
    """A second pod of one claim goes where the claim's devices are, and is added to who may use it."""
    held = given(claim("a"), placed(state(small, claim("a")), pod("blue", "p", "a")), "p")
    made = placed(state(small, held), pod("blue", "q", "a"))
    assert (made.node, dict(made.allocations), made.reserve) == ("n1", {}, ("a",))
    assert placed(state(small, held), pod("blue", "p", "a")).reserve == ()
    told = waits(state(small, held), pod("blue", "q", "a", nodeSelector={"kubernetes.io/hostname": "n2"}))
    assert "node n2: ResourceClaim a is allocated elsewhere" in told.message and told.release == ()


def test_what_was_allocated_in_vain_is_freed(small: list[Object]) -> None:
    """A pod whose first claim sits where its second cannot be gives the first back, unless others use it."""
    first = placed(state(small, claim("a")), pod("blue", "p", "a"))
    held = given(claim("a"), first, "p")
    told = waits(state(small, held, claim("b", "slice")), pod("blue", "p", "a", "b"))
    assert told.release == ("a",)
    held["status"]["reservedFor"].append({"resource": "pods", "name": "other", "uid": "uid-other"})
    assert waits(state(small, held, claim("b", "slice")), pod("blue", "p", "a", "b")).release == ()


def made_by_template(p: Object, told: str | None) -> Object:
    """Return a pod whose claim comes from a template; `told` is the claim's name in its status."""
    p["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": "t"}]
    if told is not None:
        p["status"] = {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": told}]}
    return p


def test_a_claim_that_is_not_there_or_not_the_pods_is_named(small: list[Object]) -> None:
    """A missing, foreign or deleted claim keeps the pod waiting with its name."""
    s = state(
        small, claim("a"), {**claim("d"), "metadata": {"name": "d", "namespace": "blue", "deletionTimestamp": "x"}}
    )
    early = waits(s, made_by_template(pod("blue", "p"), None))
    assert (early.message, early.passing) == ("waits for the making of its claim gpu from template t", True)
    assert "there is no ResourceClaim x" in waits(s, made_by_template(pod("blue", "p"), "x")).message
    assert "a was not made for this pod" in waits(s, made_by_template(pod("blue", "p"), "a")).message
    assert "there is no ResourceClaim z" in waits(s, pod("blue", "p", "z")).message
    assert "d is being deleted" in waits(s, pod("blue", "p", "d")).message


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"count": 2**63}, "expected at most 32 devices in a claim"),
        ({"count": 33}, "expected at most 32 devices in a claim"),
        ({"selectors": [{"cel": {"expression": "device.nothing"}}]}, "does not compile"),
        ({"selectors": [{"cel": {"expression": 'device.attributes["x"].y == 1'}}]}, "request gpu on device"),
        ({"selectors": [{"cel": {"expression": "[1,2,3].all(a, [1,2,3].all(b, " * 8 + "true" + "))" * 8}}]}, "CEL"),
        ({"adminAccess": True}, "admin access is not allowed here"),
        ({"deviceClassName": "none"}, "there is no DeviceClass"),
        ({"allocationMode": "Some"}, "ExactCount or All"),
    ],
)
def test_a_hostile_claim_is_refused_in_words(more: Object, words: str, small: list[Object]) -> None:
    """Counts beyond reason, selectors that err or cost too much, and access to others' devices keep only their pod."""
    c = claim("a")
    c["spec"]["devices"]["requests"][0]["exactly"] |= more
    assert words in waits(state(small, c), pod("blue", "p", "a")).message


def test_selectors_that_are_dear_in_sum_are_refused(small: list[Object]) -> None:
    """Selectors of which each is cheap enough, but not all of them on all devices, keep their pod waiting in words."""
    c, numbers = claim("a", "slice"), list(range(200))
    dear = [{"cel": {"expression": f"{numbers}.all(n, n >= 0) && {i} < 31"}} for i in range(32)]
    c["spec"]["devices"]["requests"][0]["exactly"]["selectors"] = dear
    assert "units of work" in waits(state(small, c), pod("blue", "p", "a", nodeSelector={})).message


def test_a_pod_goes_where_it_takes_the_least(small: list[Object], tmp_path: Path) -> None:
    """Of a GPU of 40 GB and one of 80, a claim that either answers gets the smaller."""
    everything = slices(tmp_path)
    nodes = [node("h100-a"), node("h100-b"), node("a100-a")]
    s = state(everything, claim("a"), nodes=nodes)
    assert placed(s, pod("blue", "p", "a")).node == "a100-a"


def test_nodes_that_cannot_run_a_pod_say_so() -> None:
    """Readiness, cordon, taints, labels, affinity and room each have their words."""
    p = pod("blue", "p", nodeSelector={"zone": "east"})
    assert obstacle(p, node("n"), Load()) == "it lacks label zone=east"
    p = pod("blue", "p")
    down = node("n")
    down["status"]["conditions"][0]["status"] = "Unknown"
    assert obstacle(p, down, Load()) == "it is not ready"
    assert obstacle(p, node("n", unschedulable=True), Load()) == "it is cordoned"
    tainted = node("n", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    assert obstacle(p, tainted, Load()) == "it has taint gpu"
    for toleration in ({"operator": "Exists"}, {"key": "gpu", "value": "yes"}):
        assert not obstacle(pod("blue", "p", tolerations=[toleration]), tainted, Load())
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["m"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    assert (
        obstacle(pod("blue", "p", affinity=affinity), node("n"), Load()) == "it does not match the pod's node affinity"
    )


def asking(cpu: str, node_name: str = "") -> Object:
    """Return a pod that asks for processors, and may be bound."""
    p = pod("blue", "p", **({"nodeName": node_name} if node_name else {}))
    p["spec"]["containers"][0]["resources"] = {"requests": {"cpu": cpu}}
    return p


def test_a_node_holds_no_more_than_it_has() -> None:
    """Requests of the pods there count until they are over."""
    n = node("n")
    n["status"]["allocatable"] = {"cpu": "4", "memory": "8Gi", "pods": "3"}

    def full(there: Iterable[Object]) -> str:
        return obstacle(asking("1500m"), n, loads(there).get("n", Load()))

    assert full([asking("2500m", "n")]) == ""
    assert full([asking("2600m", "n")]) == "too little cpu is left"
    assert full([asking("0", "n")] * 3) == "too little pods is left"
    over = {**asking("2600m", "n"), "status": {"phase": "Succeeded"}}
    assert full([over]) == ""
