"""Creating, reading, updating and deleting objects."""

from __future__ import annotations

from typing import Any

import pytest
from servers import Api, config_map, deployment, inference_service, pod


def test_a_created_object_has_what_the_server_sets(api: Api) -> None:
    """UID, time, version, generation and managers are the server's; defaults are filled in."""
    made = api.made("inferenceservices", inference_service("a"))
    meta = made["metadata"]
    assert meta["uid"] and meta["creationTimestamp"].endswith("Z") and meta["resourceVersion"].isdigit()
    assert meta["generation"] == 1 and meta["namespace"] == api.namespace
    assert made["spec"]["replicas"] == 1 and made["spec"]["slo"] == {"ttftMilliseconds": 1000, "tpotMilliseconds": 100}
    (entry,) = meta["managedFields"]
    assert entry["manager"] == "contract" and entry["operation"] == "Update" and entry["fieldsType"] == "FieldsV1"
    assert api.got("inferenceservices", "a") == made


@pytest.mark.parametrize(
    "body", [config_map("a", x="1"), deployment("a"), pod("a")], ids=["ConfigMap", "Deployment", "Pod"]
)
def test_a_builtin_object_comes_back_as_it_was_made(api: Api, body: Any) -> None:
    """What create answers is what get answers."""
    plural = {"ConfigMap": "configmaps", "Deployment": "deployments", "Pod": "pods"}[body["kind"]]
    made = api.made(plural, body)
    assert api.got(plural, "a") == made


def test_managed_fields_of_a_created_deployment(api: Api) -> None:
    """The creator owns what it set and what was defaulted, spelled as fieldsV1."""
    made = api.made("deployments", deployment("a"), fieldManager="me")
    (entry,) = made["metadata"]["managedFields"]
    fields = entry["fieldsV1"]["f:spec"]
    assert entry["manager"] == "me" and entry["apiVersion"] == "apps/v1"
    assert set(fields) == {"f:progressDeadlineSeconds", "f:replicas", "f:revisionHistoryLimit", "f:selector",
                           "f:strategy", "f:template"}  # fmt: skip
    assert 'k:{"name":"web"}' in fields["f:template"]["f:spec"]["f:containers"]


def test_defaults_of_a_deployment(api: Api) -> None:
    """A Deployment's defaults are Kubernetes'."""
    spec = api.made("deployments", deployment("a"))["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    assert (spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (10, 600)
    inner = spec["template"]["spec"]
    assert (inner["restartPolicy"], inner["dnsPolicy"], inner["schedulerName"]) == (
        "Always", "ClusterFirst", "default-scheduler",
    )  # fmt: skip
    assert inner["terminationGracePeriodSeconds"] == 30 and inner["securityContext"] == {}
    container = inner["containers"][0]
    assert container == {
        "name": "web", "image": "example/web:1", "resources": {}, "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    }  # fmt: skip


def test_a_second_create_conflicts(api: Api) -> None:
    """The name is taken: 409, AlreadyExists, with the details that clients read."""
    api.made("configmaps", config_map("a"))
    reply = api.call("POST", api.path("configmaps"), config_map("a"))
    told = reply.value
    assert reply.status == told["code"] == 409 and told["reason"] == "AlreadyExists" and told["kind"] == "Status"
    assert told["details"] == {"name": "a", "kind": "configmaps"}
    assert told["message"] == 'configmaps "a" already exists'


@pytest.mark.parametrize(("plural", "word"), [("configmaps", "configmaps"), ("models", "models.wharfinger.io")])
def test_what_is_not_there_is_404(api: Api, plural: str, word: str) -> None:
    """Get, update, patch and delete of nothing name what is missing."""
    for reply in (
        api.call("GET", api.path(plural, "none")),
        api.call("DELETE", api.path(plural, "none")),
        api.patched(plural, "none", {"metadata": {"labels": {"a": "b"}}}),
    ):
        told = reply.value
        assert (reply.status, told["reason"], told["message"]) == (404, "NotFound", f'{word} "none" not found')
        assert told["details"]["name"] == "none" and told["details"]["kind"] == plural


def test_a_name_is_generated_from_a_prefix(api: Api) -> None:
    """GenerateName gives a name that begins with it and five letters more."""
    body = config_map("x")
    body["metadata"] = {"generateName": "gen-"}
    names = [api.made("configmaps", body)["metadata"]["name"] for _ in range(3)]
    assert len(set(names)) == 3 and all(name.startswith("gen-") and len(name) == 9 for name in names)


def test_what_the_server_sets_is_not_the_callers(api: Api) -> None:
    """UID, creation time, generation and status sent on create are ignored."""
    body = inference_service("a")
    body["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7}
    body["status"] = {"replicas": 9}
    made = api.made("inferenceservices", body)
    assert made["metadata"]["uid"] != "mine" and made["metadata"]["generation"] == 1
    assert not made["metadata"]["creationTimestamp"].startswith("2001") and "status" not in made


def test_a_version_on_create_is_refused(api: Api) -> None:
    """ResourceVersion means nothing before there is an object."""
    body = config_map("a")
    body["metadata"]["resourceVersion"] = "5"
    reply = api.call("POST", api.path("configmaps"), body)
    assert reply.status in (400, 500) and "resourceVersion should not be set" in reply.value["message"]


def test_a_namespace_that_is_not_there(api: Api) -> None:
    """Creating in it is 404, and names the namespace."""
    reply = api.call("POST", api.path("configmaps", namespace="nowhere"), config_map("a"))
    assert (reply.status, reply.value["message"]) == (404, 'namespaces "nowhere" not found')


def test_a_body_for_another_namespace_or_name_is_refused(api: Api) -> None:
    """Path and body must mean the same object."""
    body = config_map("a")
    body["metadata"]["namespace"] = "other"
    reply = api.call("POST", api.path("configmaps"), body)
    assert reply.status == 400
    assert (
        "the namespace of the provided object does not match the namespace sent on the request"
        in reply.value["message"]
    )
    api.made("configmaps", config_map("b"))
    reply = api.call("PUT", api.path("configmaps", "b"), config_map("c"))
    assert reply.status == 400
    assert reply.value["message"] == "the name of the object (c) does not match the name on the URL (b)"


def test_a_body_of_another_kind_is_refused(api: Api) -> None:
    """A Secret is no ConfigMap, and a Model no Dataset."""
    reply = api.call("POST", api.path("configmaps"), {**config_map("a"), "kind": "Secret"})
    assert reply.status == 400 and reply.value["reason"] == "BadRequest"
    reply = api.call("POST", api.path("models"), {"apiVersion": "wharfinger.io/v1alpha1", "kind": "Dataset",
                                                  "metadata": {"name": "a"}, "spec": {}})  # fmt: skip
    assert reply.status == 422 and reply.value["details"]["causes"][0]["field"] == "kind"


def test_an_update_with_an_old_version_conflicts(api: Api) -> None:
    """Optimistic concurrency: the second of two writers who read the same version is refused."""
    for plural, made in (
        ("configmaps", api.made("configmaps", config_map("a"))),
        ("inferenceservices", api.made("inferenceservices", inference_service("a"))),
    ):
        made["metadata"]["labels"] = {"first": "1"}
        assert api.call("PUT", api.path(plural, "a"), made).status == 200
        reply = api.call("PUT", api.path(plural, "a"), made)
        assert (reply.status, reply.value["reason"]) == (409, "Conflict")
        assert "the object has been modified; please apply your changes to the latest version" in reply.value["message"]


def test_an_update_without_a_version(api: Api) -> None:
    """Built-in kinds are replaced whatever they are now; custom ones want the version."""
    api.made("configmaps", config_map("a", x="1"))
    assert api.call("PUT", api.path("configmaps", "a"), config_map("a", y="2")).value["data"] == {"y": "2"}
    api.made("inferenceservices", inference_service("a"))
    reply = api.call("PUT", api.path("inferenceservices", "a"), inference_service("a"))
    assert reply.status == 422 and reply.value["details"]["causes"][0]["field"] == "metadata.resourceVersion"


def test_an_update_that_changes_nothing_is_none(api: Api) -> None:
    """The version stays, for update and for patch."""
    made = api.made("inferenceservices", inference_service("a"))
    again = api.call("PUT", api.path("inferenceservices", "a"), made).value
    assert again == made
    assert api.patched("inferenceservices", "a", {"spec": {"model": "small"}}).value == made


def test_generation_counts_changes_of_the_spec_alone(api: Api) -> None:
    """Labels do not count, the spec does, status does not."""
    api.made("inferenceservices", inference_service("a"))
    labelled = api.patched("inferenceservices", "a", {"metadata": {"labels": {"x": "y"}}}).value
    changed = api.patched("inferenceservices", "a", {"spec": {"replicas": 2}}).value
    stated = api.patched("inferenceservices", "a", {"status": {"replicas": 2}}, sub="status").value
    assert [v["metadata"]["generation"] for v in (labelled, changed, stated)] == [1, 2, 2]
    assert stated["status"]["replicas"] == 2


@pytest.mark.parametrize("plural", ["inferenceservices", "deployments"])
def test_status_is_written_apart(api: Api, plural: str) -> None:
    """The object's own endpoint leaves status alone, the status endpoint leaves the rest alone."""
    body = deployment("a") if plural == "deployments" else inference_service("a")
    api.made(plural, body)
    assert "replicas" not in api.patched(plural, "a", {"status": {"replicas": 3}}).value.get("status", {})
    written = api.patched(plural, "a", {"spec": {"replicas": 9}, "status": {"replicas": 3}}, sub="status").value
    assert written["spec"]["replicas"] == 1 and written["status"]["replicas"] == 3
    managers = {(e["operation"], e.get("subresource", "")) for e in written["metadata"]["managedFields"]}
    assert ("Update", "status") in managers


def test_a_uid_in_an_update_is_a_precondition(api: Api) -> None:
    """An update meant for another object of that name is refused."""
    made = api.made("configmaps", config_map("a"))
    made["metadata"]["uid"] = "00000000-0000-4000-8000-000000000000"
    reply = api.call("PUT", api.path("configmaps", "a"), made)
    assert reply.status == 409 and "Precondition failed: UID in precondition" in reply.value["message"]


def test_a_deleted_object_is_gone(api: Api) -> None:
    """The answer is a Status that names it and its UID; afterwards it is 404."""
    uid = api.made("configmaps", config_map("a"))["metadata"]["uid"]
    told = api.call("DELETE", api.path("configmaps", "a")).value
    assert told["kind"] == "Status" and told["status"] == "Success"
    assert told["details"] == {"name": "a", "kind": "configmaps", "uid": uid}
    assert api.call("GET", api.path("configmaps", "a")).status == 404


def test_a_delete_of_another_incarnation_is_refused(api: Api) -> None:
    """Preconditions on UID and version hold for deletes."""
    made = api.made("configmaps", config_map("a"))
    for wrong in ({"uid": "00000000-0000-4000-8000-000000000000"}, {"resourceVersion": "1"}):
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": wrong}
        reply = api.call("DELETE", api.path("configmaps", "a"), options)
        assert (reply.status, reply.value["reason"]) == (409, "Conflict")
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": made["metadata"]["uid"]}}
    assert api.call("DELETE", api.path("configmaps", "a"), options).status == 200


def test_an_object_with_finalizers_waits_for_them(api: Api) -> None:
    """Deleting marks it; it goes with the last finalizer; a new finalizer is refused meanwhile."""
    body = inference_service("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    api.made("inferenceservices", body)
    marked = api.call("DELETE", api.path("inferenceservices", "a")).value
    assert marked["metadata"]["deletionTimestamp"] and marked["metadata"]["deletionGracePeriodSeconds"] == 0
    assert marked["metadata"]["generation"] == 2
    more = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    assert api.patched("inferenceservices", "a", more).status == 422
    assert api.got("inferenceservices", "a")["metadata"]["finalizers"] == ["example.com/hold"]
    assert api.patched("inferenceservices", "a", {"metadata": {"finalizers": None}}).status == 200
    assert api.call("GET", api.path("inferenceservices", "a")).status == 404


def test_a_pod_that_runs_nowhere_goes_at_once(api: Api) -> None:
    """Without a node nobody has to end it, so that there is no grace."""
    api.made("pods", pod("a"))
    told = api.call("DELETE", api.path("pods", "a"))
    assert told.status == 200 and told.value["kind"] == "Pod"
    assert api.call("GET", api.path("pods", "a")).status == 404


def test_a_pod_on_a_node_is_asked_to_end(api: Api) -> None:
    """It is marked with a time in the future, and goes when it is deleted with grace 0."""
    api.made("pods", {**pod("a"), "spec": {**pod("a")["spec"], "nodeName": "here"}})
    marked = api.call("DELETE", api.path("pods", "a"), gracePeriodSeconds=17).value
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 17 and marked["metadata"]["deletionTimestamp"]
    assert api.got("pods", "a")["metadata"]["deletionGracePeriodSeconds"] == 17
    assert api.call("DELETE", api.path("pods", "a"), gracePeriodSeconds=0).status == 200
    assert api.call("GET", api.path("pods", "a")).status == 404


def test_a_collection_is_deleted_by_label(api: Api) -> None:
    """Only what is selected goes; the answer lists it."""
    for name, colour in (("a", "red"), ("b", "red"), ("c", "blue")):
        body = config_map(name)
        body["metadata"]["labels"] = {"colour": colour}
        api.made("configmaps", body)
    gone = api.call("DELETE", api.path("configmaps"), labelSelector="colour=red").value
    assert gone["kind"] == "ConfigMapList" and [item["metadata"]["name"] for item in gone["items"]] == ["a", "b"]
    left = api.call("GET", api.path("configmaps"), labelSelector="colour").value["items"]
    assert [item["metadata"]["name"] for item in left] == ["c"]


@pytest.mark.parametrize("plural", ["configmaps", "inferenceservices"])
def test_a_dry_run_changes_nothing(api: Api, plural: str) -> None:
    """Create, update, patch, apply and delete answer as they would, and nothing is stored."""
    body = config_map("a", x="1") if plural == "configmaps" else inference_service("a")
    made = api.call("POST", api.path(plural), body, dryRun="All")
    assert made.status == 201 and made.value["metadata"]["uid"]
    assert api.call("GET", api.path(plural, "a")).status == 404
    stored = api.made(plural, body)
    changed = {**stored, "metadata": {**stored["metadata"], "labels": {"a": "b"}}}
    assert api.call("PUT", api.path(plural, "a"), changed, dryRun="All").value["metadata"]["labels"] == {"a": "b"}
    assert api.patched(plural, "a", {"metadata": {"labels": {"a": "b"}}}, dryRun="All").status == 200
    assert (
        api.applied(plural, {**body, "metadata": {"name": "a", "labels": {"c": "d"}}}, "m", dryRun="All").status == 200
    )
    assert api.call("DELETE", api.path(plural, "a"), dryRun="All").status == 200
    assert api.got(plural, "a") == stored


def test_a_dry_run_of_something_else_is_refused(api: Api) -> None:
    """The only value is All."""
    reply = api.call("POST", api.path("configmaps"), config_map("a"), dryRun="Some")
    assert reply.status == 422 and 'supported values: "All"' in reply.value["message"]


def test_a_namespace_that_is_going_takes_nothing_new(api: Api) -> None:
    """It is marked and Terminating; creating in it is 403 with the cause NamespaceTerminating."""
    body = config_map("held")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    api.made("configmaps", body)
    marked = api.call("DELETE", f"/api/v1/namespaces/{api.namespace}").value
    assert marked["status"]["phase"] == "Terminating" and marked["metadata"]["deletionTimestamp"]
    reply = api.call("POST", api.path("configmaps"), config_map("late"))
    assert (reply.status, reply.value["reason"]) == (403, "Forbidden")
    assert reply.value["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    api.patched("configmaps", "held", {"metadata": {"finalizers": None}})


def test_system_namespaces_stay(api: Api) -> None:
    """Default may not be deleted."""
    assert api.call("DELETE", "/api/v1/namespaces/default").status == 403


def test_a_secret_takes_texts_and_keeps_bytes(api: Api) -> None:
    """StringData is write-only: it becomes data."""
    made = api.made(
        "secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}}
    )
    assert made["data"] == {"k": "dg=="} and "stringData" not in made and made["type"] == "Opaque"


def test_a_lease_is_made_by_an_update(api: Api) -> None:
    """Kinds that allow it are created by PUT."""
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me"},
    }
    assert api.call("PUT", api.path("leases", "l"), lease).status == 201
    assert api.got("leases", "l")["spec"]["holderIdentity"] == "me"
