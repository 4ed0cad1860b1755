"""What a server says of itself: groups, resources, OpenAPI, who one is and what one may."""

from __future__ import annotations

from typing import Any

import pytest
from servers import Api

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
OURS = "/apis/wharfinger.io/v1alpha1"


def resources(api: Api, path: str) -> dict[str, Any]:
    """Return the resources of a group and version by name."""
    return {entry["name"]: entry for entry in api.call("GET", path).value["resources"]}


def test_the_version_is_kubernetes_137(api: Api) -> None:
    """Clients read major and minor."""
    told = api.call("GET", "/version").value
    assert (told["major"], told["minor"]) == ("1", "37") and told["gitVersion"].startswith("v1.37.")


def test_groups_are_listed(api: Api) -> None:
    """The core group's versions, and every other group with its preferred version."""
    assert api.call("GET", "/api").value["versions"] == ["v1"]
    groups = {group["name"]: group for group in api.call("GET", "/apis").value["groups"]}
    for name, version in (("apps", "v1"), ("batch", "v1"), ("coordination.k8s.io", "v1"), ("resource.k8s.io", "v1"),
                          ("authentication.k8s.io", "v1"), ("authorization.k8s.io", "v1"), ("wharfinger.io", "v1alpha1")):  # fmt: skip
        assert groups[name]["preferredVersion"] == {"groupVersion": f"{name}/{version}", "version": version}
    assert api.call("GET", "/apis/apps").value == {"kind": "APIGroup", "apiVersion": "v1", **groups["apps"]}


def test_our_kinds_are_discovered(api: Api) -> None:
    """Names, short names, categories, verbs and subresources of each."""
    found = resources(api, OURS)
    service = found["inferenceservices"]
    assert service["kind"] == "InferenceService" and service["namespaced"] and service["shortNames"] == ["isvc"]
    assert service["categories"] == ["wharfinger"] and service["singularName"] == "inferenceservice"
    assert sorted(service["verbs"]) == [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ]
    assert (
        found["inferenceservices/scale"]["kind"] == "Scale"
        and found["inferenceservices/scale"]["group"] == "autoscaling"
    )
    assert sorted(found["inferenceservices/status"]["verbs"]) == ["get", "patch", "update"]
    assert not found["tenants"]["namespaced"]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("/api/v1", ("configmaps", "pods", "pods/log", "pods/status", "namespaces", "secrets", "serviceaccounts", "events",
                  "nodes", "nodes/status", "services")),
     ("/apis/apps/v1", ("deployments", "deployments/scale", "deployments/status")), ("/apis/batch/v1", ("jobs",)),
     ("/apis/coordination.k8s.io/v1", ("leases",)),
     ("/apis/resource.k8s.io/v1", ("resourceclaims", "resourceclaimtemplates", "resourceslices", "deviceclasses"))],
)  # fmt: skip
def test_builtin_kinds_are_discovered(api: Api, path: str, wanted: tuple[str, ...]) -> None:
    """The kinds that we use are there, with Kubernetes' names."""
    found = resources(api, path)
    assert set(wanted) <= set(found)
    if "pods" in wanted:
        assert found["pods"]["shortNames"] == ["po"] and found["pods"]["categories"] == ["all"]


def test_discovery_in_one_document(api: Api) -> None:
    """The aggregated form holds the same."""
    reply = api.call("GET", "/apis", accept=AGGREGATED)
    assert reply.value["kind"] == "APIGroupDiscoveryList"
    (ours,) = (item for item in reply.value["items"] if item["metadata"]["name"] == "wharfinger.io")
    (version,) = ours["versions"]
    by_name = {entry["resource"]: entry for entry in version["resources"]}
    assert set(by_name) == {name for name in resources(api, OURS) if "/" not in name}
    assert {sub["subresource"] for sub in by_name["inferenceservices"]["subresources"]} == {"status", "scale"}


def test_openapi_describes_every_kind(api: Api) -> None:
    """An index of documents; ours holds each kind with descriptions and its group, version and kind."""
    paths = api.call("GET", "/openapi/v3").value["paths"]
    document = api.call("GET", paths["apis/wharfinger.io/v1alpha1"]["serverRelativeURL"]).value
    schemas = document["components"]["schemas"]
    service = schemas["io.wharfinger.v1alpha1.InferenceService"]
    assert service["x-kubernetes-group-version-kind"] == [
        {"group": "wharfinger.io", "version": "v1alpha1", "kind": "InferenceService"}
    ]
    assert service["properties"]["spec"]["properties"]["model"]["description"] == "The Model, in this namespace."
    assert f"{OURS}/namespaces/{{namespace}}/inferenceservices/{{name}}" in document["paths"]


def test_who_am_i(api: Api) -> None:
    """A SelfSubjectReview names the caller."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    reply = api.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert reply.status == 201 and reply.value["status"]["userInfo"]["username"]
    assert "system:authenticated" in reply.value["status"]["userInfo"]["groups"]


@pytest.mark.parametrize("verb", ["create", "delete", "list"])
def test_may_i(api: Api, verb: str) -> None:
    """A SelfSubjectAccessReview answers for a resource; who may do everything may do this."""
    attributes = {"verb": verb, "group": "wharfinger.io", "resource": "models", "namespace": api.namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    reply = api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert reply.status == 201 and reply.value["status"]["allowed"] is True


def test_what_may_i(api: Api) -> None:
    """A SelfSubjectRulesReview lists rules."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": api.namespace},
    }
    reply = api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    assert reply.status == 201 and reply.value["status"]["resourceRules"] and reply.value["status"]["nonResourceRules"]


def test_nobody_is_401(api: Api) -> None:
    """Without a certificate or token that holds there is no access."""
    endpoint = api.server.endpoint()
    import http.client
    import ssl

    connection = http.client.HTTPSConnection(endpoint.host, endpoint.port, context=ssl._create_unverified_context())
    connection.request("GET", "/api/v1/pods", headers={"Authorization": "Bearer nonsense"})
    assert connection.getresponse().status == 401
    connection.close()
