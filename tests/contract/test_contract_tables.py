"""What `kubectl get` prints: the same columns and the same cells from both servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import scripts
from servers import Adapter, Api, config_map, inference_service
from test_contract_reading import TABLE

pytestmark = pytest.mark.neighbours
_THEN = "2026-01-01T00:00:00Z"
_AGES = {"Age", "Last Seen", "Duration"}


def _container(state: Any, *, ready: bool = False, restarts: int = 0, **more: Any) -> Any:
    return {"containerStatuses": [{"name": "main", "ready": ready, "restartCount": restarts, "image": "x", "imageID": "",
                                   "state": state, **more}]}  # fmt: skip


_PODS: dict[str, Any] = {
    "running": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                **_container({"running": {"startedAt": _THEN}}, ready=True)},
    "restarted": {"phase": "Running", **_container({"running": {"startedAt": _THEN}}, ready=True, restarts=2,
                                                   lastState={"terminated": {"exitCode": 1, "finishedAt": _THEN}})},
    "crashing": {"phase": "Pending", **_container({"waiting": {"reason": "CrashLoopBackOff"}}, restarts=7)},
    "completed": {"phase": "Succeeded", **_container({"terminated": {"exitCode": 0, "reason": "Completed"}})},
    "failed": {"phase": "Running", **_container({"terminated": {"exitCode": 3}})},
    "signalled": {"phase": "Running", **_container({"terminated": {"exitCode": 137, "signal": 9}})},
    "evicted": {"phase": "Failed", "reason": "Evicted"},
    "pending": {"phase": "Pending"},
}  # fmt: skip
_ENDED = {"startTime": _THEN, "completionTime": "2026-01-01T00:01:00Z", "succeeded": 1,
          "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]}  # fmt: skip
_READY = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": _THEN}


def _named(body: Any, name: str) -> Any:
    return {**body, "metadata": {**body["metadata"], "name": name}}


CASES: dict[str, list[tuple[Any, Any]]] = {
    "configmaps": [(config_map("a", x="1"), None), (config_map("b"), None)],
    "secrets": [(scripts._SECRET, None)],
    "services": [(scripts._SERVICE, None)],
    "deployments": [(scripts._RICH, {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2})],
    "jobs": [(scripts._JOB, {"startTime": _THEN, "active": 1}), (_named(scripts._JOB, "b"), _ENDED)],
    "pods": [(scripts._pod(name), status) for name, status in _PODS.items()],
    "leases": [(scripts._LEASE, None)],
    "serviceaccounts": [(scripts.of("v1", "ServiceAccount", "a"), None)],
    "resourceclaims": [(scripts._CLAIM, None)],
    "resourceclaimtemplates": [(scripts._TEMPLATE, None)],
    "events": [(scripts._EVENT, None)],
    "models": [(scripts.of("wharfinger.io/v1alpha1", "Model", "a", spec={
        "artifact": {"repository": "r/m", "digest": "sha256:" + "a" * 64}}), None)],
    "inferenceservices": [(inference_service("a"), {"replicas": 1, "readyReplicas": 1, "conditions": [_READY]})],
    "namespaces": [], "nodes": [], "deviceclasses": [], "resourceslices": [], "tenants": [], "gpuprofiles": [], "grants": [],
    "datasets": [], "pipelineruns": [], "trustpolicies": [], "accesspolicies": [], "inferencepolicies": [],
}  # fmt: skip


def printed(server: Adapter, plural: str) -> tuple[Any, Any]:
    """Return the columns of a kind, and the cells of the case's objects without ages and what holds a UID."""
    api = Api(server, f"table-{plural}")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
    assert api.call("POST", "/api/v1/namespaces", namespace).status == 201
    for body, status in CASES[plural]:
        made = api.made(plural, json.loads(json.dumps(body).replace("NAMESPACE", api.namespace)))
        if status is not None:
            reply = api.patched(plural, made["metadata"]["name"], {"status": status}, sub="status")
            assert reply.status == 200, reply.text
    reply = api.call("GET", api.path(plural), accept=TABLE)
    assert reply.status == 200, reply.text
    found = reply.value
    columns = [(each["name"], each["type"], each["format"], each["priority"]) for each in found["columnDefinitions"]]
    if not CASES[plural]:
        return columns, []
    names = {body["metadata"]["name"] for body, _ in CASES[plural]}
    rows = [row["cells"] for row in found["rows"] if row["object"]["metadata"]["name"] in names]
    return columns, [
        [cell for column, cell in zip(columns, row, strict=True) if column[0] not in _AGES and "controller-uid" not in str(cell)]
        for row in rows
    ]  # fmt: skip


@pytest.mark.parametrize("plural", CASES)
def test_both_servers_print_alike(plural: str, local_server: Adapter, kubernetes_server: Adapter) -> None:
    """Names, types and widths of columns; every cell but ages."""
    assert printed(local_server, plural) == printed(kubernetes_server, plural)
