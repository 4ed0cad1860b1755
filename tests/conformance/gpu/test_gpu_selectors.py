"""Kubernetes' cases of device selectors over our CEL."""

from __future__ import annotations

import pytest
from shared_material import rows

from wharfinger.core.errors import Invalid
from wharfinger.gpu.candidates import read
from wharfinger.gpu.inventory import Features
from wharfinger.policy.cel import DEVICE, Unevaluable, device_variables

LEFT_OUT = {
    "the feature ConsumableCapacity is not offered: device.allowMultipleAllocations does not compile": (
        "allow_multiple_allocations",
        "allow_multiple_allocations_default",
        "allow_multiple_allocations_enabled",
        "allow_multiple_allocations_false",
        "allow_multiple_allocations_new",
    ),
    "the feature ListTypeAttributes is not offered: includes() does not compile": (
        "includes-function-can-evaluate",
        "includes-function-compilation-and-eval-success",
        *(
            f"includes-function-on-{kind}-{shape}-{outcome}"
            for kind in ("bool", "int", "semver", "string")
            for shape in ("list", "scalar")
            for outcome in ("negative", "positive")
        ),
        "includes-function-on-very-long-list-positive",
    ),
    "a list attribute in a macro faults when evaluated, not when compiled: attributes are dyn": (
        "macro-compilation-error-new-expressions",
    ),
    "Kubernetes' regex library (find) is not offered: refused when compiled": ("expensive",),
}


def test_selectors_match_as_upstream_says() -> None:
    """Each case is a match, no match, a fault or refused, as upstream's; those left out are these and no other."""
    left = {name for names in LEFT_OUT.values() for name in names}
    seen: set[str] = set()
    wrong = []
    for row in rows("dra/selectors.jsonl"):
        if row.get("expectCompileError"):
            want: bool | str = "refused"
        elif row.get("expectMatchError"):
            want = "fault"
        else:
            want = row.get("expectMatch", False)
        try:
            got: bool | str = DEVICE.compile(row["expression"]).holds(device_variables(row.get("driver", ""), row))
        except Unevaluable:
            got = "fault"
        except Invalid:
            got = "refused"
        if got != want:
            seen.add(row["name"])
            if row["name"] not in left:
                wrong.append(f"{row['name']}: got {got}, want {want}")
            assert got is not True, "what is left out is never a yes"
    assert not wrong, wrong
    assert seen == left, "a case that passes by now must leave the table"


def test_derived_attributes_are_refused() -> None:
    """All 40 outside cases of attributes that a claim computes are left out: a claim that has one is refused."""
    count = 0
    for row in rows("dra/derived_attributes.jsonl"):
        derived = [{"name": "example.com/derived", "expression": row["expression"]}]
        exactly = {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "derivedAttributes": derived}
        claim = {
            "metadata": {"name": row["name"], "namespace": "blue"},
            "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}},
        }
        with pytest.raises(Invalid, match="derivedAttributes is not offered"):
            read(Features(), {"gpu": {"metadata": {"name": "gpu"}, "spec": {}}}, [claim])
        count += 1
    assert count == 40
