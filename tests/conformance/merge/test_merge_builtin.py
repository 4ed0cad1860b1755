"""The merge types derived for the built-in kinds, beside those that Kubernetes ships for the same kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator

from shared_material import material
from vector_table import assert_only_left_out

from wharfinger.kinds.builtin.meta import OBJECT_META
from wharfinger.kinds.builtin.registry import BUILTINS
from wharfinger.local.merge import openapi, schema
from wharfinger.local.merge.schema import ListType, MapType, Type

GROUPS = {"": "core", "resource.k8s.io": "resource", "coordination.k8s.io": "coordination"}
LEFT_OUT = {
    "a RawExtension, atomic upstream; the schema here keeps it as it comes, field by field": (
        "ResourceClaim.status.devices[].data"
    )
}


def unlike(ours: Type, theirs: Type, path: str, seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, str]]:
    """Yield where two types merge differently: the path, and what differs."""
    if id(theirs) in seen:
        return
    seen |= {id(theirs)}
    if ours.leaf != theirs.leaf:
        yield path, f"leaf {ours.leaf}, upstream {theirs.leaf}"
        return
    if ours.leaf:
        return
    yield from unlike_maps(ours.map, theirs.map, path, seen)
    yield from unlike_lists(ours.list, theirs.list, path, seen)


def unlike_maps(
    ours: MapType | None, theirs: MapType | None, path: str, seen: frozenset[int]
) -> Iterator[tuple[str, str]]:
    """Yield where two maps differ."""
    if ours is None or theirs is None:
        if ours is not theirs:
            yield path, f"map {ours is not None}, upstream {theirs is not None}"
        return
    if ours.atomic != theirs.atomic:
        yield path, f"atomic {ours.atomic}, upstream {theirs.atomic}"
    if (ours.element is None) != (theirs.element is None):
        yield path, "other fields allowed in one only"
    if ours.element is not None and theirs.element is not None:
        yield from unlike(ours.element, theirs.element, path + ".*", seen)
    for name in sorted(ours.fields.keys() ^ theirs.fields.keys()):
        yield f"{path}.{name}", "only ours" if name in ours.fields else "only upstream's"
    for name in ours.fields.keys() & theirs.fields.keys():
        yield from unlike(ours.fields[name][1], theirs.fields[name][1], f"{path}.{name}", seen)


def unlike_lists(
    ours: ListType | None, theirs: ListType | None, path: str, seen: frozenset[int]
) -> Iterator[tuple[str, str]]:
    """Yield where two lists differ."""
    if ours is None or theirs is None:
        if ours is not theirs:
            yield path, f"list {ours is not None}, upstream {theirs is not None}"
        return
    if (ours.atomic, ours.keys) != (theirs.atomic, theirs.keys):
        yield path, f"keys {ours.keys}, upstream {theirs.keys}"
    # Upstream gives every key a default, also those that validation demands; only these matter: TCP and the like.
    meant = {name: value for name, value in theirs.defaults.items() if value not in ("", 0)}
    if dict(ours.defaults) != meant:
        yield path, f"defaults {dict(ours.defaults)}, upstream {meant}"
    yield from unlike(ours.element, theirs.element, path + "[]", seen)


def test_built_in_kinds_merge_as_in_kubernetes() -> None:
    """Every built-in kind has upstream's fields, keys and atomic parts, so that owners and conflicts are the same."""
    shipped = json.loads(material("apimachinery/smd_schema_k8s.json").read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for builtin in BUILTINS:
        kind = builtin.kind
        group = GROUPS.get(kind.group, kind.group)
        theirs = schema.compile_type(shipped, f"io.k8s.api.{group}.{kind.version}.{kind.name}")
        found.update(unlike(openapi.compile_type(kind.schema), theirs, kind.name))
    assert_only_left_out(found, LEFT_OUT)


def test_object_metadata_merges_as_in_kubernetes() -> None:
    """The metadata that every object has, also of custom kinds, is upstream's ObjectMeta."""
    shipped = json.loads(material("apimachinery/smd_schema_k8s.json").read_text(encoding="utf-8"))
    theirs = schema.compile_type(shipped, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
    ours = openapi.compile_type({"type": "object"}).map
    assert ours is not None
    assert not list(unlike(ours.fields["metadata"][1], theirs, "metadata"))
    assert OBJECT_META["properties"].keys() == ours.fields["metadata"][1].map.fields.keys()
