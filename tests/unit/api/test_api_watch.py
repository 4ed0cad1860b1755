"""Watches and what is forgotten: bookmarks, 410 after compaction, slow watchers cut, events that expire."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from local_api import LocalApi
from world import SetClock

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.cluster.client import Client
from wharfinger.core.clock import HOUR, MINUTE
from wharfinger.core.errors import Gone, NotFound, Unavailable
from wharfinger.kinds.builtin.registry import BUILTINS
from wharfinger.local.api.commit import Committer, Transaction
from wharfinger.local.api.request import EVERYTHING, ListOptions
from wharfinger.local.api.served import Catalogue
from wharfinger.local.api.store import Key, Store
from wharfinger.local.api.watch import MOST_QUEUED, Hub, View, stream

MAPS = RESOURCES["configmaps"]


class Bare:
    """Store, committer and hub without HTTP, in one event loop."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "objects.db")
        self.resource = Catalogue((), BUILTINS, self.store.enrol).named("configmaps")
        self.hub = Hub(self.store.rv)
        self.committer = Committer(self.store, self.hub.publish)
        self.view = View(self.resource, None, EVERYTHING, None, lambda body, _value: body)

    async def write(self, name: str) -> int:
        """Create or change an object; return the version."""

        def mutation(transaction: Transaction) -> int:
            key = Key(self.resource.number, "ns", name)
            held = transaction.get(key)
            value = {"metadata": {"namespace": "ns", "name": name, "uid": name}, "at": transaction.rv}
            if held is None:
                transaction.create(key, value)
            else:
                transaction.update(key, value, held)
            return transaction.rv

        return await self.committer.run(mutation)

    def watch(self, version: int, timeout: float = 60, bookmark_every: float = 60) -> AsyncIterator[bytes]:
        """Start a watch after `version`."""
        options = ListOptions(resource_version=version, bookmarks=True)
        return stream(self.store, self.hub, self.view, options, timeout=timeout, bookmark_every=bookmark_every)

    async def close(self) -> None:
        """Finish."""
        self.hub.close()
        await self.committer.close()
        self.store.close()


def events(lines: bytes) -> list[tuple[str, Any]]:
    """Return type and version (or code) of the events in a part of a stream."""
    found = [json.loads(line) for line in lines.splitlines()]
    return [
        (each["type"], each["object"].get("code") or int(each["object"]["metadata"]["resourceVersion"]))
        for each in found
    ]


def played(tmp_path: Path, story: Callable[[Bare], Any]) -> Any:
    """Run a story in an event loop of its own."""

    async def main() -> Any:
        bare = Bare(tmp_path)
        try:
            return await story(bare)
        finally:
            await bare.close()

    return asyncio.run(main())


def test_replay_and_live_meet_without_gap_or_repetition(tmp_path: Path) -> None:
    """What was written before, while the replay runs, and after comes once, in order."""

    async def story(bare: Bare) -> list[Any]:
        for number in range(5):
            await bare.write(f"n{number}")
        watch, seen = bare.watch(2), []
        seen += events(await anext(watch))
        for number in range(5):
            await bare.write(f"n{number}")
        while len(seen) < 8:
            seen += events(await anext(watch))
        await watch.aclose()  # type: ignore[attr-defined]
        return seen

    expected = [("ADDED", version) for version in (3, 4, 5)] + [("MODIFIED", version) for version in range(6, 11)]
    assert played(tmp_path, story) == expected


def test_a_bookmark_says_how_far_a_quiet_watch_has_come(tmp_path: Path) -> None:
    """Changes of other kinds move it on, at the interval and at the end."""

    async def story(bare: Bare) -> list[Any]:
        watch = bare.watch(1, timeout=0.2, bookmark_every=0.05)
        await bare.write("a")
        seen: list[Any] = []
        first = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        bare.hub.rv = 9  # as if eight changes of other kinds had been published
        seen += events(await first)
        async for lines in watch:
            seen += events(lines)
        return seen

    assert played(tmp_path, story) == [("BOOKMARK", 9)]


def test_a_watcher_that_reads_too_slowly_is_cut_off(tmp_path: Path) -> None:
    """Its queue is bounded; it is told 410 and has to list again, and nobody else is harmed."""

    async def story(bare: Bare) -> tuple[list[Any], int]:
        await bare.write("a")
        slow, quick = bare.watch(1), bare.watch(1)
        waiting = asyncio.ensure_future(anext(slow)), asyncio.ensure_future(anext(quick))
        await asyncio.sleep(0)
        await bare.write("a")
        await waiting[0]
        seen = len(events(await waiting[1]))
        for _ in range(MOST_QUEUED // 50 + 1):
            await asyncio.gather(*(bare.write("a") for _ in range(50)))
            while seen < bare.hub.rv - 1:
                seen += len(events(await anext(quick)))
        ended = [event async for lines in slow for event in events(lines)]
        return ended, seen

    ended, seen = played(tmp_path, story)
    assert ended == [("ERROR", 410)] and seen == MOST_QUEUED + 51


@pytest.mark.parametrize(("version", "code"), [(1, 410), (10**6, 504)])
def test_a_version_that_is_forgotten_or_never_was_is_refused(tmp_path: Path, version: int, code: int) -> None:
    """Below the floor 410, above what there is 504: the watcher lists again."""

    async def story(bare: Bare) -> list[Any]:
        for _ in range(4):
            await bare.write("a")
        await bare.committer.compact(3)
        return [event async for lines in bare.watch(version) for event in events(lines)]

    assert played(tmp_path, story) == [("ERROR", code)]


def test_a_server_that_stops_ends_its_watches(tmp_path: Path) -> None:
    """They end at once and in good order: no ERROR, clients connect again."""

    async def story(bare: Bare) -> list[Any]:
        watch = bare.watch(0)
        waiting = asyncio.ensure_future(anext(watch, b""))
        await asyncio.sleep(0)
        bare.hub.close()
        return [await waiting, bare.hub.count()]

    assert played(tmp_path, story) == [b"", 0]


def make(client: Client, name: str) -> str:
    """Create a ConfigMap; return its version."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
    return str(client.create(MAPS, body)["metadata"]["resourceVersion"])


def test_history_is_kept_for_five_minutes(api: LocalApi, clock: SetClock) -> None:
    """Within them a watch resumes and a page goes on; after them both are 410, and a list is whole."""
    client = api.client()
    old = make(client, "a")
    for number in range(5):
        make(client, f"b{number}")
    path = MAPS.path("default")
    token = json.loads(client.raw("GET", f"{path}?limit=2")[1])["metadata"]["continue"]
    for name in ("b0", "b1"):
        client.patch(MAPS, "default", name, {"data": {"k": "v"}})
    api.run(api.server.retention.tick)
    clock.pass_(4 * MINUTE)
    api.run(api.server.retention.tick)
    assert next(iter(client.watch(MAPS, "default", resource_version=old))).object["metadata"]["name"] == "b0"
    clock.pass_(2 * MINUTE)
    api.run(api.server.retention.tick)
    with pytest.raises(Gone):
        next(iter(client.watch(MAPS, "default", resource_version=old)))
    status, body = client.raw("GET", f"{path}?limit=2&continue={token}")
    assert status == 410 and json.loads(body)["reason"] == "Expired"
    assert len(client.list(MAPS, "default")["items"]) == 6


def test_events_are_kept_for_an_hour(api: LocalApi, clock: SetClock) -> None:
    """An Event that nobody renews goes; one that was renewed stays."""
    client, events_kind = api.client(), RESOURCES["events"]
    for name in ("old", "renewed"):
        client.create(events_kind, {"apiVersion": "v1", "kind": "Event", "involvedObject": {"namespace": "default"},
                                    "metadata": {"name": name, "namespace": "default"}})  # fmt: skip
    api.run(api.server.retention.tick)
    clock.pass_(HOUR // 2)
    client.patch(events_kind, "default", "renewed", {"count": 2})
    api.run(api.server.retention.tick)
    clock.pass_(HOUR // 2 + MINUTE)
    api.run(api.server.retention.tick)
    assert client.get(events_kind, "default", "renewed")["count"] == 2
    with pytest.raises(NotFound):
        client.get(events_kind, "default", "old")


def test_a_hundred_watchers_see_the_same(api: LocalApi) -> None:
    """Each gets every change, once, in order."""
    client = api.client()
    version = client.list(MAPS)["metadata"]["resourceVersion"]
    seen: list[list[str]] = []
    open_ones = threading.Semaphore(0)

    def follow() -> None:
        mine: list[str] = []
        watch = api.client().watch(MAPS, resource_version=version, on_open=lambda _: open_ones.release())
        try:
            for event in watch:
                if event.type != "BOOKMARK":
                    mine.append(event.object["metadata"]["name"])
                if len(mine) == 10:
                    break
        except Unavailable:
            pass
        seen.append(mine)

    threads = [threading.Thread(target=follow) for _ in range(100)]
    for thread in threads:
        thread.start()
    for _ in threads:
        open_ones.acquire()
    for number in range(10):
        make(client, f"w{number}")
    for thread in threads:
        thread.join(30)
    assert seen == [[f"w{number}" for number in range(10)]] * 100
