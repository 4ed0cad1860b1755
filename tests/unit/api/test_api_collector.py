"""What goes because something else went: owners, cycles of owners, foreground and orphan, namespaces."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from local_api import LocalApi

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.cluster.client import Client
from wharfinger.core.errors import Denied, NotFound

MAPS, SPACES, PODS = (RESOURCES[plural] for plural in ("configmaps", "namespaces", "pods"))
_numbers = count(1)


class Space:
    """A namespace of one test's own."""

    def __init__(self, api: LocalApi) -> None:
        self.api, self.client, self.name = api, api.client(), f"gc-{next(_numbers)}"
        self.client.create(SPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})

    def make(self, name: str, *owners: Any, block: bool = False, finalizers: tuple[str, ...] = ()) -> Any:
        """Create a ConfigMap that belongs to `owners`."""
        references = [reference(owner, block=block) for owner in owners]
        metadata = {"name": name, "namespace": self.name, "ownerReferences": references, "finalizers": list(finalizers)}
        return self.client.create(MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    def own(self, name: str, *owners: Any, block: bool = False) -> Any:
        """Give an object these owners."""
        patch = {"metadata": {"ownerReferences": [reference(owner, block=block) for owner in owners]}}
        return self.client.patch(MAPS, self.name, name, patch)

    def delete(self, name: str, propagation: str = "Background") -> None:
        """Delete a ConfigMap and let everything follow."""
        self.client.delete(MAPS, self.name, name, propagation=propagation)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is left to follow up."""
        self.api.run(self.api.server.collector.settle)

    def left(self) -> dict[str, Any]:
        """Return what is there, by name."""
        return {item["metadata"]["name"]: item for item in self.client.list(MAPS, self.name)["items"]}


def reference(owner: Any, *, block: bool) -> Any:
    """Return a reference to an owner."""
    meta = owner["metadata"]
    found = {"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"]}
    return {**found, "blockOwnerDeletion": True} if block else found


@pytest.fixture
def space(api: LocalApi) -> Space:
    """A fresh namespace."""
    return Space(api)


def test_what_is_owned_goes_with_its_owner(space: Space) -> None:
    """Children and their children go; what belongs to nobody stays."""
    root = space.make("root")
    child = space.make("child", root)
    space.make("grandchild", child)
    space.make("other")
    space.delete("root")
    assert set(space.left()) == {"other"}


def test_who_has_another_owner_stays_without_the_one_that_went(space: Space) -> None:
    """The reference to the owner that is gone is dropped."""
    one, two = space.make("one"), space.make("two")
    space.make("child", one, two)
    space.delete("one")
    assert [each["name"] for each in space.left()["child"]["metadata"]["ownerReferences"]] == ["two"]
    space.delete("two")
    assert space.left() == {}


def test_who_names_an_owner_that_never_was_goes(space: Space) -> None:
    """A reference to a UID that nobody has keeps nothing alive; nor does one into another namespace."""
    space.make("lost", {"metadata": {"name": "ghost", "uid": "00000000-0000-4000-8000-00000000dead"}})
    elsewhere = Space(space.api).make("elsewhere")
    space.make("abroad", elsewhere)
    space.settle()
    assert space.left() == {}


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
def test_a_cycle_of_owners_ends(space: Space, propagation: str) -> None:
    """A owns B, B owns C, C owns A: deleting one ends, whatever the policy; background and foreground take all."""
    a = space.make("a")
    b = space.make("b", a, block=True)
    c = space.make("c", b, block=True)
    space.own("a", c, block=True)
    space.delete("a", propagation)
    assert set(space.left()) == ({"b", "c"} if propagation == "Orphan" else set())


def test_an_object_that_owns_itself_can_be_deleted(space: Space) -> None:
    """The smallest cycle."""
    me = space.make("me")
    space.own("me", me, block=True)
    space.settle()
    assert set(space.left()) == {"me"}
    space.delete("me", "Foreground")
    assert space.left() == {}


def test_a_foreground_deletion_waits_for_who_blocks_it(space: Space) -> None:
    """The owner is there, marked, until the blocking child has let go."""
    root = space.make("root")
    space.make("slow", root, block=True, finalizers=("example.com/hold",))
    space.delete("root", "Foreground")
    left = space.left()
    assert left["root"]["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert left["slow"]["metadata"]["deletionTimestamp"]
    space.client.patch(MAPS, space.name, "slow", {"metadata": {"finalizers": None}})
    space.settle()
    assert space.left() == {}


@pytest.mark.parametrize("block", [None, False], ids=["disowned", "unblocked"])
def test_a_foreground_deletion_ends_when_nobody_blocks_it_any_more(space: Space, block: bool | None) -> None:
    """A child that leaves its owner, or ceases to block it, lets it go."""
    root = space.make("root")
    space.make("slow", root, block=True, finalizers=("example.com/hold",))
    space.delete("root", "Foreground")
    assert "root" in space.left()
    references = None if block is None else [{**reference(root, block=True), "blockOwnerDeletion": False}]
    space.client.patch(MAPS, space.name, "slow", {"metadata": {"ownerReferences": references}})
    space.settle()
    assert set(space.left()) == {"slow"}


def test_orphans_are_let_go_before_their_owner(space: Space) -> None:
    """They stay, and name no owner any more."""
    root = space.make("root")
    space.make("child", root)
    space.delete("root", "Orphan")
    assert set(space.left()) == {"child"} and "ownerReferences" not in space.left()["child"]["metadata"]


def test_many_dependents_go(space: Space) -> None:
    """More than are looked at together."""
    root = space.make("root")
    for number in range(150):
        space.make(f"child-{number}", root)
    space.delete("root")
    assert space.left() == {}


def test_a_namespace_takes_everything_along(space: Space) -> None:
    """All kinds in it are deleted, then it goes; meanwhile nothing new is taken."""
    space.make("a")
    space.client.create(RESOURCES["secrets"], {"apiVersion": "v1", "kind": "Secret",
                                               "metadata": {"name": "s", "namespace": space.name}})  # fmt: skip
    held = space.make("held", finalizers=("example.com/hold",))
    space.client.delete(SPACES, "", space.name)
    space.settle()
    assert set(space.left()) == {"held"} and held["metadata"]["uid"]
    status = space.client.get(SPACES, "", space.name)["status"]
    assert (
        status["phase"] == "Terminating" and "configmaps has 1 resource instances" in status["conditions"][0]["message"]
    )
    with pytest.raises(Denied, match="being terminated"):
        space.make("late")
    space.client.patch(MAPS, space.name, "held", {"metadata": {"finalizers": None}})
    space.settle()
    with pytest.raises(NotFound):
        space.client.get(SPACES, "", space.name)


def test_a_namespace_waits_for_pods_that_end(space: Space) -> None:
    """A pod on a node is asked to end; the namespace goes when the node says that it has."""
    spec = {"nodeName": "here", "containers": [{"name": "main", "image": "example/main"}]}
    space.client.create(
        PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": space.name}, "spec": spec}
    )
    space.client.delete(SPACES, "", space.name)
    space.settle()
    assert space.client.get(PODS, space.name, "p")["metadata"]["deletionTimestamp"]
    space.client.delete(PODS, space.name, "p", grace=0)
    space.settle()
    with pytest.raises(NotFound):
        space.client.get(SPACES, "", space.name)


def test_what_a_dead_server_left_unfinished_is_finished(tmp_path: Path) -> None:
    """Marks and orphans are found in the database at the start, not remembered in memory."""
    path = tmp_path / "objects.db"
    first = LocalApi(path)
    first.start()
    space = Space(first)
    root = space.make("root")
    space.make("child", root, finalizers=("example.com/hold",))
    space.client.delete(MAPS, space.name, "root", propagation="Background")
    space.settle()
    space.client.delete(SPACES, "", space.name)
    first.stop()
    second = LocalApi(path, authority=first.authority).start()
    client = second.client()
    client.patch(MAPS, space.name, "child", {"metadata": {"finalizers": None}})
    second.run(second.server.collector.settle)
    with pytest.raises(NotFound):
        client.get(SPACES, "", space.name)
    second.stop()


def test_twenty_deleters_of_one_tree(space: Space) -> None:
    """Concurrent deletions of everything leave nothing, and nobody fails by anything but absence."""
    root = space.make("root")
    names = ["root", *(f"n{number}" for number in range(20))]
    for name in names[1:]:
        space.make(name, root, block=True)
    failures: list[Exception] = []

    def delete(name: str, client: Client) -> None:
        try:
            client.delete(MAPS, space.name, name, propagation="Foreground")
        except NotFound:
            pass
        except Exception as error:  # noqa: BLE001  whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=delete, args=(name, space.api.client())) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    space.settle()
    assert failures == [] and space.left() == {}
