"""Kubernetes' cases for strategic merge patches: made from two and from three documents, applied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from shared_material import material
from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core.errors import Conflict, Invalid, Malformed
from wharfinger.local.merge import strategic, strategicdiff
from wharfinger.local.merge.strategic import Field, Shape

LEFT_OUT = {
    "sortMergeLists: a helper of upstream's tests, which sorts lists to compare them; it is no part of the patch": (
        "1.helper 2.helper 3.helper 4.helper 5.helper 6.helper 7.helper 8.helper"
    )
}


@cache
def shape(name: str) -> Shape:
    """Return the shape of a struct of the cases."""
    types = json.loads(material("apimachinery/strategic_merge_schema.json").read_text(encoding="utf-8"))["types"]

    def below(kind: Row) -> Shape:
        if kind["kind"] == "struct":
            return shapes[kind["type"]]
        inner = kind.get("to") or kind.get("items")
        return below(inner) if inner else Shape()

    shapes = {type_: Shape({}) for type_ in types}
    for type_, definition in types.items():
        fields = shapes[type_].fields
        assert isinstance(fields, dict)
        for field, kind in definition["fields"].items():
            strategies = kind.get("patchStrategy", [])
            fields[field] = Field(
                below(kind),
                strategy=next((one for one in strategies if one != "retainKeys"), ""),
                retain_keys="retainKeys" in strategies,
                merge_key=kind.get("patchMergeKey", ""),
            )
    return shapes[name]


def checks(row: Row) -> Iterator[Check]:
    """Check one row of strategic_merge.jsonl."""
    refused = "error" in row["got"]
    try:
        yield from values(row)
    except (Malformed, Invalid):
        yield "refused", True, refused
    else:
        yield "refused", False, refused


def values(row: Row) -> Iterator[Check]:
    """Check what a row computes."""
    got, type_ = row["got"], shape(row["type"])
    original, modified, current = (row.get(name) or {} for name in ("original", "modified", "current"))
    match row["op"]:
        case "apply":
            yield "result", text(strategic.apply(original, row["patch"], type_)), text(got.get("result"))
        case "twoWay":
            patch = strategicdiff.two_way(original, modified, type_)
            yield "patch", text(patch), text(got.get("patch"))
            yield "result", text(strategic.apply(original, patch, type_)), text(got.get("result"))
        case "threeWay":
            patch = strategicdiff.three_way(original, modified, current, type_)
            yield "patch", text(patch), text(got.get("patch"))
            yield "result", text(strategic.apply(current, patch, type_)), text(got.get("result"))
            yield "conflict", conflicts(original, modified, current, type_), got.get("conflict")
        case helper:
            yield "helper", helper, None


def conflicts(original: Any, modified: Any, current: Any, type_: Shape) -> bool:
    """Say whether a patch that does not overwrite conflicts."""
    try:
        strategicdiff.three_way(original, modified, current, type_, overwrite=False)
    except Conflict:
        return True
    return False


def text(value: Any) -> str:
    """Show a value, integers and floats apart."""
    return json.dumps(value, sort_keys=True)


def test_strategic_merge_patches_are_upstreams() -> None:
    """Patches made from two or three documents, and what applying them gives, are apimachinery's."""
    count, found = differences("apimachinery/strategic_merge.jsonl", checks)
    assert_only_left_out(found, LEFT_OUT)
    assert count > 309
