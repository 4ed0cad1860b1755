"""OpenAI's chat, completion and model objects: what the gateway reads of a request and writes as an error.

The gateway passes a request on as it came, but for what it must know (model, stream, prompt text, token bound) and
what a client must not say (cache salts). Error objects have the form that the official clients read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.core.document import Json, parse_json
from wharfinger.core.errors import Invalid, Throttled, WharfingerError

MAX_MESSAGES: Final = 10_000
DEFAULT_MAX_TOKENS: Final = 256
MAX_CHOICES: Final = 64
_STRIPPED: Final = (
    "cache_salt", "user_cache_salt", "kv_transfer_params", "priority", "chat_template", "chat_template_kwargs",
    "best_of",
)  # fmt: skip
"""What a client must not say: who shares a cache, what passes whom, and how the server's own prompt is written."""
_NO_TEXT: Final = frozenset({"model", "role", "type", "id", "tool_call_id", "format", "detail"})
"""Fields, at any depth, that hold no text for the model."""
_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
    400: "invalid_request_error", 413: "invalid_request_error", 422: "invalid_request_error",
}  # fmt: skip


@dataclass(slots=True)
class Ask:
    """A request to a model: `body` is what goes on, `chat` whether it is the chat form."""

    body: dict[str, Json]
    model: str
    stream: bool
    chat: bool
    max_tokens: int
    choices: int
    wants_usage: bool

    def texts(self) -> Iterator[str]:
        """Yield every piece of text that the model will read."""
        for holder, key in _slots(self.body):
            yield holder[key]

    def joined(self) -> Iterator[str]:
        """Yield the text parts of each message that has several, joined, as a model's server may read them."""
        for _, parts in _divided(self.body):
            yield "".join(part["text"] for part in parts)

    def merge(self, found: Callable[[str], int]) -> None:
        """Make one part of a message's text parts where more is `found` in them joined than in each, in characters."""
        for content, parts in _divided(self.body):
            text = "".join(part["text"] for part in parts)
            if found(text) > sum(found(part["text"]) for part in parts):
                parts[0]["text"] = text
                content[:] = [part for part in content if not any(part is other for other in parts[1:])]

    def rewrite(self, change: Callable[[str], str]) -> None:
        """Replace every piece of text by what `change` makes of it."""
        for holder, key in list(_slots(self.body)):
            holder[key] = change(holder[key])

    def bound(self, most: int) -> None:
        """Raise `Invalid` when an answer may have more than `most` tokens."""
        if self.max_tokens > most * self.choices:
            raise Invalid(f"max_tokens: expected at most {most}, got {self.max_tokens // self.choices}")

    def estimate(self) -> int:
        """Return about how many tokens the prompt has: a token for four bytes, rounded up."""
        return sum(math.ceil(len(text.encode("utf-8", "surrogatepass")) / 4) for text in self.texts())


def parse_ask(data: bytes, path: str) -> Ask:
    """Return the request in `data` to `/v1/chat/completions` or `/v1/completions`.

    Raises `Malformed`, `TooLarge` or `Invalid` naming the field.
    """
    body = parse_json(data, limit=8 * 1024 * 1024)
    if not isinstance(body, dict):
        raise Invalid("expected a JSON object")
    chat = path.endswith("/chat/completions")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Invalid("model: expected the name of a model")
    stream = body.get("stream", False)
    if stream is not None and not isinstance(stream, bool):
        raise Invalid("stream: expected true or false")
    if chat:
        _check_messages(body.get("messages"))
    elif not isinstance(body.get("prompt"), str) and not (
        isinstance(body.get("prompt"), list) and body["prompt"] and all(isinstance(p, str) for p in body["prompt"])
    ):
        raise Invalid("prompt: expected a string or a list of strings")
    bound = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    asked = DEFAULT_MAX_TOKENS if body.get(bound) is None else body[bound]
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise Invalid("max_tokens: expected a positive number")
    each = 1 if body.get("n") is None else body["n"]
    if not isinstance(each, int) or isinstance(each, bool) or not 1 <= each <= 16:
        raise Invalid("n: expected 1 to 16")
    prompts = body.get("prompt") if not chat else None
    choices = each * (len(prompts) if isinstance(prompts, list) else 1)
    if choices > MAX_CHOICES:
        raise Invalid(f"n: expected at most {MAX_CHOICES} answers over all prompts, got {choices}")
    for name in _STRIPPED:
        body.pop(name, None)
    for name in ("max_tokens", "max_completion_tokens"):
        body.pop(name, None)
    body[bound] = asked
    options = body.get("stream_options")
    wants_usage = isinstance(options, dict) and options.get("include_usage") is True
    if stream:
        body["stream_options"] = {"include_usage": True}
    return Ask(body, model, bool(stream), chat, asked * choices, choices, wants_usage)


def error_object(error: WharfingerError) -> bytes:
    """Return the error object (OpenAI API, errors) of `error`."""
    kind = _TYPES.get(error.status, "server_error")
    code = "rate_limit_exceeded" if isinstance(error, Throttled) else error.code
    message = error.message + (f" ({error.hint})" if error.hint else "")
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def _check_messages(messages: Json) -> None:
    if not isinstance(messages, list) or not messages:
        raise Invalid("messages: expected a list with at least one message")
    if len(messages) > MAX_MESSAGES:
        raise Invalid(f"messages: expected at most {MAX_MESSAGES}, got {len(messages)}")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Invalid(f"messages[{index}]: expected an object with a role")
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        if not (content is None or isinstance(content, str | list)) or not all(isinstance(p, dict) for p in parts):
            raise Invalid(f"messages[{index}].content: expected text or a list of parts")


def _divided(body: dict[str, Json]) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield each message's content that has several text parts, and those parts."""
    for message in body.get("messages") or ():
        content = message.get("content")
        if isinstance(content, list):
            parts = [part for part in content if isinstance(part.get("text"), str)]
            if len(parts) > 1:
                yield content, parts


def _slots(body: dict[str, Json]) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a text that the model may read, as container and key, in the order of the request."""
    waiting: list[Any] = [body]
    while waiting:
        holder = waiting.pop()
        entries = list(holder.items() if isinstance(holder, dict) else enumerate(holder))
        for key, value in entries:
            if isinstance(value, str) and key not in _NO_TEXT and not _is_data(key, value):
                yield holder, key
        waiting += [value for key, value in reversed(entries) if isinstance(value, dict | list)]


def _is_data(key: Any, value: str) -> bool:
    """Say whether a string is an image's, a sound's or a file's bytes."""
    return (key in ("url", "file_data") and value.startswith("data:")) or key == "data"
