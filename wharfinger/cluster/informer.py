"""Informers: a kind's objects kept current in memory, by list and watch.

One thread per kind lists, then watches from the list's resourceVersion, following bookmarks. A dropped stream is
resumed from the last version seen; a compacted history (410) is listed anew, and what the list no longer holds is
told as deleted. Pauses between tries double with jitter; a 429 waits as long as the server says. Events that come
late or twice change nothing: an object is taken only when its version differs from the one held.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from wharfinger.cluster.client import Event, Object, Resource
from wharfinger.cluster.workqueue import backoff
from wharfinger.core.clock import SECOND, Span
from wharfinger.core.errors import Gone, Throttled, WharfingerError

Handler: TypeAlias = Callable[[str, Object], None]
"""Gets ADDED, MODIFIED or DELETED and the object, in the informer's thread; must return soon and not raise."""

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What an informer needs of a client; `client.Client` is one."""

    def list(self, resource: Resource, namespace: str = "", *, limit: int = 0) -> Object:
        """Return the whole list."""
        ...

    def watch(
        self, resource: Resource, namespace: str = "", *, resource_version: str, on_open: Any = None
    ) -> Iterator[Event]:
        """Yield changes."""
        ...


class Informer:
    """The objects of one kind, of one namespace or all."""

    def __init__(
        self,
        source: Source,
        resource: Resource,
        namespace: str = "",
        *,
        draw: Callable[[], float] = random.random,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self.resource = resource
        self._source = source
        self._namespace = namespace
        self._draw = draw
        self._wait = wait
        self._lock = threading.Lock()
        self._objects: dict[tuple[str, str], Object] = {}
        self._handlers: list[Handler] = []
        self._synced = threading.Event()
        self._stopped = threading.Event()
        self._socket: socket.socket | None = None
        self._version = ""
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"informer-{resource.plural}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch and the thread."""
        self._stopped.set()
        held = self._socket
        if held is not None:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def synced(self, timeout: float | None = None) -> bool:
        """Wait until the first list is in; return whether it is."""
        return self._synced.wait(timeout)

    def on_change(self, handler: Handler) -> None:
        """Call `handler` on every change from now on, and now with ADDED for every object there is."""
        with self._lock:
            self._handlers.append(handler)
            for held in self._objects.values():
                handler("ADDED", held)

    def get(self, namespace: str, name: str) -> Object | None:
        """Return an object as last seen, None when it is not there. Not to be changed by the caller."""
        return self._objects.get((namespace, name))

    def list(self, namespace: str = "") -> Sequence[Object]:
        """Return the objects as last seen, of one namespace or all, by namespace and name."""
        with self._lock:
            items = sorted(self._objects.items())
        return [held for (where, _), held in items if not namespace or where == namespace]

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                if not self._version:
                    self._relist()
                self._follow()
                self._failures = 0
            except Gone:
                self._version = ""
            except Throttled as error:
                self._pause(error.retry_after * SECOND)
            except WharfingerError as error:
                if self._stopped.is_set():
                    return
                self._failures += 1
                pause = backoff(self._failures, self._draw())
                _log.info(
                    "watch interrupted",
                    extra={
                        "fields": {"resource": self.resource.plural, "error": str(error), "pause_ms": pause // 10**6}
                    },
                )
                self._pause(pause)

    def _relist(self) -> None:
        found = self._source.list(self.resource, self._namespace, limit=500)
        fresh = {_key(item): self._typed(item) for item in found.get("items") or ()}
        with self._lock:
            gone = [held for key, held in self._objects.items() if key not in fresh]
            changed = [
                ("ADDED" if key not in self._objects else "MODIFIED", item)
                for key, item in fresh.items()
                if _version(self._objects.get(key)) != _version(item)
            ]
            self._objects = fresh
            self._version = str(found["metadata"].get("resourceVersion", ""))
            for held in gone:
                self._tell("DELETED", held)
            for kind, item in changed:
                self._tell(kind, item)
        self._synced.set()

    def _follow(self) -> None:
        try:
            for event in self._source.watch(
                self.resource, self._namespace, resource_version=self._version, on_open=self._opened
            ):
                if self._stopped.is_set():
                    return
                self._failures = 0
                self._take(event)
        finally:
            self._socket = None

    def _opened(self, held: socket.socket) -> None:
        self._socket = held

    def _take(self, event: Event) -> None:
        version = _version(event.object)
        if event.type == "BOOKMARK":
            self._version = version
            return
        key, item = _key(event.object), self._typed(event.object)
        with self._lock:
            held = self._objects.get(key)
            self._version = version or self._version
            if event.type == "DELETED":
                if held is not None and not _newer(_version(held), version):
                    del self._objects[key]
                    self._tell("DELETED", item)
                return
            if held is not None and not _newer(version, _version(held)):
                return
            self._objects[key] = item
            self._tell("MODIFIED" if held is not None else "ADDED", item)

    def _typed(self, item: Object) -> Object:
        """Items of a list carry no kind of their own: give them theirs."""
        if "kind" in item:
            return item
        return {"apiVersion": self.resource.api_version, "kind": self.resource.kind, **item}

    def _tell(self, kind: str, item: Object) -> None:
        for handler in self._handlers:
            handler(kind, item)

    def _pause(self, pause: Span) -> None:
        self._wait(self._stopped, pause / SECOND)


class Informers:
    """One informer per kind, read by plural: the cache that controllers and doors share."""

    def __init__(self, source: Source, resources: Sequence[Resource]) -> None:
        self._by_plural = {resource.plural: Informer(source, resource) for resource in resources}

    def __getitem__(self, plural: str) -> Informer:
        """Return the informer of a kind."""
        return self._by_plural[plural]

    def __contains__(self, plural: str) -> bool:
        """Say whether a kind is kept."""
        return plural in self._by_plural

    def start(self) -> None:
        """Begin all."""
        for informer in self._by_plural.values():
            informer.start()

    def synced(self, timeout: float | None = None) -> bool:
        """Wait until every first list is in."""
        return all(informer.synced(timeout) for informer in self._by_plural.values())

    def stop(self) -> None:
        """End all."""
        for informer in self._by_plural.values():
            informer.stop()

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return an object as last seen."""
        return self._by_plural[plural].get(namespace, name)

    def list(self, plural: str, namespace: str = "") -> Sequence[Object]:
        """Return the objects of a kind as last seen."""
        return self._by_plural[plural].list(namespace)


def _key(item: Object) -> tuple[str, str]:
    meta = item["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _version(item: Object | None) -> str:
    return str(((item or {}).get("metadata") or {}).get("resourceVersion", ""))


def _newer(version: str, held: str) -> bool:
    """Say whether a version is newer; versions of one API compare as numbers (Kubernetes 1.35 and later say so)."""
    if version.isdigit() and held.isdigit():
        return int(version) > int(held)
    return version != held
