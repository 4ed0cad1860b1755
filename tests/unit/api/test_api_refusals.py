"""What the API server refuses, and what stands in the audit trail: bad input, other tenants, the control plane's own."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from local_api import ADMIN, CONTROL, LocalApi, identity, person, workload

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.cluster.client import MERGE
from wharfinger.controllers.admission import admit
from wharfinger.core.errors import Conflict, Denied, HostUnfit, Invalid, Malformed, NotFound, TooLarge, WharfingerError

MAPS, SERVICES, GRANTS, MODELS = (
    RESOURCES[plural] for plural in ("configmaps", "inferenceservices", "grants", "models")
)  # fmt: skip


def of(kind: str, name: str, namespace: str = "", **fields: Any) -> Any:
    """Return an object of ours, or a core one."""
    ours = kind in {"Tenant", "InferenceService", "Model", "Grant"}
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "wharfinger.io/v1alpha1" if ours else "v1", "kind": kind, "metadata": metadata, **fields}


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with the platform's admission and two tenants."""
    made = LocalApi(tmp_path_factory.mktemp("api") / "objects.db", admit=admit).start()
    client = made.client()
    for name in ("red", "blue"):
        client.create(RESOURCES["namespaces"], of("Namespace", f"{name}-ml"))
        client.create(RESOURCES["tenants"], of("Tenant", name, spec={"namespaces": [f"{name}-ml"], "admins": ["ada"]}))
    yield made
    made.stop()


def trail(api: LocalApi) -> list[dict[str, Any]]:
    """Return the audit trail."""
    status, data = api.client(ADMIN).raw("GET", "/audit/v1/records?limit=10000")
    assert status == 200
    return [json.loads(line) for line in data.splitlines()]


def test_every_mutation_leaves_a_record(tenants: LocalApi) -> None:
    """Who, verb, object, digests before and after; reading and dry runs leave none."""
    client, ada = tenants.client(), tenants.client(person("red", "ada"))
    before = len(trail(tenants))
    ada.create(MAPS, of("ConfigMap", "a", "red-ml", data={"k": "v"}))
    ada.create(MAPS, of("ConfigMap", "dry", "red-ml"), dry_run=True)
    ada.get(MAPS, "red-ml", "a")
    ada.patch(MAPS, "red-ml", "a", {"data": {"k": "w"}})
    ada.delete(MAPS, "red-ml", "a")
    made, changed, gone = trail(tenants)[before:]
    assert [each["verb"] for each in (made, changed, gone)] == ["create", "patch", "delete"]
    assert {each["who"] for each in (made, changed, gone)} == {identity(person("red", "ada"))}
    assert "before" not in made and made["after"] == changed["before"] and changed["after"] == gone["before"]
    assert "after" not in gone and made["code"] == 201 and made["resource"] == "configmaps" and client


@pytest.mark.parametrize("path", [person("red", "ada"), ADMIN])
def test_nobody_but_the_control_plane_writes_grants_or_status(tenants: LocalApi, path: str) -> None:
    """A tenant's admin and the local admin are refused with 403, and each attempt is on record."""
    tenants.client().apply(
        SERVICES, of("InferenceService", "s", "red-ml", spec={"model": "m"}), manager="test", force=True
    )
    client, before = tenants.client(path), len(trail(tenants))
    with pytest.raises(Denied, match="only the control plane"):
        client.create(GRANTS, of("Grant", "g", "red-ml", spec={}))
    with pytest.raises(Denied, match="only the control plane"):
        client.patch(SERVICES, "red-ml", "s", {"status": {"replicas": 9}}, kind=MERGE, subresource="status")
    records = trail(tenants)[before:]
    assert [(each["code"], each["resource"], each.get("subresource", "")) for each in records] == [
        (403, "grants.wharfinger.io", ""), (403, "inferenceservices.wharfinger.io", "status"),
    ]  # fmt: skip
    assert all("only the control plane" in each["reason"] for each in records)


def test_another_tenants_objects_are_not_there_to_see(tenants: LocalApi) -> None:
    """Reading, listing, watching and writing elsewhere is 403; so is the whole cluster."""
    ada = tenants.client(person("red", "ada"))
    for attempt in (
        lambda: ada.get(MAPS, "blue-ml", "a"),
        lambda: ada.list(MAPS, "blue-ml"),
        lambda: ada.list(MAPS),
        lambda: next(iter(ada.watch(MAPS, "blue-ml", resource_version="0"))),
        lambda: ada.create(MAPS, of("ConfigMap", "a", "blue-ml")),
        lambda: ada.delete(MAPS, "blue-ml", "a"),
        lambda: ada.get(RESOURCES["tenants"], "", "blue"),
        lambda: ada.list(RESOURCES["nodes"]),
    ):
        with pytest.raises(Denied):
            attempt()
    assert ada.get(RESOURCES["tenants"], "", "red")["metadata"]["name"] == "red"


def test_tenancy_follows_the_tenant_at_once(tenants: LocalApi) -> None:
    """A namespace that a tenant gets or loses opens and shuts with the next request."""
    client, eve = tenants.client(), tenants.client(person("green", "eve"))
    client.create(RESOURCES["namespaces"], of("Namespace", "green-ml"))
    with pytest.raises(Denied):
        eve.list(MAPS, "green-ml")
    client.create(RESOURCES["tenants"], of("Tenant", "green", spec={"namespaces": ["green-ml"], "admins": []}))
    assert eve.list(MAPS, "green-ml")["items"] == []
    client.delete(RESOURCES["tenants"], "", "green")
    with pytest.raises(Denied):
        eve.list(MAPS, "green-ml")


def test_an_open_watch_ends_when_it_is_allowed_no_more(tenants: LocalApi) -> None:
    """What happens after the tenant has lost the namespace is not told to its people."""
    client, eve = tenants.client(), tenants.client(person("brown", "eve"))
    client.create(RESOURCES["namespaces"], of("Namespace", "brown-ml"))
    client.create(RESOURCES["tenants"], of("Tenant", "brown", spec={"namespaces": ["brown-ml"], "admins": []}))
    watch = eve.watch(MAPS, "brown-ml", resource_version=eve.list(MAPS, "brown-ml")["metadata"]["resourceVersion"])
    client.create(MAPS, of("ConfigMap", "seen", "brown-ml"))
    assert next(watch).object["metadata"]["name"] == "seen"
    client.delete(RESOURCES["tenants"], "", "brown")
    client.create(MAPS, of("ConfigMap", "unseen", "brown-ml"))
    assert list(watch) == []


def test_a_workload_reads_the_grants_of_its_namespace_alone(tenants: LocalApi) -> None:
    """Nothing else, and nobody else's."""
    chat = tenants.client(workload("red-ml", "chat"))
    assert chat.list(GRANTS, "red-ml")["items"] == []
    for attempt in (lambda: chat.list(GRANTS, "blue-ml"), lambda: chat.list(MAPS, "red-ml"),
                    lambda: chat.get(RESOURCES["secrets"], "red-ml", "s")):  # fmt: skip
        with pytest.raises(Denied):
            attempt()


def test_a_refusal_of_admission_is_recorded_too(tenants: LocalApi) -> None:
    """Reserved annotations are the control plane's; kinds of ours live in a tenant's namespace."""
    ada, before = tenants.client(person("red", "ada")), len(trail(tenants))
    body = of("ConfigMap", "sly", "red-ml")
    body["metadata"]["annotations"] = {"wharfinger.io/output": "true"}
    with pytest.raises(Denied, match="control plane's to set"):
        ada.create(MAPS, body)
    with pytest.raises(Denied, match="belongs to no tenant"):
        tenants.client(ADMIN).create(MODELS, of("Model", "m", "default", spec={
            "artifact": {"repository": "r/m", "digest": "sha256:" + "a" * 64}}))  # fmt: skip
    assert [(each["code"], each["name"]) for each in trail(tenants)[before:]] == [(403, "sly"), (403, "m")]


def test_the_audit_trail_is_the_platforms_to_read(tenants: LocalApi) -> None:
    """A tenant's admin is refused; it is read in parts after a record."""
    status, _ = tenants.client(person("red", "ada")).raw("GET", "/audit/v1/records")
    assert status == 403
    first = trail(tenants)[:3]
    _, rest = tenants.client(ADMIN).raw("GET", f"/audit/v1/records?after={first[-1]['id']}&limit=2")
    assert [json.loads(line)["id"] for line in rest.splitlines()] == [first[-1]["id"] + 1, first[-1]["id"] + 2]


def test_an_object_over_the_limit_is_refused(api: LocalApi) -> None:
    """1.5 MiB is the most that is stored, 3 MiB the most that is read; what was there stays."""
    client = api.client()
    with pytest.raises(Invalid):
        client.create(MAPS, of("ConfigMap", "big", "default", data={"k": "x" * (1024 * 1024 + 1)}))
    spec = {"model": "m", "runtime": {"type": "Command", "command": ["x" * (800 * 1024), "y" * (800 * 1024)]}}
    with pytest.raises(TooLarge, match="at most 1572864 bytes"):
        client.create(SERVICES, of("InferenceService", "big", "default", spec=spec))
    with pytest.raises(TooLarge):
        client.create(MAPS, of("ConfigMap", "big", "default", data={"k": "x" * (3 * 1024 * 1024)}))
    with pytest.raises(NotFound):
        client.get(SERVICES, "default", "big")


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"{", "application/json"), (b"\xff\xfe", "application/json"), (b"a: [", "application/yaml"),
     (b"[1, 2", "application/json"), (b'{"a": NaN}', "application/json"), (b"k8s\x00\xff", "application/vnd.kubernetes.protobuf"),
     (b"[" * 5000 + b"]" * 5000, "application/json")],
)  # fmt: skip
def test_a_body_that_is_none_is_refused(api: LocalApi, body: bytes, kind: str) -> None:
    """400 with a message, whatever the bytes."""
    import http.client

    endpoint = api.client().endpoint
    connection = http.client.HTTPSConnection(endpoint.host, endpoint.port, context=endpoint.context)
    connection.request("POST", MAPS.path("default"), body=body, headers={"Content-Type": kind})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    assert answer.status == 400 and told["kind"] == "Status" and told["message"]


def test_a_clock_set_back_changes_no_order(api: LocalApi, clock: Any) -> None:
    """Versions order writes, not times."""
    client = api.client()
    first = client.create(MAPS, of("ConfigMap", "early", "default"))
    clock.pass_(-(10**18))
    second = client.create(MAPS, of("ConfigMap", "late", "default"))
    clock.pass_(10**18)
    assert second["metadata"]["creationTimestamp"] < first["metadata"]["creationTimestamp"]
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])


def test_of_many_writers_with_one_version_one_wins(api: LocalApi) -> None:
    """Twenty replace the same object as they read it: one does, nineteen are told Conflict."""
    client = api.client()
    read = client.create(MAPS, of("ConfigMap", "contended", "default", data={"k": "0"}))
    outcomes: list[str] = []

    def write(number: int) -> None:
        try:
            api.client().replace(MAPS, {**read, "data": {"k": str(number + 1)}})
            outcomes.append("won")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 19 + ["won"]


def test_a_full_disk_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    """The refusal names the cause; what was acknowledged is read, and the server goes on."""
    api = LocalApi(tmp_path / "objects.db", max_pages=120).start()
    client, written = api.client(), 0
    with pytest.raises(WharfingerError, match="no space left"):
        for _ in range(200):
            client.create(MAPS, of("ConfigMap", f"n{written}", "default", data={"k": "x" * 20_000}))
            written += 1
    assert len(client.list(MAPS, "default")["items"]) == written > 0
    api.stop()


def test_a_bearer_token_names_its_holder(tmp_path: Path) -> None:
    """A JWT-SVID stands for its SPIFFE ID; one that does not hold is nobody, never anonymous."""
    import ssl

    from wharfinger.cluster.client import Client
    from wharfinger.cluster.endpoint import Endpoint
    from wharfinger.core.errors import Unauthenticated

    api = LocalApi(tmp_path / "objects.db", tokens={"good": identity(CONTROL)}).start()
    context = ssl._create_unverified_context()
    for token, holds in (("good", True), ("bad", False)):
        client = Client(Endpoint("127.0.0.1", api.port, context, lambda token=token: token))
        if holds:
            assert client.list(MAPS)["items"] == []
        else:
            with pytest.raises(Unauthenticated):
                client.list(MAPS)
    api.stop()


def test_a_second_server_on_one_database_says_so(api: LocalApi) -> None:
    """It does not start."""
    with pytest.raises(HostUnfit, match="only API server"):
        LocalApi(api.server.store.path).start()


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "pods/p/log"), ("GET", "pods/p/binding"), ("DELETE", "configmaps/a/status"),
                         ("PUT", "configmaps"), ("DELETE", "deployments/d/scale")],
)  # fmt: skip
def test_what_means_nothing_somewhere_is_refused(api: LocalApi, method: str, path: str) -> None:
    """405, or 404 for a subresource that the kind does not have; never a fault of the server."""
    plural, _, rest = path.partition("/")
    base = RESOURCES[plural].path("default")
    status, _ = api.client().raw(method, f"{base}/{rest}" if rest else base, body={})
    assert status in (404, 405)


def test_metrics_count_what_is_answered_and_committed(api: LocalApi) -> None:
    """Requests by method, resource and code; mutations and commits; open watches; unknown paths share one label."""
    client, metrics = api.client(), api.server.metrics
    before = {name: metrics.requests[name] for name in (("POST", "configmaps", 201), ("GET", "", 404))}
    commits = metrics.commits
    client.create(MAPS, of("ConfigMap", "counted", "default"))
    for path in ("/nonsense", "/apis/x/v1/y/z"):
        client.raw("GET", path)
    assert {name: metrics.requests[name] - count for name, count in before.items()} == {
        ("POST", "configmaps", 201): 1, ("GET", "", 404): 2,
    }  # fmt: skip
    assert metrics.commits > commits and metrics.mutations >= metrics.commits and metrics.commit_seconds > 0
    names = {family.name for family in metrics.collect()}
    assert {"wharf_api_requests", "wharf_api_commits", "wharf_api_watches", "wharf_api_resource_version"} <= names
    status, text = client.raw("GET", "/metrics")
    assert status == 200 and b"python_info" in text


def test_a_large_collection_is_deleted_whole(api: LocalApi) -> None:
    """Some at a time, all in the end, and the answer lists each."""
    client, namespace = api.client(), "many"
    client.create(RESOURCES["namespaces"], of("Namespace", namespace))
    for number in range(230):
        client.create(MAPS, of("ConfigMap", f"n{number}", namespace))
    status, data = client.raw("DELETE", MAPS.path(namespace))
    assert status == 200 and len(json.loads(data)["items"]) == 230
    assert client.list(MAPS, namespace)["items"] == []


def test_malformed_continue_tokens_and_selectors_are_refused(api: LocalApi) -> None:
    """400 each, by name."""
    client = api.client()
    for query in ("continue=%00", "labelSelector=a%20b", "fieldSelector=spec.none%3D1", "limit=many"):
        status, data = client.raw("GET", f"{MAPS.path('default')}?{query}")
        assert status == 400 and json.loads(data)["reason"] == "BadRequest", data
    with pytest.raises(Malformed):
        client.list(MAPS, labels="((")
