"""The audit record: who did what to which object, and what it was before and after."""

from __future__ import annotations

from typing import NamedTuple

from wharfinger.core.clock import Instant, rfc3339_micro
from wharfinger.core.document import Json


class Record(NamedTuple):
    """One mutation, or one attempt that was refused.

    `who` is a SPIFFE ID; `resource` is `plural.group`; `before` and `after` are sha256 digests of the
    object's bytes as clients get them, empty where there was no object; `code` is the HTTP status
    answered; `reason` says why a refused attempt was refused, empty for a mutation that happened.
    """

    at: Instant
    who: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    uid: str
    before: str
    after: str
    code: int
    reason: str


def shown(number: int, record: Record) -> Json:
    """Return the record as JSON, under its number in the trail."""
    made: dict[str, Json] = {"id": number, **record._asdict()}
    made["at"] = rfc3339_micro(record.at)
    return {name: value for name, value in made.items() if value != ""}
