"""ResourceSlices of what a driver found, profiles over them, and what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from quay import SMALL, claim, classes, found, node, profile, slices, tenant

from wharfinger.core.errors import Invalid
from wharfinger.gpu.allocation import Unfit, allocate
from wharfinger.gpu.inventory import Inventory
from wharfinger.gpu.isolation import forbidden
from wharfinger.gpu.profiles import claim_spec, device_class, matching
from wharfinger.gpu.quota import Amount, admit, allowed, amount_of, held, silicon
from wharfinger.gpu.slices import republished, semantic
from wharfinger.kinds.builtin.devices import RESOURCE_SLICE

NODES = [node("h100-a"), node("h100-b"), node("a100-a")]


def allocated(c: dict[str, Any], *devices: tuple[str, str]) -> dict[str, Any]:
    """Return a claim that holds devices (pool, name)."""
    results = [{"request": "gpu", "driver": "gpu.wharfinger.io", "pool": p, "device": d} for p, d in devices]
    return {**c, "status": {"allocation": {"devices": {"results": results}}}}


def test_a_whole_gpu_says_what_nvidias_driver_says_of_it(tmp_path: Path) -> None:
    """UUID, product, architecture, versions, PCIe root and NUMA node stand under the names that selectors use."""
    first = slices(tmp_path)[0]["spec"]["devices"][0]
    attributes = first["attributes"]
    assert attributes["uuid"]["string"].startswith("GPU-")
    assert attributes["productName"] == {"string": "NVIDIA H100 80GB HBM3"}
    assert attributes["cudaComputeCapability"] == {"version": "9.0.0"}
    assert attributes["driverVersion"] == {"version": "580.95.5"}
    assert attributes["resource.kubernetes.io/pcieRoot"] == {"string": "pci0000:10"}
    assert attributes["resource.kubernetes.io/numaNode"] == {"int": 0}
    assert first["capacity"]["memory"]["value"] == "81559Mi"


def test_a_partition_draws_on_its_gpus_counters(tmp_path: Path) -> None:
    """Each slice names its parent, its place and profile, and consumes what the pool publishes as shared."""
    made = slices(tmp_path, SMALL.encode())
    partition = next(d for s in made for d in s["spec"].get("devices", ()) if d["name"] == "gpu-0-mig-3g20gb-4")
    assert partition["attributes"]["profile"] == {"string": "3g.20gb"}
    assert partition["attributes"]["placementStart"] == {"int": 4}
    assert partition["capacity"]["copyEngines"] == {"value": "3"}
    (consumed,) = partition["consumesCounters"]
    assert {f"memory-slice-{i}" for i in (4, 5, 6, 7)} <= set(consumed["counters"])
    published = {c["name"] for s in made for c in s["spec"].get("sharedCounters", ())}
    assert consumed["counterSet"] in published


def test_slices_keep_to_the_limits_of_the_api(tmp_path: Path) -> None:
    """At most 64 devices that consume counters and 8 counter sets a slice, and every slice of a pool counts them all."""
    for made in (slices(tmp_path / "a"), slices(tmp_path / "b", SMALL.encode())):
        pools: dict[str, list[Any]] = {}
        for s in made:
            pools.setdefault(s["spec"]["pool"]["name"], []).append(s)
            assert len(s["spec"].get("devices", ())) <= 64
            assert len(s["spec"].get("sharedCounters", ())) <= 8
            assert (s["apiVersion"], s["kind"]) == (RESOURCE_SLICE.api_version, RESOURCE_SLICE.name)
        assert all(s["spec"]["pool"]["resourceSliceCount"] == len(pool) for pool in pools.values() for s in pool)


def test_what_is_published_already_is_left_alone(tmp_path: Path) -> None:
    """A second start changes nothing; another hardware is published whole, as a newer generation."""
    devices = found(tmp_path, SMALL.encode())["n2"]
    first, gone = republished("n2", devices, [])
    assert len(first) == 3 and not gone
    assert republished("n2", devices, first) == ([], [])
    fewer = [device for device in devices if device.index == 0]
    second, gone = republished("n2", fewer, first)
    assert {s["spec"]["pool"]["generation"] for s in second} == {2}
    assert gone == ["n2-partitions-001-0"]
    assert republished("n2", [], first)[1] == sorted(s["metadata"]["name"] for s in first)


def test_small_slices_are_taken_from_the_far_end(tmp_path: Path) -> None:
    """The first small slice leaves the place of the largest half free."""
    inventory = Inventory(slices(tmp_path, SMALL.encode()))
    got = allocate(inventory, classes(), node("n2"), [claim("blue", "c", "slice")], set())
    assert not isinstance(got, Unfit)
    assert got[0]["devices"]["results"][0]["device"] == "gpu-0-mig-1g5gb-6"


@pytest.mark.parametrize(
    ("version", "meant"), [("580.95.05", "580.95.5"), ("13.0", "13.0.0"), ("", "0.0.0"), ("1.2.3.4", "0.0.0")]
)
def test_a_vendors_version_becomes_a_semantic_one(version: str, meant: str) -> None:
    """Selectors compare versions, so each is one."""
    assert semantic(version) == meant


def test_a_profile_fits_what_it_asks_for(tmp_path: Path) -> None:
    """Memory, compute, sharing and a selector of the profile choose devices; the count is of the whole fleet."""
    inventory = Inventory(slices(tmp_path))
    assert matching(profile("p", "60Gi"), inventory, NODES) == 4
    assert matching(profile("p", "39Gi"), inventory, NODES) == 10
    assert matching(profile("p", "39Gi", "Partition", computeSlices=4), inventory, NODES) == 10
    ampere = profile("p", "1Gi", selector='device.attributes["gpu.wharfinger.io"].architecture == "Ampere"')
    assert matching(ampere, inventory, NODES) == 6


def test_a_profile_that_cannot_be_read_is_refused() -> None:
    """A selector that does not compile, and memory that is no quantity, are errors before a class is made."""
    with pytest.raises(Invalid, match="does not compile"):
        device_class(profile("p", "1Gi", selector="device.attributes["))
    with pytest.raises(Invalid, match=r"spec\.memory"):
        device_class(profile("p", "much"))


def test_a_profile_with_topology_becomes_a_constraint() -> None:
    """Several devices on one NUMA node are a matchAttribute constraint, one device is none."""
    two = claim_spec(profile("p", "1Gi", count=2, topology={"sameNumaNode": True}))["devices"]
    assert two["constraints"] == [{"requests": ["gpu"], "matchAttribute": "resource.kubernetes.io/numaNode"}]
    assert "constraints" not in claim_spec(profile("p", "1Gi", topology={"sameNumaNode": True}))["devices"]


def test_a_slice_is_not_a_whole_gpu(tmp_path: Path) -> None:
    """A 1g slice counts its own memory and one compute slice, a GPU all of its memory and seven."""
    worth = silicon(slices(tmp_path, SMALL.encode()))
    small, whole = ("gpu.wharfinger.io", "n2", "gpu-0-mig-1g5gb-6"), ("gpu.wharfinger.io", "n1", "gpu-0")
    assert amount_of([small], worth) == Amount(4864 * 2**20, 1)
    assert amount_of([whole], worth) == Amount(81559 * 2**20, 7)
    gone = ("gpu.wharfinger.io", "n9", "gpu-0")
    assert amount_of([gone], worth) == Amount(81559 * 2**20, 7), "silicon that is not published counts as the largest"


def test_the_refusal_of_a_quota_has_all_three_figures(tmp_path: Path) -> None:
    """Quota, use and ask stand in the message; what could never fit is said to be so."""
    worth = silicon(slices(tmp_path, SMALL.encode()))
    used = held([allocated(claim("blue", "c", "whole"), ("n1", "gpu-0"))], worth)
    limit = allowed(tenant("blue", memory="100Gi", slices=20))
    assert str(admit(used, Amount(40 * 2**30, 7), limit)) == "quota memory 100Gi, in use 81559Mi, asks 40Gi"
    assert str(admit(Amount(), Amount(0, 21), limit)) == (
        "quota compute slices 20, in use 0, asks 21: more than the quota alone"
    )
    assert admit(used, Amount(20 * 2**30, 13), limit) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "barred"),
    [("slice", "slice", 0), ("device", "slice", 25), ("slice", "device", 25), ("node", "slice", 50)],
)
def test_the_stricter_demand_of_two_tenants_holds(mine: str, theirs: str, barred: int, tmp_path: Path) -> None:
    """Whoever asks first, a tenant's distance from others keeps devices from both."""
    worth = silicon(slices(tmp_path, SMALL.encode()))
    holders = [(("gpu.wharfinger.io", "n2", "gpu-0-mig-1g5gb-6"), "red")]
    kept = forbidden("blue", {"blue": mine, "red": theirs}, holders, worth)
    assert len(kept) == barred
    assert not forbidden("red", {"blue": mine, "red": theirs}, holders, worth)
