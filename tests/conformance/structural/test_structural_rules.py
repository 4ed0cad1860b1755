"""Kubernetes' cases for validation rules in CEL: what of them holds before the CEL compiler, and what waits for it."""

from __future__ import annotations

import json
import re
from collections import Counter

from shared_material import rows
from vector_table import Row, assert_only_left_out

from wharfinger.core.errors import Invalid, TooLarge
from wharfinger.kinds.structural.node import read
from wharfinger.kinds.structural.rules import Walk, ask, compile_rules
from wharfinger.local.api.rules import compile_rule

WAITING = {
    "times and durations are texts until the CEL compiler": (
        r"duration\(|timestamp\(|\.get(Hours|Date|Month|Minutes|Seconds|Milliseconds|FullYear|Day\w*)\("
        r"|google\.protobuf|\"format\": \"(date|date-time|duration|datetime)\""
    ),
    "byte texts are texts until the CEL compiler": r"\bb['\"]|bytes|\"format\": \"byte\"",
    "optional types wait for the CEL compiler": (
        r"optional|\.\?|\[\?|orValue|oldSelf\.(hasValue|value)|optMap|optFlatMap|optionalOldSelf"
    ),
    "libraries that wait for the CEL compiler": (
        r"\b(sets|url|isURL|ip|isIP|cidr|isCIDR|format|authorizer|semver|isSemver|math|jsonpatch)\b[.(]"
        r"|\.(find|findAll|isSorted|sum|min|max|sort|sortBy|reverse|distinct|flatten|slice|first|last|format"
        r"|indexOf|lastIndexOf|containsIP|containsCIDR|prefixLength|masked|validate|quote)\(|lists\.range|strings\.quote"
    ),
    "macros of two variables wait for the CEL compiler": r"transform(List|Map|MapEntry)\(|\.(all|exists|existsOne)\(\w+, \w+,",
}
"""Reasons for which a run may fail, each with what shows in its schema and rules."""

LEFT_OUT = {
    "an int and a double are compared in an expression without a type known to be either": "3.65 3.66",
    "a set and a map list compare and add up as lists until the CEL compiler": """
        16.1 17.0 17.1 17.2 17.4 17.5 42.0 173.6 174.0 174.2 174.3 174.4 174.5 196.0
    """,
    "an embedded resource's reserved words may be written as they are": "29.0 29.1 29.2 29.3",
    "an object's fields have no types in CEL yet: what is not declared is told when it is asked for": """
        35.7 35.8 35.9 35.10 35.11 36.7 37.8 37.9 37.10 37.11
    """,
    "the front end takes no index into a map as the range of a macro": "43.3 197.12",
    "a value of the wrong type never comes to its rules: validation blocks them": "44.0 44.1 44.2 44.3 44.4 44.5",
    "budgets are in units of our own": "87.0 88.0 89.0 120.0",
    "a chain of 60 comparisons is nested deeper than the front end goes": "91.0",
}

ASKED = 1198
PASSING = 717
WAIT = {"times": 129, "byte": 37, "optional": 97, "libraries": 141, "macros": 34}


def run_of(row: Row, run: Row) -> tuple[str, list[tuple[str, str]]]:
    """Return the schema of a run as text, and the reasons and fields of what is told of its object."""
    schema = dict(row["schema"])
    if "rule" in run:
        schema["x-kubernetes-validations"] = [run["rule"] if isinstance(run["rule"], dict) else {"rule": run["rule"]}]
    node = read(schema)
    step = compile_rules(node, compile_rule, root=run.get("isRoot", False))
    if step is None:
        return json.dumps(schema), []
    walk = Walk()
    if run.get("ratcheting"):
        walk = ask(step, row["object"], row.get("oldObject"), node)
    else:
        step(row["object"], row.get("oldObject"), "", None, None, walk)
    return json.dumps(schema), sorted((problem.reason, problem.field) for problem in walk.problems)


def test_rules_refuse_what_upstream_refuses() -> None:
    """Of the 1,198 runs of cel_rules.jsonl the table says which wait, and why; all others give upstream's errors."""
    passed, waiting, found = 0, Counter[str](), dict[str, str]()
    for line, row in enumerate(rows("apiextensions/cel_rules.jsonl"), start=1):
        for number, run in enumerate(row["runs"]):
            text, got = run_of(row, run)
            fields = ((error["type"], error["field"]) for error in run["errors"])
            want = sorted((kind, field.removeprefix("root").removeprefix(".")) for kind, field in fields)
            if got == want:
                passed += 1
                continue
            reasons = [reason for reason, pattern in WAITING.items() if re.search(pattern, text)]
            if reasons:
                waiting[reasons[0].split(" ")[0]] += 1
            else:
                found[f"{line}.{number}"] = f"got {got!r}, want {want!r}"
    print(f"cel_rules.jsonl: {passed} of {ASKED} pass; waiting {dict(waiting)}; left out {len(found)}")
    assert_only_left_out(found, LEFT_OUT)
    assert dict(waiting) == WAIT
    assert (passed, passed + sum(waiting.values()) + len(found)) == (PASSING, ASKED)


COMPILED = (426, 55)
COMPILED_LEFT_OUT = {
    "an empty rule is skipped before it is compiled": "19.0",
    "a function that upstream's test makes up": "24.0",
    "the front end takes no index into a map as the range of a macro": "417.0",
}


def test_rules_compile_where_upstream_compiles_them() -> None:
    """Of the rules of cel_compile.jsonl: which compile, and which ask for `oldSelf`; costs wait for the compiler."""
    passed, waiting, found = 0, 0, dict[str, str]()
    for line, row in enumerate(rows("apiextensions/cel_compile.jsonl"), start=1):
        node = read(row["schema"])
        for number, (rule, result) in enumerate(zip(node.rules, row["results"], strict=True)):
            want: bool | str = bool(result.get("usesOldSelf")) if not result.get("error") else "refused"
            got: bool | str
            try:
                got = compile_rule(str(rule["rule"]), node, row["isRoot"], True).transition
            except (Invalid, TooLarge):
                got = "refused"
            if got == want:
                passed += 1
            elif any(re.search(pattern, json.dumps(row["schema"])) for pattern in WAITING.values()):
                waiting += 1
            else:
                found[f"{line}.{number}"] = f"got {got}, want {want}"
    print(f"cel_compile.jsonl: {passed} rules pass; waiting {waiting}; left out {len(found)}")
    assert_only_left_out(found, COMPILED_LEFT_OUT)
    assert (passed, waiting) == COMPILED
