"""The process `gateway`: the OpenAI API for callers, on one event loop.

One process, so that token limits are exact and the ledger has one writer; a machine that needs more runs more gateways,
each in front of its own tenants. Beside the callers' paths it answers the platform's own: `/livez` and `/readyz` to
anyone, `/metrics` and `/admin/tokens-in-flight` to its parts, `POST /admin/judgements` to the local admin.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
import secrets
import signal
import ssl
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from wharfinger.bootstrap import apiclient, part
from wharfinger.bootstrap.part import Setting
from wharfinger.bootstrap.state import State, write_file
from wharfinger.cluster.informer import Informers
from wharfinger.core.clock import Clock
from wharfinger.core.document import parse_json
from wharfinger.core.errors import Corrupt, Denied, HostUnfit, Invalid, NotFound, Unavailable, WharfingerError
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity import jwtsvid, serve
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context, server_context
from wharfinger.identity.workloadsource import WorkloadSource
from wharfinger.inference import routing
from wharfinger.inference.callers import Callers, is_part, keys_of
from wharfinger.inference.chat import error_object
from wharfinger.inference.gateway import Gateway, MayCall
from wharfinger.inference.http1 import Reply, Request
from wharfinger.inference.ledger import Ledger
from wharfinger.inference.listener import Listener, bind
from wharfinger.policy.access import Question, undenied
from wharfinger.policy.cel import condition
from wharfinger.policy.decision import Verdict
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.grant import Door
from wharfinger.policy.journal import Journal, read

WATCHED: Final = ("inferenceservices", "grants", "inferencepolicies", "tenants", "secrets", "accesspolicies")
SYNC_SECONDS: Final = 30.0
_SETTLE_SECONDS: Final = 0.02
"""How long changes are gathered before the table is built anew."""
_JUDGED_EVERY: Final = 1.0
_JSON: Final = (b"content-type", b"application/json")
_log = logging.getLogger(__name__)


class Contexts:
    """TLS contexts to workloads, one per SPIFFE ID, so that connections to the same workload are used again."""

    def __init__(self, source: SvidSource) -> None:
        self._source = source
        self._made: dict[str, ssl.SSLContext] = {}

    def to(self, workload: str) -> ssl.SSLContext:
        """Return the context that accepts this workload alone."""
        if workload not in self._made:
            self._made[workload] = client_context(self._source, expect=SpiffeId(workload))
        return self._made[workload]


class Front:
    """The platform's own paths in front of the gateway's."""

    def __init__(self, gateway: Gateway, doorkeeper: Doorkeeper, informers: Informers, trust_domain: str) -> None:
        self._gateway = gateway
        self._doorkeeper = doorkeeper
        self._informers = informers
        self._trust_domain = trust_domain
        self.why_not = "the objects are not here yet"

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        path = request.path
        if path == "/livez":
            reply.send(200, [], b"ok\n")
        elif path == "/readyz":
            reply.send(503 if self.why_not else 200, [], (self.why_not or "ok").encode() + b"\n")
        elif path == "/metrics" or path.startswith("/admin/"):
            try:
                await self._admin(request, reply)
            except WharfingerError as error:
                reply.send(error.status, [_JSON], _status(error))
        elif self.why_not:
            reply.send(503, [_JSON, (b"retry-after", b"1")], error_object(Unavailable(self.why_not)))
        else:
            await self._gateway.handle(request, reply)

    async def _admin(self, request: Request, reply: Reply) -> None:
        path, peer = request.path, request.peer
        if path == "/metrics" and self._is(peer, "control", "console", "admin"):
            reply.send(200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], generate_latest(REGISTRY))
        elif path == "/admin/tokens-in-flight" and self._is(peer, "control", "console", "admin"):
            reply.send(200, [_JSON], json.dumps(self._gateway.tokens_in_flight()).encode())
        elif path == "/admin/judgements" and request.method == "POST" and self._is(peer, "admin"):
            reply.send(200, [_JSON], json.dumps(await self._judge(request)).encode())
        elif self._is(peer, "control", "console", "admin"):
            raise NotFound(f"there is no {request.method} {path[:80]} here")
        else:
            raise Denied("this is for the platform's own parts")

    async def _judge(self, request: Request) -> dict[str, Any]:
        """Put one use to the doorkeeper under the grants of now; nothing is opened by it."""
        asked = parse_json(request.body)
        names = ("workload", "artifact", "device", "caller")
        if not isinstance(asked, dict) or not all(isinstance(asked.get(n), str) or asked.get(n) is None for n in names):
            raise Invalid(f"expected an object with {', '.join(names)}")
        decision, stored = self._doorkeeper.submit(
            Door.GATEWAY, [g["spec"] for g in self._informers.list("grants")], who=asked.get("workload"),
            what=asked.get("artifact"), device=asked.get("device"), caller=asked.get("caller"),
        )  # fmt: skip
        await asyncio.wrap_future(stored)
        verdict = decision.verdict
        return {
            "decision": decision.id,
            "allowed": verdict.allowed,
            "element": verdict.element,
            "reason": verdict.reason,
        }

    def _is(self, peer: SpiffeId | None, *names: str) -> bool:
        return is_part(peer, self._trust_domain, names)


class Tables:
    """Keeps the gateway's routes, keys and judgements current with the objects."""

    def __init__(self, informers: Informers, gateway: Gateway, callers: Callers, trust_domain: str) -> None:
        self._informers = informers
        self._gateway = gateway
        self._callers = callers
        self._trust_domain = trust_domain
        self._loop = asyncio.get_running_loop()
        self._pending: asyncio.TimerHandle | None = None

    def follow(self) -> None:
        """Build now, and again after each change."""
        self._build()
        for plural in WATCHED:
            self._informers[plural].on_change(self._changed)

    def _changed(self, _kind: str, _object: object) -> None:
        self._loop.call_soon_threadsafe(self._soon)

    def _soon(self) -> None:
        if self._pending is None:
            self._pending = self._loop.call_later(_SETTLE_SECONDS, self._build)

    def _build(self) -> None:
        self._pending = None
        listed = self._informers.list
        tenants = listed("tenants")
        table = routing.build(
            listed("inferenceservices"), listed("grants"), listed("inferencepolicies"), tenants, self._trust_domain
        )
        self._callers.keys = keys_of(listed("secrets"), tenants)
        self._gateway.replace(table)


def salt_key(state: State) -> bytes:
    """Return the key that cache salts are made with, drawn at the first start. Raises `HostUnfit`, `Corrupt`."""
    folder = state.of("gateway")
    path = folder / "salt.key"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            write_file(path, secrets.token_bytes(32))
        key = path.read_bytes()
    except OSError as error:
        raise HostUnfit(f"{path.name}: {error.strerror}", hint="free space or fix permissions") from error
    if len(key) != 32:
        raise Corrupt(f"{path.name}: expected 32 bytes, got {len(key)}")
    return key


def secret_of(informers: Informers) -> Callable[[str, str], str]:
    """Return what reads the key `token` of a Secret, for an external endpoint."""

    def read_token(namespace: str, name: str) -> str:
        found = informers.get("secrets", namespace, name) or {}
        try:
            return base64.b64decode((found.get("data") or {})["token"]).decode("ascii").strip()
        except (KeyError, binascii.Error, ValueError) as error:
            raise Unavailable(f"secret {namespace}/{name}: expected a key token") from error

    return read_token


def may_call(informers: Informers) -> MayCall:
    """Return what judges calls of external services: a revoked caller is no caller of theirs either."""

    def judge(service: routing.Service, caller: str) -> Verdict:
        question = Question(caller, "call", "InferenceService", service.namespace, service.name, service.tenant)
        return undenied(informers.list("accesspolicies"), question, condition)

    return judge


def main(setting: Setting) -> None:
    """Serve until SIGTERM."""
    source = WorkloadSource(setting.workload_socket)
    source.material()
    try:
        serve.run(lambda: _serve(setting, source))
    finally:
        source.close()


async def _serve(setting: Setting, source: WorkloadSource) -> None:
    clock = SystemClock()
    folder = setting.state.evidence / "gateway"
    journal = Journal(folder)
    ledger = Ledger(journal, clock)
    ledger.restore(read(folder))
    client = apiclient.client(setting, source, "gateway")
    informers = apiclient.informers(client, WATCHED)
    callers = Callers(_verifier(setting, source, clock))
    doorkeeper = Doorkeeper("gateway", journal, clock, SystemIds())
    gateway = Gateway(
        doorkeeper, ledger, clock, callers.identify, Contexts(source).to, salt_key(setting.state),
        secret_of(informers), may_call(informers),
    )  # fmt: skip
    front = Front(gateway, doorkeeper, informers, setting.trust_domain)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    listener = Listener(front.handle, bind("127.0.0.1", setting.ports["gateway"]), server_context(source))
    await listener.start()
    informers.start()
    if not await asyncio.to_thread(informers.synced, SYNC_SECONDS):
        raise Unavailable("the API server does not tell its objects", hint="wharf status shows what runs")
    Tables(informers, gateway, callers, setting.trust_domain).follow()
    front.why_not = ""
    _log.info("serving", extra={"fields": {"port": listener.port, "pid": os.getpid()}})
    part.ready()
    while not stopping.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _JUDGED_EVERY)
        gateway.judge_again()
    await listener.stop()
    informers.stop()
    journal.close()


def _verifier(setting: Setting, source: WorkloadSource, clock: Clock) -> Callable[[str], SpiffeId]:
    audience = setting.identity("gateway")

    def verify(token: str) -> SpiffeId:
        return jwtsvid.verify(token, source.jwt_bundles(), audience, clock.now())

    return verify


def _status(error: WharfingerError) -> bytes:
    return json.dumps(
        {"message": error.message, "reason": error.code, "code": error.status, "hint": error.hint}
    ).encode()


if __name__ == "__main__":
    part.run("gateway", main)
