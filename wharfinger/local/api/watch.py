"""Watches: every change of a kind, to whoever listens, in order and without gaps.

The hub hands each durable change to the subscriptions of its kind. A watcher first replays what the
store has since its resourceVersion, then goes on with what the hub has queued for it meanwhile. One that
reads too slowly is cut off and lists again: memory stays bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from wharfinger.core.document import Json
from wharfinger.core.errors import Gone, WharfingerError
from wharfinger.local.api.faults import TooNew, failure
from wharfinger.local.api.request import ListOptions, Selection
from wharfinger.local.api.served import Resource
from wharfinger.local.api.store import ADDED, DELETED, MODIFIED, Event, Store

MOST_QUEUED: Final = 10_000
"""Changes that wait for one watcher before it is cut off."""

_CHUNK: Final = 64 * 1024
_EARLY: Final = 0.01
"""Seconds that a loop's alarm may come before its time."""
_REPLAY: Final = 1000
_WORDS: Final = {ADDED: "ADDED", MODIFIED: "MODIFIED", DELETED: "DELETED"}

Render = Callable[[bytes, "Json | None"], bytes]
"""Turns an object (its bytes, and its value where that is known) into the form that the watcher asked for."""


class Change:
    """One event with what watchers make of it; values and frames are made once for all of them."""

    __slots__ = ("_after", "_before", "_frames", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self._after: Json | None = None
        self._before: Json | None = None
        self._frames: dict[tuple[int, object], bytes] = {}

    @property
    def after(self) -> Json:
        """The object after the change; of a deletion, its last state."""
        if self._after is None:
            self._after = orjson.loads(self.event.body)
        return self._after

    @property
    def before(self) -> Json | None:
        """The object before the change, None when there was none."""
        if self._before is None and self.event.before is not None:
            self._before = orjson.loads(self.event.before)
        return self._before

    def frame(self, word: int, view: View) -> bytes:
        """Return the line that tells a watcher with `view` of this change as a `word` event."""
        key = (word, view.form)
        made = self._frames.get(key)
        if made is None:
            body, value = self.event.body, self._after
            if word == DELETED and self.event.change != DELETED:
                # It only left the selection: shown as it was, at the resourceVersion of its leaving.
                before = self.before or {}
                value = {**before, "metadata": {**before["metadata"], "resourceVersion": str(self.event.rv)}}
                body = orjson.dumps(value)
            made = line(_WORDS[word], view.render(body, value))
            self._frames[key] = made
        return made


@dataclass(frozen=True, slots=True)
class View:
    """What a watcher sees: of one namespace or all (None), what is selected, in a `form` that `render` makes."""

    resource: Resource
    namespace: str | None
    selection: Selection
    form: object
    render: Render

    def sees(self, value: Json | None) -> bool:
        """Say whether the selection takes the object `value`."""
        if value is None:
            return False
        chosen = self.selection
        if not chosen.labels.everything and not chosen.labels.matches(value["metadata"].get("labels")):
            return False
        return chosen.fields.everything or chosen.fields.matches(self.resource.fields_of(value))

    def frame(self, change: Change) -> bytes | None:
        """Return the line for `change`, None when it is none of this watcher's business."""
        event = change.event
        if self.namespace is not None and event.namespace != self.namespace:
            return None
        if self.selection.everything:
            return change.frame(event.change, self)
        was = self.sees(change.before)
        if event.change == DELETED:
            return change.frame(DELETED, self) if was else None
        now = self.sees(change.after)
        if now:
            return change.frame(MODIFIED if was else ADDED, self)
        return change.frame(DELETED, self) if was else None


def line(word: str, body: bytes) -> bytes:
    """Return one line of a watch stream."""
    return b'{"type":"%s","object":%s}\n' % (word.encode(), body)


class Subscription:
    """What the hub has queued for one watcher."""

    __slots__ = ("cut", "queue", "wake")

    def __init__(self) -> None:
        self.queue: deque[Change] = deque()
        self.wake = asyncio.Event()
        self.cut = False

    def put(self, change: Change) -> None:
        """Queue a change, or cut the watcher off when too many wait."""
        if len(self.queue) >= MOST_QUEUED:
            self.cut = True
            self.queue.clear()
        if not self.cut:
            self.queue.append(change)
        self.wake.set()


class Hub:
    """Hands durable changes to watchers. `rv` is the newest resourceVersion that was published."""

    def __init__(self, rv: int) -> None:
        self.rv = rv
        self._by_kind: dict[int, set[Subscription]] = {}
        self._closed = False

    def publish(self, events: Sequence[Event]) -> None:
        """Queue `events`, in the order of their resourceVersions, for those who watch their kinds."""
        for event in events:
            listeners = self._by_kind.get(event.kind)
            if listeners:
                change = Change(event)
                for subscription in listeners:
                    subscription.put(change)
        self.rv = events[-1].rv

    def subscribe(self, kind: int) -> Subscription:
        """Start queueing changes of `kind`."""
        subscription = Subscription()
        self._by_kind.setdefault(kind, set()).add(subscription)
        if self._closed:
            subscription.cut = True
            subscription.wake.set()
        return subscription

    def unsubscribe(self, kind: int, subscription: Subscription) -> None:
        """Stop."""
        self._by_kind.get(kind, set()).discard(subscription)

    @property
    def is_closed(self) -> bool:
        """Whether the server stops."""
        return self._closed

    def count(self) -> int:
        """Return how many watchers there are."""
        return sum(len(listeners) for listeners in self._by_kind.values())

    def close(self) -> None:
        """Cut every watcher off: the server stops."""
        self._closed = True
        for listeners in self._by_kind.values():
            for subscription in listeners:
                subscription.cut = True
                subscription.wake.set()


def check_start(store: Store, options: ListOptions) -> None:
    """Raise `Gone` when a watch starts below the floor, where what happened since is forgotten.

    Raises `TooNew` when it starts above what there is: the caller remembers another database.
    """
    wanted = options.resource_version or 0
    newest = store.newest()
    if wanted > newest:
        raise TooNew(f"Too large resource version: {wanted}, current: {newest}")
    if wanted and not options.initial_events and wanted < store.floor:
        raise Gone(f"too old resource version: {wanted} ({store.floor})")


async def stream(
    store: Store, hub: Hub, view: View, options: ListOptions, *, timeout: float, bookmark_every: float
) -> AsyncIterator[bytes]:
    """Yield the lines of one watch, several at a time where several are ready, until `timeout` seconds are over.

    A watch that fails on the way ends with an ERROR line (`Gone` when it was too slow).
    """
    number = view.resource.number
    subscription = hub.subscribe(number)
    try:
        check_start(store, options)
        seen = options.resource_version or 0
        if not seen or options.initial_events:
            seen = store.newest()
            for frames in initial(store, view, seen):
                yield frames
                await asyncio.sleep(0)
            if options.initial_events and options.bookmarks:
                yield bookmark(view.resource, seen, initial_events_end=True)
        else:
            async for reached, frames in _replay(store, view, seen):
                seen = reached
                yield frames
        async for frames in _live(hub, subscription, view, seen, options, timeout, bookmark_every):
            yield frames
    except WharfingerError as error:
        yield line("ERROR", orjson.dumps(failure(error)))
    finally:
        hub.unsubscribe(number, subscription)


def initial(store: Store, view: View, at: int) -> Iterator[bytes]:
    """Yield ADDED lines for every object seen at resourceVersion `at`, a slice at a time."""
    after = ("", "")
    while True:
        page = store.page(view.resource.number, view.namespace, after, _REPLAY, at)
        parts = []
        for version in page:
            value = None if view.selection.everything else orjson.loads(version.body)
            if value is None or view.sees(value):
                parts.append(line("ADDED", view.render(version.body, value)))
        if parts:
            yield b"".join(parts)
        if len(page) < _REPLAY:
            return
        after = (page[-1].namespace, page[-1].name)


async def _replay(store: Store, view: View, seen: int) -> AsyncIterator[tuple[int, bytes]]:
    """Yield what the store has above `seen`, with the resourceVersion reached."""
    while True:
        events = store.events(view.resource.number, seen, _REPLAY)
        if not events:
            return
        frames = [frame for frame in (view.frame(Change(event)) for event in events) if frame is not None]
        seen = events[-1].rv
        yield seen, b"".join(frames)
        await asyncio.sleep(0)


async def _live(
    hub: Hub,
    subscription: Subscription,
    view: View,
    seen: int,
    options: ListOptions,
    timeout: float,
    bookmark_every: float,
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    end, next_mark = loop.time() + timeout, loop.time() + bookmark_every
    alarm = loop.call_at(min(end, next_mark), subscription.wake.set)
    try:
        while True:
            frames = _ready(subscription, view, seen)
            if frames:
                yield frames
                continue
            if subscription.cut:
                if not hub.is_closed:
                    raise Gone("too slow: more changes waited for this watch than are kept; list again")
                return
            reached, now = hub.rv, loop.time() + _EARLY
            if now >= end or now >= next_mark:
                if options.bookmarks and reached > seen:
                    yield bookmark(view.resource, reached)
                    seen = reached
                if now >= end:
                    return
                next_mark = now + bookmark_every
                alarm = loop.call_at(min(end, next_mark), subscription.wake.set)
            subscription.wake.clear()
            if not subscription.queue:
                await subscription.wake.wait()
    finally:
        alarm.cancel()


def _ready(subscription: Subscription, view: View, seen: int) -> bytes:
    """Take changes above `seen` from the queue, a chunk at most; return their lines."""
    parts, size = [], 0
    while subscription.queue and size < _CHUNK:
        change = subscription.queue.popleft()
        if change.event.rv <= seen:
            continue
        frame = view.frame(change)
        if frame is not None:
            parts.append(frame)
            size += len(frame)
    return b"".join(parts)


def bookmark(resource: Resource, rv: int, *, initial_events_end: bool = False) -> bytes:
    """Return the line that says how far a watch has come."""
    metadata: dict[str, Json] = {"resourceVersion": str(rv), "creationTimestamp": None}
    if initial_events_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    kind = resource.kind
    return line("BOOKMARK", orjson.dumps({"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata}))
