"""Screening: reads what a model is to learn from, and says whether it may.

What is looked for: credentials and personal data (by the port `Scan`), invisible characters that carry hidden
text, one line repeated so often that it would be learned by heart, files that are no text or too large. A few findings
of personal data in a million characters are what detectors mistake; one credential is one too many. The verdict says
where the findings are, never what stands there. Pure: a shell hands in the files.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from wharfinger.supply.predicates.screening import FAILED, PASSED, Screening

Scan: TypeAlias = Callable[[str], Iterable[tuple[str, str, int]]]
"""Finds in a text: `(detector, family, offset)` of each finding, family `secrets` or `pii`."""

SCREENER: Final = "wharfinger.supply.screening/1"
MOST_EXAMPLES: Final = 20
MOST_LINES: Final = 1_000_000
"""Different lines that are remembered at a time."""
# Tags, bidirectional overrides, zero-width and other characters that show nothing and can carry a text of their own.
# Joiners (U+200C, U+200D) are letters' business in many scripts: only between ASCII characters they hide something.
_INVISIBLE: Final = re.compile(
    "[\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]|(?<=[\x20-\x7e])[\u200c\u200d]+(?=[\x20-\x7e])|(?<!\\A)\ufeff"
)
_CONTROLS: Final = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Limits:
    """What passes. `pii_per_million` counts findings in a million characters, `pii_least` is allowed in any case.

    A line of at least `burst_line` characters is a burst when it occurs more than `burst_times` times and makes up
    more than `burst_share` of all characters.
    """

    largest_file: int = 64 * 1024 * 1024
    most_files: int = 100_000
    most_characters: int = 4 * 1024 * 1024 * 1024
    pii_per_million: int = 20
    pii_least: int = 3
    invisible: int = 0
    burst_line: int = 40
    burst_times: int = 50
    burst_share: float = 0.05


DEFAULT: Final = Limits()


def screen(files: Iterable[tuple[str, bytes]], content: str, scan: Scan, limits: Limits = DEFAULT) -> Screening:
    """Return the verdict on `files`, (path, bytes) read one at a time, whose root digest is `content`."""
    tally = _Tally(limits)
    for path, data in files:
        tally.read(path, data, scan)
    reasons = tally.reasons()
    return Screening(
        FAILED if reasons else PASSED,
        content,
        tally.files,
        tally.characters,
        {check: count for check, count in sorted(tally.counts.items()) if count},
        tuple(reasons),
        tuple(tally.examples),
        SCREENER,
    )


class _Tally:
    """What has been found so far."""

    def __init__(self, limits: Limits) -> None:
        self.files = 0
        self.characters = 0
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []
        self._limits = limits
        self._lines: Counter[bytes] = Counter()
        self._lengths: dict[bytes, int] = {}

    def read(self, path: str, data: bytes, scan: Scan) -> None:
        self.files += 1
        limits = self._limits
        if self.files > limits.most_files or self.characters > limits.most_characters:
            return
        if len(data) > limits.largest_file:
            self._found("size", path, f"{len(data)} bytes")
            return
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            self._found("encoding", path, "not UTF-8", data[: error.start].decode("utf-8"))
            return
        self.characters += len(text)
        control = _CONTROLS.search(text)
        if control is not None:
            self._found("encoding", path, f"control character U+{ord(control[0]):04X}", text, control.start())
        for match in _INVISIBLE.finditer(text):
            self._found("invisible", path, f"U+{ord(match[0][0]):04X}", text, match.start())
        for detector, family, offset in scan(text):
            self._found(family, path, detector, text, offset)
        for line in text.splitlines():
            stripped = line.strip()
            if len(stripped) >= limits.burst_line:
                self._count(stripped)

    def _count(self, line: str) -> None:
        key = hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._lines[key] += 1
        self._lengths[key] = len(line)
        if len(self._lines) > MOST_LINES:
            # What occurs often is kept: a burst is far above the middle.
            middle = sorted(self._lines.values())[len(self._lines) // 2]
            self._lines = Counter({held: times for held, times in self._lines.items() if times > middle})
            self._lengths = {held: self._lengths[held] for held in self._lines}

    def reasons(self) -> list[str]:
        """Return why it fails: empty when it passes."""
        limits, counts = self._limits, self.counts
        bursts = [
            times
            for key, times in self._lines.most_common(1000)
            if times > limits.burst_times and times * self._lengths[key] > limits.burst_share * max(self.characters, 1)
        ]
        self.counts["duplicates"] = len(bursts)
        allowed = max(limits.pii_least, limits.pii_per_million * self.characters // 1_000_000)
        told = [
            (self.files == 0, "there is no file to read"),
            (self.files > limits.most_files, f"{self.files} files, at most {limits.most_files} are read"),
            (self.characters > limits.most_characters, f"{self.characters} characters are more than are read"),
            (counts["size"] > 0, f"{counts['size']} files of more than {limits.largest_file} bytes"),
            (counts["encoding"] > 0, f"{counts['encoding']} files that are no plain text"),
            (counts["secrets"] > 0, f"{counts['secrets']} credentials"),
            (counts["pii"] > allowed, f"{counts['pii']} findings of personal data, at most {allowed} pass"),
            (counts["invisible"] > limits.invisible, f"{counts['invisible']} invisible characters"),
            (bool(bursts), f"{len(bursts)} lines repeated up to {max(bursts, default=0)} times"),
        ]
        return [reason for fails, reason in told if fails]

    def _found(self, check: str, path: str, what: str, text: str = "", offset: int = -1) -> None:
        """Count a finding; `text` up to `offset` (all of it, by default) is what stands before it."""
        self.counts[check] += 1
        if len(self.examples) < MOST_EXAMPLES:
            line = 1 + text.count("\n", 0, len(text) if offset < 0 else offset)
            self.examples.append(f"{path}:{line}: {check}: {what}")
