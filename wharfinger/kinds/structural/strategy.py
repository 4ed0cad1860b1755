"""Strategy: what the API server does to a custom resource around a write (registry/customresource).

`prepare_*` sets what is the server's to set, in place; `validate_*` returns what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from wharfinger.core import printed
from wharfinger.core.causes import invalid
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Malformed
from wharfinger.core.jsonpath import parse
from wharfinger.kinds.kind import Kind, Scale
from wharfinger.kinds.structural import metadata
from wharfinger.kinds.structural.sameness import same
from wharfinger.kinds.structural.schema import Schema

_MOST_REPLICAS: Final = 2**31 - 1


def prepare_create(value: Json, *, status: bool) -> None:
    """Prepare a new object: its generation is 1; where `status` is a subresource, it is not the caller's."""
    if status:
        value.pop("status", None)
    value.setdefault("metadata", {})["generation"] = 1


def prepare_update(value: Json, old: Json, *, status: bool) -> None:
    """Prepare an object that replaces `old`: a change of anything but metadata (and status) counts its generation."""
    if status:
        _carry(old, value, "status")
    if not _same_but_metadata(value, old):
        value["metadata"]["generation"] = ((old.get("metadata") or {}).get("generation") or 0) + 1


def prepare_status_update(value: Json, old: Json) -> Json:
    """Return what a write of the status of `old` as `value` makes of it: nothing changes but status and managers."""
    made = {**old}
    entries = (value.get("metadata") or {}).get("managedFields")
    if "metadata" in old or entries:
        made["metadata"] = {**(old.get("metadata") or {})}
        made["metadata"].pop("managedFields", None)
        if entries:
            made["metadata"]["managedFields"] = entries
    _carry(value, made, "status")
    return made


def _carry(source: Json, target: Json, name: str) -> None:
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)


def _same_but_metadata(value: Json, old: Json) -> bool:
    names = (value.keys() | old.keys()) - {"metadata"}
    return all(name in value and name in old and same(value[name], old[name]) for name in names)


def validate_create(kind: Kind, schema: Schema, value: Json) -> list[FieldProblem]:
    """Return what is wrong with a new object of a custom kind."""
    wrong = type_problems(kind, value)
    if wrong:
        return wrong
    problems = metadata.problems_on_create(value.get("metadata") or {}, namespaced=kind.namespaced)
    problems += scale_problems(kind.scale, value)
    return problems + schema.validate(value)


def validate_update(kind: Kind, schema: Schema, value: Json, old: Json) -> list[FieldProblem]:
    """Return what is wrong with an object that replaces `old`."""
    wrong = type_problems(kind, value)
    if wrong:
        return wrong
    problems = metadata.problems_on_update(value.get("metadata") or {}, old.get("metadata") or {})
    problems += scale_problems(kind.scale, value)
    return problems + schema.validate(value, old)


def validate_status_update(kind: Kind, schema: Schema, value: Json, old: Json) -> list[FieldProblem]:
    """Return what is wrong with an object whose status is written."""
    wrong = type_problems(kind, value)
    if wrong:
        return wrong
    problems = metadata.problems_on_update(value.get("metadata") or {}, old.get("metadata") or {})
    problems += scale_problems(kind.scale, value, status_only=True)
    return problems + schema.validate_status(value, old)


def type_problems(kind: Kind, value: Json) -> list[FieldProblem]:
    """Return what is wrong with the `apiVersion` and `kind` of an object."""
    problems = []
    if value.get("kind") != kind.name:
        problems.append(invalid("kind", value.get("kind") or "", f"must be {kind.name}"))
    if value.get("apiVersion") != kind.api_version:
        problems.append(invalid("apiVersion", value.get("apiVersion") or "", f"must be {kind.api_version}"))
    return problems


def scale_problems(scale: Scale | None, value: Json, *, status_only: bool = False) -> list[FieldProblem]:
    """Return what is wrong with the fields that the scale subresource reads."""
    if scale is None:
        return []
    paths = (scale.status_replicas,) if status_only else (scale.spec_replicas, scale.status_replicas)
    problems = []
    for path in paths:
        try:
            replicas = _nested(value, path, int)
        except Malformed as error:
            problems.append(invalid(path, 0, error.message))
            continue
        if replicas is None:
            continue
        if replicas < 0:
            problems.append(invalid(path, replicas, "should be a non-negative integer"))
        elif replicas > _MOST_REPLICAS:
            problems.append(invalid(path, replicas, f"should be less than or equal to {_MOST_REPLICAS}"))
    try:
        _nested(value, scale.label_selector, str)
    except Malformed as error:
        problems.append(invalid(scale.label_selector, "", error.message))
    return problems


def _nested(value: Json, path: str, kind: type) -> Json:
    """Return what is at `path` of an object, None for nothing. Raises `Malformed` in Go's words for another type."""
    walked = ""
    for name in path.removeprefix(".").split("."):
        walked += f".{name}"
        if value is None:
            return None
        if not isinstance(value, dict):
            raise _misread(walked, value, "map[string]interface{}")
        if name not in value:
            return None
        value = value[name]
    if type(value) is not kind:
        raise _misread(path, value, "int64" if kind is int else "string")
    return value


_GO_TYPES: Final = {
    dict: "map[string]interface {}",
    list: "[]interface {}",
    str: "string",
    bool: "bool",
    int: "int64",
    float: "float64",
}


def _misread(path: str, value: Json, wanted: str) -> Malformed:
    got = _GO_TYPES.get(type(value), "<nil>")
    return Malformed(f"{path} accessor error: {_go(value)} is of the type {got}, expected {wanted}")


def _go(value: Json) -> str:
    """Return a value as Go's `%v` shows it."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{name}:{_go(value[name])}' for name in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(_go, value))}]"
    return "<nil>" if value is None else printed.text(value)


def selectable_fields(paths: Iterable[str], value: Json, *, namespaced: bool) -> Mapping[str, str]:
    """Return what a field selector sees of an object: its name, its namespace, and what each JSONPath finds.

    Raises `Malformed` for a path that is none or that finds several values.
    """
    own = value.get("metadata") or {}
    found = {"metadata.name": own.get("name") or ""}
    if namespaced:
        found["metadata.namespace"] = own.get("namespace") or ""
    for path in paths:
        results = parse(f"{{{path}}}").find(value)
        values = results[0] if results else []
        if len(results) > 1 or len(values) > 1:
            raise Malformed("unexpectedly received more than one JSON path result")
        chosen = values[0] if values else None
        found[path.removeprefix(".")] = "" if chosen is None else printed.text(chosen)
    return found
