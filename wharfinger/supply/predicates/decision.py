"""Decision: one verdict at one door, as the door's journal holds it, vouched for by the control plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wharfinger.core.digests import sha256
from wharfinger.core.document import Json, canonical
from wharfinger.supply.predicates import fields
from wharfinger.supply.statement import Resource, Statement

TYPE: Final = "https://wharfinger.io/attestations/decision/v1"


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """The journal's record (`policy.decision.Decision.record`): it names its inputs by content address."""

    record: dict[str, Json]

    @classmethod
    def parse(cls, predicate: Json) -> DecisionRecord:
        """Return the record in a decoded JSON `predicate`. Raises `Malformed`."""
        value = fields.thing(predicate, "decision", "record")
        return cls(fields.thing(value.get("record"), "decision record"))

    def to_json(self) -> dict[str, Json]:
        """Return the predicate as a JSON object."""
        return {"record": self.record}

    @property
    def digest(self) -> str:
        """The content address of the record."""
        return sha256(canonical(self.record))

    def statement(self) -> Statement:
        """Return the statement that this was decided; its subject is the record."""
        return Statement((Resource.of(f"decision/{self.record['id']}", self.digest),), TYPE, self.to_json())
