"""The process `node`: runs pods on this machine's nodes and opens devices to them under grants."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import zlib
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

import wharfinger
from wharfinger.bootstrap import apiclient, part
from wharfinger.bootstrap.fleet import FLEET_LABEL, Fleet, open_fleet
from wharfinger.bootstrap.health import Isolated, keep_host
from wharfinger.bootstrap.part import Setting
from wharfinger.cluster.client import Client, Object
from wharfinger.cluster.informer import Informers
from wharfinger.cluster.writer import ObjectWriter
from wharfinger.core.clock import SECOND, Clock
from wharfinger.core.document import canonical
from wharfinger.core.errors import Denied, NotFound, Unavailable, WharfingerError, excerpt
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity import serve
from wharfinger.identity.issuerclient import IssuerClient
from wharfinger.identity.serve import Receive, Scope, Send, peer_of
from wharfinger.identity.source import SvidSource
from wharfinger.identity.workloadsource import WorkloadSource
from wharfinger.local.node import cgroups, nodestatus, podlogs
from wharfinger.local.node.agent import Agent, Place
from wharfinger.local.node.devicedoor import DeviceDoor
from wharfinger.local.node.host import this_host
from wharfinger.local.node.nodestatus import Machine
from wharfinger.local.node.registrar import Registrar
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.journal import Journal
from wharfinger.supply import artifact
from wharfinger.supply.registry.client import RegistryClient

WATCHED: Final = ("pods", "grants", "resourceclaims", "tenants", "nodes", "resourceslices")
SYNC_SECONDS: Final = 30.0
_log = logging.getLogger(__name__)


class RegistryArtifacts:
    """`cargo.Artifacts` on the registry, as the node."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    def fetch(self, repository: str, digest: str, into: Path) -> None:
        """Pull by digest; every byte is verified."""
        artifact.pull_folder(self._client, repository, digest, into)

    def store(self, repository: str, folder: Path) -> str:
        """Push what a step left."""
        return artifact.push_folder(self._client, repository, folder, "output")


class Berths:
    """The Node objects of this machine and what they have, told to the API at first and with every beat."""

    def __init__(
        self, fleet: Fleet, machine: Machine, informers: Informers, writer: ObjectWriter, clock: Clock
    ) -> None:
        self._fleet = fleet
        self._machine = machine
        self._informers = informers
        self._writer = writer
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Say what there is, then go on saying it. Raises the error family when it cannot be said at all."""
        self.retire()
        self.tell()
        self._thread.start()

    def stop(self) -> None:
        """Say that no pod runs here any more."""
        self._stopped.set()
        self._thread.join(timeout=5)
        with contextlib.suppress(WharfingerError):
            self.tell(stopping="the platform was stopped")

    def retire(self) -> None:
        """Remove the nodes of a fleet that this machine had before, with their devices and pods."""
        kept = {told["metadata"]["name"] for told in self._fleet.nodes}
        for held in self._informers.list("nodes"):
            name = held["metadata"]["name"]
            if name in kept or FLEET_LABEL not in (held["metadata"].get("labels") or {}):
                continue
            for one in self._informers.list("resourceslices"):
                if one["spec"].get("nodeName") == name:
                    self._writer.delete("resourceslices", "", one["metadata"]["name"])
            for pod in self._informers.list("pods"):
                if pod["spec"].get("nodeName") == name:
                    meta = pod["metadata"]
                    self._writer.delete("pods", meta["namespace"], meta["name"], uid=meta["uid"], grace=0)
            self._writer.delete("nodes", "", name)

    def tell(self, stopping: str = "") -> None:
        """Write each node, its status and its devices where they differ from what the API has."""
        for told in self._fleet.nodes:
            name, now = told["metadata"]["name"], self._clock.now()
            wanted = nodestatus.node(told, self._machine)
            held = self._informers.get("nodes", "", name)
            labels = (held or {}).get("metadata", {}).get("labels") or {}
            if held is None or any(labels.get(k) != v for k, v in wanted["metadata"]["labels"].items()):
                self._writer.apply(wanted)
            status = nodestatus.status(told, self._machine, (held or {}).get("status"), now, stopping)
            before = (held or {}).get("status") or {}
            if any(before.get(field) != value for field, value in status.items()):
                self._writer.status("nodes", "", name, status)
            fresh, gone = self._fleet.slices(name, self._informers.list("resourceslices"))
            for one in fresh:
                self._writer.apply(one)
            for one_gone in gone:
                self._writer.delete("resourceslices", "", one_gone)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                for told in self._fleet.nodes:
                    self._writer.apply(nodestatus.lease(told["metadata"]["name"], self._clock.now()))
                self.tell()
            except WharfingerError as error:
                _log.info("heartbeat", extra={"fields": {"error": str(error)}})
            self._stopped.wait(nodestatus.BEAT / SECOND)


class Logs:
    """The ASGI application of the node: `GET /v1/logs`, for the part `api` alone."""

    def __init__(self, agent: Agent, api: str, clock: Clock) -> None:
        self._agent = agent
        self._api = api
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        begun = False
        try:
            if str(peer_of(scope)) != self._api:
                raise Denied("logs are read through the API")
            if scope["path"] != "/v1/logs" or scope["method"] != "GET":
                raise NotFound(f"there is no {excerpt(scope['method'])} {excerpt(scope['path'])} here")
            query = dict(parse_qsl(scope["query_string"].decode("ascii", "replace"), keep_blank_values=True))
            options = podlogs.options_of(query, self._clock.now())
            worker, path = self._agent.log(
                query.get("namespace", ""),
                query.get("pod", ""),
                query.get("uid", ""),
                options.container,
                previous=options.previous,
            )
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            begun = True
            gone = asyncio.create_task(_left(receive))
            try:
                log = podlogs.read(path, options, lambda: gone.done() or worker.has_ended(options.container, path))
                async for piece in log:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            finally:
                gone.cancel()
            await send({"type": "http.response.body", "body": b""})
        except WharfingerError as error:
            if begun:
                return
            body = canonical({"message": error.message, "reason": error.code})
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": error.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})


async def _left(receive: Receive) -> None:
    """Return when the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(slots=True)
class Node:
    """Everything of the process that is started and stopped."""

    informers: Informers
    journal: Journal
    registrar: Registrar
    agent: Agent
    berths: Berths

    def start(self) -> None:
        """Take up what runs, then say that pods may come. Raises the error family."""
        self.informers.start()
        if not self.informers.synced(SYNC_SECONDS):
            raise Unavailable("the API does not answer", hint="wharf status shows it")
        self.registrar.start()
        self.agent.start()
        self.berths.start()
        with contextlib.suppress(WharfingerError):
            self.registrar.sweep([pod["metadata"]["uid"] for pod in self.informers.list("pods")])

    def stop(self) -> None:
        """End every pod; their objects stay."""
        self.agent.stop()
        self.berths.stop()
        self.registrar.stop()
        self.informers.stop()
        self.journal.close()


def node(setting: Setting, source: SvidSource, guardian: int) -> Node:
    """Return the node of this machine. `guardian` is a pidfd of the supervisor. Raises the error family."""
    clock, ids = SystemClock(), SystemIds()
    fleet = open_fleet(setting)
    client = apiclient.client(setting, source, "node")
    informers = apiclient.informers(client, WATCHED)
    writer = apiclient.writer(client, "node", clock, ids)
    journal = Journal(setting.state.evidence / "node")
    # Short: it is a folder's name in every tree of control groups, and tells this platform from others.
    name = f"wharfinger-{zlib.crc32(str(setting.state.root.resolve()).encode()):08x}"
    groups = cgroups.groups(name)
    host = this_host(setting.state.root, wharfinger.__path__)
    registrar = Registrar(IssuerClient("127.0.0.1", setting.ports["issuer"], source))
    home = setting.state.of("node")
    agent = Agent(
        place=Place(home / "pods", setting.state.run / "pods", setting.state.evidence, name),
        trust_domain=setting.trust_domain,
        informers=informers,
        writer=writer,
        find=lambda plural, namespace, name: found(client, plural, namespace, name),
        door=DeviceDoor(Doorkeeper("node", journal, clock, ids), fleet.silicon, groups, clock),
        issuer=registrar,
        artifacts=RegistryArtifacts(RegistryClient("127.0.0.1", setting.ports["registry"], source)),
        clock=clock,
        host=host,
        groups=groups,
        guardian=guardian,
        nodes=[told["metadata"]["name"] for told in fleet.nodes],
        # Where no control group decides, a pod sees what it was given and nothing else.
        shown=replace(fleet, enforced=fleet.enforced and groups.devices).shown,
        endpoints={name: setting.endpoint(name) for name in ("api", "registry", "gateway")},
    )
    doors = fleet.reason or groups.reason
    machine = Machine(
        isolation=host.isolation,
        reason=host.reason,
        doors=doors,
        architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(host.machine, host.machine),
        kernel=os.uname().release,
        boot=Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        version=version("wharfinger"),
    )
    keep_host(setting.state, Isolated(fleet.source, host.isolation, host.reason, doors))
    _log.info("host", extra={"fields": {"isolation": host.isolation, "reason": host.reason, "doors": doors or "yes"}})
    return Node(informers, journal, registrar, agent, Berths(fleet, machine, informers, writer, clock))


def found(client: Client, plural: str, namespace: str, name: str) -> Object | None:
    """Return an object that a pod refers to, as it is now; None when it is not there."""
    try:
        return client.get(apiclient.RESOURCES[plural], namespace, name)
    except NotFound:
        return None


def main(setting: Setting) -> None:
    """Run pods until SIGTERM."""
    source = WorkloadSource(setting.workload_socket)
    source.material()
    guardian = os.pidfd_open(os.getppid())
    try:
        serve.run(lambda: _serve(setting, source, guardian))
    finally:
        source.close()


async def _serve(setting: Setting, source: SvidSource, guardian: int) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    made = await asyncio.to_thread(node, setting, source, guardian)
    await asyncio.to_thread(made.start)
    front = serve.Server(
        Logs(made.agent, setting.identity("api"), SystemClock()), source, serve.bind(setting.ports["node"])
    )
    await front.start()
    part.ready()
    await stopping.wait()
    stopped = asyncio.create_task(asyncio.to_thread(made.stop))
    await front.stop()
    await stopped


if __name__ == "__main__":
    part.run("node", main)
