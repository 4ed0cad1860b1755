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
    """The record of a `journal` (`policy.decision.Decision.record`): it names its inputs by content address.

    `journal` is the part of the platform that wrote it, or `pod-UID` for the runtime in that pod, which vouches for
    itself alone.
    """

    record: dict[str, Json]
    journal: str

    @classmethod
    def parse(cls, predicate: Json) -> DecisionRecord:
        """Return the record in a decoded JSON `predicate`. Raises `Malformed`."""
        value = fields.thing(predicate, "decision", "record", "journal")
        return cls(fields.thing(value.get("record"), "decision record"), fields.text(value, "journal"))

    def to_json(self) -> dict[str, Json]:
        """Return the predicate as a JSON object."""
        return {"record": self.record, "journal": self.journal}

    @property
    def digest(self) -> str:
        """The content address of the record."""
        return sha256(canonical(self.record))

    def statement(self) -> Statement:
        """Return the statement that this was decided; its subject is the record."""
        return Statement((Resource.of(f"decision/{self.record['id']}", self.digest),), TYPE, self.to_json())
