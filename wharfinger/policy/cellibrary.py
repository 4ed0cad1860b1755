"""CEL's functions: the standard ones, strings, and Kubernetes' quantity and semver.

Every function takes the meter and its arguments, the receiver of a method first; it raises `Fault` for
arguments that it is not defined for, and charges work that grows with their size. Kubernetes' libraries are
k8s.io/apiserver/pkg/cel/library. A function that is not in `FUNCTIONS` is refused when an expression is
compiled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import re2

from wharfinger.core.errors import Malformed
from wharfinger.core.quantity import Quantity
from wharfinger.policy.celvalues import (
    INT_MAX,
    INT_MIN,
    UINT_MAX,
    Fault,
    Meter,
    Semver,
    TypeName,
    Uint,
    Value,
    checked_int,
    checked_uint,
    no_overload,
    parse_semver,
    type_of,
)

Function = Callable[..., Value]
_PATTERN_LIMIT: Final = 1000
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)
_UNSIGNED: Final = re.compile(r"[0-9]{1,40}", re.ASCII)
_DOUBLE: Final = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf(inity)?|nan)", re.ASCII | re.I
)
_TRUTHS: Final = {
    **dict.fromkeys(("1", "t", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "false", "FALSE", "False"), False),
}


def _strings(function: str, *values: Value) -> None:
    if any(type(value) is not str for value in values):
        raise no_overload(function, *values)


def _ints(function: str, *values: Value) -> None:
    if any(type(value) is not int for value in values):
        raise no_overload(function, *values)


def _size(meter: Meter, value: Value) -> Value:
    if isinstance(value, TypeName) or not isinstance(value, str | bytes | list | tuple | dict):
        raise no_overload("size", value)
    return len(value)


@lru_cache(maxsize=256)
def _pattern(text: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(text, options)


def _matches(meter: Meter, text: Value, pattern: Value) -> Value:
    _strings("matches", text, pattern)
    if len(pattern) > _PATTERN_LIMIT:
        raise Fault(f"expected a pattern of at most {_PATTERN_LIMIT} characters, got {len(pattern)}")
    meter.charge(1 + (len(text) // 10 + 1) * (len(pattern) // 4 + 1))
    try:
        return _pattern(pattern).search(text) is not None
    except (re2.error, UnicodeEncodeError) as error:
        raise Fault("expected a pattern of RE2 syntax") from error


def _contains(meter: Meter, text: Value, part: Value) -> Value:
    _strings("contains", text, part)
    meter.charge(1 + len(text) // 10)
    return part in text


def _starts_with(meter: Meter, text: Value, part: Value) -> Value:
    _strings("startsWith", text, part)
    meter.charge(1 + len(part) // 10)
    return text.startswith(part)


def _ends_with(meter: Meter, text: Value, part: Value) -> Value:
    _strings("endsWith", text, part)
    meter.charge(1 + len(part) // 10)
    return text.endswith(part)


def _to_int(meter: Meter, value: Value) -> Value:
    if type(value) in (int, Uint):
        return checked_int(int(value))
    if type(value) is float:
        # The bounds of int64 are not doubles: only what lies strictly between them converts.
        if not float(INT_MIN) < value < float(INT_MAX):
            raise Fault("integer overflow")
        return int(value)
    if type(value) is str and _INTEGER.fullmatch(value):
        return checked_int(int(value))
    raise _no_conversion("int", value)


def _to_uint(meter: Meter, value: Value) -> Value:
    if type(value) in (int, Uint):
        return checked_uint(int(value))
    if type(value) is float:
        if not 0 <= value < float(UINT_MAX):
            raise Fault("unsigned integer overflow")
        return Uint(int(value))
    if type(value) is str and _UNSIGNED.fullmatch(value):
        return checked_uint(int(value))
    raise _no_conversion("uint", value)


def _to_double(meter: Meter, value: Value) -> Value:
    if type(value) in (int, Uint, float):
        return float(value)
    if type(value) is str and len(value) <= 1024 and _DOUBLE.fullmatch(value):
        return float(value)
    raise _no_conversion("double", value)


def _to_string(meter: Meter, value: Value) -> Value:
    kind = type(value)
    if kind is str:
        return value
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is Uint:
        return str(int(value))
    if kind is float:
        return _written(value)
    if kind is bytes:
        meter.charge(1 + len(value) // 10)
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Fault("expected bytes of UTF-8") from error
    raise _no_conversion("string", value)


def _written(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value).removesuffix(".0")


def _to_bytes(meter: Meter, value: Value) -> Value:
    if type(value) is bytes:
        return value
    if type(value) is str:
        meter.charge(1 + len(value) // 10)
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Fault("expected a string of Unicode scalar values") from error
    raise _no_conversion("bytes", value)


def _to_bool(meter: Meter, value: Value) -> Value:
    if type(value) is bool:
        return value
    if type(value) is str and value in _TRUTHS:
        return _TRUTHS[value]
    raise _no_conversion("bool", value)


def _no_conversion(to: str, value: Value) -> Fault:
    shown = f"{value[:60]!r}" if type(value) is str else f"a value of type {type_of(value)}"
    return Fault(f"expected what {to}() can read, got {shown}")


def _char_at(meter: Meter, text: Value, at: Value) -> Value:
    _strings("charAt", text)
    _ints("charAt", at)
    if not 0 <= at <= len(text):
        raise Fault(f"index out of range: {at}")
    return text[at : at + 1]


def _index_of(meter: Meter, text: Value, part: Value, start: Value = 0) -> Value:
    _strings("indexOf", text, part)
    _ints("indexOf", start)
    if not 0 <= start <= len(text):
        raise Fault(f"index out of range: {start}")
    meter.charge(1 + len(text) // 10)
    return text.find(part, start)


def _last_index_of(meter: Meter, text: Value, part: Value, last: Value = None) -> Value:
    _strings("lastIndexOf", text, part)
    meter.charge(1 + len(text) // 10)
    if last is None:
        return text.rfind(part)
    _ints("lastIndexOf", last)
    if not 0 <= last <= len(text):
        raise Fault(f"index out of range: {last}")
    return text.rfind(part, 0, last + len(part))


def _join(meter: Meter, parts: Value, separator: Value = "") -> Value:
    if not isinstance(parts, list | tuple):
        raise no_overload("join", parts, separator)
    _strings("join", separator, *parts)
    meter.charge(1 + sum(len(part) + len(separator) for part in parts) // 10)
    return separator.join(parts)


def _ascii_case(function: str, upper: bool) -> Function:
    changed = {
        ord(c): (c.upper() if upper else c.lower()) for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    }

    def change(meter: Meter, text: Value) -> Value:
        _strings(function, text)
        meter.charge(1 + len(text) // 10)
        return text.translate(changed)

    return change


def _replace(meter: Meter, text: Value, old: Value, new: Value, count: Value = -1) -> Value:
    _strings("replace", text, old, new)
    _ints("replace", count)
    found = text.count(old) if count < 0 else min(count, text.count(old))
    meter.charge(1 + (len(text) + max(0, found * (len(new) - len(old)))) // 10)
    return text.replace(old, new, found)


def _split(meter: Meter, text: Value, separator: Value, count: Value = -1) -> Value:
    _strings("split", text, separator)
    _ints("split", count)
    meter.charge(1 + len(text))
    if count == 0:
        return []
    if separator == "":
        cut = len(text) if count < 0 else min(count - 1, len(text))
        return [*text[:cut], *([text[cut:]] if text[cut:] else [])]
    return text.split(separator, count - 1 if count > 0 else -1)


def _substring(meter: Meter, text: Value, start: Value, end: Value = None) -> Value:
    _strings("substring", text)
    end = len(text) if end is None else end
    _ints("substring", start, end)
    if not 0 <= start <= end <= len(text):
        raise Fault(f"expected 0 <= start <= end <= {len(text)}, got {start} and {end}")
    meter.charge(1 + (end - start) // 10)
    return text[start:end]


def _trim(meter: Meter, text: Value) -> Value:
    _strings("trim", text)
    meter.charge(1 + len(text) // 10)
    return text.strip()


def _quantity(meter: Meter, text: Value) -> Value:
    _strings("quantity", text)
    try:
        return Quantity.parse(text)
    except Malformed as error:
        raise Fault(error.message) from error


def _is_quantity(meter: Meter, text: Value) -> Value:
    _strings("isQuantity", text)
    try:
        Quantity.parse(text)
    except Malformed:
        return False
    return True


def _quantities(function: str, *values: Value) -> None:
    if any(type(value) is not Quantity for value in values):
        raise no_overload(function, *values)


def _is_integer(meter: Meter, value: Value) -> Value:
    _quantities("isInteger", value)
    return value.nanos % 10**9 == 0 and INT_MIN <= value.nanos // 10**9 <= INT_MAX


def _as_integer(meter: Meter, value: Value) -> Value:
    if not _is_integer(meter, value):
        raise Fault("cannot convert value to integer")
    return value.nanos // 10**9


def _as_float(meter: Meter, value: Value) -> Value:
    _quantities("asApproximateFloat", value)
    return float(value)


def _sign(meter: Meter, value: Value) -> Value:
    _quantities("sign", value)
    return (value.nanos > 0) - (value.nanos < 0)


def _quantity_or_int(function: str, one: Value, other: Value) -> Quantity:
    _quantities(function, one)
    if type(other) is Quantity:
        return other
    if type(other) is int:
        return Quantity.of(other)
    raise no_overload(function, one, other)


def _add(meter: Meter, one: Value, other: Value) -> Value:
    return one + _quantity_or_int("add", one, other)


def _sub(meter: Meter, one: Value, other: Value) -> Value:
    return one - _quantity_or_int("sub", one, other)


def _semver(meter: Meter, text: Value, normalize: Value = False) -> Value:
    _strings("semver", text)
    if type(normalize) is not bool:
        raise no_overload("semver", text, normalize)
    return parse_semver(text, normalize=normalize)


def _is_semver(meter: Meter, text: Value, normalize: Value = False) -> Value:
    try:
        _semver(meter, text, normalize)
    except Fault:
        if type(text) is str and type(normalize) is bool:
            return False
        raise
    return True


def _part(name: str) -> Function:
    def part(meter: Meter, version: Value) -> Value:
        if type(version) is not Semver:
            raise no_overload(name, version)
        return checked_int(getattr(version, name))

    return part


def _compare_to(meter: Meter, one: Value, other: Value) -> Value:
    if type(one) is not type(other) or type(one) not in (Quantity, Semver):
        raise no_overload("compareTo", one, other)
    return (one > other) - (one < other)


FUNCTIONS: Final[dict[str, Function]] = {
    "size": _size,
    "matches": _matches,
    "contains": _contains,
    "startsWith": _starts_with,
    "endsWith": _ends_with,
    "int": _to_int,
    "uint": _to_uint,
    "double": _to_double,
    "string": _to_string,
    "bytes": _to_bytes,
    "bool": _to_bool,
    "dyn": lambda meter, value: value,
    "type": lambda meter, value: type_of(value),
    "charAt": _char_at,
    "indexOf": _index_of,
    "join": _join,
    "lastIndexOf": _last_index_of,
    "lowerAscii": _ascii_case("lowerAscii", upper=False),
    "upperAscii": _ascii_case("upperAscii", upper=True),
    "replace": _replace,
    "split": _split,
    "substring": _substring,
    "trim": _trim,
    "quantity": _quantity,
    "isQuantity": _is_quantity,
    "isInteger": _is_integer,
    "asInteger": _as_integer,
    "asApproximateFloat": _as_float,
    "sign": _sign,
    "add": _add,
    "sub": _sub,
    "semver": _semver,
    "isSemver": _is_semver,
    "major": _part("major"),
    "minor": _part("minor"),
    "patch": _part("patch"),
    "compareTo": _compare_to,
    "isLessThan": lambda meter, one, other: _compare_to(meter, one, other) < 0,
    "isGreaterThan": lambda meter, one, other: _compare_to(meter, one, other) > 0,
}
"""Functions by name; all overloads of a name are one function, which looks at its arguments."""
