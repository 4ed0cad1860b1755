"""The process `registry`: OCI Distribution and the transparency log, behind one door.

It has the blobs and the log's entries, and no key: checkpoints are signed by the issuer, which knows when the log
goes back or aside. Grants, policies and tenants come from the API server; every decision is in the journal before
a byte flows.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from wharfinger.bootstrap import apiclient, part
from wharfinger.bootstrap.part import Setting
from wharfinger.cluster.informer import Informers
from wharfinger.core.clock import Clock
from wharfinger.core.errors import Unavailable
from wharfinger.core.ids import Ids
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity import jwtsvid, serve
from wharfinger.identity.issuerclient import IssuerClient
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.workloadsource import WorkloadSource
from wharfinger.policy.cel import condition
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.journal import Journal
from wharfinger.supply.registry.app import Registry
from wharfinger.supply.registry.authentication import Authenticator, VerifyToken
from wharfinger.supply.registry.catalog import Catalog
from wharfinger.supply.registry.door import RegistryDoor
from wharfinger.supply.registry.objects import PLURALS, Objects
from wharfinger.supply.registry.storage import Storage
from wharfinger.supply.tlog.log import Log
from wharfinger.supply.tlog.note import VerifierKey

CATALOG: Final = "catalog.db"
SYNC_SECONDS: Final = 60.0


def main(setting: Setting) -> None:
    """Serve until SIGTERM."""
    source = WorkloadSource(setting.workload_socket)
    source.material()
    clock, ids = SystemClock(), SystemIds()
    issuer = IssuerClient("127.0.0.1", setting.ports["issuer"], source)
    root = issuer.trust_root()
    key = VerifierKey.parse(root.log_key)
    journal = Journal(setting.state.evidence / "registry")
    catalog = Catalog(setting.state.of("registry") / CATALOG)
    storage = Storage(setting.state.of("registry"), catalog, clock, ids)
    log = Log(setting.state.of("log"), key, issuer.sign_checkpoint, clock, last=lambda: root.log_checkpoint)
    informers = apiclient.informers(apiclient.client(setting, source, "registry"), PLURALS)
    try:
        objects = watched(informers, setting.trust_domain)
        door = door_on(objects, journal, clock, ids)
        authenticator = Authenticator(_verifier(source, setting.identity("registry"), clock))
        application = Registry(storage, door, authenticator, setting.trust_domain, log)
        serve.run(lambda: _serve(setting, source, application, log))
    finally:
        informers.stop()
        log.close()
        storage.close()
        catalog.close()
        journal.close()
        source.close()


def watched(informers: Informers, trust_domain: str) -> Objects:
    """Return the objects of the door, fed by `informers`, once all are here. Raises `Unavailable`."""
    objects = Objects(trust_domain)
    for plural in PLURALS:
        informers[plural].on_change(_taker(objects, plural))
    informers.start()
    if not informers.synced(SYNC_SECONDS):
        raise Unavailable("registry: the API server does not answer", hint="wharf logs --part api tells why")
    return objects


def door_on(objects: Objects, journal: Journal, clock: Clock, ids: Ids) -> RegistryDoor:
    """Return the door that judges by `objects` and writes to `journal`."""
    return RegistryDoor(objects, Doorkeeper("registry", journal, clock, ids), journal, condition, clock, ids)


def _taker(objects: Objects, plural: str) -> Callable[[str, dict[str, object]], None]:
    return lambda change, item: objects.take(plural, change, item)


def _verifier(source: WorkloadSource, audience: str, clock: Clock) -> VerifyToken:
    def verify(token: str) -> SpiffeId:
        return jwtsvid.verify(token, source.jwt_bundles(), audience, clock.now())

    return verify


async def _serve(setting: Setting, source: WorkloadSource, application: Registry, log: Log) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    front = serve.Server(application, source, serve.bind(setting.ports["registry"]), ready=log.why_not_ready)
    await front.start()
    part.ready()
    await stopping.wait()
    await front.stop()


if __name__ == "__main__":
    part.run("registry", main)
