r"""The scanner: finds what the detectors look for in a text that comes in pieces, holding back only what it must.

Text passes as soon as no finding can begin in it any more. What can still become one is its *live end*: the longest
suffix that some shape may begin as (`pattern.Pattern.beginnings`), or the value behind the name of a secret. Findings
are taken from left to right, where two begin at one place the first by the detectors' order; none that begins in the
live end is decided before more text or the end has come. So how a text is cut changes nothing:
`filter(pieces) == filter(whole)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import re2

from wharfinger.inference import detectors
from wharfinger.inference.detectors import FAMILIES, Family, Shape

_CONTEXT: Final = detectors.NAME_MOST + detectors.GLUE_MOST + 16
"""How much passed text is remembered, in bytes: what a name before a value may need."""
_TRIM: Final = 4096
_UNTIL_MOST: Final = 16 * 1024
"""How much an `until` may swallow, in bytes."""
_UNTIL_TAIL: Final = 96
NAMED: Final = "named-secret"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found: what, of which family, and where, in characters."""

    detector: str
    family: Family
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Hit:
    """A finding in a buffer, in bytes; `grow` and `until` say what else belongs to it."""

    name: str
    family: Family
    start: int
    end: int
    grow: frozenset[int] = frozenset()
    until: Any = None


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A shape and its expression, whose group 1 is the finding."""

    shape: Shape
    expression: Any
    until: Any


class _Beginnings:
    """What some shapes may begin as.

    Asked forwards, from one place after the other: an automaton over all suffixes at once would meet a new set of
    states with every byte of a random-looking text.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self._longest = max((shape.pattern.longest for shape in shapes), default=0)
        self._first = re.compile(_class_of(frozenset().union(*(shape.pattern.first for shape in shapes))))
        self._live = _compile("(?:" + "|".join(s.before + s.pattern.beginnings for s in shapes) + r")\z")

    def live_from(self, buffer: bytes, at: int, otherwise: int) -> int:
        """Return the first place from `at` on whose rest of `buffer` is a beginning, else `otherwise`, if nearer."""
        at = max(at, len(buffer) - self._longest)
        while (found := self._first.search(buffer, at, otherwise)) is not None:
            at = found.start()
            if self._live.match(buffer, at - 1) is not None:
                return at
            at += 1
        return otherwise


class Scanner:
    """The detectors of some families, compiled. Immutable: all streams share one."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.families: tuple[Family, ...] = tuple(sorted(families))
        shapes = [shape for family in self.families for shape in FAMILIES[family]]
        self._named = "secrets" in self.families
        self._by_first: dict[int, list[_Compiled]] = {}
        for shape in shapes:
            compiled = _Compiled(shape, _compile(_expression(shape)), _compile(shape.until) if shape.until else None)
            for byte in shape.pattern.first:
                self._by_first.setdefault(byte, []).append(compiled)
        self._any = _compile("|".join(_expression(shape, group=False) for shape in shapes))
        self._spanning = _Beginnings([shape for shape in shapes if shape.pattern.spans_blanks])
        self._compact = _Beginnings([shape for shape in shapes if not shape.pattern.spans_blanks])

    def find(self, text: str) -> list[Finding]:
        """Return the findings in a whole `text`, in order."""
        stream = StreamFilter(self)
        stream.feed(text, final=True)
        return stream.findings

    def live_from(self, buffer: bytes, at: int) -> int:
        """Return where the live end of `buffer` begins, at `at` or later."""
        blank = max(map(buffer.rfind, _BLANKS))
        live = self._spanning.live_from(buffer, at, len(buffer))
        live = self._compact.live_from(buffer, max(at, blank + 1), live)
        return min(live, self._named_live_from(buffer, at)) if self._named else live

    def next_shape(self, buffer: bytes, at: int, live: int) -> _Hit | None:
        """Return the first finding by shape that begins at `at` or later and before `live`."""
        while True:
            match = self._any.search(buffer, at - 1)
            if match is None or match.start() + 1 >= live:
                return None
            start = match.start() + 1
            for compiled in self._by_first.get(buffer[start], ()):
                hit = _try(compiled, buffer, start)
                if hit is not None and hit.start >= at:
                    return hit
            at = start + 1

    def next_named(self, buffer: bytes, at: int, live: int) -> _Hit | None:
        """Return the first value behind a secret's name that begins at `at` or later and before `live`."""
        if not self._named:
            return None
        lead = max(0, at - detectors.GLUE_MOST - 12)
        while (match := _LEAD.search(buffer, lead)) is not None:
            start, end = match.span(1)
            if start >= live:
                return None
            lead = match.start() + 1
            if start < at or not _is_named(buffer, match.start()):
                continue
            value = buffer[start:end].decode("latin-1")
            length = detectors.unguessable(value.rstrip(_PUNCTUATION))
            if length:
                whole = end - start == detectors.VALUE_MOST
                return _Hit(
                    NAMED, "secrets", start, end if whole else start + length, _VALUE_BYTES if whole else frozenset()
                )
        return None

    def _named_live_from(self, buffer: bytes, at: int) -> int:
        lead = max(0, at - detectors.GLUE_MOST - 12)
        while (match := _LEAD_LIVE.search(buffer, lead)) is not None:
            start: int = match.start(1)
            if start >= at and _is_named(buffer, match.start()):
                return start
            lead = match.start() + 1
        return len(buffer)


class StreamFilter:
    """Masks one channel of one answer as it comes: `feed` pieces, then `finish`.

    `findings` are what was found, with offsets in the text as it came in. A finding of a family in `denied` is not
    masked but ends the text: `stopped` is its name from then on, and nothing more comes out.
    """

    def __init__(self, scanner: Scanner, denied: Iterable[Family] = ()) -> None:
        self._scanner = scanner
        self._denied = frozenset(denied)
        self._buffer = b"\n"
        self._at = 1
        self._passed = 0
        self._hit: _Hit | None = None
        self._swallowed = 0
        self.findings: list[Finding] = []
        self.stopped = ""

    @property
    def held(self) -> int:
        """Return how many bytes wait."""
        return 0 if self.stopped else len(self._buffer) - self._at

    def feed(self, text: str, *, final: bool = False) -> str:
        """Take a piece; return what may go out now. With `final` it is the last, and all that is left goes out."""
        if self.stopped or not (text or final):
            return ""
        self._buffer += text.encode("utf-8", "surrogatepass")
        passed = b"".join(self._advance(final=final))
        self._trim()
        return passed.decode("utf-8", "surrogatepass")

    def finish(self) -> str:
        """Return the rest, at the end of the text."""
        return self.feed("", final=True)

    def _advance(self, *, final: bool) -> list[bytes]:
        passed: list[bytes] = []
        shape: _Hit | None = None
        named: _Hit | None = None
        fresh = True
        while not self.stopped:
            if self._hit is not None and not self._swallow(final=final):
                break
            buffer, at = self._buffer, self._at
            live = len(buffer) if final else self._scanner.live_from(buffer, at)
            if fresh or (shape is not None and shape.start < at):
                shape = self._scanner.next_shape(buffer, at, live)
            if fresh or (named is not None and named.start < at):
                named = self._scanner.next_named(buffer, at, live)
            fresh = False
            hits = [hit for hit in (shape, named) if hit is not None and hit.start < live]
            hit = min(hits, key=lambda one: one.start, default=None)
            if hit is None:
                passed.append(buffer[at:live])
                self._move(live)
                break
            passed.append(buffer[at : hit.start])
            self._move(hit.start)
            begin = self._passed
            self._move(hit.end)
            self.findings.append(Finding(hit.name, hit.family, begin, self._passed))
            if hit.family in self._denied:
                self.stopped = hit.name
            else:
                passed.append(b"[" + hit.name.encode() + b"]")
            self._hit = hit if hit.grow or hit.until is not None else None
            self._swallowed = 0
        return passed

    def _swallow(self, *, final: bool) -> bool:
        """Take in what else belongs to the finding; return whether that is over."""
        assert self._hit is not None
        buffer, at = self._buffer, self._at
        if self._hit.until is None:
            end, grow = at, self._hit.grow
            while end < len(buffer) and buffer[end] in grow:
                end += 1
            over = end < len(buffer) or final
        else:
            bound = at + _UNTIL_MOST - self._swallowed
            start, stop = max(0, at - _UNTIL_TAIL), min(len(buffer), bound)
            while (match := self._hit.until.search(buffer, start, stop)) is not None and match.end() <= at:
                start = match.start() + 1  # an end that stands before the beginning
            end = match.end() if match is not None else min(len(buffer), bound)
            while end < len(buffer) and buffer[end] & 0xC0 == 0x80:  # never within a character
                end += 1
            over = match is not None or end >= bound or final
            self._swallowed += end - at
        self._move(end)
        last = self.findings[-1]
        self.findings[-1] = Finding(last.detector, last.family, last.start, self._passed)
        if over:
            self._hit = None
        return over

    def _move(self, to: int) -> None:
        """Pass on to byte `to`, counting characters."""
        assert to >= self._at, "a scan goes forward"
        span = self._buffer[self._at : to]
        self._passed += len(span) if span.isascii() else len(span.decode("utf-8", "surrogatepass"))
        self._at = to

    def _trim(self) -> None:
        if self._at > _TRIM:
            cut = self._at - _CONTEXT
            self._buffer, self._at = self._buffer[cut:], _CONTEXT


def _try(compiled: _Compiled, buffer: bytes, start: int) -> _Hit | None:
    match = compiled.expression.match(buffer, start - 1)
    if match is None:
        return None
    shape = compiled.shape
    begin, end = match.span(1)
    accepted = shape.check(buffer[begin:end].decode("latin-1"))
    if not accepted:
        return None
    head, tail = shape.keep
    return _Hit(
        shape.name,
        shape.family,
        begin + head,
        begin + accepted - tail,
        shape.pattern.last if shape.grows and not shape.until else frozenset(),
        compiled.until,
    )


def _is_named(buffer: bytes, separator: int) -> bool:
    """Say whether a secret's name stands before the separator at `separator`."""
    match = _NAME.search(buffer[max(0, separator - detectors.NAME_MOST) : separator])
    if match is None or detectors.NOT_A_SECRETS_NAME.search(match.group(1).decode("latin-1")):
        return False
    return buffer[separator] != ord(",") or bool(match.group(2))


def _expression(shape: Shape, *, group: bool = True) -> str:
    value = f"({shape.pattern.whole})" if group else shape.pattern.whole
    return f"{shape.before}{value}" + (rf"(?:{shape.after}|\z)" if shape.after else "")


def _class_of(found: frozenset[int]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(found)) + b"]" if found else b"(?!)"


def _compile(expression: str) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 64 << 20
    options.log_errors = False
    return re2.compile(expression.encode("ascii"), options)


_BLANKS: Final = (b" ", b"\n", b"\t", b"\r")
_PUNCTUATION: Final = ".,:;!?*"
_VALUE_BYTES: Final = frozenset(byte for byte in range(256) if _compile(detectors.VALUE).match(bytes([byte])))
_NAME: Final = _compile(detectors.NAME)
_PRELUDE: Final = f"{detectors.SEPARATOR}{detectors.GLUE}{{0,{detectors.GLUE_MOST}}}{detectors.SCHEME}"
_LEAD: Final = _compile(
    f"{_PRELUDE}({detectors.VALUE_FIRST}{detectors.VALUE}{{{detectors.VALUE_LEAST - 1},{detectors.VALUE_MOST - 1}}})"
)
_LEAD_LIVE: Final = _compile(f"{_PRELUDE}({detectors.VALUE_FIRST}{detectors.VALUE}{{0,{detectors.VALUE_MOST - 2}}})\\z")
