"""Kubernetes' own allocator cases, and 2,000 questions of ours that its allocator answers too."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dra_questions import ask_oracle, plain, question
from quay import HALF, SMALL, claim, classes, node, slices
from shared_material import rows

from wharfinger.core.errors import Invalid
from wharfinger.gpu.allocation import Unfit, allocate
from wharfinger.gpu.inventory import Features, Inventory

OFFERED = {
    "AdminAccess": "admin_access",
    "DeviceTaints": "device_taints",
    "PartitionableDevices": "partitionable_devices",
    "PrioritizedList": "prioritized_list",
}
NOT_OFFERED = {
    "CompatibilityGroups": "groups of partitions that may exist together: no vendor of ours has them",
    "ConsumableCapacity": "shares of one device: partitions are hardware slices here",
    "DerivedAttributes": "attributes computed from others wait for the full allocator",
    "DeviceBindingAndStatus": "devices that become ready after allocation: ours are local",
    "FractionalCapacityRange": "a part of ConsumableCapacity",
    "ListTypeAttributes": "attributes with several values wait for the full allocator",
    "OptionalNodeOperations": "drivers without a node part: ours have one",
}
"""A case that turns on one of these is left out, for this reason."""
CASES_IN_SCOPE, CASES_LEFT_OUT = 160, 119


def answer(case: dict[str, Any]) -> tuple[list[Any], bool]:
    """Return our results for a case, and whether we refused it with an error."""
    features = Features(**{ours: theirs in case["features"] for theirs, ours in OFFERED.items()})
    taken = set()
    for name in case["allocatedDevices"]:
        driver, _, rest = name.partition("/")
        pool, _, device = rest.rpartition("/")
        taken.add((driver, pool, device))
    classes = {device_class["metadata"]["name"]: device_class for device_class in case["classes"]}
    try:
        got = allocate(Inventory(case["slices"], features), classes, case["node"], case["claims"], taken)
    except Invalid:
        return [], True
    if isinstance(got, Unfit):
        assert not got.gave_up
        return [], bool(got.reason)
    return got, False


def test_every_case_in_scope_has_an_outcome_that_upstream_had() -> None:
    """160 cases give the devices, configuration and node selector of upstream, or are refused where upstream refuses."""
    wrong, counts = [], Counter[str]()
    for case in rows("dra/allocator.jsonl"):
        beyond = set(case["features"]) - set(OFFERED)
        if beyond:
            assert beyond <= set(NOT_OFFERED), f"{case['name']}: no reason to leave out {beyond}"
            counts["left out"] += 1
            continue
        counts["in scope"] += 1
        results, refused = answer(case)
        if not any(plain(e["results"]) == plain(results) and bool(e["error"]) == refused for e in case["expect"]):
            wrong.append(f"{case['name']}: got {results}, refused {refused}")
    assert not wrong, wrong
    assert counts == {"in scope": CASES_IN_SCOPE, "left out": CASES_LEFT_OUT}


@pytest.mark.neighbours
def test_generated_questions_get_the_answers_of_kubernetes() -> None:
    """On 2,000 generated questions over the features that we offer, no answer differs from Kubernetes' allocator's."""
    seed = int(os.environ.get("WHARF_SEED", "20261124"))
    print(f"seed {seed}")
    dice = random.Random(seed)
    questions = [question(dice, number) for number in range(2000)]
    differ, kinds = [], Counter[str]()
    for asked, theirs in zip(questions, ask_oracle(questions), strict=True):
        results, refused = answer(asked)
        kinds["refused" if refused else "allocated" if results else "does not fit"] += 1
        if plain(results) != plain(theirs["results"] or []) or refused != bool(theirs["error"]):
            differ.append(f"{asked['name']}: ours {results} {refused}, theirs {theirs['results']} {theirs['error']}")
    print(dict(kinds))
    assert not differ, f"seed {seed}: {len(differ)} differ, {differ[:3]}"
    assert min(kinds[kind] for kind in ("refused", "allocated", "does not fit")) >= 100, f"seed {seed}: {kinds}"


def ours(dice: random.Random, slices: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """Return a question over the devices that our own driver publishes, some of them taken."""
    kinds = {**classes(), "half": HALF}
    asked = []
    for i in range(dice.choice((1, 1, 2))):
        made = claim("blue", f"c{i}", dice.choice(sorted(kinds)), dice.choice((1, 1, 2, 3)))
        if dice.random() < 0.4:
            attribute = dice.choice(("resource.kubernetes.io/numaNode", "gpu.wharfinger.io/parentUUID"))
            made["spec"]["devices"]["constraints"] = [{"matchAttribute": attribute}]
        asked.append(made)
    devices = [(s["spec"]["pool"]["name"], d["name"]) for s in slices for d in s["spec"].get("devices", ())]
    taken = [f"gpu.wharfinger.io/{pool}/{device}" for pool, device in devices if dice.random() < 0.02]
    return {
        "name": f"fleet-{number}", "features": list(OFFERED), "node": node(dice.choice(("n1", "n2"))),
        "classes": list(kinds.values()), "slices": dice.sample(slices, len(slices)), "claims": asked,
        "allocatedDevices": taken, "allocatedSharedDevices": [], "allocatedCapacity": {},
    }  # fmt: skip


@pytest.mark.neighbours
def test_claims_on_our_own_slices_get_the_answers_of_kubernetes(tmp_path: Path) -> None:
    """300 claims on whole GPUs and MIG slices as our driver publishes them are answered as kube-scheduler would."""
    seed = int(os.environ.get("WHARF_SEED", "20261125"))
    print(f"seed {seed}")
    dice, published = random.Random(seed), slices(tmp_path, SMALL.encode())
    questions = [ours(dice, published, number) for number in range(300)]
    kinds = Counter[str]()
    for asked, theirs in zip(questions, ask_oracle(questions), strict=True):
        results, refused = answer(asked)
        kinds["refused" if refused else "allocated" if results else "does not fit"] += 1
        assert plain(results) == plain(theirs["results"] or []), f"seed {seed}: {asked['name']}"
        assert refused == bool(theirs["error"]), f"seed {seed}: {asked['name']}: {theirs['error']}"
    print(dict(kinds))
    assert min(kinds["allocated"], kinds["does not fit"]) >= 50, kinds
