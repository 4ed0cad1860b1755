"""Printer columns: what `get` prints of an object (apiextensions, customresource/tableconvertor)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from wharfinger.core import printed
from wharfinger.core.age import human_duration
from wharfinger.core.clock import Instant, parse_rfc3339
from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid, Malformed
from wharfinger.core.jsonpath import parse
from wharfinger.kinds.kind import Column

Include = Literal["None", "Metadata", "Object"]

NAME: Final[dict[str, Any]] = {
    "name": "Name",
    "type": "string",
    "format": "name",
    "description": (
        "Name must be unique within a namespace. Is required when creating resources, although some resources may"
        " allow a client to request the generation of an appropriate name automatically. Name is primarily intended"
        " for creation idempotence and configuration definition. Cannot be updated. More info:"
        " https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
    ),
    "priority": 0,
}
"""The definition of the column that every table begins with."""


_NO_TIME: Final = frozenset({"", "null", "0001-01-01T00:00:00Z"})


@dataclass(frozen=True, slots=True)
class Columns:
    """Compiled printer columns: their definitions, as a Table has them, and what fills their cells."""

    definitions: tuple[dict[str, Any], ...]
    _fills: tuple[Callable[[Json, Instant], Json], ...]

    def cells(self, value: Json, now: Instant) -> list[Json]:
        """Return the cells of an object; ages are as of `now`. A path that finds nothing gives None."""
        return [fill(value, now) for fill in self._fills]


def compile_columns(columns: Iterable[Column]) -> Columns:
    """Return the columns ready to print. Raises `Invalid` for a path that is no JSONPath."""
    chosen = tuple(columns)
    definitions = tuple(
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description
            or f"Custom resource definition column (in JSONPath format): {column.path}",
            "priority": column.priority,
        }
        for column in chosen
    )
    return Columns(definitions, tuple(_fill(column) for column in chosen))


def _fill(column: Column) -> Callable[[Json, Instant], Json]:
    try:
        template = parse(f"{{{column.path}}}")
    except Malformed as error:
        raise Invalid(f"unrecognized column definition {printed.quoted(column.path)}", hint=error.message) from error
    kind = column.type

    def fill(value: Json, now: Instant) -> Json:
        found, first = template.first(value)
        if not found:
            return None
        if kind == "string":
            return "<no value>" if first is None else printed.text(first)
        return cell(kind, first, now)

    return fill


def cell(kind: str, value: Json, now: Instant) -> Json:
    """Return the cell of a column of type `kind` for a value; None for one that does not fit."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "integer":
        return int(value) if number else None
    if kind == "number":
        return float(value) if number else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "date" and isinstance(value, str):
        return age(value, now)
    return None


def age(text: str, now: Instant) -> str:
    """Return how long ago the time was that `text` names.

    `<unknown>` for no time at all, `<invalid>` for a text that names none and for a time still to come.
    """
    if text in _NO_TIME:
        return "<unknown>"
    try:
        return human_duration(now - parse_rfc3339(text))
    except Malformed:
        return "<invalid>"


def table(
    columns: Columns, values: Sequence[Json], now: Instant, include: Include = "Metadata", *, headers: bool = True
) -> Json:
    """Return the Table of `values`, its first column their names (meta/v1 Table)."""
    rows = []
    for value in values:
        row: dict[str, Json] = {"cells": [value.get("metadata", {}).get("name", ""), *columns.cells(value, now)]}
        if include == "Object":
            row["object"] = value
        elif include == "Metadata":
            metadata = value.get("metadata", {})
            row["object"] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        rows.append(row)
    made: dict[str, Json] = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}}
    if headers:
        made["columnDefinitions"] = [NAME, *columns.definitions]
    made["rows"] = rows
    return made
