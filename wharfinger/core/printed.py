"""Values as Kubernetes prints them: in messages, in table cells, in JSONPath output.

Its programs are written in Go, whose habits show: `2.0` prints as `2`, a million as `1e+06`, and JSON
has `<`, `>` and `&` escaped. Clients compare such texts, so ours are the same.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

LONGEST_QUOTE: Final = 4096
"""Characters of a text that `quoted` repeats; the rest is cut."""

_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}
_HTML: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def text(value: Any) -> str:
    """Return `value` as a table cell or message shows it bare: text as it is, maps and lists as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return number(value)
    return as_json(value)


def as_json(value: Any) -> str:
    """Return `value` as compact JSON with sorted names."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _json_text(value)
    if isinstance(value, dict):
        body = ",".join(f"{_json_text(name)}:{as_json(value[name])}" for name in sorted(value))
        return "{" + body + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(as_json(each) for each in value) + "]"
    if isinstance(value, float):
        return _json_number(value)
    return str(value)


def number(value: float) -> str:
    """Return a float in its shortest form: `0.5`, `2`, `1e+06`, `1e-07`."""
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "+Inf"}.get(str(value), "-Inf")
    digits, exponent = _digits(value)
    if -4 <= exponent < 6:
        return _plain(value)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{'-' if value < 0 else ''}{mantissa}e{exponent:+03d}"


def quoted(value: str) -> str:
    """Return a text in double quotes, with what is not printable escaped, cut to `LONGEST_QUOTE`."""
    cut = value[:LONGEST_QUOTE]
    if cut.isprintable() and '"' not in cut and "\\" not in cut:
        body = cut
    else:
        body = "".join(_escaped(char) for char in cut)
    return f'"{body}"' + ("..." if len(value) > LONGEST_QUOTE else "")


def _json_text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_HTML)


def _json_number(value: float) -> str:
    digits, exponent = _digits(value)
    if value == 0 or -7 < exponent < 21:
        return _plain(value)
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    sign = "+" if exponent >= 0 else "-"
    return f"{'-' if value < 0 else ''}{mantissa}e{sign}{abs(exponent):d}"


def _digits(value: float) -> tuple[str, int]:
    """Return the shortest digits that name `value`, and the exponent of the first."""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    first = len(whole) - 1 if whole.strip("0") else -1 - (len(fraction) - len(fraction.lstrip("0")))
    return digits.rstrip("0") or "0", first + int(exponent or "0") if digits else 0


def _plain(value: float) -> str:
    """Return `value` without an exponent."""
    digits, exponent = _digits(value)
    sign = "-" if value < 0 else ""
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    fraction = digits[exponent + 1 :]
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
