"""The gateway and the runtime behind it, driven by the unmodified `openai` client over loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gatehouse import ALICE, CARD, TOKEN, Bench, Disk


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


def test_a_secret_divided_over_the_parts_of_a_message_is_seen(bench: Bench) -> None:
    """Parts that a model's server joins are looked at joined: a secret is stopped, a card number masked."""

    def parts(*texts: str) -> list[Any]:
        return [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]

    with pytest.raises(openai.PermissionDeniedError, match="github"):
        bench.client().chat.completions.create(model="chat", messages=parts("use ", TOKEN[:9], TOKEN[9:]))
    assert bench.upstream.asked == []
    bench.client().chat.completions.create(model="chat", messages=parts("my card is ", CARD[:7], CARD[7:], "."))
    assert bench.upstream.asked[0]["messages"][0]["content"] == [{"type": "text", "text": "my card is [credit-card]."}]


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
    bench.journal = Disk(bench.folder)
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


def test_a_replica_that_knows_of_a_revocation_first_is_believed(bench: Bench) -> None:
    """When the replica breaks off and the grant turns out to be gone, the account says revoked, not broken."""
    bench.upstream.broken_after = 1
    bench.upstream.gate = asyncio.Event()
    bench.upstream.pieces = ["First. ", "Never."]
    bench.upstream.on_break = lambda: bench.loop.call_later(0.1, lambda: bench.set(revoked=True))
    stream = iter(bench.client().chat.completions.create(model="chat", messages=SAY, stream=True))
    assert next(stream).choices[0].delta.content == "First. "
    bench.loop.call_soon_threadsafe(bench.upstream.gate.set)
    with pytest.raises(openai.APIConnectionError):
        list(stream)
    bench.settle()
    assert [account["outcome"] for account in bench.records("tokens")] == ["revoked"]
    assert any(r["verb"] == "stream" and r["element"] == "revocation" for r in bench.records("decision"))


def test_a_clients_cache_salt_is_replaced_by_the_tenants(bench: Bench) -> None:
    """A caller cannot choose whose prefix cache it hits."""
    bench.client().chat.completions.create(model="chat", messages=SAY, extra_body={"cache_salt": "mine"})
    bench.client().chat.completions.create(model="chat", messages=SAY)
    salts = [asked["cache_salt"] for asked in bench.upstream.asked]
    assert salts[0] == salts[1] != "mine"


def test_connections_to_a_replica_are_used_again(bench: Bench) -> None:
    """Ten answers, whole and streamed, go over one connection; one that broke off is not used again."""
    client = bench.client()
    for stream in (False, True) * 5:
        answer = client.chat.completions.create(model="chat", messages=SAY, stream=stream)
        if stream:
            list(answer)
    assert bench.accepted[bench.upstream.handle] == 1
    bench.upstream.broken_after = 1
    with pytest.raises(openai.APIConnectionError):
        list(client.chat.completions.create(model="chat", messages=SAY, stream=True))
    bench.upstream.broken_after = 99
    client.chat.completions.create(model="chat", messages=SAY)
    assert bench.accepted[bench.upstream.handle] == 2


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1/v1", "http://169.254.169.254/v1", "http://127.0.0.1.evil.example/v1", "ftp://127.0.0.1/", "https://[::1/v1", "http://127.0.0.1:99999/", "https://\u0435xample.org/"],
)  # fmt: skip
def test_an_external_endpoint_is_https_or_on_this_machine(bench: Bench, url: str) -> None:
    """A service cannot make the gateway speak to the network in the clear, nor with what is no URL."""
    bench.set_external(url)
    with pytest.raises(openai.InternalServerError) as refused:
        bench.client().chat.completions.create(model="chat", messages=SAY)
    assert refused.value.status_code == 503
    assert refused.value.response.headers["x-wharf-decision"]


def test_an_external_endpoint_gets_its_secret_and_not_the_callers(bench: Bench) -> None:
    """The endpoint sees the Secret's token, and neither the caller's key nor name, nor our salt; others are 403."""
    bench.set_external(f"http://127.0.0.1:{bench.upstream_port}/v1", secret="their-token")
    bench.client().chat.completions.create(model="chat", messages=SAY)
    (asked,) = bench.upstream.asked
    assert (asked["authorization"], asked["caller"]) == (b"Bearer their-token", None)
    assert "cache_salt" not in asked
    with pytest.raises(openai.PermissionDeniedError):
        bench.client("mallory-key").chat.completions.create(model="red-ml/chat", messages=SAY)


def test_a_stranger_is_not_told_why_a_service_does_not_serve(bench: Bench) -> None:
    """A service without replicas says why to its own callers; anybody else is refused as ever."""
    bench.set(alive=False)
    with pytest.raises(openai.InternalServerError, match="no replica that serves"):
        bench.client().chat.completions.create(model="red-ml/chat", messages=SAY)
    with pytest.raises(openai.PermissionDeniedError, match="is not one of red-ml/chat's"):
        bench.client("mallory-key").chat.completions.create(model="red-ml/chat", messages=SAY)


def test_a_denied_caller_is_denied_at_an_external_endpoint_too(bench: Bench) -> None:
    """No Grant speaks of it, so the Deny that a revocation writes is asked at the gateway; others go on."""
    bench.set_external(f"http://127.0.0.1:{bench.upstream_port}/v1")
    deny = {"effect": "Deny", "identities": [ALICE], "verbs": ["call"], "objects": {}}
    bench.access = [{"metadata": {"name": "revoked"}, "spec": deny}]
    with pytest.raises(openai.PermissionDeniedError, match="AccessPolicy revoked denies call"):
        bench.client().chat.completions.create(model="chat", messages=SAY)
    assert not bench.upstream.asked
    bench.access[0]["spec"]["objects"] = {"namespaces": ["elsewhere"]}
    bench.client().chat.completions.create(model="chat", messages=SAY)


def test_a_replica_that_cannot_be_reached_is_passed_over(bench: Bench) -> None:
    """Another replica answers, by a decision of its own on its own grant; only when none can, the caller is told."""
    bench.set(dead=2)
    raw = bench.client().chat.completions.with_raw_response.create(model="chat", messages=SAY)
    assert raw.parse().choices[0].message.content == "Hello there."
    bench.set(dead=3, alive=False)
    with pytest.raises(openai.InternalServerError, match="cannot be reached"):
        bench.client().chat.completions.create(model="chat", messages=SAY)


def test_a_server_that_does_not_stream_is_not_taken_for_one(bench: Bench) -> None:
    """Asked for a stream, an answer in one piece is an error, not an empty answer."""
    bench.upstream.streams = False
    with pytest.raises(openai.InternalServerError, match="something else"):
        bench.client().chat.completions.create(model="chat", messages=SAY, stream=True)
