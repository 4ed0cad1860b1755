"""The ledger of one gateway: what tenants and callers have left this minute, and what each answer used.

A request reserves before the model is asked and settles afterwards; its account is in the journal before the last byte
of its answer goes out, so that no whole answer is ever unaccounted for. At start the last minute is read back from the
journal: what was settled counts on, what was reserved by requests that died with the process is free again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeAlias

from wharfinger.core.clock import MINUTE, Clock, Instant, parse_rfc3339
from wharfinger.core.errors import Malformed
from wharfinger.inference import limits
from wharfinger.inference.accounts import Account, settle
from wharfinger.inference.routing import Service
from wharfinger.policy.journal import Journal

_Key: TypeAlias = tuple[str, str]
_FORGET: int = 2 * MINUTE


class Reservation:
    """Tokens taken for one request; `settled` once they are given back or used."""

    def __init__(self, keys: tuple[_Key, ...], tokens: int) -> None:
        self.keys = keys
        self.tokens = tokens
        self.settled = False


class Ledger:
    """Balances in memory, accounts in `journal`; of one event loop."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._windows: dict[_Key, limits.Window] = {}

    def restore(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take over what the journal says was used lately; `records` are its own, oldest first."""
        since = self._clock.now() - _FORGET
        earlier: dict[_Key, list[tuple[Instant, int]]] = defaultdict(list)
        for record in records:
            if record.get("kind") != "tokens":
                continue
            try:
                at, tokens = parse_rfc3339(record["at"]), int(record["tokens"])
                keys = _keys(record["tenant"], record["namespace"], record["service"], record["caller"])
            except (KeyError, TypeError, ValueError, Malformed):
                continue
            if at >= since:
                for key in keys:
                    earlier[key].append((at, tokens))
        self._windows = {key: limits.replay(uses) for key, uses in earlier.items()}

    def reserve(self, service: Service, caller: str, tokens: int) -> Reservation:
        """Take `tokens` from the tenant and, where the service limits them, from the caller.

        Raises `Throttled`, having taken nothing, when one of them has not so many left.
        """
        now = self._clock.now()
        tenant, own = _keys(service.tenant, service.namespace, service.name, caller)
        wanted = [(tenant, service.tenant_limit, f"tenant {service.tenant}")]
        if service.caller_limit is not None:
            wanted.append((own, service.caller_limit, caller))
        taken = {
            key: limits.reserve(self._windows.get(key) or limits.Window(), limit, tokens, whose, now)
            for key, limit, whose in wanted
        }
        self._windows.update(taken)
        return Reservation(tuple(taken), tokens)

    def release(self, reservation: Reservation) -> None:
        """Give all of a reservation back: its request was never passed on."""
        self._replace(reservation, 0)

    def settle(self, service: Service, reservation: Reservation, account: Account) -> Future[None]:
        """Put what was used in the reservation's place and queue the account; it counts when the future is done."""
        self._replace(reservation, account.prompt + account.completion)
        return settle(self._journal, service, account)

    def _replace(self, reservation: Reservation, used: int) -> None:
        if reservation.settled:
            return
        reservation.settled = True
        for key in reservation.keys:
            self._windows[key] = limits.settle(self._windows[key], reservation.tokens, used, self._clock.now())


def _keys(tenant: str, namespace: str, service: str, caller: str) -> tuple[_Key, _Key]:
    return ("tenant", tenant), (f"caller/{namespace}/{service}", caller)
