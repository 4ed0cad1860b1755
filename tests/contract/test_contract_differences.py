"""The same requests to both servers: status, reasons, fields and objects are the same."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from kube_apiserver import neighbour
from scripts import SCRIPTS, Step
from servers import Adapter, Api
from stories import story

pytestmark = pytest.mark.neighbours
_VOLATILE = {"uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "time", "continue"}
_ALWAYS_DIFFERENT = {"batch.kubernetes.io/controller-uid", "controller-uid", "taints"}
"""A job's labels hold its UID; an admission plugin of a cluster taints new nodes."""


def plain(value: Any, namespace: str) -> Any:
    """Return an object without what no two servers have in common, and without what says nothing.

    Go's types write some nulls and empty texts that JSON could leave out; a job's labels hold its UID.
    """
    if isinstance(value, dict):
        if isinstance(value.get("managedFields"), list):
            # Entries are sorted by their times, in seconds, which two servers do not share.
            value = {**value, "managedFields": sorted(value["managedFields"], key=_entry)}
        return {
            name: "*" if name in _VOLATILE and isinstance(child, str) else plain(child, namespace)
            for name, child in value.items()
            if child is not None and child != "" and name not in _ALWAYS_DIFFERENT
        }
    if isinstance(value, list):
        return [plain(child, namespace) for child in value]
    return value.replace(namespace, "NAMESPACE") if isinstance(value, str) else value


def _entry(entry: Any) -> tuple[str, ...]:
    return tuple(str(entry.get(name, "")) for name in ("manager", "operation", "apiVersion", "subresource"))


def told(value: Any, namespace: str) -> Any:
    """Return what of an answer both servers must agree on: an object whole, of a failure all but the words."""
    value = plain(value, namespace)
    if value.get("kind") != "Status" or value.get("status") != "Failure":
        for item in value.get("items") or ():
            # Items of built-in lists name no kind in kube-apiserver's answers; ours do.
            item.pop("kind", None)
            item.pop("apiVersion", None)
        return value
    details = value.get("details") or {}
    causes = {(cause.get("field", ""), cause.get("reason", "")) for cause in details.get("causes") or []}
    named = {name: details.get(name) for name in ("name", "kind", "group")}
    return {"code": value["code"], "reason": value.get("reason"), "details": named, "causes": sorted(causes)}


def agree(ours: Any, theirs: Any) -> bool:
    """Say whether two answers are the same.

    Of several things wrong with a built-in object we may name fewer; what kube-apiserver cannot convert, which it calls a
    fault of its own, is a bad request here.
    """
    if ours == theirs or (ours["code"], theirs["code"]) == (400, 500):
        return True
    mine, real = (side.get("value", {}).get("causes") for side in (ours, theirs))
    if not mine or not real or not set(mine) < set(real):
        return False
    return bool({**ours["value"], "causes": 0} == {**theirs["value"], "causes": 0})


def play(api: Api, step: Step) -> tuple[Any, Any]:
    """Send one request; return what must agree, and the whole answer."""
    if step.path.startswith("/"):
        path = step.path
    else:
        parts = step.path.split("/")
        path = f"/api/v1/namespaces/{api.namespace}/nonsense" if parts[0] == "nonsense" else api.path(*parts)
    body = step.body
    if not isinstance(body, bytes | None):
        body = json.loads(json.dumps(body).replace("NAMESPACE", api.namespace))
    reply = api.call(step.method, path, body, content_type=step.media, **step.query)
    try:
        value = reply.value
    except ValueError:
        return {"code": reply.status}, reply.text
    found = told(value, api.namespace)
    # Kubernetes also warns of what is legal and odd (two ports alike); only what was not understood must be told.
    warnings = sorted(text for text in reply.warnings if "unknown field" in text or "duplicate field" in text)
    return {"code": reply.status, "warnings": warnings, "value": found}, value


def compare(local: Adapter, kubernetes: Adapter, name: str, steps: list[Step]) -> None:
    """Play the steps on both, each in a fresh namespace; fail at the first that ends differently."""
    pair = []
    for server in (local, kubernetes):
        api = Api(server, "differ-" + re.sub(r"\W", "-", name))
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
        assert api.call("POST", "/api/v1/namespaces", namespace).status == 201
        pair.append(api)
    ours, theirs = pair
    for number, step in enumerate(steps):
        got, whole = play(ours, step)
        want, real = play(theirs, step)
        assert agree(got, want), f"step {number}, {step.method} {step.path}: {whole} but kube-apiserver: {real}"
    for api in pair:
        api.close()


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_servers_answer_alike(name: str, local_server: Adapter, kubernetes_server: Adapter) -> None:
    """Each request of the script has the same outcome on both."""
    compare(local_server, kubernetes_server, name, SCRIPTS[name])


@pytest.mark.parametrize("seed", range(100))
def test_stories_made_by_chance_end_alike(seed: int, local_server: Adapter, kubernetes_server: Adapter) -> None:
    """Creations, applies, patches and scalings by several managers, some of them wrong: the same on both."""
    compare(local_server, kubernetes_server, f"story-{seed}", story(seed))


def test_the_neighbour_is_there() -> None:
    """Where kube-apiserver is not built the comparison says so."""
    binary = neighbour("kube-apiserver")
    if binary is None:
        pytest.skip("kube-apiserver is not built: run make neighbours")
    assert os.access(binary, os.X_OK)
