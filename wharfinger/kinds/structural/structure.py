"""Structure: which schemas are structural (apiextensions, schema ValidateStructural and completeness).

A structural schema says the type of every value at one place, outside of `allOf`, `anyOf`, `oneOf` and `not`; what
stands within those may only narrow it, and may speak of no field that is not declared outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from wharfinger.core.causes import child, forbidden, invalid, item, key_of, required
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem
from wharfinger.kinds.kind import Schema
from wharfinger.kinds.structural import patterns
from wharfinger.kinds.structural.node import read

Level = Literal["root", "item", "field"]

EMBEDDED: Final = "x-kubernetes-embedded-resource"
PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_INT_OR_STRING_TYPES: Final = [{"type": "integer"}, {"type": "string"}]
_UNTYPED: Final = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}
_FORBIDDEN: Final = {
    "type": "must be empty to be structural",
    "default": "must be undefined to be structural",
    "title": "must be empty to be structural",
    "description": "must be empty to be structural",
    "nullable": "must be false to be structural",
    PRESERVE: "must be false to be structural",
    EMBEDDED: "must be false to be structural",
    INT_OR_STRING: "must be false to be structural",
    "x-kubernetes-list-map-keys": "must be empty to be structural",
    "x-kubernetes-list-type": "must be undefined to be structural",
    "x-kubernetes-map-type": "must be undefined to be structural",
}
"""What may not stand within an alternative, and what to say of it there."""
_IN_METADATA: Final = "must not specify anything other than name and generateName, but metadata is implicitly specified"


@dataclass(frozen=True, slots=True)
class Leniency:
    """What the API server's own types may do in alternatives, and CRDs may not."""

    additional: bool = False
    rules: bool = False
    properties_of_maps: bool = False


STRICT: Final = Leniency()


def problems(document: Schema, path: str = "", lenient: Leniency = STRICT) -> list[FieldProblem]:
    """Return why a schema is not structural; its root is at `path`.

    Raises `Malformed` for a schema that cannot even be read as one.
    """
    read(document)
    found = [*_invariants(document, "root", path, lenient), *incomplete(document, path, lenient)]
    return sorted(found, key=str)


def _invariants(document: Schema, level: Level, path: str, lenient: Leniency) -> Iterator[FieldProblem]:
    get, kind = document.get, document.get("type") or ""
    items, properties, additional = get("items"), get("properties") or {}, get("additionalProperties")
    embedded, untyped = bool(get(EMBEDDED)), not kind
    if kind == "array" and items is None:
        yield required(child(path, "items"), "must be specified")
    if items is not None:
        yield from _invariants(items, "item", child(path, "items"), lenient)
    for name, below in properties.items():
        yield from _invariants(below, "field", key_of(child(path, "properties"), name), lenient)
    if additional is not None:
        if level == "root":
            yield forbidden(child(path, "additionalProperties"), "must not be used at the root")
        if isinstance(additional, dict):
            yield from _invariants(additional, "field", child(path, "additionalProperties"), lenient)
    yield from _exclusions(document, path)
    yield from _alternatives(document, level, path, lenient, outside=True)
    if embedded and kind != "object":
        text = f"must be object if {EMBEDDED} is true"
        yield required(child(path, "type"), text) if untyped else invalid(child(path, "type"), kind, text)
    elif untyped and not get(INT_OR_STRING) and not get(PRESERVE):
        yield required(child(path, "type"), _UNTYPED[level])
    if embedded and additional is not None:
        yield forbidden(child(path, "additionalProperties"), f"must not be used if {EMBEDDED} is set")
    if level == "root" and not untyped and kind != "object":
        yield invalid(child(path, "type"), kind, "must be object at the root")
    if level == "root" or embedded:
        for name in ("kind", "apiVersion"):
            if name in properties and properties[name].get("type") != "string":
                at = child(key_of(child(path, "properties"), name), "type")
                yield invalid(at, properties[name].get("type") or "", "must be string")
    if "metadata" in properties:
        at = key_of(child(path, "properties"), "metadata")
        yield from metadata_invariants(properties["metadata"], level, at, checked=level == "root" or embedded)
    if embedded and not get(PRESERVE) and not properties:
        text = f"must not be empty if {EMBEDDED} is true without {PRESERVE}"
        yield required(child(path, "properties"), text)


def _exclusions(document: Schema, path: str) -> Iterator[FieldProblem]:
    if document.get(INT_OR_STRING):
        for name in (PRESERVE, EMBEDDED):
            if document.get(name):
                yield invalid(child(path, name), True, f"must be false if {INT_OR_STRING} is true")


def metadata_invariants(document: Schema, level: Level, path: str, *, checked: bool) -> Iterator[FieldProblem]:
    """Yield what is wrong with the schema of `metadata`, which may restrict names and nothing else."""
    if checked and document.get("type") != "object":
        yield invalid(child(path, "type"), document.get("type") or "", "must be object")
    if level == "root":
        rest = {name for name, value in document.items() if _is_set(value)} - {"type", "default"}
        if (document.get("properties") or {}).keys() <= {"name", "generateName"}:
            rest.discard("properties")
        if rest:
            yield forbidden(path, _IN_METADATA)


def _is_set(value: Json) -> bool:
    """Tell whether a keyword says anything: empty lists and texts, zero flags and null do not."""
    return value is not None and value is not False and value not in ("", [], {})


def _is_int_or_string(document: Schema) -> bool:
    return _bare(document.get("anyOf")) == _INT_OR_STRING_TYPES


def _bare(alternatives: Json) -> list[Schema]:
    return [{name: value for name, value in each.items() if _is_set(value)} for each in alternatives or ()]


def _alternatives(
    document: Schema, level: Level, path: str, lenient: Leniency, *, outside: bool = False, skip: bool = False
) -> Iterator[FieldProblem]:
    """Check what narrows a value; `skip` says that its `anyOf` is the one of int-or-string."""
    without_rules = Leniency(lenient.additional, False, lenient.properties_of_maps)
    all_of = document.get("allOf") or ()
    if not (skip or (outside and _is_int_or_string(document))):
        for index, each in enumerate(document.get("anyOf") or ()):
            yield from _narrowing(each, level, item(child(path, "anyOf"), index), without_rules)
    for index, each in enumerate(all_of):
        first = outside and index == 0 and _is_int_or_string(each)
        yield from _narrowing(each, level, item(child(path, "allOf"), index), lenient, skip=first)
    for index, each in enumerate(document.get("oneOf") or ()):
        yield from _narrowing(each, level, item(child(path, "oneOf"), index), without_rules)
    if document.get("not") is not None:
        yield from _narrowing(document["not"], level, child(path, "not"), without_rules)
    pattern = document.get("pattern")
    if pattern:
        search = patterns.compiled(pattern)
        if isinstance(search, str):
            text = f"must be a valid regular expression, but isn't: {search}"
            yield invalid(child(path, "pattern"), pattern, text)


def _narrowing(
    document: Schema, level: Level, path: str, lenient: Leniency, *, skip: bool = False
) -> Iterator[FieldProblem]:
    """Check a schema within an alternative."""
    yield from _alternatives(document, level, path, lenient, skip=skip)
    items, properties, additional = (document.get(name) for name in ("items", "properties", "additionalProperties"))
    if items is not None:
        yield from _narrowing(items, level, child(path, "items"), lenient)
    for name, below in (properties or {}).items():
        yield from _narrowing(below, "field", key_of(child(path, "properties"), name), lenient)
    if additional:
        if not lenient.additional:
            yield forbidden(child(path, "additionalProperties"), "must be undefined to be structural")
        elif isinstance(additional, dict):
            yield from _narrowing(additional, level, child(path, "additionalProperties"), lenient)
    elif additional == {} and not lenient.additional:
        yield forbidden(child(path, "additionalProperties"), "must be undefined to be structural")
    for name, text in _FORBIDDEN.items():
        if _is_set(document.get(name)) or (name == "default" and document.get(name) is not None):
            yield forbidden(child(path, name), text)
    if document.get("x-kubernetes-validations") and not lenient.rules:
        yield forbidden(child(path, "x-kubernetes-validations"), "must be empty to be structural")
    if "metadata" in (properties or {}):
        at = key_of(child(path, "properties"), "metadata")
        yield forbidden(at, "must not be specified in a nested context")


def incomplete(document: Schema, path: str = "", lenient: Leniency = STRICT) -> Iterator[FieldProblem]:
    """Yield the fields that alternatives speak of and that are not declared outside of them.

    As upstream has it, only alternatives at the root are looked at.
    """
    yield from _undeclared_in(document, document, path, path, lenient)


def _undeclared_in(
    narrowing: Schema, outer: Schema, path: str, where: str, lenient: Leniency
) -> Iterator[FieldProblem]:
    if narrowing.get("not") is not None:
        yield from _undeclared(narrowing["not"], outer, path, child(where, "not"), lenient)
    for name in ("allOf", "anyOf", "oneOf"):
        for index, each in enumerate(narrowing.get(name) or ()):
            yield from _undeclared(each, outer, path, item(child(where, name), index), lenient)


def _undeclared(
    narrowing: Schema, outer: Schema | None, path: str, where: str, lenient: Leniency
) -> Iterator[FieldProblem]:
    if outer is None:
        yield required(path, f"because it is defined in {where}")
        return
    yield from _undeclared_in(narrowing, outer, path, where, lenient)
    if narrowing.get("items") is not None:
        yield from _undeclared(
            narrowing["items"], outer.get("items"), child(path, "items"), child(where, "items"), lenient
        )
    declared, further = outer.get("properties") or {}, outer.get("additionalProperties")
    values = further if isinstance(further, dict) else None
    for name, below in (narrowing.get("properties") or {}).items():
        at, there = key_of(child(path, "properties"), name), key_of(child(where, "properties"), name)
        if name in declared:
            yield from _undeclared(below, declared[name], at, there, lenient)
        elif values is not None and lenient.properties_of_maps:
            yield from _undeclared(below, values, child(path, "additionalProperties"), there, lenient)
        else:
            yield required(at, f"because it is defined in {there}")
    wanted = narrowing.get("additionalProperties")
    if wanted is not None and wanted is not False and lenient.additional:
        below = wanted if isinstance(wanted, dict) else {}
        at, there = child(path, "additionalProperties"), child(where, "additionalProperties")
        yield from _undeclared(below, values, at, there, lenient)
