"""Allocation beside Kubernetes' own allocator: the same claims, first fit over the same fleet, in the same run.

    python -m bench gpu

Caveats: first fit over nodes in their order, as the oracle's `replay` does it; kube-scheduler looks at several nodes at
once and filters before. The oracle (Kubernetes 1.37.2's allocator, built by `make neighbours`) makes a new allocator
for each claim, as kube-scheduler does for each pod, and its claims per second count that alone, not its JSON; ours
count the same. Ours is CPython in one process. Without the oracle only ours is shown. The seed is fixed, the answers
are compared claim by claim, and the raw figures stay in out/gpu.json.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.raw import keep
from wharfinger.gpu.allocation import Unfit, allocate
from wharfinger.gpu.candidates import read
from wharfinger.gpu.devices import MEBIBYTE
from wharfinger.gpu.inventory import Inventory
from wharfinger.gpu.partitions import A100_40GB, layouts

SEED = 20261125
FEATURES = ("AdminAccess", "DeviceTaints", "PartitionableDevices", "PrioritizedList", "DeviceBindingAndStatus")
"""The last one makes the oracle choose its deterministic variant; no claim uses it."""
SIZES = ((100, 2000), (500, 2000), (1000, 2000))
"""Nodes of 10 devices each, and claims. The oracle takes part up to `ORACLE_NODES`."""
ORACLE_NODES, ORACLE_CLAIMS = 500, 2000
Object = dict[str, Any]


def fleet(nodes: int) -> tuple[list[Object], list[Object]]:
    """Return slices and nodes: half the nodes have 80 GiB devices, half 40, five on each of two NUMA nodes."""
    slices: list[Object] = []
    for number in range(nodes):
        name = f"node-{number:05}"
        devices = [
            {
                "name": f"gpu-{i}",
                "attributes": {
                    "model": {"string": ("a100", "h100")[number % 2]},
                    "resource.kubernetes.io/numaNode": {"int": i // 5},
                },
                "capacity": {"memory": {"value": ("40Gi", "80Gi")[number % 2]}},
            }
            for i in range(10)
        ]
        pool = {"name": name, "generation": 1, "resourceSliceCount": 1}
        spec = {"driver": "gpu.example", "nodeName": name, "pool": pool, "devices": devices}
        slices.append({"metadata": {"name": f"{name}-gpus"}, "spec": spec})
    return slices, [{"metadata": {"name": f"node-{number:05}"}} for number in range(nodes)]


CLASSES = [
    {"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": 'device.driver == "gpu.example"'}}]}}
]
LARGE = 'device.capacity["gpu.example"].memory.compareTo(quantity("60Gi")) >= 0'


def claims(number: int) -> list[Object]:
    """Return claims for one to four devices; a third only large ones, half of the larger on one NUMA node."""
    dice = random.Random(SEED)
    made = []
    for i in range(number):
        exactly: Object = {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": dice.choice((1, 1, 2, 4))}
        if dice.random() < 0.33:
            exactly["selectors"] = [{"cel": {"expression": LARGE}}]
        devices: Object = {"requests": [{"name": "gpu", "exactly": exactly}]}
        if exactly["count"] > 1 and dice.random() < 0.5:
            devices["constraints"] = [{"matchAttribute": "resource.kubernetes.io/numaNode"}]
        made.append({"metadata": {"name": f"claim-{i}", "namespace": "bench"}, "spec": {"devices": devices}})
    return made


def ours(slices: list[Object], nodes: list[Object], asked: list[Object]) -> tuple[list[list[str]], float]:
    """Place each claim on the first node that fits; return the devices of each and the seconds it took."""
    classes = {c["metadata"]["name"]: c for c in CLASSES}
    taken: set[tuple[str, str, str]] = set()
    answers: list[list[str]] = []
    start = time.perf_counter()
    inventory = Inventory(slices)
    for claim in asked:
        problem, got = read(inventory.features, classes, [claim]), []
        for node in nodes:
            found = allocate(inventory, classes, node, [claim], taken, problem=problem)
            if not isinstance(found, Unfit):
                got = [(r["driver"], r["pool"], r["device"]) for r in found[0]["devices"]["results"]]
                break
        taken.update(got)
        answers.append(["/".join(device) for device in got])
    return answers, time.perf_counter() - start


def theirs(
    oracle: str, slices: list[Object], nodes: list[Object], asked: list[Object]
) -> tuple[list[list[str]], float, float]:
    """Return the oracle's answers, its seconds and its largest resident memory in MiB."""
    head = {"features": FEATURES, "classes": CLASSES, "slices": slices, "nodes": nodes}
    text = "\n".join(map(json.dumps, [head, *asked]))
    done = subprocess.run([oracle, "replay"], input=text, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    answers = [
        [f"{r['driver']}/{r['pool']}/{r['device']}" for r in line["results"][0]["devices"]["results"]]
        if line["results"]
        else []
        for line in lines[:-1]
    ]
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return answers, float(lines[-1]["seconds"]), memory


def hopeless() -> float:
    """Return the seconds until a claim for 16 of 16 partitioned GPUs' slices on one NUMA node, in vain, is answered."""
    counters = {f"slice-{i}": {"value": "1"} for i in range(8)}
    devices, sets = [], []
    for gpu in range(8):
        sets.append({"name": f"set-{gpu}", "counters": counters})
        for i in range(7):
            consumed = [{"counterSet": f"set-{gpu}", "counters": {f"slice-{i}": {"value": "1"}}}]
            numa = {"resource.kubernetes.io/numaNode": {"int": gpu}}
            devices.append({"name": f"gpu-{gpu}-{i}", "attributes": numa, "consumesCounters": consumed})
    pool = {"name": "n", "generation": 1, "resourceSliceCount": 2}
    base = {"driver": "gpu.example", "nodeName": "n", "pool": pool}
    slices = [
        {"metadata": {"name": "a"}, "spec": {**base, "devices": devices}},
        {"metadata": {"name": "b"}, "spec": {**base, "sharedCounters": sets}},
    ]
    exactly = {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 16}
    claim = {
        "metadata": {"name": "c", "namespace": "bench"},
        "spec": {
            "devices": {
                "requests": [{"name": "gpu", "exactly": exactly}],
                "constraints": [{"matchAttribute": "resource.kubernetes.io/numaNode"}],
            }
        },
    }
    start = time.perf_counter()
    classes = {c["metadata"]["name"]: c for c in CLASSES}
    found = allocate(Inventory(slices), classes, {"metadata": {"name": "n"}}, [claim], set())
    assert isinstance(found, Unfit)
    return time.perf_counter() - start


def main() -> None:
    """Measure, print, keep the raw figures."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wharfinger" / "neighbours" / "bin"
    oracle = shutil.which("dra-oracle", path=f"{cache}{os.pathsep}{os.environ.get('PATH', '')}")
    print(f"seed {SEED}; oracle {'here' if oracle else 'not built: make neighbours'}")
    raw: list[Object] = []
    for size, number in SIZES:
        slices, nodes = fleet(size)
        asked = claims(number)
        answers, seconds = ours(slices, nodes, asked)
        figure: Object = {"nodes": size, "claims": number, "ours": {"seconds": seconds, "claims/s": number / seconds}}
        placed = sum(map(bool, answers))
        print(f"{size} nodes x 10, {number} claims: ours {number / seconds:.0f} claims/s, {placed} placed")
        if oracle and size <= ORACLE_NODES:
            some = asked[:ORACLE_CLAIMS]
            mine, mine_seconds = ours(slices, nodes, some)
            answered, their_seconds, memory = theirs(oracle, slices, nodes, some)
            same = sum(a == b for a, b in zip(mine, answered, strict=True))
            figure["beside"] = {
                "claims": len(some), "same answers": same, "ours/s": len(some) / mine_seconds,
                "oracle/s": len(some) / their_seconds, "oracle MiB": memory,
            }  # fmt: skip
            print(
                f"  the first {len(some)} beside the oracle: ours {len(some) / mine_seconds:.0f}, its "
                f"{len(some) / their_seconds:.1f} claims/s ({memory:.0f} MiB); {same} of {len(some)} answers the same"
            )
            if same != len(some):
                sys.exit("the answers differ")
        raw.append(figure)
    start = time.perf_counter()
    count = sum(1 for _ in layouts(A100_40GB))
    layout_seconds, in_vain = time.perf_counter() - start, hopeless()
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBIBYTE
    print(f"a claim that nothing can answer: {in_vain * 1000:.0f} ms")
    print(f"{count} layouts of an A100 in {layout_seconds * 1000:.0f} ms")
    print(f"resident memory of ours: {own:.0f} MiB")
    told = {"seed": SEED, "races": raw, "in vain s": in_vain, "layouts": count, "layouts s": layout_seconds, "MiB": own}
    keep("gpu", told)


if __name__ == "__main__":
    main()
