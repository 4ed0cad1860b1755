"""The objects' database: durable, exclusive, sound, and true about the past."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wharfinger.core.errors import AlreadyExists, Corrupt, HostUnfit, WharfingerError
from wharfinger.local.api.commit import Committer, Transaction
from wharfinger.local.api.store import ADDED, DELETED, MODIFIED, RESTORE_LEAP, Event, Key, Store, mark_copied


class Database:
    """A store with what writes to it; `published` is what watchers would have been told."""

    def __init__(self, path: Path, max_pages: int = 0) -> None:
        self.store = Store(path, max_pages=max_pages)
        self.kind = self.store.enrol(["things.example.com"])["things.example.com"]
        self.published: list[Event] = []
        self.committer = Committer(self.store, self.published.extend)

    def key(self, name: str) -> Key:
        """Return where the object `name` lives."""
        return Key(self.kind, "ns", name)

    def put(self, name: str, text: str = "") -> Callable[[Transaction], int]:
        """Return the mutation that creates or changes the object `name`."""

        def mutation(transaction: Transaction) -> int:
            held = transaction.get(self.key(name))
            value: dict[str, Any] = {"metadata": {"namespace": "ns", "name": name, "uid": f"uid-{name}"}, "text": text}
            if held is None:
                transaction.create(self.key(name), value)
            else:
                transaction.update(self.key(name), value, held)
            return transaction.rv

        return mutation

    def drop(self, name: str) -> Callable[[Transaction], None]:
        """Return the mutation that deletes the object `name`."""

        def mutation(transaction: Transaction) -> None:
            held = transaction.get(self.key(name))
            assert held is not None
            transaction.delete(self.key(name), held)

        return mutation

    def run(self, *mutations: Callable[[Transaction], Any]) -> list[Any]:
        """Run the mutations all at once; return results and errors."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*map(self.committer.run, mutations), return_exceptions=True)

        return asyncio.run(all_of_them())

    def names(self, at: int | None = None) -> list[tuple[str, bytes]]:
        """Return name and text of every object as of `at`."""
        versions = self.store.page(self.kind, None, ("", ""), 1000, self.store.newest() if at is None else at)
        return [(version.name, version.body.partition(b'"text":')[2]) for version in versions]

    def close(self) -> None:
        """Finish and close."""
        asyncio.run(self.committer.close())
        self.store.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A fresh database."""
    made = Database(tmp_path / "api" / "objects.db")
    yield made
    made.close()


def test_the_files_are_the_owners_alone_and_every_commit_is_synced(database: Database) -> None:
    """The database and what stands beside it have mode 0600; journal WAL, synchronous FULL."""
    database.run(database.put("one"))
    folder = database.store.path.parent
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert database.store.writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.store.writer.execute("PRAGMA synchronous").fetchone() == (2,)


def test_writes_that_wait_together_share_a_commit_and_keep_their_order(database: Database) -> None:
    """Twenty writes at once are few transactions, each answered with its own version, in order."""
    commits: list[str] = []
    database.store.writer.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    assert database.run(*(database.put(f"n{i:02}") for i in range(20))) == list(range(1, 21))
    assert len(commits) == 1
    assert [event.rv for event in database.published] == list(range(1, 21))


def test_a_write_that_fails_leaves_nothing_and_harms_no_other(database: Database) -> None:
    """Of three writes in one transaction, the one that raises is undone alone."""

    def failing(transaction: Transaction) -> None:
        database.put("lost")(transaction)
        raise AlreadyExists("no")

    first, second, third = database.run(database.put("one"), failing, database.put("two"))
    assert (first, third) == (1, 2) and isinstance(second, AlreadyExists)
    assert [name for name, _ in database.names()] == ["one", "two"]
    assert [event.name for event in database.published] == ["one", "two"]


def test_a_defect_in_one_write_is_told_and_harms_no_other(database: Database) -> None:
    """A mutation that raises what it must not is answered with an error of ours; the next goes on."""

    def broken(transaction: Transaction) -> None:
        database.put("lost")(transaction)
        raise KeyError("oops")

    told, done = database.run(broken, database.put("two"))
    assert isinstance(told, WharfingerError) and told.status == 500 and done == 1
    assert [name for name, _ in database.names()] == ["two"]


def test_a_dry_write_tells_what_would_be_and_stores_nothing(database: Database) -> None:
    """A mutation that sets `dry` reads and decides as any other, and nothing of it is kept."""

    def dry(transaction: Transaction) -> int:
        transaction.dry = True
        return database.put("one")(transaction)

    database.run(dry)
    assert database.names() == [] and database.store.newest() == 0 and database.published == []
    assert database.run(database.put("one")) == [1]


def test_a_page_shows_the_past_as_it_was(database: Database) -> None:
    """What changed, went or came after a resourceVersion is shown as it was at it."""
    database.run(database.put("a", "1"))
    database.run(database.put("b", "1"))
    at = database.store.newest()
    database.run(database.put("a", "2"))
    database.run(database.put("a", "3"))
    database.run(database.drop("b"))
    database.run(database.put("c", "1"))
    assert database.names(at) == [("a", b'"1"}'), ("b", b'"1"}')]
    assert database.names() == [("a", b'"3"}'), ("c", b'"1"}')]
    assert [event.change for event in database.store.events(database.kind, 0, 100)] == [
        ADDED, ADDED, MODIFIED, MODIFIED, DELETED, ADDED,
    ]  # fmt: skip


def test_pages_meet_without_gap_or_repetition(database: Database) -> None:
    """Pages of any size, one after the other, are the whole list, though objects change in between."""
    database.run(*(database.put(f"n{i:02}") for i in range(17)))
    at = database.store.newest()
    for size in (1, 2, 5, 17, 40):
        after, seen = ("", ""), []
        while page := database.store.page(database.kind, None, after, size, at):
            seen += [version.name for version in page]
            after = (page[-1].namespace, page[-1].name)
            database.run(database.put(f"n{len(seen) % 17:02}", str(size)), database.put(f"new-{size}-{len(seen)}"))
        assert seen == [f"n{i:02}" for i in range(17)]


def test_compaction_forgets_what_was_superseded_and_nothing_else(database: Database) -> None:
    """Below the floor there is one version of each object; what happened above it is all there."""
    database.run(database.put("a", "1"), database.put("b", "1"))
    database.run(database.put("a", "2"), database.drop("b"))
    floor = database.store.newest()
    database.run(database.put("a", "3"))
    asyncio.run(database.committer.compact(floor))
    rows = database.store.reader.execute("SELECT rv FROM versions ORDER BY rv").fetchall()
    assert rows == [(3,), (5,)] and database.store.floor == floor == 4
    (event,) = database.store.events(database.kind, floor, 10)
    assert event.before is not None and b'"2"' in event.before


def test_versions_never_go_back_after_everything_was_deleted_and_forgotten(tmp_path: Path) -> None:
    """The newest resourceVersion is remembered when the row that had it is compacted away."""
    path = tmp_path / "objects.db"
    first = Database(path)
    first.run(first.put("a"))
    first.run(first.drop("a"))
    asyncio.run(first.committer.compact(2))
    first.close()
    second = Database(path)
    assert second.store.newest() == 2 and second.run(second.put("a")) == [3]
    second.close()


def test_a_second_server_on_the_same_database_is_refused(database: Database) -> None:
    """One process writes: the lock says so before a byte is touched."""
    with pytest.raises(HostUnfit, match="only API server"):
        Store(database.store.path)


@pytest.mark.parametrize("content", [b"not a database at all", b"SQLite format 3\x00" + b"\x00" * 8])
def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    """Foreign bytes are named as such, and stay as they were."""
    path = tmp_path / "objects.db"
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="expected an SQLite database"):
        Store(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    """An application id that is not ours is respected."""
    path = tmp_path / "objects.db"
    with sqlite3.connect(path) as other:
        other.executescript("PRAGMA application_id=7; CREATE TABLE t(x);")
    other.close()
    before = path.read_bytes()
    with pytest.raises(Corrupt, match="application id 0x7"):
        Store(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    """What a newer program wrote is left for it."""
    path = tmp_path / "objects.db"
    Database(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version=99")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(HostUnfit, match="schema version 1 or older, got 99"):
        Store(path)
    assert path.read_bytes() == before


def test_a_damaged_database_is_found_at_the_start(tmp_path: Path) -> None:
    """Pages overwritten with rubbish are found before anything is served from them."""
    path = tmp_path / "objects.db"
    made = Database(path)
    made.run(*(made.put(f"n{i}", "x" * 500) for i in range(50)))
    made.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 8192))
    with pytest.raises(Corrupt, match=r"objects\.db"):
        Store(path)


def test_a_full_disk_refuses_the_write_and_keeps_the_state(tmp_path: Path) -> None:
    """When there is no space the write is refused by name, and all that was acknowledged is there."""
    made = Database(tmp_path / "objects.db", max_pages=40)
    results = [made.run(made.put(f"n{i}", "x" * 20_000))[0] for i in range(12)]
    written = [result for result in results if isinstance(result, int)]
    refused = [result for result in results if isinstance(result, HostUnfit)]
    assert written and refused and "no space left" in str(refused[0])
    assert len(made.names()) == len(written) == len(made.published)
    assert made.run(made.put("n0", "small"))[0] == written[-1] + 1
    made.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error says which directory."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(HostUnfit, match=str(blocked)):
        Store(blocked / "objects.db")


def test_a_copy_moves_versions_on_when_it_is_opened(database: Database, tmp_path: Path) -> None:
    """A copy holds every acknowledged object, at versions that no client has seen; it leaps once."""
    database.run(*(database.put(f"n{i}") for i in range(30)))
    target = tmp_path / "copy.db"
    with sqlite3.connect(target) as made:
        database.store.reader.backup(made)
    made.close()
    mark_copied(target)
    copy = Database(target)
    assert copy.names() == database.names()
    assert copy.store.floor == copy.store.newest() == 30 + RESTORE_LEAP
    copy.close()
    again = Database(target)
    assert again.store.newest() == 30 + RESTORE_LEAP
    again.close()


def test_what_is_no_database_is_not_marked(tmp_path: Path) -> None:
    """It stays as it is."""
    target = tmp_path / "copy.db"
    target.write_bytes(b"precious")
    mark_copied(target)
    assert target.read_bytes() == b"precious"


def test_whoever_looks_at_all_objects_sees_them_as_the_transaction_left_them(database: Database) -> None:
    """Parsed values are kept between looks, but never those of a write that was undone."""

    def look(transaction: Transaction) -> list[str]:
        return [value["text"] for value in transaction.values(database.kind, "ns")]

    def undone(transaction: Transaction) -> None:
        database.put("a", "never")(transaction)
        assert look(transaction) == ["never"]
        raise AlreadyExists("no")

    database.run(database.put("a", "1"))
    assert database.run(look, undone, look, database.put("a", "2"), look)[::2] == [["1"], ["1"], ["2"]]
    assert database.run(look, database.drop("a"), look)[::2] == [["2"], []]
