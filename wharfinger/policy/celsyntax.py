"""CEL syntax trees, read from the checked form that the front end serializes.

The front end (cel-expr-python, Google's parser and type checker) gives a `google.protobuf.Any` that holds a
`cel.expr.CheckedExpr` (cel-spec, proto/cel/expr/checked.proto and syntax.proto). Types and source positions
are dropped: what the back end needs is the tree, with names resolved and macros expanded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from wharfinger.core.errors import Invalid
from wharfinger.policy.celvalues import Uint, Value

MAX_DEPTH: Final = 150
"""Levels of nesting; the back end uses one interpreter frame for each."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Value


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, a macro's own variable or the name of a type."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`, or `has(operand.field)` where `test` is set."""

    operand: Node
    field: str
    test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or operator (`_+_`, `_[_]`, `@in`); the receiver of a method is the first argument."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list literal."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map literal."""

    entries: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """What every macro becomes: a loop over `range` that folds into `result_name`."""

    item_name: str
    range: Node
    result_name: str
    start: Node
    condition: Node
    step: Node
    result: Node


Node: TypeAlias = Literal | Name | Select | Call | ListOf | MapOf | Fold
_Field: TypeAlias = "int | bytes"


def read(serialized: bytes) -> Node:
    """Return the tree in a serialized checked expression.

    Raises `Invalid` for nesting beyond `MAX_DEPTH` and for what the back end does not evaluate: message literals,
    optional entries, two-variable macros.
    """
    try:
        for number, value in _fields(serialized):
            if number == 2 and isinstance(value, bytes):
                for inner, expression in _fields(value):
                    if inner == 4 and isinstance(expression, bytes):
                        return _node(expression, 0)
    except (UnicodeDecodeError, struct.error) as error:
        raise Invalid("expected a serialized expression, got damaged bytes") from error
    raise Invalid("expected a checked CEL expression")


def size(node: Node) -> int:
    """Return the number of nodes in a tree: what one pass over it costs at least."""
    total, queue = 0, [node]
    while queue:
        at = queue.pop()
        total += 1
        match at:
            case Select(operand, _, _):
                queue.append(operand)
            case Call(_, arguments):
                queue.extend(arguments)
            case ListOf(items):
                queue.extend(items)
            case MapOf(entries):
                queue.extend(part for entry in entries for part in entry)
            case Fold():
                queue.extend((at.range, at.start, at.condition, at.step, at.result))
    return total


def _node(data: bytes, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise Invalid(f"expected a CEL expression of at most {MAX_DEPTH} levels")
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        match number:
            case 3:
                return Literal(_constant(value))
            case 4:
                return Name(_text(value, 1))
            case 5:
                return _select(value, depth)
            case 6:
                return _call(value, depth)
            case 7:
                return _list(value, depth)
            case 8:
                return _map(value, depth)
            case 9:
                return _fold(value, depth)
    raise Invalid("expected a CEL expression, got an empty one")


def _select(data: bytes, depth: int) -> Select:
    operand = field = b""
    test = False
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            operand = value
        elif number == 2 and isinstance(value, bytes):
            field = value
        elif number == 3:
            test = bool(value)
    return Select(_node(operand, depth + 1), field.decode("utf-8"), test)


def _call(data: bytes, depth: int) -> Call:
    name = ""
    receiver: list[Node] = []
    arguments: list[Node] = []
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            receiver = [_node(value, depth + 1)]
        elif number == 2:
            name = value.decode("utf-8")
        elif number == 3:
            arguments.append(_node(value, depth + 1))
    return Call(name, (*receiver, *arguments))


def _list(data: bytes, depth: int) -> ListOf:
    items: list[Node] = []
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            items.append(_node(value, depth + 1))
        elif number == 2:
            raise Invalid("optional list elements are not offered")
    return ListOf(tuple(items))


def _map(data: bytes, depth: int) -> MapOf:
    entries: list[tuple[Node, Node]] = []
    for number, value in _fields(data):
        if number == 1:
            raise Invalid("message literals are not offered")
        if number != 2 or not isinstance(value, bytes):
            continue
        key = content = b""
        for inner, part in _fields(value):
            if inner == 3 and isinstance(part, bytes):
                key = part
            elif inner == 4 and isinstance(part, bytes):
                content = part
            elif inner == 5:
                raise Invalid("optional map entries are not offered")
        entries.append((_node(key, depth + 1), _node(content, depth + 1)))
    return MapOf(tuple(entries))


def _fold(data: bytes, depth: int) -> Fold:
    parts: dict[int, bytes] = {number: value for number, value in _fields(data) if isinstance(value, bytes)}
    if parts.get(8):
        raise Invalid("macros with two variables are not offered")
    inner = [_node(parts.get(number, b""), depth + 1) for number in (2, 4, 5, 6, 7)]
    return Fold(parts.get(1, b"").decode("utf-8"), inner[0], parts.get(3, b"").decode("utf-8"), *inner[1:])


def _constant(data: bytes) -> Value:
    for number, value in _fields(data):
        if isinstance(value, int):
            match number:
                case 1:
                    return None
                case 2:
                    return bool(value)
                case 3:
                    return value - (1 << 64) if value >> 63 else value
                case 4:
                    return Uint(value)
        elif number == 5:
            return float(struct.unpack("<d", value)[0])
        elif number == 6:
            return value.decode("utf-8")
        elif number == 7:
            return value
    raise Invalid("this kind of CEL constant is not offered")


def _text(data: bytes, wanted: int) -> str:
    return next((v.decode("utf-8") for n, v in _fields(data) if n == wanted and isinstance(v, bytes)), "")


def _fields(data: bytes) -> Iterator[tuple[int, _Field]]:
    """Yield the fields of a protobuf message: varints as int, everything else as its bytes."""
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = _varint(data, at)
            match tag & 7:
                case 0:
                    number, at = _varint(data, at)
                    yield tag >> 3, number
                case 1:
                    yield tag >> 3, data[at : at + 8]
                    at += 8
                case 2:
                    length, at = _varint(data, at)
                    yield tag >> 3, data[at : at + length]
                    at += length
                case 5:
                    yield tag >> 3, data[at : at + 4]
                    at += 4
                case kind:
                    raise Invalid(f"expected a serialized expression, got wire type {kind}")
    except IndexError as error:
        raise Invalid("expected a serialized expression, got one that is cut short") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
        shift += 7
