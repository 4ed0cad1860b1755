"""Token accounts: what each answer used, on disk before the account counts, summed from disk afterwards.

A record per answer in the gateway's journal: `{"kind": "tokens", "id": decision, "at", "caller", "tenant", "namespace",
"service", "model", "prompt", "completion", "tokens", "measured", "ttftMilliseconds", "outcome"}`. `measured` is false
where the model's server gave no usage and the pieces were counted instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from wharfinger.core.clock import Instant, rfc3339_micro
from wharfinger.inference.answers import Usage
from wharfinger.inference.routing import Service
from wharfinger.policy.journal import Journal


@dataclass(frozen=True, slots=True)
class Account:
    """What one answer used."""

    decision: str
    at: Instant
    caller: str
    prompt: int
    completion: int
    measured: bool
    first_token_milliseconds: float | None
    outcome: str


def account_of(
    decision: str, at: Instant, caller: str, usage: Usage, estimate: int, first: float | None, outcome: str
) -> Account:
    """Return the account of an answer; without a usage object the estimate and what was counted stand in."""
    prompt, completion = usage.tokens(estimate)
    return Account(decision, at, caller, prompt, completion, usage.said is not None, first, outcome)


def settle(journal: Journal, service: Service, account: Account) -> Future[None]:
    """Queue the account; it counts when the future is done."""
    return journal.submit(
        {
            "kind": "tokens",
            "id": account.decision,
            "at": rfc3339_micro(account.at),
            "caller": account.caller,
            "tenant": service.tenant,
            "namespace": service.namespace,
            "service": service.name,
            "model": service.digest,
            "prompt": account.prompt,
            "completion": account.completion,
            "tokens": account.prompt + account.completion,
            "measured": account.measured,
            "ttftMilliseconds": account.first_token_milliseconds,
            "outcome": account.outcome,
        }
    )


def total(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return tokens by tenant; a record that occurs twice (the same decision) counts once."""
    seen: set[str] = set()
    summed: dict[str, int] = {}
    for record in records:
        if record.get("kind") != "tokens" or record["id"] in seen:
            continue
        seen.add(record["id"])
        summed[record["tenant"]] = summed.get(record["tenant"], 0) + int(record["tokens"])
    return summed
