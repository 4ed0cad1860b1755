"""The registry's catalog: which repository holds which manifests, blobs and tags, in SQLite.

Bytes are in `storage`; here is what may be reached from where. A blob belongs to a repository because somebody who
may push there uploaded or mounted it there. One connection writes, each commit is on disk; another reads beside it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wharfinger.core import failpoint
from wharfinger.core.document import canonical, parse_json
from wharfinger.core.errors import Corrupt, HostUnfit, NotFound
from wharfinger.supply.disk import StorageFull
from wharfinger.supply.registry.oci import Descriptor, Manifest, is_digest

SCHEMA_VERSION: Final = 1
MOST_WAYS: Final = 1000
"""Manifests that are looked at for one that opens a blob."""
_BEFORE, _AFTER = failpoint.declare("registry.catalog")
_SCHEMA: Final = """
CREATE TABLE blob (
    repository TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX blob_digest ON blob (digest);
CREATE TABLE manifest (
    repository TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, kind TEXT NOT NULL,
    subject TEXT NOT NULL, size INTEGER NOT NULL, annotations BLOB NOT NULL,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX manifest_subject ON manifest (repository, subject) WHERE subject != '';
CREATE INDEX manifest_digest ON manifest (digest);
CREATE TABLE part (
    repository TEXT NOT NULL, digest TEXT NOT NULL, manifest TEXT NOT NULL,
    PRIMARY KEY (repository, digest, manifest)) WITHOUT ROWID;
CREATE TABLE tag (
    repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (repository, tag)) WITHOUT ROWID;
"""


class MissingBlob(NotFound):
    """A manifest needs a blob or a manifest that its repository does not hold."""


@dataclass(frozen=True, slots=True)
class Held:
    """A manifest as a repository holds it; `subject` is empty where it has none."""

    digest: str
    media_type: str
    size: int
    subject: str = ""


class Catalog:
    """The catalog at `path`; threads share it. Raises `HostUnfit` or `Corrupt` when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        """Held while bytes and catalog change together."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._writer = _connect(path)
            (version,) = self._writer.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._writer.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
            elif version != SCHEMA_VERSION:
                raise Corrupt(f"registry catalog: expected version {SCHEMA_VERSION}, got {version}")
            self._local = threading.local()
            self._path = path
        except sqlite3.Error as error:
            raise _wrapped(error) from error
        except OSError as error:
            raise HostUnfit(f"registry catalog: {error.strerror}") from error

    def close(self) -> None:
        """Close the writing connection; the readers go with their threads."""
        with self.lock:
            self._writer.close()

    def add_blob(self, repository: str, digest: str, size: int) -> None:
        """Have `repository` hold the blob. Raises `HostUnfit`."""
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO blob VALUES (?, ?, ?)", (repository, digest, size))

    def add_manifest(self, repository: str, digest: str, size: int, manifest: Manifest, tag: str = "") -> None:
        """Have `repository` hold the manifest, under `tag` where one is given.

        Raises `MissingBlob` unless the repository holds everything that it needs, `HostUnfit`.
        """
        with self._writing() as connection:
            for blob in manifest.blobs:
                row = connection.execute(
                    "SELECT size FROM blob WHERE repository = ? AND digest = ?", (repository, blob.digest)
                ).fetchone()
                if row is None:
                    raise MissingBlob(f"{repository} holds no blob {blob.digest}", hint="push the blobs first")
                if row[0] != blob.size:
                    raise MissingBlob(f"blob {blob.digest}: the manifest says {blob.size} bytes, it has {row[0]}")
            for child in manifest.children:
                if self._manifest(connection, repository, child.digest) is None:
                    raise MissingBlob(f"{repository} holds no manifest {child.digest}", hint="push it first")
            subject = manifest.subject.digest if manifest.subject is not None else ""
            connection.execute(
                "INSERT OR REPLACE INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?)",
                (repository, digest, manifest.media_type, manifest.kind, subject, size,
                 canonical(dict(manifest.annotations))),
            )  # fmt: skip
            connection.executemany(
                "INSERT OR IGNORE INTO part VALUES (?, ?, ?)",
                [(repository, needed.digest, digest) for needed in (*manifest.blobs, *manifest.children)],
            )
            if tag:
                connection.execute("INSERT OR REPLACE INTO tag VALUES (?, ?, ?)", (repository, tag, digest))

    def delete_tag(self, repository: str, tag: str) -> None:
        """Forget a tag; its manifest stays. Raises `NotFound`."""
        with self._writing() as connection:
            done = connection.execute("DELETE FROM tag WHERE repository = ? AND tag = ?", (repository, tag))
            if done.rowcount == 0:
                raise NotFound(f"{repository} has no tag {tag}")

    def delete_manifest(self, repository: str, digest: str) -> list[str]:
        """Forget a manifest, its tags, and the blobs that nothing in the repository needs any more.

        Returns the digests that no repository holds now. Raises `NotFound`.
        """
        with self._writing() as connection:
            key = (repository, digest)
            if connection.execute("DELETE FROM manifest WHERE repository = ? AND digest = ?", key).rowcount == 0:
                raise NotFound(f"{repository} has no manifest {digest}")
            connection.execute("DELETE FROM tag WHERE repository = ? AND digest = ?", key)
            needed = [
                found
                for (found,) in connection.execute(
                    "SELECT digest FROM part WHERE repository = ? AND manifest = ?", key
                ).fetchall()
            ]
            connection.execute("DELETE FROM part WHERE repository = ? AND manifest = ?", key)
            for blob in needed:
                connection.execute(
                    "DELETE FROM blob WHERE repository = ?1 AND digest = ?2 AND NOT EXISTS "
                    "(SELECT 1 FROM part WHERE repository = ?1 AND digest = ?2)",
                    (repository, blob),
                )
            return [each for each in (digest, *needed) if not self._anywhere(connection, each)]

    def delete_blob(self, repository: str, digest: str) -> list[str]:
        """Forget a blob that no manifest needs; return what no repository holds now.

        Raises `NotFound`, `MissingBlob` when a manifest needs it.
        """
        with self._writing() as connection:
            key = (repository, digest)
            if connection.execute("SELECT 1 FROM part WHERE repository = ? AND digest = ?", key).fetchone():
                raise MissingBlob(f"blob {digest} is needed by a manifest", hint="delete the manifest")
            if connection.execute("DELETE FROM blob WHERE repository = ? AND digest = ?", key).rowcount == 0:
                raise NotFound(f"{repository} has no blob {digest}")
            return [] if self._anywhere(connection, digest) else [digest]

    def resolve(self, repository: str, reference: str) -> Held | None:
        """Return the manifest that a tag or digest names in `repository`, None when it names none."""
        digest = reference
        with self._reading() as connection:
            if not is_digest(reference):
                row = connection.execute(
                    "SELECT digest FROM tag WHERE repository = ? AND tag = ?", (repository, reference)
                ).fetchone()
                if row is None:
                    return None
                digest = row[0]
            return self._manifest(connection, repository, digest)

    def blob_size(self, repository: str, digest: str) -> int | None:
        """Return the size of a blob that `repository` holds, None when it holds none."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT size FROM blob WHERE repository = ? AND digest = ?", (repository, digest)
            ).fetchone()
            return None if row is None else int(row[0])

    def ways(self, repository: str, digest: str) -> tuple[str, ...]:
        """Return the manifests through which the manifest `digest` may be had.

        Itself, the artifact that it refers to, and the indexes that list it, in turn.
        """
        found = [digest]
        with self._reading() as connection:
            for each in found:
                above = connection.execute(
                    "SELECT subject FROM manifest WHERE repository = ?1 AND digest = ?2 AND subject != '' "
                    "UNION SELECT manifest FROM part WHERE repository = ?1 AND digest = ?2",
                    (repository, each),
                ).fetchall()
                found += [way for (way,) in above if way not in found]
                if len(found) > MOST_WAYS:
                    break
        return tuple(found[:MOST_WAYS])

    def ways_to_blob(self, repository: str, digest: str) -> tuple[str, ...]:
        """Return the manifests of `repository` through which the blob may be had; none when no manifest needs it."""
        with self._reading() as connection:
            direct = connection.execute(
                "SELECT manifest FROM part WHERE repository = ? AND digest = ? LIMIT ?",
                (repository, digest, MOST_WAYS),
            ).fetchall()
        found: dict[str, None] = {}
        for (manifest,) in direct:
            found.update(dict.fromkeys(self.ways(repository, manifest)))
        return tuple(found)[:MOST_WAYS]

    def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        """Return the manifests whose subject is `digest`, by digest."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT media_type, digest, size, annotations, kind FROM manifest "
                "WHERE repository = ? AND subject = ? ORDER BY digest",
                (repository, digest),
            ).fetchall()
        return [Descriptor(row[0], row[1], row[2], parse_json(row[3], limit=1 << 30), row[4]) for row in rows]

    def tags(self, repository: str, after: str, most: int) -> list[str]:
        """Return up to `most` tags of `repository` after the tag `after`, in order."""
        return self._names("SELECT tag FROM tag WHERE repository = ? AND tag > ? ORDER BY tag LIMIT ?",
                           (repository, after, most))  # fmt: skip

    def has_repository(self, repository: str) -> bool:
        """Say whether `repository` holds anything."""
        query = (
            "SELECT repository FROM blob WHERE repository = ?1 "
            "UNION SELECT repository FROM manifest WHERE repository = ?1 LIMIT 1"
        )
        return bool(self._names(query, (repository,)))

    def holds(self, digest: str) -> bool:
        """Say whether any repository holds the blob or manifest `digest`."""
        with self._reading() as connection:
            return self._anywhere(connection, digest)

    def repositories(self, after: str) -> list[str]:
        """Return the repositories that hold a manifest, after the name `after`, in order."""
        return self._names(
            "SELECT DISTINCT repository FROM manifest WHERE repository > ? ORDER BY repository", (after,)
        )

    def everything(self) -> set[str]:
        """Return the digest of every blob and manifest that a repository holds."""
        return set(self._names("SELECT digest FROM blob UNION SELECT digest FROM manifest", ()))

    def _names(self, query: str, arguments: Sequence[object]) -> list[str]:
        with self._reading() as connection:
            return [row[0] for row in connection.execute(query, arguments).fetchall()]

    @staticmethod
    def _manifest(connection: sqlite3.Connection, repository: str, digest: str) -> Held | None:
        row = connection.execute(
            "SELECT digest, media_type, size, subject FROM manifest WHERE repository = ? AND digest = ?",
            (repository, digest),
        ).fetchone()
        return None if row is None else Held(*row)

    @staticmethod
    def _anywhere(connection: sqlite3.Connection, digest: str) -> bool:
        query = "SELECT 1 FROM blob WHERE digest = ?1 UNION ALL SELECT 1 FROM manifest WHERE digest = ?1 LIMIT 1"
        return connection.execute(query, (digest,)).fetchone() is not None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self.lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    failpoint.reached(_BEFORE)
                    self._writer.execute("COMMIT")
                    failpoint.reached(_AFTER)
                finally:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise _wrapped(error) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = _connect(self._path)
            yield connection
        except sqlite3.Error as error:
            raise _wrapped(error) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _wrapped(error: sqlite3.Error) -> HostUnfit | Corrupt:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(
            f"registry catalog: {error}",
        )
    if code == sqlite3.SQLITE_FULL:
        return StorageFull("registry catalog: no space left", hint="free space on the disk, then repeat")
    return HostUnfit(f"registry catalog: {error}", hint="fix the permissions or the disk")
