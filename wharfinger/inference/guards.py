"""Guards: what a finding in a prompt or an answer means, by the policies that apply to a service.

What finds, and the filter that masks a stream as it passes, is `inference.scanner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from wharfinger.inference.detectors import FAMILIES, Family
from wharfinger.inference.scanner import Scanner, StreamFilter

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


def mask(text: str, scanner: Scanner) -> str:
    """Return `text` with each finding replaced by its name in brackets."""
    one = StreamFilter(scanner)
    return one.feed(text, final=True)


_SCANNERS: dict[tuple[Family, ...], Scanner] = {}


def scanner(families: Iterable[Family]) -> Scanner:
    """Return the scanner of these families; each combination is compiled once."""
    key = tuple(sorted(families))
    if key not in _SCANNERS:
        _SCANNERS[key] = Scanner(key)
    return _SCANNERS[key]


def families(actions: Mapping[str, Action], *wanted: Action) -> tuple[Family, ...]:
    """Return the families whose action is one of `wanted`."""
    return tuple(family for family in sorted(FAMILIES) if actions.get(family, "Allow") in wanted)
