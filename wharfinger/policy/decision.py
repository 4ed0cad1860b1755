"""Decisions: a verdict of a pure rule, with everything needed to explain and replay it.

A rule (`grant.permits`, `access.decide`, `authorization.authorize`, ...) returns a `Verdict`. A door
makes a `Decision` of it, which names the rule and the content addresses of the rule's inputs; the
door's journal (`policy.journal`) holds both durably before the door opens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wharfinger.core.clock import Instant, parse_rfc3339, rfc3339_micro
from wharfinger.core.digests import sha256
from wharfinger.core.document import Json, canonical
from wharfinger.core.errors import Corrupt, excerpt


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes or no. A no names the `element` that does not belong and the `reason` in words a tenant can act on."""

    allowed: bool
    reason: str
    element: str = ""

    def __bool__(self) -> bool:
        """A verdict is never tested as a bare value: `if verdict` would read an object as a yes."""
        raise TypeError("ask a Verdict for .allowed")


@dataclass(frozen=True, slots=True)
class Decision:
    """One verdict at one door.

    `id` is a UUID; `part` the process that decided; `rule` the dotted name of the pure rule; `who` the
    SPIFFE ID (or `anonymous`), `verb` what they tried (`pull`, `open`, `call`, ...), `what` the thing;
    `inputs` maps each argument of the rule to the sha256 of its canonical JSON.
    """

    id: str
    at: Instant
    part: str
    rule: str
    verdict: Verdict
    who: str
    verb: str
    what: str
    tenant: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Json]:
        """Return the form in which a journal holds it; `from_record` reads it back."""
        return {
            "kind": "decision",
            "id": self.id,
            "at": rfc3339_micro(self.at),
            "part": self.part,
            "rule": self.rule,
            "allowed": self.verdict.allowed,
            "element": self.verdict.element,
            "reason": self.verdict.reason,
            "who": self.who,
            "verb": self.verb,
            "what": self.what,
            "tenant": self.tenant,
            "inputs": dict(self.inputs),
        }


_TEXTS = ("id", "part", "rule", "reason", "element", "who", "verb", "what", "tenant")


def from_record(record: Mapping[str, Any]) -> Decision:
    """Return the decision that a journal's `record` holds.

    Raises `Corrupt` when it lacks a field or one has the wrong type.
    """
    try:
        inputs = record["inputs"]
        allowed = record["allowed"]
        texts = {
            name: record[name] for name in ("id", "part", "rule", "reason", "element", "who", "verb", "what", "tenant")
        }
        at = parse_rfc3339(record["at"])
    except (KeyError, TypeError) as error:
        raise Corrupt(f"expected a decision record with field {excerpt(str(error))}") from error
    if type(allowed) is not bool or not isinstance(inputs, dict) or not all(isinstance(t, str) for t in texts.values()):
        raise Corrupt(f"expected a decision record, got fields of the wrong type in {excerpt(str(texts.get('id')))}")
    verdict = Verdict(allowed, texts["reason"], texts["element"])
    return Decision(
        id=texts["id"],
        at=at,
        part=texts["part"],
        rule=texts["rule"],
        verdict=verdict,
        who=texts["who"],
        verb=texts["verb"],
        what=texts["what"],
        tenant=texts["tenant"],
        inputs=inputs,
    )


def address(value: Json) -> str:
    """Return the content address of an input: the sha256 of its canonical JSON."""
    return sha256(canonical(value))
