"""What a schema makes of hostile objects: the local server and kube-apiserver say the same, word for word."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from builtin_mutants import builtin_mutants
from mutants import SPECS, mutants, whole
from servers import Adapter, Api

from wharfinger.kinds.registry import KINDS

SEED, COUNT = 20261125, 300
PLURAL = {kind.name: kind.plural for kind in KINDS}
LENIENT = "invalid data, expected int, got float64"
"""Where upstream's rules refuse a whole number written as a fraction, ours read it."""


@pytest.fixture
def both(local_server: Adapter, kubernetes_server: Adapter) -> Iterator[tuple[Api, Api]]:
    """Both servers, each with the same namespace."""
    made = (Api(local_server, "schemas"), Api(kubernetes_server, "schemas"))
    for api in made:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
        assert api.call("POST", "/api/v1/namespaces", namespace).status in {201, 409}
    yield made
    for api in made:
        api.close()


def told(api: Api, method: str, name: str, value: dict[str, Any]) -> tuple[Any, ...]:
    """Send an object without storing it; return what the server says of it or what it makes of it."""
    called = value["metadata"].get("name", "") if method == "PUT" else ""
    query = {"dryRun": "All", "fieldValidation": "Warn", "fieldManager": "contract"}
    reply = api.call(method, api.path(PLURAL[name], called), copy.deepcopy(value), **query)
    answer = reply.value
    if reply.status in {200, 201}:
        metadata = answer.pop("metadata")
        kept = {key: metadata.get(key) for key in ("name", "labels", "annotations", "finalizers", "ownerReferences")}
        return reply.status, answer, kept, sorted(reply.warnings)
    details = answer.get("details") or {}
    # Upstream judges metadata thrice on an update, and says so thrice.
    causes = sorted({(each["reason"], each["field"], each["message"]) for each in details.get("causes", ())})
    return reply.status, causes, answer["message"] if reply.status != 422 else "", sorted(reply.warnings)


def differing(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> bool:
    """Tell whether the answers differ where they should not."""
    return ours != theirs and LENIENT not in json.dumps(theirs)


@pytest.mark.neighbours
def test_both_servers_say_the_same_of_new_objects(both: tuple[Api, Api]) -> None:
    """Of 300 objects of all our kinds, most of them wrong somewhere: status, causes, messages, defaults, warnings."""
    local, kubernetes = both
    different = []
    for number, (name, value) in enumerate(mutants(SEED, COUNT)):
        ours, theirs = told(local, "POST", name, value), told(kubernetes, "POST", name, value)
        if differing(ours, theirs):
            different.append((number, json.dumps(value)[:300], ours, theirs))
    assert not different, f"{len(different)} of {COUNT}: {different[0]}"


@pytest.mark.neighbours
def test_both_servers_say_the_same_of_changes(both: tuple[Api, Api]) -> None:
    """Of 300 changes of stored objects: what may not change, what was not set before, what is as it was."""
    versions: dict[tuple[str, str], str] = {}
    for api in both:
        for name in SPECS:
            stored = api.made(PLURAL[name], whole(name))
            versions[api.server.name, name] = stored["metadata"]["resourceVersion"]
    different = []
    for number, (name, value) in enumerate(mutants(SEED + 1, COUNT)):
        answers = []
        for api in both:
            value["metadata"]["resourceVersion"] = versions[api.server.name, name]
            answers.append(told(api, "PUT", name, value))
        if differing(*answers):
            different.append((number, json.dumps(value)[:300], *answers))
    assert not different, f"{len(different)} of {COUNT}: {different[0]}"


def is_known(value: Any, theirs: tuple[Any, ...]) -> bool:
    """Tell of a difference whether it is one that is left so.

    Null among the items of a list is an empty item to Go, an empty list is no bytes, a blank after a quantity is none.
    A selector in CEL is compiled when it is asked, not when it is stored.
    """
    text = json.dumps(value)
    return "compilation failed" in json.dumps(theirs) or any(
        part in text for part in ("[null", ", null]", '"c": []', '"a": []', 'Gi "')
    )


@pytest.mark.neighbours
def test_both_servers_take_and_refuse_the_same_objects_of_kubernetes_own_kinds(both: tuple[Api, Api]) -> None:
    """Of 400 pods, deployments, services and others, most wrong somewhere: whether they are taken."""
    local, kubernetes = both
    different = []
    for number, (plural, value) in enumerate(builtin_mutants(SEED, 400)):
        replies = [
            api.call("POST", api.path(plural), copy.deepcopy(value), dryRun="All", fieldManager="contract")
            for api in (local, kubernetes)
        ]
        ours, theirs = ((reply.status, reply.value.get("message", "")[:300]) for reply in replies)
        if (ours[0] == 201) != (theirs[0] == 201) and not is_known(value, theirs):
            different.append((number, plural, json.dumps(value)[:600], ours, theirs))
    assert not different, f"{len(different)} of 400: {different}"
