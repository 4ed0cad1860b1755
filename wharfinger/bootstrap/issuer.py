"""The process `issuer`, the only holder of signing keys: it attests by the kernel and signs typed requests alone.

Two surfaces: the SPIFFE Workload API on Unix sockets, one for the platform's parts and one for each pod's container,
and typed requests over mTLS. What it gives out is in its journal before it leaves.
"""

from __future__ import annotations

import array
import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wharfinger.bootstrap import part
from wharfinger.bootstrap.issuerrequests import Asked, Requests
from wharfinger.bootstrap.notary import Notary
from wharfinger.bootstrap.part import Setting
from wharfinger.core.clock import SECOND, Clock
from wharfinger.core.document import Json, parse_json
from wharfinger.core.errors import Conflict, Denied, HostUnfit, WharfingerError
from wharfinger.core.ids import Ids
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity import serve
from wharfinger.identity.issuer.attestation import Process
from wharfinger.identity.issuer.authority import Authority, Lifetimes
from wharfinger.identity.issuer.registrations import Registrations
from wharfinger.identity.issuer.vault import Vault
from wharfinger.identity.issuer.workloadserver import WorkloadServer, half_life
from wharfinger.identity.issuerclient import PodRegistration
from wharfinger.identity.source import FileSource, Material
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain
from wharfinger.policy import issuance
from wharfinger.policy.decision import Decision, Verdict, address
from wharfinger.policy.journal import Journal

SOCKET: Final = "workload.sock"
"""The name of a pod's Workload API socket in its folder."""
LARGEST_INTRODUCTION: Final = 4096
_PR_SET_DUMPABLE: Final = 4

_log = logging.getLogger(__name__)


class Minutes:
    """What the issuer writes down before it gives: a decision for each SVID, token, certificate and signature."""

    def __init__(self, journal: Journal, clock: Clock, ids: Ids) -> None:
        self._journal = journal
        self._clock = clock
        self._ids = ids

    async def issued(self, who: str, verb: str, what: str, refused: str = "") -> None:
        """Write down what a process got at the Workload API, or why it was refused. Raises `HostUnfit`."""
        verdict = Verdict(not refused, refused or "the kernel says that it is", "process" if refused else "")
        await self._write("attestation.attest", verdict, who, verb, what, {"asker": who, "request": f"{verb} {what}"})

    async def asked(self, who: SpiffeId | None, asked: Asked, verdict: Verdict) -> None:
        """Write down a typed request and how it was judged. Raises `HostUnfit`."""
        name = None if who is None else str(who)
        verb, _, thing = asked.request.partition(" ")
        request: dict[str, Json] = {"asker": name, "request": asked.request, "facts": dict(asked.facts)}
        await self._write(issuance.RULE, verdict, name, verb, asked.what or thing, request)

    async def _write(
        self, rule: str, verdict: Verdict, who: str | None, verb: str, what: str, request: dict[str, Json]
    ) -> None:
        now = self._clock.now()
        inputs: dict[str, Json] = {"request": {**request, "now": now}}
        decision = Decision(
            id=self._ids.uid(),
            at=now,
            part="issuer",
            rule=rule,
            verdict=verdict,
            who=who or "anonymous",
            verb=verb,
            what=what,
            inputs={name: address(value) for name, value in inputs.items()},
        )
        await asyncio.wrap_future(self._journal.submit(decision.record(), inputs))


@dataclass(slots=True)
class PodSockets:
    """The Workload API sockets of pods: made when a container is registered, gone when its pod is forgotten."""

    registrations: Registrations
    authority: Authority
    minutes: Minutes
    clock: Clock
    _servers: dict[tuple[str, str], WorkloadServer] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def register(self, pod: PodRegistration) -> Path:
        """Have the container known and its socket made. Raises `Invalid`, `Conflict` or `HostUnfit`."""
        key = (pod.uid, pod.container)
        async with self._lock:
            fresh = self.registrations.register(pod)
            server = self._servers.get(key)
            if server is not None and (fresh or server.path.parent != pod.folder):
                await self._servers.pop(key).stop()
                server = None
            if server is None:
                server = WorkloadServer(
                    pod.folder / SOCKET,
                    lambda peer: self.registrations.pod_of(pod.uid, pod.container, peer),
                    self.authority,
                    self.minutes.issued,
                    self.clock,
                )
                # Whoever is in the pod may connect, as whichever user; the kernel says who it is.
                await server.start(0o666)
                self._servers[key] = server
            return server.path

    async def forget(self, uid: str) -> None:
        """Have the pod forgotten and its sockets gone."""
        async with self._lock:
            self.registrations.forget(uid)
            for key in [key for key in self._servers if key[0] == uid]:
                await self._servers.pop(key).stop()

    def known(self) -> list[PodRegistration]:
        """Return the pods that are known."""
        return self.registrations.pods()

    async def stop(self) -> None:
        """Take every socket away."""
        async with self._lock:
            for server in self._servers.values():
                await server.stop()
            self._servers.clear()


def main(setting: Setting) -> None:
    """Serve until SIGTERM."""
    keep_memory_private()
    serve.run(lambda: _serve(setting))


async def _serve(setting: Setting) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    clock, domain = SystemClock(), TrustDomain(setting.trust_domain)
    vault = Vault(setting.state.of("issuer"), domain, clock.now())
    authority = Authority(vault, clock, lifetimes(os.environ.get("WHARF_SVID_SECONDS", "")))
    journal = Journal(setting.state.evidence / "issuer")
    minutes = Minutes(journal, clock, SystemIds())
    registrations = Registrations(domain)
    channel = os.environ.pop("WHARF_PARTS_FD", "")
    if channel:
        introductions = socket.socket(fileno=int(channel))
        introductions.setblocking(False)
        loop.add_reader(introductions, _introduced, introductions, registrations)
    parts = WorkloadServer(setting.workload_socket, registrations.part_of, authority, minutes.issued, clock)
    pods = PodSockets(registrations, authority, minutes, clock)
    own = SpiffeId(setting.identity("issuer"))
    source = FileSource(Material(authority.svid(own), authority.bundles))
    renewing = asyncio.create_task(_renew(source, authority, clock))
    requests = Requests(authority, Notary(vault, authority), pods, minutes.asked)
    front = serve.Server(requests, source, serve.bind(setting.ports["issuer"]))
    await parts.start(0o600)
    await front.start()
    part.ready()
    await stopping.wait()
    renewing.cancel()
    await front.stop()
    await pods.stop()
    await parts.stop()
    journal.close()


def keep_memory_private() -> None:
    """Have the kernel show this process's memory to nobody of the same user, by ptrace, `/proc` or a core dump."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def lifetimes(seconds: str) -> Lifetimes:
    """Return how long SVIDs live: an hour, or the `seconds` that were set to watch rotation. Raises `HostUnfit`."""
    if not seconds:
        return Lifetimes()
    if not (seconds.isascii() and seconds.isdigit() and 2 <= int(seconds) <= 86400):
        raise HostUnfit(f"WHARF_SVID_SECONDS: expected a number from 2 to 86400, got {seconds[:20]!r}")
    return Lifetimes(svid=int(seconds) * SECOND)


async def _renew(source: FileSource, authority: Authority, clock: Clock) -> None:
    """Replace the issuer's own SVID at half its life."""
    while True:
        await half_life(clock, source.material().svid)
        source.set(Material(authority.svid(source.material().svid.id), authority.bundles))


def _introduced(channel: socket.socket, registrations: Registrations) -> None:
    """Take what the supervisor says of its processes: the part's name, and the process itself as a pidfd."""
    try:
        name, process = introduction(channel)
        registrations.introduce(name, process)
    except BlockingIOError:
        return
    except EOFError:
        asyncio.get_running_loop().remove_reader(channel)
        return
    except WharfingerError as error:
        _log.warning("introduction", extra={"fields": {"error": str(error)}})
        return
    _log.info("introduced", extra={"fields": {"name": name, "pid": process.pid}})


def introduction(channel: socket.socket) -> tuple[str, Process]:
    """Return the next introduction from `channel`. The pid is the pidfd's own; what the message says must agree.

    Raises `Conflict` when it does not, `EOFError` when the supervisor has gone, `BlockingIOError` when there is none.
    """
    size = socket.CMSG_SPACE(array.array("i").itemsize * 4)
    data, ancillary, _, _ = channel.recvmsg(LARGEST_INTRODUCTION, size, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, told in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(told[: len(told) - len(told) % descriptors.itemsize])
    if not data:
        raise EOFError
    try:
        message = parse_json(data)
        name, pid = message["part"], message["pid"]
        if not isinstance(name, str) or len(descriptors) != 1 or _pid_of(descriptors[0]) != pid:
            raise Conflict(f"introduction of {name}: expected the pidfd of process {pid}")
    except (ValueError, KeyError, TypeError, OSError, WharfingerError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise Conflict(f"expected an introduction: {error}") from error
    return name, Process(pid, descriptors[0])


def _pid_of(pidfd: int) -> int:
    """Return the pid that a pidfd stands for (`Pid:` in its fdinfo; -1 once the process is gone)."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "Pid":
            return int(value)
    raise Denied("not a pidfd")


if __name__ == "__main__":
    part.run("issuer", main)
