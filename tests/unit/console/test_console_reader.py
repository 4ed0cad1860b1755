"""What the console reads of the parts' and the pods' journals, and what no pod can make it show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wharfinger.console.reader import Evidence
from wharfinger.core.clock import SECOND
from wharfinger.policy.decision import Decision, Verdict
from wharfinger.policy.journal import Journal

NOW = 1_800_000_000 * SECOND


def decision(number: int, part: str) -> dict[str, Any]:
    """Return the record of a decision."""
    verdict = Verdict(True, "granted")
    return Decision(
        f"{part}-{number}", NOW + number, part, "grant.permits_any", verdict, "spiffe://x/y", "call", "m"
    ).record()


def shown(evidence: Evidence) -> list[str]:
    """Return the ids of the decisions that are shown."""
    return [str(record["id"]) for record in evidence.look()[0]]


def test_every_part_and_every_runtime_is_read_as_it_writes(tmp_path: Path) -> None:
    """Decisions and accounts come once each, from journals that were there and from one that comes later."""
    gateway, evidence = Journal(tmp_path / "gateway"), Evidence(tmp_path)
    gateway.append(decision(1, "gateway"))
    assert shown(evidence) == ["gateway-1"]
    runtime = Journal(tmp_path / "pod-1")
    runtime.append(decision(2, "runtime"))
    gateway.append({"kind": "tokens", "id": "gateway-1", "tokens": 7})
    assert shown(evidence) == shown(evidence) == ["gateway-1", "runtime-2"]
    assert [record["tokens"] for record in evidence.look()[1]] == [7]
    gateway.close()
    runtime.close()


def test_a_pod_cannot_speak_for_others_nor_crowd_them_out(tmp_path: Path) -> None:
    """Forged accounts, decisions of other parts, records of the wrong form and very many of them change no page."""
    gateway, pod, evidence = Journal(tmp_path / "gateway"), Journal(tmp_path / "pod-1"), Evidence(tmp_path)
    gateway.append(decision(1, "gateway"))
    pod.append({"kind": "tokens", "id": "x", "tenant": "red", "tokens": 10**9})
    pod.append(decision(2, "gateway"))
    pod.append({"kind": "decision", "id": ["x"], "at": {}, "who": 7})
    pod.append({**decision(3, "runtime"), "at": "yesterday"})
    for number in range(10, 1_600):
        pod.submit(decision(number, "runtime"))
    pod.append(decision(1_600, "runtime"))
    ids = shown(evidence)
    assert ids[0] == "gateway-1"
    assert ids[-1] == "runtime-1600"
    assert len(ids) == 1_001
    assert evidence.look()[1] == []
    gateway.close()
    pod.close()


def test_a_damaged_part_is_told_and_a_damaged_pod_is_not(tmp_path: Path) -> None:
    """A hole in a part's journal needs attention; what a pod does to its own does not."""
    for name in ("gateway", "pod-1"):
        journal = Journal(tmp_path / name)
        journal.append(decision(1, "runtime"))
        journal.close()
        (path,) = (tmp_path / name).glob("*.log")
        path.write_bytes(path.read_bytes().replace(b"granted", b"GRANTED"))
    evidence = Evidence(tmp_path)
    assert shown(evidence) == []
    assert [fault.partition("/")[0] for fault in evidence.damaged()] == ["gateway"]
