"""Our own client, informers and writer: what controllers do works the same against both servers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from servers import Api, config_map, inference_service
from world import CountedIds, SetClock

from wharfinger.bootstrap.apiclient import RESOURCES, informers, writer
from wharfinger.cluster.client import JSON_PATCH, STRATEGIC
from wharfinger.core.errors import AlreadyExists, Conflict, Gone, Invalid, NotFound, Unavailable

MAPS, SERVICES = RESOURCES["configmaps"], RESOURCES["inferenceservices"]


def placed(api: Api, body: Any) -> Any:
    """Return the object in this test's namespace."""
    return {**body, "metadata": {**body["metadata"], "namespace": api.namespace}}


def test_the_verbs_of_the_client(api: Api) -> None:
    """Create, get, list, replace, patch in three forms, delete; each refusal is an error of the family."""
    client = api.client
    made = client.create(MAPS, placed(api, config_map("a", k="1")), manager="one")
    with pytest.raises(AlreadyExists):
        client.create(MAPS, placed(api, config_map("a")))
    assert client.get(MAPS, api.namespace, "a") == made
    replaced = client.replace(MAPS, {**made, "data": {"k": "2"}}, manager="one")
    with pytest.raises(Conflict):
        client.replace(MAPS, {**made, "data": {"k": "3"}})
    client.patch(MAPS, api.namespace, "a", {"data": {"l": "x"}})
    client.patch(MAPS, api.namespace, "a", [{"op": "remove", "path": "/data/k"}], kind=JSON_PATCH)
    patched = client.patch(MAPS, api.namespace, "a", {"data": {"m": "y"}}, kind=STRATEGIC)
    assert patched["data"] == {"l": "x", "m": "y"} and patched["metadata"]["uid"] == replaced["metadata"]["uid"]
    with pytest.raises(Conflict):
        client.delete(MAPS, api.namespace, "a", uid="00000000-0000-4000-8000-000000000000")
    client.delete(MAPS, api.namespace, "a", uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        client.get(MAPS, api.namespace, "a")


def test_a_refusal_names_its_fields(api: Api) -> None:
    """Each cause of a Status is a field problem of the error."""
    with pytest.raises(Invalid) as caught:
        api.client.create(SERVICES, placed(api, inference_service("a", replicas=-1)))
    assert "spec.replicas" in {problem.field for problem in caught.value.fields}


def test_apply_tells_conflicts_by_field(api: Api) -> None:
    """A second manager gets Conflict with the field and its owner; force takes it over."""
    client = api.client
    client.apply(SERVICES, placed(api, inference_service("a", replicas=1)), manager="one")
    with pytest.raises(Conflict) as caught:
        client.apply(SERVICES, placed(api, inference_service("a", replicas=2)), manager="two")
    assert [problem.field for problem in caught.value.fields] == [".spec.replicas"]
    assert (
        client.apply(SERVICES, placed(api, inference_service("a", replicas=2)), manager="two", force=True)["spec"][
            "replicas"
        ]
        == 2
    )


def test_lists_are_gathered_from_pages(api: Api) -> None:
    """Any page size gives the whole list."""
    for number in range(5):
        api.made("inferenceservices", inference_service(f"n{number}"))
    for limit in (0, 1, 2, 100):
        found = api.client.list(SERVICES, api.namespace, limit=limit)
        assert [item["metadata"]["name"] for item in found["items"]] == [f"n{number}" for number in range(5)]


def test_informers_follow(api: Api) -> None:
    """The cache becomes what the server has: what was there, what comes, what changes, what goes."""
    api.made("inferenceservices", inference_service("before"))
    kept = informers(api.client, ["inferenceservices", "configmaps"])
    told: list[tuple[str, str]] = []
    changed = threading.Condition()

    def hear(kind: str, item: Any) -> None:
        if item["metadata"]["namespace"] == api.namespace:
            with changed:
                told.append((kind, item["metadata"]["name"]))
                changed.notify_all()

    kept["inferenceservices"].on_change(hear)
    kept.start()
    try:
        assert kept.synced(20)
        api.made("inferenceservices", inference_service("after"))
        api.patched("inferenceservices", "after", {"spec": {"replicas": 2}})
        api.call("DELETE", api.path("inferenceservices", "before"))
        with changed:
            assert changed.wait_for(lambda: ("DELETED", "before") in told, 20)
        assert told == [("ADDED", "before"), ("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "before")]
        held = kept.get("inferenceservices", api.namespace, "after")
        assert held is not None and held["spec"]["replicas"] == 2 and held["kind"] == "InferenceService"
    finally:
        kept.stop()


def test_the_writer_of_a_part(api: Api) -> None:
    """Apply, status, patch, event and delete, as its own field manager; absent is fine for a deletion."""
    part = writer(api.client, "control", SetClock(), CountedIds())
    made = part.apply(placed(api, inference_service("a")))
    part.status("inferenceservices", api.namespace, "a", {"replicas": 1, "readyReplicas": 1})
    part.status("inferenceservices", api.namespace, "a", {"readyReplicas": None})
    part.patch("inferenceservices", api.namespace, "a", {"metadata": {"labels": {"x": "y"}}})
    part.event(made, "Served", "one replica answers", warning=False)
    found = api.got("inferenceservices", "a")
    assert found["status"] == {"replicas": 1} and found["metadata"]["labels"] == {"x": "y"}
    assert {entry["manager"] for entry in found["metadata"]["managedFields"]} == {"wharfinger-control"}
    (event,) = api.call("GET", api.path("events"), fieldSelector="involvedObject.name=a").value["items"]
    assert (event["reason"], event["involvedObject"]["uid"]) == ("Served", made["metadata"]["uid"])
    part.delete("inferenceservices", api.namespace, "a")
    part.delete("inferenceservices", api.namespace, "a")


def test_a_version_that_never_was_is_told(api: Api) -> None:
    """A list at a version from the future is no answer; the client says that it is not available."""
    with pytest.raises((Unavailable, Gone)):
        api.client.list(SERVICES, api.namespace, resource_version=str(10**15))
