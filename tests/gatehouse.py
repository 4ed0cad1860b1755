"""A gateway and an upstream on loopback for tests: the real data path, a model's server that says what it is told."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import openai
import uvloop

from wharfinger.core.clock import HOUR, rfc3339
from wharfinger.core.errors import HostUnfit, Unauthenticated
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.inference.gateway import Gateway
from wharfinger.inference.http1 import Connection, Reply, Request
from wharfinger.inference.ledger import Ledger
from wharfinger.inference.routing import Service, build
from wharfinger.policy.access import Question, undenied
from wharfinger.policy.cel import condition
from wharfinger.policy.decision import Verdict
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.journal import Journal, read

TD = "wharfinger.local"
ALICE, MALLORY = f"spiffe://{TD}/ns/red-ml/sa/alice", f"spiffe://{TD}/ns/blue-ml/sa/mallory"
KEYS = {b"Bearer alice-key": ALICE, b"Bearer mallory-key": MALLORY}
DIGEST = "sha256:" + "a" * 64
CARD = "4111 1111 1111 1111"
TOKEN = "gh" + "p_" + "Zx81kQ" * 6


class Upstream:
    """A model's server that says what it is told to say, piece by piece, and remembers what it was asked."""

    def __init__(self) -> None:
        self.pieces = ["Hello", " there", "."]
        self.asked: list[dict[str, Any]] = []
        self.gate: asyncio.Event | None = None
        self.broken_after = 10**9
        self.streams = True
        self.on_last: Callable[[], object] = lambda: None
        self.on_break: Callable[[], object] = lambda: None

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer like the OpenAI API."""
        body = json.loads(request.body)
        heads = {
            "caller": request.headers.get(b"x-wharf-caller"),
            "authorization": request.headers.get(b"authorization"),
        }
        self.asked.append({**body, **heads})
        usage = {"prompt_tokens": 7, "completion_tokens": len(self.pieces), "total_tokens": 7 + len(self.pieces)}
        head = {"id": "x", "created": 1, "model": "m"}
        if not body.get("stream") or not self.streams:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": "".join(self.pieces)},
                "finish_reason": "stop",
            }
            data = json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
            reply.send(200, [(b"content-type", b"application/json")], data)
            return
        reply.start(200, [(b"content-type", b"text/event-stream")])
        for index, piece in enumerate(self.pieces):
            if index == self.broken_after:
                self.on_break()
                reply.abort()
                return
            event = {
                **head,
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}],
            }
            await reply.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            if index == 0 and self.gate is not None:
                await self.gate.wait()
        end = {
            **head,
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        }
        await reply.write(b"data: " + json.dumps(end).encode() + b"\n\n")
        await reply.write(
            b"data: "
            + json.dumps({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}).encode()
            + b"\n\n"
        )
        self.on_last()
        await reply.write(b"data: [DONE]\n\n")
        reply.finish()


class Disk(Journal):
    """A journal whose disk may be full."""

    full = False

    def submit(self, record: Any, inputs: Any = None) -> Future[None]:
        """Queue the record, or fail as a full disk does."""
        if not self.full:
            return super().submit(record, inputs)
        done: Future[None] = Future()
        done.set_exception(HostUnfit("journal gateway: No space left on device"))
        return done


def objects(
    port: int, *, revoked: bool = False, quota: int = 100_000, dead: int = 0, alive: bool = True, **policy: Any
) -> dict[str, list[dict[str, Any]]]:
    """Return the objects of one service, red-ml/chat, that Alice may call."""
    now = SystemClock().now()
    grant = {
        "workload": f"spiffe://{TD}/ns/red-ml/sa/chat", "pod": "chat-0", "podUid": "u", "service": "chat", "artifacts": [DIGEST],
        "claim": {"name": "c", "uid": "c", "devices": [{"driver": "d", "pool": "n", "device": "g", "uuid": "GPU-1"}]},
        "callers": [ALICE], "policyRevision": DIGEST, "notBefore": rfc3339(now - HOUR), "notAfter": rfc3339(now + HOUR),
        "revoked": revoked, "revokedReason": "by the test" if revoked else "",
    }  # fmt: skip
    service: dict[str, Any] = {
        "metadata": {"namespace": "red-ml", "name": "chat"},
        "spec": {"model": "prose", "serviceAccountName": "chat", "callers": [ALICE]},
        "status": {
            "modelDigest": DIGEST,
            "endpoints": [{"pod": "chat-0", "ready": True, "address": f"127.0.0.1:{port}", "device": "GPU-1"}],
        },
    }
    guards = [
        {"name": "secrets", "prompt": "Deny", "output": "Mask"},
        {"name": "pii", "prompt": "Mask", "output": "Mask"},
    ]
    spec = {"guards": guards, "limits": {"maxTokens": 500}, **policy}
    pods = [f"a-{n}" for n in range(dead)]
    lost = [{"pod": pod, "ready": True, "address": "127.0.0.1:1", "device": "GPU-1"} for pod in pods]
    service["status"]["endpoints"] = lost + (service["status"]["endpoints"] if alive else [])
    return {
        "services": [service],
        "grants": [
            {"metadata": {"namespace": "red-ml", "name": f"g-{pod}"}, "spec": {**grant, "pod": pod}}
            for pod in ("chat-0", *pods)
        ],
        "policies": [{"metadata": {"namespace": "red-ml", "name": "p"}, "spec": spec}],
        "tenants": [
            {"metadata": {"name": "red"}, "spec": {"namespaces": ["red-ml"], "quota": {"tokensPerMinute": quota}}}
        ],
    }


class Bench:
    """A gateway and an upstream in an event loop of their own."""

    def __init__(self, folder: Path) -> None:
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.upstream = Upstream()
        self.accepted: dict[Any, int] = {}
        self.folder = folder / "gateway"
        self.journal = Disk(self.folder)
        self.clock = clock = SystemClock()
        self.ledger = Ledger(self.journal, clock)
        keeper = Doorkeeper("gateway", self.journal, clock, SystemIds())
        self.secret = ""
        self.access: list[dict[str, Any]] = []
        self.gateway = Gateway(
            keeper, self.ledger, clock, self._who, lambda _: None, b"salt", lambda *_: self.secret, self._may_call
        )
        self.upstream_port = self._serve(self.upstream.handle)
        self.port = self._serve(self.gateway.handle)
        self.set()

    def _may_call(self, service: Service, caller: str) -> Verdict:
        question = Question(caller, "call", "InferenceService", service.namespace, service.name, service.tenant)
        return undenied(self.access, question, condition)

    def set(self, **changes: Any) -> None:
        """Give the gateway the objects, changed so."""
        told = objects(self.upstream_port, **changes)
        table = build(told["services"], told["grants"], told["policies"], told["tenants"], TD)
        self.loop.call_soon_threadsafe(self.gateway.replace, table)

    def set_external(self, url: str, secret: str = "") -> None:
        """Make the service one that an external endpoint serves."""
        told = objects(self.upstream_port)
        external = {"url": url, "secretName": "s"} if secret else {"url": url}
        told["services"][0]["spec"]["runtime"] = {"type": "External", "external": external}
        self.secret = secret
        table = build(told["services"], told["grants"], told["policies"], told["tenants"], TD)
        self.loop.call_soon_threadsafe(self.gateway.replace, table)

    def client(self, key: str = "alice-key") -> openai.OpenAI:
        """Return the unmodified client with base_url and key alone."""
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0)

    def post(
        self, body: dict[str, Any], key: str = "alice-key", path: str = "/v1/chat/completions"
    ) -> tuple[int, bytes]:
        """Send a request without the client's comfort; return status and body, empty when the answer broke off."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def fill_disk(self) -> None:
        """Store nothing any more."""
        self.journal.full = True

    def settle(self) -> None:
        """Wait until no request is under way and every account is stored."""

        async def idle() -> None:
            while self.gateway.tokens_in_flight() != {"red-ml/chat": 0}:
                await asyncio.sleep(0.005)

        asyncio.run_coroutine_threadsafe(idle(), self.loop).result()
        self.journal.append({"kind": "mark"})

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return what the journal holds."""
        return [r for r in read(self.folder) if r["kind"] == kind]

    def close(self) -> None:
        """End the loop and the journal."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.journal.close()

    def _serve(self, handler: Any) -> int:
        connections: set[Connection] = set()

        def accept() -> Connection:
            self.accepted[handler] = self.accepted.get(handler, 0) + 1
            return Connection(handler, connections)

        done: Future[Any] = asyncio.run_coroutine_threadsafe(self.loop.create_server(accept, "127.0.0.1", 0), self.loop)  # type: ignore[arg-type]
        return int(done.result().sockets[0].getsockname()[1])

    @staticmethod
    def _who(request: Request) -> str:
        try:
            return KEYS[request.headers.get(b"authorization", b"")]
        except KeyError as error:
            raise Unauthenticated("expected a key") from error
