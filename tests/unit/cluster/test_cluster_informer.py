"""Informers under faults: dropped streams, 410, 429, duplicate and late events, a watcher cut off for slowness."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wharfinger.cluster.client import Event, Object, Resource
from wharfinger.cluster.informer import Informer, Informers
from wharfinger.core.errors import Gone, Throttled, Unavailable, WharfingerError

THINGS = Resource("example.com", "v1", "things", "Thing")


def thing(name: str, version: int, **more: Any) -> Object:
    """Return an object at a version."""
    return {"apiVersion": "example.com/v1", "kind": "Thing", **more,
            "metadata": {"name": name, "namespace": "ns", "resourceVersion": str(version)}}  # fmt: skip


class Scripted:
    """The port `informer.Source` as a script: each list and each watch is the next act; then it blocks until stopped."""

    def __init__(self, *acts: Any) -> None:
        self.acts = list(acts)
        self.asked: list[str] = []
        self.over = threading.Event()
        self._end = threading.Event()

    def list(self, resource: Resource, namespace: str = "", *, limit: int = 0) -> Object:
        """Return the next act, a list."""
        self.asked.append("list")
        act = self._next()
        if isinstance(act, WharfingerError):
            raise act
        assert isinstance(act, dict)
        return act

    def watch(
        self, resource: Resource, namespace: str = "", *, resource_version: str, on_open: Any = None
    ) -> Iterator[Event]:
        """Yield the events of the next act, and raise the error at its end, if there is one."""
        self.asked.append(f"watch {resource_version}")
        for event in self._next():
            if isinstance(event, WharfingerError):
                raise event
            yield event

    def _next(self) -> Any:
        if not self.acts:
            self.over.set()
            self._end.wait(10)
            return {"items": [], "metadata": {"resourceVersion": "0"}} if self.asked[-1] == "list" else []
        return self.acts.pop(0)

    def end(self) -> None:
        """Let what blocks go on."""
        self._end.set()


def listed(version: int, *items: Object) -> Object:
    """Return a list."""
    return {"items": list(items), "metadata": {"resourceVersion": str(version)}}


class Played:
    """An informer that has played a script to its end: what its handler was told, how long it paused."""

    def __init__(self, *acts: Any, draw: float = 0.0) -> None:
        self.source = Scripted(*acts)
        self.told: list[tuple[str, str, str]] = []
        self.pauses: list[float] = []

        def wait(stopped: threading.Event, seconds: float) -> bool:
            self.pauses.append(round(seconds, 3))
            return stopped.is_set()

        self.informer = Informer(self.source, THINGS, draw=lambda: draw, wait=wait)
        self.informer.on_change(self._hear)
        self.informer.start()
        assert self.source.over.wait(10)

    def _hear(self, kind: str, item: Object) -> None:
        self.told.append((kind, item["metadata"]["name"], item["metadata"]["resourceVersion"]))

    def held(self) -> dict[str, str]:
        """Return the versions of what it holds, by name."""
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in self.informer.list()}


@pytest.fixture
def play() -> Iterator[Callable[..., Played]]:
    """Play scripts; the informers are stopped afterwards."""
    made: list[Played] = []

    def start(*acts: Any, **options: Any) -> Played:
        made.append(Played(*acts, **options))
        return made[-1]

    yield start
    for each in made:
        each.informer._stopped.set()
        each.source.end()
        each.informer.stop()


def test_a_list_then_what_changes(play: Callable[..., Played]) -> None:
    """ADDED for the list, then each change, in order."""
    done = play(
        listed(5, thing("a", 3)),
        [Event("ADDED", thing("b", 6)), Event("MODIFIED", thing("a", 7)), Event("DELETED", thing("b", 8))],
    )
    assert done.told == [("ADDED", "a", "3"), ("ADDED", "b", "6"), ("MODIFIED", "a", "7"), ("DELETED", "b", "8")]
    assert done.held() == {"a": "7"} and done.informer.synced(0)


def test_a_dropped_stream_is_resumed_where_it_broke(play: Callable[..., Played]) -> None:
    """From the last version seen, bookmarks included; nothing is listed again."""
    done = play(
        listed(5),
        [Event("ADDED", thing("a", 6)), Unavailable("broke")],
        [Event("BOOKMARK", thing("", 40)), Unavailable("broke")],
        [],
    )
    assert done.source.asked == ["list", "watch 5", "watch 6", "watch 40", "watch 40"]
    assert done.told == [("ADDED", "a", "6")]


def test_a_watch_that_ends_in_good_order_is_resumed_at_once(play: Callable[..., Played]) -> None:
    """No pause: servers end watches all the time."""
    done = play(listed(5), [Event("ADDED", thing("a", 6))], [])
    assert done.source.asked == ["list", "watch 5", "watch 6", "watch 6"] and done.pauses == []


@pytest.mark.parametrize("why", ["compacted", "too slow: more changes waited for this watch than are kept"])
def test_a_410_lists_anew_and_tells_what_is_gone(play: Callable[..., Played], why: str) -> None:
    """What vanished meanwhile is DELETED, what changed MODIFIED, what came ADDED, what stayed silent."""
    done = play(
        listed(5, thing("gone", 1), thing("changed", 2), thing("same", 3)),
        [Gone(why)],
        listed(90, thing("changed", 80), thing("same", 3), thing("new", 81)),
    )
    assert done.told[3:] == [("DELETED", "gone", "1"), ("MODIFIED", "changed", "80"), ("ADDED", "new", "81")]
    assert done.source.asked[:4] == ["list", "watch 5", "list", "watch 90"] and done.pauses == []


def test_a_429_waits_as_long_as_the_server_says(play: Callable[..., Played]) -> None:
    """Neither longer nor shorter, on list and on watch."""
    done = play(Throttled("slow down", retry_after=7), listed(5), [Throttled("slow down", retry_after=3)], [])
    assert done.pauses == [7.0, 3.0]


def test_pauses_double_and_start_over_after_success(play: Callable[..., Played]) -> None:
    """50 ms, 100 ms, 200 ms; an event that comes makes the next failure the first again."""
    broke = Unavailable("broke")
    done = play(broke, broke, broke, listed(5), [Event("ADDED", thing("a", 6)), broke], [broke])
    assert done.pauses == [0.05, 0.1, 0.2, 0.05, 0.1]


def test_jitter_shortens_a_pause_by_half_at_most(play: Callable[..., Played]) -> None:
    """Many that failed together do not come back together."""
    assert play(Unavailable("broke"), listed(5), draw=0.999).pauses == [0.025]


def test_duplicate_and_late_events_change_nothing(play: Callable[..., Played]) -> None:
    """An event that is not newer than what is held is passed over, a late deletion too."""
    done = play(
        listed(5, thing("a", 5)),
        [
            Event("MODIFIED", thing("a", 7)),
            Event("MODIFIED", thing("a", 7)),
            Event("MODIFIED", thing("a", 6)),
            Event("ADDED", thing("a", 5)),
            Event("DELETED", thing("a", 6)),
            Event("DELETED", thing("never", 7)),
        ],
    )
    assert done.told == [("ADDED", "a", "5"), ("MODIFIED", "a", "7")] and done.held() == {"a": "7"}


def test_an_object_made_again_is_another(play: Callable[..., Played]) -> None:
    """Deleted and created under the same name: DELETED, then ADDED."""
    done = play(listed(5, thing("a", 5)), [Event("DELETED", thing("a", 6)), Event("ADDED", thing("a", 7))])
    assert done.told[1:] == [("DELETED", "a", "6"), ("ADDED", "a", "7")]


def test_items_of_a_list_get_their_kind(play: Callable[..., Played]) -> None:
    """Lists of built-in kinds leave it out."""
    bare = {"metadata": {"name": "a", "namespace": "ns", "resourceVersion": "1"}}
    done = play(listed(5, bare))
    held = done.informer.get("ns", "a")
    assert held is not None and (held["kind"], held["apiVersion"]) == ("Thing", "example.com/v1")


def test_who_asks_late_hears_of_what_is_there(play: Callable[..., Played]) -> None:
    """A handler that comes later gets ADDED for every object."""
    done = play(listed(5, thing("a", 1), thing("b", 2)))
    late: list[str] = []
    done.informer.on_change(lambda kind, item: late.append(f"{kind} {item['metadata']['name']}"))
    assert sorted(late) == ["ADDED a", "ADDED b"]


def test_informers_are_read_by_plural() -> None:
    """One for each kind; a kind that is not kept is not there."""
    informers = Informers(Scripted(), [THINGS])
    assert "things" in informers and "others" not in informers
    assert informers.get("things", "ns", "a") is None and informers.list("things") == []


EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["put", "delete"])), max_size=20)


@given(EVENTS, st.lists(st.integers(0, 25), max_size=6), st.data())
def test_whatever_happens_the_cache_becomes_the_truth(
    changes: list[tuple[str, str]], breaks: list[int], data: st.DataObject
) -> None:
    """Streams that drop, repeat and are compacted anywhere: in the end the informer holds what the server holds."""
    history: list[Event] = []
    truth: dict[str, Object] = {}
    states = [dict(truth)]
    for name, deed in changes:
        version = len(history) + 1
        if deed == "put":
            history.append(Event("MODIFIED" if name in truth else "ADDED", thing(name, version)))
            truth[name] = history[-1].object
        elif name in truth:
            history.append(Event("DELETED", thing(name, version)))
            del truth[name]
        else:
            continue
        states.append(dict(truth))
    acts: list[Any] = [listed(0)]
    position = 0
    for point in sorted(breaks):
        stop = min(point, len(history))
        if stop < position:
            continue
        again = data.draw(st.integers(0, position))
        if data.draw(st.booleans()):
            acts.append([*history[again:stop], Unavailable("broke")])
            position = stop
        else:
            acts += [[*history[position:stop], Gone("compacted")], listed(stop, *states[stop].values())]
            position = stop
    acts.append(history[position:])
    done = Played(*acts)
    try:
        assert done.held() == {name: item["metadata"]["resourceVersion"] for name, item in truth.items()}
    finally:
        done.informer._stopped.set()
        done.source.end()
        done.informer.stop()
