"""Embedded resources: objects within objects must look like objects (apiextensions, schema/objectmeta Validate)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from wharfinger.core import names
from wharfinger.core.causes import child, invalid, item, key_of, required
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Malformed
from wharfinger.kinds.structural import metadata, objectmeta
from wharfinger.kinds.structural.node import Node

Check: TypeAlias = Callable[[Json, str], "list[FieldProblem]"]


def compile_check(node: Node | None, *, root: bool = False) -> Check | None:
    """Return the check of all embedded resources below `node`; None when there can be none.

    With `root` the value itself is one too.
    """
    if node is None:
        return None
    embedded = node.embedded or root
    properties = {name: step for name, below in node.properties.items() if (step := compile_check(below))}
    further = compile_check(node.additional) if isinstance(node.additional, Node) else None
    items = compile_check(node.items)
    if not embedded and not properties and further is None and items is None:
        return None
    known = node.properties.keys()

    def check(value: Json, path: str) -> list[FieldProblem]:
        problems: list[FieldProblem] = []
        if type(value) is dict:
            if embedded:
                problems += resource_problems(value, path)
            for name, step in properties.items():
                if name in value:
                    problems += step(value[name], child(path, name))
            if further is not None:
                for name, below in value.items():
                    if name not in known:
                        problems += further(below, key_of(path, name))
        elif type(value) is list and items is not None:
            for index, below in enumerate(value):
                problems += items(below, item(path, index))
        return problems

    return check


def resource_problems(value: dict[str, Json], path: str = "") -> list[FieldProblem]:
    """Return what is wrong with `apiVersion`, `kind` and `metadata` of an object at `path`."""
    problems = [required(child(path, name)) for name in ("apiVersion", "kind") if name not in value]
    if "apiVersion" in value:
        problems += _version_problems(value["apiVersion"], child(path, "apiVersion"))
    if "kind" in value:
        problems += _kind_problems(value["kind"], child(path, "kind"))
    if "metadata" in value:
        at = child(path, "metadata")
        try:
            found, _ = objectmeta.decode(value["metadata"])
        except Malformed as error:
            return [*problems, invalid(at, value["metadata"], error.message)]
        found.setdefault("name", "any")
        problems += metadata.problems_on_create(
            found, namespaced=bool(found.get("namespace")), name=names.path_segment, path=at
        )
    return problems


def _version_problems(version: Json, path: str) -> list[FieldProblem]:
    if not isinstance(version, str):
        return [invalid(path, version, "must be a string")]
    if not version:
        return [invalid(path, version, "must not be empty")]
    if version.count("/") > 1:
        return [invalid(path, version, f"unexpected GroupVersion string: {version}")]
    return []


def _kind_problems(kind: Json, path: str) -> list[FieldProblem]:
    if not isinstance(kind, str):
        return [invalid(path, kind, "must be a string")]
    if not kind:
        return [invalid(path, kind, "must not be empty")]
    wrong = names.dns_1035_label(kind.lower())
    if wrong:
        return [invalid(path, kind, f"may have mixed case, but should otherwise match: {','.join(wrong)}")]
    return []
