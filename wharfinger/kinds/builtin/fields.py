"""The words in which built-in schemas are written: one function for each sort of field.

Each returns an OpenAPI v3 schema that is structural. A name that ends in `!` is required. A `record` carries its
Kubernetes type name as `title`, so that OpenAPI can publish it once and refer to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wharfinger.kinds.kind import Schema
from wharfinger.kinds.schema import QUANTITY_PATTERN

_API: Final = "io.k8s.api."
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."


def record(name: str, text: str, fields: Mapping[str, Schema], *, atomic: bool = False) -> Schema:
    """Return the schema of the Kubernetes type `name`, such as `core.v1.Container` or `meta.v1.LabelSelector`."""
    made: Schema = {
        "type": "object",
        "title": _META + name.removeprefix("meta.v1.") if name.startswith("meta.v1.") else _API + name,
        "description": text,
        "properties": {field.rstrip("!"): schema for field, schema in fields.items()},
    }
    required = [field[:-1] for field in fields if field.endswith("!")]
    if required:
        made["required"] = required
    if atomic:
        made["x-kubernetes-map-type"] = "atomic"
    return made


def string(text: str, **more: Any) -> Schema:
    """Return the schema of a text; `more` are OpenAPI keywords such as `default` and `enum`."""
    return {"type": "string", "description": text, **more}


def one_of(text: str, *values: str, **more: Any) -> Schema:
    """Return the schema of a text that is one of `values`."""
    return string(text, enum=list(values), **more)


def boolean(text: str, **more: Any) -> Schema:
    """Return the schema of a truth value."""
    return {"type": "boolean", "description": text, **more}


def int32(text: str, **more: Any) -> Schema:
    """Return the schema of an integer of 32 bits."""
    return {"type": "integer", "format": "int32", "description": text, **more}


def int64(text: str, **more: Any) -> Schema:
    """Return the schema of an integer of 64 bits."""
    return {"type": "integer", "format": "int64", "description": text, **more}


def time(text: str) -> Schema:
    """Return the schema of an RFC 3339 time."""
    return string(text, format="date-time")


def quantity(text: str, **more: Any) -> Schema:
    """Return the schema of a quantity: `500m`, `2Gi`, `3`."""
    return {"x-kubernetes-int-or-string": True, "description": text, "pattern": _SIGNED_QUANTITY, **more}


_SIGNED_QUANTITY: Final = QUANTITY_PATTERN.replace(r"^\+?", r"^[+-]?")


def int_or_string(text: str, **more: Any) -> Schema:
    """Return the schema of an integer or a text: a port's number or name, a count or percentage."""
    return {"x-kubernetes-int-or-string": True, "description": text, **more}


def bytes_map(text: str) -> Schema:
    """Return the schema of a map of base64 texts."""
    return {"type": "object", "description": text, "additionalProperties": {"type": "string", "format": "byte"}}


def mapping(values: Schema, text: str, **more: Any) -> Schema:
    """Return the schema of a map from texts to `values`."""
    return {"type": "object", "description": text, "additionalProperties": values, **more}


def string_map(text: str, *, atomic: bool = False) -> Schema:
    """Return the schema of a map of texts; `atomic` says that it is replaced as a whole."""
    more = {"x-kubernetes-map-type": "atomic"} if atomic else {}
    return mapping({"type": "string"}, text, **more)


def quantities(text: str) -> Schema:
    """Return the schema of a map of quantities, by resource name."""
    return mapping(quantity("An amount."), text)


def anything(text: str) -> Schema:
    """Return the schema of an object that is kept as it comes."""
    return {"type": "object", "description": text, "x-kubernetes-preserve-unknown-fields": True}


def one(kind: Schema, text: str, **more: Any) -> Schema:
    """Return the schema of a field that holds one `kind`, described here by `text`."""
    return {**kind, "description": text, **more}


def many(items: Schema, text: str, **more: Any) -> Schema:
    """Return the schema of a list that is replaced as a whole."""
    return {"type": "array", "description": text, "items": items, "x-kubernetes-list-type": "atomic", **more}


def strings(text: str, **more: Any) -> Schema:
    """Return the schema of a list of texts that is replaced as a whole."""
    return many({"type": "string"}, text, **more)


def unique(items: Schema, text: str, *, merged: bool = False) -> Schema:
    """Return the schema of a list whose items occur once; `merged` says that a strategic patch merges it."""
    made: Schema = {"type": "array", "description": text, "items": items, "x-kubernetes-list-type": "set"}
    if merged:
        made["x-kubernetes-patch-strategy"] = "merge"
    return made


def keyed(items: Schema, text: str, *keys: str, patch: str = "merge", **more: Any) -> Schema:
    """Return the schema of a list that is a map by `keys`.

    A strategic patch merges it by the first of them, with the strategy `patch` (empty for none).
    """
    made: Schema = {
        "type": "array",
        "description": text,
        "items": items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
        **more,
    }
    if patch:
        made["x-kubernetes-patch-strategy"] = patch
        made["x-kubernetes-patch-merge-key"] = keys[0]
    return made


def whole(name: str, text: str, fields: Mapping[str, Schema]) -> Schema:
    """Return the schema of a whole object of the Kubernetes type `name`, with the fields that every object has."""
    return record(
        name,
        text,
        {
            "apiVersion": string("Group and version of this representation."),
            "kind": string("The kind of this object."),
            "metadata": {"type": "object", "description": "What every object has: name, labels, owners and so on."},
            **fields,
        },
    )
