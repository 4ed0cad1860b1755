"""A small world for reconcilers: the ports `Cache` and `Writer` over dictionaries, with the API server's basics.

Every write is seen at once. Generations count changes of the spec, resourceVersions every change; an update that
changes nothing leaves the object alone. Deleting takes what the object owns along; an object with finalizers stays,
with a deletionTimestamp, until the last one goes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from wharfinger.controllers.world import Key, Object, Reconciler
from wharfinger.core.clock import SECOND, Instant, Span, rfc3339
from wharfinger.core.errors import AlreadyExists, Conflict, Invalid, NotFound
from wharfinger.kinds.builtin.registry import BUILTINS
from wharfinger.kinds.kind import Kind
from wharfinger.kinds.registry import KINDS

NOW: Instant = 1_800_000_000 * SECOND
_ALL: tuple[Kind, ...] = (*KINDS, *(builtin.kind for builtin in BUILTINS))
_BY_KIND = {(kind.api_version, kind.name): kind for kind in _ALL}
_BY_PLURAL = {kind.plural: kind for kind in _ALL}


class SetClock:
    """`core.clock.Clock` that is set by hand."""

    def __init__(self, now: Instant = NOW) -> None:
        self.at = now

    def now(self) -> Instant:
        """Return what was set."""
        return self.at

    def monotonic(self) -> Span:
        """Return the same as a span."""
        return self.at

    def pass_(self, span: Span) -> None:
        """Let `span` pass."""
        self.at += span


class CountedIds:
    """`core.ids.Ids` that counts."""

    def __init__(self) -> None:
        self._next = count(1)

    def uid(self) -> str:
        """Return the next number as a UUID."""
        return f"00000000-0000-4000-8000-{next(self._next):012d}"

    def suffix(self) -> str:
        """Return the next number as a suffix."""
        return f"{next(self._next):05d}"


class World:
    """Objects; `events` is (namespace/name, reason, message), `writes` the verbs in the order they came."""

    def __init__(self, *objects: Mapping[str, Any], clock: SetClock | None = None) -> None:
        self.clock = clock or SetClock()
        self.ids = CountedIds()
        self.events: list[tuple[str, str, str]] = []
        self.writes: list[tuple[str, str, str]] = []
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._version = 0
        for told in objects:
            self.put(told)

    def put(self, told: Mapping[str, Any]) -> Object:
        """Have an object there, status and all, as somebody else made it."""
        kind = _kind(told)
        fresh: dict[str, Any] = copy.deepcopy(dict(told))
        meta = fresh.setdefault("metadata", {})
        old = self._objects.get(self._key(kind.plural, meta.get("namespace", ""), meta["name"]))
        meta.setdefault("uid", old["metadata"]["uid"] if old else self.ids.uid())
        meta.setdefault("creationTimestamp", rfc3339(self.clock.now()))
        meta.setdefault("generation", 1 + (old["metadata"]["generation"] if old else 0))
        return self._store(kind.plural, fresh)

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return a copy of an object."""
        return copy.deepcopy(self._objects.get(self._key(plural, namespace, name)))

    def must(self, plural: str, namespace: str, name: str) -> Any:
        """Return an object that is there."""
        found = self.get(plural, namespace, name)
        assert found is not None, f"no {plural} {namespace}/{name} among {sorted(self._objects)}"
        return found

    def list(self, plural: str, namespace: str = "") -> Sequence[Object]:
        """Return copies of the objects of a kind, by name."""
        return [
            copy.deepcopy(o)
            for (kind, where, _), o in sorted(self._objects.items())
            if kind == plural and namespace in ("", where)
        ]

    def apply(self, desired: Mapping[str, Any]) -> Object:
        """Apply: what is there and what is desired, merged."""
        kind, meta = _kind(desired), desired["metadata"]
        self.writes.append(("apply", kind.plural, meta["name"]))
        old = self._objects.get(self._key(kind.plural, meta.get("namespace", ""), meta["name"]))
        if old is None:
            return self.put(desired)
        return self._change(kind.plural, old, merged(old, desired))

    def create(self, desired: Mapping[str, Any]) -> Object:
        """Create; raises `AlreadyExists`."""
        kind = _kind(desired)
        meta = dict(desired["metadata"])
        meta.setdefault("name", f"{meta.get('generateName', '')}{self.ids.suffix()}")
        self.writes.append(("create", kind.plural, meta["name"]))
        if self._key(kind.plural, meta.get("namespace", ""), meta["name"]) in self._objects:
            raise AlreadyExists(f"{kind.plural} {meta['name']} exists")
        return self.put({key: value for key, value in {**desired, "metadata": meta}.items() if key != "status"})

    def patch(self, plural: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Object:
        """JSON merge patch of all but the status."""
        self.writes.append(("patch", plural, name))
        old = self._there(plural, namespace, name)
        return self._change(plural, old, merged(old, {k: v for k, v in patch.items() if k != "status"}))

    def status(self, plural: str, namespace: str, name: str, status: Mapping[str, Any], *, version: str = "") -> Object:
        """Merge into the status, of that version alone when one is given."""
        self.writes.append(("status", plural, name))
        old = self._there(plural, namespace, name)
        if version and old["metadata"]["resourceVersion"] != version:
            raise Conflict(f"{plural} {name} has changed since")
        return self._change(plural, old, merged(old, {"status": status}))

    def delete(self, plural: str, namespace: str, name: str, uid: str = "", grace: int | None = None) -> None:
        """Delete, with what it owns; absent is fine."""
        self.writes.append(("delete", plural, name))
        key = self._key(plural, namespace, name)
        held = self._objects.get(key)
        if held is None:
            return
        if uid and held["metadata"]["uid"] != uid:
            raise Conflict(f"{plural} {name} is another by now")
        if held["metadata"].get("finalizers"):
            fresh = copy.deepcopy(held)
            fresh["metadata"]["deletionTimestamp"] = rfc3339(self.clock.now())
            self._store(plural, fresh)
            return
        del self._objects[key]
        for (kind, where, other), o in list(self._objects.items()):
            owners = o["metadata"].get("ownerReferences") or ()
            if any(reference.get("uid") == held["metadata"]["uid"] for reference in owners):
                self.delete(kind, where, other)

    def event(self, about: Mapping[str, Any], reason: str, message: str, *, warning: bool) -> None:
        """Remember an event."""
        meta = about["metadata"]
        self.events.append((f"{meta.get('namespace', '')}/{meta['name']}", reason, message))

    def settle(self, *reconcilers: Reconciler, rounds: int = 50) -> None:
        """Reconcile every object of every reconciler's kind until nothing changes any more.

        Fails when that takes more than `rounds`: then a reconciler does not come to rest.
        """
        for _ in range(rounds):
            before = self._version
            for reconciler in reconcilers:
                for o in self.list(reconciler.kind):
                    meta = o["metadata"]
                    reconciler.reconcile(Key(meta.get("namespace", ""), meta["name"]), self.clock.now())
            if self._version == before:
                return
        raise AssertionError(f"no rest after {rounds} rounds; last writes {self.writes[-5:]}")

    def _there(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        held = self._objects.get(self._key(plural, namespace, name))
        if held is None:
            raise NotFound(f"no {plural} {namespace}/{name}")
        return held

    def _change(self, plural: str, old: dict[str, Any], fresh: dict[str, Any]) -> Object:
        if fresh == old:
            return copy.deepcopy(old)
        if fresh.get("spec") != old.get("spec"):
            fresh["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        meta = fresh["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self._objects[self._key(plural, meta.get("namespace", ""), meta["name"])] = fresh
            self.delete(plural, meta.get("namespace", ""), meta["name"])
            self._version += 1
            return fresh
        return self._store(plural, fresh)

    def _store(self, plural: str, fresh: dict[str, Any]) -> Object:
        self._version += 1
        meta = fresh["metadata"]
        meta["resourceVersion"] = str(self._version)
        self._objects[self._key(plural, meta.get("namespace", ""), meta["name"])] = fresh
        return copy.deepcopy(fresh)

    @staticmethod
    def _key(plural: str, namespace: str, name: str) -> tuple[str, str, str]:
        return plural, namespace if _BY_PLURAL[plural].namespaced else "", name


def merged(old: Any, patch: Any) -> Any:
    """Return `old` with the JSON merge patch `patch` on it (RFC 7396); neither is changed."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    made = copy.deepcopy(dict(old)) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), value)
    return made


def _kind(told: Mapping[str, Any]) -> Kind:
    try:
        return _BY_KIND[told["apiVersion"], told["kind"]]
    except KeyError as error:
        raise Invalid(f"expected a kind that is served, got {error}") from error
