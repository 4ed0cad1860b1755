"""The bill of a running platform: its journals, and the rates of its tenants as the API has them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.bootstrap.state import State, check_version
from wharfinger.cluster.client import Client
from wharfinger.cluster.endpoint import from_kubeconfig
from wharfinger.core.clock import Instant
from wharfinger.core.document import Json
from wharfinger.core.systemclock import SystemClock
from wharfinger.govern.billing import Sheet, bill, month_of
from wharfinger.policy.journal import read
from wharfinger.policy.tail import Tail

_JOURNALS = ("control", "gateway")


def bills(state_dir: Path) -> dict[str, Json]:
    """Return the bill of every tenant until now (`govern.billing.bill`).

    Raises `HostUnfit` when there is no platform, `Unavailable` when it does not run, `Corrupt` for a damaged journal.
    """
    state = State(state_dir.absolute())
    check_version(state)
    client = Client(from_kubeconfig(state.kubeconfig))
    tenants = client.list(RESOURCES["tenants"])["items"]
    return bill(records(state), tenants, SystemClock().now())


class Spending:
    """What tenants have spent: follows the journals, so that asking again costs what is new. Threads share it."""

    def __init__(self, evidence: Path) -> None:
        self._tails = [Tail(evidence / part) for part in _JOURNALS]
        self._sheet = Sheet()
        self._lock = threading.Lock()

    def __call__(self, tenant: Mapping[str, Any], now: Instant) -> str:
        """Return what a Tenant spent in the calendar month of `now`: the port `controllers.tenant.Spent`."""
        with self._lock:
            for tail in self._tails:
                for record in tail.fresh():
                    self._sheet.add(record)
            lines = self._sheet.lines([tenant], now, month_of(now))
        return next(str(line["amount"]) for line in lines if line["tenant"] == tenant["metadata"]["name"])


def records(state: State) -> Iterator[dict[str, Json]]:
    """Yield what the parts recorded that is paid for."""
    for part in _JOURNALS:
        folder = state.evidence / part
        if folder.is_dir():
            yield from read(folder)
