"""Owners of any shape, cycles among them: after any deletions what is left is exactly what has a reason to stay."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_api import LocalApi

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.core.errors import NotFound

MAPS = RESOURCES["configmaps"]
_numbers = count(1)
_NAMES = [f"n{number}" for number in range(6)]
EDGES = st.lists(
    st.tuples(st.sampled_from(_NAMES), st.sampled_from(_NAMES), st.booleans()), max_size=12, unique_by=lambda e: e[:2]
)
DELETIONS = st.lists(
    st.tuples(st.sampled_from(_NAMES), st.sampled_from(["Background", "Foreground", "Orphan"])), min_size=1, max_size=4
)


def expected(edges: list[tuple[str, str, bool]], deletions: list[tuple[str, str]]) -> set[str]:
    """Return who stays, by the rules: an orphaning owner lets go, any other takes along who has no owner but such."""
    alive, owners = set(_NAMES), {name: {owner for child, owner, _ in edges if child == name} for name in _NAMES}
    for name, policy in deletions:
        if name not in alive:
            continue
        if policy == "Orphan":
            for owned in owners.values():
                owned.discard(name)
        doomed = [name]
        while doomed:
            gone = doomed.pop()
            if gone not in alive:
                continue
            alive.discard(gone)
            for child in sorted(alive):
                if gone in owners[child]:
                    owners[child].discard(gone)
                    # In the foreground an owner that goes is none to stay for, even while it is there.
                    if not owners[child]:
                        doomed.append(child)
    return alive


@given(EDGES, DELETIONS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_left_has_a_reason_to_stay(
    api: LocalApi, edges: list[tuple[str, str, bool]], deletions: list[tuple[str, str]]
) -> None:
    """Any graph, any order of deletions, any policies: the rules decide, and nothing hangs."""
    client, namespace = api.client(), f"owners-{next(_numbers)}"
    client.create(RESOURCES["namespaces"], {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    made: dict[str, Any] = {}
    for name in _NAMES:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}
        made[name] = client.create(MAPS, body)["metadata"]
    for name in _NAMES:
        owned = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "name": owner,
                "uid": made[owner]["uid"],
                "blockOwnerDeletion": block,
            }
            for child, owner, block in edges
            if child == name
        ]
        if owned:
            client.patch(MAPS, namespace, name, {"metadata": {"ownerReferences": owned}})
    for name, policy in deletions:
        try:
            client.delete(MAPS, namespace, name, propagation=policy)
        except NotFound:
            pass
        api.run(api.server.collector.settle)
    left = {item["metadata"]["name"]: item["metadata"] for item in client.list(MAPS, namespace)["items"]}
    client.close()
    assert not [meta for meta in left.values() if "deletionTimestamp" in meta], "an object hangs"
    assert set(left) == expected(edges, deletions)
