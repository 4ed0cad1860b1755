"""The scheduler against the real local API server, with many writers at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from local_api import LocalApi
from quay import claim, classes, devices_of, node, pod, slices, tenant

from wharfinger.bootstrap.apiclient import RESOURCES, informers
from wharfinger.cluster.informer import Informers
from wharfinger.cluster.writer import ObjectWriter
from wharfinger.controllers.admission import admit
from wharfinger.controllers.loop import Loop
from wharfinger.controllers.resourceclaim import ResourceClaimReconciler
from wharfinger.core.errors import Conflict
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.gpu.quota import allowed, held, silicon
from wharfinger.kinds.condition import find
from wharfinger.local.scheduler.placement import Placement, State, Waiting, decide
from wharfinger.local.scheduler.scheduler import WATCHES, Scheduler

Object = dict[str, Any]
SEED = 20261125


class Quay:
    """A served API with the shipped fleet's nodes and devices, and what reads and writes it."""

    def __init__(self, api: LocalApi, folder: Path) -> None:
        self.api = api
        self.client = api.client()
        self.writer = self.another("control")
        self._stop: list[Callable[[], None]] = []
        for name in ("h100-a", "h100-b", "a100-a"):
            self.writer.create({key: value for key, value in node(name).items() if key != "status"})
        for made in (*slices(folder), *classes().values()):
            self.writer.create(made)
        for name in ("blue", "red"):
            for kind, meta in (
                ("Namespace", {"name": name}),
                ("ServiceAccount", {"name": "default", "namespace": name}),
            ):
                self.writer.create({"apiVersion": "v1", "kind": kind, "metadata": meta})
            self.writer.create(tenant(name, memory="400Gi", slices=40))

    def another(self, part: str) -> ObjectWriter:
        """Return a writer over a client of its own."""
        return ObjectWriter(self.api.client(), tuple(RESOURCES.values()), part, SystemClock(), SystemIds())

    def started(self) -> Informers:
        """Return informers over a client of their own, started."""
        made = informers(self.api.client(), {*WATCHES, "resourceclaimtemplates"})
        made.start()
        self._stop.insert(0, made.stop)
        return made

    def control(self) -> None:
        """Run a scheduler and the reconciler of claims, as the control process does."""
        seen = self.started()
        loop = Loop(seen, [ResourceClaimReconciler(seen, self.writer)], SystemClock())
        loop.start()
        self._stop.insert(0, loop.stop)
        self.schedule(seen, self.writer)

    def schedule(self, seen: Informers, writer: ObjectWriter) -> None:
        """Run one more scheduler."""
        scheduler = Scheduler(seen, writer, SystemClock())
        scheduler.start()
        self._stop.insert(0, scheduler.stop)

    def all(self, plural: str) -> list[Object]:
        """Return the objects of a kind as the server has them."""
        return list(self.client.list(RESOURCES[plural])["items"])

    def pod(self, namespace: str, name: str) -> Object:
        """Return a pod as the server has it."""
        return self.client.get(RESOURCES["pods"], namespace, name)

    def told(self, name: str) -> tuple[str, str, str]:
        """Return status, reason and message of a pod's PodScheduled condition."""
        conditions = (self.pod("blue", name).get("status") or {}).get("conditions")
        found = find(conditions, "PodScheduled") or {}
        return found.get("status", ""), found.get("reason", ""), found.get("message", "")

    def eventually(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds."""
        until = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < until, "it never came to hold"
            threading.Event().wait(0.02)

    def decided(self) -> bool:
        """Say whether each pod has a node, or a reason why not."""
        return all(
            p["spec"].get("nodeName") or find((p.get("status") or {}).get("conditions"), "PodScheduled")
            for p in self.all("pods")
        )

    def close(self) -> None:
        """End what was started."""
        for stop in self._stop:
            stop()

    def check(self) -> int:
        """Fail where silicon is given twice or a quota is passed; return how many devices are given."""
        claims = self.all("resourceclaims")
        devices = devices_of(claims)
        assert len(devices) == len(set(devices)), "a device twice"
        places: set[tuple[str, str, str]] = set()
        published = self.all("resourceslices")
        for each in published:
            for device in each["spec"].get("devices", ()):
                if (each["spec"]["pool"]["name"], device["name"]) not in devices:
                    continue
                for consumed in device.get("consumesCounters", ()):
                    for counter in consumed["counters"]:
                        if counter.startswith("memory-slice-"):
                            place = (each["spec"]["pool"]["name"], consumed["counterSet"], counter)
                            assert place not in places, f"{place} twice"
                            places.add(place)
        worth = silicon(published)
        for t in self.all("tenants"):
            used = held((c for c in claims if c["metadata"]["namespace"] in t["spec"]["namespaces"]), worth)
            limit = allowed(t)
            assert used.memory <= limit.memory and used.compute_slices <= limit.compute_slices
        return len(devices)


@pytest.fixture
def quay(tmp_path: Path) -> Iterator[Quay]:
    """The served API, its own admission included."""
    api = LocalApi(tmp_path / "objects", admit=admit).start()
    made = Quay(api, tmp_path / "fleet")
    yield made
    made.close()
    api.stop()


def write(quay: Quay, number: int, pods: int) -> None:
    """Create pods with claims, and delete some of them again."""
    dice, writer = random.Random(SEED + number), quay.another(f"writer-{number}")
    for i in range(pods):
        namespace, name = dice.choice(["blue", "red"]), f"w{number}-{i}"
        writer.create(claim(namespace, name, dice.choice(["whole", "slice", "slice"]), dice.choice([1, 1, 2])))
        writer.create(pod(namespace, name, name))
        if dice.random() < 0.4:
            writer.delete("pods", namespace, name, grace=0)


def together(*steps: Callable[[], None]) -> None:
    """Run steps in threads of their own; fail when one does."""
    with ThreadPoolExecutor(len(steps)) as pool:
        for done in [pool.submit(step) for step in steps]:
            done.result()


def test_twenty_writers_at_once_get_no_device_twice(quay: Quay) -> None:
    """While 20 clients create and delete pods, no device or part of one is given twice and no quota is passed."""
    print(f"seed {SEED}")
    quay.control()
    together(*(lambda n=n: write(quay, n, 6) for n in range(20)))
    quay.eventually(quay.decided)
    assert quay.check() >= 15


def test_twenty_schedulers_at_once_give_no_device_twice(quay: Quay) -> None:
    """Even 20 schedulers that know nothing of each other cannot: the API server has the last word on each berth."""
    write(quay, 1, 30)
    for number in range(20):
        quay.schedule(quay.started(), quay.another(f"scheduler-{number}"))
    quay.eventually(quay.decided)
    assert quay.check() >= 15


def test_freed_devices_go_to_who_waits(quay: Quay) -> None:
    """A pod that waits for devices, with the reason in its condition, gets them when their holder is deleted."""
    quay.control()
    quay.writer.create(claim("blue", "all", "whole", 4))
    quay.writer.create(pod("blue", "first", "all"))
    quay.eventually(lambda: bool(quay.pod("blue", "first")["spec"].get("nodeName")))
    quay.writer.create(claim("blue", "more", "whole", 2))
    quay.writer.create(pod("blue", "second", "more"))
    # At first its claim may not have been seen yet: the last word is what counts.
    words = "tenant blue: quota compute slices 40, in use 28, asks 14"
    quay.eventually(lambda: quay.told("second") == ("False", "Unschedulable", words))
    quay.writer.delete("pods", "blue", "first", grace=0)
    quay.eventually(lambda: bool(quay.pod("blue", "second")["spec"].get("nodeName")))
    assert quay.told("second")[0] == "True"
    kept = quay.client.get(RESOURCES["resourceclaims"], "blue", "all").get("status") or {}
    assert not kept.get("allocation") and not kept.get("reservedFor")


def test_a_second_allocation_of_a_device_is_a_conflict(quay: Quay) -> None:
    """Who writes by hand what a scheduler gave to another is refused with the device's name."""
    quay.control()
    quay.writer.create(claim("blue", "a", "whole"))
    quay.writer.create(pod("blue", "p", "a"))
    quay.eventually(lambda: bool(quay.pod("blue", "p")["spec"].get("nodeName")))
    got = quay.client.get(RESOURCES["resourceclaims"], "blue", "a")["status"]
    quay.writer.create(claim("red", "b", "whole"))
    with pytest.raises(Conflict, match=r"device gpu\.wharfinger\.io/.* is another claim's"):
        quay.writer.status("resourceclaims", "red", "b", {"allocation": got["allocation"]})


def test_a_pod_that_cannot_be_read_keeps_no_other_waiting(quay: Quay, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks on one pod is told and tried again; the next pod is placed."""

    def breaks(state: State, p: Object) -> Placement | Waiting:
        if p["metadata"]["name"] == "odd":
            raise KeyError("spec")
        return decide(state, p)

    monkeypatch.setattr("wharfinger.local.scheduler.scheduler.decide", breaks)
    quay.writer.create(pod("blue", "odd"))
    quay.control()
    quay.writer.create(pod("blue", "plain"))
    quay.eventually(lambda: bool(quay.pod("blue", "plain")["spec"].get("nodeName")))
    assert "nodeName" not in quay.pod("blue", "odd")["spec"]


def test_a_pod_behind_a_gate_or_another_scheduler_is_left(quay: Quay) -> None:
    """Gates hold a pod with their names; pods of another scheduler are not touched."""
    quay.writer.create(pod("blue", "theirs", schedulerName="other"))
    quay.writer.create(pod("blue", "gated", schedulingGates=[{"name": "wharfinger.io/ready"}]))
    quay.writer.create(pod("blue", "plain"))
    quay.control()
    quay.eventually(lambda: bool(quay.pod("blue", "plain")["spec"].get("nodeName")))
    quay.eventually(lambda: bool((quay.pod("blue", "gated").get("status") or {}).get("conditions")))
    told = find(quay.pod("blue", "gated")["status"]["conditions"], "PodScheduled") or {}
    assert (told["reason"], told["message"]) == (
        "SchedulingGated",
        "waits for its scheduling gates wharfinger.io/ready",
    )
    theirs = quay.pod("blue", "theirs")
    assert "nodeName" not in theirs["spec"] and not (theirs.get("status") or {}).get("conditions")
