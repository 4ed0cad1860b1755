"""From typed structs to structural schemas.

A kind's spec and status are msgspec structs: one source for the types that controllers read, the
schema that the API server enforces and the text that `kubectl explain` shows. `structural` renders
one as the OpenAPI v3 subset that Kubernetes demands of CRDs: no references, every level typed.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from wharfinger.core.errors import Invalid
from wharfinger.kinds.kind import Schema

T = TypeVar("T", bound="Part")

QUANTITY_PATTERN = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]+))?$"


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A part of an object: fields are camelCase on the wire; unknown fields are the API server's to judge."""


def says(text: str, *, schema: Schema | None = None, **limits: Any) -> msgspec.Meta:
    """Describe a field: `text` for `explain`, `limits` as msgspec.Meta names them, `schema` for extensions."""
    return msgspec.Meta(description=text, extra_json_schema=schema, **limits)


Quantity = Annotated[
    str | int,
    msgspec.Meta(extra_json_schema={"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN}),
]
"""A Kubernetes quantity: `80Gi`, `500m`, `3`; never negative."""

SpiffePattern = Annotated[
    str,
    msgspec.Meta(min_length=10, max_length=2048, pattern=r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)*(/\*)?$"),
]
"""A SPIFFE ID, or one that ends in `/*` for everything below it."""

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A sha256 digest in OCI form."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""A DNS label (RFC 1123)."""

Count = Annotated[int, msgspec.Meta(ge=0)]
"""A number of things."""

Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""An RFC 3339 time."""

SET: Schema = {"x-kubernetes-list-type": "set"}
ATOMIC: Schema = {"x-kubernetes-list-type": "atomic"}


def keyed(*keys: str) -> Schema:
    """Return the extension that makes a list a map with these keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def rule(expression: str, message: str, *, field_path: str = "", reason: str = "") -> Schema:
    """Return one CEL validation (apiextensions/v1 ValidationRule)."""
    made: Schema = {"rule": expression, "message": message}
    if field_path:
        made["fieldPath"] = field_path
    if reason:
        made["reason"] = reason
    return made


class Condition(Part, frozen=True, kw_only=True):
    """One condition, by the Kubernetes API conventions (meta/v1 Condition)."""

    type: Annotated[str, says("Condition type, CamelCase.", max_length=316)]
    status: Annotated[str, says("True, False or Unknown.", schema={"enum": ["True", "False", "Unknown"]})]
    last_transition_time: Annotated[Time, says("When the status last changed.")]
    reason: Annotated[str, says("Why, one CamelCase word.", min_length=1, max_length=1024)]
    message: Annotated[str, says("Why, in words a tenant can act on.", max_length=32768)] = ""
    observed_generation: Annotated[int, says("The metadata.generation this speaks of.", ge=0)] = 0


Conditions = Annotated[list[Condition], says("What holds, and why not.", schema=keyed("type"))]


def structural(part: type[Part], *, rules: tuple[Schema, ...] = ()) -> Schema:
    """Return the structural schema of `part`, with CEL validations `rules` at its top."""
    schema = msgspec.json.schema(part, schema_hook=None)
    definitions = schema.get("$defs", {})
    made: Schema = _inline(schema, definitions)
    if rules:
        made["x-kubernetes-validations"] = list(rules)
    return made


def whole(spec: type[Part], status: type[Part], text: str, *, rules: tuple[Schema, ...] = ()) -> Schema:
    """Return the schema of a whole object of a kind of ours."""
    return {
        "type": "object",
        "description": text,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version of this representation."},
            "kind": {"type": "string", "description": "The kind of this object."},
            "metadata": {"type": "object", "description": "Standard object metadata."},
            "spec": structural(spec, rules=rules),
            "status": _undefaulted(structural(status)),
        },
    }


def read(part: type[T], value: object, where: str = "spec") -> T:
    """Return `value`, a JSON object that the API server has accepted, as the typed `part`.

    Raises `Invalid`, naming `where`, when it does not fit: for objects that came another way.
    """
    try:
        return msgspec.convert(value, part)
    except msgspec.ValidationError as error:
        raise Invalid(f"{where}: {error}") from error


def _undefaulted(node: Any) -> Any:
    """Status is written whole by its controller: a default there would be a claim nobody made."""
    if isinstance(node, list):
        return [_undefaulted(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {name: value for name, value in node.items() if name not in ("default", "properties")}
    made = {name: _undefaulted(value) for name, value in made.items()}
    if "properties" in node:
        made["properties"] = {name: _undefaulted(child) for name, child in node["properties"].items()}
    return made


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = dict(definitions[node["$ref"].rsplit("/", 1)[1]])
        target.update({name: value for name, value in node.items() if name != "$ref"})
        return _inline(target, definitions)
    made: Schema = {}
    for name, value in node.items():
        if name in ("$defs", "title"):
            continue
        if name == "properties":
            made[name] = {key: _inline(child, definitions) for key, child in value.items()}
        elif name in ("default", "enum", "x-kubernetes-validations"):
            made[name] = value
        else:
            made[name] = _inline(value, definitions)
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made.pop("anyOf", None)
    if made.get("allOf") and len(made["allOf"]) == 1:
        made = {**made.pop("allOf")[0], **{k: v for k, v in made.items() if k != "allOf"}}
    if made.get("anyOf") and all(isinstance(option, dict) and "type" in option for option in made["anyOf"]):
        options = [option for option in made["anyOf"] if option["type"] != "null"]
        if len(options) == 1:
            made = {**options[0], **{k: v for k, v in made.items() if k != "anyOf"}}
    if ("default" in made and made["default"] in (None, "", [])) or (
        made.get("default") == {} and "additionalProperties" in made
    ):
        del made["default"]
    if made.get("required") == []:
        del made["required"]
    if "enum" in made and "type" not in made:
        made["type"] = "string"
    if made.get("type") == "integer":
        made.setdefault("format", "int64")
    return made
