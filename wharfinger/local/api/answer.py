"""What a request is answered with: a whole body or a stream of them. Pure values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from wharfinger.core.document import Json
from wharfinger.local.api import negotiation
from wharfinger.local.api.negotiation import Form

_JSON_HEADER: Final = (b"content-type", b"application/json")
_YAML_HEADER: Final = (b"content-type", b"application/yaml")
_CACHE_HEADER: Final = (b"cache-control", b"no-cache, private")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON_HEADER,)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body comes in parts; `quiet` ends it early when the caller has gone."""

    parts: AsyncIterator[bytes]
    headers: tuple[tuple[bytes, bytes], ...] = (_JSON_HEADER,)
    status: int = 200


def of_value(status: int, value: Json, form: Form = negotiation.PLAIN, warnings: Sequence[str] = ()) -> Answer:
    """Return the answer that carries `value` in the syntax that was asked for."""
    if form.syntax == "yaml":
        from wharfinger.local.api import yamlbody

        return Answer(status, yamlbody.write(value), (_YAML_HEADER, _CACHE_HEADER, *_warned(warnings)))
    return of_bytes(status, orjson.dumps(value), warnings)


def of_bytes(status: int, body: bytes, warnings: Sequence[str] = ()) -> Answer:
    """Return the answer that carries the JSON text `body`."""
    return Answer(status, body, (_JSON_HEADER, _CACHE_HEADER, *_warned(warnings)))


def of_text(status: int, text: bytes) -> Answer:
    """Return an answer of plain text."""
    return Answer(status, text, ((b"content-type", b"text/plain; charset=utf-8"),))


def _warned(warnings: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """Return a Warning header for each text (RFC 7234 section 5.5, as Kubernetes writes them)."""
    made = []
    for text in dict.fromkeys(warnings):
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        shown = "".join(c if c.isprintable() and ord(c) < 127 else "?" for c in quoted)
        made.append((b"warning", f'299 - "{shown[:4096]}"'.encode("ascii")))
    return made
