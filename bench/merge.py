"""What field management costs: CPU per create, update and apply of one InferenceService.

    python -m bench.merge

Caveats: one process, one object of some 700 bytes as JSON, warm caches; time of this code alone (no
parsing, storing or sending). The best of several rounds is shown, since other processes only add.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.raw import keep
from wharfinger.core.clock import SECOND
from wharfinger.kinds.inferenceservice import KIND
from wharfinger.local.merge import managed, openapi
from wharfinger.local.merge.managed import Tracking

NOW = 1_790_000_000 * SECOND
ROUNDS, TIMES = 15, 400

SERVICE: dict[str, Any] = {
    "apiVersion": KIND.api_version,
    "kind": KIND.name,
    "metadata": {
        "name": "assistant",
        "namespace": "team-a",
        "uid": "1f3c1f5e-6d1c-4b8c-9a38-9b8a3d6f2d11",
        "resourceVersion": "1041",
        "generation": 1,
        "creationTimestamp": "2026-11-24T08:00:00Z",
        "labels": {"app": "assistant", "tier": "gold"},
    },
    "spec": {
        "model": "pydoc-small",
        "modelDigest": "sha256:" + "ab" * 32,
        "runtime": {"type": "Builtin", "env": [{"name": "LOG", "value": "info"}, {"name": "PORT", "value": "8080"}]},
        "gpuProfile": "slice-1g",
        "serviceAccountName": "assistant",
        "callers": ["spiffe://wharfinger.local/ns/team-a/sa/web", "spiffe://wharfinger.local/ns/team-a/sa/batch"],
        "replicas": 2,
        "scaling": {"minReplicas": 1, "maxReplicas": 4, "tokensInFlight": 512, "scaleDownSeconds": 60},
        "slo": {"ttftMilliseconds": 1000, "tpotMilliseconds": 100},
    },
}


def microseconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call of `work`, in microseconds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time_ns()
        for _ in range(TIMES):
            work()
        best = min(best, (time.process_time_ns() - start) / TIMES / 1000)
    return best


def fields_of(schema: dict[str, Any]) -> int:
    """Count the fields that a schema declares."""
    below = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return len(schema.get("properties", {})) + sum(fields_of(one) for one in below if isinstance(one, dict))


def measure() -> dict[str, float]:
    """Return the figures, in microseconds of CPU."""
    type_ = openapi.compile_type(KIND.schema)
    main = Tracking(KIND.api_version, {KIND.api_version: type_}, ignored={"f:status": {}})
    stored = managed.create(main, SERVICE, manager="kubectl", now=NOW)
    spec = stored["spec"]
    scaled = {**stored, "spec": {**spec, "replicas": 3, "scaling": {**spec["scaling"], "maxReplicas": 8}}}
    scaled = json.loads(json.dumps(scaled))
    again = json.loads(json.dumps(stored))
    config = {**SERVICE, "metadata": {name: SERVICE["metadata"][name] for name in ("name", "namespace", "labels")}}
    applied = managed.apply(main, None, config, manager="cd", now=NOW)
    changed = {**config, "spec": {**spec, "replicas": 3}}
    return {
        "create": microseconds(lambda: managed.create(main, SERVICE, manager="kubectl", now=NOW)),
        "update, two fields": microseconds(lambda: managed.update(main, stored, scaled, manager="hpa", now=NOW)),
        "update, nothing": microseconds(lambda: managed.update(main, stored, again, manager="hpa", now=NOW)),
        "apply, new": microseconds(lambda: managed.apply(main, None, config, manager="cd", now=NOW)),
        "apply, one field": microseconds(lambda: managed.apply(main, applied, changed, manager="cd", now=NOW)),
        "apply, nothing": microseconds(lambda: managed.apply(main, applied, config, manager="cd", now=NOW)),
        "schema, compiled once": microseconds(lambda: openapi.compile_type(KIND.schema)),
    }


def main() -> None:
    """Print the figures; the raw ones as JSON with `-o json`."""
    figures = measure()
    keep("merge", figures)
    if sys.argv[1:] == ["-o", "json"]:
        print(json.dumps(figures, indent=2))
        return
    size = len(json.dumps(SERVICE, separators=(",", ":")))
    print(f"{KIND.name}: {size} bytes, {fields_of(KIND.schema)} fields in its schema; microseconds of CPU")
    for name, figure in figures.items():
        print(f"  {name:24} {figure:8.1f}")


if __name__ == "__main__":
    main()
