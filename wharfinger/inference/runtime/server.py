"""The runtime's OpenAI API: what the gateway passes on, answered by the small language model or by another server.

The connection is the gateway's alone (mutual TLS), and the gateway's word is not enough: the caller that it names is
judged by the same grant once more, and the decision is on disk before the first token. An answer under way whose grant
goes is broken off.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, generate_latest

from wharfinger.core.clock import SECOND, Clock
from wharfinger.core.errors import Denied, Invalid, NotFound, Unavailable, WharfingerError
from wharfinger.core.ids import Ids
from wharfinger.identity.spiffeid import Part, SpiffeId
from wharfinger.inference.chat import Ask, error_object, parse_ask
from wharfinger.inference.http1 import Reply, Request
from wharfinger.inference.language import LanguageModel
from wharfinger.policy.decision import Decision, Verdict

_Answer: TypeAlias = Callable[[Ask, Request, Reply], Awaitable[None]]
_JSON: Final = (b"content-type", b"application/json")
CALLS: Final = Counter("wharf_runtime_calls", "Calls of the model, by how they ended.", ["outcome"])


class Permits(Protocol):
    """Who may call; `door.RuntimeDoor` is one."""

    async def permit(self, peer: SpiffeId | None, caller: str) -> Decision:
        """Judge one call by `peer` in the name of `caller`; the decision is stored when it returns."""
        ...

    def heard(self, peer: SpiffeId | None, caller: str) -> Verdict:
        """Judge who is at the other end of the connection."""
        ...

    def still(self, caller: str) -> Verdict:
        """Judge a call under way."""
        ...

    async def cut(self, caller: str, verdict: Verdict) -> None:
        """Store why a call under way was ended."""
        ...


@dataclass(slots=True, eq=False)
class _Underway:
    """A call that has been let through."""

    caller: str
    task: asyncio.Task[Any]
    cut: Verdict | None = None


class Runtime:
    """Serves `model` once there is one; until then it says why not."""

    def __init__(self, name: str, door: Permits, clock: Clock, ids: Ids, *, pace: float = 0.0) -> None:
        self._name = name
        self._door = door
        self._underway: set[_Underway] = set()
        self._clock = clock
        self._ids = ids
        self._pace = pace
        self._answer: _Answer | None = None
        self.why_not = "the model is not loaded yet"

    def load(self, model: LanguageModel) -> None:
        """Serve this model from now on."""

        async def speak(ask: Ask, _request: Request, reply: Reply) -> None:
            await self._speak(model, ask, reply)

        self._answer = speak
        self.why_not = ""

    def front(self, pass_on: Callable[[Request, Reply], Awaitable[None]]) -> None:
        """Pass what is let through on to another server from now on."""

        async def passed(_ask: Ask, request: Request, reply: Reply) -> None:
            await pass_on(request, reply)

        self._answer = passed
        self.why_not = ""

    def refuse(self, why_not: str) -> None:
        """Serve nothing, for this reason."""
        self._answer = None
        self.why_not = why_not

    def judge_again(self) -> None:
        """Break off the calls whose grant does not hold any more."""
        for underway in list(self._underway):
            verdict = self._door.still(underway.caller)
            if not verdict.allowed and underway.cut is None:
                underway.cut = verdict
                underway.task.cancel()

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        try:
            if request.path in ("/livez", "/readyz"):
                late = request.path == "/readyz" and self.why_not
                reply.send(503 if late else 200, [], (self.why_not if late else "ok").encode() + b"\n")
                return
            if request.path == "/metrics":
                if request.peer is None or not isinstance(request.peer.kind, Part):
                    raise Denied("metrics are for the platform's own parts")
                reply.send(200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], generate_latest(REGISTRY))
                return
            if request.path == "/v1/models" and request.method == "GET":
                verdict = self._door.heard(request.peer, "anybody")
                if not verdict.allowed:
                    raise Denied(verdict.reason)
                shown = {"id": self._name, "object": "model", "created": 0, "owned_by": "wharfinger"}
                reply.send(200, [_JSON], json.dumps({"object": "list", "data": [shown]}).encode())
                return
            if request.path not in ("/v1/chat/completions", "/v1/completions") or request.method != "POST":
                raise NotFound(f"there is no {request.method} {request.path[:80]} here")
            try:
                await self._complete(request, reply)
            except WharfingerError as error:
                CALLS.labels(error.code).inc()
                raise
            CALLS.labels("ok").inc()
        except WharfingerError as error:
            if reply.started:
                reply.abort()
            else:
                reply.send(error.status, [_JSON], error_object(error))

    async def _complete(self, request: Request, reply: Reply) -> None:
        caller = request.headers.get(b"x-wharf-caller", b"").decode("ascii", "replace")
        decision = await self._door.permit(request.peer, caller)
        if not decision.verdict.allowed:
            raise Denied(decision.verdict.reason)
        if self._answer is None:
            raise Unavailable(self.why_not)
        ask = parse_ask(request.body, request.path)
        task = asyncio.current_task()
        assert task is not None
        underway = _Underway(caller, task)
        self._underway.add(underway)
        try:
            await self._answer(ask, request, reply)
        except asyncio.CancelledError:
            if underway.cut is None:
                raise
            task.uncancel()
            await self._door.cut(caller, underway.cut)
            raise Denied(underway.cut.reason) from None
        finally:
            self._underway.discard(underway)

    async def _speak(self, model: LanguageModel, ask: Ask, reply: Reply) -> None:
        if ask.choices != 1:
            raise Invalid("n: this runtime gives one choice")
        prompt = "\n".join(ask.texts())
        pieces = self._pieces(model, ask, prompt)
        head = {
            "id": f"chatcmpl-{self._ids.uid()}",
            "created": self._clock.now() // SECOND,
            "model": self._name,
        }
        used = model.count(prompt)
        if ask.stream:
            await self._stream(ask, head, pieces, used, reply)
            return
        text = []
        for piece in pieces:
            text.append(piece)
            await asyncio.sleep(self._pace)
        reply.send(200, [_JSON], json.dumps(_whole(ask, head, "".join(text), used, len(text))).encode())

    async def _stream(self, ask: Ask, head: dict[str, Any], pieces: Iterator[str], used: int, reply: Reply) -> None:
        kind = {"object": "chat.completion.chunk" if ask.chat else "text_completion"}
        reply.start(200, [(b"content-type", b"text/event-stream; charset=utf-8")])
        if ask.chat:
            await reply.write(_event({**head, **kind, "choices": [_delta(ask, {"role": "assistant", "content": ""})]}))
        count = 0
        for piece in pieces:
            count += 1
            await reply.write(_event({**head, **kind, "choices": [_delta(ask, {"content": piece})]}))
            await asyncio.sleep(self._pace)
        reason = "length" if count >= ask.max_tokens else "stop"
        await reply.write(_event({**head, **kind, "choices": [_delta(ask, {}, reason)]}))
        await reply.write(_event({**head, **kind, "choices": [], "usage": _usage(used, count)}))
        await reply.write(b"data: [DONE]\n\n")
        reply.finish()

    def _pieces(self, model: LanguageModel, ask: Ask, prompt: str) -> Iterator[str]:
        told = ask.body.get("temperature")
        temperature = 0.7 if told is None else float(told) if isinstance(told, int | float) else 0.7
        seed = ask.body.get("seed")
        if not isinstance(seed, int):
            seed = zlib.crc32(prompt.encode())
        last = (ask.body.get("messages") or [{}])[-1].get("content") if ask.chat else prompt
        about = last if isinstance(last, str) else prompt
        return model.generate(about, most=ask.max_tokens, temperature=min(max(temperature, 0.0), 2.0), seed=abs(seed))


def _delta(ask: Ask, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    if ask.chat:
        return {"index": 0, "delta": delta, "finish_reason": reason}
    return {"index": 0, "text": delta.get("content", ""), "finish_reason": reason}


def _whole(ask: Ask, head: dict[str, Any], text: str, prompt: int, completion: int) -> dict[str, Any]:
    reason = "length" if completion >= ask.max_tokens else "stop"
    choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
    if ask.chat:
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    kind = "chat.completion" if ask.chat else "text_completion"
    return {**head, "object": kind, "choices": [choice], "usage": _usage(prompt, completion)}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
