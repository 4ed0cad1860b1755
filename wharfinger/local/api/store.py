"""The objects' database: SQLite, every version of every object, and the audit trail beside them.

`versions` is append-only: a row is one object as it was at one resourceVersion, in the bytes that
clients get. `objects` points at the current version of each. So a list joins bytes, a watch replays
rows, a page shows the state of its first page's resourceVersion, and a write stores an object once.
Compaction drops what has been superseded before the floor; whoever asks below it must list again.

One process writes (a lock beside the database says so), through one connection: see `commit`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wharfinger.core import failpoint
from wharfinger.core.document import Json
from wharfinger.core.errors import Corrupt, HostUnfit, WharfingerError, excerpt
from wharfinger.local.api.audit import Record

DATABASE = "objects.db"
"""The database's file, in the API server's own folder of the state directory."""

SCHEMA_VERSION = 1
"""Kept in the file's header (`user_version`); a newer one is refused untouched."""

APPLICATION_ID = 0x57484152
"""`WHAR`, in the file's header: this database is an API server's."""

RESTORE_LEAP = 1 << 20
"""How far resourceVersion jumps when a copy is opened: no client may mistake it for what it watched."""

_CHECK_LIMIT = 64 * 1024 * 1024
_BEFORE_COMMIT, _AFTER_COMMIT = failpoint.declare("objects.commit")
_BEFORE_COPY, _AFTER_COPY = failpoint.declare("objects.copied")
_BEFORE_SCHEMA, _AFTER_SCHEMA = failpoint.declare("objects.schema")
_BEFORE_KINDS, _AFTER_KINDS = failpoint.declare("objects.kinds")
_BEFORE_LEAP, _AFTER_LEAP = failpoint.declare("objects.leap")

_TABLES = """
CREATE TABLE versions(
  rv INTEGER PRIMARY KEY, kind INTEGER NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  change INTEGER NOT NULL, previous INTEGER, body BLOB NOT NULL);
CREATE TABLE objects(
  kind INTEGER NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, rv INTEGER NOT NULL,
  uid TEXT NOT NULL, PRIMARY KEY(kind, namespace, name)) WITHOUT ROWID;
CREATE INDEX objects_uid ON objects(uid);
CREATE TABLE owners(
  owner TEXT NOT NULL, kind INTEGER NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  PRIMARY KEY(owner, kind, namespace, name)) WITHOUT ROWID;
CREATE TABLE deleting(
  kind INTEGER NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  PRIMARY KEY(kind, namespace, name)) WITHOUT ROWID;
CREATE TABLE kinds(id INTEGER PRIMARY KEY, resource TEXT NOT NULL UNIQUE);
CREATE TABLE facts(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE audit(
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, verb TEXT NOT NULL,
  resource TEXT NOT NULL, subresource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  uid TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, code INTEGER NOT NULL,
  reason TEXT NOT NULL);
"""

ADDED, MODIFIED, DELETED = 1, 2, 3
"""What a version did to its object (watch event types)."""


class Version(NamedTuple):
    """One object at one resourceVersion; `body` are the bytes that clients get."""

    rv: int
    namespace: str
    name: str
    change: int
    body: bytes


class Event(NamedTuple):
    """One change as a watch needs it: the object after it and the object before it, if there was one."""

    rv: int
    kind: int
    namespace: str
    name: str
    change: int
    body: bytes
    before: bytes | None


@dataclass(frozen=True, slots=True)
class Key:
    """Where an object lives: its kind's number in this database, its namespace (or ""), its name."""

    kind: int
    namespace: str
    name: str


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours: `Corrupt` for a damaged file, `HostUnfit` for a full or read-only disk."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Corrupt(f"{path}: expected a sound database, got: {error}", hint=_RESTORE) from error
        if code == sqlite3.SQLITE_FULL:
            raise HostUnfit(f"{path}: no space left on the device; nothing was changed") from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise HostUnfit(f"{path}: expected a writable database and directory, got: {error}") from error
        raise HostUnfit(f"{path}: the database failed: {error}") from error


_RESTORE = "restore it from a backup: wharf restore"


class Store:
    """An open database: one writing connection, one reading connection.

    Not for several threads at a time, except that the writer's `commit` may run in another thread
    while this one reads.
    """

    def __init__(self, path: Path, *, max_pages: int = 0) -> None:
        """Open the database at `path`, creating it and its directory's file when absent.

        `max_pages`, when positive, limits the file to that many 4 KiB pages, as a full disk would.
        Raises `Corrupt` when the file is damaged or no database of ours, `HostUnfit` when another
        process has it, it is of a newer schema, or the place cannot be written.
        """
        self.path = path
        _refuse_foreign(path)
        self._lock = _take_lock(path)
        self.parsed: dict[int, Json] = {}
        """Values of durable versions that were parsed lately, by resourceVersion; read only."""
        try:
            with sqlite_errors(path):
                self.writer = _connect(path)
                _prepare(self.writer, path)
                if max_pages:
                    self.writer.execute(f"PRAGMA max_page_count={max_pages}")
                self.reader = _connect(path)
                self.reader.execute("PRAGMA query_only=1")
                self._kinds = dict(self.writer.execute("SELECT resource, id FROM kinds"))
                self.floor = self._fact("floor")
                self.rv = max(self._newest(self.writer), self.floor)
                self._leap_if_copied()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close both connections and give the lock back."""
        self.reader.close()
        self.writer.close()
        os.close(self._lock)

    def enrol(self, resources: Iterable[str]) -> dict[str, int]:
        """Return the numbers of `resources` (`plural.group`) in this database, giving those that are new theirs.

        Not while a transaction is open. Raises `HostUnfit` or `Corrupt`.
        """
        wanted = list(resources)
        fresh = [(resource,) for resource in wanted if resource not in self._kinds]
        if fresh:
            failpoint.reached(_BEFORE_KINDS)
            with sqlite_errors(self.path):
                self.writer.execute("BEGIN IMMEDIATE")
                try:
                    self.writer.executemany("INSERT INTO kinds(resource) VALUES (?)", fresh)
                    self.writer.execute("COMMIT")
                finally:
                    self.rollback()
                self._kinds = dict(self.writer.execute("SELECT resource, id FROM kinds"))
            failpoint.reached(_AFTER_KINDS)
        return {resource: self._kinds[resource] for resource in wanted}

    # Reading: what is committed.

    def newest(self) -> int:
        """Return the newest committed resourceVersion."""
        with sqlite_errors(self.path):
            return max(self._newest(self.reader), self.floor)

    def get(self, key: Key) -> bytes | None:
        """Return the current bytes of the object at `key`, None when there is none."""
        with sqlite_errors(self.path):
            row = self.reader.execute(_GET, (key.kind, key.namespace, key.name)).fetchone()
        return row[0] if row else None

    def page(self, kind: int, namespace: str | None, after: tuple[str, str], limit: int, at: int) -> list[Version]:
        """Return at most `limit` objects of `kind` as they were at resourceVersion `at`, in key order.

        `namespace` None is all of them; `after` is the key of the last object already seen. Objects
        changed since `at` are shown as they were: their later versions lead back to it. The caller
        has checked that `at` is not below the floor.
        """
        low = max(after, (namespace, "")) if namespace is not None else after
        with sqlite_errors(self.path):
            if namespace is None:
                rows = self.reader.execute(_PAGE, (kind, *low, at, limit))
            else:
                rows = self.reader.execute(_PAGE_NAMESPACE, (kind, namespace, low[1], at, limit))
            found = [Version._make(row) for row in rows]
            if self._newest(self.reader) > at:
                changed = (Version._make(row) for row in self.reader.execute(_AS_IT_WAS, (at, kind, at, *low)))
                found += [version for version in changed if namespace is None or version.namespace == namespace]
                found.sort(key=lambda version: (version.namespace, version.name))
        return found[:limit]

    def count(self, kind: int, namespace: str | None) -> int:
        """Return how many objects of `kind` there are."""
        with sqlite_errors(self.path):
            if namespace is None:
                row = self.reader.execute("SELECT count(*) FROM objects WHERE kind=?", (kind,)).fetchone()
            else:
                row = self.reader.execute(
                    "SELECT count(*) FROM objects WHERE kind=? AND namespace=?", (kind, namespace)
                ).fetchone()
        return int(row[0])

    def events(self, kind: int, after: int, limit: int) -> list[Event]:
        """Return at most `limit` changes to objects of `kind` above resourceVersion `after`, oldest first."""
        with sqlite_errors(self.path):
            return [Event._make(row) for row in self.reader.execute(_EVENTS, (after, kind, limit))]

    def audit(self, after: int, limit: int) -> list[tuple[int, Record]]:
        """Return at most `limit` audit records with a number above `after`, oldest first."""
        with sqlite_errors(self.path):
            rows = self.reader.execute("SELECT * FROM audit WHERE id>? ORDER BY id LIMIT ?", (after, limit))
            return [(row[0], Record(*row[1:])) for row in rows]

    def deleting(self) -> list[Key]:
        """Return every object that is marked as going."""
        with sqlite_errors(self.path):
            return [Key(*row) for row in self.reader.execute("SELECT kind, namespace, name FROM deleting")]

    def has_dependents(self, owner: str) -> bool:
        """Say whether an object names the uid `owner` among its owners."""
        with sqlite_errors(self.path):
            return self.reader.execute("SELECT 1 FROM owners WHERE owner=? LIMIT 1", (owner,)).fetchone() is not None

    def orphaned(self) -> list[Key]:
        """Return the objects that name an owner which is not there."""
        with sqlite_errors(self.path):
            return [Key(*row) for row in self.reader.execute(_ORPHANED)]

    def unchanged_since(self, kind: int, rv: int, limit: int) -> list[Key]:
        """Return at most `limit` objects of `kind` that have not changed since resourceVersion `rv`."""
        query = "SELECT kind, namespace, name FROM objects WHERE kind=? AND rv<=? LIMIT ?"
        with sqlite_errors(self.path):
            return [Key(*row) for row in self.reader.execute(query, (kind, rv, limit))]

    # Keeping.

    def compact(self, floor: int) -> None:
        """Forget what was superseded at or below `floor`; call it inside the writer's transaction.

        A version is superseded once, by the version that names it `previous`; so only the rows
        between the old floor and the new one need a look.
        """
        if floor <= self.floor:
            return
        span = (self.floor, floor)
        self.writer.execute(_FORGET_SUPERSEDED, span)
        self.writer.execute("DELETE FROM versions WHERE rv>? AND rv<=? AND change=?", (*span, DELETED))
        self.writer.execute("INSERT OR REPLACE INTO facts(name, value) VALUES ('floor', ?)", (floor,))

    def commit(self) -> None:
        """Make the writer's transaction durable. Raises `HostUnfit` or `Corrupt`; then nothing was written."""
        failpoint.reached(_BEFORE_COMMIT)
        try:
            with sqlite_errors(self.path):
                self.writer.execute("COMMIT")
        except WharfingerError:
            self.rollback()
            raise
        failpoint.reached(_AFTER_COMMIT)

    def rollback(self) -> None:
        """Undo the writer's open transaction, if SQLite has not done so itself."""
        with sqlite_errors(self.path):
            if self.writer.in_transaction:
                self.writer.execute("ROLLBACK")

    def _fact(self, name: str) -> int:
        row = self.writer.execute("SELECT value FROM facts WHERE name=?", (name,)).fetchone()
        return int(row[0]) if row else 0

    @staticmethod
    def _newest(connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT max(rv) FROM versions").fetchone()
        return int(row[0] or 0)

    def _leap_if_copied(self) -> None:
        if not self._fact("copied"):
            return
        failpoint.reached(_BEFORE_LEAP)
        self.writer.execute("BEGIN IMMEDIATE")
        leapt = self.rv + RESTORE_LEAP
        self.compact(leapt)
        self.writer.execute("DELETE FROM facts WHERE name='copied'")
        self.writer.execute("COMMIT")
        self.floor = self.rv = leapt
        failpoint.reached(_AFTER_LEAP)


_GET = (
    "SELECT body FROM objects CROSS JOIN versions USING (rv)"
    " WHERE objects.kind=? AND objects.namespace=? AND objects.name=?"
)
_PAGE = (
    "SELECT rv, objects.namespace, objects.name, change, body FROM objects CROSS JOIN versions USING (rv)"
    " WHERE objects.kind=? AND (objects.namespace, objects.name) > (?, ?) AND objects.rv<=?"
    " ORDER BY objects.namespace, objects.name LIMIT ?"
)
_PAGE_NAMESPACE = (
    "SELECT rv, objects.namespace, objects.name, change, body FROM objects CROSS JOIN versions USING (rv)"
    " WHERE objects.kind=? AND objects.namespace=? AND objects.name>? AND objects.rv<=?"
    " ORDER BY objects.name LIMIT ?"
)
_AS_IT_WAS = (
    "SELECT old.rv, old.namespace, old.name, old.change, old.body FROM versions AS new"
    " JOIN versions AS old ON old.rv=new.previous"
    " WHERE new.rv>? AND new.kind=? AND new.previous<=? AND (old.namespace, old.name) > (?, ?)"
)
_EVENTS = (
    "SELECT new.rv, new.kind, new.namespace, new.name, new.change, new.body, old.body FROM versions AS new"
    " LEFT JOIN versions AS old ON old.rv=new.previous WHERE new.rv>? AND new.kind=? ORDER BY new.rv LIMIT ?"
)
_FORGET_SUPERSEDED = (
    "DELETE FROM versions WHERE rv IN (SELECT previous FROM versions WHERE rv>? AND rv<=? AND previous IS NOT NULL)"
)
_ORPHANED = (
    "SELECT DISTINCT kind, namespace, name FROM owners"
    " WHERE NOT EXISTS (SELECT 1 FROM objects WHERE objects.uid=owners.owner)"
)


def mark_copied(path: Path) -> None:
    """Note in the database at `path`, a copy that nobody has open, that it is one.

    Opening it moves resourceVersion on by `RESTORE_LEAP`, so that clients of the original list again. A file that is
    none of an API server's stays as it is. Raises `HostUnfit` when it cannot be written.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise HostUnfit(f"{path}: cannot be read: {error.strerror}") from error
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        return
    failpoint.reached(_BEFORE_COPY)
    with sqlite_errors(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT OR REPLACE INTO facts(name, value) VALUES ('copied', 1)")
    failpoint.reached(_AFTER_COPY)


def _refuse_foreign(path: Path) -> None:
    """Look at the header before SQLite does, so that a file which is not ours stays untouched."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostUnfit(f"{path}: cannot be read: {error.strerror}") from error
    if not header:
        return
    if len(header) < 100 or header[:16] != b"SQLite format 3\x00":
        raise Corrupt(f"{path}: expected an SQLite database, got {excerpt(header[:16])}", hint=_RESTORE)
    version, application = int.from_bytes(header[60:64], "big"), int.from_bytes(header[68:72], "big")
    if application not in (0, APPLICATION_ID):
        raise Corrupt(f"{path}: expected an API server's database, got application id {application:#x}")
    if version > SCHEMA_VERSION:
        raise HostUnfit(
            f"{path}: expected schema version {SCHEMA_VERSION} or older, got {version}",
            hint="it was written by a newer Wharfinger: use that one",
        )


def _take_lock(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        # SQLite gives the files beside the database the mode of the database: nobody else's from the start.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise HostUnfit(f"{path.parent}: expected a writable directory, got: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise HostUnfit(f"{path}: expected to be the only API server on it, but another holds its lock") from error
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-8000")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        failpoint.reached(_BEFORE_SCHEMA)
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} PRAGMA application_id={APPLICATION_ID};"
            f" PRAGMA user_version={SCHEMA_VERSION}; COMMIT; PRAGMA wal_checkpoint(TRUNCATE);"
        )
        failpoint.reached(_AFTER_SCHEMA)
    elif path.stat().st_size <= _CHECK_LIMIT:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Corrupt(f"{path}: expected a sound database, got: {excerpt(verdict)}", hint=_RESTORE)
