"""Mutations, one after another, made durable together.

A mutation is a function of a `Transaction`: it reads the state as all mutations before it left it,
decides, and writes. Those that wait while a commit is under way run back to back in the next
transaction and share its fsync (group commit); each is answered only when its transaction is durable,
and only then do watchers see its events. A mutation that raises leaves nothing behind but what it
asked to be recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import orjson

from wharfinger.core.digests import sha256
from wharfinger.core.document import Json
from wharfinger.core.errors import WharfingerError
from wharfinger.local.api.audit import Record
from wharfinger.local.api.faults import DEFECTS, Defect
from wharfinger.local.api.store import ADDED, DELETED, MODIFIED, Event, Key, Store, sqlite_errors

T = TypeVar("T")
_log = logging.getLogger(__name__)

_BATCH = 64
"""Mutations in one transaction: enough to share an fsync, few enough that reads are not kept waiting."""


_PARSED = 4000
"""Parsed objects that are kept for those who look at many, such as admission."""


class Held(NamedTuple):
    """An object as it is stored: its bytes and the value that they hold."""

    body: bytes
    value: Json

    @property
    def rv(self) -> int:
        """The resourceVersion it was stored at."""
        return int(self.value["metadata"]["resourceVersion"])


class Transaction:
    """What a mutation reads and writes. Every write is one resourceVersion and one event.

    A mutation that sets `dry` writes nothing: it is told what the writes would have given.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._connection = store.writer
        self.rv = store.rv
        self.events: list[Event] = []
        self.dry = False

    def get(self, key: Key) -> Held | None:
        """Return the object at `key`, None when there is none."""
        row = self._connection.execute(_GET, (key.kind, key.namespace, key.name)).fetchone()
        return Held(row[0], orjson.loads(row[0])) if row else None

    def keys(self, kind: int, namespace: str | None) -> list[Key]:
        """Return the keys of all objects of `kind`, of one `namespace` or (None) of all."""
        if namespace is None:
            rows = self._connection.execute("SELECT namespace, name FROM objects WHERE kind=?", (kind,))
        else:
            rows = self._connection.execute(
                "SELECT namespace, name FROM objects WHERE kind=? AND namespace=?", (kind, namespace)
            )
        return [Key(kind, *row) for row in rows]

    def values(self, kind: int, namespace: str | None) -> list[Json]:
        """Return all objects of `kind`, of one `namespace` or (None) of all; to be read, never changed."""
        query, known = "SELECT rv FROM objects WHERE kind=?", self._store.parsed
        if namespace is None:
            versions = self._connection.execute(query, (kind,))
        else:
            versions = self._connection.execute(f"{query} AND namespace=?", (kind, namespace))
        return [known.get(rv) or self._parsed(rv) for (rv,) in versions.fetchall()]

    def _parsed(self, rv: int) -> Json:
        """Return the value stored at `rv`; what is durable there never changes, so it is kept."""
        (body,) = self._connection.execute("SELECT body FROM versions WHERE rv=?", (rv,)).fetchone()
        value = orjson.loads(body)
        if rv <= self._store.rv:
            if len(self._store.parsed) >= _PARSED:
                self._store.parsed.clear()
            self._store.parsed[rv] = value
        return value

    def at_uid(self, uid: str) -> tuple[Key, Held] | None:
        """Return the object with this uid and where it lives, None when there is none."""
        query = "SELECT kind, namespace, name FROM objects WHERE uid=?"
        row = self._connection.execute(query, (uid,)).fetchone()
        held = self.get(Key(*row)) if row else None
        return (Key(*row), held) if held is not None else None

    def dependents(self, owner: str) -> list[Key]:
        """Return the objects that name the uid `owner` among their owners."""
        rows = self._connection.execute("SELECT kind, namespace, name FROM owners WHERE owner=?", (owner,))
        return [Key(*row) for row in rows]

    def kinds_in(self, namespace: str) -> list[int]:
        """Return the kinds that have objects in `namespace`."""
        rows = self._connection.execute("SELECT DISTINCT kind FROM objects WHERE namespace=?", (namespace,))
        return [row[0] for row in rows]

    def create(self, key: Key, value: Json) -> Held:
        """Store a new object; its resourceVersion is set here."""
        return self._write(key, ADDED, value, None)

    def update(self, key: Key, value: Json, before: Held) -> Held:
        """Store the object's next version."""
        return self._write(key, MODIFIED, value, before)

    def delete(self, key: Key, before: Held) -> Held:
        """Remove the object; what is returned is its last state, at the resourceVersion of its deletion."""
        value = {**before.value, "metadata": dict(before.value["metadata"])}
        return self._write(key, DELETED, value, before)

    def record(self, record: Record) -> None:
        """Append to the audit trail, in this transaction."""
        self._connection.execute(_AUDIT, record)

    def _write(self, key: Key, change: int, value: Json, before: Held | None) -> Held:
        metadata = value["metadata"]
        if self.dry:
            return Held(orjson.dumps(value), value)
        self.rv += 1
        metadata["resourceVersion"] = str(self.rv)
        body = orjson.dumps(value)
        execute = self._connection.execute
        previous = before.rv if before else None
        row = (self.rv, key.kind, key.namespace, key.name, change, previous, body)
        execute("INSERT INTO versions VALUES (?,?,?,?,?,?,?)", row)
        place = (key.kind, key.namespace, key.name)
        if change == ADDED:
            execute("INSERT INTO objects VALUES (?,?,?,?,?)", (*place, self.rv, metadata["uid"]))
        elif change == MODIFIED:
            execute("UPDATE objects SET rv=? WHERE kind=? AND namespace=? AND name=?", (self.rv, *place))
        else:
            execute("DELETE FROM objects WHERE kind=? AND namespace=? AND name=?", place)
        old, new = before.value if before else None, value if change != DELETED else None
        self._own(place, old, new)
        self._mark(place, old, new)
        self.events.append(
            Event(self.rv, key.kind, key.namespace, key.name, change, body, before.body if before else None)
        )
        return Held(body, value)

    def _own(self, place: tuple[int, str, str], before: Json | None, after: Json | None) -> None:
        old, new = owners(before), owners(after)
        if old == new:
            return
        for owner in old - new:
            query = "DELETE FROM owners WHERE owner=? AND kind=? AND namespace=? AND name=?"
            self._connection.execute(query, (owner, *place))
        for owner in new - old:
            self._connection.execute("INSERT INTO owners VALUES (?,?,?,?)", (owner, *place))

    def _mark(self, place: tuple[int, str, str], before: Json | None, after: Json | None) -> None:
        was, now = _is_going(before), _is_going(after)
        if now and not was:
            self._connection.execute("INSERT OR REPLACE INTO deleting VALUES (?,?,?)", place)
        elif was and not now:
            self._connection.execute("DELETE FROM deleting WHERE kind=? AND namespace=? AND name=?", place)


def _is_going(value: Json | None) -> bool:
    return value is not None and value["metadata"].get("deletionTimestamp") is not None


def owners(value: Json | None) -> frozenset[str]:
    """Return the uids of the owners that an object names."""
    references = value["metadata"].get("ownerReferences") if value else None
    return frozenset(reference["uid"] for reference in references) if references else frozenset()


def digest(held: Held | None) -> str:
    """Return the digest of the object's bytes, empty for no object."""
    return sha256(held.body) if held else ""


_GET = (
    "SELECT body FROM objects CROSS JOIN versions USING (rv)"
    " WHERE objects.kind=? AND objects.namespace=? AND objects.name=?"
)
_AUDIT = (
    "INSERT INTO audit(at, who, verb, resource, subresource, namespace, name, uid, before, after, code, reason)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)

Mutation = Callable[[Transaction], Any]


class Committer:
    """Runs mutations in the event loop's thread and their commits in a thread of its own."""

    def __init__(
        self,
        store: Store,
        publish: Callable[[Sequence[Event]], None],
        committed: Callable[[int, float], None] = lambda _mutations, _seconds: None,
    ) -> None:
        """Write to `store`; hand the events of every durable transaction to `publish`, in order.

        `committed` is told how many mutations a transaction had and how many seconds it took to become durable.
        """
        self._store = store
        self._committed = committed
        self._publish = publish
        self._thread = ThreadPoolExecutor(1, "commit")
        self._waiting: deque[tuple[Mutation, asyncio.Future[Any]]] = deque()
        self._busy: asyncio.Task[None] | None = None

    async def run(self, mutation: Callable[[Transaction], T]) -> T:
        """Run `mutation` and return its result once it is durable.

        Raises what the mutation raises; `HostUnfit` or `Corrupt` when the database cannot take it,
        and then nothing of it was written.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((mutation, done))
        if self._busy is None:
            self._busy = asyncio.create_task(self._drain())
        return await done

    async def compact(self, floor: int) -> None:
        """Forget the history at or below resourceVersion `floor`."""

        def forget(_: Transaction) -> None:
            self._store.compact(floor)

        await self.run(forget)
        self._store.floor = max(self._store.floor, floor)

    async def close(self) -> None:
        """Finish what is under way."""
        if self._busy is not None:
            await self._busy
        self._thread.shutdown()

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._batch()
        finally:
            self._busy = None

    async def _batch(self) -> None:
        transaction = Transaction(self._store)
        answers: list[tuple[asyncio.Future[Any], Any, WharfingerError | None]] = []
        try:
            with sqlite_errors(self._store.path):
                before = self._store.writer.total_changes
                self._store.writer.execute("BEGIN IMMEDIATE")
                while self._waiting and len(answers) < _BATCH:
                    mutation, done = self._waiting.popleft()
                    answers.append((done, None, None))
                    answers[-1] = (done, *self._one(transaction, mutation))
                changed = self._store.writer.total_changes != before
            if changed:
                loop = asyncio.get_running_loop()
                began = loop.time()
                await loop.run_in_executor(self._thread, self._store.commit)
                self._committed(len(answers), loop.time() - began)
            else:
                self._store.rollback()
        except WharfingerError as error:
            self._store.rollback()
            for done, _, _ in answers:
                _settle(done, None, error)
            return
        self._store.rv = transaction.rv
        if transaction.events:
            self._publish(transaction.events)
        for done, result, failure in answers:
            _settle(done, result, failure)

    def _one(self, transaction: Transaction, mutation: Mutation) -> tuple[Any, WharfingerError | None]:
        """Run one mutation; what it raises undoes its writes and is its answer."""
        rv, seen = transaction.rv, len(transaction.events)
        self._store.writer.execute("SAVEPOINT mutation")
        failure: WharfingerError
        try:
            result = mutation(transaction)
        except WharfingerError as error:
            failure = error
        except DEFECTS as defect:
            _log.exception("a mutation failed by a defect of ours")
            failure = Defect(f"the server failed: {type(defect).__name__}")
        else:
            self._store.writer.execute("RELEASE mutation")
            transaction.dry = False
            return result, None
        self._store.writer.execute("ROLLBACK TO mutation")
        self._store.writer.execute("RELEASE mutation")
        transaction.rv, transaction.dry = rv, False
        del transaction.events[seen:]
        return None, failure


def _settle(done: asyncio.Future[Any], result: Any, error: WharfingerError | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
