"""Requests that both servers are to answer alike, in scripts: each script runs in a namespace of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

from servers import config_map, deployment, inference_service, pod


class Step(NamedTuple):
    """One request; `path` is `PLURAL[/NAME[/SUBRESOURCE]]`, or absolute."""

    method: str
    path: str
    body: Any = None
    media: str = "application/json"
    query: dict[str, Any] = {}


MERGE, JSON, STRATEGIC, APPLY = (
    "application/merge-patch+json", "application/json-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)  # fmt: skip


def create(plural: str, body: Any, **query: Any) -> Step:
    """Create an object."""
    return Step("POST", plural, body, query=query)


def patch(path: str, body: Any, media: str = MERGE, **query: Any) -> Step:
    """Patch an object."""
    return Step("PATCH", path, body, media, query)


def apply(path: str, body: Any, manager: str, **query: Any) -> Step:
    """Apply a configuration."""
    return Step("PATCH", path, body, APPLY, {"fieldManager": manager, **query})


def get(path: str, **query: Any) -> Step:
    """Get an object or a list."""
    return Step("GET", path, query=query)


def put(path: str, body: Any, **query: Any) -> Step:
    """Replace an object."""
    return Step("PUT", path, body, query=query)


def delete(path: str, body: Any = None, **query: Any) -> Step:
    """Delete an object."""
    return Step("DELETE", path, body, query=query)


def of(version: str, kind: str, name: str, **fields: Any) -> Any:
    """Return an object."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}


def isvc(name: str = "a", meta: Any = None, **spec: Any) -> Any:
    """Return an InferenceService with more metadata."""
    made = inference_service(name, **spec)
    made["metadata"] |= meta or {}
    return made


def _containers(*containers: Any, **spec: Any) -> Any:
    return {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": list(containers), **spec}}


def _pod(name: str = "a") -> Any:
    made = pod(name)
    # In a cluster an admission plugin sets it, which needs a controller that makes the account.
    made["spec"]["serviceAccountName"] = "default"
    return made


_WEB = {"name": "web", "image": "example/web"}
_RICH = deployment("a", template=_containers(
    {**_WEB, "ports": [{"containerPort": 80}, {"containerPort": 443, "name": "tls"}],
     "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
     "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
     "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
     "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
    volumes=[{"name": "v", "configMap": {"name": "c"}}, {"name": "e", "emptyDir": {}}]))  # fmt: skip

_JOB = of("batch/v1", "Job", "a", spec={"template": {"spec": {"containers": [_WEB], "restartPolicy": "Never"}}})
_SERVICE = of("v1", "Service", "a", spec={"selector": {"a": "b"}, "ports": [{"port": 80}], "clusterIP": "None"})
_EVENT = of("v1", "Event", "a", involvedObject={"kind": "Pod", "name": "p", "namespace": "NAMESPACE"}, reason="R",
            message="m", type="Normal", firstTimestamp="2026-01-01T00:00:00Z", count=1, source={"component": "me"})  # fmt: skip
_CLAIM_SPEC = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "c", "count": 1}}]}}
_CLAIM = of("resource.k8s.io/v1", "ResourceClaim", "a", spec=_CLAIM_SPEC)
_TEMPLATE = of("resource.k8s.io/v1", "ResourceClaimTemplate", "a", spec={"spec": _CLAIM_SPEC})
_LEASE = of("coordination.k8s.io/v1", "Lease", "a", spec={"holderIdentity": "me", "leaseDurationSeconds": 15,
                                                          "renewTime": "2026-01-01T00:00:00.000000Z"})  # fmt: skip
_SECRET = of("v1", "Secret", "a", stringData={"k": "v"})

SCRIPTS: dict[str, list[Step]] = {
    # What each kind makes of a new object.
    "configmap": [create("configmaps", config_map("a", k="v")), get("configmaps/a")],
    "secret": [create("secrets", _SECRET)],
    "serviceaccount": [create("serviceaccounts", of("v1", "ServiceAccount", "robot"))],
    "service": [create("services", _SERVICE)],
    "event": [create("events", _EVENT)],
    "lease": [create("leases", _LEASE)],
    "pod": [create("pods", _pod()), get("pods/a/status")],
    "rich deployment": [create("deployments", _RICH)],
    "job": [create("jobs", {**_JOB, "metadata": {"name": "a", "labels": {"x": "y"}}})],
    "claim": [create("resourceclaims", _CLAIM)],
    "claim template": [create("resourceclaimtemplates", _TEMPLATE)],
    "inference service": [create("inferenceservices", inference_service("a", scaling={"maxReplicas": 3}))],
    "inference service with everything": [create("inferenceservices", isvc(
        "a", {"labels": {"a": "b"}, "annotations": {"c": "d"}}, callers=["spiffe://a/b", "spiffe://c/*"],
        runtime={"type": "Command", "command": ["x"], "env": [{"name": "A", "value": "1"}]}, gpuProfile="slice",
        replicas=2, scaling={"minReplicas": 1, "maxReplicas": 2}))],
    # Validation.
    "missing required": [create("inferenceservices", of("wharfinger.io/v1alpha1", "InferenceService", "a", spec={})),
                         create("inferenceservices", of("wharfinger.io/v1alpha1", "InferenceService", "a"))],
    "wrong types": [create("inferenceservices", isvc(replicas="two")), create("inferenceservices", isvc(callers={})),
                    create("inferenceservices", isvc(slo=[]))],
    "out of range": [create("inferenceservices", isvc(replicas=-1)), create("inferenceservices", isvc(replicas=1001)),
                     create("inferenceservices", isvc(scaling={"tokensInFlight": 0}))],
    "pattern and length": [create("inferenceservices", isvc(model="Not A Name")),
                           create("inferenceservices", isvc(model="x" * 64)),
                           create("inferenceservices", isvc(modelDigest="sha256:abc"))],
    "enum": [create("inferenceservices", isvc(runtime={"type": "Magic"}))],
    "set with repetition": [create("inferenceservices", isvc(callers=["spiffe://a/b", "spiffe://a/b"]))],
    "map list with repetition": [create("inferenceservices", isvc(runtime={"env": [{"name": "A"}, {"name": "A"}]}))],
    "rules": [create("inferenceservices", isvc(runtime={"type": "Command"})),
              create("inferenceservices", isvc(runtime={"type": "External"})),
              create("inferenceservices", isvc(scaling={"minReplicas": 3, "maxReplicas": 2}))],
    "null for a default": [create("inferenceservices", isvc(replicas=None)), create("inferenceservices", isvc("b", gpuProfile=None))],
    "names": [create("configmaps", config_map("Upper")), create("configmaps", config_map("x" * 254)),
              create("services", {**_SERVICE, "metadata": {"name": "1a"}}), create("configmaps", config_map("-a")),
              create("inferenceservices", inference_service("a_b"))],
    "labels and annotations": [
        create("configmaps", {**config_map("a"), "metadata": {"name": "a", "labels": {"bad key": "x"}}}),
        create("configmaps", {**config_map("a"), "metadata": {"name": "a", "labels": {"k": "bad value"}}}),
        create("inferenceservices", isvc("a", {"annotations": {"#": "x"}})),
        create("configmaps", {**config_map("a"), "metadata": {"name": "a", "labels": {"k": 1}}}),
        create("inferenceservices", isvc("a", {"labels": {"k": 1}}))],
    "owners": [
        create("configmaps", {**config_map("a"), "metadata": {"name": "a", "ownerReferences": [{"kind": "Pod"}]}}),
        create("configmaps", {**config_map("a"), "metadata": {"name": "a", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": True},
            {"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "w", "controller": True}]}})],
    "finalizers": [create("configmaps", {**config_map("a"), "metadata": {"name": "a", "finalizers": ["plain"]}}),
                   create("configmaps", {**config_map("b"), "metadata": {"name": "b", "finalizers": ["a b"]}})],
    "unknown fields": [
        create("inferenceservices", isvc(surprise=1), fieldValidation="Strict"),
        create("inferenceservices", isvc("b", surprise=1), fieldValidation="Warn"),
        create("inferenceservices", isvc("c", surprise=1), fieldValidation="Ignore"),
        create("inferenceservices", isvc("d", {"surprise": 1}), fieldValidation="Strict"),
        create("configmaps", {**config_map("a"), "surprise": 1}, fieldValidation="Strict"),
        create("deployments", deployment("a", surprise=1), fieldValidation="Strict"),
        create("deployments", deployment("b", surprise=1)),
        create("configmaps", config_map("a"), fieldValidation="Maybe")],
    "repeated fields": [
        create("inferenceservices", b'{"apiVersion":"wharfinger.io/v1alpha1","kind":"InferenceService","metadata":'
               b'{"name":"a"},"spec":{"model":"a","model":"b"}}', fieldValidation="Strict"),
        create("configmaps", b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"1","k":"2"}}',
               fieldValidation="Strict")],
    "builtin wrong types": [create("deployments", deployment("a", replicas="two")), create("configmaps", config_map("a") | {"data": []}),
                            create("pods", pod("a") | {"spec": {"containers": {}}})],
    "builtin missing": [create("pods", of("v1", "Pod", "a", spec={})), create("pods", of("v1", "Pod", "a")),
                        create("deployments", of("apps/v1", "Deployment", "a", spec={})),
                        create("pods", of("v1", "Pod", "a", spec={"containers": [{"name": "a"}]}))],
    "builtin rules": [
        create("deployments", deployment("a", replicas=-1)),
        create("deployments", deployment("a", selector={"matchLabels": {"other": "x"}})),
        create("pods", of("v1", "Pod", "a", spec={"containers": [_WEB, _WEB]})),
        create("pods", of("v1", "Pod", "a", spec={"containers": [{**_WEB, "volumeMounts": [{"name": "n", "mountPath": "/m"}]}]})),
        create("configmaps", {**config_map("a"), "data": {"bad key": "x"}}),
        create("jobs", of("batch/v1", "Job", "a", spec={"template": {"spec": {"containers": [_WEB]}}})),
        create("secrets", of("v1", "Secret", "a", type="kubernetes.io/tls", data={}))],
    "not an object": [create("configmaps", b"[]"), create("configmaps", b'"x"'), create("configmaps", b"{"), create("configmaps", b"")],
    # Updates.
    "immutable": [create("deployments", deployment("a")),
                  patch("deployments/a", {"spec": {"selector": {"matchLabels": {"x": "y"}}}}),
                  create("configmaps", {**config_map("a", k="v"), "immutable": True}), patch("configmaps/a", {"data": {"k": "w"}}),
                  create("secrets", _SECRET), patch("secrets/a", {"type": "other"}),
                  create("pods", _pod()), patch("pods/a", {"spec": {"containers": [{"name": "main", "image": "x", "command": ["y"]}]}})],
    "transition rules": [
        create("models", of("wharfinger.io/v1alpha1", "Model", "a", spec={"artifact": {
            "repository": "r/m", "digest": "sha256:" + "a" * 64}})),
        patch("models/a", {"spec": {"artifact": {"digest": "sha256:" + "b" * 64}}})],
    "metadata cannot change": [create("inferenceservices", isvc()), patch("inferenceservices/a", {"metadata": {"uid": "x"}}),
                               patch("inferenceservices/a", {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}}),
                               patch("inferenceservices/a", {"metadata": {"name": "b"}}),
                               patch("inferenceservices/a", {"metadata": {"generation": 0}})],
    "status of a deployment": [create("deployments", deployment("a")), patch("deployments/a/status", {"status": {"replicas": 2}}),
                               patch("deployments/a/status", {"status": {"replicas": -2}})],
    "status of an inference service": [
        create("inferenceservices", isvc()),
        patch("inferenceservices/a/status", {"metadata": {"labels": {"x": "y"}}, "status": {"replicas": 2}}),
        patch("inferenceservices/a/status", {"status": {"surprise": 2}}, fieldValidation="Strict"),
        patch("inferenceservices/a/status", {"status": {"replicas": "x"}})],
    # Patches.
    "merge patch": [create("configmaps", config_map("a", k="v", l="w")), patch("configmaps/a", {"data": {"k": None, "m": "x"}}),
                    patch("configmaps/a", []), patch("configmaps/a", b"{"), patch("configmaps/a", {"kind": "Secret"})],
    "json patch": [create("configmaps", config_map("a", k="v")),
                   patch("configmaps/a", [{"op": "replace", "path": "/data/k", "value": "w"}], JSON),
                   patch("configmaps/a", [{"op": "test", "path": "/data/k", "value": "no"}], JSON),
                   patch("configmaps/a", [{"op": "remove", "path": "/data/none"}], JSON), patch("configmaps/a", {}, JSON),
                   patch("configmaps/a", [{"op": "dance", "path": "/data"}], JSON)],
    "strategic patch": [create("deployments", deployment("a")),
                        patch("deployments/a", {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s"}]}}}}, STRATEGIC),
                        patch("deployments/a", {"spec": {"template": {"spec": {"containers": [{"name": "web", "$patch": "delete"}]}}}}, STRATEGIC)],
    "strategic patch of ours": [create("inferenceservices", isvc()), patch("inferenceservices/a", {"spec": {}}, STRATEGIC)],
    "patch of nothing": [patch("configmaps/none", {"data": {}}), patch("inferenceservices/none", {})],
    "patch of an unknown form": [create("configmaps", config_map("a")), patch("configmaps/a", {}, "application/json")],
    "patch that breaks": [create("inferenceservices", isvc()), patch("inferenceservices/a", {"spec": None}),
                          patch("inferenceservices/a", {"spec": {"replicas": 1.5}})],
    # Apply.
    "apply creates": [apply("configmaps/a", config_map("a", k="v"), "one"), apply("configmaps/a", config_map("a", k="v"), "two")],
    "apply conflicts": [apply("configmaps/a", config_map("a", k="v"), "one"), apply("configmaps/a", config_map("a", k="w"), "two"),
                        apply("configmaps/a", config_map("a", k="w"), "two", force="true"),
                        apply("configmaps/a", config_map("a", l="x"), "two")],
    "apply to a deployment": [apply("deployments/a", deployment("a"), "one"), patch("deployments/a", {"spec": {"replicas": 3}}),
                              apply("deployments/a", deployment("a"), "one"), apply("deployments/a", deployment("a", "example/web:2"), "one", force="true")],
    "apply to ours": [apply("inferenceservices/a", isvc(replicas=2), "one"), patch("inferenceservices/a", {"spec": {"replicas": 3}}),
                      apply("inferenceservices/a", isvc(replicas=2), "one"), apply("inferenceservices/a", isvc(), "one"),
                      apply("inferenceservices/a/status", of("wharfinger.io/v1alpha1", "InferenceService", "a", status={"replicas": 1}), "ctl")],
    "apply without a manager": [Step("PATCH", "configmaps/a", config_map("a"), APPLY)],
    "apply of what does not fit": [apply("inferenceservices/a", isvc(surprise=1), "one"), apply("inferenceservices/a", isvc(replicas="x"), "one"),
                                   apply("configmaps/a", config_map("b"), "one"), apply("configmaps/a", b"x: [", "one")],
    "force without apply": [create("configmaps", config_map("a")), patch("configmaps/a", {}, force="true")],
    "managers of updates": [create("configmaps", config_map("a", k="v"), fieldManager="one"),
                            patch("configmaps/a", {"data": {"l": "w"}}, fieldManager="two"),
                            patch("configmaps/a", {"data": {"k": "x"}}, fieldManager="two"), patch("configmaps/a", {"data": {"k": None}}, fieldManager="three")],
    # Scale.
    "scale of a deployment": [create("deployments", deployment("a")), get("deployments/a/scale"),
                              patch("deployments/a/scale", {"spec": {"replicas": 4}}), get("deployments/a"),
                              patch("deployments/a/scale", {"spec": {"replicas": -4}})],
    "scale of ours": [create("inferenceservices", isvc()), get("inferenceservices/a/scale"),
                      put("inferenceservices/a/scale", of("autoscaling/v1", "Scale", "a", spec={"replicas": 4})), get("inferenceservices/a")],
    "subresources that are not there": [create("configmaps", config_map("a")), get("configmaps/a/status"), get("models/a/scale")],
    # Reading.
    "selectors": [create("configmaps", {**config_map("a"), "metadata": {"name": "a", "labels": {"x": "1"}}}), create("configmaps", config_map("b")),
                  get("configmaps", labelSelector="x=1"), get("configmaps", labelSelector="!x", fieldSelector="metadata.name=b"),
                  get("configmaps", labelSelector="x in ("), get("configmaps", fieldSelector="data.k=v"), get("configmaps", fieldSelector="a")],
    "pages": [create("configmaps", config_map("a")), create("configmaps", config_map("b")), get("configmaps", limit=5),
              get("configmaps", continue_="nonsense"), get("configmaps", limit="x"), get("configmaps", resourceVersion="x"),
              get("configmaps", resourceVersionMatch="Exact")],
    "absent": [get("configmaps/none"), get("nonsense"), get("/apis/nonsense/v1/x"), get("/nonsense")],
    "methods": [Step("PUT", "configmaps", config_map("a")), Step("PATCH", "configmaps", {}, MERGE), Step("POST", "configmaps/a", config_map("a"))],
    # Deleting.
    "delete": [create("configmaps", config_map("a")), delete("configmaps/a"), delete("configmaps/a"), create("inferenceservices", isvc()),
               delete("inferenceservices/a", {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"})],
    "delete options": [create("configmaps", config_map("a")), delete("configmaps/a", {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Sometimes"}),
                       delete("configmaps/a", {"kind": "Pod", "apiVersion": "v1"}), delete("configmaps/a", propagationPolicy="Orphan")],
    "answers to deletes": [
        step for plural, body in (
            ("resourceclaims", _CLAIM), ("resourceclaimtemplates", _TEMPLATE), ("secrets", _SECRET), ("services", _SERVICE),
            ("jobs", _JOB), ("deployments", deployment("a")), ("leases", _LEASE), ("pods", _pod()),
            ("serviceaccounts", of("v1", "ServiceAccount", "a")), ("events", _EVENT))
        for step in (create(plural, body), delete(f"{plural}/a", propagationPolicy="Background"))],
    "cluster-wide devices": [
        step for plural, body in (
            ("deviceclasses", of("resource.k8s.io/v1", "DeviceClass", "contract", spec={"selectors": [
                {"cel": {"expression": "device.driver == 'd'"}}]})),
            ("resourceslices", of("resource.k8s.io/v1", "ResourceSlice", "contract", spec={
                "driver": "d.example.com", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "x"}}, "capacity": {"memory": {"value": "80Gi"}}}]})))
        for step in (create(plural, body), delete(f"{plural}/contract"))],
    "node": [create("nodes", of("v1", "Node", "contract")), patch("nodes/contract/status", {"status": {
        "capacity": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True"}]}}), delete("nodes/contract")],
    "deletecollection by a field that is none": [
        create("configmaps", config_map("a", k="v")), Step("DELETE", "configmaps", query={"fieldSelector": "data.k!=v"}), get("configmaps/a"),
        Step("DELETE", "configmaps", query={"labelSelector": "(("}), Step("DELETE", "configmaps", query={"dryRun": "All"}), get("configmaps/a")],
    "deletecollection": [create("inferenceservices", isvc("a")), create("inferenceservices", isvc("b")), Step("DELETE", "inferenceservices")],
}  # fmt: skip
