"""Makes allocation questions, and asks Kubernetes' own allocator for the answers.

A question has the form of the outside allocator cases: a node, classes, slices, claims, what is taken. It stays
within the features that Wharfinger offers: ExactCount and All, CEL selectors, prioritized lists, matchAttribute,
admin access, partitionable devices, taints and tolerations, node selection, pools that are old, incomplete or wrong.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

FEATURES = ("AdminAccess", "DeviceTaints", "PartitionableDevices", "PrioritizedList")
# A feature that no question uses: it makes the oracle pick its deterministic variant instead of the one that walks
# Go maps.
DETERMINISTIC = "DeviceBindingAndStatus"
NODES = ("node-1", "node-2")
ZONE = {"node-1": "east", "node-2": "west"}
DRIVERS = ("gpu.example", "nic.example")
CLASSES: dict[str, list[str]] = {
    "any": [],
    "gpu": ['device.driver == "gpu.example"'],
    "nic": ['device.driver == "nic.example"'],
    "large": [
        'device.driver == "gpu.example"',
        'device.capacity["gpu.example"].memory.compareTo(quantity("40Gi")) >= 0',
    ],
}
SELECTORS = (
    'device.attributes["gpu.example"].model == "a"',
    'device.attributes["gpu.example"].model in ["a", "b"]',
    'device.attributes["gpu.example"].slot >= 2',
    'device.attributes["gpu.example"].healthy',
    '"slot" in device.attributes["nic.example"] || device.driver == "gpu.example"',
    'has(device.attributes["gpu.example"].model) && device.attributes["gpu.example"].model != "c"',
    'device.attributes["gpu.example"].firmware.isGreaterThan(semver("1.1.0"))',
    'device.capacity["gpu.example"].memory.isGreaterThan(quantity("10Gi"))',
    'device.attributes["resource.kubernetes.io"].numaNode == 0',
    'device.attributes["gpu.example"].missing == 1',
    "true",
    "false",
)
MATCHED = ("resource.kubernetes.io/numaNode", "gpu.example/model", "gpu.example/firmware", "gpu.example/none")
TAINTS = (("maintenance", "soon", "NoSchedule"), ("broken", "", "NoExecute"), ("noisy", "yes", "None"))


def question(dice: random.Random, number: int) -> dict[str, Any]:
    """Return one question."""
    node = dice.choice(NODES)
    slices = [s for i in range(dice.randint(1, 4)) for s in _pool(dice, i)]
    dice.shuffle(slices)
    devices = [
        f"{s['spec']['driver']}/{s['spec']['pool']['name']}/{d['name']}"
        for s in slices
        for d in s["spec"].get("devices", ())
    ]
    taken = sorted({d for d in devices if dice.random() < 0.15})
    return {
        "name": f"question-{number}",
        "features": list(FEATURES),
        "node": {"metadata": {"name": node, "labels": {"zone": ZONE[node]}}},
        "classes": [
            {"metadata": {"name": name}, "spec": _class_spec(dice, name, selectors)}
            for name, selectors in CLASSES.items()
        ],
        "slices": slices,
        "claims": [_claim(dice, i) for i in range(dice.choice((1, 1, 1, 2)))],
        "allocatedDevices": taken,
        "allocatedSharedDevices": [],
        "allocatedCapacity": {},
    }


def _class_spec(dice: random.Random, name: str, selectors: Sequence[str]) -> dict[str, Any]:
    spec: dict[str, Any] = {"selectors": [{"cel": {"expression": text}} for text in selectors]}
    if dice.random() < 0.2:
        spec["config"] = [{"opaque": {"driver": "gpu.example", "parameters": {"of": name}}}]
    return spec


def _pool(dice: random.Random, number: int) -> list[dict[str, Any]]:
    driver = dice.choice((DRIVERS[0], DRIVERS[0], DRIVERS[1]))
    partitioned = driver == DRIVERS[0] and dice.random() < 0.5
    generation, count = dice.randint(1, 3), dice.randint(1, 3)
    wrong = dice.random()
    made = []
    for index in range(count):
        spec: dict[str, Any] = {"driver": driver, "pool": {"name": f"pool-{number}", "generation": generation}}
        spec["devices"] = [
            _device(dice, driver, f"d{index}-{i}", partitioned) for i in range(dice.randint(0 if count > 1 else 1, 4))
        ]
        spec["pool"]["resourceSliceCount"] = count + partitioned
        _place(dice, spec, per_device=partitioned and dice.random() < 0.3)
        made.append({"metadata": {"name": f"slice-{number}-{index}"}, "spec": spec})
    if partitioned:
        counters = {
            "driver": driver,
            "pool": {"name": f"pool-{number}", "generation": generation, "resourceSliceCount": count + 1},
            "sharedCounters": [
                {"name": name, "counters": {"memory": {"value": "80Gi"}, "slices": {"value": "7"}}}
                for name in ("set-0", "set-1")
            ],
        }
        _place(dice, counters, per_device=False)
        made.append({"metadata": {"name": f"slice-{number}-counters"}, "spec": counters})
    if wrong < 0.06 and len(made) > 1:
        made.pop(dice.randrange(len(made)))
    elif wrong < 0.12:
        made[-1]["spec"]["pool"]["generation"] += 1
    elif wrong < 0.15 and made[0]["spec"].get("devices"):
        made[0]["spec"]["devices"].append(made[0]["spec"]["devices"][0])
    return made


def _place(dice: random.Random, spec: dict[str, Any], *, per_device: bool) -> None:
    if per_device:
        spec["perDeviceNodeSelection"] = True
        for device in spec["devices"]:
            _place(dice, device, per_device=False)
        return
    chance = dice.random()
    if chance < 0.6:
        spec["nodeName"] = dice.choice((NODES[0], NODES[0], NODES[1]))
    elif chance < 0.8:
        spec["allNodes"] = True
    else:
        operator, values = dice.choice((("In", ["east"]), ("NotIn", ["west"]), ("Exists", []), ("In", ["north"])))
        expression = {"key": "zone", "operator": operator, **({"values": values} if values else {})}
        spec["nodeSelector"] = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}


def _device(dice: random.Random, driver: str, name: str, partitioned: bool) -> dict[str, Any]:
    device: dict[str, Any] = {"name": name, "attributes": {}, "capacity": {}}
    if driver == DRIVERS[0]:
        device["attributes"] = {
            "model": {"string": dice.choice("abc")},
            "slot": {"int": dice.randint(0, 3)},
            "healthy": {"bool": dice.random() < 0.8},
            "firmware": {"version": dice.choice(("1.0.0", "1.2.0", "2.0.0-rc.1"))},
        }
        device["capacity"] = {"memory": {"value": dice.choice(("10Gi", "40Gi", "80Gi"))}}
        if dice.random() < 0.1:
            del device["attributes"][dice.choice(sorted(device["attributes"]))]
    if dice.random() < 0.8:
        device["attributes"]["resource.kubernetes.io/numaNode"] = {"int": dice.randint(0, 1)}
    if partitioned and dice.random() < 0.9:
        wanted = {"memory": {"value": dice.choice(("10Gi", "20Gi", "40Gi"))}, "slices": {"value": dice.choice("1234")}}
        if dice.random() < 0.3:
            del wanted[dice.choice(sorted(wanted))]
        device["consumesCounters"] = [{"counterSet": dice.choice(("set-0", "set-1")), "counters": wanted}]
        if dice.random() < 0.01:
            device["consumesCounters"][0]["counterSet"] = "set-9"
    if dice.random() < 0.15:
        key, value, effect = dice.choice(TAINTS)
        device["taints"] = [{"key": key, "effect": effect, **({"value": value} if value else {})}]
    return device


def _claim(dice: random.Random, number: int) -> dict[str, Any]:
    requests = [_request(dice, f"r{i}") for i in range(dice.choice((1, 1, 2)))]
    devices: dict[str, Any] = {"requests": requests}
    if dice.random() < 0.35:
        constraint: dict[str, Any] = {"matchAttribute": dice.choice(MATCHED)}
        if dice.random() < 0.4:
            constraint["requests"] = [_reference(dice, dice.choice(requests))]
        devices["constraints"] = [constraint]
    if dice.random() < 0.2:
        config: dict[str, Any] = {"opaque": {"driver": "gpu.example", "parameters": {"of": "claim"}}}
        if dice.random() < 0.6:
            config["requests"] = [_reference(dice, dice.choice(requests))]
        devices["config"] = [config]
    return {"metadata": {"name": f"claim-{number}", "namespace": "blue"}, "spec": {"devices": devices}}


def _reference(dice: random.Random, request: dict[str, Any]) -> str:
    alternatives = request.get("firstAvailable")
    if alternatives and dice.random() < 0.5:
        return f"{request['name']}/{dice.choice(alternatives)['name']}"
    return str(request["name"])


def _request(dice: random.Random, name: str) -> dict[str, Any]:
    if dice.random() < 0.25:
        return {"name": name, "firstAvailable": [_exactly(dice, f"a{i}") for i in range(dice.randint(1, 3))]}
    exactly = _exactly(dice, "")
    del exactly["name"]
    if dice.random() < 0.07:
        exactly["adminAccess"] = True
    return {"name": name, "exactly": exactly}


def _exactly(dice: random.Random, name: str) -> dict[str, Any]:
    asked: dict[str, Any] = {"name": name, "deviceClassName": dice.choice(sorted(CLASSES))}
    if dice.random() < 0.12:
        asked["allocationMode"] = "All"
    else:
        asked |= {"allocationMode": "ExactCount", "count": dice.choice((1, 1, 1, 2))}
    if dice.random() < 0.4:
        # Most selectors err on a device of another driver; a class in front keeps that from ending every question.
        chosen = [t for t in SELECTORS if asked["deviceClassName"] in ("gpu", "large") or 'gpu.example"].' not in t]
        asked["selectors"] = [{"cel": {"expression": dice.choice(chosen)}}]
    if dice.random() < 0.3:
        key, value, effect = dice.choice(TAINTS)
        asked["tolerations"] = [
            dice.choice(
                (
                    {"operator": "Exists"},
                    {"key": key, "operator": "Exists", "effect": effect},
                    {"key": key, "operator": "Equal", **({"value": value} if value else {})},
                )
            )
        ]
    return asked


def oracle() -> Path:
    """Return the path of the built oracle. Skips the calling test where it has not been built."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wharfinger" / "neighbours" / "bin"
    found = shutil.which("dra-oracle", path=f"{cache}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("dra-oracle is not built: make neighbours")
    return Path(found)


def ask_oracle(questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the oracle's answers, in order."""
    asked = "\n".join(json.dumps({**q, "features": [*q["features"], DETERMINISTIC]}) for q in questions)
    done = subprocess.run([oracle(), "cases"], input=asked, capture_output=True, text=True, check=True, timeout=280)
    return [json.loads(line) for line in done.stdout.splitlines()]


def plain(value: Any) -> Any:
    """Return a JSON value without the empty parts that Go leaves out."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if part not in (None, [], {}, "")}
    return [plain(part) for part in value] if isinstance(value, list) else value
