"""IntOrString: a field that holds a number, or a text such as `25%` or a port's name.

In Wharfinger it is an `int` (32 bits, as in Kubernetes) or a `str`.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

from wharfinger.core.errors import Malformed, excerpt

IntOrString: TypeAlias = int | str

LOWEST: Final = -(2**31)
HIGHEST: Final = 2**31 - 1

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,32}", re.ASCII)
_PERCENT: Final = re.compile(r"([+-]?[0-9]{1,18})%", re.ASCII)


def parse(text: str) -> IntOrString:
    """Return the number that a command line's `text` spells, or the text itself."""
    if _INTEGER.fullmatch(text) is not None and LOWEST <= int(text) <= HIGHEST:
        return int(text)
    return text


def of_json(value: Any) -> IntOrString:
    """Return a decoded JSON `value` as it stands; null is 0.

    Raises `Malformed` for anything but text and whole numbers of 32 bits.
    """
    if value is None:
        return 0
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and LOWEST <= value <= HIGHEST:
        return value
    raise Malformed(f"expected a 32-bit integer or text, got {excerpt(value)}")


def amount(value: IntOrString) -> tuple[int, bool]:
    """Return the number in `value`, and whether it counts percent.

    Raises `Malformed` for a text that is no percentage.
    """
    if isinstance(value, int):
        return value, False
    match = _PERCENT.fullmatch(value)
    if match is None:
        raise Malformed(f"expected an integer or a percentage such as 25%, got {excerpt(value)}")
    return int(match[1]), True


def scaled(value: IntOrString, total: int, *, round_up: bool) -> int:
    """Return `value` itself, or that percentage of `total`, rounded up or down to a whole number.

    Raises `Malformed` for a text that is no percentage.
    """
    number, is_percent = amount(value)
    if not is_percent:
        return number
    return -(-number * total // 100) if round_up else number * total // 100
