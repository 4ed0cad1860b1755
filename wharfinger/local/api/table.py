"""Objects in other shapes: as rows of a Table, or by their metadata alone (meta/v1). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from wharfinger.core.clock import Instant
from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt
from wharfinger.local.api.served import Resource

Include = Literal["None", "Metadata", "Object"]
_TABLE: Final = {"kind": "Table", "apiVersion": "meta.k8s.io/v1"}


def include_of(text: str) -> Include:
    """Return what of the object a row is to hold, as `includeObject` says. Raises `Malformed`."""
    if text in {"", "Metadata"}:
        return "Metadata"
    if text in {"None", "Object"}:
        return text  # type: ignore[return-value]
    raise Malformed(f"expected includeObject to be None, Metadata or Object, got {excerpt(text)}")


def partial(value: Json) -> Json:
    """Return the object's PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]}


def table(resource: Resource, values: Iterable[Json], metadata: Json, include: Include, now: Instant) -> Json:
    """Return the Table of `values`, objects of `resource`; ages are as of `now`."""
    rows = resource.rows
    made = []
    for value in values:
        row: dict[str, Json] = {"cells": list(rows.cells(value, now))}
        if include == "Object":
            row["object"] = value
        elif include == "Metadata":
            row["object"] = partial(value)
        made.append(row)
    return {**_TABLE, "metadata": metadata, "columnDefinitions": list(rows.definitions), "rows": made}
