"""Kubernetes' cases for sets of fields: parsing, canonical form, algebra, texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from shared_material import material
from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core.document import parse_json
from wharfinger.core.errors import Malformed
from wharfinger.local.merge import fieldpath, ownership, pathelement, schema, typed
from wharfinger.local.merge.fieldpath import FieldSet, Pattern

LEFT_OUT: dict[str, str] = {}


def text(fields: FieldSet) -> str:
    """Show a set as fieldsV1, with its order."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


@cache
def schemas() -> dict[str, Any]:
    """Return the schemas that the cases name."""
    return json.loads(material("apimachinery/smd_schemas.json").read_text(encoding="utf-8"))


def checks(row: Row) -> Iterator[Check]:
    """Check one row of smd_fieldpath.jsonl."""
    refused = "error" in row
    try:
        yield from values(row)
    except Malformed:
        yield "refused", True, refused
    else:
        yield "refused", False, refused and row["error"] != "unknown path element type"


def values(row: Row) -> Iterator[Check]:
    """Check what a row computes."""
    match row["op"]:
        case "parseSet":
            fields = fieldpath.parse(parse_json(row["input"]))
            yield "canonical", text(fields), row.get("canonical")
            yield "paths", [fieldpath.show(path) for path in fieldpath.paths(fields)], row.get("paths")
            yield "again", text(fieldpath.parse(json.loads(text(fields)))), row.get("canonical")
        case "parsePathElement":
            element = pathelement.parse(row["input"])
            yield "canonical", element, row.get("canonical")
            if "string" in row:
                yield "string", pathelement.show(row["canonical"]), row["string"]
        case "setOps":
            a, b = fieldpath.parse(row["a"]), fieldpath.parse(row["b"])
            yield "union", text(fieldpath.union(a, b)), text(row["union"])
            yield "unionReversed", text(fieldpath.union(b, a)), text(row["union"])
            yield "intersection", text(fieldpath.intersection(a, b)), text(row["intersection"])
            yield "aMinusB", text(fieldpath.difference(a, b)), text(row["aMinusB"])
            yield "bMinusA", text(fieldpath.difference(b, a)), text(row["bMinusA"])
            yield "aRecursiveMinusB", text(fieldpath.without(a, b)), text(row["aRecursiveMinusB"])
            yield "equal", a == b, row["equal"]
        case "leaves":
            yield "result", text(fieldpath.leaves(fieldpath.parse(row["set"]))), text(row["result"])
        case "filterInclude":
            kept = fieldpath.matching(fieldpath.parse(row["set"]), pattern(row["matcher"]))
            yield "result", text(kept), text(row["result"])
        case "ensureNamedFieldsAreMembers":
            type_ = schema.compile_type(schemas()[row["schema"]], row["type"])
            yield "result", text(typed.named_members(type_, fieldpath.parse(row["set"]))), text(row["result"])
        case "setFromValue":
            yield "set", text(fieldpath.of_value(row["object"])), text(row["set"])
        case "pathString":
            shown = [fieldpath.show(path) for path in fieldpath.paths(fieldpath.parse(row["set"]))]
            yield "string", shown, [row["string"]]
        case "conflictText":
            yield "text", ownership.contested_text(list(held(row))), row["text"]


def pattern(matcher: Row) -> Pattern:
    """Return a row's matcher."""
    below = tuple((one["element"], pattern(one["child"])) for one in matcher["members"])
    return Pattern(matcher["all"], below)


def held(row: Row) -> Iterator[tuple[str, fieldpath.Path]]:
    """Yield the conflicts of a row."""
    for manager, owned in row["managed"].items():
        for path in fieldpath.paths(fieldpath.parse(owned["fieldsV1"])):
            yield manager, path


def test_sets_of_fields_are_upstreams() -> None:
    """Parsing, canonical form, algebra, filters and texts of field sets are structured-merge-diff's."""
    count, found = differences("apimachinery/smd_fieldpath.jsonl", checks)
    assert_only_left_out(found, LEFT_OUT)
    assert count > 195
