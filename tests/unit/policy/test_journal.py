"""The journal: nothing acknowledged is lost, and damage is never read past."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.core.errors import Corrupt, HostUnfit, NotFound, TooLarge
from wharfinger.policy.decision import Decision, Verdict, address, from_record
from wharfinger.policy.journal import LONGEST_LINE, Journal, find, journals, locate, read


def made(number: int, inputs: dict[str, object]) -> Decision:
    """Return a decision on `inputs`."""
    return Decision(
        id=f"d{number}",
        at=10**18 + number * 1000,
        part="gateway",
        rule="grant.permits",
        verdict=Verdict(number % 2 == 0, "because", "caller"),
        who="spiffe://wharfinger.local/x",
        verb="call",
        what="m",
        inputs={name: address(value) for name, value in inputs.items()},
    )


def test_a_decision_is_found_with_its_inputs_after_a_restart(tmp_path: Path) -> None:
    """What was decided, and on what, is there for explain and replay."""
    inputs = {"request": {"door": "gateway"}, "grant": {"workload": "w"}}
    journal = Journal(tmp_path / "gateway")
    for number in range(5):
        journal.decide(made(number, inputs), inputs)
    journal.close()
    Journal(tmp_path / "gateway").close()
    record, found = find(tmp_path, "d3")
    assert from_record(record) == made(3, inputs)
    assert found == inputs
    with pytest.raises(NotFound):
        find(tmp_path, "d9")


def test_an_input_is_kept_once(tmp_path: Path) -> None:
    """The same grant in a thousand decisions is stored once, also over a restart."""
    inputs = {"grant": {"workload": "w" * 1000}}
    for start in (0, 10):
        journal = Journal(tmp_path / "gateway")
        for number in range(start, start + 10):
            journal.decide(made(number, inputs), inputs)
        journal.close()
    assert [r["kind"] for r in read(tmp_path / "gateway")].count("input") == 1


def test_segments_follow_each_other(tmp_path: Path) -> None:
    """A full segment is followed by the next; reading goes over all of them in order."""
    journal = Journal(tmp_path / "gateway", segment_bytes=500)
    for number in range(50):
        journal.append({"kind": "tokens", "n": number})
    journal.close()
    assert len(list((tmp_path / "gateway").glob("*.log"))) > 3
    assert [r["n"] for r in read(tmp_path / "gateway")] == list(range(50))


@settings(max_examples=50, deadline=None)
@given(cut=st.integers(min_value=1, max_value=400), noise=st.binary(max_size=40))
def test_a_torn_tail_is_dropped_and_the_rest_stands(
    tmp_path_factory: pytest.TempPathFactory, cut: int, noise: bytes
) -> None:
    """However much of the last write is missing, the records before it are there and writing goes on."""
    folder = tmp_path_factory.mktemp("journal") / "gateway"
    journal = Journal(folder)
    for number in range(10):
        journal.append({"kind": "tokens", "n": number})
    journal.close()
    path = folder / "00000001.log"
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)] + noise.replace(b"\n", b""))
    try:
        journal = Journal(folder)
    except Corrupt:
        assert noise
        return
    journal.append({"kind": "tokens", "n": "after"})
    journal.close()
    kept = [r["n"] for r in read(folder)]
    assert kept[-1] == "after"
    assert kept[:-1] == list(range(len(kept) - 1))


def test_a_flipped_byte_inside_is_corrupt(tmp_path: Path) -> None:
    """Evidence is not read past a hole."""
    journal = Journal(tmp_path / "gateway")
    for number in range(3):
        journal.append({"kind": "tokens", "n": number})
    journal.close()
    path = tmp_path / "gateway" / "00000001.log"
    data = bytearray(path.read_bytes())
    data[15] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt, match="line 1"):
        list(read(tmp_path / "gateway"))
    with pytest.raises(Corrupt):
        Journal(tmp_path / "gateway")


def test_a_full_disk_fails_the_write_and_only_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails is an error to its caller, leaves no half record, and the next one works."""
    journal = Journal(tmp_path / "gateway")
    journal.append({"kind": "tokens", "n": 0})
    real = os.fdatasync

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(HostUnfit, match="No space left"):
        journal.append({"kind": "tokens", "n": 1})
    monkeypatch.setattr(os, "fdatasync", real)
    journal.append({"kind": "tokens", "n": 2})
    journal.close()
    assert [r["n"] for r in read(tmp_path / "gateway")] == [0, 2]


_WRITER = """
import os, signal, sys
from pathlib import Path
from wharfinger.core import failpoint
from wharfinger.policy.journal import Journal
failpoint.arm(sys.argv[2], lambda: os.kill(os.getpid(), signal.SIGKILL))
journal = Journal(Path(sys.argv[1]))
for number in range(10):
    journal.append({"kind": "tokens", "n": number})
    print(number, flush=True)
"""


@pytest.mark.parametrize("point", ["journal.commit.before:5", "journal.commit.after:5"])
def test_killed_around_a_write_nothing_acknowledged_is_lost(tmp_path: Path, point: str) -> None:
    """Killed before or after the write is durable, every record that was acknowledged is there afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", _WRITER, str(tmp_path / "gateway"), point], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9
    acknowledged = [int(line) for line in done.stdout.split()]
    journal = Journal(tmp_path / "gateway")
    journal.close()
    kept = [r["n"] for r in read(tmp_path / "gateway")]
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) <= len(acknowledged) + 1


def test_a_pods_journal_cannot_stand_for_the_platforms(tmp_path: Path) -> None:
    """A pod writes a decision of another part under its own, the id of a real one, garbage, a link and a pipe."""

    def decision(identifier: str) -> Decision:
        return replace(made(0, {"x": 1}), id=identifier)

    honest = Journal(tmp_path / "registry")
    forger = Journal(tmp_path / "pod-1")
    honest.decide(decision("real"), {"x": 1})
    forged = replace(decision("real"), verdict=Verdict(False, "forged", "identity"), part="runtime")
    forger.decide(forged, {"x": 1})
    forger.decide(replace(decision("invented"), part="gateway"), {"x": 1})
    forger.decide(replace(decision("own"), part="runtime"), {"x": 1})
    honest.close()
    forger.close()
    assert locate(tmp_path, "real")[:1] == ("registry",)
    assert find(tmp_path, "real")[0]["allowed"] is True
    assert locate(tmp_path, "own")[0] == "pod-1"
    with pytest.raises(NotFound):
        find(tmp_path, "invented")
    (tmp_path / "pod-1" / "00000001.log").write_bytes(b"garbage\n" * 10)
    (tmp_path / "pod-2").mkdir()
    (tmp_path / "pod-2" / "00000001.log").symlink_to("/etc/hostname")
    (tmp_path / "pod-3").mkdir()
    os.mkfifo(tmp_path / "pod-3" / "00000001.log")
    (tmp_path / "pod-4").symlink_to(tmp_path / "registry")
    assert [path.name for path in journals(tmp_path)] == ["registry", "pod-1", "pod-2", "pod-3"]
    with pytest.raises(NotFound):
        find(tmp_path, "own")


def test_a_record_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    """More bytes than a line may have are refused before they are queued."""
    journal = Journal(tmp_path / "gateway")
    with pytest.raises(TooLarge):
        journal.append({"kind": "x", "text": "x" * LONGEST_LINE})
    journal.append({"kind": "x"})
    journal.close()
    assert [record["kind"] for record in read(tmp_path / "gateway")] == ["x"]
