"""Looking on and asking through the real kubectl: watch, wait, rollout, logs, describe, explain, auth, discovery."""

from __future__ import annotations

import threading

import pytest
from kubectl import DEPLOYMENT, POD, SERVICE, Kubectl, WrittenLogs
from local_api import LocalApi, person

from wharfinger.bootstrap.apiclient import RESOURCES

pytestmark = pytest.mark.neighbours
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Serving",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def test_watch_prints_changes(kubectl: Kubectl) -> None:
    """`get -w` prints a row for what is there and one for each change."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    watching = kubectl.start(
        "get", "isvc", "-w", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas", "--no-headers"
    )
    assert watching.stdout is not None
    assert watching.stdout.readline().split() == ["assistant", "1"]
    kubectl("scale", "isvc/assistant", "--replicas=2")
    assert watching.stdout.readline().split() == ["assistant", "2"]
    watching.terminate()
    watching.wait(10)


def test_watch_prints_rows_of_the_server(kubectl: Kubectl) -> None:
    """Without a form the rows are the server's."""
    kubectl("apply", "-f", "-", stdin=POD)
    watching = kubectl.start("get", "pods", "-w")
    assert watching.stdout is not None
    assert watching.stdout.readline().split()[0] == "NAME"
    assert watching.stdout.readline().split()[:3] == ["worker", "0/1", "Pending"]
    watching.terminate()
    watching.wait(10)


def test_wait_for_a_condition(kubectl: Kubectl) -> None:
    """It returns when the condition is true, and times out when it is not."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    assert kubectl.run("wait", "isvc/assistant", "--for=condition=Ready", "--timeout=0s").returncode == 1
    waiting = kubectl.start("wait", "isvc/assistant", "--for=condition=Ready", "--timeout=30s")
    kubectl.status("inferenceservices", "assistant", {"conditions": [READY]})
    assert waiting.communicate(timeout=30)[0] == "inferenceservice.wharfinger.io/assistant condition met\n"


def test_wait_for_a_value_and_for_the_end(kubectl: Kubectl) -> None:
    """--for=jsonpath and --for=delete."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("wait", "isvc/assistant", "--for=jsonpath={.spec.model}=small", "--timeout=10s")
    waiting = kubectl.start("wait", "isvc/assistant", "--for=delete", "--timeout=30s")
    kubectl("delete", "isvc", "assistant")
    assert waiting.wait(30) == 0


def test_rollout_status_follows_a_deployment(kubectl: Kubectl) -> None:
    """It waits until every replica is new and available."""
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    rolling = kubectl.start("rollout", "status", "deploy/web", "--timeout=30s")
    counts = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2, "observedGeneration": 1}
    kubectl.status("deployments", "web", counts)
    told, errors = rolling.communicate(timeout=30)
    assert rolling.returncode == 0, errors
    assert told.splitlines()[-1] == 'deployment "web" successfully rolled out'
    assert "restarted" in kubectl("rollout", "restart", "deploy/web")
    assert "image updated" in kubectl("set", "image", "deploy/web", "web=example/web:9")


def test_logs_are_printed_and_followed(kubectl: Kubectl, logs: WrittenLogs) -> None:
    """What was written, the end of it, and what is written later."""
    kubectl("apply", "-f", "-", stdin=POD)
    logs.lines[:] = [b"one\n", b"two\n"]
    assert kubectl("logs", "worker") == "one\ntwo\n" and kubectl("logs", "worker", "--tail=1") == "two\n"
    assert kubectl("logs", "worker", "-c", "main") == "one\ntwo\n"
    wrong = kubectl.run("logs", "worker", "-c", "other")
    assert wrong.returncode == 1 and "container other is not valid for pod worker" in wrong.stderr
    assert "not found" in kubectl.run("logs", "worker", "--previous").stderr
    logs.is_over = False
    following = kubectl.start("logs", "-f", "worker")
    assert following.stdout is not None
    assert [following.stdout.readline() for _ in range(2)] == ["one\n", "two\n"]
    logs.lines.append(b"three\n")
    assert following.stdout.readline() == "three\n"
    logs.is_over = True
    assert following.wait(30) == 0


def test_describe_tells_of_objects_and_their_events(kubectl: Kubectl, api: LocalApi) -> None:
    """Built-in kinds in their own form, ours in the general one, each with events."""
    kubectl("apply", "-f", "-", stdin=f"{DEPLOYMENT}---{SERVICE}---{POD}")
    service = api.client().get(RESOURCES["inferenceservices"], "default", "assistant")
    about = {"kind": "InferenceService", "apiVersion": service["apiVersion"], "name": "assistant", "namespace": "default",
             "uid": service["metadata"]["uid"]}  # fmt: skip
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "assistant.1", "namespace": "default"},
             "involvedObject": about, "reason": "Granted", "message": "one slice", "type": "Normal", "count": 1,
             "source": {"component": "control"}}  # fmt: skip
    api.client().create(RESOURCES["events"], event)
    told = kubectl("describe", "isvc", "assistant")
    assert "Kind:         InferenceService" in told and "one slice" in told
    assert "StrategyType:           RollingUpdate" in kubectl("describe", "deploy", "web")
    assert "example/worker:1" in kubectl("describe", "pod", "worker")
    assert "Granted" in kubectl("events", "--for", "isvc/assistant") + kubectl("get", "events")


def test_explain_has_words_for_fields(kubectl: Kubectl) -> None:
    """From OpenAPI: kinds, fields, and the whole tree; built-in kinds too."""
    told = kubectl("explain", "isvc.spec.scaling")
    assert "How replicas follow load" in told and "minReplicas\t<integer>" in told
    assert "GROUP:      wharfinger.io" in told
    assert "tokensInFlight" in kubectl("explain", "isvc", "--recursive")
    assert "containers\t<[]Container> -required-" in kubectl("explain", "pod.spec")


def test_api_resources_and_versions(kubectl: Kubectl) -> None:
    """Discovery as people see it."""
    lines = {line.split()[0]: line.split() for line in kubectl("api-resources").splitlines()}
    assert lines["inferenceservices"] == [
        "inferenceservices",
        "isvc",
        "wharfinger.io/v1alpha1",
        "true",
        "InferenceService",
    ]
    assert lines["pods"][1:] == ["po", "v1", "true", "Pod"]
    named = kubectl("api-resources", "--categories=wharfinger", "-o", "name").split()
    assert "tenants.wharfinger.io" in named and "pods" not in named
    assert {"v1", "apps/v1", "wharfinger.io/v1alpha1"} <= set(kubectl("api-versions").split())


def test_auth_tells_who_and_what(kubectl: Kubectl) -> None:
    """Whoami gives the SPIFFE ID; can-i what it may: everything but grants and status, for the admin."""
    assert "spiffe://test.local/wharfinger/admin" in kubectl("auth", "whoami")
    assert kubectl("auth", "can-i", "create", "deployments") == "yes\n"
    refused = kubectl.run("auth", "can-i", "create", "grants.wharfinger.io")
    assert refused.returncode == 1 and refused.stdout.startswith("no")
    assert kubectl.run("auth", "can-i", "update", "models.wharfinger.io", "--subresource=status").returncode == 1
    assert "inferenceservices.wharfinger.io" in kubectl("auth", "can-i", "--list")
    assert "nobody acts as another" in kubectl.run("get", "pods", "--as=somebody").stderr


def test_a_tenants_people_see_what_is_theirs(kubectl: Kubectl, api: LocalApi) -> None:
    """Another identity: its own namespace, and 403 in the words of the rule elsewhere; grants are not its to write."""
    client = api.client()
    for name in ("ours", "theirs"):
        client.create(RESOURCES["namespaces"], {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    tenant = {"apiVersion": "wharfinger.io/v1alpha1", "kind": "Tenant", "metadata": {"name": "team"},
              "spec": {"namespaces": ["ours"], "admins": ["ada"]}}  # fmt: skip
    client.create(RESOURCES["tenants"], tenant)
    ada = Kubectl(api, kubectl.home / "ada", person("team", "ada"))
    assert "created" in ada("apply", "-n", "ours", "-f", "-", stdin=SERVICE)
    assert "assistant" in ada("get", "isvc", "-n", "ours")
    refused = ada.run("get", "isvc", "-n", "theirs")
    assert refused.returncode == 1 and "people of team have no part in namespace theirs" in refused.stderr
    grant = ada.run("auth", "can-i", "create", "grants.wharfinger.io", "-n", "ours")
    assert grant.returncode == 1 and grant.stdout.startswith("no")
    denied = ada.run(
        "patch", "isvc", "assistant", "-n", "ours", "--subresource=status", "--type=merge", "-p", '{"status":{}}'
    )
    assert denied.returncode == 1 and "Forbidden" in denied.stderr
    trail = api.client("wharfinger/admin").raw("GET", "/audit/v1/records?limit=10000")[1].decode()
    assert '"code":403' in trail and "tenant/team/user/ada" in trail
    ada("delete", "isvc", "assistant", "-n", "ours")


def test_raw_paths_and_the_version(kubectl: Kubectl) -> None:
    """`get --raw`, readiness and version."""
    assert kubectl("get", "--raw", "/readyz").strip() == "ok"
    assert "Server Version: v1.37" in kubectl("version")
    assert '"kind":"Status"' not in kubectl("get", "--raw", "/api/v1/namespaces/default/configmaps")


def test_many_kubectls_at_once(kubectl: Kubectl) -> None:
    """Eight at a time each create their own object; all are there."""
    failures: list[str] = []

    def make(number: int) -> None:
        done = kubectl.run("create", "configmap", f"many-{number}")
        if done.returncode:
            failures.append(done.stderr)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and kubectl("get", "cm", "-o", "name").count("configmap/many-") == 8


def test_every_kind_is_explained(kubectl: Kubectl) -> None:
    """OpenAPI describes each resource that discovery lists, down to its last field."""
    for name in kubectl("api-resources", "-o", "name").split():
        assert "DESCRIPTION:" in kubectl("explain", name, "--recursive"), name
