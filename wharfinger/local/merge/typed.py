"""A value under its type: is it valid, which fields does it set, parts of it taken out.

The operations of structured-merge-diff v6, package `typed`, except comparing and merging two values
(`comparison`, `merging`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, WharfingerError, excerpt
from wharfinger.local.merge import fieldpath, pathelement
from wharfinger.local.merge.fieldpath import LEAF, FieldSet
from wharfinger.local.merge.schema import ListType, MapType, Type


class Mismatch(WharfingerError):
    """A value is not of its type; `fields` names each place.

    The status is kube-apiserver's, which answers 500 when an apply configuration does not fit its
    schema.
    """

    code: ClassVar[str] = "InternalError"
    status: ClassVar[int] = 500


def check(type_: Type, value: Json, *, duplicates: bool = False) -> None:
    """Raise `Mismatch` with every place where `value` is not of `type_`.

    Items of sets and keyed lists that occur twice are such places too, except with `duplicates`.
    """
    problems = list(_problems(type_, value, "", duplicates))
    if problems:
        shown = [f"{problem.field}: {problem.message}" if problem.field else problem.message for problem in problems]
        raise Mismatch(shown[0] if len(shown) == 1 else "\n  ".join(["errors:", *shown]), fields=problems)


def item_element(type_: ListType, value: Json) -> str:
    """Return the path element of the item `value` of a list that is not atomic; raise `Mismatch`."""
    if not type_.keys:
        if value is None:
            raise Mismatch("associative list without keys has an element that's an explicit null")
        if isinstance(value, dict):
            raise Mismatch("associative list without keys has an element that's a map type")
        if isinstance(value, list):
            raise Mismatch("not supported: associative list with lists as elements")
        return pathelement.item(value)
    if value.__class__ is not dict:
        kind = "a null element" if value is None else "non-map elements"
        raise Mismatch(f"associative list with keys may not have {kind}")
    keys = []
    for name in type_.keys:
        if name in value:
            keys.append((name, value[name]))
        elif name in type_.defaults:
            keys.append((name, type_.defaults[name]))
    if not keys:
        names = " ".join(f'"{name}"' for name in type_.keys)
        raise Mismatch(
            f"associative list with keys has an element that omits all key fields [{names}]"
            " (and doesn't have default values for any key fields)"
        )
    return pathelement.keyed(keys)


def field_set(type_: Type, value: Json) -> FieldSet:
    """Return the fields that `value` sets: leaves, items, and what no schema declares. Raises `Mismatch`."""
    return _field_set(type_, value) or LEAF


def _field_set(type_: Type, value: Json) -> FieldSet | None:
    """Return the node for `value`; None where it holds no field."""
    if type_.leaf:
        return LEAF
    shape = type_.shape(value)
    if shape is None or shape.atomic:
        return LEAF
    if not value or value.__class__ is not shape.kind:
        return None
    return _fields_of_map(shape, value) if isinstance(shape, MapType) else _fields_of_list(shape, value)


def _fields_of_map(type_: MapType, value: dict[str, Json]) -> FieldSet | None:
    made: FieldSet = {}
    for name in sorted(value):
        child = value[name]
        declared = type_.fields.get(name)
        if declared is None:
            if type_.element is None:
                raise Mismatch(f".{name}: field not declared in schema")
            made["f:" + name] = _as_member(_field_set(type_.element, child))
            continue
        element, child_type = declared
        below = LEAF if child_type.leaf else _field_set(child_type, child)
        if child is None or child == {}:
            below = _as_member(below)
        if below is not None:
            made[element] = below
    return made or None


def _fields_of_list(type_: ListType, value: list[Json]) -> FieldSet:
    elements = [item_element(type_, child) for child in value]
    twice = duplicated(elements)
    return fieldpath.normal(
        {
            element: LEAF if element in twice else _as_member(_field_set(type_.element, child))
            for element, child in zip(elements, value, strict=True)
        }
    )


def duplicated(elements: list[str]) -> set[str]:
    """Return those of `elements` that occur more than once."""
    if len(set(elements)) == len(elements):
        return set()
    return {element for element, count in Counter(elements).items() if count > 1}


def _as_member(node: FieldSet | None) -> FieldSet:
    return {".": LEAF, **node} if node else LEAF


def named_members(type_: Type | None, fields: FieldSet) -> FieldSet:
    """Return `fields` and, of the paths above its members, those that end in a declared field.

    What an applier owns `.spec.a` for, it owns `.spec` for, too, when it comes to removing.
    """
    made: FieldSet = {}
    for name, child in fields.items():
        if not child:
            made[name] = child
            continue
        node = named_members(_below_element(type_, name), child)
        declared = type_ and type_.map and name[0] == "f" and name[2:] in type_.map.fields
        made[name] = {".": LEAF, **node} if declared and "." not in node else node
    return made


def remove(type_: Type, value: Json, fields: FieldSet) -> Json:
    """Return `value` without the parts that `fields` names and all below them; None where nothing is left."""
    shape = type_.shape(value)
    if shape is None:
        return value
    if shape.atomic or not value or value.__class__ is not shape.kind:
        return None
    if isinstance(shape, MapType):
        return _remove_from_map(shape, value, fields)
    kept = []
    for child in value:
        node = fields.get(item_element(shape, child))
        if node is None:
            kept.append(child)
        elif not fieldpath.is_member(node):
            kept.append(remove(shape.element, child, node))
    return kept or None


def _remove_from_map(type_: MapType, value: dict[str, Json], fields: FieldSet) -> Json:
    kept = {}
    for name, child in value.items():
        node = fields.get("f:" + name)
        if node is None:
            kept[name] = child
        elif not fieldpath.is_member(node):
            below = type_.of(name)
            kept[name] = child if below is None else remove(below, child, node)
    return kept or None


def extract(type_: Type, value: Json, fields: FieldSet) -> Json:
    """Return the parts of `value` that `fields` names, and what leads to them; None where there are none."""
    shape = type_.shape(value)
    if shape is None or shape.atomic or not value:
        return value
    if value.__class__ is not shape.kind:
        return None
    if isinstance(shape, MapType):
        return _extract_from_map(shape, value, fields)
    taken = []
    for child in value:
        node = fields.get(item_element(shape, child))
        if node is not None:
            taken.append(extract(shape.element, child, node) if node else child)
    return taken or None


def _extract_from_map(type_: MapType, value: dict[str, Json], fields: FieldSet) -> Json:
    taken = {}
    for name, child in value.items():
        node = fields.get("f:" + name)
        if node is None:
            continue
        below = type_.of(name)
        # A member is taken with the parts that the set of its siblings names: upstream's way.
        inner = fields if fieldpath.is_member(node) else node
        taken[name] = child if below is None else extract(below, child, inner)
    return taken or None


def with_keys(type_: Type, value: Json, fields: FieldSet) -> FieldSet:
    """Return `fields` and the key fields of the items of `value` on the way to its members."""
    present = set(fieldpath.paths(field_set(type_, value)))
    made = fields
    for path in fieldpath.paths(fields):
        if path in present:
            for at, element in enumerate(path):
                for name in pathelement.key_names(element):
                    keyed = (*path[: at + 1], pathelement.field(name))
                    made = fieldpath.union(made, fieldpath.of_path(keyed))
    return made


def reconcile(type_: Type, fields: FieldSet) -> FieldSet:
    """Return `fields`, owned under an earlier schema, as one owns them under this one.

    Who owned parts of what is atomic now owns the whole. (Atomic to granular needs nothing: who
    owned the whole goes on owning it.) The same object comes back where nothing changes.
    """
    return _reconcile(type_, fields, root=True)


def _reconcile(type_: Type, node: FieldSet, *, root: bool = False) -> FieldSet:
    if type_.map is not None:
        if type_.map.deduced or not node:
            return node
        if type_.map.atomic:
            return node if root else LEAF
    elif type_.scalar is not None or type_.list is None or not node:
        return node
    elif type_.list.atomic:
        return node if root else LEAF
    made = node
    for name, child in node.items():
        if not child:
            continue
        below = _below_element(type_, name)
        fixed = child if below is None else _reconcile(below, child)
        if fixed is not child:
            made = {**made, name: fixed}
    return made


def _below_element(type_: Type | None, element: str) -> Type | None:
    """Return the type of what is at `element` of a value of `type_`; None where that is not known."""
    if type_ is None:
        return None
    if element[0] == "f":
        return None if type_.map is None else type_.map.of(element[2:])
    return None if type_.list is None else type_.list.element


def _problems(type_: Type, value: Json, where: str, duplicates: bool) -> Iterator[FieldProblem]:
    shape = type_.shape(value)
    if shape is None:
        if type_.scalar is None:
            yield FieldProblem(where, "schema error: no type found")
        elif value is not None and not _is_scalar(type_.scalar, value):
            wanted = {"numeric": "numeric (int or float)", "untyped": "any scalar"}.get(type_.scalar, type_.scalar)
            yield _wrong(where, wanted, value)
    elif isinstance(shape, MapType):
        if isinstance(value, dict):
            for name, child in value.items():
                below = shape.of(name)
                if below is None:
                    yield FieldProblem(f"{where}.{name}", "field not declared in schema", "FieldValueInvalid")
                else:
                    yield from _problems(below, child, f"{where}.{name}", duplicates)
        elif value is not None:
            yield _wrong(where, "map", value)
    elif isinstance(value, list):
        yield from _problems_of_list(shape, value, where, duplicates)
    elif value is not None:
        yield _wrong(where, "list", value)


def _problems_of_list(type_: ListType, value: list[Json], where: str, duplicates: bool) -> Iterator[FieldProblem]:
    seen = set()
    for at, child in enumerate(value):
        shown = f"[{at}]"
        if not type_.atomic:
            try:
                element = item_element(type_, child)
            except Mismatch as mismatch:
                yield FieldProblem(where, f"element {at}: {mismatch.message}")
                return
            shown = pathelement.show(element)
            if element in seen and not duplicates:
                yield FieldProblem(where, f"duplicate entries for key {shown}", "FieldValueDuplicate")
            seen.add(element)
        yield from _problems(type_.element, child, where + shown, duplicates)


def _is_scalar(scalar: str, value: Json) -> bool:
    if scalar == "string":
        return isinstance(value, str)
    if scalar == "boolean":
        return isinstance(value, bool)
    if scalar == "numeric":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return scalar == "untyped" and isinstance(value, str | int | float)


def _wrong(where: str, wanted: str, value: Json) -> FieldProblem:
    return FieldProblem(where, f"expected {wanted}, got {excerpt(value)}", "FieldValueTypeInvalid")
