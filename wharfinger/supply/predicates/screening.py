"""Screening result: what reading every file of a dataset found, and whether it may be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from wharfinger.core.document import Json
from wharfinger.supply.predicates import fields
from wharfinger.supply.statement import Resource, Statement

TYPE: Final = "https://wharfinger.io/attestations/screening/v1"
PASSED: Final = "Passed"
FAILED: Final = "Failed"
_FIELDS: Final = ("verdict", "contentDigest", "files", "characters", "counts", "reasons", "examples", "screener")


@dataclass(frozen=True, slots=True)
class Screening:
    """A verdict on the content `content`: `counts` of findings by check, `reasons` why it failed.

    `examples` say where the first findings are (file, line, what), never what stands there.
    """

    verdict: str
    content: str
    files: int
    characters: int
    counts: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    screener: str = ""

    @property
    def findings(self) -> int:
        """Findings over all checks."""
        return sum(self.counts.values())

    @classmethod
    def parse(cls, predicate: Json) -> Screening:
        """Return the screening in a decoded JSON `predicate`. Raises `Malformed`."""
        value = fields.thing(predicate, "screening", *_FIELDS)
        return cls(
            fields.choice(value, "verdict", (PASSED, FAILED)),
            fields.digest(value, "contentDigest"),
            fields.number(value, "files"),
            fields.number(value, "characters"),
            fields.table(value, "counts", int),
            fields.texts(value, "reasons"),
            fields.texts(value, "examples"),
            fields.text(value, "screener", ""),
        )

    def to_json(self) -> dict[str, Json]:
        """Return the predicate as a JSON object."""
        return {
            "verdict": self.verdict,
            "contentDigest": self.content,
            "files": self.files,
            "characters": self.characters,
            "counts": dict(self.counts),
            "reasons": list(self.reasons),
            "examples": list(self.examples),
            "screener": self.screener,
        }

    def statement(self, repository: str, digest: str) -> Statement:
        """Return the statement that this was found in the artifact `digest` in `repository`."""
        return Statement((Resource.of(repository, digest),), TYPE, self.to_json())
