"""Kubernetes' cases for CustomResourceDefinitions: what is wrong with a new one, a changed one, its schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core.errors import FieldProblem
from wharfinger.kinds.structural import crdschema, definition
from wharfinger.kinds.structural.crdspec import warning_problems
from wharfinger.local.api.rules import compile_rule

LEFT_OUT = {
    "estimates of what a rule may cost wait for the CEL compiler": """
        100.errors 101.errors 193.errors 194.errors 198.errors 218.errors 221.errors
    """,
    "an object's fields have no types in CEL yet: a field that is not declared is told when it is asked for": """
        170.errors 172.errors 201.errors 203.errors
    """,
    "optionalOldSelf needs optional types, which wait for the CEL compiler": """
        223.errors 224.errors 225.errors 226.errors
    """,
}

COMPILER = ("compilation failed", "messageExpression compilation failed")
"""How a detail starts whose rest is the words of the CEL compiler."""


def matched(got: list[FieldProblem], want: list[dict[str, Any]]) -> Iterator[Check]:
    """Pair our problems with upstream's errors: reason, field, and a message that ends in the same detail."""
    left = list(got)
    missing = []
    for error in want:
        field = "" if error["field"] == "<nil>" else error["field"]
        detail = error["detail"].split(":")[0] if error["detail"].startswith(COMPILER) else error["detail"]
        for problem in left:
            ends = problem.message.endswith(detail) or (
                error["detail"].startswith(COMPILER) and detail in problem.message
            )
            if problem.reason == error["type"] and problem.field == field and ends:
                left.remove(problem)
                break
        else:
            missing.append((error["type"], field, error["detail"][:120]))
    yield "errors", (sorted(map(str, left)), missing), ([], [])


def checks(row: Row) -> Iterator[Check]:
    """Check one row of crd_validation.jsonl."""
    match row["op"]:
        case "create":
            yield from matched(definition.validate_create(row["crd"], compile_rule), row["errors"])
        case "update":
            yield from matched(definition.validate_update(row["crd"], row["oldCrd"], compile_rule), row["errors"])
        case "schema":
            options = row.get("options") or {}
            demands = crdschema.Demands(
                defaults=options.get("allowDefaults", False),
                valid_types=options.get("requireValidPropertyType", False),
                structural=options.get("requireStructuralSchema", False),
                pruned_defaults=options.get("requirePrunedDefaults", False),
                atomic_sets=options.get("requireAtomicSetType", False),
                sound_keys=options.get("requireMapListKeysMapSetValidation", False),
                rules=compile_rule,
            )
            status = row["statusEnabled"]
            got = crdschema.problems(row["schema"], "spec.validation", demands, status=status)
            yield from matched(got, row["errors"])
        case "storedVersions":
            versions = [{"name": name, "storage": name == row["storageVersion"]} for name in row["versions"]]
            got = list(definition.stored_version_problems(row["storedVersions"] or [], versions))
            wrong = [
                {**error, "field": error["field"].replace(error["field"].split("[")[0], "status.storedVersions")}
                for error in row["errors"]
            ]
            yield from matched(got, wrong)
        case "deprecationWarning":
            yield "messages", warning_problems(row["warning"], deprecated=row["deprecated"]), row["messages"] or []
        case "maxCardinality":
            yield "cardinality", crdschema.cardinality(row["schemas"]), row["maxCardinality"]
        case "crdCost":
            total, worst = crdschema.total_cost(row["costs"])
            yield "total", total, row["total"]
            yield "worst", worst, row["mostExpensive"]


def test_definitions_are_judged_as_the_api_server_does() -> None:
    """Every case of crd_validation.jsonl that does not need the CEL compiler's costs and types."""
    count, found = differences("apiextensions/crd_validation.jsonl", checks)
    assert count >= 260
    assert_only_left_out(found, LEFT_OUT)
