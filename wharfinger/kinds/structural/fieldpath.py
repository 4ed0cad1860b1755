"""Field paths: `.spec.list['a.b']`, as rules and selectable fields name a place (schema/cel ValidFieldPath)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from wharfinger.core.causes import child, key_of
from wharfinger.core.errors import Malformed
from wharfinger.kinds.structural.node import Node

_NOWHERE: Final = "does not refer to a valid field"
_ENDED: Final = "unexpected end of JSON path"
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'", "\\": "\\",
}  # fmt: skip


def resolve(text: str, node: Node, *, brackets: bool = True) -> tuple[str, Node]:
    """Return the path that `text` names, as messages write it, and the node there.

    Raises `Malformed` for a path that is none, and for one that leads to no field of `node`.
    """
    path = ""
    tokens = _tokens(text)
    for mark in tokens:
        if mark == ".":
            name = _next(tokens)
        elif mark == "[":
            if not brackets:
                raise Malformed("array notation is not allowed")
            quoted = _next(tokens)
            if len(quoted) < 2 or quoted[0] != "'" or quoted[-1] != "'":
                raise Malformed(f"expected single quoted string but got {quoted}")
            name = _unescaped(quoted[1:-1])
        else:
            raise Malformed(f"expected [ or . but got: {mark}")
        path, node = _below(path, node, name)
        if mark == "[":
            closing = _next(tokens)
            if closing != "]":
                raise Malformed(f"expected ] but got {closing}")
    return path, node


def _below(path: str, node: Node, name: str) -> tuple[str, Node]:
    if node.properties:
        found = node.properties.get(name)
        if found is None:
            raise Malformed(_NOWHERE)
        return child(path, name), found
    if isinstance(node.additional, Node):
        return key_of(path, name), node.additional
    raise Malformed(_NOWHERE)


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        if text[at] == "'":
            end = at + 1
            while end < len(text) and not (text[end] == "'" and text[end - 1] != "\\"):
                end += 1
            yield text[at : end + 1]
            at = end + 1
            continue
        if text[at] in ".[]":
            yield text[at]
            at += 1
            continue
        match = _WORD.match(text, at)
        assert match is not None
        yield match[0]
        at = match.end()


_WORD: Final = re.compile(r"[^.\[\]]+", re.DOTALL)


def _next(tokens: Iterator[str]) -> str:
    token = next(tokens, None)
    if token is None:
        raise Malformed(_ENDED)
    return token


def _unescaped(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPED:
            raise Malformed(f"invalid string literal: invalid escape char {match[0]}")
        return _ESCAPED[match[1]]

    return _ESCAPE.sub(plain, text)
