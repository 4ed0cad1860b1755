"""What reconcilers see and touch: the ports through which they read caches and write objects.

Adapters: the cluster's client and informers (wired by `bootstrap.control`), and the in-memory one of the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from wharfinger.core.clock import Instant, Span

Object: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """An object to reconcile; `namespace` is empty for cluster-wide kinds."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Show as `namespace/name`."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Cache(Protocol):
    """What informers know; may lag behind the API."""

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return an object, None when it is not there."""
        ...

    def list(self, plural: str, namespace: str = "") -> Sequence[Object]:
        """Return the objects of a kind, of one namespace or of all."""
        ...


class Writer(Protocol):
    """Writes objects as the control plane. Every method raises the error family."""

    def apply(self, desired: Object) -> Object:
        """Server-side apply `desired` as the control plane's, taking fields over from others."""
        ...

    def create(self, desired: Object) -> Object:
        """Create; raises `AlreadyExists`."""
        ...

    def patch(self, plural: str, namespace: str, name: str, patch: Object) -> Object:
        """JSON merge patch of an object; raises `NotFound`, `Conflict`."""
        ...

    def status(self, plural: str, namespace: str, name: str, status: Object, *, version: str = "") -> Object:
        """Merge into an object's status, leaving other controllers' fields alone.

        With a `version` only when that is still the object's resourceVersion; raises `Conflict`.
        """
        ...

    def delete(self, plural: str, namespace: str, name: str, uid: str = "") -> None:
        """Delete, of that uid alone when one is given; absent is fine."""
        ...

    def event(self, about: Object, reason: str, message: str, *, warning: bool) -> None:
        """Record an Event about an object."""
        ...


class Reconciler(Protocol):
    """Brings one kind of object to what it should be. Idempotent: a crash anywhere is followed by the same result."""

    @property
    def kind(self) -> str:
        """The plural that it reconciles."""
        ...

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return the plurals that matter, each with the keys that a change of an object concerns."""
        ...

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Bring `key` to what it should be; return after how long to look again, None for on change only."""
        ...


def own(o: Object) -> list[Key]:
    """Return the key of the object itself."""
    return [key_of(o)]


def key_of(o: Object) -> Key:
    """Return the key of `o`."""
    meta = o["metadata"]
    return Key(meta.get("namespace", ""), meta["name"])


def owner(kind: str) -> Callable[[Object], list[Key]]:
    """Return a function that gives the key of an object's controlling owner of `kind`."""

    def keys(o: Object) -> list[Key]:
        meta = o["metadata"]
        return [
            Key(meta.get("namespace", ""), reference["name"])
            for reference in meta.get("ownerReferences") or ()
            if reference.get("kind") == kind and reference.get("controller")
        ]

    return keys


def everything(cache: Cache, plural: str) -> Callable[[Object], list[Key]]:
    """Return a function that gives the keys of all objects of `plural`, for changes that concern all."""
    return lambda _: [key_of(o) for o in cache.list(plural)]


def on_spec(cache: Cache, plural: str, keys: Callable[[Object], Iterable[Key]]) -> Callable[[Object], Iterable[Key]]:
    """Return `keys`, but none for a change of an object's status alone: that it says something else concerns nobody."""
    seen: dict[Key, tuple[str, int]] = {}

    def changed(o: Object) -> Iterable[Key]:
        key, meta = key_of(o), o["metadata"]
        mark = (meta.get("uid", ""), meta.get("generation", 0))
        is_there = cache.get(plural, key.namespace, key.name) is not None
        if is_there and mark[1] and seen.get(key) == mark:
            return ()
        seen[key] = mark
        return keys(o)

    return changed


def deleting(o: Object) -> bool:
    """Say whether `o` is on its way out."""
    return bool(o["metadata"].get("deletionTimestamp"))


def tenant_of(cache: Cache, namespace: str) -> Object | None:
    """Return the Tenant whose `namespace` it is, None when it is nobody's."""
    return next((t for t in cache.list("tenants") if namespace in t["spec"].get("namespaces", ())), None)
