"""What is found in text, and that no way of cutting the text changes it."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared_material import material
from wharfinger.inference import guards
from wharfinger.inference.detectors import FAMILIES
from wharfinger.inference.scanner import Scanner, StreamFilter

BOTH = Scanner(["pii", "secrets"])
PIECES = [
    "gh" + "p_" + "Zx81kQ" * 6, "AKIA" + "QYLPMN5HHHFPZAM2", "sk_live_" + "9aZ4kLmQ2xTr7Vb", "4111 1111 1111 1111", "ada@example.org",
    "DE89 3704 0044 0532 0130 00", "+49 30 901820", "078-05-1120", "10.20.30.40", "api_key = ", "password: ", "q9ZkL2mXr7Vb4TnW8s",
    "-----BEGIN RSA PRIVATE KEY-----\n", "MIIEpAIBAAKCAQEA7bq0", "-----END RSA PRIVATE KEY-----", "https://user:hunter22pass@host/",
    " ", "\n", "e", "é", "日本", "\U0001f600", "the ", "1", "-", "=", '"', "token", ".", "@", "x" * 70,
]  # fmt: skip
text_of_pieces = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=14).map("".join)


def streamed(text: str, cuts: list[int], scanner: Scanner = BOTH, **denied: Any) -> str:
    """Return what a filter lets out of `text` cut at `cuts`."""
    stream = StreamFilter(scanner, **denied)
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    passed = [stream.feed(text[a:b]) for a, b in itertools.pairwise(edges)]
    return "".join([*passed, stream.finish()])


@settings(max_examples=400, deadline=None)
@given(text_of_pieces, st.lists(st.integers(0, 10**6), max_size=12))
def test_however_a_text_is_cut_the_same_comes_out(text: str, cuts: list[int]) -> None:
    """filter(stream) == filter(whole), for masks and for findings that end the text."""
    assert streamed(text, cuts) == guards.mask(text, BOTH)
    assert streamed(text, cuts, denied=["secrets"]) == streamed(text, [], denied=["secrets"])


@settings(max_examples=200, deadline=None)
@given(text_of_pieces)
def test_nothing_but_findings_is_lost(text: str) -> None:
    """What comes out is the text with each finding replaced by its name; findings come in order, none overlaps."""
    findings = BOTH.find(text)
    made, last = "", 0
    for finding in findings:
        assert last <= finding.start < finding.end <= len(text)
        made += text[last : finding.start] + f"[{finding.detector}]"
        last = finding.end
    assert made + text[last:] == guards.mask(text, BOTH)


def _cases() -> list[tuple[str, str, int, int]]:
    rules = json.loads((material("guard") / "secrets" / "dev.json").read_bytes())["rules"]
    return [(r["rule_id"], "".join(c["parts"]), *c["secret"]) for r in rules for c in r["tp"]]


def test_no_outside_secret_that_is_found_leaks_character_by_character() -> None:
    """Every secret of the outside material that the guards find stays in, fed one character at a time."""
    scanner = Scanner(["secrets"])
    found = 0
    for rule, text, start, end in _cases():
        whole = guards.mask(text, scanner)
        if text[start:end] in whole:
            continue
        found += 1
        assert streamed(text, list(range(len(text))), scanner) == whole, rule
    assert found >= 665


def test_no_outside_secret_split_in_two_anywhere_leaks() -> None:
    """One secret of every rule, cut at every place: what comes out is what comes out of the whole."""
    scanner = Scanner(["secrets"])
    seen: set[str] = set()
    for rule, text, start, end in _cases():
        if rule in seen or len(text) > 400:
            continue
        seen.add(rule)
        whole = guards.mask(text, scanner)
        for cut in range(max(1, start - 8), min(len(text), end + 8)):
            assert streamed(text, [cut], scanner) == whole, (rule, cut)
    assert len(seen) > 90


def test_scores_on_the_outside_material_do_not_fall() -> None:
    """At least 99 of 100 secrets are found, and at most 1 in 10 of the strings made to look like one alarms."""
    scanner = Scanner(["secrets"])
    cases = _cases()
    missed = [rule for rule, text, a, b in cases if not any(f.start < b and f.end > a for f in scanner.find(text))]
    assert len(missed) <= len(cases) // 100
    rules = json.loads((material("guard") / "secrets" / "dev.json").read_bytes())["rules"]
    harmless = ["".join(case["parts"]) for rule in rules for case in rule["fp"]]
    alarms = [text for text in harmless if scanner.find(text)]
    assert len(alarms) <= len(harmless) // 10


def test_an_end_before_the_beginning_is_not_its_end() -> None:
    """A key's end mark just before its begin mark belongs to another: what follows is masked, whatever the cut."""
    begin, end = PIECES[12].rstrip("\n"), PIECES[14]
    text = f"{end}{begin}\n{PIECES[13]}\n{end} that was it"
    assert guards.mask(text, BOTH) == f"{end}[private-key] that was it"
    for cut in range(len(text)):
        assert streamed(text, [cut]) == guards.mask(text, BOTH)


def test_prose_passes_as_it_comes() -> None:
    """A filter holds back few characters of ordinary text: 40 at most here."""
    stream = StreamFilter(BOTH)
    for word in ("The harbour master keeps the log of every berth, and of every ton of cargo. " * 20).split(" "):
        stream.feed(word + " ")
        assert stream.held <= 40


@pytest.mark.parametrize(
    "hostile",
    ["a" * 200_000, "key=" * 50_000, "-----BEGIN RSA PRIVATE KEY-----\n" + "A" * 200_000, "1 " * 100_000, "a@" * 100_000, "::" * 100_000],
    ids=["run", "names", "key without end", "digits", "at signs", "colons"],
)  # fmt: skip
def test_hostile_text_takes_time_in_proportion(hostile: str) -> None:
    """Twice the text takes no more than some six times the CPU: nothing in a scan is quadratic."""
    half = _cpu(hostile[: len(hostile) // 2])
    assert _cpu(hostile) < 6 * half + 0.05


def _cpu(text: str) -> float:
    start = time.process_time()
    BOTH.find(text)
    return time.process_time() - start


def test_every_detector_has_a_family_and_a_name_of_its_own_or_shares_it_on_purpose() -> None:
    """Names are what masks show: lower case, no brackets."""
    for shapes in FAMILIES.values():
        assert all(shape.name == shape.name.lower() and "[" not in shape.name for shape in shapes)
