"""Kubernetes' cases for values under a type: validation, comparison, merging, sets, parts, reconciliation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from shared_material import material
from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core.errors import WharfingerError
from wharfinger.local.merge import comparison, fieldpath, merging, schema, typed
from wharfinger.local.merge.fieldpath import FieldSet
from wharfinger.local.merge.schema import Type

LEFT_OUT: dict[str, str] = {}


def text(fields: FieldSet | None) -> str | None:
    """Show a set as fieldsV1, with its order."""
    return None if fields is None else json.dumps(fields, ensure_ascii=False)


@cache
def schemas() -> dict[str, Any]:
    """Return the schemas that the cases name."""
    made = json.loads(material("apimachinery/smd_schemas.json").read_text(encoding="utf-8"))
    made["k8s"] = json.loads(material("apimachinery/smd_schema_k8s.json").read_text(encoding="utf-8"))
    return made


@cache
def compiled(name: str, type_: str) -> Type:
    """Return a type of a schema."""
    return schema.compile_type(schemas()[name], type_)


def refused(type_: Type, value: Any, *, duplicates: bool) -> bool:
    """Say whether a value is not of its type."""
    try:
        typed.check(type_, value, duplicates=duplicates)
    except WharfingerError:
        return True
    return False


def checks(row: Row) -> Iterator[Check]:
    """Check one row of smd_typed.jsonl."""
    type_ = compiled(row["schema"], row["type"])
    match row["kind"]:
        case "validate":
            yield "error", refused(type_, row["object"], duplicates=False), row["error"] is not None
            allowed = row["errorAllowDuplicates"] is None
            yield "duplicates", refused(type_, row["object"], duplicates=True), not allowed
        case "merge":
            yield "result", merging.merge(type_, row["lhs"], row["rhs"]), row["result"]
        case "compare":
            forth = comparison.compare(type_, row["lhs"], row["rhs"])
            back = comparison.compare(type_, row["rhs"], row["lhs"])
            want = [text(row[one]) for one in ("removed", "modified", "added")]
            yield "forth", list(map(text, forth)), want
            yield "back", list(map(text, reversed(back))), want
            if row["lhs"] == {}:
                yield "whole", text(comparison.all_fields(type_, row["rhs"])), text(row["added"])
        case "toFieldSet":
            fields = typed.field_set(type_, row["object"])
            yield "set", text(fields), text(row["set"])
            yield "leaves", text(fieldpath.leaves(fields)), text(row["leaves"])
        case "removeExtract":
            fields = fieldpath.parse(row["set"])
            yield "removed", typed.remove(type_, row["object"], fields), row["removed"]
            yield "extracted", typed.extract(type_, row["object"], fields), row["extracted"]
        case "applyThenExtract":
            merged = merging.merge(type_, row["object"], row["config"])
            fields = typed.field_set(type_, row["config"])
            yield "merged", merged, row["merged"]
            yield "set", text(fields), text(row["set"])
            yield "leaves", text(fieldpath.leaves(fields)), text(row["leaves"])
            yield "extracted", typed.extract(type_, merged, fieldpath.leaves(fields)), row["extracted"]
        case "extractWithKeys":
            fields = typed.with_keys(type_, row["object"], fieldpath.parse(row["set"]))
            yield "extracted", typed.extract(type_, row["object"], fields), row["extracted"]
        case "reconcile":
            fields = fieldpath.parse(row["set"])
            fixed = typed.reconcile(type_, fields)
            yield "reconciled", None if fixed is fields else text(fixed), text(row["reconciled"])


def test_values_under_a_type_are_treated_as_upstream_does() -> None:
    """Validation, comparison, merging, field sets, parts and reconciliation are structured-merge-diff's."""
    count, found = differences("apimachinery/smd_typed.jsonl", checks)
    assert_only_left_out(found, LEFT_OUT)
    assert count > 433
