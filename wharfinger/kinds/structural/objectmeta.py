"""ObjectMeta: the metadata of an object and of objects within it, brought to its form (schema/objectmeta).

Metadata is not the schema's to say: its fields and their types are fixed. Reading it drops what is unknown or empty,
and refuses, or drops where asked, what is of the wrong type, in the words of Go's JSON decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from wharfinger.core.causes import invalid
from wharfinger.core.clock import parse_rfc3339, rfc3339
from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed
from wharfinger.core.printed import as_json
from wharfinger.kinds.structural.node import Node

Decode: TypeAlias = Callable[[Json, str, str, "list[str]"], Json]
"""Reads a value; given its field in Go's words, its path, and the list that unknown fields go to."""

Coerce: TypeAlias = Callable[[Json, str, bool, "list[str]"], None]
"""Brings the metadata in a value to its form, in place; see `compile_coercion`."""

_SORTS: Final = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
_TEXT_OR_NULL: Final = {str, type(None)}
_INT64: Final = range(-(2**63), 2**63)
_META: Final = "metadata"


def _mistyped(value: Json, where: str, wanted: str, number: str = "") -> Malformed:
    sort = _SORTS.get(type(value), "null")
    return Malformed(f"json: cannot unmarshal {sort}{number} into Go {where} of type {wanted}")


def _text(wanted: str = "string") -> Decode:
    def decode(value: Json, where: str, _path: str, _unknown: list[str]) -> Json:
        if type(value) is str:
            return value
        if value is None:
            return ""
        raise _mistyped(value, where, wanted)

    return decode


def _flag(value: Json, where: str, _path: str, _unknown: list[str]) -> Json:
    if value is None or type(value) is bool:
        return value
    raise _mistyped(value, where, "bool")


def _integer(value: Json, where: str, _path: str, _unknown: list[str]) -> Json:
    if value is None or (type(value) is int and value in _INT64):
        return value
    number = f" {as_json(value)}" if type(value) in {int, float} else ""
    raise _mistyped(value, where, "int64", number)


def _time(value: Json, where: str, _path: str, _unknown: list[str]) -> Json:
    if value is None:
        return None
    if type(value) is not str:
        raise _mistyped(value, where, "string")
    if len(value) == 20 and value[19] == "Z":
        parse_time(value)
        return value
    return rfc3339(parse_time(value))


def parse_time(text: str) -> int:
    """Return the instant that `text` names. Raises `Malformed` in Go's words."""
    try:
        return parse_rfc3339(text)
    except Malformed as error:
        layout = "2006-01-02T15:04:05Z07:00"
        raise Malformed(f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"') from error


def _anything(value: Json, _where: str, _path: str, _unknown: list[str]) -> Json:
    return value


def _texts(value: Json, where: str, _path: str, _unknown: list[str]) -> Json:
    if value is None:
        return None
    if type(value) is not list:
        raise _mistyped(value, where, "[]string")
    for item in value:
        if item is not None and type(item) is not str:
            raise _mistyped(item, where, "string")
    return [item or "" for item in value]


def _text_map(value: Json, where: str, _path: str, _unknown: list[str]) -> Json:
    if value is None:
        return None
    if type(value) is not dict:
        raise _mistyped(value, where, "map[string]string")
    if not {*map(type, value.values())} <= _TEXT_OR_NULL:
        raise _mistyped(
            next(value[name] for name in sorted(value) if type(value[name]) not in _TEXT_OR_NULL), where, "string"
        )
    return {name: item or "" for name, item in value.items()}


def _struct(name: str, fields: dict[str, Decode], kept: frozenset[str] = frozenset()) -> Decode:
    """Return the decoder of a Go struct `name`; the fields `kept` are written when empty too."""

    def decode(value: Json, where: str, path: str, unknown: list[str]) -> Json:
        if value is None:
            return dict.fromkeys(kept, "")
        if type(value) is not dict:
            raise _mistyped(value, where, f"v1.{name}")
        made = dict.fromkeys(kept, "")
        below = where.partition(".")[2]
        for field, child in value.items():
            read = fields.get(field)
            if read is None:
                unknown.append(f"{path}.{field}")
                continue
            at = f"struct field {name}.{below}.{field}" if below else f"struct field {name}.{field}"
            got = read(child, at, f"{path}.{field}", unknown)
            if field in kept or (got is not None and got not in ("", [], {})):
                made[field] = got
        return made

    return decode


def _structs(name: str, one: Decode) -> Decode:
    def decode(value: Json, where: str, path: str, unknown: list[str]) -> Json:
        if value is None:
            return None
        if type(value) is not list:
            raise _mistyped(value, where, f"[]v1.{name}")
        return [one(item, where, f"{path}[{index}]", unknown) for index, item in enumerate(value)]

    return decode


_OWNER: Final = _struct(
    "OwnerReference",
    {
        "apiVersion": _text(),
        "kind": _text(),
        "name": _text(),
        "uid": _text("types.UID"),
        "controller": _flag,
        "blockOwnerDeletion": _flag,
    },
    frozenset({"apiVersion", "kind", "name", "uid"}),
)
_ENTRY: Final = _struct(
    "ManagedFieldsEntry",
    {
        "manager": _text(),
        "operation": _text("v1.ManagedFieldsOperationType"),
        "apiVersion": _text(),
        "time": _time,
        "fieldsType": _text(),
        "fieldsV1": _anything,
        "subresource": _text(),
    },
)
FIELDS: Final[dict[str, Decode]] = {
    "name": _text(),
    "generateName": _text(),
    "namespace": _text(),
    "selfLink": _text(),
    "uid": _text("types.UID"),
    "resourceVersion": _text(),
    "generation": _integer,
    "creationTimestamp": _time,
    "deletionTimestamp": _time,
    "deletionGracePeriodSeconds": _integer,
    "labels": _text_map,
    "annotations": _text_map,
    "ownerReferences": _structs("OwnerReference", _OWNER),
    "finalizers": _texts,
    "managedFields": _structs("ManagedFieldsEntry", _ENTRY),
}
"""The fields of meta/v1 ObjectMeta."""


def decode(metadata: Json, path: str = _META, *, drop: bool = False) -> tuple[dict[str, Json], list[str]]:
    """Return metadata in its form, and the paths of its unknown fields.

    Raises `Malformed` for a field of the wrong type; with `drop` such fields are left out, and only metadata that
    is no object at all is `Malformed`.
    """
    if metadata is None:
        return {}, []
    if type(metadata) is not dict:
        if drop:
            raise Malformed(f"invalid metadata: expected object, got {_SORTS[type(metadata)]}")
        raise _mistyped(metadata, "value", "v1.ObjectMeta")
    made: dict[str, Json] = {}
    unknown: list[str] = []
    for name, value in metadata.items():
        read = FIELDS.get(name)
        if read is None:
            unknown.append(f"{path}.{name}")
            continue
        try:
            got = read(value, f"struct field ObjectMeta.{name}", f"{path}.{name}", unknown)
        except Malformed as error:
            if not drop:
                raise _first_wrong(metadata) or error from None
            continue
        if got or (got is not None and name == "deletionGracePeriodSeconds"):
            made[name] = got
    return made, unknown


def _first_wrong(metadata: dict[str, Json]) -> Malformed | None:
    """Return what is wrong with the first field that is, in the order in which Go writes a map."""
    for name in sorted(metadata.keys() & FIELDS.keys()):
        try:
            FIELDS[name](metadata[name], f"struct field ObjectMeta.{name}", name, [])
        except Malformed as error:
            return error
    return None


def compile_coercion(node: Node | None, *, root: bool = False) -> Coerce | None:
    """Return what brings the metadata of embedded objects below `node` to its form; None when there can be none.

    With `root` the value itself is an object too. What it returns raises `Malformed` with the field that is wrong,
    or with the third argument drops it; unknown fields go to the list.
    """
    if node is None:
        return None
    embedded = node.embedded or root
    properties = {name: step for name, child in node.properties.items() if (step := compile_coercion(child))}
    further = compile_coercion(node.additional) if isinstance(node.additional, Node) else None
    items = compile_coercion(node.items)
    if not embedded and not properties and further is None and items is None:
        return None
    known = node.properties.keys()

    def coerce(value: Json, path: str, drop: bool, unknown: list[str]) -> None:
        kind = type(value)
        if kind is dict:
            if embedded:
                _coerce_resource(value, path, drop, unknown)
            for name, step in properties.items():
                if name in value:
                    step(value[name], f"{path}.{name}" if path else name, drop, unknown)
            if further is not None:
                for name, child in value.items():
                    if name not in known:
                        further(child, f"{path}[{name}]", drop, unknown)
        elif kind is list and items is not None:
            for index, child in enumerate(value):
                items(child, f"{path}[{index}]", drop, unknown)

    return coerce


def _coerce_resource(value: dict[str, Json], path: str, drop: bool, unknown: list[str]) -> None:
    """Bring `apiVersion`, `kind` and `metadata` of one object to their form."""
    below = f"{path}." if path else ""
    for name in ("apiVersion", "kind"):
        if name in value and type(value[name]) is not str:
            if not drop:
                raise _refused(f"{below}{name}", value[name], "must be a string")
            del value[name]
    if _META not in value:
        return
    try:
        value[_META], found = decode(value[_META], f"{below}{_META}", drop=drop)
    except Malformed as error:
        if not drop:
            raise _refused(f"{below}{_META}", value[_META], error.message) from error
        return
    unknown += found


def _refused(path: str, value: Json, detail: str) -> Malformed:
    problem = invalid(path, value, detail)
    return Malformed(str(problem), fields=[problem])


def coerce(value: Json, node: Node | None, *, root: bool = True, drop: bool = False) -> list[str]:
    """Bring the metadata of `value`, an object by the schema `node`, to its form; return unknown paths, sorted.

    With `root` off, only objects within it are looked at. Raises `Malformed`, naming the field, unless `drop`
    says to drop what is wrong.
    """
    step = compile_coercion(node or Node(), root=root)
    unknown: list[str] = []
    if step is not None:
        step(value, "", drop, unknown)
    return sorted(unknown)
