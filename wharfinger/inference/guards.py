"""Guards: what a finding in a prompt or an answer means, and the filter that masks a stream as it passes.

The filter holds back only what may be the beginning of a finding: the last run without white space, and the
unfinished shapes that span white space. `filter(stream) == filter(whole)` for every way of cutting the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from wharfinger.inference.detectors import Finding, Scanner

Action: TypeAlias = Literal["Allow", "Deny", "Mask"]
_STRICTER: Final = ("Allow", "Mask", "Deny")


@dataclass(frozen=True, slots=True)
class Rules:
    """What applies to one service: family (`secrets`, `pii`) to action, for prompts and for outputs."""

    prompt: Mapping[str, Action]
    output: Mapping[str, Action]


def combine(policies: Iterable[Mapping[str, Any]]) -> Rules:
    """Return the rules of all `policies` (InferencePolicy specs) together: the strictest action of each family."""
    prompt: dict[str, Action] = {}
    output: dict[str, Action] = {}
    for policy in policies:
        for guard in policy.get("guards") or ():
            for told, action in ((prompt, guard.get("prompt", "Deny")), (output, guard.get("output", "Mask"))):
                told[guard["name"]] = _strictest(told.get(guard["name"], "Allow"), action)
    return Rules(prompt, output)


def _strictest(one: Action, other: Action) -> Action:
    return max(one, other, key=_STRICTER.index)


def mask(text: str, findings: Iterable[Finding]) -> str:
    """Return `text` with each finding replaced by its name in brackets."""
    made, last = [], 0
    for finding in findings:
        made += [text[last : finding.start], f"[{finding.detector}]"]
        last = finding.end
    return "".join([*made, text[last:]])


class StreamFilter:
    """Masks one channel of one answer as it comes. `found` names what was masked."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._held = ""
        self.found: list[str] = []

    def feed(self, text: str) -> str:
        """Take a piece; return what may go out now."""
        if not text:
            return ""
        self._held += text
        cut = self._scanner.live_from(self._held)
        if cut == 0:
            return ""
        return self._settle(cut)

    def finish(self) -> str:
        """Return the rest, at the end of the answer."""
        return self._settle(len(self._held))

    @property
    def held(self) -> int:
        """How many characters wait."""
        return len(self._held)

    def _settle(self, cut: int) -> str:
        settled, self._held = self._held[:cut], self._held[cut:]
        findings = self._scanner.find(settled)
        self.found += [finding.detector for finding in findings]
        return mask(settled, findings)


_SCANNERS: dict[tuple[str, ...], Scanner] = {}


def scanner(families: Iterable[str]) -> Scanner:
    """Return the scanner of these families; each combination is compiled once."""
    key = tuple(sorted(families))
    if key not in _SCANNERS:
        _SCANNERS[key] = Scanner(key)
    return _SCANNERS[key]


def families(actions: Mapping[str, Action], *wanted: Action) -> tuple[str, ...]:
    """Return the families whose action is one of `wanted`."""
    return tuple(sorted(family for family, action in actions.items() if action in wanted))
