"""Causes: what is wrong with a field, in the words that Kubernetes clients know.

Each function makes one `FieldProblem` whose reason is a cause type of a Kubernetes Status and whose
message starts as the API server's does (`Invalid value: "x": ...`), so that tools which read those
messages keep working (k8s.io/apimachinery, util/validation/field).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wharfinger.core.errors import FieldProblem
from wharfinger.core.printed import LONGEST_QUOTE, as_json, number, quoted


def child(path: str, name: str) -> str:
    """Return the path of the field `name` below `path`; the root is the empty path."""
    return f"{path}.{name}" if path else name


def item(path: str, index: int) -> str:
    """Return the path of the item at `index` of a list."""
    return f"{path}[{index}]"


def key_of(path: str, key: str) -> str:
    """Return the path of the entry `key` of a map."""
    return f"{path}[{key}]"


def invalid(field: str, value: Any, detail: str) -> FieldProblem:
    """Return the cause for a `value` of the right type that is wrong."""
    return FieldProblem(field, f"Invalid value: {shown(value)}: {detail}")


def type_invalid(field: str, value: Any, detail: str) -> FieldProblem:
    """Return the cause for a `value` of the wrong type."""
    return FieldProblem(field, f"Invalid value: {shown(value)}: {detail}", "FieldValueTypeInvalid")


def required(field: str, detail: str = "") -> FieldProblem:
    """Return the cause for a value that is missing."""
    return FieldProblem(field, _joined("Required value", detail), "FieldValueRequired")


def forbidden(field: str, detail: str) -> FieldProblem:
    """Return the cause for a field that must not be set here or by this caller."""
    return FieldProblem(field, f"Forbidden: {detail}", "FieldValueForbidden")


def duplicate(field: str, value: Any) -> FieldProblem:
    """Return the cause for a `value` that must be unique and is there already."""
    return FieldProblem(field, f"Duplicate value: {shown(value)}", "FieldValueDuplicate")


def not_found(field: str, value: Any) -> FieldProblem:
    """Return the cause for a `value` that names something which is not there."""
    return FieldProblem(field, f"Not found: {shown(value)}", "FieldValueNotFound")


def not_supported(field: str, value: Any, supported: Iterable[str]) -> FieldProblem:
    """Return the cause for a `value` that is none of the `supported` ones."""
    words = ", ".join(quoted(str(word)) for word in supported)
    message = _joined(f"Unsupported value: {shown(value)}", words and f"supported values: {words}")
    return FieldProblem(field, message, "FieldValueNotSupported")


def too_long(field: str, limit: int, unit: str = "bytes") -> FieldProblem:
    """Return the cause for a text of more than `limit` bytes."""
    one = unit.removesuffix("s") if limit == 1 else unit
    return FieldProblem(field, f"Too long: may not be more than {limit} {one}", "FieldValueTooLong")


def too_many(field: str, count: int, limit: int) -> FieldProblem:
    """Return the cause for a list or map of `count` entries where `limit` is the most."""
    unit = "item" if limit == 1 else "items"
    return FieldProblem(field, f"Too many: {count}: must have at most {limit} {unit}", "FieldValueTooMany")


def internal(field: str, detail: str) -> FieldProblem:
    """Return the cause for a check that could not be made."""
    return FieldProblem(field, f"Internal error: {detail}", "InternalError")


def shown(value: Any) -> str:
    """Return `value` as a message shows it: text quoted, the rest as JSON, both cut to a sane length."""
    if isinstance(value, str):
        return quoted(value)
    text = number(value) if isinstance(value, float) else as_json(value)
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "..."


def _joined(kind: str, detail: str) -> str:
    return f"{kind}: {detail}" if detail else kind
