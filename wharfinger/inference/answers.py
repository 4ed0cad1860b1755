"""Answers on their way out: every channel of every choice through its own filter, whole or streamed.

A channel is what a client joins to one text: content, reasoning, refusal, the arguments of one tool call. Log
probabilities repeat the text token by token; where a guard looks at the output they are left out. What is held back
when a stream ends goes out in a last delta of the channel, before its choice's finish reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from wharfinger.core.errors import Unavailable
from wharfinger.inference.guards import StreamFilter

_TEXTS: Final = ("content", "reasoning_content", "reasoning", "refusal")
_DONE: Final = b"[DONE]"
Filter = Callable[[], StreamFilter]


class EventSplitter:
    """Cuts a stream of server-sent events (WHATWG HTML 9.2) into the data of each; any chunking, LF, CR or CRLF."""

    def __init__(self, limit: int = 4 * 1024 * 1024) -> None:
        self._buffer = b""
        self._data: list[bytes] = []
        self._limit = limit

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of every event that is whole now. Raises `Unavailable` when one grows beyond the limit."""
        self._buffer += chunk
        if len(self._buffer) > self._limit:
            raise Unavailable("the model's server sent an event without end")
        while True:
            line, rest = _cut_line(self._buffer)
            if line is None:
                return
            self._buffer = rest
            if not line:
                if self._data:
                    yield b"\n".join(self._data)
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))

    def finish(self) -> Iterator[bytes]:
        """Yield an event that the end of the stream cut off from its blank line."""
        yield from self.feed(b"\n\n")


def _cut_line(buffer: bytes) -> tuple[bytes | None, bytes]:
    lf, cr = buffer.find(b"\n"), buffer.find(b"\r")
    if cr >= 0 and (lf < 0 or cr < lf):
        if cr + 1 == len(buffer):
            return None, buffer
        skip = 2 if buffer[cr + 1 : cr + 2] == b"\n" else 1
        return buffer[:cr], buffer[cr + skip :]
    if lf < 0:
        return None, buffer
    return buffer[:lf], buffer[lf + 1 :]


class Usage:
    """What an answer used, as the model's server says, else as counted."""

    def __init__(self) -> None:
        self.prompt = 0
        self.completion = 0
        self.said = False
        self.pieces = 0

    def read(self, told: Any) -> None:
        """Take over a usage object."""
        if isinstance(told, dict) and isinstance(told.get("completion_tokens"), int):
            self.prompt = int(told.get("prompt_tokens") or 0)
            self.completion = int(told["completion_tokens"])
            self.said = True


def filter_whole(body: dict[str, Any], make: Filter | None, usage: Usage) -> list[str]:
    """Mask every channel of a whole answer in place; read its usage. Returns what was found."""
    usage.read(body.get("usage"))
    found: list[str] = []
    for choice in body.get("choices") or ():
        if make is None:
            continue
        choice.pop("logprobs", None)
        message = choice.get("message")
        holders: list[tuple[Any, str]] = [(choice, "text")]
        if isinstance(message, dict):
            holders += [(message, name) for name in _TEXTS]
            for call in message.get("tool_calls") or ():
                if isinstance(call.get("function"), dict):
                    holders.append((call["function"], "arguments"))
        for holder, name in holders:
            if isinstance(holder.get(name), str):
                one = make()
                holder[name] = one.feed(holder[name]) + one.finish()
                found += one.found
    return found


class Stream:
    """The filter of one streamed answer: event data in, the bytes to send out."""

    def __init__(self, make: Filter | None, usage: Usage, *, wants_usage: bool, decision: str) -> None:
        self._make = make
        self._usage = usage
        self._wants_usage = wants_usage
        self._decision = decision
        self._channels: dict[tuple[int, str, int], StreamFilter] = {}
        self._last: dict[str, Any] = {}
        self.done = False

    @property
    def found(self) -> list[str]:
        """Return what was masked so far."""
        return [name for channel in self._channels.values() for name in channel.found]

    def take(self, data: bytes) -> bytes:
        """Return what one event becomes. Raises `Unavailable` when it is not what the API streams."""
        if self.done:
            return b""
        if data == _DONE:
            return self.finish()
        try:
            event = json.loads(data)
        except ValueError as error:
            raise Unavailable("the model's server sent an event that is not JSON") from error
        if not isinstance(event, dict):
            raise Unavailable("the model's server sent an event that is not an object")
        if "error" in event:
            raise Unavailable("the model's server failed in the middle of its answer")
        self._usage.read(event.get("usage"))
        choices = event.get("choices") or []
        if not choices and "usage" in event:
            return self._tail() + (_event(event) if self._wants_usage else b"")
        self._last = {name: value for name, value in event.items() if name not in ("choices", "usage")}
        ended = b""
        for choice in choices:
            self._usage.pieces += 1
            if self._make is None:
                continue
            choice.pop("logprobs", None)
            self._mask(choice)
            if choice.get("finish_reason"):
                ended += self._flush(int(choice.get("index") or 0))
        if not self._wants_usage:
            event.pop("usage", None)
        return ended + _event(event)

    def finish(self) -> bytes:
        """Return what is held back and the end mark."""
        self.done = True
        return self._tail() + b"data: [DONE]\n\n"

    def _tail(self) -> bytes:
        return b"".join(self._flush(index) for index in sorted({key[0] for key in self._channels}))

    def _mask(self, choice: dict[str, Any]) -> None:
        index = int(choice.get("index") or 0)
        if isinstance(choice.get("text"), str):
            choice["text"] = self._channel(index, "text", 0).feed(choice["text"])
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        for name in _TEXTS:
            if isinstance(delta.get(name), str):
                delta[name] = self._channel(index, name, 0).feed(delta[name])
        for call in delta.get("tool_calls") or ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                channel = self._channel(index, "arguments", int(call.get("index") or 0))
                function["arguments"] = channel.feed(function["arguments"])

    def _channel(self, choice: int, name: str, call: int) -> StreamFilter:
        assert self._make is not None
        key = (choice, name, call)
        if key not in self._channels:
            self._channels[key] = self._make()
        return self._channels[key]

    def _flush(self, choice: int) -> bytes:
        made = b""
        for (index, name, call), channel in self._channels.items():
            if index != choice or not channel.held:
                continue
            rest = channel.finish()
            shown: dict[str, Any] = {"index": index, "finish_reason": None}
            if name == "text":
                shown["text"] = rest
            elif name == "arguments":
                shown["delta"] = {"tool_calls": [{"index": call, "function": {"arguments": rest}}]}
            else:
                shown["delta"] = {name: rest}
            made += _event({**self._last, "choices": [shown]})
        return made


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
