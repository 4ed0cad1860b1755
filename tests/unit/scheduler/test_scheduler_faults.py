"""The scheduler when writes fail, or are done and their answer is lost, at every place where it writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from quay import SMALL, claim, classes, devices_of, node, pod, slices, tenant
from world import World

from wharfinger.core.clock import SECOND
from wharfinger.core.errors import Conflict, Unavailable, WharfingerError
from wharfinger.core.systemclock import SystemClock
from wharfinger.kinds.condition import find
from wharfinger.local.scheduler.scheduler import Scheduler

Object = Mapping[str, Any]
ONE_CLASS = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass"}


class Shore:
    """The world as informers and writer; the `fails`-th write fails, before it is done or after."""

    def __init__(
        self, world: World, fails: int = 0, *, after: bool = False, error: type[WharfingerError] = Unavailable
    ):
        self.world = world
        self.writes = 0
        self._fails = fails
        self._after = after
        self._error = error

    def __getitem__(self, plural: str) -> Shore:
        return self

    def on_change(self, handler: Callable[[str, Object], None]) -> None:
        """Tell nothing: the tests say when to look."""

    def synced(self, timeout: float | None = None) -> bool:
        """Say yes."""
        return True

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return an object."""
        return self.world.get(plural, namespace, name)

    def list(self, plural: str, namespace: str = "") -> Sequence[Object]:
        """Return objects."""
        return self.world.list(plural, namespace)

    def status(self, plural: str, namespace: str, name: str, status: Object, *, version: str = "") -> Object:
        """Write a status, or fail."""
        return self._write(lambda: self.world.status(plural, namespace, name, status, version=version))

    def bind(self, namespace: str, name: str, uid: str, where: str) -> None:
        """Bind, or fail."""

        def bound() -> Object:
            held = self.world.must("pods", namespace, name)
            if held["spec"].get("nodeName") or held["metadata"]["uid"] != uid:
                raise Conflict(f"pod {name} is bound")
            held["spec"]["nodeName"] = where
            return self.world.put(held)

        self._write(bound)

    def event(self, about: Object, reason: str, message: str, *, warning: bool) -> None:
        """Remember an event."""
        self.world.event(about, reason, message, warning=warning)

    def _write(self, write: Callable[[], Object]) -> Object:
        self.writes += 1
        failing = self.writes == self._fails
        if failing and not self._after:
            raise self._error("the line broke")
        made = write()
        if failing:
            raise self._error("the line broke")
        return made


def quay(folder: Path) -> World:
    """Return a small fleet with three pods that ask for three, one and two of its four GPUs."""
    made = World(node("n1"), node("n2"), *slices(folder, SMALL.encode()), tenant("blue"))
    for each in classes().values():
        made.put({**ONE_CLASS, **each})
    for name, count in (("a", 2), ("b", 1), ("c", 1), ("d", 2)):
        made.put(claim("blue", name, "whole", count))
    made.put(pod("blue", "p", "a", "b"))
    made.put(pod("blue", "q", "c"))
    made.put(pod("blue", "r", "d"))
    return made


def look(scheduler: Scheduler) -> None:
    """Look at every pod, as the scheduler's thread does; what fails is looked at again later."""
    for name in ("p", "q", "r"):
        try:
            scheduler.schedule(("blue", name))
        except WharfingerError:
            continue


ASKED = {"p": {"a": 2, "b": 1}, "q": {"c": 1}, "r": {"d": 2}}


def check(world: World) -> None:
    """Fail unless each pod has all that it asked for or waits with nothing, and as many run as can: q, and p or r."""
    claims = {c["metadata"]["name"]: c for c in world.list("resourceclaims")}
    devices = devices_of(list(claims.values()))
    assert len(devices) == len(set(devices))
    placed = ""
    for name, asked in ASKED.items():
        held = world.must("pods", "blue", name)
        told = find((held.get("status") or {}).get("conditions"), "PodScheduled") or {}
        here = held["spec"].get("nodeName") == "n1"
        placed += name if here else ""
        assert here or told["status"] == "False"
        for each, count in asked.items():
            holders = [h["uid"] for h in (claims[each].get("status") or {}).get("reservedFor") or ()]
            assert holders == ([held["metadata"]["uid"]] if here else [])
            assert len(devices_of([claims[each]])) == (count if here else 0)
    assert placed in ("pq", "qr")


def writes(folder: Path) -> int:
    """Return how many writes an undisturbed run takes."""
    shore = Shore(quay(folder))
    look(Scheduler(shore, shore, shore.world.clock))
    check(shore.world)
    return shore.writes


@pytest.mark.parametrize("restarted", [False, True], ids=["retried", "restarted"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [Unavailable, Conflict])
def test_a_failure_at_any_write_is_followed_by_the_same_result(
    error: type[WharfingerError], after: bool, restarted: bool, tmp_path: Path
) -> None:
    """Each write fails once, before it is done or after; the same scheduler, or a new one, comes to the same end."""
    total = writes(tmp_path / "count")
    assert total == 6
    for fails in range(1, total + 1):
        shore = Shore(quay(tmp_path / str(fails)), fails, after=after, error=error)
        scheduler = Scheduler(shore, shore, shore.world.clock)
        look(scheduler)
        for _ in range(3):
            if restarted:
                scheduler = Scheduler(shore, shore, shore.world.clock)
            look(scheduler)
        check(shore.world)


class Slow(Shore):
    """Tells handlers of changes, as `tell` says, and keeps the order in which pods were asked for."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.handlers: dict[str, Callable[[str, Object], None]] = {}
        self.asked: list[str] = []
        self._plural = ""

    def __getitem__(self, plural: str) -> Slow:
        self._plural = plural
        return self

    def on_change(self, handler: Callable[[str, Object], None]) -> None:
        """Remember the handler of a kind."""
        self.handlers[self._plural] = handler

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return an object, remembering pods."""
        if plural == "pods":
            self.asked.append(name)
        return super().get(plural, namespace, name)


def test_who_waits_longest_is_looked_at_first(tmp_path: Path) -> None:
    """When room is made, waiting pods come by age, not by name and not by a priority that they gave themselves."""
    world = World(node("n1"), *slices(tmp_path, SMALL.encode()), tenant("blue"))
    for name, priority in (("z", 0), ("y", 5), ("x", 9)):
        world.put(pod("blue", name, "none", priority=priority))
        world.clock.pass_(SECOND)
    shore = Slow(world)
    scheduler = Scheduler(shore, shore, SystemClock())
    for name in "xyz":
        scheduler.schedule(("blue", name))
    shore.asked.clear()
    scheduler.start()
    until = time.monotonic() + 30
    while "tenants" not in shore.handlers or len(shore.asked) < 3:
        if "tenants" in shore.handlers and not shore.asked:
            shore.handlers["tenants"]("MODIFIED", {})
        assert time.monotonic() < until
        threading.Event().wait(0.01)
    scheduler.stop()
    assert shore.asked[:3] == ["z", "y", "x"]


def test_looking_again_writes_nothing(tmp_path: Path) -> None:
    """At rest, a scheduler that looks at everything again changes nothing and says nothing new."""
    shore = Shore(quay(tmp_path))
    look(Scheduler(shore, shore, shore.world.clock))
    before, told = shore.writes, len(shore.world.events)
    look(Scheduler(shore, shore, shore.world.clock))
    assert (shore.writes, len(shore.world.events)) == (before, told)


def test_what_was_written_counts_before_it_is_seen(tmp_path: Path) -> None:
    """A cache that lags gives no device twice: the scheduler remembers what it wrote."""
    world = quay(tmp_path)
    shore = Shore(world)
    stale = {plural: world.list(plural) for plural in ("pods", "resourceclaims")}

    class Lagging(Shore):
        """Reads claims and pods as they were."""

        def get(self, plural: str, namespace: str, name: str) -> Object | None:
            """Return an object as it was."""
            if plural not in stale:
                return super().get(plural, namespace, name)
            return next((o for o in stale[plural] if o["metadata"]["name"] == name), None)

        def list(self, plural: str, namespace: str = "") -> Sequence[Object]:
            """Return objects as they were."""
            return stale.get(plural) or super().list(plural, namespace)

    scheduler = Scheduler(Lagging(world), shore, world.clock)
    for _ in range(3):
        look(scheduler)
    check(world)


def test_a_claim_left_by_half_an_attempt_is_freed_when_the_pod_cannot_use_it(tmp_path: Path) -> None:
    """A pod whose first claim was allocated, and whose second fits nowhere near it, ends with neither."""
    world = quay(tmp_path)
    world.put(claim("blue", "e", "slice"))
    p = world.put(pod("blue", "s", "c", "e"))
    shore = Shore(world)
    scheduler = Scheduler(shore, shore, world.clock)
    scheduler.schedule(("blue", "q"))
    status = world.must("resourceclaims", "blue", "c")["status"]
    world.delete("pods", "blue", "q")
    mine = [{"resource": "pods", "name": "s", "uid": p["metadata"]["uid"]}]
    world.status("resourceclaims", "blue", "c", {"allocation": status["allocation"], "reservedFor": mine})
    scheduler.schedule(("blue", "s"))
    assert not world.must("resourceclaims", "blue", "c").get("status")
    scheduler.schedule(("blue", "s"))
    assert not devices_of(world.list("resourceclaims"))
    assert "nodeName" not in world.must("pods", "blue", "s")["spec"]
