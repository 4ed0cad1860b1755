"""Kubernetes' cases for schemas themselves: which are structural, which fields a path names."""

from __future__ import annotations

from collections.abc import Iterator

from field_errors import told, wanted
from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core.errors import Malformed
from wharfinger.kinds.structural import celnames, fieldpath, structure
from wharfinger.kinds.structural import defaults as schema_defaults
from wharfinger.kinds.structural.node import read
from wharfinger.local.api.rules import compile_rule


def structures(row: Row) -> Iterator[Check]:
    """Check one row of structural.jsonl."""
    options = row.get("options") or {}
    lenient = structure.Leniency(
        additional=options.get("allowNestedAdditionalProperties", False),
        rules=options.get("allowNestedXValidations", False),
        properties_of_maps=options.get("allowValidationPropertiesWithAdditionalProperties", False),
    )
    if row["op"] == "completeness":
        yield "errors", told(structure.incomplete(row["schema"], "", lenient)), wanted(row["errors"])
        return
    if row["op"] == "metadataInvariants":
        # Upstream empties the type while it checks, before the case is written out: its name still tells it.
        kind = row["name"].removeprefix("type ") if row["name"].startswith("type ") else "object"
        schema = {"type": kind, **row["schema"]}
        found = structure.metadata_invariants(schema, "root", "", checked=True)
        yield "errors", told(found), wanted(row["errors"])
        return
    try:
        problems = structure.problems(row["schema"])
    except Malformed as error:
        yield "conversion", error.message, row.get("conversionError")
        return
    yield "structural", not problems, row["structural"]
    yield "errors", told(problems), wanted(row["errors"])


def test_structural_schemas_are_told_from_others() -> None:
    """Every case of structural.jsonl, with its errors."""
    count, found = differences("apiextensions/structural.jsonl", structures)
    assert count > 187
    assert_only_left_out(found, {})


def defaults(row: Row) -> Iterator[Check]:
    """Check one row of defaulting.jsonl about the defaults of a schema."""
    if row["op"] == "pruneDefaults":
        try:
            yield "result", schema_defaults.pruned_document(row["schema"]), row.get("result")
        except Malformed as error:
            yield "error", error.message, row.get("error")
    elif row["op"] == "validateDefaults":
        found = schema_defaults.problems(read(row["schema"]), "test", compile_rule, budget=row["costBudget"])
        if row["costBudget"] < 10:
            yield "errors", [each.message.split(": ", 2)[2] for each in found], [e["detail"] for e in row["errors"]]
        else:
            yield "errors", told(found), wanted(row["errors"])


def test_defaults_of_schemas_are_pruned_and_judged() -> None:
    """The 11 cases of defaulting.jsonl about schemas."""
    count, found = differences("apiextensions/defaulting.jsonl", defaults)
    assert count == 11
    assert_only_left_out(
        found,
        {
            "the budget is in upstream's units of cost, which are smaller than ours": "14.errors",
            "optionalOldSelf needs optional types, which wait for the CEL compiler": "17.errors 18.errors",
        },
    )


def paths(row: Row) -> Iterator[Check]:
    """Check one row of cel_fieldpath.jsonl."""
    try:
        path, _ = fieldpath.resolve(row["fieldPath"], read(row["schema"]))
    except Malformed as error:
        yield "error", error.message, row.get("error")
        return
    yield "path", path, row.get("path")


def test_field_paths_lead_to_fields_of_the_schema() -> None:
    """Every case of cel_fieldpath.jsonl."""
    count, found = differences("apiextensions/cel_fieldpath.jsonl", paths)
    assert count == 51
    assert_only_left_out(found, {})


def names(row: Row) -> Iterator[Check]:
    """Check one row of cel_names.jsonl."""
    if row["op"] == "escape":
        escaped = celnames.escape(row["name"])
        yield "escapable", escaped is not None, row["escapable"]
        yield "escaped", escaped or "", row.get("escaped", "")
    else:
        yield "unescapable", celnames.unescape(row["name"]) is not None, row["unescapable"]


def test_property_names_have_identifiers_in_cel() -> None:
    """Every case of cel_names.jsonl, both ways."""
    count, found = differences("apiextensions/cel_names.jsonl", names)
    assert count > 61
    assert_only_left_out(found, {})
