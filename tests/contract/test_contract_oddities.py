"""Odd requests of every sort to the local server: whatever is asked, the answer is never a defect of ours."""

from __future__ import annotations

import json
import random

import pytest
from scripts import Step
from servers import Adapter, Api
from stories import story

_PATHS = ("configmaps/a", "pods/a/log", "pods/a/status", "deployments/a/scale", "models", "services/x", "nodes/n/status",
          "resourceclaims/a", "events/e", "leases/l", "secrets/s", "namespaces/n/finalize", "jobs/j", "grants/g/status",
          "pods/a/binding", "tenants/t")  # fmt: skip
_BODIES = (None, {}, [], "x", 1, {"metadata": None}, {"metadata": []}, {"spec": []}, {"status": 7}, {"metadata": {"name": 3}},
           {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{}]}},
           {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "ownerReferences": [{}]}},
           {"kind": "Scale", "spec": {"replicas": "x"}}, {"target": {"name": {}}}, {"spec": {"finalizers": [1]}},
           [{"op": "add", "path": "/metadata/managedFields", "value": 1}], [{"op": "add", "path": "", "value": None}],
           {"metadata": {"managedFields": [{"operation": "Apply", "fieldsV1": {"x": 1}}]}},
           {"$patch": "delete"}, {"spec": {"$retainKeys": 1}}, {"metadata": {"labels": {"$patch": "replace"}}})  # fmt: skip
_MEDIA = ("application/json", "application/merge-patch+json", "application/json-patch+json", "application/yaml",
          "application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/vnd.kubernetes.protobuf")  # fmt: skip
_QUERY = {"fieldManager": ("", "m", "x" * 200), "dryRun": ("All", "x"), "fieldValidation": ("Strict",), "limit": ("1", "-1"),
          "watch": ("1",), "timeoutSeconds": ("1",), "resourceVersion": ("0", "1", "x"), "labelSelector": ("a=b", "((", "!a"),
          "fieldSelector": ("metadata.name=a", "x=y"), "force": ("true",), "propagationPolicy": ("Orphan", "x"),
          "continue": ("x",), "gracePeriodSeconds": ("0", "-1", "x"), "includeObject": ("None", "x")}  # fmt: skip


def step(draw: random.Random) -> Step:
    """Return a request that makes little sense."""
    query = {name: draw.choice(values) for name, values in _QUERY.items() if draw.random() < 0.12}
    if "watch" in query:
        query |= {"timeoutSeconds": "1", "resourceVersion": "x"}  # or the answer would take a second
    method = draw.choice(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))
    return Step(method, draw.choice(_PATHS), draw.choice(_BODIES), draw.choice(_MEDIA), query)


def send(api: Api, asked: Step) -> None:
    """Send a request; the answer may be any but a defect."""
    path = api.path(*asked.path.split("/"), namespace=api.namespace)
    body = None if asked.method in {"GET", "HEAD"} or asked.body is None else json.dumps(asked.body).encode()
    reply = api.call(asked.method, path, body, content_type=asked.media, **{f"{k}_": v for k, v in asked.query.items()})
    assert b"the server failed" not in reply.text, (asked, reply.text)


@pytest.fixture
def odd(local_server: Adapter, request: pytest.FixtureRequest) -> Api:
    """The local server, with a namespace of this test's own."""
    api = Api(local_server, "odd-" + "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-").lower())
    api.call(
        "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
    )
    return api


@pytest.mark.parametrize("seed", range(30))
def test_stories_full_of_mistakes_meet_no_defect(odd: Api, seed: int) -> None:
    """Two of three fields are not what they should be."""
    for asked in story(seed, oddness=0.65, length=20):
        send(odd, asked)


@pytest.mark.parametrize("seed", range(10))
def test_requests_that_make_little_sense_meet_no_defect(odd: Api, seed: int) -> None:
    """Any method, path, body, media type and parameters."""
    draw = random.Random(seed)
    for _ in range(60):
        send(odd, step(draw))
