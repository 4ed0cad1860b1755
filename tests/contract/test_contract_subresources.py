"""Status, scale, binding, finalize: parts of objects that are written on their own."""

from __future__ import annotations

from typing import Any

import pytest
from servers import Api, deployment, inference_service, pod

SCALED = [("deployments", deployment("a")), ("inferenceservices", inference_service("a"))]


def binding(node: str, **metadata: Any) -> Any:
    """Return a Binding of pod `a` to a node."""
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a", **metadata}, "target": target}


def test_a_pod_is_bound_once(api: Api) -> None:
    """Binding sets its node and the condition PodScheduled; a second one conflicts."""
    api.made("pods", pod("a"))
    reply = api.call("POST", api.path("pods", "a", "binding"), binding("here"))
    assert reply.status == 201 and reply.value["status"] == "Success"
    bound = api.got("pods", "a")
    assert bound["spec"]["nodeName"] == "here"
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    again = api.call("POST", api.path("pods", "a", "binding"), binding("there"))
    assert (again.status, again.value["reason"]) == (409, "Conflict") and "already assigned to node" in again.value[
        "message"
    ]


def test_a_pod_that_is_not_there_is_not_bound(api: Api) -> None:
    """404."""
    assert api.call("POST", api.path("pods", "a", "binding"), binding("here")).status == 404


def test_a_pod_of_another_incarnation_is_not_bound(api: Api) -> None:
    """The UID in the binding is a precondition."""
    api.made("pods", pod("a"))
    wrong = binding("here", uid="00000000-0000-4000-8000-000000000000")
    assert api.call("POST", api.path("pods", "a", "binding"), wrong).status == 409
    assert "nodeName" not in api.got("pods", "a")["spec"]


@pytest.mark.parametrize(("plural", "body"), SCALED, ids=["deployment", "ours"])
def test_replicas_are_set_by_put_and_patch(api: Api, plural: str, body: Any) -> None:
    """The Scale says what is wanted and what there is; writing it changes the object and its generation."""
    api.made(plural, body)
    scale = api.got(plural, "a", "scale")
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 1})
    scale["spec"]["replicas"] = 4
    assert api.call("PUT", api.path(plural, "a", "scale"), scale).value["spec"]["replicas"] == 4
    stored = api.got(plural, "a")
    assert stored["spec"]["replicas"] == 4 and stored["metadata"]["generation"] == 2
    assert api.patched(plural, "a", {"spec": {"replicas": 0}}, sub="scale").status == 200
    assert api.got(plural, "a")["spec"]["replicas"] == 0


@pytest.mark.parametrize(("plural", "body"), SCALED, ids=["deployment", "ours"])
def test_an_old_scale_conflicts(api: Api, plural: str, body: Any) -> None:
    """Optimistic concurrency holds through the subresource."""
    api.made(plural, body)
    scale = api.got(plural, "a", "scale")
    api.patched(plural, "a", {"spec": {"replicas": 2}})
    scale["spec"]["replicas"] = 5
    reply = api.call("PUT", api.path(plural, "a", "scale"), scale)
    assert (reply.status, reply.value["reason"]) == (409, "Conflict")


@pytest.mark.parametrize(("plural", "body"), SCALED, ids=["deployment", "ours"])
def test_who_scales_owns_the_replicas(api: Api, plural: str, body: Any) -> None:
    """An applier that wants another number is told who does, and through which subresource."""
    wanted = {**body, "spec": {**body["spec"], "replicas": 2}}
    assert api.applied(plural, wanted, "one").status == 201
    assert api.patched(plural, "a", {"spec": {"replicas": 7}}, sub="scale", fieldManager="scaler").status == 200
    refused = api.applied(plural, wanted, "one")
    assert refused.status == 409
    assert refused.value["message"].startswith(
        'Apply failed with 1 conflict: conflict with "scaler" with subresource "scale"'
    )
    without = {**body, "spec": {name: value for name, value in body["spec"].items() if name != "replicas"}}
    assert api.applied(plural, without, "one").value["spec"]["replicas"] == 7


def test_status_is_applied_by_its_own_manager(api: Api) -> None:
    """Server-side apply of the status leaves the spec's owner alone."""
    api.applied("inferenceservices", inference_service("a"), "user")
    config = {"apiVersion": "wharfinger.io/v1alpha1", "kind": "InferenceService", "metadata": {"name": "a"},
              "status": {"replicas": 1}}  # fmt: skip
    stated = api.applied("inferenceservices", config, "controller", "status")
    assert stated.status == 200 and stated.value["status"] == {"replicas": 1}
    owners = {
        (e["manager"], e["operation"], e.get("subresource", "")) for e in stated.value["metadata"]["managedFields"]
    }
    assert owners == {("user", "Apply", ""), ("controller", "Apply", "status")}


def test_the_whole_status_is_replaced_by_put(api: Api) -> None:
    """What is not in it goes; what is beside it stays as it was."""
    made = api.made("inferenceservices", inference_service("a"))
    api.patched("inferenceservices", "a", {"status": {"replicas": 2, "readyReplicas": 1}}, sub="status")
    current = api.got("inferenceservices", "a")
    current["status"] = {"replicas": 3}
    current["spec"]["model"] = "other"
    written = api.call("PUT", api.path("inferenceservices", "a", "status"), current).value
    assert written["status"] == {"replicas": 3} and written["spec"] == made["spec"]


def test_a_namespace_goes_when_it_is_finalized(api: Api) -> None:
    """The finalizer of its spec holds it; who takes it away lets it go."""
    path = f"/api/v1/namespaces/{api.namespace}"
    made = api.call("GET", path).value
    assert made["spec"]["finalizers"] == ["kubernetes"]
    if api.is_local:
        # Here the server itself takes the finalizer away as soon as nothing is left.
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "finalizers": ["example.com/hold"]}}
        api.made("configmaps", body)
    marked = api.call("DELETE", path).value
    assert marked["status"]["phase"] == "Terminating"
    if api.is_local:
        api.patched("configmaps", "a", {"metadata": {"finalizers": None}})
        while api.call("GET", path).status == 200:
            pass
        return
    marked["spec"]["finalizers"] = []
    assert api.call("PUT", f"{path}/finalize", marked).status == 200
    assert api.call("GET", path).status == 404
