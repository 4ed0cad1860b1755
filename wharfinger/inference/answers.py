"""Answers on their way out: every channel of every choice through its own filter, whole or streamed.

A channel is what a client joins to one text: content, reasoning, refusal, the arguments of one tool call, and any
other text that a server may come to put into a choice. Log probabilities and token numbers repeat the text; where a
guard looks at the output they are left out, and so is every field that the API does not know. What is held back when a
stream ends goes out in a last delta of the channel, before its choice's finish reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import orjson

from wharfinger.core.errors import Unavailable
from wharfinger.inference.scanner import StreamFilter

CONTENT_FILTER: Final = "content_filter"
"""The finish reason of an answer that a guard ended (OpenAI API, chat completion object)."""
_DONE: Final = b"[DONE]"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_EVENT_NAMES: Final = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"}
)
_CHOICE_NAMES: Final = frozenset({"index", "delta", "message", "text", "finish_reason"})
_NO_TEXT: Final = frozenset({"index", "finish_reason", "role", "id", "type"})
_MOST: Final = 10**9
_AT_ONCE: Final = frozenset({"name"})
"""Texts that come whole in one event and are not joined."""
Filter: TypeAlias = Callable[[], StreamFilter]
_Path: TypeAlias = tuple[str | int, ...]
_Channel: TypeAlias = tuple[int, _Path]
_Text: TypeAlias = tuple[Any, Any, _Path]
_PLAIN: Final = frozenset({"index", "delta", "finish_reason"})
_CONTENT: Final[_Path] = ("delta", "content")


@dataclass(slots=True)
class Found:
    """What guards found in an answer: the names in order, and the one that ended it."""

    names: list[str] = field(default_factory=list)
    stopped: str = ""

    def add(self, channel: StreamFilter) -> None:
        """Take over what one channel's filter found."""
        self.names += [finding.detector for finding in channel.findings]
        self.stopped = self.stopped or channel.stopped


class EventSplitter:
    """Cuts a stream of server-sent events (WHATWG HTML 9.2) into the data of each; any chunking, LF, CR or CRLF."""

    def __init__(self, limit: int = 4 * 1024 * 1024) -> None:
        self._pieces: list[bytes] = []
        self._length = 0
        self._data: list[bytes] = []
        self._size = 0
        self._limit = limit
        self._ends_in_cr = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of every event that is whole now. Raises `Unavailable` when one grows beyond the limit."""
        self._pieces.append(chunk)
        self._length += len(chunk)
        if self._ends_in_cr or _LINE_END.search(chunk) is not None:
            yield from self._lines(b"".join(self._pieces))
        if self._length + self._size > self._limit:
            raise Unavailable("the model's server sent an event without end")

    def _lines(self, buffer: bytes) -> Iterator[bytes]:
        at = 0
        while (end := _LINE_END.search(buffer, at)) is not None:
            if end.end() == len(buffer) and end.group() == b"\r":
                break  # its LF may be yet to come
            line, at = buffer[at : end.start()], end.end()
            if not line:
                if self._data:
                    data, self._data, self._size = b"\n".join(self._data), [], 0
                    yield data
            elif line == b"data" or line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
                self._size += len(line)
        rest = buffer[at:]
        self._pieces, self._length, self._ends_in_cr = [rest], len(rest), rest.endswith(b"\r")

    def finish(self) -> Iterator[bytes]:
        """Yield an event that the end of the stream cut off from its blank line."""
        yield from self.feed(b"\n\n")


class Usage:
    """What an answer used, as the model's server says, else as counted.

    A server is believed within reason: no answer has fewer tokens than a sixteenth of its bytes.
    """

    def __init__(self) -> None:
        self.said: tuple[int, int] | None = None
        self.pieces = 0
        self.size = 0

    def read(self, told: Any) -> None:
        """Take over a usage object, if it is one."""
        if isinstance(told, dict):
            prompt, completion = told.get("prompt_tokens") or 0, told.get("completion_tokens")
            if type(prompt) is int and type(completion) is int and 0 <= prompt <= _MOST and 0 <= completion <= _MOST:
                self.said = (prompt, completion)

    def count(self, texts: Sequence[_Text]) -> None:
        """Count a choice's texts: those of one event are a piece."""
        size = 0
        for holder, key, _ in texts:
            text = holder[key]
            size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        self.pieces += bool(size)
        self.size += size

    def exceeds(self, most: int) -> bool:
        """Say whether more came than `most` tokens can be: more pieces of a usual size, or far more bytes."""
        return (self.pieces > most + 4 and self.size > 4 * most) or self.size > 64 * most + 256

    def tokens(self, estimate: int) -> tuple[int, int]:
        """Return the tokens of prompt and answer; `estimate` is the prompt's where the server says nothing of it."""
        if self.said is not None:
            return self.said[0], max(self.said[1], self.size // 16)
        return (estimate if self.size else 0), max(self.pieces, self.size // 5)


def filter_whole(body: dict[str, Any], make: Filter | None, usage: Usage) -> Found:
    """Filter every channel of a whole answer in place and read its usage.

    Raises `Unavailable` when it is not what the API answers.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise Unavailable("the model's server sent an answer whose choices are not objects")
    usage.read(body.get("usage"))
    told = Found()
    if make is not None:
        _keep(body, _EVENT_NAMES)
    for choice in choices:
        texts = _texts(choice)
        usage.count(texts)
        if make is None:
            continue
        _keep(choice, _CHOICE_NAMES)
        for holder, key, _ in _texts(choice):
            one = make()
            holder[key] = one.feed(holder[key], final=True)
            told.add(one)
            if one.stopped:
                choice["finish_reason"] = CONTENT_FILTER
    return told


class Stream:
    """The filter of one streamed answer: event data in, the bytes to send out.

    A finding that is denied ends the answer: its choice's finish reason is `content_filter`, and nothing follows. So
    does a server that sends more than the `most` tokens that its request allowed it: the finish reason is `length`.
    After the last event `done` is set, and `finish` returns what then still has to go out.
    """

    def __init__(self, make: Filter | None, usage: Usage, *, wants_usage: bool, most: int) -> None:
        self._make = make
        self._usage = usage
        self._wants_usage = wants_usage
        self._most = most
        self._channels: dict[_Channel, StreamFilter] = {}
        self._last: dict[str, Any] = {}
        self.done = False

    @property
    def told(self) -> Found:
        """Return what was found so far."""
        told = Found()
        for channel in self._channels.values():
            told.add(channel)
        return told

    def take(self, data: bytes) -> bytes:
        """Return what one event becomes. Raises `Unavailable` when it is not what the API streams."""
        if self.done:
            return b""
        if data == _DONE:
            self.done = True
            return b""
        event = read_json(data, "an event")
        if "error" in event:
            raise Unavailable("the model's server failed in the middle of its answer")
        self._usage.read(event.get("usage"))
        choices = event.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise Unavailable("the model's server sent an event whose choices are not objects")
        if self._make is not None:
            _keep(event, _EVENT_NAMES)
        if not choices and "usage" in event:
            return self._tail() + (_event(event) if self._wants_usage else b"")
        self._last = {name: value for name, value in event.items() if name not in ("choices", "usage")}
        ended = b""
        for choice in choices:
            if self._make is not None:
                _keep(choice, _CHOICE_NAMES)
            texts = _texts(choice)
            self._usage.count(texts)
            if self._make is not None:
                if self._filter(_index(choice), texts):
                    choice["finish_reason"], self.done = CONTENT_FILTER, True
                elif choice.get("finish_reason"):
                    ended += self._flush(_index(choice))
            if self._usage.exceeds(self._most) and not self.done:
                choice["finish_reason"], self.done = "length", True
        if not self._wants_usage:
            event.pop("usage", None)
        return ended + _event(event)

    def finish(self) -> bytes:
        """Return what is held back, and the end mark."""
        return self._tail() + b"data: [DONE]\n\n"

    def _tail(self) -> bytes:
        return b"".join(self._flush(index) for index in sorted({key[0] for key in self._channels}))

    def _filter(self, index: int, texts: Sequence[_Text]) -> bool:
        """Filter the choice's texts in place; return whether one of them was stopped."""
        stopped = False
        for holder, key, path in texts:
            channel = self._channel((index, path))
            holder[key] = channel.feed(holder[key], final=key in _AT_ONCE)
            stopped = stopped or bool(channel.stopped)
        return stopped

    def _channel(self, key: _Channel) -> StreamFilter:
        assert self._make is not None
        if key not in self._channels:
            self._channels[key] = self._make()
        return self._channels[key]

    def _flush(self, choice: int) -> bytes:
        made = b""
        for (index, path), channel in self._channels.items():
            if index != choice or not channel.held:
                continue
            shown = {"index": index, **_nested(path, channel.finish()), "finish_reason": None}
            made += _event({**self._last, "choices": [shown]})
        return made


def read_json(data: bytes, what: str) -> dict[str, Any]:
    """Return the object that the model's server sent as `what`. Raises `Unavailable`."""
    try:
        value = orjson.loads(data)
    except ValueError:
        try:  # lone surrogates, which json takes
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Unavailable(f"the model's server sent {what} that is not JSON") from error
    if not isinstance(value, dict):
        raise Unavailable(f"the model's server sent {what} that is not an object")
    return value


def write_json(value: dict[str, Any]) -> bytes:
    """Return `value` as compact JSON."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def _texts(choice: dict[str, Any]) -> list[_Text]:
    """Return every text of a choice that a client may join to one: its holder, its key there and its path."""
    delta = choice.get("delta")
    if type(delta) is dict and len(delta) == 1 and type(delta.get("content")) is str and choice.keys() <= _PLAIN:
        return [(delta, "content", _CONTENT)] if delta["content"] else []
    found: list[_Text] = []
    waiting: list[tuple[Any, _Path]] = [(choice, ())]
    while waiting:
        holder, path = waiting.pop()
        if isinstance(holder, dict):
            entries: Iterable[_Text] = (
                (key, value, (*path, key)) for key, value in holder.items() if key not in _NO_TEXT
            )
        else:
            entries = ((at, value, (*path, _index(value, at))) for at, value in enumerate(holder))
        for key, value, below in entries:
            if isinstance(value, str):
                if value:
                    found.append((holder, key, below))
            elif isinstance(value, dict | list):
                waiting.append((value, below))
    return found


def _nested(path: _Path, value: Any) -> dict[str, Any]:
    """Return the object that holds `value` at `path`; a number there is the index of an object in a list."""
    for step in reversed(path):
        if isinstance(step, int):
            value = [{"index": step, **value} if isinstance(value, dict) else value]
        else:
            value = {step: value}
    made: dict[str, Any] = value
    return made


def _index(value: Any, otherwise: int = 0) -> int:
    told = value.get("index") if isinstance(value, dict) else None
    return told if isinstance(told, int) else otherwise


def _keep(value: Any, names: frozenset[str]) -> None:
    for name in [name for name in value if name not in names]:
        del value[name]


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + write_json(value) + b"\n\n"
