"""OpenAPI v3 of every kind that is served, a document for each group and version. Pure.

Good for what Kubernetes clients read it for: `kubectl explain`, whether the server validates fields,
which patches a kind takes and how they merge, and generating clients. Record types that several fields
share are published once, under their Kubernetes names.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Final

import orjson

from wharfinger.core.document import Json
from wharfinger.kinds.builtin.behaviour import Behaviour
from wharfinger.kinds.builtin.meta import OBJECT_META
from wharfinger.kinds.kind import Schema
from wharfinger.local.api.negotiation import PATCH_MEDIA_TYPES
from wharfinger.local.api.reviewkinds import QUESTIONS
from wharfinger.local.api.served import Catalogue, Resource

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_REF: Final = "#/components/schemas/"


class Documents:
    """The documents by path (`api/v1`, `apis/GROUP/VERSION`), each made when first asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._made: dict[str, bytes] = {}
        self._paths = {
            f"apis/{group}/{version}" if group else f"api/{version}": resources
            for group, versions in catalogue.groups.items()
            for version, resources in versions.items()
        }
        for kind in QUESTIONS:
            asked = self._paths.setdefault(f"apis/{kind.api_version}", [])
            asked.append(Resource(kind, Behaviour(), 0, builtin=True))

    @cached_property
    def index(self) -> bytes:
        """The answer to `/openapi/v3`: where each document is, with a hash of what it holds."""
        paths = {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={self._hash(path)}"} for path in sorted(self._paths)
        }
        return orjson.dumps({"paths": paths})

    def _hash(self, path: str) -> str:
        """Return a hash that changes when the document does: of the schemas that it is made from."""
        sources = [
            [resource.kind.api_version, resource.kind.name, resource.kind.schema] for resource in self._paths[path]
        ]
        return hashlib.sha256(orjson.dumps(sources)).hexdigest()[:32].upper()

    def document(self, path: str) -> bytes | None:
        """Return the document at `path`, None when there is none."""
        resources = self._paths.get(path)
        if resources is None:
            return None
        made = self._made.get(path)
        if made is None:
            made = self._made[path] = orjson.dumps(document(resources))
        return made


def document(resources: list[Resource]) -> Json:
    """Return the OpenAPI v3 document of `resources`, which are of one group and version."""
    components: dict[str, Json] = {_META + "Patch": {"type": "object", "description": "A patch of an object."}}
    paths: dict[str, Json] = {}
    for resource in resources:
        name = component_name(resource)
        schema = dict(resource.kind.schema)
        schema.pop("title", None)
        schema.setdefault("description", resource.kind.description)
        schema["properties"] = {
            **schema["properties"],
            "metadata": {**OBJECT_META, "description": schema["properties"]["metadata"]["description"]},
        }
        components[name] = {**_published(schema, components), "x-kubernetes-group-version-kind": [_gvk(resource)]}
        components[name + "List"] = _list_schema(resource, name)
        paths.update(_asking(resource, name) if resource.kind in QUESTIONS else _paths(resource, name))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Wharfinger", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }


def component_name(resource: Resource) -> str:
    """Return the name under which the whole object's schema is published."""
    if resource.builtin:
        return str(resource.kind.schema["title"])
    reversed_group = ".".join(reversed(resource.kind.group.split(".")))
    return f"{reversed_group}.{resource.kind.version}.{resource.kind.name}"


def _gvk(resource: Resource) -> Json:
    return {"group": resource.kind.group, "version": resource.kind.version, "kind": resource.kind.name}


def _published(schema: Schema, components: dict[str, Json]) -> Json:
    """Return `schema` with named types replaced by references, which are added to `components`."""
    made: dict[str, Json] = {}
    for name, value in schema.items():
        if name == "properties":
            made[name] = {field: _referred(child, components) for field, child in value.items()}
        elif name in {"items", "additionalProperties"} and isinstance(value, dict):
            made[name] = _referred(value, components)
        else:
            made[name] = value
    return made


_ABOUT_A_FIELD: Final = ("description", "default", "x-kubernetes-patch-strategy", "x-kubernetes-patch-merge-key")
_OF_THE_FIELD: Final = frozenset(("title", *_ABOUT_A_FIELD))


def _referred(schema: Schema, components: dict[str, Json]) -> Json:
    title = schema.get("title")
    if title is None:
        return _published(schema, components)
    if title not in components:
        components[title] = {}  # so that a type which holds itself ends here
        own = {name: value for name, value in schema.items() if name not in _OF_THE_FIELD}
        components[title] = _published(own, components)
    made: dict[str, Json] = {"allOf": [{"$ref": _REF + title}]}
    for name in _ABOUT_A_FIELD:
        if name in schema:
            made[name] = schema[name]
    return made


def _list_schema(resource: Resource, name: str) -> Json:
    gvk = _gvk(resource)
    return {
        "type": "object",
        "description": f"A list of {resource.kind.name}.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "items": {"type": "array", "items": {"allOf": [{"$ref": _REF + name}], "default": {}}},
            "metadata": {"type": "object", "description": "Version of the list, and where it goes on."},
        },
        "x-kubernetes-group-version-kind": [{**gvk, "kind": resource.kind.list_name}],
    }


_WRITE_OPTIONS: Final = ("dryRun", "fieldManager", "fieldValidation")
_LIST_OPTIONS: Final = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_DELETE_OPTIONS: Final = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_TYPES: Final = {
    "allowWatchBookmarks": "boolean",
    "force": "boolean",
    "gracePeriodSeconds": "integer",
    "limit": "integer",
    "orphanDependents": "boolean",
    "sendInitialEvents": "boolean",
    "timeoutSeconds": "integer",
    "watch": "boolean",
}


def _paths(resource: Resource, name: str) -> dict[str, Json]:
    kind = resource.kind
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scope = f"{root}/namespaces/{{namespace}}" if kind.namespaced else root
    many, single = f"{scope}/{kind.plural}", f"{scope}/{kind.plural}/{{name}}"
    at = [_in_path("namespace")] if kind.namespaced else []
    media = [each for each in PATCH_MEDIA_TYPES if resource.builtin or "strategic" not in each]
    listed = name + "List"
    made = {
        many: {
            "get": _operation(resource, "list", _LIST_OPTIONS, listed),
            "post": _operation(resource, "post", _WRITE_OPTIONS, name, body=(name, ["application/json"])),
            "delete": _operation(resource, "deletecollection", _LIST_OPTIONS, None),
            "parameters": at,
        },
        single: {
            **_on_one(resource, name, media),
            "delete": _operation(resource, "delete", _DELETE_OPTIONS, None),
            "parameters": [_in_path("name"), *at],
        },
    }
    if kind.namespaced:
        made[f"{root}/{kind.plural}"] = {"get": _operation(resource, "list", _LIST_OPTIONS, listed)}
    if kind.status:
        made[f"{single}/status"] = {**_on_one(resource, name, media), "parameters": [_in_path("name"), *at]}
    return made


def _asking(resource: Resource, name: str) -> dict[str, Json]:
    """Return the path of a question, which is only ever created."""
    post = _operation(resource, "post", _WRITE_OPTIONS, name, body=(name, ["application/json"]))
    return {f"/apis/{resource.kind.api_version}/{resource.kind.plural}": {"post": post}}


def _on_one(resource: Resource, name: str, media: list[str]) -> Json:
    return {
        "get": _operation(resource, "get", (), name),
        "put": _operation(resource, "put", _WRITE_OPTIONS, name, body=(name, ["application/json"])),
        "patch": _operation(resource, "patch", (*_WRITE_OPTIONS, "force"), name, body=(_META + "Patch", media)),
    }


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _operation(
    resource: Resource,
    action: str,
    options: tuple[str, ...],
    answer: str | None,
    *,
    body: tuple[str, list[str]] | None = None,
) -> Json:
    made: dict[str, Json] = {
        "parameters": [
            {"name": option, "in": "query", "schema": {"type": _TYPES.get(option, "string")}} for option in options
        ],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource),
    }
    if answer is not None:
        made["responses"]["200"]["content"] = {"application/json": {"schema": {"$ref": _REF + answer}}}
    if body is not None:
        schema, media = body
        made["requestBody"] = {
            "required": True,
            "content": {each: {"schema": {"$ref": _REF + schema}} for each in media},
        }
    return made
