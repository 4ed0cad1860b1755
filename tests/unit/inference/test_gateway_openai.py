"""The gateway and the runtime behind it, driven by the unmodified `openai` client over loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import openai
import pytest

from wharfinger.core.clock import HOUR, rfc3339
from wharfinger.core.errors import Unauthenticated
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.inference.gateway import Gateway
from wharfinger.inference.http1 import Connection, Reply, Request
from wharfinger.inference.ledger import Ledger
from wharfinger.inference.routing import build
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

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer like the OpenAI API."""
        body = json.loads(request.body)
        self.asked.append({**body, "caller": request.headers.get(b"x-wharf-caller")})
        usage = {"prompt_tokens": 7, "completion_tokens": len(self.pieces), "total_tokens": 7 + len(self.pieces)}
        head = {"id": "x", "created": 1, "model": "m"}
        if not body.get("stream"):
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
        await reply.write(b"data: [DONE]\n\n")
        reply.finish()


def objects(
    port: int, *, revoked: bool = False, quota: int = 100_000, **policy: Any
) -> dict[str, list[dict[str, Any]]]:
    """Return the objects of one service, red-ml/chat, that Alice may call."""
    now = SystemClock().now()
    grant = {
        "workload": f"spiffe://{TD}/ns/red-ml/sa/chat", "pod": "chat-0", "podUid": "u", "service": "chat", "artifacts": [DIGEST],
        "claim": {"name": "c", "uid": "c", "devices": [{"driver": "d", "pool": "n", "device": "g", "uuid": "GPU-1"}]},
        "callers": [ALICE], "policyRevision": DIGEST, "notBefore": rfc3339(now - HOUR), "notAfter": rfc3339(now + HOUR),
        "revoked": revoked, "revokedReason": "by the test" if revoked else "",
    }  # fmt: skip
    service = {
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
    return {
        "services": [service],
        "grants": [{"metadata": {"namespace": "red-ml", "name": "g"}, "spec": grant}],
        "policies": [{"metadata": {"namespace": "red-ml", "name": "p"}, "spec": spec}],
        "tenants": [
            {"metadata": {"name": "red"}, "spec": {"namespaces": ["red-ml"], "quota": {"tokensPerMinute": quota}}}
        ],
    }


class Bench:
    """A gateway and an upstream in an event loop of their own."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.upstream = Upstream()
        self.folder = folder / "gateway"
        self.journal = Journal(self.folder)
        clock = SystemClock()
        keeper = Doorkeeper("gateway", self.journal, clock, SystemIds())
        self.gateway = Gateway(keeper, Ledger(self.journal, clock), clock, self._who, lambda _: None, b"salt")
        self.upstream_port = self._serve(self.upstream.handle)
        self.port = self._serve(self.gateway.handle)
        self.set()

    def set(self, **changes: Any) -> None:
        """Give the gateway the objects, changed so."""
        told = objects(self.upstream_port, **changes)
        table = build(told["services"], told["grants"], told["policies"], told["tenants"], TD)
        self.loop.call_soon_threadsafe(self.gateway.replace, table)

    def client(self, key: str = "alice-key") -> openai.OpenAI:
        """Return the unmodified client with base_url and key alone."""
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0)

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
        done: Future[Any] = asyncio.run_coroutine_threadsafe(
            self.loop.create_server(lambda: Connection(handler, connections), "127.0.0.1", 0), self.loop
        )  # type: ignore[arg-type]
        return int(done.result().sockets[0].getsockname()[1])

    @staticmethod
    def _who(request: Request) -> str:
        try:
            return KEYS[request.headers.get(b"authorization", b"")]
        except KeyError as error:
            raise Unauthenticated("expected a key") from error


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return a running gateway."""
    made = Bench(tmp_path)
    yield made
    made.close()


SAY = [{"role": "user", "content": "hello"}]


def test_the_official_client_chats_and_streams(bench: Bench) -> None:
    """base_url and key are enough: whole answers, streams, the list of models, the decision's id."""
    client = bench.client()
    assert [m.id for m in client.models.list()] == ["red-ml/chat"]
    raw = client.chat.completions.with_raw_response.create(model="red-ml/chat", messages=SAY)
    assert raw.parse().choices[0].message.content == "Hello there."
    decision = raw.headers["x-wharf-decision"]
    stored = [r for r in bench.records("decision") if r["id"] == decision]
    assert stored[0]["allowed"]
    assert stored[0]["who"] == ALICE
    streamed = client.chat.completions.create(model="chat", messages=SAY, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed if c.choices) == "Hello there."
    assert bench.upstream.asked[0]["caller"] == ALICE.encode()


def test_the_first_token_reaches_the_client_before_the_last_is_made(bench: Bench) -> None:
    """The stream passes through: the client reads a token while the upstream still waits to make the next."""
    bench.upstream.gate = asyncio.Event()
    bench.upstream.pieces = ["First. ", "Last."]
    stream = iter(bench.client().chat.completions.create(model="chat", messages=SAY, stream=True))
    assert next(stream).choices[0].delta.content == "First. "
    bench.loop.call_soon_threadsafe(bench.upstream.gate.set)
    assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "Last."


def test_a_stranger_and_an_unknown_model_are_told_alike_little(bench: Bench) -> None:
    """No key is 401, another tenant's caller is 403 with a stored decision, an unknown model is 404."""
    with pytest.raises(openai.AuthenticationError):
        bench.client("wrong").chat.completions.create(model="red-ml/chat", messages=SAY)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        bench.client("mallory-key").chat.completions.create(model="red-ml/chat", messages=SAY)
    decision = refused.value.response.headers["x-wharf-decision"]
    stored = next(r for r in bench.records("decision") if r["id"] == decision)
    assert (stored["allowed"], stored["element"]) == (False, "caller")
    with pytest.raises(openai.NotFoundError):
        bench.client("mallory-key").chat.completions.create(model="chat", messages=SAY)
    assert list(bench.client("mallory-key").models.list()) == []
    assert bench.upstream.asked == []


def test_a_secret_in_a_prompt_is_stopped_and_personal_data_masked(bench: Bench) -> None:
    """The secret never reaches the model; the card number reaches it as a mark."""
    with pytest.raises(openai.PermissionDeniedError, match="github"):
        bench.client().chat.completions.create(
            model="chat", messages=[{"role": "user", "content": f"use {TOKEN} please"}]
        )
    assert bench.upstream.asked == []
    bench.client().chat.completions.create(model="chat", messages=[{"role": "user", "content": f"my card is {CARD}."}])
    assert bench.upstream.asked[0]["messages"][0]["content"] == "my card is [credit-card]."
    assert TOKEN not in json.dumps(bench.records("decision"))


@pytest.mark.parametrize("secret", [TOKEN, CARD, "ada@example.org"])
def test_what_is_split_at_every_byte_leaks_nothing(bench: Bench, secret: str) -> None:
    """However the upstream cuts a finding over its events, none of it comes out, and nothing else is lost."""
    for cut in range(len(secret) + 1):
        bench.upstream.pieces = ["It is ", secret[:cut], secret[cut:], " indeed", "."]
        stream = bench.client().chat.completions.create(model="chat", messages=SAY, stream=True)
        text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        assert secret not in text
        assert text.startswith("It is [")
        assert text.endswith("] indeed.")


def test_over_the_limit_is_429_with_a_time_to_wait(bench: Bench) -> None:
    """The tenant's tokens of a minute are reserved before the model is asked; more is refused with Retry-After."""
    bench.set(quota=600)
    client = bench.client()
    client.chat.completions.create(model="chat", messages=SAY, max_tokens=400)
    assert bench.upstream.asked[0]["max_tokens"] == 400
    with pytest.raises(openai.RateLimitError) as refused:
        for _ in range(3):
            client.chat.completions.create(
                model="chat", messages=[{"role": "user", "content": "w " * 600}], max_tokens=300
            )
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert refused.value.response.headers["x-wharf-decision"]


def test_usage_settles_in_the_ledger_as_the_upstream_said(bench: Bench) -> None:
    """Tokens are those of the upstream's usage, for whole answers and streams alike."""
    client = bench.client()
    client.chat.completions.create(model="chat", messages=SAY)
    list(client.chat.completions.create(model="chat", messages=SAY, stream=True))
    bench.close()
    accounts = bench.records("tokens")
    assert [(a["prompt"], a["completion"], a["measured"], a["tenant"], a["outcome"]) for a in accounts] == [
        (7, 3, True, "red", "ok")
    ] * 2
    assert all(a["ttftMilliseconds"] is not None for a in accounts)
    bench.journal = Journal(bench.folder)
    bench.thread = threading.Thread(target=bench.loop.run_forever, daemon=True)
    bench.thread.start()


def test_a_revoked_grant_cuts_the_stream(bench: Bench) -> None:
    """When its grant goes, a stream under way breaks off, and the next request is refused with the reason."""
    bench.upstream.gate = asyncio.Event()
    bench.upstream.pieces = ["First. ", "Never."]
    stream = iter(bench.client().chat.completions.create(model="chat", messages=SAY, stream=True))
    assert next(stream).choices[0].delta.content == "First. "
    bench.set(revoked=True)
    with pytest.raises(openai.APIConnectionError):
        list(stream)
    bench.loop.call_soon_threadsafe(bench.upstream.gate.set)
    with pytest.raises(openai.PermissionDeniedError, match="revoked"):
        bench.client().chat.completions.create(model="red-ml/chat", messages=SAY)
    assert any(r["verb"] == "stream" and r["element"] == "revocation" for r in bench.records("decision"))


def test_an_upstream_that_breaks_off_is_never_taken_for_whole(bench: Bench) -> None:
    """Half an answer ends in an error at the client, not in an end mark."""
    bench.upstream.broken_after = 1
    with pytest.raises(openai.APIConnectionError):
        list(bench.client().chat.completions.create(model="chat", messages=SAY, stream=True))


def test_a_clients_cache_salt_is_replaced_by_the_tenants(bench: Bench) -> None:
    """A caller cannot choose whose prefix cache it hits."""
    bench.client().chat.completions.create(model="chat", messages=SAY, extra_body={"cache_salt": "mine"})
    bench.client().chat.completions.create(model="chat", messages=SAY)
    salts = [asked["cache_salt"] for asked in bench.upstream.asked]
    assert salts[0] == salts[1] != "mine"
