"""The gateway's shell: authenticates, decides, filters, limits, passes on, meters. The decisions are elsewhere.

Order of one request, each step closing the door when it fails:
1. who: client certificate, JWT-SVID or API key, to one SPIFFE ID;
2. where: the service that the model's name means, a replica of it;
3. may: `grant.permits` by the doorkeeper, the decision on disk;
4. guards on the prompt; 5. tokens reserved; 6. the replica asked;
7. the answer through the output guards, cut when its grant goes; 8. usage settled.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import ssl
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import Counter, Gauge, Histogram

from wharfinger.core.clock import MILLISECOND, Clock
from wharfinger.core.errors import Denied, Invalid, NotFound, Throttled, Unauthenticated, Unavailable, WharfingerError
from wharfinger.inference import guards, limits, routing
from wharfinger.inference.accounts import account_of, settle
from wharfinger.inference.answers import EventSplitter, Found, Stream, Usage, filter_whole, read_json, write_json
from wharfinger.inference.chat import Ask, error_object, parse_ask
from wharfinger.inference.http1 import Headers, Reply, Request
from wharfinger.inference.scanner import StreamFilter
from wharfinger.inference.upstream import Answer, Pool, head_of
from wharfinger.policy.decision import Decision, Verdict
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.grant import Door, permits_any
from wharfinger.policy.journal import Journal

FIRST_BYTE_SECONDS: Final = 60.0
BETWEEN_BYTES_SECONDS: Final = 60.0
_JSON: Final = (b"content-type", b"application/json")
_log = logging.getLogger(__name__)

REQUESTS = Counter("wharf_gateway_requests", "Requests by service and outcome.", ["service", "outcome"])
TOKENS = Counter("wharf_gateway_tokens", "Tokens settled, by tenant and service.", ["tenant", "service"])
IN_FLIGHT = Gauge("wharf_gateway_tokens_in_flight", "Tokens reserved by requests under way.", ["service"])
FIRST_TOKEN = Histogram("wharf_gateway_first_token_seconds", "Time to the first token.", ["service"])
MASKED = Counter("wharf_gateway_masked", "Findings masked or denied, by detector.", ["detector"])

Authenticate = Callable[[Request], str]
"""Returns the caller's SPIFFE ID; raises `Unauthenticated`."""
ContextFor = Callable[[str], ssl.SSLContext]
"""Returns the TLS context that accepts the workload with this SPIFFE ID alone."""


@dataclass(slots=True, eq=False)
class _Underway:
    """A request that has been let through: what a revocation needs to end it."""

    service: routing.Service
    replica: routing.Replica | None
    caller: str
    decision: Decision
    ask: Ask
    estimate: int
    started: int
    task: asyncio.Task[Any] | None = None
    cut: Verdict | None = None
    first: float | None = None
    usage: Usage = field(default_factory=Usage)
    found: list[str] = field(default_factory=list)


class Gateway:
    """Handles requests; `replace` hands it a new table when objects change."""

    def __init__(
        self,
        doorkeeper: Doorkeeper,
        journal: Journal,
        clock: Clock,
        authenticate: Authenticate,
        context_for: ContextFor,
        salt_key: bytes,
        secret_of: Callable[[str, str], str] = lambda _namespace, _name: "",
    ) -> None:
        self._doorkeeper = doorkeeper
        self._journal = journal
        self._clock = clock
        self._authenticate = authenticate
        self._context_for = context_for
        self._salt_key = salt_key
        self._secret_of = secret_of
        self._table = routing.Table()
        self._pool = Pool()
        self._underway: set[_Underway] = set()
        self._tokens: dict[tuple[str, str], int] = defaultdict(int)
        self._buckets: dict[tuple[str, str], limits.Bucket] = {}

    def replace(self, table: routing.Table) -> None:
        """Take a new table; streams whose grant no longer permits them are cut now."""
        self._table = table
        for underway in list(self._underway):
            verdict = self._still(underway)
            if not verdict.allowed and underway.task is not None:
                underway.cut = verdict
                underway.task.cancel()

    def tokens_in_flight(self) -> dict[str, int]:
        """Return tokens reserved by requests under way, by service id: what the autoscaler asks."""
        flying = dict.fromkeys(self._table.services, 0)
        for underway in self._underway:
            flying[underway.service.id] = flying.get(underway.service.id, 0) + _weight(underway)
        return flying

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request; every error of ours becomes an error object."""
        decision = ""
        try:
            if request.path in ("/livez", "/readyz"):
                reply.send(200, [], b"ok\n")
                return
            caller = self._authenticate(request)
            if request.path == "/v1/models" or request.path.startswith("/v1/models/"):
                self._models(request, caller, reply)
            elif request.path in ("/v1/chat/completions", "/v1/completions"):
                if request.method != "POST":
                    raise Invalid(f"expected POST, got {request.method}")
                decision = await self._complete(request, caller, reply)
            else:
                raise NotFound(f"there is no {request.method} {request.path[:80]} here")
        except _Told as told:
            _refuse(reply, told.error, told.decision)
        except WharfingerError as error:
            _refuse(reply, error, decision)

    def _models(self, request: Request, caller: str, reply: Reply) -> None:
        if request.method != "GET":
            raise Invalid(f"expected GET, got {request.method}")
        shown = [{"id": s.id, "object": "model", "created": 0, "owned_by": s.tenant} for s in self._table.of(caller)]
        wanted = request.path.removeprefix("/v1/models").strip("/")
        if wanted:
            found = next((m for m in shown if m["id"] == wanted), None)
            if found is None:
                raise NotFound("there is no such model for you")
            reply.send(200, [_JSON], json.dumps(found).encode())
            return
        reply.send(200, [_JSON], json.dumps({"object": "list", "data": shown}).encode())

    async def _complete(self, request: Request, caller: str, reply: Reply) -> str:
        ask = parse_ask(request.body, request.path)
        service = self._table.find(ask.model, caller)
        ask.bound(service.max_tokens)
        replica = None if service.external else routing.choose(service, lambda r: self._load(service, r))
        decision = await self._decide(service, replica, caller)
        if not decision.verdict.allowed:
            REQUESTS.labels(service.id, "denied").inc()
            raise _Told(Denied(decision.verdict.reason), decision.id)
        try:
            self._guard(service, ask, caller)
            estimate = ask.estimate()
            self._reserve(service, caller, estimate + ask.max_tokens)
        except WharfingerError as error:
            REQUESTS.labels(service.id, "refused").inc()
            kind = "limit" if isinstance(error, Throttled) else "guard"
            refusal = await self._record(service, Verdict(False, error.message, kind), caller, "call")
            raise _Told(error, refusal.id) from error
        underway = _Underway(service, replica, caller, decision, ask, estimate, self._clock.monotonic())
        await self._pass_on(request, underway, reply)
        return decision.id

    async def _decide(self, service: routing.Service, replica: routing.Replica | None, caller: str) -> Decision:
        if replica is None:
            verdict = Verdict(True, f"external service {service.id} lists its callers")
            if not service.lists(caller):
                verdict = Verdict(False, f"caller {caller} is not one of {service.id}'s", "caller")
            return await self._record(service, verdict, caller, "call")
        decision, stored = self._doorkeeper.submit(
            Door.GATEWAY, replica.grants, who=service.workload, what=service.digest, device=replica.device,
            caller=caller, tenant=service.tenant,
        )  # fmt: skip
        await asyncio.wrap_future(stored)
        return decision

    def _still(self, underway: _Underway) -> Verdict:
        """Judge a request under way by the table as it is now."""
        now = self._table.services.get(underway.service.id)
        if now is None:
            return Verdict(False, "the service is gone", "service")
        if underway.replica is None:
            return Verdict(now.lists(underway.caller), "the caller was taken off", "caller")
        grants = next((r.grants for r in now.replicas if r.pod == underway.replica.pod), ())
        verdict, _ = permits_any(
            grants, Door.GATEWAY, now.workload, underway.service.digest, underway.replica.device, underway.caller,
            self._clock.now(),
        )  # fmt: skip
        return verdict

    def _guard(self, service: routing.Service, ask: Ask, caller: str) -> None:
        denying = guards.families(service.rules.prompt, "Deny")
        if denying:
            scan = guards.scanner(denying)
            found = sorted({finding.detector for text in ask.texts() for finding in scan.find(text)})
            if found:
                for name in found:
                    MASKED.labels(name).inc()
                raise Denied(
                    f"the prompt holds what must not leave: {', '.join(found)}", hint="take it out and ask again"
                )
        masking = guards.families(service.rules.prompt, "Mask")
        if masking:
            scan = guards.scanner(masking)
            ask.rewrite(lambda text: guards.mask(text, scan))
        who = caller if service.salt_by_caller else service.tenant
        ask.body["cache_salt"] = hashlib.blake2b(who.encode(), key=self._salt_key, digest_size=16).hexdigest()

    def _reserve(self, service: routing.Service, caller: str, tokens: int) -> None:
        now = self._clock.now()
        wanted = [(("tenant", service.tenant), service.tenant_limit, f"tenant {service.tenant}")]
        if service.caller_limit is not None:
            wanted.append(((f"caller/{service.id}", caller), service.caller_limit, caller))
        taken: dict[tuple[str, str], limits.Bucket] = {}
        for key, limit, whose in wanted:
            bucket = limits.refill(self._buckets.get(key) or limits.full(limit, now), limit, now)
            taken[key] = limits.reserve(bucket, tokens, whose)
        self._buckets.update(taken)

    def _settle_limits(self, underway: _Underway, used: int) -> None:
        reserved = underway.estimate + underway.ask.max_tokens
        service = underway.service
        for key in (("tenant", service.tenant), (f"caller/{service.id}", underway.caller)):
            if key in self._buckets:
                self._buckets[key] = limits.settle(self._buckets[key], reserved, used)

    async def _pass_on(self, request: Request, underway: _Underway, reply: Reply) -> None:
        service, replica = underway.service, underway.replica
        key = (service.id, replica.pod if replica else "")
        self._underway.add(underway)
        self._tokens[key] += _weight(underway)
        IN_FLIGHT.labels(service.id).inc(_weight(underway))
        underway.task = asyncio.current_task()
        outcome = "broken"
        try:
            await self._exchange(request, underway, reply)
            outcome = "ok"
        except asyncio.CancelledError:
            if underway.cut is None:
                outcome = "client gone"
                raise
            outcome = "revoked"
            if underway.task is not None:
                underway.task.uncancel()
            await self._record(service, underway.cut, underway.caller, "stream")
            self._end_cut(underway, reply)
        except Unavailable as error:
            if reply.started:
                _log.info("answer broke off", extra={"fields": {"decision": underway.decision.id, "error": str(error)}})
                reply.abort()
            else:
                raise _Told(error, underway.decision.id) from error
        finally:
            self._underway.discard(underway)
            self._tokens[key] -= _weight(underway)
            IN_FLIGHT.labels(service.id).dec(_weight(underway))
            self._close_account(underway, outcome)

    async def _exchange(self, request: Request, underway: _Underway, reply: Reply) -> None:
        host, port, context, head, body = self._upstream_request(request, underway)
        answer = await self._pool.request(host, port, context, head, body, seconds=FIRST_BYTE_SECONDS)
        try:
            if underway.ask.stream and answer.status == 200:
                await self._stream(underway, answer, reply)
            else:
                await self._whole(underway, answer, reply)
        finally:
            self._pool.release(host, port, answer)

    async def _stream(self, underway: _Underway, answer: Answer, reply: Reply) -> None:
        make = self._output_filter(underway.service)
        stream = Stream(make, underway.usage, wants_usage=underway.ask.wants_usage)
        splitter = EventSplitter()
        reply.start(200, self._headers(underway, b"text/event-stream; charset=utf-8"))
        try:
            async for chunk in answer.chunks(BETWEEN_BYTES_SECONDS):
                if underway.first is None:
                    self._first_token(underway)
                await reply.write(b"".join(stream.take(data) for data in splitter.feed(chunk)))
            rest = b"".join(stream.take(data) for data in splitter.finish())
            await reply.write(rest if stream.done else rest + stream.finish())
            reply.finish()
        finally:
            await self._tell_found(underway, stream.told)

    async def _whole(self, underway: _Underway, answer: Answer, reply: Reply) -> None:
        data = b"".join([chunk async for chunk in answer.chunks(BETWEEN_BYTES_SECONDS)])
        if answer.status != 200:
            raise Unavailable(f"the model's server answered {answer.status}")
        body = read_json(data, "an answer")
        self._first_token(underway)
        await self._tell_found(underway, filter_whole(body, self._output_filter(underway.service), underway.usage))
        reply.send(200, self._headers(underway, b"application/json"), write_json(body))

    async def _tell_found(self, underway: _Underway, told: Found) -> None:
        """Count what the guards found, and record that one of them ended the answer."""
        for name in told.names:
            MASKED.labels(name).inc()
        if told.stopped:
            verdict = Verdict(False, f"the answer held what must not come out: {told.stopped}", "guard")
            await self._record(underway.service, verdict, underway.caller, "stream")

    def _upstream_request(
        self, request: Request, underway: _Underway
    ) -> tuple[str, int, ssl.SSLContext | None, bytes, bytes]:
        service, replica = underway.service, underway.replica
        body = underway.ask.body
        headers: list[tuple[bytes, bytes]] = [_JSON]
        if replica is not None:
            body["model"] = service.model
            headers += [
                (b"x-wharf-caller", underway.caller.encode()),
                (b"x-wharf-decision", underway.decision.id.encode()),
            ]
            data = json.dumps(body, ensure_ascii=False).encode()
            head = head_of("POST", request.path, f"{replica.host}:{replica.port}", headers, len(data))
            return replica.host, replica.port, self._context_for(service.workload), head, data
        body["model"] = service.model
        body.pop("cache_salt", None)
        url = urlsplit(service.external)
        if service.external_secret:
            token = self._secret_of(service.namespace, service.external_secret)
            headers.append((b"authorization", f"Bearer {token}".encode("ascii", "ignore")))
        data = json.dumps(body, ensure_ascii=False).encode()
        path = url.path.rstrip("/").removesuffix("/v1") + request.path
        host = url.hostname or ""
        context = ssl.create_default_context() if url.scheme == "https" else None
        head = head_of("POST", path, url.netloc, headers, len(data))
        return host, url.port or (443 if context else 80), context, head, data

    def _output_filter(self, service: routing.Service) -> Callable[[], StreamFilter] | None:
        watched = guards.families(service.rules.output, "Mask", "Deny")
        if not watched:
            return None
        scan, denied = guards.scanner(watched), guards.families(service.rules.output, "Deny")
        return lambda: StreamFilter(scan, denied)

    def _headers(self, underway: _Underway, kind: bytes) -> Headers:
        return [
            (b"content-type", kind),
            (b"cache-control", b"no-store"),
            (b"x-wharf-decision", underway.decision.id.encode()),
        ]

    def _first_token(self, underway: _Underway) -> None:
        passed = self._clock.monotonic() - underway.started
        underway.first = round(passed / MILLISECOND, 3)
        FIRST_TOKEN.labels(underway.service.id).observe(passed / 10**9)

    async def _record(self, service: routing.Service, verdict: Verdict, caller: str, verb: str) -> Decision:
        decision, stored = self._doorkeeper.record(
            Door.GATEWAY, verdict, who=caller, verb=verb, what=service.id, tenant=service.tenant
        )
        await asyncio.wrap_future(stored)
        return decision

    def _end_cut(self, underway: _Underway, reply: Reply) -> None:
        assert underway.cut is not None
        if reply.started:
            reply.abort()
        else:
            raise _Told(Denied(underway.cut.reason), underway.decision.id)

    def _close_account(self, underway: _Underway, outcome: str) -> None:
        account = account_of(
            underway.decision.id, self._clock.now(), underway.caller, underway.usage, underway.estimate,
            underway.first, outcome,
        )  # fmt: skip
        used = account.prompt + account.completion
        self._settle_limits(underway, used)
        settle(self._journal, underway.service, account).add_done_callback(_tell_lost)
        REQUESTS.labels(underway.service.id, outcome).inc()
        TOKENS.labels(underway.service.tenant, underway.service.id).inc(used)

    def _load(self, service: routing.Service, replica: routing.Replica) -> int:
        return self._tokens[service.id, replica.pod]


class _Told(Exception):
    """A refusal whose decision is stored."""

    def __init__(self, error: WharfingerError, decision: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.decision = decision


def _weight(underway: _Underway) -> int:
    return underway.estimate + underway.ask.max_tokens


def _refuse(reply: Reply, error: WharfingerError, decision: str) -> None:
    if reply.started:
        reply.abort()
        return
    headers: list[tuple[bytes, bytes]] = [_JSON]
    if decision:
        headers.append((b"x-wharf-decision", decision.encode()))
    if isinstance(error, Throttled):
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    reply.send(error.status, headers, error_object(error))


def _tell_lost(done: Any) -> None:
    error = done.exception()
    if error is not None:
        _log.error("a token account was not stored", extra={"fields": {"error": str(error)}})
