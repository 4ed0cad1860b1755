"""Numbers against the limits of a schema, with the arithmetic of upstream's validator.

An integer is compared with limits cut to integers, a fraction as a double; a number that its format cannot hold is
refused in words that belong to no field (kube-openapi, validation/validate numberValidator).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from wharfinger.core.printed import number
from wharfinger.kinds.structural.findings import Finding, general
from wharfinger.kinds.structural.node import Node

INT32: Final = (-(2**31), 2**31 - 1)
INT64: Final = (-(2**63), 2**63 - 1)
_LARGEST_EXACT: Final = float(2**53 - 1)
_NEARNESS: Final = 1e-9
_PAST_FLOAT32: Final = float(2**128 - 2**103)


def is_whole(value: float) -> bool:
    """Tell whether a double counts as an integer: it is one, or as good as one, and a double holds it exactly."""
    if not -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
        return False
    cut = float(int(value))
    return value == cut or abs(value - cut) / (abs(value) + abs(cut)) < _NEARNESS


def in_range(value: float, kind: str, form: str) -> bool:
    """Tell whether a number fits type `kind` in format `form`."""
    if kind == "integer":
        low, high = INT32 if form == "int32" else INT64
        return (isinstance(value, int) or value.is_integer()) and low <= value <= high
    if kind == "number" and form == "float":
        return not math.isinf(value) and abs(value) < _PAST_FLOAT32
    return True


def check(path: str, value: float, node: Node, kind: str, form: str) -> Iterator[Finding]:
    """Yield what is wrong with a number; `kind` and `form` are its type and format where these are unambiguous."""
    if not in_range(value, kind, form):
        yield _out_of_range("Checked", path, kind, form)
    for name, limit in (("MultipleOf", node.multiple_of), ("Minimum boundary", node.minimum)):
        if limit is not None and not in_range(limit, kind, form):
            yield _out_of_range(name, path, kind, form)
    if node.maximum is not None and not in_range(node.maximum, kind, form):
        yield _out_of_range("Maximum boundary", path, kind, form)
    if node.multiple_of is not None:
        yield from _check_multiple(path, *_alike(value, node.multiple_of, kind, form))
    if node.maximum is not None:
        had, limit = _alike(value, node.maximum, kind, form)
        if had > limit or (node.exclusive_maximum and had == limit):
            word = "less than" if node.exclusive_maximum else "less than or equal to"
            yield Finding("invalid", path, had, f"{path} in body should be {word} {_shown(limit)}")
    if node.minimum is not None:
        had, limit = _alike(value, node.minimum, kind, form)
        if had < limit or (node.exclusive_minimum and had == limit):
            word = "greater than" if node.exclusive_minimum else "greater than or equal to"
            yield Finding("invalid", path, had, f"{path} in body should be {word} {_shown(limit)}")


def _alike(value: float, limit: float, kind: str, form: str) -> tuple[float, float]:
    """Return value and limit as they are compared: both as integers where the value is one and the limit fits."""
    if isinstance(value, int) and in_range(limit, kind, form):
        return value, _cut(limit)
    return _double(value), _double(limit)


def _cut(limit: float) -> int:
    if isinstance(limit, int):
        return limit
    return int(limit) if math.isfinite(limit) else INT64[0]


def _double(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _check_multiple(path: str, had: float, factor: float) -> Iterator[Finding]:
    if factor <= 0:
        text = f"factor MultipleOf declared for {path} must be positive: {_shown(factor)}"
        yield Finding("invalid", path, factor, text)
    elif isinstance(had, int):
        if had % int(factor):
            yield Finding("invalid", path, had, f"{path} in body should be a multiple of {_shown(factor)}")
    elif not is_whole(1 / factor * had if factor < 1 else had / factor):
        yield Finding("invalid", path, had, f"{path} in body should be a multiple of {_shown(factor)}")


def _shown(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else number(limit)


def _out_of_range(what: str, path: str, kind: str, form: str) -> Finding:
    return general(
        f"{what} value must be of type {kind} with format {form} in {path}"
        if form
        else f"{what} value must be of type {kind} (default format) in {path}"
    )
