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
