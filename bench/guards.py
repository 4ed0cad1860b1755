"""What the guards find and what they cost: recall and false alarms on outside material, CPU per kilobyte and token.

    python -m bench guards

Caveats: the material is the development half that the detectors were written against, so these are not figures for
unseen text. Its false positives are strings chosen because they look like secrets. CPU is of this process, on one core;
prose is the language reference that ships with Python.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from bench.raw import keep
from wharfinger.inference.scanner import Scanner, StreamFilter

GUARD = Path(__file__).resolve().parents[2] / "shared" / "guard"
KINDS = {
    "CREDIT_CARD": "credit-card",
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip-address",
    "PHONE_NUMBER": "telephone",
    "US_SSN": "us-ssn",
}
"""The types of the material that the detectors know; names, streets and the like are no shapes."""


def secrets() -> dict[str, Any]:
    """Return recall and false alarms on `secrets/dev.json`."""
    scan = Scanner(["secrets"])
    found = missed = alarms = harmless = 0
    for rule in json.loads((GUARD / "secrets" / "dev.json").read_bytes())["rules"]:
        for case in rule["tp"]:
            start, end = case["secret"]
            hit = any(f.start < end and f.end > start for f in scan.find("".join(case["parts"])))
            found, missed = found + hit, missed + (not hit)
        for case in rule["fp"]:
            harmless += 1
            alarms += bool(scan.find("".join(case["parts"])))
    return {"secrets": found + missed, "found": found, "lookalikes": harmless, "false alarms": alarms}


def personal_data() -> dict[str, dict[str, int]]:
    """Return, per type that the detectors know: found, missed and false on `pii/dev.json`."""
    scan = Scanner(["pii"])
    found: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for case in json.loads((GUARD / "pii" / "dev.json").read_bytes()):
        spans = [span for span in case["spans"] if span["type"] in KINDS]
        findings = scan.find(case["text"])
        for span in spans:
            hit = any(_meets(finding, span) for finding in findings)
            (found if hit else missed)[span["type"]] += 1
        for finding in findings:
            wrong[finding.detector] += not any(_meets(finding, span) for span in spans)
    return {
        kind: {"found": found[kind], "missed": missed[kind], "false": wrong[name]}
        for kind, name in sorted(KINDS.items())
    }


def cost() -> dict[str, float]:
    """Return microseconds of CPU per kilobyte of whole text and per streamed token, and what is held back."""
    scan = Scanner(["pii", "secrets"])
    text = "\n".join(topics.values())[:300_000]
    scan.find(text)  # the automata are made as they are first used
    start = time.process_time_ns()
    scan.find(text)
    whole = (time.process_time_ns() - start) / 1000 / (len(text) / 1024)
    tokens = re.findall(r" ?\w+|\W", text)[:40_000]
    stream, held = StreamFilter(scan), []
    start = time.process_time_ns()
    for token in tokens:
        stream.feed(token)
        held.append(stream.held)
    each = (time.process_time_ns() - start) / 1000 / len(tokens)
    held.sort()
    return {
        "microseconds per KB": round(whole, 1),
        "microseconds per streamed token": round(each, 1),
        "held back, mean": round(sum(held) / len(held), 1),
        "held back, p99": held[int(0.99 * len(held))],
    }


def measure() -> dict[str, Any]:
    """Return every figure."""
    return {"secrets": secrets(), "personal data": personal_data(), "cost": cost()}


def main(arguments: list[str]) -> None:
    """Print the figures; raw as JSON with `-o json`."""
    if not GUARD.exists():
        sys.exit(f"the outside material is not here: expected {GUARD}")
    figures = measure()
    keep("guards", figures)
    if arguments == ["-o", "json"]:
        print(json.dumps(figures, indent=2))
        return
    for name, figure in figures["secrets"].items():
        print(f"{name}: {figure}")
    for kind, counts in figures["personal data"].items():
        print(f"  {kind:14} {counts['found']:4} found {counts['missed']:4} missed {counts['false']:4} false")
    for name, figure in figures["cost"].items():
        print(f"{name}: {figure}")


def _meets(finding: Any, span: dict[str, Any]) -> bool:
    return bool(finding.detector == KINDS[span["type"]] and finding.start < span["end"] and finding.end > span["start"])


if __name__ == "__main__":
    main(sys.argv[1:])
