"""CEL values: what an expression computes with, how values compare and add up.

CEL's int, uint, double, string, bytes, bool, null, list and map are Python's own (uint is `Uint`); Kubernetes'
quantities are `core.quantity.Quantity`, semantic versions `Semver`. An error in an evaluation is a `Fault`;
running out of work is `Exhausted`, which nothing in the language can catch. (cel-spec, doc/langdef.md.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering
from typing import Any, Final, TypeAlias

from wharfinger.core.quantity import Quantity

Value: TypeAlias = Any
"""None, bool, int, Uint, float, str, bytes, list, dict, Quantity, Semver or TypeName."""

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
UINT_MAX: Final = 2**64 - 1


class Fault(Exception):
    """An evaluation went wrong: a missing key, an overflow, a value of the wrong type."""


class Exhausted(Exception):
    """The evaluation has used up the work that it was given."""


class Uint(int):
    """An unsigned 64-bit integer, which is another type than int."""

    __slots__ = ()


class TypeName(str):
    """A type as a value: what `type(1)` gives."""

    __slots__ = ()


class Domains(dict[str, Value]):
    """A map in which a missing key is an empty map when it is looked up, though not when it is asked for by `in`."""

    __slots__ = ()


class _BoolKey:
    """A boolean as a map key; Python's own would be equal to 0 and 1."""

    __slots__ = ("value",)

    def __init__(self, value: bool) -> None:
        self.value = value


_BOOL_KEYS: Final = {False: _BoolKey(False), True: _BoolKey(True)}


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Semver:
    """A semantic version (semver.org 2.0.0). Build metadata takes no part in comparison."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()

    def _key(self) -> tuple[Any, ...]:
        # A pre-release comes before its release; numbers before words.
        parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre)
        return (self.major, self.minor, self.patch, not self.pre, parts)

    def __eq__(self, other: object) -> bool:
        """Compare by precedence."""
        return isinstance(other, Semver) and self._key() == other._key()

    def __lt__(self, other: Semver) -> bool:
        """Compare by precedence."""
        return self._key() < other._key()

    def __hash__(self) -> int:
        """Hash by precedence."""
        return hash(self._key())


_NUMBER: Final = r"(0|[1-9][0-9]{0,19})"
_SEMVER: Final = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    r"(?:-((?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


def parse_semver(text: str, *, normalize: bool = False) -> Semver:
    """Return the version in `text`; with `normalize`, also of `v1`, `1.2` and `01.2.3`. Raises `Fault`."""
    match = _SEMVER.fullmatch(_normalized(text) if normalize else text) if len(text) <= 1024 else None
    if match is None:
        raise Fault(f"expected a semantic version, got {text[:60]!r}")
    major, minor, patch = (int(match[i]) for i in (1, 2, 3))
    if max(major, minor, patch) > UINT_MAX:
        raise Fault(f"expected a semantic version of 64-bit numbers, got {text[:60]!r}")
    return Semver(major, minor, patch, tuple(match[4].split(".")) if match[4] else ())


def _normalized(text: str) -> str:
    core = text.removeprefix("v")
    end = min((i for i in (core.find("-"), core.find("+")) if i >= 0), default=len(core))
    numbers = core[:end].split(".")
    if len(numbers) < 3:
        # Only a bare version may be short: the upstream reading of `1-alpha` is an error.
        if end < len(core):
            return text
        numbers += ["0"] * (3 - len(numbers))
    return ".".join((n.lstrip("0") or "0") if n.isdigit() else n for n in numbers) + core[end:]


_TYPES: Final[dict[type, str]] = {
    type(None): "null_type", bool: "bool", int: "int", Uint: "uint", float: "double", str: "string", bytes: "bytes",
    list: "list", tuple: "list", dict: "map", Domains: "map", TypeName: "type",
    Quantity: "kubernetes.Quantity", Semver: "kubernetes.Semver",
}  # fmt: skip


def type_of(value: Value) -> TypeName:
    """Return the CEL type of `value`. Raises `Fault` for what is no CEL value."""
    name = _TYPES.get(type(value))
    if name is None:
        raise Fault(f"expected a CEL value, got {type(value).__name__}")
    return TypeName(name)


def no_overload(function: str, *values: Value) -> Fault:
    """Return the fault of a function that is not defined for these values."""
    return Fault(f"no such overload: {function}({', '.join(type_of(value) for value in values)})")


class Meter:
    """What is left of the work that an evaluation may do."""

    __slots__ = ("left",)

    def __init__(self, budget: int) -> None:
        self.left = budget

    def charge(self, work: int) -> None:
        """Take `work` units. Raises `Exhausted`."""
        self.left -= work
        if self.left < 0:
            raise Exhausted


def equal(meter: Meter, a: Value, b: Value) -> bool:
    """CEL's `==`: numbers compare across their types, values of different kinds are not equal."""
    kind, other = type(a), type(b)
    if kind is str or other is str:
        meter.charge(1 + min(len(a), len(b)) // 10 if kind is other else 1)
        return bool(kind is other and a == b)
    if kind is bool or other is bool or a is None or b is None:
        return bool(kind is other and a == b)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        meter.charge(len(a) + 1)
        return len(a) == len(b) and all(equal(meter, x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        meter.charge(len(a) + 1)
        return len(a) == len(b) and all(key in b and equal(meter, value, b[key]) for key, value in a.items())
    if kind is bytes and other is bytes:
        meter.charge(1 + len(a) // 10)
    type_of(a), type_of(b)
    return bool(kind is other and a == b)


def compare(function: str, a: Value, b: Value) -> int:
    """Return -1, 0 or 1 for ordered values; 2 where a NaN has no order. Raises `Fault` for values without order."""
    kind, other = type(a), type(b)
    numbers = isinstance(a, int | float) and isinstance(b, int | float) and bool not in (kind, other)
    if numbers or (kind is other and kind in (str, bytes, bool)):
        if float in (kind, other) and numbers:
            # The specification orders int and double as doubles, rounding included.
            a, b = float(a), float(b)
        if a < b:
            return -1
        return 1 if a > b else 0 if a == b else 2
    raise no_overload(function, a, b)


def checked_int(value: int) -> int:
    """Return `value` if it is a 64-bit integer. Raises `Fault`."""
    if not INT_MIN <= value <= INT_MAX:
        raise Fault("integer overflow")
    return value


def checked_uint(value: int) -> Uint:
    """Return `value` if it is an unsigned 64-bit integer. Raises `Fault`."""
    if not 0 <= value <= UINT_MAX:
        raise Fault("unsigned integer overflow")
    return Uint(value)


def arithmetic(meter: Meter, operator: str, a: Value, b: Value) -> Value:
    """`_+_`, `_-_`, `_*_`, `_/_`, `_%_` over numbers, and `_+_` over strings, bytes and lists. Raises `Fault`."""
    kind = type(a)
    if kind is not type(b) and not (isinstance(a, list | tuple) and isinstance(b, list | tuple)):
        raise no_overload(operator, a, b)
    if kind is int:
        return checked_int(_integer(operator, a, b))
    if kind is Uint:
        return checked_uint(_integer(operator, int(a), int(b)))
    if kind is float and operator != "_%_":
        return _double(operator, a, b)
    if operator == "_+_":
        if kind is str or kind is bytes:
            meter.charge(1 + (len(a) + len(b)) // 10)
            return a + b
        if isinstance(a, list | tuple):
            meter.charge(1 + (len(a) + len(b)) // 10)
            return [*a, *b]
    raise no_overload(operator, a, b)


def _integer(operator: str, a: int, b: int) -> int:
    match operator:
        case "_+_":
            return a + b
        case "_-_":
            return a - b
        case "_*_":
            return a * b
    if b == 0:
        raise Fault("division by zero" if operator == "_/_" else "modulus by zero")
    # CEL rounds towards zero, Python towards minus infinity.
    quotient = abs(a) // abs(b)
    quotient = quotient if (a < 0) == (b < 0) else -quotient
    return quotient if operator == "_/_" else a - quotient * b


def _double(operator: str, a: float, b: float) -> float:
    match operator:
        case "_+_":
            return a + b
        case "_-_":
            return a - b
        case "_*_":
            return a * b
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


def make_map(entries: Iterable[tuple[Value, Value]]) -> dict[Any, Value]:
    """Return the map of `entries`. Raises `Fault` for a key that occurs twice or cannot be one."""
    made: dict[Any, Value] = {}
    for key, value in entries:
        kind = type(key)
        if kind not in (str, int, Uint, bool):
            raise Fault(f"expected a map key of type int, uint, bool or string, got {type_of(key)}")
        stored = _BOOL_KEYS[key] if kind is bool else key
        if stored in made:
            raise Fault("a key occurs twice in a map")
        made[stored] = value
    return made


_MISSING: Final = object()
_EMPTY: Final[dict[str, Value]] = {}


def _find(container: dict[Any, Value], key: Value) -> Value:
    kind = type(key)
    if kind is bool:
        key = _BOOL_KEYS[key]
    elif kind is float:
        if not key.is_integer():
            return _MISSING
        key = int(key)
    elif kind not in (str, int, Uint):
        raise no_overload("_[_]", container, key)
    return container.get(key, _MISSING)


def lookup(container: Value, key: Value) -> Value:
    """CEL's `container[key]` on a map or list. Raises `Fault`."""
    if isinstance(container, dict):
        value = _find(container, key)
        if value is _MISSING:
            if type(container) is Domains:
                return _EMPTY
            raise Fault(f"no such key: {str(key)[:60]}")
        return value
    if isinstance(container, list | tuple) and type(key) in (int, Uint, float):
        if type(key) is float and not key.is_integer():
            raise Fault("expected a whole number as list index")
        if not 0 <= key < len(container):
            raise Fault(f"index out of bounds: {key}")
        return container[int(key)]
    raise no_overload("_[_]", container, key)


def has_key(container: Value, key: Value) -> bool:
    """Say whether a map holds `key`. Raises `Fault` for what is no map."""
    if not isinstance(container, dict):
        raise Fault(f"expected a map, got {type_of(container)}")
    return _find(container, key) is not _MISSING


def contains(meter: Meter, element: Value, container: Value) -> bool:
    """CEL's `element in container` on a list or map. Raises `Fault`."""
    if isinstance(container, dict):
        return type(element) in (str, int, Uint, bool, float) and _find(container, element) is not _MISSING
    if isinstance(container, list | tuple):
        meter.charge(len(container))
        return any(equal(meter, element, item) for item in container)
    raise no_overload("@in", element, container)


def elements(container: Value) -> list[Value]:
    """Return what a macro walks: a list's items or a map's keys. Raises `Fault`."""
    if isinstance(container, dict):
        return [key.value if type(key) is _BoolKey else key for key in container]
    if isinstance(container, list | tuple):
        return list(container)
    raise Fault(f"got {type_of(container)!s}, expected iterable type")
