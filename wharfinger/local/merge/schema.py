"""What merging needs to know of a value's type: the schema of structured-merge-diff v6, compiled.

A schema is data: `{"types": [{"name": ..., "scalar" | "list" | "map": ...}]}`, as Kubernetes ships it
for its built-in types and as `openapi` derives it. `compile_type` turns one of its types, once, into
a graph of `Type` nodes that the merging functions walk; recursive types become cycles in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeAlias

from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt
from wharfinger.local.merge import pathelement

Definition: TypeAlias = dict[str, Any]
"""A type or a schema in the form in which structured-merge-diff writes it."""

DEDUCED_NAME, UNTYPED_NAME = "__untyped_deduced_", "__untyped_atomic_"


class Type:
    """What a value may be: a scalar, a list, a map, or one of several of these.

    `scalar` is numeric, string, boolean or untyped; a type that is none of the three has no values.
    `leaf` says that whoever owns a value of this type owns all of it. Nodes are made by
    `compile_type` and not changed afterwards.
    """

    __slots__ = ("leaf", "list", "map", "scalar")

    def __init__(self) -> None:
        self.scalar: str | None = None
        self.list: ListType | None = None
        self.map: MapType | None = None
        self.leaf = True

    def shape(self, value: Json) -> ListType | MapType | None:
        """Return the list or map that `value` is taken for; None where it is a scalar.

        A value that is nothing the type allows, and null, is taken for the first that there is of
        map, scalar and list.
        """
        kind = value.__class__
        if kind is dict:
            if self.map is not None:
                return self.map
        elif kind is list:
            if self.list is not None:
                return self.list
        elif value is not None and self.scalar is not None:
            return None
        if self.map is not None:
            return self.map
        return None if self.scalar is not None else self.list


class ListType:
    """A list: atomic, or a set of scalars, or maps that some of their fields tell apart (`keys`, sorted).

    `defaults` holds the key fields whose absence means a value.
    """

    __slots__ = ("atomic", "defaults", "element", "keys")
    kind: ClassVar[Any] = list

    def __init__(self, element: Type, atomic: bool, keys: tuple[str, ...], defaults: Mapping[str, Json]) -> None:
        self.element = element
        self.atomic = atomic
        self.keys = keys
        self.defaults = defaults


class MapType:
    """A map: `fields` gives each declared name its path element and type, `element` the type of others.

    `element` None: no others are allowed. `deduced` says that nothing is known of what is below.
    """

    __slots__ = ("atomic", "deduced", "element", "fields")
    kind: ClassVar[Any] = dict

    def __init__(self, atomic: bool, deduced: bool) -> None:
        self.fields: dict[str, tuple[str, Type]] = {}
        self.element: Type | None = None
        self.atomic = atomic
        self.deduced = deduced

    def of(self, name: str) -> Type | None:
        """Return the type of the field `name`; None where there may be none of that name."""
        declared = self.fields.get(name)
        return self.element if declared is None else declared[1]


def compile_type(schema: Definition, name: str) -> Type:
    """Return the type `name` of `schema`, compiled. Raises `Malformed` where the schema has no such type.

    A type further down that the schema lacks, or that cannot be, is no error until it is used: no
    value is of it.
    """
    compiler = _Compiler(schema)
    if name not in compiler.definitions:
        raise Malformed(f"schema error: no type found matching: {excerpt(name)}")
    return compiler.named(name, "")


class _Compiler:
    """Compiles types of one schema; types that refer to each other share their nodes."""

    def __init__(self, schema: Definition) -> None:
        self.definitions = {definition["name"]: definition for definition in schema.get("types", ())}
        self._made: dict[tuple[str, str], Type] = {}

    def named(self, name: str, relationship: str) -> Type:
        """Return the type `name`, its lists and maps related as `relationship` says where it is not empty."""
        made = self._made.get((name, relationship))
        if made is None:
            made = self._made[name, relationship] = Type()
            self._fill(made, self.definitions.get(name, {}), relationship)
        return made

    def _reference(self, reference: Definition) -> Type:
        relationship = reference.get("elementRelationship", "")
        if "namedType" in reference:
            return self.named(reference["namedType"], relationship)
        made = Type()
        self._fill(made, reference, relationship)
        return made

    def _fill(self, made: Type, atom: Definition, relationship: str) -> None:
        scalar, map_, list_ = (atom.get(kind) for kind in ("scalar", "map", "list"))
        if relationship and map_ is None and list_ is None:
            return  # only lists and maps have items that relate
        made.scalar = scalar
        list_relationship = relationship if relationship and map_ is None else ""
        atomic_list = list_ is None or _list_is_atomic(list_, list_relationship)
        atomic_map = map_ is None or (relationship or map_.get("elementRelationship")) == "atomic"
        made.leaf = atomic_list and atomic_map
        if list_ is not None:
            made.list = self._list(list_, atomic_list)
        if map_ is not None:
            made.map = MapType(atomic_map, _is_deduced(map_))
            self._fill_map(made.map, map_)

    def _list(self, definition: Definition, atomic: bool) -> ListType:
        element = definition.get("elementType", {})
        keys = tuple(sorted(definition.get("keys") or ()))
        defaults = {
            field["name"]: field["default"]
            for field in self._fields_below(element)
            if field["name"] in keys and field.get("default") is not None
        }
        return ListType(self._reference(element), atomic, keys, defaults)

    def _fields_below(self, reference: Definition) -> Iterator[Definition]:
        atom = self.definitions.get(reference["namedType"], {}) if "namedType" in reference else reference
        yield from (atom.get("map") or {}).get("fields") or ()

    def _fill_map(self, made: MapType, definition: Definition) -> None:
        for field in definition.get("fields") or ():
            name = field["name"]
            made.fields[name] = (pathelement.field(name), self._reference(field["type"]))
        if definition.get("elementType"):
            made.element = self._reference(definition["elementType"])


def _list_is_atomic(definition: Definition, relationship: str) -> bool:
    return (relationship or definition.get("elementRelationship")) != "associative"


def _is_deduced(definition: Definition) -> bool:
    """Say whether nothing but the values tells the types below (reconciliation leaves these alone)."""
    element = definition.get("elementType") or {}
    unknown = element.get("namedType") == DEDUCED_NAME or element.get("scalar") == "untyped"
    return unknown and not definition.get("fields")
