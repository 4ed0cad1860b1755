"""The Node objects of a machine: written when they differ, kept when they do not, gone with their fleet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from world import World

from wharfinger.bootstrap.fleet import FLEET_LABEL
from wharfinger.bootstrap.node import Berths
from wharfinger.gpu.devices import DRIVER
from wharfinger.kinds.condition import is_true
from wharfinger.local.node.nodestatus import Machine

MACHINE = Machine("namespaces", "", "", "amd64", "6.1", "boot", "0.1.0")


def node(name: str) -> dict[str, Any]:
    """Return what a fleet says of a node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {FLEET_LABEL: "declared"}},
        "spec": {},
        "status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}},
    }


def slice_of(name: str) -> dict[str, Any]:
    """Return a ResourceSlice of a node."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{name}-gpus"},
        "spec": {"driver": DRIVER, "nodeName": name, "pool": {"name": name}},
    }


@dataclass
class Declared:
    """As much of a fleet as is told: nodes, and a slice each that is there or is to be made."""

    names: tuple[str, ...]

    @property
    def nodes(self) -> tuple[dict[str, Any], ...]:
        """Return the nodes."""
        return tuple(map(node, self.names))

    def slices(self, name: str, published: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the slice unless it is published."""
        there = {s["metadata"]["name"] for s in published}
        wanted = slice_of(name)
        return ([] if wanted["metadata"]["name"] in there else [wanted]), []


def berths(world: World, *names: str) -> Berths:
    """Return the berths of a fleet with these nodes."""
    return Berths(Declared(names), MACHINE, world, world, world.clock)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    """Return a world."""
    return World()


def test_what_there_is_is_told_once(world: World) -> None:
    """Nodes and slices are written when they are missing or differ; telling it again writes nothing."""
    mine = berths(world, "h100-a", "h100-b")
    mine.tell()
    assert [n["metadata"]["name"] for n in world.list("nodes")] == ["h100-a", "h100-b"]
    assert len(world.list("resourceslices")) == 2
    assert is_true(world.must("nodes", "", "h100-a")["status"]["conditions"], "Ready")
    before = len(world.writes)
    mine.tell()
    assert len(world.writes) == before


def test_a_node_that_was_changed_by_others_is_set_right(world: World) -> None:
    """A label or a condition that somebody else wrote over is written again; others' labels stay."""
    mine = berths(world, "h100-a")
    mine.tell()
    world.patch("nodes", "", "h100-a", {"metadata": {"labels": {"wharfinger.io/isolation": "x", "team": "blue"}}})
    world.status("nodes", "", "h100-a", {"capacity": {"cpu": "999"}})
    mine.tell()
    held = world.must("nodes", "", "h100-a")
    assert held["metadata"]["labels"]["wharfinger.io/isolation"] == "namespaces"
    assert held["metadata"]["labels"]["team"] == "blue"
    assert held["status"]["capacity"] == {"cpu": "4"}


def test_nodes_that_stop_are_not_ready(world: World) -> None:
    """A node that stops says that no pod runs there, and is ready again when it comes back."""
    mine = berths(world, "h100-a")
    mine.tell()
    mine.tell(stopping="the platform was stopped")
    assert not is_true(world.must("nodes", "", "h100-a")["status"]["conditions"], "Ready")
    mine.tell()
    assert is_true(world.must("nodes", "", "h100-a")["status"]["conditions"], "Ready")


def test_another_fleet_takes_the_place_of_the_one_before(world: World) -> None:
    """Nodes that the fleet has no more go, with their slices and their pods; nodes that are not ours stay."""
    berths(world, "h100-a", "a100-a").tell()
    world.put({**node("theirs"), "metadata": {"name": "theirs"}})
    spec = {"containers": [{"name": "c"}]}
    for name, where in (("stays", "h100-a"), ("goes", "a100-a"), ("waits", "")):
        told = {"nodeName": where, **spec} if where else spec
        world.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"}, "spec": told})
    berths(world, "h100-a").retire()
    assert [n["metadata"]["name"] for n in world.list("nodes")] == ["h100-a", "theirs"]
    assert [s["metadata"]["name"] for s in world.list("resourceslices")] == ["h100-a-gpus"]
    assert [p["metadata"]["name"] for p in world.list("pods")] == ["stays", "waits"]
