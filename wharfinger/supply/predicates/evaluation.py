"""Evaluation: what a run measured of a model, and the bounds that it had to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from wharfinger.core.document import Json
from wharfinger.supply.predicates import fields
from wharfinger.supply.statement import Resource, Statement

TYPE: Final = "https://wharfinger.io/attestations/evaluation/v1"
_FIELDS: Final = ("run", "metrics", "thresholds", "inputsDigest")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`metrics` that `run` (NAMESPACE/NAME) measured, all within `thresholds` (the run's own list).

    `inputs` is the digest over the command, environment and inputs of the step that measured.
    """

    run: str
    metrics: Mapping[str, float]
    inputs: str
    thresholds: tuple[Mapping[str, Any], ...] = field(default=())

    @classmethod
    def parse(cls, predicate: Json) -> Evaluation:
        """Return the evaluation in a decoded JSON `predicate`. Raises `Malformed`."""
        value = fields.thing(predicate, "evaluation", *_FIELDS)
        return cls(
            fields.text(value, "run"),
            fields.table(value, "metrics", (int, float)),
            fields.digest(value, "inputsDigest"),
            tuple(fields.things(value, "thresholds")),
        )

    def to_json(self) -> dict[str, Json]:
        """Return the predicate as a JSON object."""
        return {
            "run": self.run,
            "metrics": dict(self.metrics),
            "thresholds": [dict(t) for t in self.thresholds],
            "inputsDigest": self.inputs,
        }

    def statement(self, repository: str, digest: str, content: str) -> Statement:
        """Return the statement that this was measured of the artifact `digest`, whose files are `content`."""
        return Statement((Resource.of(repository, digest), Resource.of("files", content)), TYPE, self.to_json())
