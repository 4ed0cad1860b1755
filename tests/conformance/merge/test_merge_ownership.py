"""Kubernetes' cases for server-side apply: live object and field owners after every operation."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from shared_material import material
from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core.errors import WharfingerError
from wharfinger.local.merge import comparison, fieldpath, merging, ownership, schema, typed
from wharfinger.local.merge.ownership import Contested, Owned
from wharfinger.local.merge.schema import Type

sys.path.insert(0, str(Path(__file__).parent))
from smd_versions import CaseVersions

LEFT_OUT: dict[str, str] = {}


@cache
def schemas() -> dict[str, Any]:
    """Return the schemas that the cases name."""
    made = json.loads(material("apimachinery/smd_schemas.json").read_text(encoding="utf-8"))
    made["k8s"] = json.loads(material("apimachinery/smd_schema_k8s.json").read_text(encoding="utf-8"))
    return made


@cache
def compiled(name: str, type_: str) -> Type:
    """Return a type of a schema."""
    return schema.compile_type(schemas()[name], type_)


class State:
    """An object and who owns its fields."""

    def __init__(self, row: Row) -> None:
        self.versions = CaseVersions(row)
        self.use(row["schema"])
        self.live: Any = {}
        self.version = ""
        self.managers: dict[str, Owned] = {}
        self.exists = False

    def use(self, name: str) -> None:
        """Take another schema."""
        self.versions.types = lambda type_: compiled(name, type_)

    def run(self, op: Row) -> None:
        """Do one operation, or raise and change nothing."""
        match op["op"]:
            case "ChangeParser":
                self.use(op["schema"])
                return
            case "SetAcceptedVersions":
                self.versions.accepted = op["versions"]
                return
        version, manager, new = op["apiVersion"], op["manager"], op["object"] or {}
        type_ = self.versions.type_of(version)
        live = self.versions.convert(self.live, self.version or version, version)
        force = op["op"] != "Apply"
        if op["op"] == "ExtractApply" and self.exists:
            mine = self.managers.get(manager)
            leaves = fieldpath.leaves(mine.fields) if mine else {}
            new = merging.merge(type_, typed.extract(type_, live, leaves), new)
        typed.check(type_, new, duplicates=op["op"] == "Update")
        if op["op"] == "Update":
            self.managers = ownership.update(self.versions, live, new, version, self.managers, manager)
            self.live = new
        else:
            self.live, self.managers = ownership.apply(
                self.versions, live, new, version, self.managers, manager, force=force
            )
        self.version, self.exists = version, True


def checks(row: Row) -> Iterator[Check]:
    """Check one row of smd.jsonl."""
    state = State(row)
    for at, op in enumerate(row["ops"]):
        before, version = state.live, state.version
        try:
            state.run(op)
            failed = False
        except Contested as contested:
            failed = True
            got = sorted((one.manager, fieldpath.show(one.path)) for one in contested.held)
            yield f"{at}.conflicts", got, [(one["manager"], one["path"]) for one in op.get("conflicts", [])]
        except WharfingerError:
            failed = True
        yield f"{at}.error", failed, "error" in op
        if not failed and "conflicts" in op:
            yield f"{at}.conflicts", [], op["conflicts"]
        if op.get("noop"):
            before = state.versions.convert(before, version or state.version, state.version)
            yield f"{at}.noop", comparison.equal(before, state.live), True
        yield (
            f"{at}.live",
            json.dumps(state.live, sort_keys=True) if state.exists else "null",
            json.dumps(op["live"], sort_keys=True),
        )
        if op["liveType"] is not None:
            yield f"{at}.liveType", state.versions.name_of(state.version), op["liveType"]
        managed = {
            manager: {"apiVersion": one.version, "applied": one.applied, "fieldsV1": one.fields}
            for manager, one in state.managers.items()
        }
        yield f"{at}.managed", json.dumps(managed, sort_keys=True), json.dumps(op["managed"] or {}, sort_keys=True)


def test_server_side_apply_is_upstreams() -> None:
    """After every operation the object, its fields' owners and the conflicts are structured-merge-diff's."""
    count, found = differences("apimachinery/smd.jsonl", checks)
    assert_only_left_out(found, LEFT_OUT)
    assert count > 342 * 3
