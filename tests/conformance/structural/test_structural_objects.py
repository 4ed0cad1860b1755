"""Kubernetes' cases for what is an object's own: metadata, generation and status, printer columns."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from field_errors import told, wanted
from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core.age import human_duration
from wharfinger.core.clock import SECOND, rfc3339
from wharfinger.core.errors import Invalid, Malformed
from wharfinger.kinds.kind import Column, Kind
from wharfinger.kinds.structural import columns, embedded, objectmeta, strategy
from wharfinger.kinds.structural.node import read
from wharfinger.kinds.structural.schema import compile_schema

NOW = 1_790_000_000 * SECOND


def metadata(row: Row) -> Iterator[Check]:
    """Check one row of objectmeta.jsonl."""
    value = copy.deepcopy(row["object"])
    if row["op"] == "coerce":
        drop, root = row["dropInvalidFields"], row["includeRoot"]
        try:
            unknown = objectmeta.coerce(value, read(row["schema"]), root=root, drop=drop)
        except Malformed as error:
            yield "errors", told(error.fields), wanted(row["errors"])
            return
        yield "errors", [], row["errors"]
        yield "result", value, row["result"]
        yield "unknown", unknown, row["unknownFields"]
    elif row["op"] == "getObjectMeta":
        try:
            got, unknown = objectmeta.decode(value["metadata"], drop=row["dropInvalidFields"])
        except Malformed as error:
            yield "error", error.message, row.get("error")
            return
        yield "metadata", got, row.get("metadata")
        if "unknownFields" in row:
            tracked = row["returnUnknownFieldPaths"]
            yield "unknown", sorted(unknown) if tracked else [], sorted(row["unknownFields"])
    elif row["op"] == "validateEmbedded":
        yield "errors", told(embedded.resource_problems(value)), wanted(row["errors"])
    else:
        check = embedded.compile_check(read(row["schema"]), root=row["includeRoot"])
        yield "errors", told(check(value, "") if check else []), wanted(row["errors"])


def test_metadata_is_read_and_judged_as_the_api_server_does() -> None:
    """Every case of objectmeta.jsonl, with twelve wrong values at each place of a full ObjectMeta."""
    count, found = differences("apiextensions/objectmeta.jsonl", metadata)
    assert count > 740
    assert_only_left_out(found, {})


def kind_of(row: Row) -> Kind:
    """Return the kind that the objects of a row are of."""
    group, _, at = row["object"].get("apiVersion", "example.com/v1").partition("/")
    return Kind(group, at, "Foo", "foos", namespaced=False, schema=row.get("schema") or {})


def strategies(row: Row) -> Iterator[Check]:
    """Check one row of strategy.jsonl."""
    value, old = copy.deepcopy(row["object"]), row.get("oldObject")
    match row["op"]:
        case "prepareUpdate":
            strategy.prepare_update(value, old, status=row["statusEnabled"])
            yield "result", value, row["result"]
        case "prepareStatusUpdate":
            yield "result", strategy.prepare_status_update(value, old), row["result"]
        case "validateStatusUpdate":
            problems = strategy.validate_status_update(kind_of(row), compile_schema(row["schema"]), value, old)
            yield "errors", told(problems), wanted(row["errors"])
        case "validateCreate":
            problems = strategy.validate_create(kind_of(row), compile_schema(row["schema"]), value)
            yield "errors", told(problems), wanted(row["errors"])
        case "selectableFields":
            got = strategy.selectable_fields(row["jsonPaths"], value, namespaced=False)
            yield "fields", dict(got), row["result"]


def test_writes_of_custom_resources_follow_the_strategy() -> None:
    """Every case of strategy.jsonl: generation, status, list ratcheting, names, selectable fields."""
    count, found = differences("apiextensions/strategy.jsonl", strategies)
    assert count == 27
    assert_only_left_out(found, {})


def column(row: Row) -> Column:
    """Return a printer column of a CRD."""
    made = Column(row["name"], row["jsonPath"], row["type"], row.get("priority", 0), row.get("description", ""))
    return Column(made.name, made.path, made.type, made.priority, made.description, row.get("format", ""))


def tables(row: Row) -> Iterator[Check]:
    """Check one row of tableconvertor.jsonl."""
    match row["op"]:
        case "table":
            heads = row["headers"]
            chosen = [
                column({**head, "jsonPath": path[1:-1]}) for head, path in zip(heads[1:], row["jsonPaths"], strict=True)
            ]
            want, values = row["table"], row["object"].get("items") or [row["object"]]
            headers = want["columnDefinitions"] is not None
            made = columns.table(columns.compile_columns(chosen), values, NOW, "Object", headers=headers)
            yield "cells", [each["cells"] for each in made["rows"]], [each["cells"] for each in want["rows"]]
            got = [head["type"] for head in made.get("columnDefinitions", ())]
            yield "types", got, [head["type"] for head in want.get("columnDefinitions") or ()]
        case "cell":
            value = row["value"]
            if isinstance(value, dict) and "$nowOffsetSeconds" in value:
                value = rfc3339(NOW + value["$nowOffsetSeconds"] * SECOND)
            yield "cell", columns.cell(row["type"], value, NOW), row["cell"]
        case "printColumns":
            try:
                compiled = columns.compile_columns(map(column, row["columns"] or ()))
            except Invalid as error:
                yield "error", error.message, row.get("error")
                return
            made = columns.table(compiled, [row["object"]], NOW)
            yield "definitions", made["columnDefinitions"], row["columnDefinitions"]
            yield "cells", made["rows"][0]["cells"], row["cells"]
        case "humanDuration":
            yield "text", human_duration(row["seconds"] * SECOND), row["text"]


def test_printer_columns_print_as_the_api_server_does() -> None:
    """Every case of tableconvertor.jsonl: tables, cells, definitions, ages."""
    count, found = differences("apiextensions/tableconvertor.jsonl", tables)
    assert count > 262
    assert_only_left_out(found, {})
