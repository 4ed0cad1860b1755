"""Strategic merge patch: a merge patch that knows which lists are merged, and by which key.

Kubernetes, "Update API Objects in Place Using kubectl patch"; apimachinery `strategicpatch`, as
kube-apiserver applies patches to built-in kinds. In a patch

- null removes a field; an object is merged, `"$patch": "replace"` or `"delete"` in it instead replaces
  or empties it; a list is replaced, or merged where its strategy is `merge`;
- in a merged list of objects, items go by the merge key; `"$patch": "delete"` in an item removes the
  one with its key, `{"$patch": "replace"}` as an item makes the rest of the list replace the old one;
- `$deleteFromPrimitiveList/FIELD` lists scalars to remove from FIELD; `$setElementOrder/FIELD` says in
  which order its items are to stand; `$retainKeys` lists the fields that an object is to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid, Malformed, excerpt
from wharfinger.kinds.builtin.meta import OBJECT_META

DIRECTIVE, RETAIN_KEYS = "$patch", "$retainKeys"
DELETE_FROM, SET_ORDER = "$deleteFromPrimitiveList", "$setElementOrder"
DELETE, REPLACE, MERGE = "delete", "replace", "merge"


@dataclass(frozen=True, slots=True)
class Field:
    """How one field is patched: its strategy ("" is the default of its type), and what is below it.

    `below` is the shape of the object, or of the items of the list.
    """

    below: Shape
    strategy: str = ""
    retain_keys: bool = False
    merge_key: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of a struct; None where nothing is known of them, as in a map."""

    fields: Mapping[str, Field] | None = None

    def of(self, name: str) -> Field:
        """Return how the field `name` is patched; raise `Malformed` where there is no such field."""
        field = None if self.fields is None else self.fields.get(name)
        if field is None:
            raise Malformed(f"unable to find api field for the json field {excerpt(name)}")
        return field


@dataclass(frozen=True, slots=True)
class _Mode:
    """Whether a patch is applied to an object, or joined to an earlier patch, which keeps directives and nulls."""

    to_object: bool


_TO_OBJECT, _TO_PATCH = _Mode(to_object=True), _Mode(to_object=False)


def compile_shape(schema: Json) -> Shape:
    """Return the shape of objects with the OpenAPI schema `schema`, by its patch extensions.

    Their metadata is what every object has, whatever `schema` says of it.
    """
    properties = schema.get("properties") or {}
    return _shape({**schema, "properties": {**properties, "metadata": OBJECT_META}})


def _shape(schema: Json) -> Shape:
    properties = schema.get("properties")
    if not properties:
        return Shape()
    return Shape({name: _field(child) for name, child in properties.items()})


def _field(schema: Json) -> Field:
    strategies = schema.get("x-kubernetes-patch-strategy", "").split(",")
    others = [strategy for strategy in strategies if strategy != "retainKeys"]
    return Field(
        below=_shape(schema.get("items") or schema),
        strategy=others[0] if others else "",
        retain_keys="retainKeys" in strategies,
        merge_key=schema.get("x-kubernetes-patch-merge-key", ""),
    )


def apply(original: Json, patch: Json, shape: Shape) -> Json:
    """Return the object `original` with `patch`, both of `shape`, applied.

    Raises `Invalid` for directives that do not fit what they direct, `Malformed` for fields that the
    shape lacks and for lists that cannot be merged.
    """
    return _merge_maps(_object(original), _object(patch), shape, _TO_OBJECT)


def join(first: Json, second: Json, shape: Shape) -> Json:
    """Return one patch that does what `first` and then `second` do; raises as `apply`."""
    return _merge_maps(_object(first), _object(second), shape, _TO_PATCH)


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise Malformed(f"expected a JSON object, got {excerpt(value)}")
    return value


def _merge_maps(original: dict[str, Json], patch: dict[str, Json], shape: Shape, mode: _Mode) -> dict[str, Json]:
    if DIRECTIVE in patch:
        return _directed_map(patch)
    original, patch = dict(original), dict(patch)
    if RETAIN_KEYS in patch:
        _retain_keys(original, patch, mode)
    for name in [name for name in patch if name.startswith(SET_ORDER)]:
        _merge_ordered(original, patch, name, shape, mode)
    # Removals come first, so that an item both removed and added is there (upstream's order is random).
    for name, value in sorted(patch.items(), key=lambda field: not field[0].startswith(DELETE_FROM)):
        removal = name.startswith(DELETE_FROM)
        if removal and not mode.to_object:
            original[name] = value
            continue
        _merge_field(original, _directed_field(name) if removal else name, value, shape, mode, removal)
    return original


def _directed_map(patch: dict[str, Json]) -> dict[str, Json]:
    directive = patch[DIRECTIVE]
    if directive == REPLACE:
        return {name: value for name, value in patch.items() if name != DIRECTIVE}
    if directive == DELETE:
        return {}
    raise Malformed(f"expected the patch type {REPLACE} or {DELETE} of an object, got {excerpt(directive)}")


def _merge_field(original: dict[str, Json], name: str, value: Json, shape: Shape, mode: _Mode, removal: bool) -> None:
    if value is None:
        original.pop(name, None)
        if mode.to_object:
            return
    if name not in original or kind_of(original[name]) is not kind_of(value):
        if not removal:
            _set(original, name, value, mode)
        return
    if isinstance(value, dict):
        field = shape.of(name)
        original[name] = value if field.strategy == REPLACE else _merge_maps(original[name], value, field.below, mode)
    elif isinstance(value, list):
        field = shape.of(name)
        if field.strategy == MERGE or removal:
            original[name] = _merge_lists(original[name], value, field, mode, removal)
        else:
            original[name] = value
    else:
        original[name] = value


def _set(original: dict[str, Json], name: str, value: Json, mode: _Mode) -> None:
    if isinstance(value, dict) and DIRECTIVE in value:
        original.pop(name, None)
    else:
        original[name] = _undirected(value, nulls=not mode.to_object)


def _undirected(value: Json, *, nulls: bool) -> Json:
    """Return `value` without the parts that hold a directive; without null fields, too, unless `nulls`."""
    if isinstance(value, dict):
        return {
            name: _undirected(child, nulls=nulls)
            for name, child in value.items()
            if not _is_directed(child) and (nulls or child is not None)
        }
    if isinstance(value, list):
        return [_undirected(child, nulls=nulls) for child in value if not _is_directed(child)]
    return value


def _is_directed(value: Json) -> bool:
    return isinstance(value, dict) and DIRECTIVE in value


def _retain_keys(original: dict[str, Json], patch: dict[str, Json], mode: _Mode) -> None:
    keys = patch.pop(RETAIN_KEYS)
    if not mode.to_object:
        if original.setdefault(RETAIN_KEYS, keys) != keys:
            raise Invalid(f"expected the same {RETAIN_KEYS} in both patches, got {excerpt(keys)}")
        return
    if not isinstance(keys, list):
        raise Invalid(f"invalid patch format of {RETAIN_KEYS}")
    kept = {key for key in keys if isinstance(key, str)}
    for name, value in patch.items():
        if value is not None and not name.startswith((DELETE_FROM, SET_ORDER)) and name not in kept:
            raise Invalid(f"invalid patch format of {RETAIN_KEYS}")
    for name in [name for name in original if name not in kept]:
        del original[name]


def _merge_ordered(
    original: dict[str, Json], patch: dict[str, Json], directive: str, shape: Shape, mode: _Mode
) -> None:
    """Merge the list that `directive` orders, put it into that order, and take both out of `patch`."""
    order = patch.pop(directive)
    if not mode.to_object and original.setdefault(directive, order) != order:
        raise _bad_order()
    if not isinstance(order, list):
        raise _bad_order()
    name = _directed_field(directive)
    lists = [one[name] for one in (original, patch) if name in one]
    if not all(isinstance(one, list) for one in lists):
        raise Malformed(f"expected a list in {excerpt(name)}, whose order is set")
    field = shape.of(name)
    _check_order(patch.get(name) or [], order, field.merge_key)
    if not lists:
        return
    if name not in patch:
        merged = original[name]
    elif name not in original:
        merged = _undirected(patch[name], nulls=True)
    elif field.strategy == MERGE:
        merged = _merge_lists(original[name], patch[name], field, mode, removal=False)
    else:
        merged = patch[name]
    before = original.get(name) or []
    if element_kind(*lists) is dict and len(lists) == 2 and field.merge_key and field.strategy == MERGE:
        before = _places_left(before, patch[name], field.merge_key)
    original[name] = _arranged(merged, order, before, field.merge_key)
    patch.pop(name, None)


def _check_order(items: list[Json], order: list[Json], merge_key: str) -> None:
    """Raise `Invalid` unless `items` (but the directed ones) stand in `order` as they stand here."""
    if not items or not order:
        return
    identity = identifier(merge_key)
    awaited = [item for item in items if not (_is_directed(item) and item[DIRECTIVE] == DELETE)]
    at = 0
    for listed in order:
        while at < len(awaited) and _is_directed(awaited[at]):
            at += 1
        if at < len(awaited) and identity(awaited[at]) == identity(listed):
            at += 1
    if at < len(awaited):
        raise Invalid(f"The order in patch list: {excerpt(items)} doesn't match {SET_ORDER} list: {excerpt(order)}")


def _merge_lists(original: list[Json], patch: list[Json], field: Field, mode: _Mode, removal: bool) -> list[Json]:
    if not original and not patch:
        return original
    if element_kind(original, patch) is not dict:
        identity = identifier("")
        if removal and mode.to_object:
            gone = set(map(identity, patch))
            return [item for item in original if identity(item) not in gone]
        merged = list({identity(item): item for item in [*original, *patch]}.values())
        return _arranged(merged, patch, original, field.merge_key)
    if not field.merge_key:
        raise Malformed("cannot merge lists without merge key")
    original, patch = _without_directed_items(original, patch, field.merge_key)
    identity = identifier(field.merge_key)
    merged = list(original)
    at: dict[Any, int] = {}
    for position, item in enumerate(original):
        if field.merge_key in item:
            at.setdefault(identity(item), position)
    for item in patch:
        key = identity(item)
        if key in at:
            merged[at[key]] = _merge_maps(merged[at[key]], item, field.below, mode)
        else:
            at[key] = len(merged)
            merged.append(item)
    return _arranged(merged, patch, original, field.merge_key)


def _without_directed_items(original: list[Json], patch: list[Json], merge_key: str) -> tuple[list[Json], list[Json]]:
    identity = identifier(merge_key)
    plain, gone, replace = [], set(), False
    for item in patch:
        directive = item.get(DIRECTIVE)
        if DIRECTIVE not in item:
            plain.append(item)
        elif directive == DELETE:
            gone.add(identity(item))
        elif directive == REPLACE:
            replace = True
        else:
            raise Malformed(f"expected the patch type {REPLACE} or {DELETE} of an item, got {excerpt(directive)}")
    if replace:
        return plain, []
    if not gone:
        return original, plain
    return [item for item in original if merge_key not in item or identity(item) not in gone], plain


def _places_left(original: list[Json], patch: list[Json], merge_key: str) -> list[Json]:
    """Return the order by which items that no order lists find their places among those it lists.

    As in kube-apiserver: the places of items that `patch` removes from `original` are taken by the
    first that it adds.
    """
    kept, plain = _without_directed_items(original, patch, merge_key)
    if len(kept) == len(original):
        return original
    identity = identifier(merge_key)
    there = {identity(item) for item in kept if merge_key in item}
    added = [item for item in plain if identity(item) not in there]
    return kept + added[: len(original) - len(kept)]


def _arranged(merged: list[Json], order: list[Json], before: list[Json], merge_key: str) -> list[Json]:
    """Return the items of `merged` as `order` lists them; those it does not list keep their places of `before`."""
    identity = identifier(merge_key)
    listed, earlier = positions(order, identity), positions(before, identity)
    ordered = arrange([item for item in merged if identity(item) in listed], order, merge_key)
    others = arrange([item for item in merged if identity(item) not in listed], before, merge_key)
    made: list[Json] = []
    waiting = iter(others)
    other = next(waiting, None)
    for item in ordered:
        place = earlier.get(identity(item))
        while other is not None and place is not None and earlier.get(identity(other), place) < place:
            made.append(other)
            other = next(waiting, None)
        made.append(item)
    return made if other is None else [*made, other, *waiting]


def arrange(items: list[Json], order: list[Json], merge_key: str) -> list[Json]:
    """Return `items` as they stand in `order`: those it lacks first, those with the directive to delete last."""
    identity = identifier(merge_key)
    listed = positions(order, identity)
    deleted = [item for item in items if isinstance(item, dict) and item.get(DIRECTIVE) == DELETE]
    kept = [item for item in items if not (isinstance(item, dict) and item.get(DIRECTIVE) == DELETE)]
    return sorted(kept, key=lambda item: listed.get(identity(item), -1)) + deleted


def positions(items: list[Json], identity: Callable[[Json], Any]) -> dict[Any, int]:
    """Return the first position of each identity among `items`."""
    made: dict[Any, int] = {}
    for position, item in enumerate(items):
        made.setdefault(identity(item), position)
    return made


def identifier(merge_key: str) -> Callable[[Json], Any]:
    """Return what tells items of a list apart: the value of their `merge_key`, or the scalar that they are.

    It raises `Malformed` for an item that lacks the key, and for values that are not scalars.
    """

    def identity(item: Json) -> Any:
        if merge_key:
            if not isinstance(item, dict):
                raise Malformed(f"expected an object with the merge key {merge_key}, got {excerpt(item)}")
            if merge_key not in item:
                raise Malformed(f"map: {excerpt(item)} does not contain declared merge key: {merge_key}")
            item = item[merge_key]
        if isinstance(item, dict | list):
            raise Malformed(f"expected a scalar to tell items of a list apart, got {excerpt(item)}")
        return (item.__class__, item)

    return identity


def element_kind(*lists: list[Json]) -> type:
    """Return the one class of all items of `lists`; raise `Invalid` for lists of lists, `Malformed` for several."""
    kinds = {kind_of(item) for items in lists for item in items}
    if list in kinds:
        raise Invalid("lists of lists are not supported")
    if len(kinds) != 1:
        raise Malformed(f"expected list elements of one type, got {sorted(kind.__name__ for kind in kinds)}")
    return kinds.pop()


def kind_of(value: Json) -> type:
    """Return the class of `value`: values of different classes are never merged."""
    return type(value)


def _directed_field(directive: str) -> str:
    prefix, _, name = directive.partition("/")
    if prefix not in (DELETE_FROM, SET_ORDER) or not name:
        raise Invalid(
            f"invalid patch format: expected {DELETE_FROM}/FIELD or {SET_ORDER}/FIELD, got {excerpt(directive)}"
        )
    return name


def _bad_order() -> Invalid:
    return Invalid(f"invalid patch format of {SET_ORDER} list")
