"""Server-side apply on generated objects: idempotent, nothing lost, no argument touched, no stranger's error."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.core.errors import WharfingerError
from wharfinger.local.merge import comparison, fieldpath, managed, merging, openapi, ownership, typed
from wharfinger.local.merge.managed import ApplyConflict, Tracking

VERSION = "x.io/v1"
STRING, INTEGER = {"type": "string"}, {"type": "integer"}
KEYED = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
SPEC = {
    "type": "object",
    "properties": {
        "count": INTEGER,
        "labels": {"type": "object", "additionalProperties": STRING},
        "whole": {"type": "object", "properties": {"a": INTEGER}, "x-kubernetes-map-type": "atomic"},
        "tags": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
        "parts": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": STRING, "size": INTEGER, "more": {"type": "object"}}},
            **KEYED,
        },
        "free": {"x-kubernetes-preserve-unknown-fields": True},
    },
}
TYPE = openapi.compile_type({"type": "object", "properties": {"spec": SPEC}})
TRACKING = Tracking(VERSION, {VERSION: TYPE})
NAMES = st.sampled_from("abc")
FREE = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | NAMES,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(NAMES, below, max_size=2),
    max_leaves=4,
)
PARTS = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"size": st.integers(0, 2), "more": st.dictionaries(NAMES, FREE)}),
    max_size=3,
    unique_by=lambda part: part["name"],
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(0, 2) | st.none(),
        "labels": st.dictionaries(NAMES, NAMES, max_size=2) | st.none(),
        "whole": st.fixed_dictionaries({}, optional={"a": st.integers(0, 1)}),
        "tags": st.lists(NAMES, max_size=3, unique=True),
        "parts": PARTS,
        "free": FREE,
    },
)
OBJECTS = SPECS.map(lambda spec: {"apiVersion": VERSION, "kind": "T", "metadata": {"name": "a"}, "spec": spec})
STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from(["p", "q", "r"]), OBJECTS, st.booleans()), max_size=4)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.sampled_from(["spec", "metadata", "parts", "tags", "labels", "name"]), below, max_size=3)
    ),
    max_leaves=10,
)


def run(steps: Any) -> dict[str, Any] | None:
    """Return the object after updates and applies; conflicts change nothing."""
    live = None
    for update, manager, value, force in steps:
        try:
            if not update:
                live = managed.apply(TRACKING, live, value, manager=manager, now=0, force=force)
            elif live is None:
                live = managed.create(TRACKING, value, manager=manager, now=0)
            else:
                new = {**value, "metadata": {"name": "a"}}
                live = managed.update(TRACKING, live, new, manager=manager, now=0)
        except ApplyConflict:
            continue
        live = json.loads(json.dumps(live))
        live["metadata"]["uid"] = "u"
    return live


def filled(value: Any) -> Any:
    """Return a value without what is empty: pruning may leave an emptied map as null or take it away, as upstream."""
    if isinstance(value, dict):
        below = {name: filled(child) for name, child in value.items() if name != "managedFields"}
        return {name: child for name, child in below.items() if child is not None} or None
    return [filled(child) for child in value] or None if isinstance(value, list) else value


@settings(max_examples=150, deadline=None)
@given(STEPS, OBJECTS)
def test_applying_again_changes_nothing(steps: Any, config: dict[str, Any]) -> None:
    """A second apply of a configuration fills in what is empty at most, a third changes not even a time."""
    live = run(steps)
    before = copy.deepcopy((live, config))
    once = managed.apply(TRACKING, live, config, manager="p", now=0, force=True)
    assert (live, config) == before
    # Filling in a map that pruning left as null is a change like another: who shares it has a say in it.
    twice = managed.apply(TRACKING, once, config, manager="p", now=0, force=True)
    assert filled(twice) == filled(once)
    assert managed.apply(TRACKING, twice, config, manager="p", now=10**12) == twice


@settings(max_examples=150, deadline=None)
@given(STEPS, OBJECTS)
def test_what_was_applied_is_there_and_owned(steps: Any, config: dict[str, Any]) -> None:
    """After a forced apply the object holds the configuration, and the applier owns just its fields."""
    made = managed.apply(TRACKING, run(steps), config, manager="p", now=0, force=True)
    assert filled(merging.merge(TYPE, made, config)) == filled(made)
    mine = [
        entry["fieldsV1"]
        for entry in made["metadata"].get("managedFields", [])
        if (entry["manager"], entry["operation"]) == ("p", "Apply")
    ]
    wanted = typed.field_set(TYPE, {"spec": config["spec"]})
    assert mine == ([wanted] if wanted else [])


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_entries_name_what_is_there_in_canonical_form(steps: Any) -> None:
    """Entries are canonical, none is empty, and none names a field that the object has not."""
    live = run(steps)
    if live is None:
        return
    present = comparison.all_fields(TYPE, {"spec": live.get("spec", {})})
    for entry in live["metadata"].get("managedFields", []):
        fields = entry["fieldsV1"]
        assert fields
        assert json.dumps(fieldpath.parse(fields)) == json.dumps(fields)
        assert not fieldpath.difference(fields, present)


@settings(max_examples=150, deadline=None)
@given(OBJECTS, OBJECTS)
def test_comparing_tells_all_that_differs(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Equal objects compare as the same, others do not; backwards, added and removed change places."""
    forth, back = comparison.compare(TYPE, a, b), comparison.compare(TYPE, b, a)
    assert (forth.removed, forth.modified, forth.added) == (back.added, back.modified, back.removed)
    assert comparison.compare(TYPE, a, copy.deepcopy(a)) == comparison.SAME
    if forth == comparison.SAME:
        # Order does not count in sets and keyed lists.
        merged = merging.merge(TYPE, a, b)
        assert comparison.compare(TYPE, merged, b) == comparison.SAME


@settings(max_examples=100, deadline=None)
@given(OBJECTS, OBJECTS, OBJECTS)
def test_an_unchanged_applier_needs_no_pruning(live: Any, before: Any, config: Any) -> None:
    """Where a configuration still sets all that it set, pruning by the long way removes nothing either."""
    base = merging.merge(TYPE, merging.merge(TYPE, live, before), config)
    last = ownership.Owned(VERSION, typed.field_set(TYPE, before), applied=True)
    both = fieldpath.union(last.fields, typed.field_set(TYPE, config))
    managers = {"p": ownership.Owned(VERSION, both, applied=True)}
    assert ownership.pruned(TRACKING, base, managers, "p", last) is base
    kept, _ = ownership.put_back(TRACKING, base, typed.remove(TYPE, base, last.fields), VERSION, managers)
    gone = comparison.compare(TYPE, base, kept or {}).removed
    assert not fieldpath.intersection(gone, typed.named_members(TYPE, last.fields))


@settings(max_examples=200, deadline=None)
@given(ANYTHING, ANYTHING)
def test_any_json_gives_a_result_or_an_error_of_ours(live: Any, value: Any) -> None:
    """Whatever a client sends, the outcome is an object or an error of the family."""
    base = {"apiVersion": VERSION, **(live if isinstance(live, dict) else {"spec": live})}
    new = {"apiVersion": VERSION, **(value if isinstance(value, dict) else {"spec": value})}
    for work in (
        lambda: managed.create(TRACKING, new, manager="p", now=0),
        lambda: managed.update(TRACKING, base, new, manager="p", now=0),
        lambda: managed.apply(TRACKING, base, new, manager="kubectl", now=0),
        lambda: managed.apply(TRACKING, None, new, manager="p", now=0),
        lambda: managed.keep_times(base, new),
    ):
        try:
            assert isinstance(work(), dict)
        except WharfingerError:
            pass


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
def test_any_managed_fields_are_read_or_replaced(entries: Any) -> None:
    """Whatever a client sends as managedFields, an update succeeds."""
    live = managed.create(TRACKING, {"apiVersion": VERSION, "spec": {"count": 1}}, manager="p", now=0)
    live["metadata"]["uid"] = "u"
    new = {"apiVersion": VERSION, "spec": {"count": 2}, "metadata": {"managedFields": [entries], "uid": "u"}}
    assert managed.update(TRACKING, live, new, manager="q", now=0)["spec"] == {"count": 2}
