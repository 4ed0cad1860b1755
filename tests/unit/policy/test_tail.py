"""A journal followed from outside: each record once, none past a hole."""

from __future__ import annotations

from pathlib import Path

from wharfinger.policy.journal import Journal
from wharfinger.policy.tail import Tail


def test_each_record_is_seen_once_as_it_comes(tmp_path: Path) -> None:
    """Over several looks and several segments, nothing is missed and nothing comes twice."""
    folder = tmp_path / "gateway"
    tail = Tail(folder)
    assert list(tail.fresh()) == []
    journal = Journal(folder, segment_bytes=200)
    seen = []
    for number in range(20):
        journal.append({"kind": "tokens", "n": number})
        seen += [record["n"] for record in tail.fresh()]
    journal.close()
    assert seen == list(range(20))
    assert len(list(folder.glob("*.log"))) > 1


def test_half_a_line_waits(tmp_path: Path) -> None:
    """What another process is still writing is read when it is whole."""
    journal = Journal(tmp_path)
    journal.append({"kind": "tokens", "n": 1})
    journal.close()
    (path,) = tmp_path.glob("*.log")
    data = path.read_bytes()
    tail = Tail(tmp_path)
    path.write_bytes(data + data[:10])
    assert [r["n"] for r in tail.fresh()] == [1]
    path.write_bytes(data + data)
    assert [r["n"] for r in tail.fresh()] == [1]
    assert tail.damaged == ""


def test_nothing_is_read_past_a_hole(tmp_path: Path) -> None:
    """A damaged line ends the following, and is named with its place."""
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append({"kind": "tokens", "n": number})
    journal.close()
    (path,) = tmp_path.glob("*.log")
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second.replace(b"1", b"7") + third)
    tail = Tail(tmp_path)
    assert [r["n"] for r in tail.fresh()] == [0]
    assert f"at byte {len(first)}" in tail.damaged
    assert list(tail.fresh()) == []
