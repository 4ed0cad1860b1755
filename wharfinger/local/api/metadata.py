"""The metadata of objects as they come in: brought to its form, and judged. Thin over `kinds.structural`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from wharfinger.core.causes import invalid, item
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Malformed
from wharfinger.kinds.structural import metadata, objectmeta, strategy
from wharfinger.local.api.served import Resource

_KEPT_WHOLE: Final = frozenset({"metadata", "parameters"})
_STANDARD_FINALIZERS: Final = frozenset({"foregroundDeletion", "kubernetes", "orphan"})


def coerced(resource: Resource, value: Json) -> tuple[Json, list[str]]:
    """Return `value`, a body, with its metadata in form and without fields that the kind does not know.

    Changes `value`; the second result are the paths of the fields that were dropped. Raises `Malformed` for
    metadata of the wrong type.
    """
    kind = resource.kind
    try:
        value["metadata"], unknown = objectmeta.decode(value.get("metadata"))
        if resource.coercion is not None:
            resource.coercion(value, "", False, unknown)
    except Malformed as error:
        raise cannot_be_handled(resource, error.message) from error
    for name in ("apiVersion", "kind"):
        if type(value.get(name)) is not str:
            raise cannot_be_handled(resource, f"expected {name} to be a text")
    unknown += resource.schema.prune(value)
    if resource.builtin:
        _drop_nulls(value)
        _check_types(resource, value)
        if resource.normalize is not None:
            resource.normalize(value)
    elif kind.status and value.get("status") is None:
        value.pop("status", None)
    return value, unknown


def _drop_nulls(value: Json) -> None:
    """Drop, in place, every field that is null: to Go it is not there. What is kept as it comes stays whole."""
    if type(value) is dict:
        for name in [name for name, child in value.items() if child is None]:
            del value[name]
        for name, child in value.items():
            if name not in _KEPT_WHOLE:
                _drop_nulls(child)
    elif type(value) is list:
        for child in value:
            _drop_nulls(child)


def _check_types(resource: Resource, value: Json) -> None:
    """Refuse a built-in object whose fields are not of their types: Kubernetes cannot even read it."""
    wrong = [each for each in resource.schema.mismatches(value) if each.reason == "FieldValueTypeInvalid"]
    if wrong:
        raise cannot_be_handled(resource, "; ".join(map(str, wrong)))


def cannot_be_handled(resource: Resource, why: str) -> Malformed:
    """Return the error for a body that cannot be read as an object of the kind, in the API server's words."""
    kind = resource.kind
    return Malformed(f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: {why}')


def metadata_problems(resource: Resource, new: Json, old: Json | None) -> list[FieldProblem]:
    """Return what is wrong with the metadata of `new`, which is to replace `old` (None for a new object)."""
    if old is not None:
        return metadata.problems_on_update(new["metadata"], old["metadata"])
    problems = metadata.problems_on_create(
        new["metadata"], namespaced=resource.kind.namespaced, name=resource.behaviour.name
    )
    if resource.builtin:
        problems += _finalizer_problems(new["metadata"].get("finalizers") or ())
    return problems


def schema_problems(resource: Resource, new: Json, old: Json | None, *, status: bool) -> list[FieldProblem]:
    """Return where `new` does not match the schema of its kind; `status` says that its status is written.

    Of built-in kinds only the constraints: what their lists may not repeat is theirs to say.
    """
    if resource.builtin:
        return resource.schema.mismatches(new, old)
    judge = resource.schema.validate_status if status else resource.schema.validate
    problems = judge(new, old)
    problems += strategy.scale_problems(resource.kind.scale, new, status_only=status)
    # What belongs to no field is told of the whole object, which Kubernetes writes so.
    return [each if each.field else replace(each, field="<nil>") for each in problems]


def _finalizer_problems(finalizers: Sequence[str]) -> Iterator[FieldProblem]:
    """Yield what is wrong with the finalizers of a built-in object: each is a standard one or has a domain."""
    for index, name in enumerate(finalizers):
        if "/" not in name and name not in _STANDARD_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid(item("metadata.finalizers", index), name, text)
