"""The metadata of objects as they come in: brought to its form, and judged. Thin over `kinds.structural`. Pure."""

from __future__ import annotations

from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Malformed
from wharfinger.kinds.structural import metadata, objectmeta
from wharfinger.local.api.served import Resource


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
    if kind.status and value.get("status") is None:
        value.pop("status", None)
    return value, unknown


def cannot_be_handled(resource: Resource, why: str) -> Malformed:
    """Return the error for a body that cannot be read as an object of the kind, in the API server's words."""
    kind = resource.kind
    return Malformed(f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: {why}')


def metadata_problems(resource: Resource, new: Json, old: Json | None) -> list[FieldProblem]:
    """Return what is wrong with the metadata of `new`, which is to replace `old` (None for a new object)."""
    if old is not None:
        return metadata.problems_on_update(new["metadata"], old["metadata"])
    return metadata.problems_on_create(
        new["metadata"], namespaced=resource.kind.namespaced, name=resource.behaviour.name
    )
