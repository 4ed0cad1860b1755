"""Backups: what is kept, what a damaged one does, and that a running platform may be backed up."""

from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wharfinger.bootstrap import backup
from wharfinger.bootstrap.backup import restore_backup, write_backup
from wharfinger.core.errors import Conflict, Corrupt, HostUnfit, WharfingerError


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with a database, a journal, keys, a socket's folder and a log."""
    root = tmp_path / "state"
    for folder in ("issuer", "api", "evidence/gateway", "run", "logs", "log/tile/0", "node/pods/x"):
        (root / folder).mkdir(parents=True)
    (root / "version").write_text("1\n")
    (root / "issuer" / "key").write_bytes(b"secret")
    (root / "evidence" / "gateway" / "00000001.log").write_bytes(b"line\n")
    (root / "log" / "checkpoint").write_bytes(b"1")
    (root / "log" / "tile" / "0" / "000").write_bytes(b"t" * 32)
    (root / "logs" / "api.log").write_bytes(b"noise")
    (root / "node" / "pods" / "x" / "file").write_bytes(b"a pod's")
    with closing(sqlite3.connect(root / "api" / "objects.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (v)")
        database.execute("INSERT INTO t VALUES (1)")
        database.commit()
    return root


def test_a_restored_backup_holds_what_was_kept_and_nothing_else(state: Path, tmp_path: Path) -> None:
    """Keys, journals, log and database come back; logs and pods' folders do not."""
    write_backup(state, tmp_path / "b.tar")
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    new = tmp_path / "new"
    assert (new / "issuer" / "key").read_bytes() == b"secret"
    assert (new / "log" / "tile" / "0" / "000").read_bytes() == b"t" * 32
    assert not (new / "logs").exists()
    assert not (new / "node").exists()
    assert (new / "version").read_text() == "1\n"
    with closing(sqlite3.connect(new / "api" / "objects.db")) as database:
        assert database.execute("SELECT v FROM t").fetchall() == [(1,)]


def test_a_backup_is_readable_by_its_owner_alone(state: Path, tmp_path: Path) -> None:
    """It holds the keys."""
    write_backup(state, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600


def test_a_backup_of_a_database_in_use_holds_what_was_committed(state: Path, tmp_path: Path) -> None:
    """A row committed to the write-ahead log is kept, one that is not is not."""
    with closing(sqlite3.connect(state / "api" / "objects.db", isolation_level=None)) as writer:
        writer.execute("INSERT INTO t VALUES (2)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (3)")
        write_backup(state, tmp_path / "b.tar")
        writer.execute("ROLLBACK")
    restore_backup(tmp_path / "b.tar", tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "new" / "api" / "objects.db")) as database:
        assert database.execute("SELECT v FROM t ORDER BY v").fetchall() == [(1,), (2,)]


def test_the_log_s_checkpoint_is_copied_before_its_tiles(state: Path, tmp_path: Path) -> None:
    """A log that grows meanwhile has every tile that the copied checkpoint commits to."""
    write_backup(state, tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as tar:
        names = tar.getnames()
    assert names.index("log/checkpoint") < names.index("log/tile/0/000")
    assert names.index("issuer/key") < names.index("log/checkpoint")


def test_a_directory_in_use_is_not_overwritten(state: Path, tmp_path: Path) -> None:
    """Restoring to a state directory that is there is refused, and it stays."""
    write_backup(state, tmp_path / "b.tar")
    with pytest.raises(Conflict, match="not empty"):
        restore_backup(tmp_path / "b.tar", state)
    assert (state / "issuer" / "key").read_bytes() == b"secret"


def test_a_backup_of_a_newer_program_is_left_to_it(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused with both schema versions, and no directory appears."""
    monkeypatch.setattr(backup, "SCHEMA_VERSION", 99)
    write_backup(state, tmp_path / "b.tar")
    monkeypatch.undo()
    with pytest.raises(Conflict, match="schema version 99, this program knows 1"):
        restore_backup(tmp_path / "b.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".new*"))


def test_a_directory_that_is_no_state_directory_is_not_backed_up(tmp_path: Path) -> None:
    """The error names it, and no file appears."""
    with pytest.raises(HostUnfit, match="not a Wharfinger state directory"):
        write_backup(tmp_path, tmp_path / "b.tar")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_backup_is_refused_whole(data: st.DataObject, state: Path, tmp_path: Path) -> None:
    """Any changed byte of a file's content, and any cut, gives our error and leaves nothing behind."""
    whole = tmp_path / "whole.tar"
    if not whole.exists():
        write_backup(state, whole)
    good = whole.read_bytes()
    with tarfile.open(whole) as tar:
        spans = [(m.offset_data, m.size) for m in tar.getmembers() if m.size]
    bad = bytearray(good)
    start, size = data.draw(st.sampled_from(spans))
    if data.draw(st.booleans()):
        at = start + data.draw(st.integers(0, size - 1))
        bad[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        bad = bad[:start]
    broken = tmp_path / "broken.tar"
    broken.write_bytes(bytes(bad))
    with pytest.raises((Corrupt, Conflict)):
        restore_backup(broken, tmp_path / "into")
    assert not (tmp_path / "into").exists()
    assert not list(tmp_path.glob(".into*"))


@given(st.binary(max_size=2000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_a_backup_or_our_error(tmp_path: Path, data: bytes) -> None:
    """No byte string does anything else."""
    file = tmp_path / "f"
    file.write_bytes(data)
    with pytest.raises(WharfingerError):
        restore_backup(file, tmp_path / "into")
