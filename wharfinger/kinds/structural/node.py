"""Nodes: a schema as read from its document, one node a level.

The OpenAPI v3 subset of structural schemas (apiextensions/v1 JSONSchemaProps): no references, one schema for all
items, no patterns of property names. Reading is lenient about what a CRD may hold, which `completeness` and
`definition` judge, and strict about what would not be understood: a keyword of the wrong type is `Malformed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt
from wharfinger.kinds.kind import Schema

DEEPEST: Final = 200
"""Levels of a schema; deeper ones are refused, so that no walk along one can exhaust the stack."""

_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_NUMBERS: Final = ("maximum", "minimum", "multipleOf")
_COUNTS: Final = ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties")
_FLAGS: Final = (
    "nullable",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "uniqueItems",
    "x-kubernetes-int-or-string",
    "x-kubernetes-embedded-resource",
    _PRESERVE,
)
_TEXTS: Final = ("type", "format", "pattern", "x-kubernetes-list-type", "x-kubernetes-map-type")
_LISTS: Final = ("required", "enum", "x-kubernetes-list-map-keys", "x-kubernetes-validations")
_UNSUPPORTED: Final = {
    "id": "id",
    "$schema": "schema",
    "$ref": "$ref",
    "patternProperties": "patternProperties",
    "dependencies": "dependencies",
    "additionalItems": "additionalItems",
    "definitions": "definitions",
}
"""Keywords that structural schemas do not have, and what messages call them."""


@dataclass(slots=True)
class Node:
    """One level of a schema. `types` has two entries for int-or-string, none when no type is given.

    `additional` is the schema of further properties, or whether there may be any; None when that is not said.
    `typed` says that values are read into Go's types, which let no list pass for a text.
    """

    types: tuple[str, ...] = ()
    format: str = ""
    nullable: bool = False
    default: Json = None
    properties: dict[str, Node] = field(default_factory=dict)
    additional: Node | bool | None = None
    items: Node | None = None
    required: tuple[str, ...] = ()
    enum: tuple[Json, ...] = ()
    maximum: float | None = None
    minimum: float | None = None
    multiple_of: float | None = None
    exclusive_maximum: bool = False
    exclusive_minimum: bool = False
    max_length: int | None = None
    min_length: int | None = None
    pattern: str = ""
    max_items: int | None = None
    min_items: int | None = None
    unique_items: bool = False
    max_properties: int | None = None
    min_properties: int | None = None
    all_of: tuple[Node, ...] = ()
    any_of: tuple[Node, ...] = ()
    one_of: tuple[Node, ...] = ()
    negated: Node | None = None
    embedded: bool = False
    preserve: bool = False
    list_type: str = ""
    list_keys: tuple[str, ...] = ()
    rules: tuple[Mapping[str, Json], ...] = ()
    typed: bool = False
    document: Schema = field(default_factory=dict, repr=False)

    def parts(self) -> Iterator[Node]:
        """Yield the nodes one level below this one, alternatives too."""
        yield from self.properties.values()
        yield from (each for each in (self.additional, self.items, self.negated) if isinstance(each, Node))
        yield from (*self.all_of, *self.any_of, *self.one_of)

    def child(self, name: str) -> Node | None:
        """Return the node that governs the property `name`."""
        found = self.properties.get(name)
        if found is None and isinstance(self.additional, Node):
            return self.additional
        return found


def read(document: Schema | None, depth: int = 0) -> Node:
    """Return the node of a schema's `document`; of none, the node that says nothing.

    Raises `Malformed` for a keyword of the wrong type, one that structural schemas do not have, and a schema
    of more than `DEEPEST` levels.
    """
    if document is None:
        return Node()
    if depth > DEEPEST:
        raise Malformed(f"expected a schema of at most {DEEPEST} levels")
    if not isinstance(document, dict):
        raise Malformed(f"expected a schema to be an object, got {excerpt(document)}")
    _check_keywords(document)
    get = document.get
    int_or_string = bool(get("x-kubernetes-int-or-string"))
    kind = get("type") or ""
    return Node(
        types=("integer", "string") if int_or_string else (kind,) if kind else (),
        format=get("format") or "",
        nullable=bool(get("nullable")),
        default=get("default"),
        properties={name: read(child, depth + 1) for name, child in (get("properties") or {}).items()},
        additional=_additional(get("additionalProperties"), depth),
        items=read(get("items"), depth + 1) if get("items") is not None else None,
        required=tuple(get("required") or ()),
        enum=tuple(get("enum") or ()),
        maximum=get("maximum"),
        minimum=get("minimum"),
        multiple_of=get("multipleOf"),
        exclusive_maximum=bool(get("exclusiveMaximum")),
        exclusive_minimum=bool(get("exclusiveMinimum")),
        max_length=get("maxLength"),
        min_length=get("minLength"),
        pattern=get("pattern") or "",
        max_items=get("maxItems"),
        min_items=get("minItems"),
        unique_items=bool(get("uniqueItems")),
        max_properties=get("maxProperties"),
        min_properties=get("minProperties"),
        all_of=tuple(read(each, depth + 1) for each in get("allOf") or ()),
        any_of=tuple(read(each, depth + 1) for each in get("anyOf") or ()),
        one_of=tuple(read(each, depth + 1) for each in get("oneOf") or ()),
        negated=read(get("not"), depth + 1) if get("not") is not None else None,
        embedded=bool(get("x-kubernetes-embedded-resource")),
        preserve=bool(get(_PRESERVE)),
        list_type=get("x-kubernetes-list-type") or "",
        list_keys=tuple(get("x-kubernetes-list-map-keys") or ()),
        rules=tuple(get("x-kubernetes-validations") or ()),
        document=document,
    )


def _additional(value: Json, depth: int) -> Node | bool | None:
    return value if value is None or isinstance(value, bool) else read(value, depth + 1)


def _check_keywords(document: Schema) -> None:
    """Refuse keywords that a node could not hold."""
    for name, value in document.items():
        if value is None or name == "default":
            continue
        if name in _UNSUPPORTED and (value or name == "additionalItems"):
            raise Malformed(f"OpenAPIV3Schema '{_UNSUPPORTED[name]}' is not supported")
        if name == "items" and isinstance(value, list):
            raise Malformed("OpenAPIV3Schema 'items' must be a schema, but is an array")
        if name == _PRESERVE and value is False:
            raise Malformed(f"internal error: '{_PRESERVE}' must be true or undefined")
        if name in _LISTS or name in {"allOf", "anyOf", "oneOf"}:
            fits = isinstance(value, list) and _fit_items(name, value)
        elif name in _TEXTS:
            fits = isinstance(value, str)
        elif name in _COUNTS:
            fits = isinstance(value, int) and not isinstance(value, bool)
        elif name in _NUMBERS:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        elif name in _FLAGS:
            fits = isinstance(value, bool)
        else:
            fits = name != "properties" or isinstance(value, dict)
        if not fits:
            raise Malformed(f"expected a schema's {name} to be of its type, got {excerpt(value)}")


def _fit_items(name: str, value: list[Any]) -> bool:
    if name == "enum":
        return True
    wanted = str if name in {"required", "x-kubernetes-list-map-keys"} else dict
    return all(isinstance(each, wanted) for each in value)
