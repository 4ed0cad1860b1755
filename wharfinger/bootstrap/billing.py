"""The bill of a running platform: its journals, and the rates of its tenants as the API has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.bootstrap.state import State, check_version
from wharfinger.cluster.client import Client
from wharfinger.cluster.endpoint import from_kubeconfig
from wharfinger.core.document import Json
from wharfinger.core.systemclock import SystemClock
from wharfinger.govern.billing import bill
from wharfinger.policy.journal import read

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


def records(state: State) -> Iterator[dict[str, Json]]:
    """Yield what the parts recorded that is paid for."""
    for part in _JOURNALS:
        folder = state.evidence / part
        if folder.is_dir():
            yield from read(folder)
