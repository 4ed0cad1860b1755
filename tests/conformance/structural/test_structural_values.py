"""Kubernetes' cases for what a schema makes of a value: defaults, pruning, validation, list types, formats."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from field_errors import told, wanted
from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.kinds.structural import defaulting, formats, listtypes, pruning
from wharfinger.kinds.structural.node import read
from wharfinger.kinds.structural.rules import Walk, ask, compile_rules
from wharfinger.kinds.structural.schema import compile_schema
from wharfinger.local.api.rules import compile_rule


def version(text: str) -> tuple[int, int]:
    """Return a minor version of Kubernetes."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def prunes(row: Row) -> Iterator[Check]:
    """Check one row of pruning.jsonl."""
    prune = pruning.compile_pruning(read(row["schema"]), root=row["isRoot"])
    whole, kept = copy.deepcopy(row["object"]), copy.deepcopy(row["object"])
    yield "unknown", prune(whole, False), row["pruned"]
    yield "untouched", whole, row["object"]
    yield "pruned", prune(kept, True), row["pruned"]
    yield "result", kept, row["result"]


def test_unknown_fields_are_found_and_dropped() -> None:
    """Every case of pruning.jsonl: what is left, which paths are reported, and that asking alone changes nothing."""
    count, found = differences("apiextensions/pruning.jsonl", prunes)
    assert count == 4 * 11
    assert_only_left_out(found, {})


def defaults(row: Row) -> Iterator[Check]:
    """Check one row of defaulting.jsonl."""
    if row["op"] not in {"default", "pruneNulls"}:
        return
    node, value = read(row["schema"]), copy.deepcopy(row["object"])
    step = defaulting.compile_defaults(node) if row["op"] == "default" else defaulting.compile_nulls(node)
    if step is not None:
        step(value)
    yield "result", value, row["result"]


def test_defaults_are_filled_in_and_nulls_dropped() -> None:
    """The 17 cases of defaulting.jsonl about objects."""
    count, found = differences("apiextensions/defaulting.jsonl", defaults)
    assert count == 17
    assert_only_left_out(found, {})


def validates(row: Row) -> Iterator[Check]:
    """Check one row of validation.jsonl."""
    at = version(row.get("compatVersion", "1.36"))
    if row["op"] == "unrecognizedFormats":
        schema = dict(row["schema"])
        if isinstance(schema.get("type"), list):
            schema["type"] = ""
        yield "formats", formats.unrecognized(read(schema), at), row["result"]
        return
    schema = compile_schema(row["schema"], version=at)
    value, old = row["object"], row.get("oldObject")
    yield "errors", told(schema.mismatches(value, old if row["op"] == "update" else None)), wanted(row["errors"])
    step = compile_rules(schema.node, compile_rule)
    walk = Walk()
    if step is not None and row["op"] == "update":
        walk = ask(step, value, old, schema.node)
    elif step is not None:
        step(value, old, "", None, None, walk)
    yield "rules", told(walk.problems), wanted(row["celErrors"])
    yield "warnings", sorted(map(str, walk.excused)), sorted(row.get("warnings") or [])


def test_values_are_validated_word_for_word() -> None:
    """Every case of validation.jsonl: on create and on update, with rules; formats by version."""
    count, found = differences("apiextensions/validation.jsonl", validates)
    assert count == 12 + 3 * 315
    assert_only_left_out(found, {})


def test_formats_are_those_that_upstream_knows() -> None:
    """Every format of formats.jsonl is known since the same version, and no other."""

    def checks(row: Row) -> Iterator[Check]:
        yield "introduced", formats.INTRODUCED.get(formats.normal(row["format"])), version(row["introduced"])

    count, found = differences("apiextensions/formats.jsonl", checks)
    assert count == len(formats.INTRODUCED) == 26
    assert_only_left_out(found, {})


def repeats(row: Row) -> Iterator[Check]:
    """Check one row of listtype.jsonl."""
    check = listtypes.compile_uniqueness(read(row["schema"]))
    problems: list[Any] = list(check(row["object"], "root")) if check is not None else []
    yield "errors", told(problems), wanted(row["errors"])


def test_sets_and_map_lists_hold_each_item_once() -> None:
    """Every case of listtype.jsonl."""
    count, found = differences("apiextensions/listtype.jsonl", repeats)
    assert count == 17
    assert_only_left_out(found, {})
