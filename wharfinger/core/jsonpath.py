r"""JSONPath templates, as kubectl and printer columns read them.

Kubernetes' dialect, which is not RFC 9535: a template is text with actions in braces,
`{range .items[*]}{.metadata.name}{"\\t"}{end}`; `$` and `@` both mean the current object, `[?(@.a=="x")]`
filters, `['a','b']` and `[0,2]` are unions, `\\.` is a dot within a name (k8s.io/client-go, util/jsonpath).

A template is parsed once and then asked of many objects. `find` gives values, `render` text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from wharfinger.core import printed
from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt

LONGEST_TEXT: Final = 16 * 1024
"""Characters of a template."""
DEEPEST_RANGE: Final = 50
"""Ranges within ranges."""
MOST_RESULTS: Final = 100_000
"""Values that one step may give: `..` and `*` in a row multiply."""

_SLICE: Final = re.compile(r"(-?[0-9]*)(:-?[0-9]*)?(:-?[0-9]*)?", re.ASCII)
_QUOTED_NAME: Final = re.compile(r"'([^']*)'")
_COMPARISON: Final = re.compile(r"([^!<>=]+)([!<>=]+)(.+)", re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?[0-9.]*", re.ASCII)
_ESCAPE: Final = re.compile(
    r"""\\(?:([abfnrtv\\'"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.?)""", re.DOTALL
)
_PLAIN_ESCAPES: Final = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))
_TERMINATORS: Final = frozenset(" \t\r\n.,[]$@{}")
_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Step(Protocol):
    """One step of a path: from the current values to the next."""

    def walk(self, values: list[Json], lenient: bool) -> list[Json]:
        """Return what the step finds; `lenient` lets a missing field be nothing, else it is `Malformed`."""
        ...


@dataclass(frozen=True, slots=True)
class Literal:
    """Text, number or truth value written in the template; stands for itself."""

    value: Json

    def walk(self, values: list[Json], lenient: bool) -> list[Json]:
        """Return the literal, whatever came."""
        return [self.value] if isinstance(self.value, str) else [self.value] * len(values)


@dataclass(frozen=True, slots=True)
class Name:
    """`.name`: a field of an object."""

    name: str

    def walk(self, values: list[Json], lenient: bool) -> list[Json]:
        """Return the field of each object that has it."""
        name = self.name
        found = [value[name] for value in values if isinstance(value, dict) and name in value]
        if not found and values and not lenient:
            raise Malformed(f"{excerpt(name)} is not found")
        return found


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`.*` or `[*]` of objects: every child."""

    def walk(self, values: list[Json], lenient: bool) -> list[Json]:
        """Return the children of objects and lists."""
        return _bounded(child for value in values for child in _children(value))


@dataclass(frozen=True, slots=True)
class Descent:
    """`..`: every value that has children, at any depth."""

    def walk(self, values: list[Json], lenient: bool) -> list[Json]:
        """Return the objects and lists in and below `values`, in document order."""
        return _bounded(inner for value in values for inner in _descend(value))


@dataclass(frozen=True, slots=True)
class Slice:
    """`[start:end:step]`; an index alone is a slice of one."""

    start: int | None
    end: int | None
    step: int | None
    single: bool

    def walk(self, values: list[Json], lenient: bool) -> list[Json]:
        """Return the items; an index out of bounds is `Malformed` even when lenient."""
        found: list[Json] = []
        for value in values:
            if value is None:
                continue
            if not isinstance(value, list):
                raise Malformed(f"expected a list to index, got {_kind(value)}")
            start, end = self._bounds(len(value))
            if start == end:
                return found
            self._check(start, end, len(value))
            found.extend(value[start : end : self.step or 1])
        return found

    def _bounds(self, length: int) -> tuple[int, int]:
        start = self.start or 0
        end = start + 1 if self.single else length if self.end is None else self.end
        if start < 0:
            start += length
        if end < 0 or (end == 0 and self.single):
            end += length
        return start, end

    def _check(self, start: int, end: int, length: int) -> None:
        if not 0 <= start < length:
            raise Malformed(f"array index out of bounds: index {start}, length {length}")
        if not 0 <= end <= length:
            raise Malformed(f"array index out of bounds: index {end - 1}, length {length}")
        if start > end:
            raise Malformed(f"starting index {start} is greater than ending index {end}")
        if self.step is not None and self.step <= 0:
            raise Malformed(f"expected a step above 0, got {self.step}")


Path: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """`[a,b]`: what each of several paths finds, one after the other."""

    paths: tuple[Path, ...]

    def walk(self, values: list[Json], lenient: bool) -> list[Json]:
        """Return the results of all paths."""
        return _bounded(value for path in self.paths for value in _walk(path, values, lenient))


@dataclass(frozen=True, slots=True)
class Filter:
    """`[?(left op right)]` or `[?(left)]`: the items of a list for which it holds."""

    left: Path
    comparison: str
    right: Path

    def walk(self, values: list[Json], lenient: bool) -> list[Json]:
        """Return the items that pass."""
        found: list[Json] = []
        for value in values:
            if not isinstance(value, list):
                raise Malformed(f"expected a list to filter, got {_kind(value)}")
            found.extend(item for item in value if self._passes(item, lenient))
        return found

    def _passes(self, item: Json, lenient: bool) -> bool:
        if not self.comparison:
            try:
                return bool(_walk(self.left, [item], lenient))
            except Malformed:
                return False
        lefts = _walk(self.left, [item], lenient)
        rights = _walk(self.right, [item], lenient) if lefts else []
        if len(lefts) > 1 or len(rights) > 1:
            raise Malformed("can only compare one element at a time")
        return bool(rights) and _compare(lefts[0], self.comparison, rights[0])


@dataclass(frozen=True, slots=True)
class Range:
    """`{range path}...{end}`: the parts between, once for each value of the path."""

    path: Path
    body: list[Part] = field(default_factory=list)


Part: TypeAlias = Path | Range


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    parts: tuple[Part, ...]

    def find(self, value: Json, *, lenient: bool = True) -> list[list[Json]]:
        """Return what each text and action of the template finds in `value`.

        `lenient` (as kubectl and printer columns are) lets a missing field be nothing. Raises `Malformed`
        where the path does not fit the value: an index out of bounds, a filter on what is no list, a
        comparison of different types, and unless lenient a missing field.
        """
        return _find(self.parts, value, lenient)

    def first(self, value: Json) -> tuple[bool, Json]:
        """Return whether the first action finds something in `value` that fits, and the first of it."""
        try:
            results = self.find(value)
        except Malformed:
            return False, None
        return (True, results[0][0]) if results and results[0] else (False, None)

    def render(self, value: Json, *, lenient: bool = True) -> str:
        """Return the template filled in from `value`; several results of an action are parted by blanks.

        Raises `Malformed` as `find` does.
        """
        results = self.find(value, lenient=lenient)
        return "".join(" ".join(map(printed.text, found)) for found in results)


def parse(text: str) -> Template:
    """Return the template that `text` spells. Raises `Malformed`."""
    if len(text) > LONGEST_TEXT:
        raise Malformed(f"expected a template of at most {LONGEST_TEXT} characters, got {len(text)}")
    return Template(tuple(_Parser(text).template()))


class _Parser:
    """Reads a template from left to right; one method a form."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def template(self) -> list[Part]:
        """Read texts and actions; `{range}` opens a nested list, `{end}` closes it."""
        top: list[Part] = []
        open_lists = [top]
        while self._at < len(self._text):
            brace = self._text.find("{", self._at)
            end = brace if brace >= 0 else len(self._text)
            if end > self._at:
                open_lists[-1].append((Literal(self._text[self._at : end]),))
            self._at = end + 1
            if brace < 0:
                break
            keyword, path = self.action()
            if keyword == "range":
                nested = Range(path)
                open_lists[-1].append(nested)
                open_lists.append(nested.body)
                if len(open_lists) > DEEPEST_RANGE:
                    raise Malformed(f"expected at most {DEEPEST_RANGE} ranges within each other")
            elif keyword == "end":
                if len(open_lists) == 1:
                    raise Malformed("not in range, nothing to end")
                open_lists.pop()
            else:
                open_lists[-1].append(path)
        return top

    def action(self) -> tuple[str, Path]:
        """Read up to the closing brace; return the keyword (`range`, `end`, or none) and the path."""
        keyword = ""
        path: list[Step] = []
        while True:
            if self._text.startswith("[?(", self._at):
                path.append(self._filter())
                continue
            if self._text.startswith("..", self._at):
                path.extend(self._descent(path))
                continue
            char = self._take()
            if char == "}":
                return keyword, tuple(path)
            if char in "\r\n" or not char:
                raise Malformed(f"unclosed action in the template {excerpt(self._text)}")
            if char in " @$":
                continue
            if char == "[":
                path.extend(self._brackets())
            elif char in "\"'":
                path.append(self._quote(char))
            elif char == ".":
                path.append(self._name())
            elif char in "+-" or char.isdecimal():
                path.append(self._number())
            elif char == "_" or char.isalpha():
                word = self._word()
                if word in {"true", "false"}:
                    path.append(Literal(word == "true"))
                elif word in {"range", "end"}:
                    keyword = word
                else:
                    raise Malformed(f"unrecognized identifier {excerpt(word)}")
            else:
                raise Malformed(f"unrecognized character in action: {excerpt(char)}")

    def _take(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        return char

    def _word(self) -> str:
        start = self._at - 1
        while self._at < len(self._text) and self._text[self._at] not in _TERMINATORS:
            self._at += 1
        return self._text[start : self._at]

    def _name(self) -> Step:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in _TERMINATORS:
            self._at += 2 if self._text[self._at] == "\\" else 1
        name = self._text[start : self._at]
        return Wildcard() if name == "*" else Name(name.replace("\\", ""))

    def _descent(self, path: list[Step]) -> list[Step]:
        if path and isinstance(path[-1], Descent):
            raise Malformed("invalid multiple recursive descent")
        self._at += 2
        char = self._text[self._at : self._at + 1]
        return [Descent(), self._name()] if char == "_" or char.isalnum() else [Descent()]

    def _number(self) -> Step:
        self._at -= 1
        match = _NUMBER.match(self._text, self._at)
        digits = match[0] if match else ""
        self._at += max(len(digits), 1)
        try:
            return Literal(float(digits) if "." in digits else int(digits[:20]))
        except ValueError as error:
            raise Malformed(f"cannot parse number {excerpt(digits)}") from error

    def _quote(self, mark: str) -> Step:
        start = self._at
        while True:
            char = self._take()
            if not char or char == "\n":
                raise Malformed("unterminated quoted string")
            if char == mark and self._text[self._at - 2] != "\\":
                return Literal(_unquoted(self._text[start : self._at - 1]))

    def _brackets(self) -> Iterable[Step]:
        end = self._text.find("]", self._at)
        inner = self._text[self._at : end]
        if end < 0 or "\n" in inner:
            raise Malformed("unterminated array")
        self._at = end + 1
        return _index(inner)

    def _filter(self) -> Step:
        self._at += 3
        start = self._at
        mark, closed = "", False
        while True:
            char = self._take()
            if not char or char == "\n":
                raise Malformed("unterminated filter")
            if char in "\"'":
                if not mark:
                    mark = char
                elif char == mark and self._text[self._at - 2] != "\\":
                    closed = True
            elif char == ")" and bool(mark) == closed:
                break
        inner = self._text[start : self._at - 1]
        if self._take() != "]":
            raise Malformed("unclosed array expect ]")
        match = _COMPARISON.fullmatch(inner)
        if match is None:
            return Filter(_path(inner), "", ())
        left, comparison, right = match.groups()
        if comparison not in _OPERATORS:
            raise Malformed(f"unrecognized filter operator {excerpt(comparison)}")
        return Filter(_path(left), comparison, _path(right))


def _path(text: str) -> Path:
    keyword, path = _Parser(text + "}").action()
    if keyword:
        raise Malformed(f"expected a path, got the keyword {keyword}")
    return path


def _index(inner: str) -> Iterable[Step]:
    """Return the steps of what stands in brackets: a union, a quoted name, an index or a slice."""
    parts = (":" if inner == "*" else inner).split(",")
    if len(parts) > 1:
        return [Union(tuple(tuple(_index(part.strip(" "))) for part in parts))]
    match = _QUOTED_NAME.fullmatch(parts[0])
    if match is not None:
        return _path("." + match[1])
    match = _SLICE.fullmatch(parts[0])
    if match is None:
        raise Malformed(f"invalid array index {excerpt(inner)}")
    numbers: list[int | None] = []
    for group in match.groups():
        digits = (group or "").removeprefix(":")
        if digits == "-" or len(digits) > 19:
            raise Malformed(f"array index {excerpt(digits)} is not a number")
        numbers.append(int(digits) if digits else None)
    return [Slice(numbers[0], numbers[1], numbers[2], single=match[2] is None)]


def _unquoted(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        simple, octal, *hexes = match.groups()
        if simple:
            return _PLAIN_ESCAPES[simple]
        code = int(octal, 8) if octal else next((int(digits, 16) for digits in hexes if digits), -1)
        if not 0 <= code < 0x110000 or 0xD800 <= code < 0xE000:
            raise Malformed(f"expected a known escape in a quoted string, got {excerpt(match[0])}")
        return chr(code)

    return _ESCAPE.sub(plain, text) if "\\" in text else text


def _find(parts: Sequence[Part], value: Json, lenient: bool) -> list[list[Json]]:
    results: list[list[Json]] = []
    for part in parts:
        if isinstance(part, Range):
            for each in _walk(part.path, [value], lenient):
                results.extend(_find(part.body, each, lenient))
                if len(results) > MOST_RESULTS:
                    raise Malformed(f"expected at most {MOST_RESULTS} results of a template")
        else:
            results.append(_walk(part, [value], lenient))
    return results


def _walk(path: Path, values: list[Json], lenient: bool) -> list[Json]:
    for step in path:
        values = step.walk(values, lenient)
    return values


def _bounded(values: Iterable[Json]) -> list[Json]:
    found: list[Json] = []
    for value in values:
        found.append(value)
        if len(found) > MOST_RESULTS:
            raise Malformed(f"expected at most {MOST_RESULTS} results of a step")
    return found


def _children(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _descend(value: Json) -> Iterable[Json]:
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        children = list(_children(inner))
        if children:
            yield inner
            waiting.extend(reversed(children))


def _compare(left: Json, comparison: str, right: Json) -> bool:
    comparable = type(left) is type(right) or (_is_number(left) and _is_number(right))
    if not comparable or left is None or isinstance(left, dict | list):
        raise Malformed(f"incompatible types for comparison: {_kind(left)} and {_kind(right)}")
    if isinstance(left, bool) and comparison not in {"==", "!="}:
        raise Malformed("expected numbers or texts to compare by order, got booleans")
    return _OPERATORS[comparison](left, right)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Json) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
