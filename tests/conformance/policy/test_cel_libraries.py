"""Kubernetes' own cases for the quantity and semver libraries; ip, cidr, format and cost wait for the CEL compiler."""

from __future__ import annotations

from typing import Any

import pytest
from shared_material import rows

from wharfinger.core.errors import Invalid
from wharfinger.core.quantity import Quantity
from wharfinger.policy.cel import Environment, Unevaluable
from wharfinger.policy.celvalues import Semver

EMPTY = Environment({})
LEFT_OUT = {"ip": 38, "cidr": 32, "format": 211, "cost": 222}


def printed(value: Any) -> str:
    """Return a value as the cases print it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, Semver):
        return f"{value.major}.{value.minor}.{value.patch}" + ("-" + ".".join(value.pre) if value.pre else "")
    return str(value)


@pytest.mark.parametrize("library", ["quantity", "semver"])
def test_the_cases_of_a_library_pass(library: str) -> None:
    """Every case gives its value, or faults, or does not compile, as upstream's does."""
    count, wrong = 0, []
    for row in rows("dra/cel_libraries.jsonl"):
        if row["library"] != library:
            continue
        count += 1
        try:
            got: Any = EMPTY.compile(row["expression"], boolean=False).evaluate({})
        except Unevaluable:
            got = "fault"
        except Invalid:
            got = "refused"
        if row.get("compileErrorPatterns"):
            want: Any = "refused"
        elif row.get("runtimeErrorPattern"):
            want = "fault"
        elif row["resultType"] == "kubernetes.Quantity":
            want = Quantity.parse(row["result"])
        else:
            want, got = row["result"], printed(got)
        if got != want:
            wrong.append(f"{row['expression']}: got {got!r}, want {want!r}")
    assert not wrong, wrong
    assert count == {"quantity": 34, "semver": 33}[library]


def test_the_libraries_left_out_are_these() -> None:
    """What is not run is counted, so that a new case is noticed."""
    left: dict[str, int] = {}
    for row in rows("dra/cel_libraries.jsonl"):
        if row["library"] not in ("quantity", "semver"):
            left[row["library"]] = left.get(row["library"], 0) + 1
    assert left == LEFT_OUT
