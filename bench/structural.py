"""What a schema costs a write: CPU to coerce, prune, default and validate one InferenceService, rules included.

    python -m bench.structural

Caveats: one process, one object of some 1.8 KB as JSON, warm; time of this code alone (no parsing, storing or
sending). The best of several rounds is shown, since other processes only add. Patterns remember the answers for
short texts: "new texts" is the same object with texts that were never seen, which is the dearest honest case.
"""

from __future__ import annotations

import copy
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.raw import keep
from wharfinger.kinds.builtin.pods import POD
from wharfinger.kinds.inferenceservice import KIND
from wharfinger.kinds.structural.schema import Schema, compile_schema
from wharfinger.local.api.rules import compile_rule

ROUNDS, TIMES = 9, 200


def service(mark: str = "") -> dict[str, Any]:
    """Return an InferenceService as a client sends it; `mark` makes its texts new."""
    return {
        "apiVersion": KIND.api_version,
        "kind": KIND.name,
        "metadata": {
            "name": f"assistant{mark}",
            "namespace": "team-a",
            "labels": {"app": "assistant", "tier": "gold"},
            "annotations": {"example.com/owner": "x" * 200},
        },
        "spec": {
            "model": f"pydoc-small{mark}",
            "modelDigest": "sha256:" + f"{hash(mark) & (2**256 - 1):064x}"[:64],
            "runtime": {
                "type": "Command",
                "command": ["python", "-m", "server", "--fast"],
                "env": [{"name": f"NAME_{n}_{mark.replace('-', '')}", "value": "v" * 20} for n in range(12)],
            },
            "gpuProfile": f"slice-1g{mark}",
            "serviceAccountName": f"assistant{mark}",
            "callers": [f"spiffe://wharfinger.local/ns/team-a/sa/web-{n}{mark}" for n in range(8)],
            "replicas": 2,
            "scaling": {"minReplicas": 1, "maxReplicas": 4, "tokensInFlight": 512},
            "slo": {"ttftMilliseconds": 500},
        },
    }


def microseconds(work: Callable[[Any], object], values: Iterator[Any], times: int = TIMES) -> float:
    """Return the CPU microseconds of one call of `work` on the next of `values`; making those is not counted."""
    best = float("inf")
    for _ in range(ROUNDS):
        chosen = list(itertools.islice(values, times))
        start = time.process_time_ns()
        for value in chosen:
            work(value)
        best = min(best, (time.process_time_ns() - start) / times / 1000)
    return best


def sent(*, new: bool) -> Iterator[dict[str, Any]]:
    """Yield objects as they come out of a body: never the same ones, their texts `new` or the same."""
    for number in itertools.count():
        yield service(f"-{number:07d}" if new else "")


def whole(schema: Schema, value: dict[str, Any]) -> None:
    """Do all that a create asks of a schema."""
    schema.coerce(value)
    schema.prune(value)
    schema.default(value)
    assert schema.validate(value) == []


def compiled(document: dict[str, Any]) -> Schema:
    """Compile a kind's schema with its rules."""
    return compile_schema(document, compile_rule)


def measure() -> dict[str, float]:
    """Return the figures, in microseconds of CPU."""
    schema = compiled(KIND.schema)
    ready = service()
    whole(schema, ready)
    changed = copy.deepcopy(ready)
    changed["spec"]["replicas"] = 3
    wrong = copy.deepcopy(ready)
    wrong["spec"]["replicas"] = "3"
    same, again = itertools.repeat(ready), itertools.repeat(changed)
    return {
        "coerce metadata": microseconds(schema.coerce, same),
        "prune": microseconds(schema.prune, same),
        "default": microseconds(schema.default, same),
        "validate": microseconds(schema.validate, same),
        "validate an update": microseconds(lambda value: schema.validate(value, ready), again),
        "explain a wrong object": microseconds(schema.validate, itertools.repeat(wrong)),
        "create, texts seen before": microseconds(lambda value: whole(schema, value), sent(new=False)),
        "create, new texts": microseconds(lambda value: whole(schema, value), sent(new=True)),
        "compile the schema": microseconds(compiled, itertools.repeat(KIND.schema), 20),
        "compile a Pod's": microseconds(compiled, itertools.repeat(POD.schema), 3),
    }


def main() -> None:
    """Print the figures; the raw ones as JSON with `-o json`."""
    figures = measure()
    keep("structural", figures)
    if sys.argv[1:] == ["-o", "json"]:
        print(json.dumps(figures, indent=2))
        return
    size = len(json.dumps(service(), separators=(",", ":")))
    print(f"{KIND.name}: {size} bytes; microseconds of CPU")
    for name, figure in figures.items():
        print(f"  {name:28} {figure:8.1f}")


if __name__ == "__main__":
    main()
