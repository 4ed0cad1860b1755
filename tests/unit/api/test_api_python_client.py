"""The official Python client lists, watches, patches and deletes against the local API server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from local_api import CONTROL, LocalApi

GROUP, VERSION = "wharfinger.io", "v1alpha1"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalApi]:
    """A local API server."""
    made = LocalApi(tmp_path_factory.mktemp("api") / "objects.db").start()
    yield made
    made.stop()


@pytest.fixture
def client(api: LocalApi, tmp_path: Path) -> Iterator[Any]:
    """The official client, from a kubeconfig."""
    made = kubernetes.config.new_client_from_config(str(api.kubeconfig(tmp_path, CONTROL)))
    yield made
    made.close()


def test_typed_objects_go_both_ways(client: Any) -> None:
    """Create, read, list and delete a ConfigMap as typed objects."""
    core = kubernetes.client.CoreV1Api(client)
    body = kubernetes.client.V1ConfigMap(metadata=kubernetes.client.V1ObjectMeta(name="typed"), data={"k": "v"})
    made = core.create_namespaced_config_map("default", body)
    assert made.data == {"k": "v"} and made.metadata.creation_timestamp is not None
    assert [item.metadata.name for item in core.list_namespaced_config_map("default").items] == ["typed"]
    core.delete_namespaced_config_map("typed", "default")
    with pytest.raises(kubernetes.client.ApiException) as caught:
        core.read_namespaced_config_map("typed", "default")
    assert caught.value.status == 404


def test_a_deployment_is_patched_and_scaled(client: Any) -> None:
    """Strategic merge patch, and the scale subresource."""
    apps = kubernetes.client.AppsV1Api(client)
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "example/web:1"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    apps.create_namespaced_deployment("default", {"metadata": {"name": "web"}, "spec": spec})
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "example/web:2"}]}}}}
    patched = apps.patch_namespaced_deployment("web", "default", patch)
    assert patched.spec.template.spec.containers[0].image == "example/web:2" and patched.metadata.generation == 2
    scaled = apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 3}})
    assert scaled.spec.replicas == 3
    apps.delete_namespaced_deployment("web", "default", propagation_policy="Foreground")


def test_our_kinds_by_the_custom_objects_api(client: Any) -> None:
    """Create, patch, status, list with a selector, delete."""
    custom = kubernetes.client.CustomObjectsApi(client)
    at = (GROUP, VERSION, "default", "inferenceservices")
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "InferenceService",
            "metadata": {"name": "assistant", "labels": {"tier": "gold"}}, "spec": {"model": "small"}}  # fmt: skip
    custom.create_namespaced_custom_object(*at, body)
    assert custom.patch_namespaced_custom_object(*at, "assistant", {"spec": {"replicas": 2}})["spec"]["replicas"] == 2
    stated = custom.patch_namespaced_custom_object_status(*at, "assistant", {"status": {"replicas": 2}})
    assert stated["status"]["replicas"] == 2
    found = custom.list_namespaced_custom_object(*at, label_selector="tier=gold")
    assert [item["metadata"]["name"] for item in found["items"]] == ["assistant"]
    custom.delete_namespaced_custom_object(*at, "assistant")
    assert custom.list_namespaced_custom_object(*at)["items"] == []


def test_a_watch_follows_pods(client: Any) -> None:
    """The client's own watch loop sees a pod come and go."""
    core = kubernetes.client.CoreV1Api(client)
    version = core.list_namespaced_pod("default").metadata.resource_version
    watch, seen = kubernetes.watch.Watch(), []

    def make() -> None:
        pod = {"metadata": {"name": "worker"}, "spec": {"containers": [{"name": "main", "image": "example/main"}]}}
        core.create_namespaced_pod("default", pod)
        core.delete_namespaced_pod("worker", "default")

    thread = threading.Thread(target=make)
    thread.start()
    for event in watch.stream(core.list_namespaced_pod, "default", resource_version=version, timeout_seconds=20):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            watch.stop()
    thread.join()
    assert seen == [("ADDED", "worker"), ("DELETED", "worker")]


def test_lists_are_paged(client: Any) -> None:
    """Limit and continue."""
    core = kubernetes.client.CoreV1Api(client)
    for number in range(5):
        core.create_namespaced_secret("default", {"metadata": {"name": f"s{number}"}, "stringData": {"k": "v"}})
    names, token = [], None
    while True:
        page = core.list_namespaced_secret("default", limit=2, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"s{number}" for number in range(5)]


def test_the_dynamic_client_discovers_and_applies(client: Any) -> None:
    """Discovery by the dynamic client, and server-side apply."""
    dynamic = kubernetes.dynamic.DynamicClient(client)
    tenants = dynamic.resources.get(api_version=f"{GROUP}/{VERSION}", kind="Tenant")
    body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Tenant", "metadata": {"name": "team"},
            "spec": {"namespaces": ["team-a"]}}  # fmt: skip
    made = tenants.server_side_apply(body=body, name="team", field_manager="test")
    assert made.spec.namespaces == ["team-a"]
    assert [item.metadata.name for item in tenants.get().items] == ["team"]
    tenants.delete(name="team")
