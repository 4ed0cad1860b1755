r"""Patterns whose beginnings are known: a bounded regular expression, and the expression of everything it may begin as.

A stream filter must hold back exactly what may still become a match. `Pattern.beginnings` says what that is: every
prefix, the whole included, of every text that the pattern matches, derived from the pattern's own syntax tree, so that
the two cannot disagree. The notation is a small part of RE2's: literals, `\.` and the like, classes (`[a-z0-9_]`),
`(a|b)`, and the bounded repeats `?`, `{n}`, `{n,m}`. Unbounded repeats are refused: what may grow for ever would be
held for ever. All of it speaks of ASCII bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from wharfinger.core.errors import Malformed, excerpt

_SPECIAL: Final = frozenset(rb"\.[](){}?*+|^$")


@dataclass(frozen=True, slots=True)
class _Class:
    """One byte out of `members`."""

    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Sequence:
    """All of `items`, one after the other."""

    items: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    """One of `options`."""

    options: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    """`item`, from `least` to `most` times."""

    item: _Node
    least: int
    most: int


_Node: TypeAlias = _Class | _Sequence | _Choice | _Repeat


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern. `whole` matches it, `beginnings` its every prefix but the empty one, both in RE2's syntax.

    `first` are the bytes that a match can begin with, `last` those of the class that it ends with: a run of them that
    goes on behind a match belongs to it. `longest` bounds a match in bytes, `spans_blanks` says whether one can hold
    white space.
    """

    text: str
    whole: str
    beginnings: str
    first: frozenset[int]
    last: frozenset[int]
    longest: int
    spans_blanks: bool


def parse(text: str) -> Pattern:
    """Return the pattern that `text` writes.

    Raises `Malformed` when it is not in the notation, or could match nothing at all.
    """
    node = _Parser(text).parse()
    if _may_be_empty(node):
        raise Malformed(f"expected a pattern that matches at least one byte, got {excerpt(text)}")
    return Pattern(text, _whole(node), _beginnings(node), _first(node), _last(node), _longest(node), _spans(node))


def members(pattern_class: str) -> frozenset[int]:
    """Return the bytes of a class such as `[a-z0-9_]`; raises `Malformed`."""
    node = _Parser(pattern_class).parse()
    if not isinstance(node, _Class):
        raise Malformed(f"expected one class, got {excerpt(pattern_class)}")
    return node.members


class _Parser:
    """Recursive descent over the notation."""

    def __init__(self, text: str) -> None:
        try:
            self._text = text.encode("ascii")
        except UnicodeEncodeError as error:
            raise Malformed(f"expected an ASCII pattern, got {excerpt(text)}") from error
        self._at = 0

    def parse(self) -> _Node:
        node = self._choice()
        if self._at != len(self._text):
            raise self._fault("an end")
        return node

    def _choice(self) -> _Node:
        options = [self._sequence()]
        while self._peek() == ord("|"):
            self._at += 1
            options.append(self._sequence())
        return options[0] if len(options) == 1 else _Choice(tuple(options))

    def _sequence(self) -> _Node:
        items: list[_Node] = []
        while self._peek() not in (-1, ord("|"), ord(")")):
            items.append(self._repeat(self._item()))
        return items[0] if len(items) == 1 else _Sequence(tuple(items))

    def _item(self) -> _Node:
        byte = self._next()
        if byte == ord("("):
            node = self._choice()
            if self._next() != ord(")"):
                raise self._fault("a )")
            return node
        if byte == ord("["):
            return self._class()
        if byte == ord("\\"):
            return _Class(frozenset({self._next()}))
        if byte in _SPECIAL:
            raise self._fault("a byte of the notation")
        return _Class(frozenset({byte}))

    def _class(self) -> _Class:
        if self._peek() == ord("^"):
            raise self._fault("a class that says what it holds")
        found: set[int] = set()
        while (byte := self._next()) != ord("]"):
            low = self._next() if byte == ord("\\") else byte
            if self._peek() == ord("-") and self._text[self._at + 1 : self._at + 2] != b"]":
                self._at += 1
                high = self._next()
                high = self._next() if high == ord("\\") else high
                if high < low:
                    raise self._fault("a range that goes up")
                found.update(range(low, high + 1))
            else:
                found.add(low)
        if not found:
            raise self._fault("a class with members")
        return _Class(frozenset(found))

    def _repeat(self, item: _Node) -> _Node:
        byte = self._peek()
        if byte == ord("?"):
            self._at += 1
            return _Repeat(item, 0, 1)
        if byte != ord("{"):
            return item
        end = self._text.find(b"}", self._at)
        least, comma, most = self._text[self._at + 1 : end].partition(b",")
        if end < 0 or not least.isdigit() or (comma and not most.isdigit()):
            raise self._fault("a bounded repeat {n} or {n,m}")
        self._at = end + 1
        low, high = int(least), int(most) if comma else int(least)
        if not 0 <= low <= high or high == 0:
            raise self._fault("a repeat that goes up")
        return _Repeat(item, low, high)

    def _peek(self) -> int:
        return self._text[self._at] if self._at < len(self._text) else -1

    def _next(self) -> int:
        if self._at >= len(self._text):
            raise self._fault("more")
        self._at += 1
        return self._text[self._at - 1]

    def _fault(self, wanted: str) -> Malformed:
        return Malformed(f"pattern {excerpt(self._text.decode('ascii'))}: expected {wanted} at {self._at}")


def _may_be_empty(node: _Node) -> bool:
    match node:
        case _Class():
            return False
        case _Sequence(items):
            return all(map(_may_be_empty, items))
        case _Choice(options):
            return any(map(_may_be_empty, options))
        case _Repeat(item, least, _):
            return least == 0 or _may_be_empty(item)


def _whole(node: _Node) -> str:
    match node:
        case _Class(found):
            return _shown(found)
        case _Sequence(items):
            return "".join(map(_whole, items))
        case _Choice(options):
            return "(?:" + "|".join(map(_whole, options)) + ")"
        case _Repeat(item, least, most):
            inner = _whole(item)
            return (inner if isinstance(item, _Class) else f"(?:{inner})") + _bounds(least, most)


def _beginnings(node: _Node) -> str:
    """Return an expression of the prefixes, but the empty one, of what `node` matches."""
    match node:
        case _Class():
            return _whole(node)
        case _Sequence(items):
            made = _beginnings(items[-1])
            for item in reversed(items[:-1]):
                made = f"(?:{_beginnings(item)}|{_whole(item)}{made})"
            return made
        case _Choice(options):
            return "(?:" + "|".join(map(_beginnings, options)) + ")"
        case _Repeat(item, _, most):
            if isinstance(item, _Class):
                return _whole(item) + _bounds(1, most)
            if most == 1:
                return _beginnings(item)
            return f"(?:(?:{_whole(item)}){{0,{most - 1}}}{_beginnings(item)})"


def _longest(node: _Node) -> int:
    match node:
        case _Class():
            return 1
        case _Sequence(items):
            return sum(map(_longest, items))
        case _Choice(options):
            return max(map(_longest, options))
        case _Repeat(item, _, most):
            return most * _longest(item)


def _spans(node: _Node) -> bool:
    match node:
        case _Class(found):
            return not found.isdisjoint(b" \t\r\n")
        case _Sequence(items) | _Choice(items):
            return any(map(_spans, items))
        case _Repeat(item, _, _):
            return _spans(item)


def _first(node: _Node) -> frozenset[int]:
    return _edge(node, 1)


def _last(node: _Node) -> frozenset[int]:
    return _edge(node, -1)


def _edge(node: _Node, step: int) -> frozenset[int]:
    """Return the bytes that a match can begin with (`step` 1) or end with (-1)."""
    match node:
        case _Class(found):
            return found
        case _Sequence(items):
            made: frozenset[int] = frozenset()
            for item in items[::step]:
                made |= _edge(item, step)
                if not _may_be_empty(item):
                    break
            return made
        case _Choice(options):
            return frozenset().union(*(_edge(option, step) for option in options))
        case _Repeat(item, _, _):
            return _edge(item, step)


def _bounds(least: int, most: int) -> str:
    if (least, most) == (1, 1):
        return ""
    if (least, most) == (0, 1):
        return "?"
    return f"{{{least}}}" if least == most else f"{{{least},{most}}}"


def _shown(found: frozenset[int]) -> str:
    """Return `found` as a class of RE2, with every member by its number, so that nothing needs escaping."""
    ordered = sorted(found)
    spans: list[tuple[int, int]] = []
    for byte in ordered:
        if spans and spans[-1][1] == byte - 1:
            spans[-1] = (spans[-1][0], byte)
        else:
            spans.append((byte, byte))
    if spans == [(ordered[0], ordered[0])]:
        return f"\\x{ordered[0]:02x}"
    return "[" + "".join(f"\\x{a:02x}" + (f"-\\x{b:02x}" if b > a else "") for a, b in spans) + "]"
