"""What a client remembers of a log: it goes forward along proofs, and never back or aside."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from logkeeper import ORIGIN, LogKeeper

from wharfinger.core.errors import Malformed, Unverified
from wharfinger.supply.tlog.checkpoint import Checkpoint
from wharfinger.supply.tlog.memory import Memory
from wharfinger.supply.tlog.merkle import leaf_hash
from wharfinger.supply.tlog.tree import Tree


class History:
    """A log in memory that can be read at any of its sizes."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.keeper = LogKeeper()
        self._leaves = [leaf_hash(text.encode()) for text in texts]

    def _tree(self, size: int) -> Tree:
        tree = Tree(lambda tile: [])
        tree.extend(self._leaves[:size])
        return tree

    def note(self, size: int) -> bytes:
        """Return the signed checkpoint at `size`."""
        return self.keeper.note(Checkpoint(ORIGIN, size, self._tree(size).root())).encode()

    def proof(self, first: int, second: int) -> list[bytes]:
        """Return the consistency proof between two sizes."""
        return self._tree(second).consistency(first)


def nothing(size: int) -> list[bytes]:
    """Fail: no proof is to be asked for."""
    raise AssertionError(f"asked for a proof from {size}")


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    """A memory of nothing yet."""
    return Memory(tmp_path / "memory" / "checkpoint", LogKeeper().key)


def test_the_first_checkpoint_is_taken_as_it_is(memory: Memory) -> None:
    """With nothing remembered there is nothing to be consistent with."""
    history = History("abc")
    assert memory.checkpoint().size == 0
    assert memory.advance(history.note(2), nothing).size == 2
    assert memory.checkpoint().size == 2
    assert memory.advance(history.note(2), nothing).size == 2


def test_a_grown_log_is_followed_along_its_proof(memory: Memory) -> None:
    """A later checkpoint replaces the earlier one when the proof between them holds."""
    history = History("abcdefg")
    memory.advance(history.note(3), nothing)
    memory.advance(history.note(7), lambda size: history.proof(size, 7))
    assert memory.checkpoint().size == 7


def test_a_rolled_back_log_is_refused_and_the_memory_stays(memory: Memory) -> None:
    """A genuine but older checkpoint does not replace a newer one."""
    history = History("abcdefg")
    memory.advance(history.note(5), nothing)
    with pytest.raises(Unverified, match="rolled back"):
        memory.advance(history.note(4), nothing)
    assert memory.checkpoint().size == 5


def test_a_forked_log_is_refused_at_the_same_size_and_at_a_later_one(memory: Memory) -> None:
    """A checkpoint of another history is refused, whatever proof comes with it."""
    history, other = History("abcdefg"), History("abXdefgh")
    memory.advance(history.note(5), nothing)
    with pytest.raises(Unverified, match="forked at 5"):
        memory.advance(other.note(5), nothing)
    for proof in (other.proof(5, 8), history.proof(5, 7), []):
        with pytest.raises(Unverified, match="forked"):
            memory.advance(other.note(8), lambda size, proof=proof: proof)
    assert memory.checkpoint().size == 5


def test_threads_that_follow_a_growing_log_see_no_rollback(memory: Memory) -> None:
    """Each fetches what is newest while it holds the memory: none remembers an older note after a newer one."""
    history, size = History("abcdefghij" * 20), 0
    lock, failed = threading.Lock(), []

    def fetch() -> bytes:
        nonlocal size
        with lock:
            size += 1
            return history.note(size)

    def follow() -> None:
        try:
            for _ in range(20):
                memory.follow(fetch, lambda seen, first: history.proof(first, seen.size))
        except Unverified as error:
            failed.append(error)

    threads = [threading.Thread(target=follow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and memory.checkpoint().size == 160


_FOLLOWER = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from logkeeper import LogKeeper
from wharfinger.core import failpoint
from wharfinger.supply.tlog.memory import Memory
failpoint.arm(sys.argv[2], lambda: os.kill(os.getpid(), signal.SIGKILL))
Memory(Path(sys.argv[1]), LogKeeper().key).advance(sys.stdin.buffer.read(), lambda size: [])
"""


@pytest.mark.parametrize(("name", "size"), [("log.memory.before", 0), ("log.memory.after", 2)])
def test_a_memory_that_is_killed_holds_the_old_or_the_new(tmp_path: Path, name: str, size: int) -> None:
    """Kill -9 before and after the write: never half a note, and the lock goes with the process."""
    note = History("abc").note(2)
    command = [sys.executable, "-c", _FOLLOWER, str(tmp_path / "memory"), name]
    assert subprocess.run(command, input=note, timeout=60, check=False).returncode == -9
    memory = Memory(tmp_path / "memory", LogKeeper().key)
    assert memory.checkpoint().size == size
    assert memory.advance(note, nothing).size == 2


def test_a_note_of_another_key_is_refused(memory: Memory, tmp_path: Path) -> None:
    """Neither what comes nor what is stored is believed without the log's signature."""
    stranger = LogKeeper(b"s" * 32)
    note = stranger.note(Checkpoint(ORIGIN, 1, leaf_hash(b"a"))).encode()
    with pytest.raises(Unverified):
        memory.advance(note, nothing)
    (tmp_path / "memory").mkdir(exist_ok=True)
    (tmp_path / "memory" / "checkpoint").write_bytes(note)
    with pytest.raises(Unverified):
        memory.advance(History("abc").note(2), nothing)
    (tmp_path / "memory" / "checkpoint").write_bytes(b"\xff")
    with pytest.raises(Malformed):
        memory.checkpoint()
