"""managedFields: who comes to own what, in whose words others are told, and what is forgotten."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from wharfinger.core.clock import SECOND
from wharfinger.core.errors import Malformed
from wharfinger.local.merge import fieldpath, managed, openapi, typed
from wharfinger.local.merge.managed import LAST_APPLIED, ApplyConflict, Tracking

NOW = 1_790_000_000 * SECOND
TIME = "2026-09-21T14:13:20Z"
STRING, INTEGER = {"type": "string"}, {"type": "integer"}
SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "replicas": INTEGER,
                "image": STRING,
                "tags": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
                "ports": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "port": INTEGER,
                            "protocol": {"type": "string", "default": "TCP"},
                            "name": STRING,
                        },
                    },
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                },
            },
        },
        "status": {"type": "object", "properties": {"ready": INTEGER}},
    },
}
TYPE = openapi.compile_type(SCHEMA)
MAIN = Tracking("x.io/v1", {"x.io/v1": TYPE}, ignored={"f:status": {}}, kind="Thing")
STATUS = Tracking("x.io/v1", {"x.io/v1": TYPE}, "status", {"f:metadata": {}, "f:spec": {}}, kind="Thing")


def thing(spec: Any = None, **meta: Any) -> dict[str, Any]:
    """Return an object."""
    made: dict[str, Any] = {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "a", **meta}}
    return made if spec is None else {**made, "spec": spec}


def stored(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object as it comes back from the store."""
    made = json.loads(json.dumps(value))
    made["metadata"]["uid"] = "u1"
    return made


def owners(value: dict[str, Any]) -> dict[str, list[str]]:
    """Return the fields that each manager owns, as paths."""
    return {
        entry.get("manager", "") + ("/" + entry["subresource"] if "subresource" in entry else ""): [
            fieldpath.show(path) for path in fieldpath.paths(entry["fieldsV1"])
        ]
        for entry in value["metadata"].get("managedFields", [])
    }


def test_who_creates_owns_all_but_identity() -> None:
    """The creator owns every field but those that identify the object, and status it cannot set."""
    value = thing({"replicas": 1, "tags": ["b", "a"]}, labels={"l": "1"}, namespace="n", uid="u")
    value["status"] = {"ready": 1}
    made = managed.create(MAIN, value, manager="kubectl", now=NOW)
    assert made["metadata"]["managedFields"] == [
        {
            "manager": "kubectl",
            "operation": "Update",
            "apiVersion": "x.io/v1",
            "time": TIME,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
                "f:spec": {".": {}, "f:replicas": {}, "f:tags": {".": {}, 'v:"a"': {}, 'v:"b"': {}}},
            },
        }
    ]
    assert {**made, "metadata": {**made["metadata"], "managedFields": None}} == {
        **value,
        "metadata": {**value["metadata"], "managedFields": None},
    }


def test_nobody_owns_what_a_built_in_kind_has_from_the_start() -> None:
    """The parts that kube-apiserver's structs always have are not the creator's."""
    tracking = Tracking("x.io/v1", {"x.io/v1": TYPE}, empty={"metadata": {}, "spec": {"ports": None}})
    made = managed.create(tracking, thing({"ports": [{"port": 1}]}), manager="m", now=NOW)
    assert owners(made) == {
        "m": ['.spec.ports[port=1,protocol="TCP"]', '.spec.ports[port=1,protocol="TCP"].port'],
    }


def test_an_update_takes_what_it_changes() -> None:
    """What an update changes is its manager's from then on; what it leaves stays whose it was."""
    live = stored(managed.create(MAIN, thing({"replicas": 1, "image": "x"}), manager="a", now=NOW))
    new = copy.deepcopy(live)
    new["spec"].update(replicas=2, tags=["t"])
    made = managed.update(MAIN, live, new, manager="b", now=NOW + SECOND)
    assert owners(made) == {"a": [".spec", ".spec.image"], "b": [".spec.replicas", ".spec.tags", '.spec.tags[="t"]']}
    assert [entry["time"] for entry in made["metadata"]["managedFields"]] == [TIME, "2026-09-21T14:13:21Z"]


def test_an_update_that_changes_nothing_leaves_the_entries() -> None:
    """Without a change there is no new entry and no new time."""
    live = stored(managed.create(MAIN, thing({"replicas": 1}), manager="a", now=NOW))
    assert managed.update(MAIN, live, copy.deepcopy(live), manager="b", now=NOW + SECOND) == live


def test_a_manager_has_an_entry_for_each_subresource() -> None:
    """Updates through the status subresource are a separate entry, and own nothing but status."""
    live = stored(managed.create(MAIN, thing({"replicas": 1}), manager="a", now=NOW))
    new = {**live, "status": {"ready": 1}, "spec": {"replicas": 7}}
    made = managed.update(STATUS, live, new, manager="a", now=NOW)
    assert owners(made) == {"a": [".spec", ".spec.replicas"], "a/status": [".status", ".status.ready"]}


def test_applying_the_same_twice_changes_nothing() -> None:
    """Apply is idempotent, times included."""
    config = thing({"replicas": 1, "ports": [{"port": 80, "name": "web"}]})
    first = stored(managed.apply(MAIN, None, config, manager="a", now=NOW))
    assert managed.apply(MAIN, first, config, manager="a", now=NOW + SECOND) == first


def test_what_an_applier_leaves_out_goes() -> None:
    """A field that the applier set before and sets no more is removed, unless another owns it too."""
    live = managed.apply(MAIN, None, thing({"replicas": 1, "image": "x", "tags": ["a"]}), manager="a", now=NOW)
    live = managed.apply(MAIN, stored(live), thing({"image": "x"}), manager="b", now=NOW)
    made = managed.apply(MAIN, stored(live), thing({"replicas": 1}), manager="a", now=NOW)
    assert made["spec"] == {"replicas": 1, "image": "x"}
    assert owners(made) == {"a": [".spec.replicas"], "b": [".spec.image"]}


def test_a_conflict_names_fields_and_owners_in_upstreams_words() -> None:
    """Changing what others own is refused, each field with its owner, in kube-apiserver's words."""
    live = stored(managed.create(MAIN, thing({"replicas": 1, "image": "x"}), manager="a", now=NOW))
    with pytest.raises(ApplyConflict) as one:
        managed.apply(MAIN, live, thing({"replicas": 2}), manager="b", now=NOW)
    assert str(one.value) == 'Apply failed with 1 conflict: conflict with "a" using x.io/v1: .spec.replicas'
    with pytest.raises(ApplyConflict) as two:
        managed.apply(MAIN, live, thing({"replicas": 2, "image": "y"}), manager="b", now=NOW)
    assert str(two.value) == (
        'Apply failed with 2 conflicts: conflicts with "a" using x.io/v1:\n- .spec.image\n- .spec.replicas'
    )
    problem = two.value.fields[0]
    assert (problem.field, problem.message, problem.reason) == (
        ".spec.image",
        'conflict with "a" using x.io/v1',
        "FieldManagerConflict",
    )
    assert two.value.status == 409


def test_force_takes_the_field() -> None:
    """A forced apply takes what it changes from its owner."""
    live = stored(managed.create(MAIN, thing({"replicas": 1}), manager="a", now=NOW))
    made = managed.apply(MAIN, live, thing({"replicas": 2}), manager="b", now=NOW, force=True)
    assert made["spec"] == {"replicas": 2}
    assert owners(made) == {"a": [".spec"], "b": [".spec.replicas"]}


def test_what_was_there_before_the_first_apply_has_an_owner() -> None:
    """An object that nobody tracks is, at its first apply, as if updated by before-first-apply."""
    live = stored(thing({"replicas": 1, "image": "x"}))
    with pytest.raises(ApplyConflict, match="before-first-apply"):
        managed.apply(MAIN, live, thing({"replicas": 2}), manager="b", now=NOW)
    made = managed.apply(MAIN, live, thing({"replicas": 1}), manager="b", now=NOW)
    assert owners(made)["before-first-apply"] == [".spec", ".spec.image", ".spec.replicas"]


def test_kubectl_takes_over_what_client_side_apply_set() -> None:
    """An apply by kubectl does not conflict over what its annotation says it set, and keeps that up to date."""
    last = json.dumps(thing({"replicas": 1}))
    live = managed.create(MAIN, thing({"replicas": 1}, annotations={LAST_APPLIED: last}), manager="csa", now=NOW)
    config = thing({"replicas": 2})
    made = managed.apply(MAIN, stored(live), config, manager="kubectl", now=NOW)
    assert made["spec"] == {"replicas": 2}
    assert json.loads(made["metadata"]["annotations"][LAST_APPLIED]) == config
    with pytest.raises(ApplyConflict):
        managed.apply(MAIN, stored(live), config, manager="other", now=NOW)
    live["metadata"]["annotations"][LAST_APPLIED] = "{"
    with pytest.raises(ApplyConflict):
        managed.apply(MAIN, stored(live), config, manager="kubectl", now=NOW)


def test_the_oldest_updaters_are_gathered() -> None:
    """Beyond ten entries of updates the oldest become one; nothing that they own is lost."""
    live = stored(managed.create(MAIN, thing({"tags": []}), manager="m0", now=NOW))
    for at in range(1, 14):
        new = copy.deepcopy(live)
        new["spec"]["tags"].append(f"t{at}")
        live = stored(managed.update(MAIN, live, new, manager=f"m{at}", now=NOW + at * SECOND))
    held = owners(live)
    assert len(held) == managed.MAX_UPDATERS
    assert {f"m{at}" for at in range(5, 14)} | {"ancient-changes"} == held.keys()
    assert held["ancient-changes"][-4:] == [f'.spec.tags[="t{at}"]' for at in range(1, 5)]


@pytest.mark.parametrize("sent", [[], [{}]])
def test_a_client_ends_the_tracking(sent: list[Any]) -> None:
    """Sending an empty list, or one empty entry, removes the entries for good."""
    live = stored(managed.create(MAIN, thing({"replicas": 1}), manager="a", now=NOW))
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"] = sent
    made = managed.update(MAIN, live, new, manager="b", now=NOW)
    assert "managedFields" not in made["metadata"]
    assert managed.update(MAIN, stored(made), {**made, "spec": {}}, manager="b", now=NOW) == {**made, "spec": {}}


def test_a_client_that_knows_no_entries_keeps_them() -> None:
    """Leaving managedFields out, or sending what cannot be read, counts as sending what is stored."""
    live = stored(managed.create(MAIN, thing({"replicas": 1}), manager="a", now=NOW))
    for sent in (None, [{"manager": "a"}], [{"operation": "Update", "apiVersion": "v1", "fieldsType": "Other"}], "x"):
        new = copy.deepcopy(live)
        new["metadata"]["managedFields"] = sent
        assert owners(managed.update(MAIN, live, new, manager="b", now=NOW)) == owners(live)


def test_entries_that_a_client_changes_count() -> None:
    """A client may prune entries; they are kept in canonical form."""
    live = stored(managed.create(MAIN, thing({"replicas": 1, "image": "x"}), manager="a", now=NOW))
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"][0].update(
        fieldsV1={"f:spec": {"f:image": {}, ".": {}, "r:later": {}}}, time="2026-09-21T16:13:20.5+02:00"
    )
    made = managed.update(MAIN, live, new, manager="b", now=NOW)
    assert made["metadata"]["managedFields"][0]["time"] == TIME
    assert json.dumps(made["metadata"]["managedFields"][0]["fieldsV1"]) == '{"f:spec": {".": {}, "f:image": {}}}'


def test_entries_of_versions_that_are_gone_are_dropped() -> None:
    """Fields owned in a version that is served no more are nobody's."""
    live = stored(managed.create(MAIN, thing({"replicas": 1}), manager="a", now=NOW))
    live["metadata"]["managedFields"][0]["apiVersion"] = "x.io/v0"
    made = managed.update(MAIN, live, {**live, "spec": {"replicas": 1, "image": "x"}}, manager="b", now=NOW)
    assert owners(made) == {"b": [".spec.image"]}


def test_versions_differ_in_their_name_alone() -> None:
    """An owner who named its fields in another served version keeps and loses them all the same."""
    both = Tracking("x.io/v2", {"x.io/v1": TYPE, "x.io/v2": TYPE})
    live = stored(managed.create(MAIN, thing({"replicas": 1, "image": "x"}), manager="a", now=NOW))
    new = {**copy.deepcopy(live), "apiVersion": "x.io/v2"}
    new["spec"]["image"] = "y"
    made = managed.update(both, live, new, manager="b", now=NOW)
    assert owners(made) == {"a": [".spec", ".spec.replicas"], "b": [".spec.image"]}


def test_a_value_that_does_not_fit_leaves_the_entries() -> None:
    """Where a stored list cannot be told apart, the entries stay what they were."""
    live = stored(managed.create(MAIN, thing({"replicas": 1}), manager="a", now=NOW))
    made = managed.update(MAIN, live, {**live, "spec": {"ports": [None]}}, manager="b", now=NOW)
    assert owners(made) == owners(live)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"apiVersion": "v1", "kind": "Pod"}, "invalid object type: /v1, Kind=Pod"),
        ({"apiVersion": "x.io/v1", "kind": "Other"}, "invalid object type: x.io/v1, Kind=Other"),
        (thing(managedFields=[]), "metadata.managedFields must be nil"),
        ([], "expected an object to apply"),
    ],
)
def test_a_configuration_of_another_kind_is_refused(config: Any, text: str) -> None:
    """Only the endpoint's own kind can be applied, and no entries with it."""
    with pytest.raises(Malformed, match=text):
        managed.apply(MAIN, None, config, manager="a", now=NOW)


def test_a_configuration_that_does_not_fit_is_refused_in_upstreams_words() -> None:
    """Unknown fields, wrong types and items twice are refused, each with its path."""
    config = thing({"nope": 1, "replicas": "x", "tags": ["a", "a"]}, namespace="n")
    with pytest.raises(typed.Mismatch) as raised:
        managed.apply(MAIN, None, config, manager="a", now=NOW)
    assert raised.value.message.startswith("failed to create typed patch object (n/a; x.io/v1, Kind=Thing): errors:")
    assert [problem.field for problem in raised.value.fields] == [".spec.nope", ".spec.replicas", ".spec.tags"]


def test_a_write_that_changes_only_times_can_be_skipped() -> None:
    """Where just the times of entries differ, the old ones are kept, and the object is the same."""
    live = stored(managed.create(MAIN, thing({"replicas": 1}), manager="a", now=NOW))
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"][0]["time"] = "2027-01-01T00:00:00Z"
    assert managed.keep_times(live, new) == live
    new["spec"]["replicas"] = 2
    assert managed.keep_times(live, new) == new


def test_the_manager_is_named_by_the_client() -> None:
    """The parameter counts; else what is printable of the user agent, up to the first slash, at most 128 bytes."""
    assert managed.manager_name("hpa", "kubectl/v1.37") == "hpa"
    assert managed.manager_name("", "kubectl/v1.37 (linux)") == "kubectl"
    assert managed.manager_name("", "a\x07b\n") == "ab"
    assert managed.manager_name("", "é" * 100) == "é" * 64
