"""Garbage collection and the end of namespaces: what goes because something else went.

An object whose owners are all gone goes; one that is deleted in the foreground waits for the dependents
that block it; one that is orphaned lets its dependents go first; a namespace that is going takes what is
in it along. All of it follows from stored state, so that a crash anywhere is followed by the same end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Final, Literal, NamedTuple

import orjson

from wharfinger.core.clock import Clock
from wharfinger.core.document import Json
from wharfinger.core.errors import WharfingerError
from wharfinger.kinds.condition import condition
from wharfinger.local.api.commit import Committer, Held, Transaction, owners
from wharfinger.local.api.deletion import FOREGROUND, ORPHAN
from wharfinger.local.api.objects import Call, Objects, finalized
from wharfinger.local.api.request import DeleteOptions, Target, WriteOptions
from wharfinger.local.api.served import Catalogue, Resource
from wharfinger.local.api.store import DELETED, Event, Key, Store

_log = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 1.0
_AT_ONCE: Final = 200
_TOGETHER: Final = 64
"""Follow-ups that share a commit."""


class Work(NamedTuple):
    """One thing to look at: an object whose `owner` may be gone, one that is `going`, or dependents of a uid."""

    what: Literal["dependent", "going", "uid"]
    key: Key | None = None
    uid: str = ""


class Collector:
    """Watches every change and follows it up. `who` is the identity in its audit records."""

    def __init__(
        self, catalogue: Catalogue, store: Store, committer: Committer, objects: Objects, clock: Clock, who: str
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._committer = committer
        self._objects = objects
        self._clock = clock
        self._who = who
        self._namespaces = catalogue.named("namespaces").number
        self._ending: set[str] = set()
        self._waiting: dict[Work, None] = {}
        self._doing: list[Work] = []
        self._wake = asyncio.Event()

    def notice(self, events: Sequence[Event]) -> None:
        """Take note of durable changes that something may follow from. Cheap for all others."""
        for event in events:
            body = event.body
            if event.change == DELETED:
                self._add(self._after_deletion(event))
                continue
            if b'"deletionTimestamp"' in body:
                if event.kind == self._namespaces:
                    self._ending.add(event.name)
                self._add([Work("going", Key(event.kind, event.namespace, event.name))])
            if b'"ownerReferences"' in body or (event.before and b'"ownerReferences"' in event.before):
                self._add(_after_change_of_owners(event))

    def _after_deletion(self, event: Event) -> Iterable[Work]:
        value = orjson.loads(event.body)
        uid = value["metadata"]["uid"]
        if self._store.has_dependents(uid):
            yield Work("uid", uid=uid)
        for owner in owners(value):
            yield Work("uid", uid=owner)
        if event.kind == self._namespaces:
            self._ending.discard(event.name)
        if event.namespace in self._ending:
            yield Work("going", Key(self._namespaces, "", event.namespace))

    def _add(self, work: Iterable[Work]) -> None:
        for item in work:
            self._waiting[item] = None
            self._wake.set()

    async def run(self) -> None:
        """Follow up, for ever; first what an earlier process left unfinished."""
        going = self._store.deleting()
        self._ending.update(key.name for key in going if key.kind == self._namespaces)
        self._add(Work("going", key) for key in going)
        self._add(Work("dependent", key) for key in self._store.orphaned())
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            self._doing = list(islice(self._waiting, _TOGETHER))
            for work in self._doing:
                del self._waiting[work]
            failed = [work for work in await asyncio.gather(*map(self._try, self._doing)) if work is not None]
            self._doing = []
            if failed:
                self._add(failed)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _try(self, work: Work) -> Work | None:
        """Do `work`; return it when it has to be tried again."""
        try:
            await self._committer.run(partial(self._do, work))
        except WharfingerError as error:
            _log.warning("follow-up failed, trying again", extra={"fields": {"work": str(work), "error": str(error)}})
            return work
        return None

    async def settle(self) -> None:
        """Wait until nothing is left to follow up (for tests and for the end of a process)."""
        while self._waiting or self._doing:
            await asyncio.sleep(0.001)

    def _do(self, work: Work, transaction: Transaction) -> None:
        if work.what == "uid":
            found = transaction.at_uid(work.uid)
            if found is not None:
                self._going(transaction, *found)
                return
            self._add(Work("dependent", key) for key in transaction.dependents(work.uid))
            return
        assert work.key is not None
        held = transaction.get(work.key)
        if held is None:
            return
        if work.what == "dependent":
            self._dependent(transaction, work.key, held)
        else:
            self._going(transaction, work.key, held)

    # Dependents

    def _dependent(self, transaction: Transaction, key: Key, held: Held) -> None:
        """Let an object go when no owner is left that it should stay for."""
        references = held.value["metadata"].get("ownerReferences") or []
        solid, waiting = [], []
        for reference in references:
            found = transaction.at_uid(reference["uid"])
            if found is None or found[0].namespace not in {"", key.namespace}:
                continue
            if _waits_for_dependents(found[1].value):
                waiting.append(reference)
            else:
                solid.append(reference)
        if solid:
            if len(solid) != len(references):
                self._set(transaction, key, held, "ownerReferences", solid)
            return
        if not references or held.value["metadata"].get("deletionTimestamp"):
            return
        own = held.value["metadata"].get("finalizers") or []
        if waiting and transaction.dependents(held.value["metadata"]["uid"]):
            propagation: Literal["Foreground", "Orphan", "Background"] = "Foreground"
        else:
            propagation = "Orphan" if ORPHAN in own else "Foreground" if FOREGROUND in own else "Background"
        self._delete(transaction, key, held, propagation)

    # What is going

    def _going(self, transaction: Transaction, key: Key, held: Held) -> None:
        """Do for an object that is marked what it waits for."""
        metadata = held.value["metadata"]
        if not metadata.get("deletionTimestamp"):
            return
        finalizers = metadata.get("finalizers") or []
        if ORPHAN in finalizers:
            for dependent in transaction.dependents(metadata["uid"]):
                self._disown(transaction, dependent, metadata["uid"])
            self._set(transaction, key, held, "finalizers", [name for name in finalizers if name != ORPHAN])
        elif FOREGROUND in finalizers:
            blocked = False
            for dependent in transaction.dependents(metadata["uid"]):
                child = transaction.get(dependent)
                if child is None:
                    continue
                self._dependent(transaction, dependent, child)
                child = transaction.get(dependent)
                blocked = blocked or (child is not None and _blocks(transaction, child, metadata["uid"]))
            if not blocked:
                self._set(transaction, key, held, "finalizers", [name for name in finalizers if name != FOREGROUND])
        elif key.kind == self._namespaces:
            self._namespace(transaction, key, held)

    def _disown(self, transaction: Transaction, key: Key, owner: str) -> None:
        held = transaction.get(key)
        if held is not None:
            references = held.value["metadata"].get("ownerReferences") or []
            left = [reference for reference in references if reference["uid"] != owner]
            self._set(transaction, key, held, "ownerReferences", left)

    def _namespace(self, transaction: Transaction, key: Key, held: Held) -> None:
        """Delete what is in a namespace that is going; when nothing is left, let it go."""
        name = key.name
        deleted = 0
        for number in transaction.kinds_in(name):
            for inner in transaction.keys(number, name):
                content = transaction.get(inner)
                if content is None or content.value["metadata"].get("deletionTimestamp"):
                    continue
                self._delete(transaction, inner, content, "Background")
                deleted += 1
                if deleted >= _AT_ONCE:
                    self._add([Work("going", key)])
                    return
        left = {number: len(transaction.keys(number, name)) for number in transaction.kinds_in(name)}
        if left:
            self._tell_what_is_left(transaction, key, held, left)
            return
        spec = held.value.get("spec") or {}
        others = [finalizer for finalizer in spec.get("finalizers") or [] if finalizer != "kubernetes"]
        if others != (spec.get("finalizers") or []):
            call = self._call(self._catalogue.named("namespaces"), key)
            self._objects.store(transaction, call, held, finalized(held.value, others))

    def _tell_what_is_left(self, transaction: Transaction, key: Key, held: Held, left: dict[int, int]) -> None:
        names = []
        for number, count in sorted(left.items()):
            resource = self._catalogue.numbered(number)
            names.append(f"{resource.kind.resource if resource else 'unknown kind'} has {count} resource instances")
        status = held.value.get("status") or {}
        message = f"Some resources are remaining: {', '.join(names)}"
        now = self._clock.now()
        conditions = condition(
            status.get("conditions"), "NamespaceContentRemaining", True, "SomeResourcesRemain", message, 0, now
        )
        for entry in conditions:
            entry.pop("observedGeneration", None)
        if conditions != (status.get("conditions") or []):
            new = {
                **held.value,
                "metadata": dict(held.value["metadata"]),
                "status": {**status, "conditions": conditions},
            }
            call = self._call(self._catalogue.named("namespaces"), key)
            self._objects.store(transaction, call, held, new)

    # Steps

    def _call(self, resource: Resource, key: Key) -> Call:
        kind = resource.kind
        target = Target(kind.group, kind.version, kind.plural, key.namespace, key.name)
        return Call(self._who, "delete", target, resource, WriteOptions(), "wharfinger-collector", self._clock.now())

    def _delete(
        self,
        transaction: Transaction,
        key: Key,
        held: Held,
        propagation: Literal["Foreground", "Orphan", "Background"],
    ) -> None:
        resource = self._catalogue.numbered(key.kind)
        if resource is not None:
            options = DeleteOptions(propagation=propagation)
            self._objects.delete_held(transaction, self._call(resource, key), held, options)

    def _set(self, transaction: Transaction, key: Key, held: Held, field: str, entries: list[Json]) -> None:
        """Set a list of the object's metadata, or remove it when it is empty; a no-op when it is that already."""
        metadata = dict(held.value["metadata"])
        if (metadata.get(field) or []) == entries:
            return
        if entries:
            metadata[field] = entries
        else:
            metadata.pop(field, None)
        resource = self._catalogue.numbered(key.kind)
        if resource is not None:
            call = self._call(resource, key)
            call.verb = "update"
            self._objects.store(transaction, call, held, {**held.value, "metadata": metadata})


def _after_change_of_owners(event: Event) -> Iterable[Work]:
    """Yield what may follow from an object's owners: nothing when they are as they were.

    One that went may have waited for this object; whether this object stays is for those that it has now to say.
    """
    value = orjson.loads(event.body)
    before = orjson.loads(event.before) if event.before is not None else None
    if before is not None:
        if before["metadata"].get("ownerReferences") == value["metadata"].get("ownerReferences"):
            return
        for owner in owners(before):
            yield Work("uid", uid=owner)
    yield Work("dependent", Key(event.kind, event.namespace, event.name))


def _waits_for_dependents(value: Json) -> bool:
    metadata = value["metadata"]
    return bool(metadata.get("deletionTimestamp")) and FOREGROUND in (metadata.get("finalizers") or [])


def _blocks(transaction: Transaction, child: Held, owner: str) -> bool:
    """Say whether `child` keeps its `owner` from going: it says so, and does not itself wait for the owner."""
    references = child.value["metadata"].get("ownerReferences") or []
    if not any(reference["uid"] == owner and reference.get("blockOwnerDeletion") for reference in references):
        return False
    return not _awaits(transaction, child, owner)


def _awaits(transaction: Transaction, start: Held, target: str) -> bool:
    """Say whether the deletion of `start` waits, through dependents of dependents, for the uid `target`: a cycle."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        value = waiting.pop().value
        uid = value["metadata"]["uid"]
        if uid in seen or not _waits_for_dependents(value):
            continue
        seen.add(uid)
        for key in transaction.dependents(uid):
            held = transaction.get(key)
            if held is None:
                continue
            if held.value["metadata"]["uid"] == target:
                return True
            waiting.append(held)
    return False
