"""Lists, pages, watches and other shapes of answers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from servers import Api, config_map, deployment, inference_service, pod

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"
PARTIALS = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"


def names(items: Any) -> list[str]:
    """Return the names of objects."""
    return [item["metadata"]["name"] for item in items]


def fill(api: Api, count: int) -> None:
    """Create ConfigMaps n00, n01, ..."""
    for number in range(count):
        api.made("configmaps", config_map(f"n{number:02}", k=str(number)))


def taken(events: Any, count: int) -> list[Any]:
    """Return the first `count` events of a watch that are no bookmarks."""
    found: list[Any] = []
    for event in events:
        if event["type"] != "BOOKMARK":
            found.append(event)
        if len(found) == count:
            break
    events.close()
    return found


def test_a_list_is_of_one_namespace_or_of_all(api: Api) -> None:
    """Items come by namespace and name; the list has a version."""
    fill(api, 2)
    found = api.call("GET", api.path("configmaps")).value
    assert (found["kind"], found["apiVersion"]) == ("ConfigMapList", "v1") and found["metadata"][
        "resourceVersion"
    ].isdigit()
    assert [name for name in names(found["items"]) if name.startswith("n")] == ["n00", "n01"]
    everywhere = api.call("GET", "/api/v1/configmaps", fieldSelector=f"metadata.namespace={api.namespace}").value
    assert names(everywhere["items"]) == names(found["items"])


def test_pages_are_parts_of_one_state(api: Api) -> None:
    """Pages meet without gap; what changes in between is not seen; the first says how many are left."""
    for number in range(7):
        api.made("inferenceservices", inference_service(f"n{number}"))
    first = api.call("GET", api.path("inferenceservices"), limit=3).value
    assert first["metadata"]["remainingItemCount"] == 4
    api.made("inferenceservices", inference_service("n35"))
    api.call("DELETE", api.path("inferenceservices", "n5"))
    seen, token = names(first["items"]), first["metadata"]["continue"]
    while token:
        page = api.call("GET", api.path("inferenceservices"), limit=3, **{"continue": token}).value
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        seen += names(page["items"])
        token = page["metadata"].get("continue")
    assert seen == [f"n{number}" for number in range(7)]


def test_an_exact_version_is_listed(api: Api) -> None:
    """resourceVersionMatch=Exact shows the past."""
    version = api.made("configmaps", config_map("a"))["metadata"]["resourceVersion"]
    api.made("configmaps", config_map("b"))
    query = {
        "resourceVersion": version,
        "resourceVersionMatch": "Exact",
        "fieldSelector": "metadata.name!=kube-root-ca.crt",
    }
    found = api.call("GET", api.path("configmaps"), **query).value
    assert names(found["items"]) == ["a"] and found["metadata"]["resourceVersion"] == version


def test_a_version_from_the_future_times_out(api: Api) -> None:
    """A list that wants a version which is not reached is 504."""
    reply = api.call("GET", api.path("configmaps"), resourceVersion=10**15, resourceVersionMatch="NotOlderThan")
    assert reply.status == 504 and reply.value["reason"] == "Timeout"
    assert "Too large resource version" in reply.value["message"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("tier=gold", "ac"), ("tier!=gold", "bd"), ("tier in (gold,silver)", "abc"), ("tier notin (gold)", "bd"),
     ("tier", "abc"), ("!tier", "d"), ("tier=gold,size=1", "a")],
)  # fmt: skip
def test_labels_select(api: Api, selector: str, expected: str) -> None:
    """Every operator of label selectors selects."""
    labels = {"a": {"tier": "gold", "size": "1"}, "b": {"tier": "silver"}, "c": {"tier": "gold"}, "d": {}}
    for name, chosen in labels.items():
        body = inference_service(name)
        body["metadata"]["labels"] = chosen
        api.made("inferenceservices", body)
    found = api.call("GET", api.path("inferenceservices"), labelSelector=selector).value
    assert "".join(names(found["items"])) == expected


def test_pods_are_selected_by_their_fields(api: Api) -> None:
    """spec.nodeName and status.phase select pods."""
    api.made("pods", pod("a"))
    api.made("pods", {**pod("b"), "spec": {**pod("b")["spec"], "nodeName": "here"}})
    assert names(api.call("GET", api.path("pods"), fieldSelector="spec.nodeName=here").value["items"]) == ["b"]
    assert names(api.call("GET", api.path("pods"), fieldSelector="status.phase=Pending").value["items"]) == ["a", "b"]


def test_a_table_of_ours_has_the_printer_columns(api: Api) -> None:
    """Columns, cells and the objects' metadata, as `kubectl get` asks for them."""
    api.made("inferenceservices", inference_service("a"))
    found = api.call("GET", api.path("inferenceservices"), accept=TABLE).value
    assert (found["kind"], found["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    columns = [(c["name"], c["type"], c["format"], c["priority"]) for c in found["columnDefinitions"]]
    assert columns == [
        ("Name", "string", "name", 0), ("Model", "string", "", 0), ("Ready", "integer", "", 0),
        ("Replicas", "integer", "", 0), ("Available", "string", "", 0), ("Reason", "string", "", 0), ("Age", "date", "", 0),
    ]  # fmt: skip
    (row,) = found["rows"]
    assert row["cells"][:-1] == ["a", "small", None, 1, None, None] and row["object"]["kind"] == "PartialObjectMetadata"


@pytest.mark.parametrize(
    ("plural", "body", "cells"),
    [("configmaps", config_map("a", x="1", y="2"), ["a", 2]), ("pods", pod("a"), ["a", "0/1", "Pending", "0"]),
     ("deployments", deployment("a"), ["a", "0/1", 0, 0])],
)  # fmt: skip
def test_a_table_of_builtins_has_kubernetes_columns(api: Api, plural: str, body: Any, cells: list[Any]) -> None:
    """The cells that people know, in their order; the age after them."""
    api.made(plural, body)
    found = api.call("GET", api.path(plural, "a"), accept=TABLE).value
    (row,) = found["rows"]
    assert row["cells"][: len(cells)] == cells
    headers = [c["name"] for c in found["columnDefinitions"]]
    assert headers[0] == "Name" and "Age" in headers


def test_what_a_row_holds_is_chosen(api: Api) -> None:
    """IncludeObject gives nothing, metadata or the whole object."""
    api.made("inferenceservices", inference_service("a"))
    path = api.path("inferenceservices")
    (row,) = api.call("GET", path, accept=TABLE, includeObject="None").value["rows"]
    assert not row.get("object")
    (row,) = api.call("GET", path, accept=TABLE, includeObject="Object").value["rows"]
    assert row["object"]["spec"]["model"] == "small"


def test_metadata_alone(api: Api) -> None:
    """PartialObjectMetadata, of one and of a list."""
    made = api.made("inferenceservices", inference_service("a"))
    one = api.call("GET", api.path("inferenceservices", "a"), accept=PARTIAL).value
    assert one == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": made["metadata"]}
    many = api.call("GET", api.path("inferenceservices"), accept=PARTIALS).value
    assert many["kind"] == "PartialObjectMetadataList" and many["items"][0]["metadata"] == made["metadata"]


def test_yaml_is_spoken(api: Api) -> None:
    """A body in YAML is taken, an answer in YAML is given."""
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  k: v\n"
    reply = api.call("POST", api.path("configmaps"), body, content_type="application/yaml", accept="application/yaml")
    assert reply.status == 201 and b"kind: ConfigMap" in reply.text


def test_a_form_that_nobody_has_is_406_or_415(api: Api) -> None:
    """Media types are negotiated."""
    assert api.call("GET", api.path("configmaps"), accept="image/png").status == 406
    assert api.call("POST", api.path("configmaps"), b"x", content_type="image/png").status == 415


def test_a_watch_tells_what_happens_after_a_version(api: Api) -> None:
    """ADDED, MODIFIED, DELETED, in order, each with the object and its version."""
    version = api.call("GET", api.path("configmaps")).value["metadata"]["resourceVersion"]
    api.made("configmaps", config_map("a"))
    api.patched("configmaps", "a", {"data": {"k": "v"}})
    api.call("DELETE", api.path("configmaps", "a"))
    events = taken(api.watch(api.path("configmaps"), resourceVersion=version), 3)
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions)) and events[2]["object"]["data"] == {"k": "v"}


def test_a_watch_without_a_version_begins_with_what_is_there(api: Api) -> None:
    """Every object first, as ADDED."""
    fill(api, 3)
    query = {"fieldSelector": "metadata.name!=kube-root-ca.crt"}
    events = taken(api.watch(api.path("configmaps"), **query), 3)
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [
        ("ADDED", "n00"), ("ADDED", "n01"), ("ADDED", "n02"),
    ]  # fmt: skip


def test_a_watch_follows_live(api: Api) -> None:
    """What happens while it is open arrives."""
    version = api.call("GET", api.path("inferenceservices")).value["metadata"]["resourceVersion"]
    events = api.watch(api.path("inferenceservices"), resourceVersion=version)
    other = Api(api.server, api.namespace)
    threading.Thread(target=other.made, args=("inferenceservices", inference_service("live"))).start()
    (event,) = taken(events, 1)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "live")


def test_a_selecting_watch_sees_objects_come_and_go(api: Api) -> None:
    """What begins to match is ADDED, what ceases to is DELETED, the rest is silence."""
    version = api.call("GET", api.path("configmaps")).value["metadata"]["resourceVersion"]
    api.made("configmaps", config_map("a"))
    api.patched("configmaps", "a", {"metadata": {"labels": {"x": "1"}}})
    api.patched("configmaps", "a", {"data": {"k": "v"}})
    api.patched("configmaps", "a", {"metadata": {"labels": {"x": "2"}}})
    events = taken(api.watch(api.path("configmaps"), resourceVersion=version, labelSelector="x=1"), 3)
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]


def test_one_object_is_watched_by_name(api: Api) -> None:
    """A field selector on the name narrows to it."""
    version = api.call("GET", api.path("configmaps")).value["metadata"]["resourceVersion"]
    fill(api, 2)
    events = taken(api.watch(api.path("configmaps"), resourceVersion=version, fieldSelector="metadata.name=n01"), 1)
    assert names([event["object"] for event in events]) == ["n01"]


def test_a_watch_ends_with_a_bookmark_when_asked(api: Api) -> None:
    """Bookmarks say how far a watch has come, when its time is over at the latest."""
    made = api.made("inferenceservices", inference_service("a"))
    events = list(
        api.watch(api.path("inferenceservices"), resourceVersion=0, allowWatchBookmarks="true", timeoutSeconds=2)
    )
    kinds = [event["type"] for event in events]
    assert kinds[0] == "ADDED"
    marks = [event for event in events if event["type"] == "BOOKMARK"]
    for mark in marks:
        assert mark["object"]["kind"] == "InferenceService"
        assert int(mark["object"]["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])


def test_a_streaming_list_ends_with_its_mark(api: Api) -> None:
    """SendInitialEvents gives the list as events, then a bookmark that says so."""
    api.made("inferenceservices", inference_service("a"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    events = []
    stream = api.watch(api.path("inferenceservices"), **query)
    for event in stream:
        events.append(event)
        if event["type"] == "BOOKMARK":
            break
    stream.close()
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_watch_of_tables(api: Api) -> None:
    """`kubectl get -w` gets rows; an event of theirs holds one."""
    api.made("inferenceservices", inference_service("a"))
    (event,) = taken(api.watch(api.path("inferenceservices"), accept=TABLE), 1)
    assert event["type"] == "ADDED" and event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "a"
