"""Screening: what passes, what fails and why, and that nothing of what was found is repeated."""

from __future__ import annotations

from collections.abc import Iterable
from pydoc_data.topics import topics

import pytest

from wharfinger.inference.scanner import Scanner
from wharfinger.supply.screening import Limits, screen

CONTENT = "sha256:" + "0" * 64
TOKEN = "gh" + "p_" + "Zx81kQ" * 6
_SCANNER = Scanner(["secrets", "pii"])


def scan(text: str) -> Iterable[tuple[str, str, int]]:
    """Find as the gateway's guards do."""
    return [(f.detector, f.family, f.start) for f in _SCANNER.find(text)]


def test_the_language_reference_passes() -> None:
    """The prose that ships with Python is fit to learn from, and its few false telephone numbers are counted."""
    found = screen(((f"{name}.txt", text.encode()) for name, text in topics.items()), CONTENT, scan)
    assert (found.verdict, found.reasons) == ("Passed", ())
    assert found.files == len(topics)
    assert found.characters > 400_000


@pytest.mark.parametrize(
    ("check", "data"),
    [
        ("secrets", f"the key is {TOKEN} today".encode()),
        ("pii", b"\n".join(b"card 4111 1111 1111 1111, ask" for _ in range(10))),
        ("encoding", b"\xff\xfe\x00bad"),
        ("encoding", b"a\x00b"),
        ("invisible", "ign\u200bore".encode()),
        ("invisible", "hidden\U000e0041\U000e0042".encode()),
        ("invisible", "\u202etxet".encode()),
        ("size", b"x" * 2_000_001),
        ("duplicates", b"the same sentence over and over and over again\n" * 200),
    ],
)
def test_each_check_fails_what_it_looks_for(check: str, data: bytes) -> None:
    """Each kind of bad file fails by its own check, and the verdict says where, not what."""
    found = screen([("good.txt", b"plain prose"), ("bad.txt", data)], CONTENT, scan, Limits(largest_file=2_000_000))
    assert found.verdict == "Failed"
    assert found.counts[check] > 0
    assert found.reasons
    assert not any(TOKEN in example or "4111" in example for example in found.examples)
    assert all(example.startswith("bad.txt:") for example in found.examples)


def test_no_file_at_all_fails() -> None:
    """An empty dataset was not read, so it does not pass."""
    assert screen([], CONTENT, scan).verdict == "Failed"


def test_letters_of_other_scripts_and_emoji_pass() -> None:
    """Joiners within Persian, Hindi and emoji are no hidden text."""
    text = "می\u200cخواهم क\u094d\u200dष 👩\u200d🔬 \ufeff"[:-1]
    assert screen([("a.txt", ("\ufeff" + text).encode())], CONTENT, scan).verdict == "Passed"


def test_findings_name_their_line() -> None:
    """The first findings are told by file and line."""
    text = f"one\ntwo\nthe key is {TOKEN} today\n"
    found = screen([("a.txt", text.encode()), ("b.txt", b"fine\n\xff")], CONTENT, scan)
    assert [example.rpartition(":")[0] for example in found.examples] == ["a.txt:3: secrets", "b.txt:2: encoding"]


def test_a_burst_is_seen_among_more_lines_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded: many different lines push out what occurs once, never the line that is repeated."""
    monkeypatch.setattr("wharfinger.supply.screening.MOST_LINES", 100)
    lines = []
    for number in range(3000):
        lines.append(f"a line of its own, with the number {number}, long enough to count")
        if number % 3 == 0:
            lines.append("the one sentence that is to be learned by heart by everyone")
    found = screen([("a.txt", "\n".join(lines).encode())], CONTENT, scan)
    assert found.counts["duplicates"] == 1


def test_what_is_over_the_limit_is_not_read_on() -> None:
    """More files or characters than are read fail the dataset without being looked at."""
    looked = []

    def count(text: str) -> list[tuple[str, str, int]]:
        looked.append(text)
        return []

    files = [(f"{number}.txt", b"some prose") for number in range(10)]
    found = screen(files, CONTENT, count, Limits(most_files=3))
    assert (found.verdict, len(looked)) == ("Failed", 3)
    looked.clear()
    assert screen(files, CONTENT, count, Limits(most_characters=25)).verdict == "Failed"
    assert len(looked) == 3
