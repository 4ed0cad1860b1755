"""Proof: the parts that together prove one decision, each by name and digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wharfinger.core.digests import parse_sha256
from wharfinger.core.document import Json
from wharfinger.supply.predicates import fields
from wharfinger.supply.statement import Resource, Statement

TYPE: Final = "https://wharfinger.io/attestations/proof/v1"


@dataclass(frozen=True, slots=True)
class Parts:
    """`parts` of the proof of the decision `decision`, whose record has the digest `record`; made at `at`."""

    decision: str
    record: str
    at: str
    parts: Mapping[str, str]

    @classmethod
    def parse(cls, predicate: Json) -> Parts:
        """Return the parts in a decoded JSON `predicate`. Raises `Malformed`."""
        value = fields.thing(predicate, "proof", "decision", "record", "at", "parts")
        parts = fields.table(value, "parts", str)
        for digest in parts.values():
            parse_sha256(digest)
        return cls(fields.text(value, "decision"), fields.digest(value, "record"), fields.moment(value, "at"), parts)

    def to_json(self) -> dict[str, Json]:
        """Return the predicate as a JSON object."""
        return {"decision": self.decision, "record": self.record, "at": self.at, "parts": dict(self.parts)}

    def statement(self) -> Statement:
        """Return the statement that these are the parts; its subject is the decision's record."""
        return Statement((Resource.of(f"decision/{self.decision}", self.record),), TYPE, self.to_json())
