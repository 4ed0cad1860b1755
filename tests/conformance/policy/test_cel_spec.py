"""The cases of cel-spec over our evaluator: what we offer is right, what we do not offer does not compile."""

from __future__ import annotations

import base64
import math
from collections import Counter
from typing import Any

from shared_material import rows

from wharfinger.core.errors import Invalid
from wharfinger.policy.cel import Environment, Unevaluable
from wharfinger.policy.celvalues import TypeName, Uint, make_map

NEEDS_MORE = {
    "unchecked, macro-less, check-only or with a container or own functions": (
        "disable_check", "disable_macros", "check_only", "container", "functions",
    ),
}  # fmt: skip
NOT_OFFERED = {
    "block_ext": "internal to optimizers",
    "comparisons": "timestamps",
    "conversions": "timestamps and durations",
    "encoders_ext": "base64 is in no Kubernetes environment",
    "macros2": "two-variable macros wait for the CEL compiler",
    "math_ext": "in no Kubernetes environment",
    "network_ext": "ip and cidr wait for the CEL compiler",
    "optionals": "optional values wait for the CEL compiler",
    "string_ext": "format, quote and reverse wait for the CEL compiler",
    "timestamps": "timestamps wait for the CEL compiler",
}
"""Files of which some cases do not compile, and why; no other file may have one."""


def value(written: dict[str, Any]) -> Any:
    """Return the value in the form of the cases' file; `KeyError` for kinds that we do not offer."""
    ((kind, content),) = written.items()
    match kind:
        case "int" | "string" | "bool" | "null":
            return content
        case "uint":
            return Uint(content)
        case "double":
            return float({"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}.get(content, content))
        case "bytes":
            return base64.b64decode(content)
        case "list":
            return [value(item) for item in content]
        case "map":
            return make_map((value(key), value(item)) for key, item in content)
        case "type":
            return TypeName(content)
    raise KeyError(kind)


def same(a: Any, b: Any) -> bool:
    """Compare by value and type, NaN equal to itself."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return len(a) == len(b) and all(key in b and same(item, b[key]) for key, item in a.items())
    return type(a) is type(b) and a == b


def test_what_is_offered_is_right_and_the_rest_does_not_compile() -> None:
    """1,075 cases of cel-spec give their value or error; none gives a wrong one; the others are refused early."""
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    wrong: list[str] = []
    for row in rows("cel/cases.jsonl"):
        if any(row.get(name) for names in NEEDS_MORE.values() for name in names):
            counts["needs more"] += 1
            continue
        types = row.get("types") or {}
        try:
            want = value(row["value"]) if "value" in row else None
            variables = {name: value(bound) for name, bound in (row.get("bindings") or {}).items() if name in types}
            program = Environment(types).compile(row["expr"], boolean=False)
        except KeyError:
            counts["needs more"] += 1
            continue
        except Invalid:
            if "error" in row:
                counts["right"] += 1
            else:
                refused[row["file"]] += 1
            continue
        try:
            got = program.evaluate(variables)
            right = "error" not in row and same(got, want)
        except Unevaluable as error:
            got, right = error, "error" in row
        if right:
            counts["right"] += 1
        else:
            wrong.append(f"{row['file']}/{row['name']}: {row['expr']} gave {got!r}")
    assert not wrong, wrong
    assert set(refused) == set(NOT_OFFERED)
    assert counts["right"] >= 1075, counts
