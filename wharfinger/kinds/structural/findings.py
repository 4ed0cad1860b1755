"""Findings: what a validation has found so far, and the causes that it becomes.

Upstream's validator counts the checks that a value passed, to tell which alternative of an `anyOf` came closest,
and keeps one finding of each wording (kube-openapi, validation/validate Result). So do we: both show in answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from wharfinger.core.causes import invalid, not_supported, required, too_long, too_many, type_invalid
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem
from wharfinger.core.printed import as_json

Sort = Literal["type", "required", "enum", "long", "many", "invalid", "general"]

MOST: Final = 200
"""Findings that one validation keeps: what is wrong with an object must not take more room than the object."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong. A general one belongs to no field. `limit` is what a length or count may be."""

    sort: Sort
    path: str
    value: Json
    text: str
    limit: Json = None


@dataclass(slots=True)
class Findings:
    """What is wrong with a value, by its wording; how many checks it passed; what ratcheting lets pass."""

    errors: dict[str, Finding] = field(default_factory=dict)
    warnings: dict[str, Finding] = field(default_factory=dict)
    passed: int = 0

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors

    def add(self, finding: Finding) -> None:
        """Add a finding, unless one of the same wording is there or there are enough."""
        if len(self.errors) < MOST:
            self.errors.setdefault(finding.text, finding)

    def merge(self, other: Findings) -> None:
        """Add what another validation found and counted."""
        for finding in other.errors.values():
            self.add(finding)
        if other.warnings:
            self.warnings = {**other.warnings, **self.warnings}
        self.passed += other.passed

    def excused(self) -> Findings:
        """Return the findings as ones that ratcheting lets pass."""
        return Findings({}, {**self.warnings, **self.errors}, self.passed)


def general(text: str) -> Finding:
    """Return a finding that belongs to no field."""
    return Finding("general", "", "", text)


def causes_of(findings: dict[str, Finding], below: str = "") -> list[FieldProblem]:
    """Return the causes that findings become; `below` is the path of the value that was validated."""
    return [_cause(finding, below) for finding in findings.values()]


def _cause(finding: Finding, below: str) -> FieldProblem:
    path = "" if finding.path == "." else finding.path.removeprefix(".")
    path = f"{below}.{path}" if below and path else below or path
    value = "" if finding.value is None else finding.value
    match finding.sort:
        case "required":
            return required(path)
        case "enum":
            words = [word if isinstance(word, str) else as_json(word) for word in finding.limit]
            return not_supported(path, finding.value, words)
        case "long":
            return too_long(path, finding.limit)
        case "many":
            return too_many(path, finding.value, finding.limit)
        case "type":
            return type_invalid(path, value, finding.text)
        case "general":
            return invalid(below, "", finding.text)
        case _:
            return invalid(path, value, finding.text)
