"""The gateway's shell: authenticates, decides, filters, limits, passes on, meters. The decisions are elsewhere.

Order of one request, each step closing the door when it fails:
1. who: client certificate, JWT-SVID or API key, to one SPIFFE ID;
2. where: the service that the model's name means, a replica of it;
3. may: `grant.permits` by the doorkeeper, the decision on disk;
4. tokens reserved; 5. guards on the prompt; 6. the replica asked;
7. the answer through the output guards, cut when its grant goes; 8. usage settled, before the answer's last byte.

Every answer to a caller names its decision, refusals and errors too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import ssl
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from prometheus_client import Counter, Gauge, Histogram

from wharfinger.core.clock import MILLISECOND, Clock
from wharfinger.core.errors import (
    Denied,
    Invalid,
    NotFound,
    Throttled,
    Unauthenticated,
    Unavailable,
    WharfingerError,
    excerpt,
)
from wharfinger.inference import guards, routing
from wharfinger.inference.accounts import account_of
from wharfinger.inference.answers import EventSplitter, Found, Stream, Usage, filter_whole, read_json, write_json
from wharfinger.inference.chat import Ask, error_object, parse_ask
from wharfinger.inference.http1 import Headers, Reply, Request
from wharfinger.inference.ledger import Ledger, Reservation
from wharfinger.inference.scanner import StreamFilter
from wharfinger.inference.upstream import Answer, Pool, head_of
from wharfinger.policy.decision import Decision, Verdict
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.grant import Door, permits_any

FIRST_BYTE_SECONDS: Final = 60.0
BETWEEN_BYTES_SECONDS: Final = 60.0
MAX_ANSWER: Final = 64 * 1024 * 1024
MAX_TRIES: Final = 3
"""How many replicas are asked for one request before it is told that none answers."""
_SCANNED_APART: Final = 64 * 1024
"""Prompts of more characters are scanned in a thread, so that one long prompt does not hold up every stream."""
_TOLD_LATE: Final = 10
_TOLD_LATE_SECONDS: Final = 0.05
_JSON: Final = (b"content-type", b"application/json")
_log = logging.getLogger(__name__)

REQUESTS = Counter("wharf_gateway_requests", "Requests by service and outcome.", ["service", "outcome"])
TOKENS = Counter("wharf_gateway_tokens", "Tokens settled, by tenant and service.", ["tenant", "service"])
IN_FLIGHT = Gauge("wharf_gateway_tokens_in_flight", "Tokens reserved by requests under way.", ["service"])
FIRST_TOKEN = Histogram("wharf_gateway_first_token_seconds", "Time to the first token.", ["service"])
MASKED = Counter("wharf_gateway_masked", "Findings masked or denied, by detector.", ["detector"])

Authenticate = Callable[[Request], str]
"""Returns the caller's SPIFFE ID; raises `Unauthenticated`."""
ContextFor = Callable[[str], ssl.SSLContext | None]
"""Returns the TLS context that accepts the workload with this SPIFFE ID alone, the same one each time."""
MayCall = Callable[[routing.Service, str], Verdict]
"""Says whether AccessPolicies let a caller call an external service, which no Grant speaks of."""


@dataclass(slots=True, eq=False)
class _Underway:
    """A request that has been let through: what a revocation needs to end it."""

    service: routing.Service
    replica: routing.Replica | None
    caller: str
    decision: Decision
    ask: Ask
    estimate: int
    reservation: Reservation
    started: int
    task: asyncio.Task[Any] | None = None
    cut: Verdict | None = None
    first: float | None = None
    settled: bool = False
    usage: Usage = field(default_factory=Usage)

    @property
    def key(self) -> tuple[str, str]:
        """Which replica of which service carries it."""
        return self.service.id, self.replica.pod if self.replica else ""


class Gateway:
    """Handles requests; `replace` hands it a new table when objects change."""

    def __init__(
        self,
        doorkeeper: Doorkeeper,
        ledger: Ledger,
        clock: Clock,
        authenticate: Authenticate,
        context_for: ContextFor,
        salt_key: bytes,
        secret_of: Callable[[str, str], str] = lambda _namespace, _name: "",
        may_call: MayCall = lambda _service, _caller: Verdict(True, "no policy is known here"),
    ) -> None:
        self._doorkeeper = doorkeeper
        self._ledger = ledger
        self._clock = clock
        self._authenticate = authenticate
        self._context_for = context_for
        self._salt_key = salt_key
        self._secret_of = secret_of
        self._may_call = may_call
        self._table = routing.Table()
        self._pool = Pool()
        self._public = ssl.create_default_context()
        self._underway: set[_Underway] = set()
        self._tokens: dict[tuple[str, str], int] = defaultdict(int)

    def replace(self, table: routing.Table) -> None:
        """Take a new table; streams whose grant no longer permits them are cut now."""
        self._table = table
        self._pool.prune()
        for service in table.services.values():
            _warm(service.rules)
        self.judge_again()

    def judge_again(self) -> None:
        """Cut the streams whose grant does not hold any more: by revocation, or because its time is over."""
        for underway in list(self._underway):
            verdict = self._still(underway)
            if not verdict.allowed and underway.task is not None and underway.cut is None:
                underway.cut = verdict
                underway.task.cancel()

    def tokens_in_flight(self) -> dict[str, int]:
        """Return tokens reserved by requests under way, by service id: what the autoscaler asks."""
        flying = dict.fromkeys(self._table.services, 0)
        for underway in self._underway:
            flying[underway.service.id] = flying.get(underway.service.id, 0) + _weight(underway)
        return flying

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request; every error of ours becomes an error object that names its decision."""
        caller = ""
        try:
            caller = self._authenticate(request)
            if request.path == "/v1/models" or request.path.startswith("/v1/models/"):
                await self._models(request, caller, reply)
            elif request.path in ("/v1/chat/completions", "/v1/completions"):
                if request.method != "POST":
                    raise Invalid(f"expected POST, got {request.method}")
                await self._complete(request, caller, reply)
            else:
                raise NotFound(f"there is no {request.method} {request.path[:80]} here")
        except _Told as told:
            _refuse(reply, told.error, told.decision)
        except WharfingerError as error:
            _refuse(reply, error, await self._refusal(request, caller, error))

    async def _refusal(self, request: Request, caller: str, error: WharfingerError) -> str:
        """Record an error that no rule had a word in; return the decision's id, empty when it cannot be stored."""
        element = "identity" if isinstance(error, Unauthenticated) else "request"
        decision, stored = self._doorkeeper.record(
            Door.GATEWAY, Verdict(False, error.message, element), who=caller or None, verb="call",
            what=request.path[:80],
        )  # fmt: skip
        try:
            await asyncio.wrap_future(stored)
        except WharfingerError as full:
            _log.error("a decision was not stored", extra={"fields": {"error": str(full)}})
            return ""
        return decision.id

    async def _models(self, request: Request, caller: str, reply: Reply) -> None:
        if request.method != "GET":
            raise Invalid(f"expected GET, got {request.method}")
        shown: Any = [
            {"id": s.id, "object": "model", "created": 0, "owned_by": s.tenant} for s in self._table.of(caller)
        ]
        wanted = unquote(request.path.removeprefix("/v1/models").strip("/"))
        if wanted:
            found = next((m for m in shown if wanted in (m["id"], m["id"].partition("/")[2])), None)
            if found is None:
                raise NotFound("there is no such model for you", hint="GET /v1/models lists those you may call")
            shown = found
        else:
            shown = {"object": "list", "data": shown}
        verdict = Verdict(True, "everyone may see what they may call")
        decision, stored = self._doorkeeper.record(Door.GATEWAY, verdict, who=caller, verb="list", what="models")
        await asyncio.wrap_future(stored)
        reply.send(200, [_JSON, (b"x-wharf-decision", decision.id.encode())], json.dumps(shown).encode())

    async def _complete(self, request: Request, caller: str, reply: Reply) -> None:
        ask = parse_ask(request.body, request.path)
        service = self._table.find(ask.model, caller)
        ask.bound(service.max_tokens)
        replica, decision = await self._admit(service, caller, frozenset())
        estimate = ask.estimate()
        try:
            reservation = self._ledger.reserve(service, caller, estimate + ask.max_tokens)
        except Throttled as error:
            raise await self._told(service, caller, error, "limit") from error
        try:
            try:
                await self._guard(service, ask, caller)
            except Denied as error:
                raise await self._told(service, caller, error, "guard") from error
            underway = _Underway(
                service, replica, caller, decision, ask, estimate, reservation, self._clock.monotonic()
            )  # fmt: skip
            await self._pass_on(request, underway, reply)
        finally:
            self._ledger.release(reservation)

    async def _admit(
        self, service: routing.Service, caller: str, avoid: frozenset[str]
    ) -> tuple[routing.Replica | None, Decision]:
        """Choose a replica and decide; returns a yes. Raises `_Told` with the no."""
        replica = None
        if not service.external:
            try:
                replica = routing.choose(service, lambda r: self._tokens[service.id, r.pod], avoid)
            except Unavailable as error:
                if service.lists(caller):
                    raise
                # Why it does not serve is for those whom it would serve.
                denied = Denied(f"caller {caller} is not one of {service.id}'s")
                raise await self._told(service, caller, denied, "caller") from error
        decision = await self._decide(service, replica, caller)
        if not decision.verdict.allowed:
            REQUESTS.labels(service.id, "denied").inc()
            raise _Told(Denied(decision.verdict.reason), decision.id)
        return replica, decision

    async def _told(self, service: routing.Service, caller: str, error: WharfingerError, element: str) -> _Told:
        REQUESTS.labels(service.id, "refused").inc()
        refusal = await self._record(service, Verdict(False, error.message, element), caller, "call")
        return _Told(error, refusal.id)

    async def _decide(self, service: routing.Service, replica: routing.Replica | None, caller: str) -> Decision:
        if replica is None:
            return await self._record(service, self._external(service, caller), caller, "call")
        decision, stored = self._doorkeeper.submit(
            Door.GATEWAY, replica.grants, who=service.workload, what=service.digest, device=replica.device,
            caller=caller, tenant=service.tenant,
        )  # fmt: skip
        await asyncio.wrap_future(stored)
        return decision

    def _external(self, service: routing.Service, caller: str) -> Verdict:
        """Judge a call of an external service: by those it lists, and by the policies that deny."""
        if not service.lists(caller):
            return Verdict(False, f"caller {caller} is not one of {service.id}'s", "caller")
        verdict = self._may_call(service, caller)
        return verdict if not verdict.allowed else Verdict(True, f"external service {service.id} lists its callers")

    def _still(self, underway: _Underway) -> Verdict:
        """Judge a request under way by the table as it is now."""
        now = self._table.services.get(underway.service.id)
        if now is None:
            return Verdict(False, "the service is gone", "service")
        if underway.replica is None:
            return self._external(now, underway.caller)
        grants = next((r.grants for r in now.replicas if r.pod == underway.replica.pod), ())
        verdict, _ = permits_any(
            grants, Door.GATEWAY, now.workload, underway.service.digest, underway.replica.device, underway.caller,
            self._clock.now(),
        )  # fmt: skip
        return verdict

    async def _guard(self, service: routing.Service, ask: Ask, caller: str) -> None:
        """Look at the prompt: raise `Denied` for what must not leave, mask what must not be read."""
        texts = list(ask.texts())
        if sum(map(len, texts)) > _SCANNED_APART:
            await asyncio.to_thread(_look, service, ask, texts)
        else:
            _look(service, ask, texts)
        who = caller if service.salt_by_caller else service.tenant
        ask.body["cache_salt"] = hashlib.blake2b(who.encode(), key=self._salt_key, digest_size=16).hexdigest()

    async def _pass_on(self, request: Request, underway: _Underway, reply: Reply) -> None:
        underway.task = asyncio.current_task()
        self._underway.add(underway)
        IN_FLIGHT.labels(underway.service.id).inc(_weight(underway))
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
            await self._record(underway.service, underway.cut, underway.caller, "stream")
            self._end_cut(underway, reply)
        except WharfingerError as error:
            if not reply.started:
                raise _Told(error, underway.decision.id) from error
            outcome = await self._broke_off(underway, error)
            reply.abort()
        finally:
            self._underway.discard(underway)
            IN_FLIGHT.labels(underway.service.id).dec(_weight(underway))
            REQUESTS.labels(underway.service.id, outcome).inc()
            if not underway.settled:
                self._settle(underway, outcome).add_done_callback(_tell_lost)

    async def _broke_off(self, underway: _Underway, error: WharfingerError) -> str:
        """Tell why an answer ended in its middle: a replica may know of a revocation before this gateway does."""
        underway.task = None
        for _ in range(_TOLD_LATE):
            verdict = self._still(underway)
            if not verdict.allowed:
                await self._record(underway.service, verdict, underway.caller, "stream")
                return "revoked"
            await asyncio.sleep(_TOLD_LATE_SECONDS)
        _log.info("answer broke off", extra={"fields": {"decision": underway.decision.id, "error": str(error)}})
        return "broken"

    async def _exchange(self, request: Request, underway: _Underway, reply: Reply) -> None:
        avoid: frozenset[str] = frozenset()
        while True:
            host, port, context, head, body = self._upstream_request(request, underway)
            key = underway.key
            self._tokens[key] += _weight(underway)
            try:
                try:
                    answer = await self._pool.request(host, port, context, head, body, seconds=FIRST_BYTE_SECONDS)
                except Unavailable:
                    avoid |= {key[1]}
                    if len(avoid) == MAX_TRIES or not await self._turn_to_another(underway, avoid):
                        raise
                    continue
                try:
                    if underway.ask.stream and answer.status == 200:
                        await self._stream(underway, answer, reply)
                    else:
                        await self._whole(underway, answer, reply)
                    return
                finally:
                    self._pool.release(host, port, context, answer)
            finally:
                self._tokens[key] -= _weight(underway)

    async def _turn_to_another(self, underway: _Underway, avoid: frozenset[str]) -> bool:
        """Give a request that no byte has come back for to another replica, by a decision of its own."""
        now = self._table.services.get(underway.service.id)
        if now is None or underway.replica is None or all(replica.pod in avoid for replica in now.replicas):
            return False
        underway.replica, underway.decision = await self._admit(now, underway.caller, avoid)
        return True

    async def _stream(self, underway: _Underway, answer: Answer, reply: Reply) -> None:
        if not answer.headers.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
            raise Unavailable("the model's server was asked for a stream and answered something else")
        make = self._output_filter(underway.service)
        stream = Stream(make, underway.usage, wants_usage=underway.ask.wants_usage, most=underway.ask.max_tokens)
        splitter = EventSplitter()
        reply.start(200, self._headers(underway, b"text/event-stream; charset=utf-8"))
        try:
            async for chunk in answer.chunks(BETWEEN_BYTES_SECONDS):
                if underway.first is None:
                    self._first_token(underway)
                await reply.write(b"".join(stream.take(data) for data in splitter.feed(chunk)))
                if stream.done:
                    break
            else:
                await reply.write(b"".join(stream.take(data) for data in splitter.finish()))
                if not stream.done and not answer.framed:
                    raise Unavailable("the model's server closed the connection in the middle of its answer")
            last = stream.finish()
            await asyncio.wrap_future(self._settle(underway, "ok"))
            await reply.write(last)
            reply.finish()
        finally:
            await self._tell_found(underway, stream.told)

    async def _whole(self, underway: _Underway, answer: Answer, reply: Reply) -> None:
        data = b""
        async for chunk in answer.chunks(BETWEEN_BYTES_SECONDS):
            data += chunk
            if len(data) > MAX_ANSWER:
                raise Unavailable("the model's server sent an answer without end")
        if answer.status != 200:
            raise _of_upstream(answer.status, data)
        body = read_json(data, "an answer")
        self._first_token(underway)
        told = filter_whole(body, self._output_filter(underway.service), underway.usage)
        await self._tell_found(underway, told)
        await asyncio.wrap_future(self._settle(underway, "ok"))
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
        body["model"] = service.model
        if replica is not None:
            headers += [
                (b"x-wharf-caller", underway.caller.encode()),
                (b"x-wharf-decision", underway.decision.id.encode()),
            ]
            data = write_json(body)
            head = head_of("POST", request.path, f"{replica.host}:{replica.port}", headers, len(data))
            return replica.host, replica.port, self._context_for(service.workload), head, data
        body.pop("cache_salt", None)
        url = _endpoint(service.external)
        if service.external_secret:
            token = self._secret_of(service.namespace, service.external_secret)
            headers.append((b"authorization", f"Bearer {token}".encode("ascii", "ignore")))
        data = write_json(body)
        path = url.path.rstrip("/").removesuffix("/v1") + request.path
        context = self._public if url.scheme == "https" else None
        host, port = url.hostname or "", url.port or (443 if context else 80)
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        head = head_of("POST", quote(path, safe="/%:@"), shown, headers, len(data))
        return host, port, context, head, data

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

    def _settle(self, underway: _Underway, outcome: str) -> Future[None]:
        """Settle once, whatever comes of the answer; the account is stored when the future is done."""
        underway.settled = True
        account = account_of(
            underway.decision.id, self._clock.now(), underway.caller, underway.usage, underway.estimate,
            underway.first, outcome,
        )  # fmt: skip
        TOKENS.labels(underway.service.tenant, underway.service.id).inc(account.prompt + account.completion)
        return self._ledger.settle(underway.service, underway.reservation, account)


class _Told(Exception):
    """A refusal whose decision is stored."""

    def __init__(self, error: WharfingerError, decision: str) -> None:
        super().__init__(str(error))
        self.error = error
        self.decision = decision


def _warm(rules: guards.Rules) -> None:
    """Compile the scanners that requests will want."""
    for actions, wanted in ((rules.prompt, ("Deny",)), (rules.prompt, ("Mask",)), (rules.output, ("Mask", "Deny"))):
        if families := guards.families(actions, *wanted):
            guards.scanner(families)


def _look(service: routing.Service, ask: Ask, texts: Iterable[str]) -> None:
    denying = guards.families(service.rules.prompt, "Deny")
    if denying:
        scan = guards.scanner(denying)
        whole = [*texts, *ask.joined()]
        found = sorted({finding.detector for text in whole for finding in scan.find(text)})
        if found:
            for name in found:
                MASKED.labels(name).inc()
            raise Denied(f"the prompt holds what must not leave: {', '.join(found)}", hint="take it out and ask again")
    masking = guards.families(service.rules.prompt, "Mask")
    if masking:
        scan = guards.scanner(masking)
        ask.merge(lambda text: sum(finding.end - finding.start for finding in scan.find(text)))
        ask.rewrite(lambda text: guards.mask(text, scan))


def _of_upstream(status: int, data: bytes) -> WharfingerError:
    """Return the error that an answer which is none becomes; a refusal of the request is told to its caller."""
    message = f"the model's server answered {status}"
    try:
        told = read_json(data, "an error").get("error")
    except Unavailable:
        told = None
    said = told.get("message") if isinstance(told, dict) else told
    if isinstance(said, str) and status in (400, 403, 404, 422):
        message += f": {excerpt(said, 300)}"
    kinds = {400: Invalid, 403: Denied, 404: NotFound, 422: Invalid}
    return kinds.get(status, Unavailable)(message)


def _endpoint(url: str) -> SplitResult:
    """Return an external endpoint's URL: https, or http to this machine. Raises `Unavailable` for another."""
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").encode("ascii").decode(), parts.port
    except ValueError as error:
        raise Unavailable(f"the endpoint's URL cannot be read: {excerpt(url)}") from error
    local = host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise Unavailable(f"expected https, or http on loopback, got {excerpt(url)}")
    return parts


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
