"""Objects of our kinds, and what becomes of them when a field is changed to something that nobody meant."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from wharfinger.kinds.registry import KINDS

DIGEST = "sha256:" + "a" * 64
ARTIFACT = {"repository": "research/corpus", "digest": DIGEST}
SPECS: dict[str, dict[str, Any]] = {
    "Tenant": {
        "namespaces": ["research"],
        "admins": ["ann"],
        "quota": {"gpu": {"memory": "80Gi", "computeSlices": 7}, "tokensPerMinute": 1000},
        "budget": {"monthly": "100.5"},
        "weight": 3,
    },
    "GPUProfile": {"memory": "10Gi", "computeSlices": 1, "sharing": "Partition", "topology": {"sameNumaNode": True}},
    "TrustPolicy": {"signers": ["spiffe://a.b/wharfinger/builder"], "formats": ["safetensors"], "maximumAgeDays": 30},
    "AccessPolicy": {
        "identities": ["spiffe://a.b/ns/x/sa/y"],
        "verbs": ["call"],
        "objects": {"kinds": ["Model"], "names": ["m"]},
    },
    "Dataset": {"artifact": ARTIFACT, "license": "PSF-2.0"},
    "Model": {"artifact": ARTIFACT},
    "PipelineRun": {
        "dataset": "d",
        "model": "m",
        "train": {"command": ["python", "train.py"], "env": [{"name": "A", "value": "b"}, {"name": "B"}]},
        "evaluate": {"command": ["x"], "thresholds": [{"metric": "loss", "maximum": 1.5}]},
    },
    "InferenceService": {
        "model": "m",
        "runtime": {"type": "Command", "command": ["serve"], "env": [{"name": "A", "value": "b"}]},
        "callers": ["spiffe://a.b/ns/x/sa/y", "spiffe://a.b/ns/x/*"],
        "scaling": {"minReplicas": 1, "maxReplicas": 2},
        "slo": {"ttftMilliseconds": 100},
    },
    "InferencePolicy": {"services": ["s"], "guards": [{"name": "pii"}, {"name": "secrets", "prompt": "Mask"}]},
    "Grant": {
        "workload": "spiffe://a.b/ns/x/sa/y",
        "artifacts": [DIGEST],
        "claim": {
            "name": "c",
            "uid": "u",
            "devices": [{"driver": "gpu.example.com", "pool": "n", "device": "gpu-0", "uuid": "GPU-1"}],
        },
        "policyRevision": DIGEST,
        "notBefore": "2026-11-24T08:00:00Z",
        "notAfter": "2026-11-25T08:00:00Z",
    },
}
"""A spec of each kind with most of its fields set."""

_STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.0, 1.5, 10**6, 2**31, 2**63 - 1, -(2**63), "", "a", "A b", "10Gi", "!", "ü" * 70,
    "x" * 300, "2026-11-24T08:00:00Z", "2026-13-01T00:00:00Z", [], [None], ["a", "a"], [{}], [{"name": "A"}, {"name": "A"}],
    {}, {"name": "A"}, {"a": {"b": [1]}}, ["spiffe://a.b/x", "spiffe://a.b/x"],
)  # fmt: skip


def whole(name: str) -> dict[str, Any]:
    """Return an object of the kind `name`."""
    (kind,) = (kind for kind in KINDS if kind.name == name)
    return {
        "apiVersion": kind.api_version,
        "kind": name,
        "metadata": {"name": "mutant", "labels": {"a": "b"}, "annotations": {"x/y": "z"}},
        "spec": copy.deepcopy(SPECS[name]),
    }


def mutants(seed: int, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind and value of `count` objects, each changed at up to three places; the same for the same seed."""
    dice = random.Random(seed)
    for number in range(count):
        name = dice.choice(list(SPECS))
        value = whole(name)
        for _ in range(number % 4):
            mutate(value, dice)
        yield name, value


def mutate(value: dict[str, Any], dice: random.Random) -> None:
    """Change one place of an object."""
    places = [place for place in _places(value, ()) if place[0][0] not in {"apiVersion", "kind"}]
    path, holder, key = dice.choice(places)
    if path == ("metadata",) or path == ("metadata", "name"):
        return
    match dice.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder[key], dict):
            holder[key]["unknown"] = copy.deepcopy(dice.choice(_STRANGE))
        case 2 if isinstance(holder[key], list) and holder[key]:
            holder[key].append(copy.deepcopy(dice.choice(holder[key])))
        case 3 if isinstance(holder[key], str):
            holder[key] += dice.choice(["-", "Z", " ", "é", "x" * 1000])
        case _:
            holder[key] = copy.deepcopy(dice.choice(_STRANGE))


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in below:
        yield (*path, key), value, key
        yield from _places(child, (*path, key))
