"""The resources served: each kind with what is compiled from its schema, found by path or by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, NotFound
from wharfinger.kinds.builtin.behaviour import Behaviour, Builtin
from wharfinger.kinds.kind import Column, Kind, Schema
from wharfinger.kinds.structural import columns, objectmeta, schema
from wharfinger.local.api import wire
from wharfinger.local.api.faults import NoPage
from wharfinger.local.api.request import Target
from wharfinger.local.api.rules import compile_rule
from wharfinger.local.merge import managed, openapi, strategic
from wharfinger.local.merge.schema import Type

_OURS: Final = Behaviour(generation=True)
_COMMON_FIELDS: Final = ("metadata.name", "metadata.namespace")


class Resource:
    """One kind as it is served. What costs time to compile is compiled when first asked for.

    `number` is its number in the store. `builtin` says that it is a kind of Kubernetes itself: those take
    strategic merge patches, drop nulls and judge wrong types as malformed, where custom ones do not.
    """

    def __init__(self, kind: Kind, behaviour: Behaviour, number: int, *, builtin: bool) -> None:
        self.kind = kind
        self.behaviour = behaviour
        self.number = number
        self.builtin = builtin
        self.selectable = frozenset((*_COMMON_FIELDS, *kind.selectable))

    @cached_property
    def schema(self) -> schema.Schema:
        """What defaults, prunes and validates its objects."""
        return schema.compile_schema(self.kind.schema, None if self.builtin else compile_rule, typed=self.builtin)

    @cached_property
    def coercion(self) -> objectmeta.Coerce | None:
        """What brings the metadata of objects within its objects to its form; None when it holds none."""
        return objectmeta.compile_coercion(self.schema.node)

    @cached_property
    def normalize(self) -> wire.Normalize | None:
        """What writes its objects as Kubernetes does, in place; None for our own kinds."""
        return wire.normalizer(self.kind.api_version, self.kind.name) if self.builtin else None

    @cached_property
    def shape(self) -> strategic.Shape:
        """How strategic patches merge its objects."""
        return strategic.compile_shape(self.kind.schema)

    @cached_property
    def _type(self) -> Type:
        return openapi.compile_type(_keyed(self.kind.schema) if self.builtin else self.kind.schema)

    @cached_property
    def _trackings(self) -> dict[str, managed.Tracking]:
        version, types = self.kind.api_version, {self.kind.api_version: self._type}
        main: Json = {"f:status": {}} if self.kind.status else {}
        below: Json = {"f:metadata": {}, "f:spec": {}}
        name, empty = self.kind.name, wire.empty(version, self.kind.name) if self.builtin else {}
        return {
            "": managed.Tracking(version, types, ignored=main, empty=empty, kind=name),
            "status": managed.Tracking(version, types, "status", ignored=below, empty=empty, kind=name),
            "scale": managed.Tracking(version, types, "scale", ignored=main, empty=empty, kind=name),
        }

    def tracking(self, subresource: str) -> managed.Tracking:
        """Return how field ownership is kept for writes through `subresource` ("" for the object itself)."""
        return self._trackings[subresource]

    @cached_property
    def subresources(self) -> tuple[str, ...]:
        """The names of its subresources."""
        names = []
        if self.kind.status:
            names.append("status")
        if self.kind.scale is not None:
            names.append("scale")
        names += _OWN_SUBRESOURCES.get(self.kind.resource, ())
        return tuple(names)

    @cached_property
    def rows(self) -> Rows:
        """What `get` prints of it."""
        printed = self.behaviour.rows
        if printed is not None:
            return Rows(tuple(map(_definition, printed.columns)), printed.cells)
        chosen = self.kind.columns or (Column("Age", ".metadata.creationTimestamp", "date"),)
        compiled = columns.compile_columns(chosen)

        def cells(value: Json, now: int) -> list[Json]:
            return [value["metadata"].get("name", ""), *compiled.cells(value, now)]

        definitions = tuple(map(_definition, chosen)) if self.builtin else compiled.definitions
        return Rows((columns.NAME, *definitions), cells)

    def fields_of(self, value: Json) -> Mapping[str, str]:
        """Return the fields of an object that a field selector may name."""
        return {path: _text_at(value, path) for path in self.selectable}


@dataclass(frozen=True, slots=True)
class Rows:
    """The columns of a kind's table, as a Table defines them, and the function that fills them."""

    definitions: tuple[dict[str, Json], ...]
    cells: Callable[[Json, int], Iterable[Json]]


_ZERO_KEYS: Final = {"string": "", "integer": 0}


def _keyed(schema: Schema) -> Schema:
    """Return the schema with zero values as defaults of keys of lists, as Kubernetes' OpenAPI has them."""
    made = dict(schema)
    for name in ("items", "additionalProperties"):
        if isinstance(made.get(name), dict):
            made[name] = _keyed(made[name])
    if "properties" in made:
        made["properties"] = {name: _keyed(child) for name, child in made["properties"].items()}
    for key in made.get("x-kubernetes-list-map-keys") or ():
        fields = made["items"]["properties"]
        zero = _ZERO_KEYS.get(fields[key].get("type"))
        if zero is not None and "default" not in fields[key]:
            fields[key] = {**fields[key], "default": zero}
    return made


def _definition(column: Column) -> dict[str, Json]:
    """Return the definition of a built-in kind's column: Kubernetes calls each a text."""
    return {
        "name": column.name,
        "type": "string",
        "format": "name" if column.path == ".metadata.name" else "",
        "description": column.description,
        "priority": column.priority,
    }


_OWN_SUBRESOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "pods": ("binding", "log"),
    "namespaces": ("finalize",),
}


def _text_at(value: Json, path: str) -> str:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if path == "source" and isinstance(value, dict):
        value = value.get("component")
    if value is None:
        return "false" if path in _FALSE_WHEN_ABSENT else ""
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


_FALSE_WHEN_ABSENT: Final = frozenset({"spec.unschedulable", "spec.hostNetwork"})


class Catalogue:
    """Every resource that is served."""

    def __init__(
        self,
        kinds: Sequence[Kind],
        builtins: Sequence[Builtin],
        enrol: Callable[[Iterable[str]], Mapping[str, int]],
    ) -> None:
        """Serve `builtins` and our own `kinds`; `enrol` gives resources their numbers in the store."""
        numbers = enrol([*(each.kind.resource for each in builtins), *(kind.resource for kind in kinds)])
        self.resources = tuple(
            [Resource(each.kind, each.behaviour, numbers[each.kind.resource], builtin=True) for each in builtins]
            + [Resource(kind, _OURS, numbers[kind.resource], builtin=False) for kind in kinds]
        )
        self._by_path = {(r.kind.group, r.kind.version, r.kind.plural): r for r in self.resources}
        self._by_number = {r.number: r for r in self.resources}
        self._by_plural = {r.kind.plural: r for r in self.resources}

    def at(self, group: str, version: str, plural: str) -> Resource:
        """Return the resource at a path. Raises `NotFound`, for a group or version `NoPage`."""
        found = self._by_path.get((group, version, plural))
        if found is None:
            if version not in self.groups.get(group, {}):
                raise NoPage("404 page not found")
            raise NotFound("the server could not find the requested resource")
        return found

    def __contains__(self, target: object) -> bool:
        """Say whether a `request.Target` is of a resource that is served."""
        return isinstance(target, Target) and (target.group, target.version, target.plural) in self._by_path

    def numbered(self, number: int) -> Resource | None:
        """Return the resource with this number in the store; None for one that is served no more."""
        return self._by_number.get(number)

    def named(self, plural: str) -> Resource:
        """Return the resource with this plural. Raises `Malformed` for a name that is not served."""
        found = self._by_plural.get(plural)
        if found is None:
            raise Malformed(f"expected the plural name of a served kind, got {plural}")
        return found

    @cached_property
    def groups(self) -> dict[str, dict[str, list[Resource]]]:
        """The resources by group and version, in order; the core group first."""
        made: dict[str, dict[str, list[Resource]]] = {}
        for resource in self.resources:
            made.setdefault(resource.kind.group, {}).setdefault(resource.kind.version, []).append(resource)
        return made
