"""Admission: what a tenant's people may not write, wherever they write it."""

from __future__ import annotations

from typing import Any

import pytest

from wharfinger.controllers.admission import admit
from wharfinger.core.errors import Denied, Invalid

ANN = "spiffe://wharfinger.local/tenant/research/user/ann"
CONTROL = "spiffe://wharfinger.local/wharfinger/control"
GROUP = "wharfinger.io"
TENANT = {"metadata": {"name": "research"}, "spec": {"namespaces": ["research"], "admins": ["rosa"]}}


def lookup(plural: str, namespace: str, name: str) -> Any:
    """Find the one tenant and the one profile there are."""
    if plural == "tenants" and not name:
        return {"items": [TENANT]}
    return {"metadata": {"name": "small"}} if (plural, name) == ("gpuprofiles", "small") else None


def put(plural: str, group: str, new: Any, who: str = ANN, old: Any = None) -> None:
    """Create or update an object."""
    admit("UPDATE" if old else "CREATE", plural, group, new, old, who, lookup)


def object_of(spec: Any, namespace: str = "research", **meta: Any) -> dict[str, Any]:
    """Return an object."""
    return {"metadata": {"name": "x", "namespace": namespace, **meta}, "spec": spec}


@pytest.mark.parametrize("field", ["labels", "annotations"])
@pytest.mark.parametrize(
    ("plural", "group", "where"),
    [("pods", "", "metadata"), ("deployments", "apps", "template"), ("jobs", "batch", "template")],
)
def test_reserved_names_are_the_control_planes(plural: str, group: str, where: str, field: str) -> None:
    """On a pod, or on a template that becomes one, wharfinger.io/ labels and annotations are refused to people."""
    told = {field: {"wharfinger.io/inputs": "{}"}}
    if where == "metadata":
        new = object_of({"containers": []}, **told)
    else:
        new = object_of({"template": {"metadata": told, "spec": {"containers": []}}})
    with pytest.raises(Denied, match=r"wharfinger\.io/inputs is the control plane's"):
        put(plural, group, new)
    put(plural, group, new, CONTROL)
    put(plural, group, new, ANN, new)


def test_a_reserved_name_may_not_be_taken_off() -> None:
    """Removing the control plane's label is setting it."""
    old = object_of({"template": {"metadata": {"labels": {"wharfinger.io/service": "a"}}, "spec": {}}})
    with pytest.raises(Denied):
        put("deployments", "apps", object_of({"template": {"metadata": {}, "spec": {}}}), ANN, old)


@pytest.mark.parametrize(
    "name", ["WHARF_MODEL_DIGEST", "SPIFFE_ENDPOINT_SOCKET", "NVIDIA_VISIBLE_DEVICES", "LD_PRELOAD"]
)
def test_a_service_or_a_step_may_not_set_what_it_is_given(name: str) -> None:
    """Variables by which the platform tells a pod its model, inputs, identity and devices are not the user's."""
    env = [{"name": "RUNTIME_PACE", "value": "1"}, {"name": name, "value": "x"}]
    with pytest.raises(Invalid) as caught:
        put("inferenceservices", GROUP, object_of({"model": "m", "runtime": {"env": env}}))
    assert caught.value.fields[0].field == "spec.runtime.env[1].name"
    run = {"dataset": "d", "model": "m", "train": {"command": ["x"], "env": env}}
    with pytest.raises(Invalid):
        put("pipelineruns", GROUP, object_of(run))


def test_objects_live_in_a_tenants_namespace() -> None:
    """A namespace that is nobody's takes none of our kinds."""
    with pytest.raises(Denied, match="belongs to no tenant"):
        put("models", GROUP, object_of({"artifact": {"repository": "stray/x", "digest": ""}}, "stray"))


@pytest.mark.parametrize("plural", ["datasets", "models"])
def test_an_artifact_is_in_a_repository_of_its_namespace(plural: str) -> None:
    """Naming another tenant's repository is refused."""
    with pytest.raises(Invalid, match="below research/"):
        put(plural, GROUP, object_of({"artifact": {"repository": "support/models/x", "digest": ""}}))
    put(plural, GROUP, object_of({"artifact": {"repository": "research/models/x", "digest": ""}}))


def test_a_runs_code_is_in_a_repository_of_its_namespace() -> None:
    """Code of another tenant is not run."""
    run = {"dataset": "d", "model": "m", "train": {"command": ["x"]}, "code": {"repository": "support/code/x"}}
    with pytest.raises(Invalid, match="below research/"):
        put("pipelineruns", GROUP, object_of(run))


def test_a_namespace_is_one_tenants() -> None:
    """A second tenant may not name it, nor may any name the system's."""
    for namespace in ("research", "kube-system"):
        new = {"metadata": {"name": "other"}, "spec": {"namespaces": [namespace]}}
        with pytest.raises(Invalid):
            put("tenants", GROUP, new, CONTROL)


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "h", "hostPath": {"path": "/"}}], "containers": []},
        {"hostPID": True, "containers": []},
        {"containers": [{"name": "c", "securityContext": {"privileged": True}}]},
        {"containers": [{"name": "c", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}]},
    ],
)
def test_a_pod_may_not_reach_for_the_host(spec: Any) -> None:
    """Host paths, host namespaces, privilege and ways around claims are refused, also in templates."""
    with pytest.raises(Invalid):
        put("pods", "", object_of(spec))
    with pytest.raises(Invalid):
        put("deployments", "apps", object_of({"template": {"spec": spec}}))
    put("pods", "", object_of(spec), CONTROL)


def test_a_profile_must_exist_and_replicas_keep_their_bound() -> None:
    """A service of an unknown profile, or of more replicas than it may scale to, is refused."""
    with pytest.raises(Invalid, match="no GPUProfile"):
        put("inferenceservices", GROUP, object_of({"model": "m", "gpuProfile": "huge"}))
    with pytest.raises(Invalid, match="maxReplicas"):
        put("inferenceservices", GROUP, object_of({"model": "m", "replicas": 9, "scaling": {"maxReplicas": 2}}))
    put("inferenceservices", GROUP, object_of({"model": "m", "gpuProfile": "small", "replicas": 2}))


_ENV = {"containers": [{"name": "a", "env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}
_VOLUME = {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}


@pytest.mark.parametrize(
    ("plural", "group", "spec"),
    [
        ("pods", "", _ENV),
        ("pods", "", {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
        ("pods", "", {"initContainers": [{"name": "a", "envFrom": [{"secretRef": {"name": "s"}}]}]}),
        ("jobs", "batch", {"template": {"spec": _VOLUME}}),
        ("deployments", "apps", {"replicas": 1, "template": {"spec": _ENV}}),
        ("inferenceservices", GROUP, {"runtime": {"type": "External", "external": {"url": "u", "secretName": "s"}}}),
    ],
)
def test_who_may_not_read_a_secret_starts_nothing_that_does(plural: str, group: str, spec: Any) -> None:
    """A pod's log or an endpoint would tell it to them; admins may, and what they handed out stays as it is."""
    new = object_of(spec)
    with pytest.raises(Denied, match="only admins of research may hand a Secret"):
        put(plural, group, new)
    put(plural, group, new, "spiffe://wharfinger.local/tenant/research/user/rosa")
    put(plural, group, new, CONTROL)
    put(plural, group, object_of({**spec, "replicas": 3} if plural != "pods" else spec), ANN, new)
    with pytest.raises(Denied):
        put(plural, group, new, ANN, object_of({}))
