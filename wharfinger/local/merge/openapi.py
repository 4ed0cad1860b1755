"""From a structural OpenAPI schema to a merge schema, as kube-apiserver derives one for its kinds.

What the extensions mean (Kubernetes, "Server-Side Apply", merge strategy):
`x-kubernetes-list-type` atomic (the default), set or map (items told apart by
`x-kubernetes-list-map-keys`); `x-kubernetes-map-type` granular (the default) or atomic;
`x-kubernetes-preserve-unknown-fields` here and below: undeclared fields are kept, their types deduced
from their values; `x-kubernetes-embedded-resource`: has apiVersion, kind and metadata. Where there is
no list type, `x-kubernetes-patch-strategy` and `-patch-merge-key` count.
"""

from __future__ import annotations

from typing import Any

from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt
from wharfinger.kinds.builtin.meta import OBJECT_META
from wharfinger.local.merge import schema
from wharfinger.local.merge.schema import DEDUCED_NAME, UNTYPED_NAME, Definition, Type

ROOT_NAME = "object"
"""The name of the object's own type in a derived schema."""

_UNTYPED: Definition = {"namedType": UNTYPED_NAME}
_DEDUCED: Definition = {"namedType": DEDUCED_NAME}
_SHARED: list[Definition] = [
    {
        "name": UNTYPED_NAME,
        "scalar": "untyped",
        "list": {"elementType": _UNTYPED, "elementRelationship": "atomic"},
        "map": {"elementType": _UNTYPED, "elementRelationship": "atomic"},
    },
    {
        "name": DEDUCED_NAME,
        "scalar": "untyped",
        "list": {"elementType": _UNTYPED, "elementRelationship": "atomic"},
        "map": {"elementType": _DEDUCED, "elementRelationship": "separable"},
    },
]


def compile_type(document: Json) -> Type:
    """Return the merge type of objects with the OpenAPI schema `document`; raise `Malformed`."""
    return schema.compile_type(definition_of(document), ROOT_NAME)


def definition_of(document: Json) -> Definition:
    """Return the merge schema of objects with the OpenAPI schema `document`; raise `Malformed`.

    Its type `ROOT_NAME` is the object's, with the metadata that every object has, whatever
    `document` says of it.
    """
    root = _resource(document, preserve=False)
    return {"types": [{"name": ROOT_NAME, **root}, *_SHARED]}


def _resource(document: Json, *, preserve: bool) -> Definition:
    properties = {
        **(document.get("properties") or {}),
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": OBJECT_META,
    }
    rest = {name: value for name, value in document.items() if name != "x-kubernetes-embedded-resource"}
    return _atom({**rest, "type": "object", "properties": properties}, preserve=preserve)


def _atom(document: Json, *, preserve: bool) -> Definition:
    preserve = preserve or document.get("x-kubernetes-preserve-unknown-fields") is True
    if document.get("x-kubernetes-embedded-resource") is True:
        return _resource(document, preserve=preserve)
    if document.get("x-kubernetes-int-or-string") is True:
        return {"scalar": "untyped"}
    match document.get("type", ""):
        case "object":
            return {"map": _map(document, preserve=preserve)}
        case "array":
            if "items" not in document:
                raise Malformed("expected `items` in the schema of an array, got none")
            return {"list": _list(document, preserve=preserve)}
        case "integer" | "number":
            return {"scalar": "numeric"}
        case "boolean":
            return {"scalar": "boolean"}
        case "string":
            return {"scalar": "string" if document.get("format", "") in ("", "byte") else "untyped"}
        case "":
            return {
                "scalar": "untyped",
                "list": _list(document, preserve=preserve),
                "map": _map(document, preserve=preserve),
            }
        case unknown:
            raise Malformed(f"expected a type of OpenAPI v3, got {excerpt(unknown)}")


def _map(document: Json, *, preserve: bool) -> Definition:
    properties = document.get("properties") or {}
    fields = []
    for name, child in properties.items():
        field: Definition = {"name": name, "type": _atom(child, preserve=preserve)}
        if child.get("default") is not None:
            field["default"] = child["default"]
        fields.append(field)
    made: Definition = {"fields": fields} if fields else {}
    additional = document.get("additionalProperties")
    if isinstance(additional, dict):
        made["elementType"] = _atom(additional, preserve=preserve)
    elif additional is True or (additional is None and (preserve or not properties)):
        made["elementType"] = _DEDUCED
    match document.get("x-kubernetes-map-type"):
        case "atomic":
            made["elementRelationship"] = "atomic"
        case "granular":
            made["elementRelationship"] = "separable"
        case None:
            pass
        case unknown:
            raise Malformed(f"expected the map type atomic or granular, got {excerpt(unknown)}")
    return made


def _list(document: Json, *, preserve: bool) -> Definition:
    items = document.get("items")
    element = _UNTYPED if items is None else _atom(items, preserve=preserve)
    return {"elementType": element, **_list_relationship(document)}


def _list_relationship(document: Json) -> dict[str, Any]:
    match document.get("x-kubernetes-list-type"):
        case "atomic":
            return {"elementRelationship": "atomic"}
        case "set":
            return {"elementRelationship": "associative"}
        case "map":
            keys = document.get("x-kubernetes-list-map-keys")
            if not keys:
                raise Malformed("expected `x-kubernetes-list-map-keys` for a list of the type map, got none")
            return {"elementRelationship": "associative", "keys": list(keys)}
        case None:
            pass
        case unknown:
            raise Malformed(f"expected the list type atomic, set or map, got {excerpt(unknown)}")
    strategy = document.get("x-kubernetes-patch-strategy", "")
    if "merge" in strategy.split(","):
        key = document.get("x-kubernetes-patch-merge-key")
        return {"elementRelationship": "associative", **({"keys": [key]} if key else {})}
    return {"elementRelationship": "atomic"}
