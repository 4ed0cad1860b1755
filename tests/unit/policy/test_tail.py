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


def test_kinds_and_segments_can_be_chosen(tmp_path: Path) -> None:
    """Records of other kinds are passed over, and so is what stands in old segments; a hole is a hole all the same."""
    journal = Journal(tmp_path, segment_bytes=300)
    for number in range(20):
        journal.append({"kind": "tokens" if number % 2 else "input", "n": number})
    journal.close()
    odd = list(range(1, 20, 2))
    assert [r["n"] for r in Tail(tmp_path, ["tokens"]).fresh()] == odd
    last = [r["n"] for r in Tail(tmp_path, ["tokens"], segments=1).fresh()]
    assert last == odd[-len(last) :]
    assert len(last) < len(odd)
    (first, *_) = sorted(tmp_path.glob("*.log"))
    first.write_bytes(first.read_bytes().replace(b'"n":0', b'"n":7'))
    tail = Tail(tmp_path, ["tokens"])
    assert list(tail.fresh()) == []
    assert "at byte 0" in tail.damaged
