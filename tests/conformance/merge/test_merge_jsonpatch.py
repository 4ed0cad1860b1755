"""Kubernetes' cases for JSON merge patches: applied, made from three documents, in conflict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core.errors import Conflict, Malformed
from wharfinger.local.merge import jsonpatch

LEFT_OUT: dict[str, str] = {}


def checks(row: Row) -> Iterator[Check]:
    """Check one row of jsonmergepatch.jsonl."""
    refused = "error" in row
    try:
        yield from values(row)
    except (Conflict, Malformed):
        yield "refused", True, refused
    else:
        yield "refused", False, refused


def values(row: Row) -> Iterator[Check]:
    """Check what a row computes."""
    match row["op"]:
        case "threeWay":
            original, modified, current = (row[name] or {} for name in ("original", "modified", "current"))
            patch = jsonpatch.three_way(original, modified, current)
            yield "patch", text(patch), text(row["patch"])
            yield "result", text(jsonpatch.merge(current, patch)), text(row["result"])
        case "splitNulls":
            yield "onlyNulls", text(jsonpatch.deletions(row["original"])), text(row["onlyNulls"])
            yield "withoutNulls", text(jsonpatch.changes(row["original"])), text(row["withoutNulls"])
        case "apply":
            yield "result", text(jsonpatch.merge(row["original"], row["patch"])), text(row.get("result"))
        case "hasConflicts":
            yield "result", jsonpatch.conflicts(row["a"], row["b"]), row["result"]


def text(value: Any) -> str:
    """Show a value, integers and floats apart."""
    return json.dumps(value, sort_keys=True)


def test_merge_patches_are_upstreams() -> None:
    """Merge patches applied, split, made of three documents and compared are apimachinery's and RFC 7396's."""
    count, found = differences("apimachinery/jsonmergepatch.jsonl", checks)
    assert_only_left_out(found, LEFT_OUT)
    assert count > 87
