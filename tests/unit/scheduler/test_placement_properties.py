"""Laws of placement, on generated fleets of pods: nothing twice, nothing over quota, no matter the order of reading."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quay import HALF, SMALL, claim, classes, devices_of, node, pod, slices, tenant

from wharfinger.core.quantity import Quantity
from wharfinger.gpu import berths
from wharfinger.gpu.inventory import Features, Inventory
from wharfinger.gpu.quota import allowed, held, silicon
from wharfinger.local.scheduler.placement import Placement, State, decide

Object = dict[str, Any]
NUMA = {"matchAttribute": "resource.kubernetes.io/numaNode"}

asks = st.lists(
    st.tuples(
        st.sampled_from(["blue", "red"]),
        st.lists(
            st.tuples(st.sampled_from(["whole", "slice", "half"]), st.integers(1, 3), st.booleans()),
            min_size=1,
            max_size=2,
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=14,
)
"""Pods: tenant, claims (class, count, on one NUMA node), and whether it ends before the next one comes."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """The slices of the small fleet."""
    return slices(tmp_path_factory.mktemp("fleet"), SMALL.encode())


def state(published: list[Object], claims: dict[tuple[str, str], Object], dice: random.Random | None = None) -> State:
    """Return the state with these claims, every list of it in an order that `dice` makes."""
    kinds = {**classes(), "half": HALF}
    lists: list[list[Any]] = [
        list(published), [node("n1"), node("n2")], list(claims.items()), list(kinds.items()),
        [tenant("blue", memory="200Gi", slices=18, isolation="device"), tenant("red", memory="90Gi", slices=30)],
    ]  # fmt: skip
    for each in lists:
        if dice is not None:
            dice.shuffle(each)
    return State(
        nodes=lists[1], loads={}, claims=dict(lists[2]), inventory=Inventory(lists[0], Features(admin_access=False)),
        worth=silicon(lists[0]), classes=dict(lists[3]), tenants=lists[4],
    )  # fmt: skip


def check(published: list[Object], claims: dict[tuple[str, str], Object], s: State) -> None:
    """Fail where silicon is given twice or a quota is passed."""
    devices = devices_of(list(claims.values()))
    assert len(devices) == len(set(devices)), "a device twice"
    left: dict[tuple[str, str], int] = {}
    for each in published:
        for counters in each["spec"].get("sharedCounters", ()):
            for name, counter in counters["counters"].items():
                left[counters["name"], name] = Quantity.of_json(counter["value"]).scaled()
    for each in published:
        for device in each["spec"].get("devices", ()):
            if (each["spec"]["pool"]["name"], device["name"]) in devices:
                for consumed in device.get("consumesCounters", ()):
                    for name, counter in consumed["counters"].items():
                        left[consumed["counterSet"], name] -= Quantity.of_json(counter["value"]).scaled()
    assert all(amount >= 0 for amount in left.values()), "slices overlap"
    for t in s.tenants:
        mine = [c for (namespace, _), c in claims.items() if namespace in t["spec"]["namespaces"]]
        used, limit = held(mine, s.worth), allowed(t)
        assert used.memory <= limit.memory and used.compute_slices <= limit.compute_slices, "over quota"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pods=asks, seed=st.integers(0, 2**32))
def test_no_device_twice_no_overlap_no_quota_passed_whatever_comes(
    pods: list[Any], seed: int, published: list[Object]
) -> None:
    """After each pod of any sequence the laws hold, and the same state read in another order gives the same answer."""
    dice = random.Random(seed)
    claims: dict[tuple[str, str], Object] = {}
    for number, (tenant_name, wanted, ends) in enumerate(pods):
        names = []
        for i, (kind, count, together) in enumerate(wanted):
            made = claim(tenant_name, f"c{number}-{i}", kind, count)
            if together:
                made["spec"]["devices"]["constraints"] = [NUMA]
            claims[tenant_name, made["metadata"]["name"]] = made
            names.append(made["metadata"]["name"])
        p = pod(tenant_name, f"p{number}", *names)
        p["metadata"]["uid"] = f"uid-{number}"
        s = state(published, claims)
        decision = decide(s, p)
        assert decision == decide(state(published, claims, dice), p), "the order of reading decided"
        if isinstance(decision, Placement):
            assert set(decision.allocations) == set(names), "not all of its claims"
            for name, result in decision.allocations.items():
                claims[tenant_name, name] = {**claims[tenant_name, name], "status": {"allocation": result}}
                pools = {r["pool"] for r in result["devices"]["results"]}
                assert pools == {decision.node}
            check(published, claims, s)
            if ends:
                for name in names:
                    del claims[tenant_name, name]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pods=asks)
def test_the_last_word_on_berths_agrees_with_the_scheduler(pods: list[Any], published: list[Object]) -> None:
    """What the scheduler gives is never refused when it is written; what is given twice, or over quota, always is."""
    claims: dict[tuple[str, str], Object] = {}
    for number, (tenant_name, wanted, _) in enumerate(pods):
        kind, count, _ = wanted[0]
        bare = claim(tenant_name, f"c{number}", kind, count)
        p = pod(tenant_name, f"p{number}", f"c{number}")
        p["metadata"]["uid"] = f"uid-{number}"
        s = state(published, {**claims, (tenant_name, f"c{number}"): bare})
        decision = decide(s, p)
        if not isinstance(decision, Placement):
            continue
        got = {**bare, "status": {"allocation": decision.allocations[f"c{number}"]}}
        assert berths.gains(got, bare)
        assert berths.refusal(got, claims.values(), published, s.tenants) == ""
        twice = {**got, "metadata": {**got["metadata"], "name": "twice"}}
        assert "is another claim's" in berths.refusal(twice, [*claims.values(), got], published, s.tenants)
        poor = [tenant(tenant_name, memory="1Mi", slices=70)]
        assert f"tenant {tenant_name}: quota memory 1Mi" in berths.refusal(got, claims.values(), published, poor)
        claims[tenant_name, f"c{number}"] = got


def test_an_overlapping_slice_is_refused_when_it_is_written(published: list[Object]) -> None:
    """Two slices with different names over one part of a GPU are one berth."""

    def has(name: str, device: str) -> Object:
        result = {"request": "gpu", "driver": "gpu.wharfinger.io", "pool": "n2", "device": device}
        return {**claim("blue", name, "slice"), "status": {"allocation": {"devices": {"results": [result]}}}}

    small, large = has("a", "gpu-0-mig-1g5gb-5"), has("b", "gpu-0-mig-3g20gb-4")
    told = berths.refusal(large, [small, large], published, [tenant("blue")])
    assert told == "memory-slice-5 of gpu-0-counters in pool gpu.wharfinger.io/n2 is another claim's"
    assert not berths.refusal(has("b", "gpu-0-mig-3g20gb-0"), [small], published, [tenant("blue")])
    assert not berths.gains(small, small)
    assert "belongs to no tenant" in berths.refusal(small, [], published, [])


@pytest.mark.parametrize("count", [1, 31, 32])
def test_a_hard_puzzle_is_answered_with_bounded_work(count: int, tmp_path: Path) -> None:
    """Claims whose constraint can never be met are given up or refused, after a bounded number of devices tried."""
    fleet = "apiVersion: wharfinger.io/v1alpha1\nkind: Fleet\nnodes:\n- name: n1\n  numaNodes: 16\n  gpus:\n"
    everything = slices(tmp_path, (fleet + "  - {product: H100-80GB, count: 16, mig: true}\n").encode())
    s = replace(state(everything, {}), nodes=[node("n1")], tenants=[tenant("blue", memory="9Ti", slices=999)])
    c = claim("blue", "c", "slice", count)
    c["spec"]["devices"]["requests"] = [
        {**c["spec"]["devices"]["requests"][0], "name": f"r{i}"} for i in range(32 // count)
    ]
    c["spec"]["devices"]["constraints"] = [NUMA, {"matchAttribute": "gpu.wharfinger.io/profile"}]
    p = pod("blue", "p", "c")
    p["metadata"]["uid"] = "uid"
    decision = decide(replace(s, claims={("blue", "c"): c}), p)
    assert not isinstance(decision, Placement), "32 slices of one GPU"
