"""Documents: JSON text to values and back, strictly and in one canonical form.

Any byte string gives a value or `Malformed` / `TooLarge`: names that occur twice in one object are
refused (RFC 8259 section 4 leaves them open; signatures and policies must not), so are NaN and
infinities, invalid UTF-8 and nesting beyond `MAX_DEPTH`.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeAlias

from wharfinger.core.errors import Malformed, TooLarge, excerpt

Json: TypeAlias = Any
"""None, bool, int, float, str, list of Json or dict of str to Json."""

MAX_DEPTH = 200


class RepeatedName(Malformed):
    """One object holds a name twice: readers would differ in which of the two they see."""


def parse_json(data: bytes | str, *, limit: int = 3 * 1024 * 1024) -> Json:
    """Return the value that JSON `data` of at most `limit` bytes holds.

    Raises `TooLarge` over the limit, `Malformed` for anything that is not strict JSON.
    """
    if len(data) > limit:
        raise TooLarge(f"expected a document of at most {limit} bytes, got {len(data)}")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Malformed(f"expected UTF-8, got byte {data[error.start]!r} at {error.start}") from error
    except RecursionError as error:
        raise Malformed(f"expected at most {MAX_DEPTH} levels of nesting") from error
    except json.JSONDecodeError as error:
        raise Malformed(f"expected JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except ValueError as error:
        raise Malformed(f"expected JSON: {excerpt(str(error))}") from error
    check_depth(value)
    return value


def check_depth(value: Json, limit: int = MAX_DEPTH) -> None:
    """Raise `Malformed` when `value` nests deeper than `limit`; itself uses no recursion."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise Malformed(f"expected at most {limit} levels of nesting")


def canonical(value: Json) -> bytes:
    """Return `value` as canonical JSON: sorted names, no white space, UTF-8.

    The same value always gives the same bytes, so that its digest can be its address. Follows
    RFC 8785 for what Wharfinger stores (strings, integers, booleans, null, lists, objects); a float
    is written as Python's shortest round-trip form. Raises `Malformed` for NaN, infinities and
    values that JSON does not have.
    """
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode(
            "utf-8"
        )
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise Malformed(f"expected a JSON value: {excerpt(str(error))}") from error


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RepeatedName(f"expected each name once in an object, got {excerpt(name)} twice")
            seen.add(name)
    return value


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"expected JSON, got the constant {name}")
