"""A request's body as a value: JSON, YAML or protobuf, strictly, with what clients get told about it. Pure.

A name that occurs twice in one object is not refused here: what becomes of it is the caller's choice
(`fieldValidation`), so each is reported by its path. Whatever else is not strict JSON is refused, and so
are numbers, texts and depths that could not be stored.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

import orjson

from wharfinger.core.document import Json, check_depth
from wharfinger.core.errors import Malformed, TooLarge, excerpt
from wharfinger.local.api.negotiation import Syntax

LIMIT: Final = 3 * 1024 * 1024
"""The longest body that is read (kube-apiserver's)."""

OBJECT_LIMIT: Final = 3 * 512 * 1024
"""The largest object that is stored, 1.5 MiB (etcd's)."""

_LARGEST: Final = 2**63 - 1
_SMALLEST: Final = -(2**63)


def read(data: bytes, syntax: Syntax) -> tuple[Json, list[str]]:
    """Return the value that `data` holds, and the path of every name that its object holds twice.

    Raises `TooLarge` over `LIMIT`, `Malformed` when it is not what `syntax` says.
    """
    if len(data) > LIMIT:
        raise TooLarge(f"expected a body of at most {LIMIT} bytes, got {len(data)}")
    if syntax == "yaml":
        from wharfinger.local.api import yamlbody

        return yamlbody.read(data)
    if syntax == "protobuf":
        from wharfinger.local.api import protobody

        return protobody.read(data), []
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Malformed(
            f"the object provided is unrecognized (must be JSON): {excerpt(error.msg)} at line {error.lineno} "
            f"column {error.colno}"
        ) from error
    if orjson.dumps(value) == data:  # written back byte for byte: nothing twice, no number bent
        check_depth(value)
        return value, []
    return _read_with_care(data)


def _read_with_care(data: bytes) -> tuple[Json, list[str]]:
    """Read JSON that orjson has accepted once more, noticing repeated names and large numbers."""
    repeated: list[_Repeated] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) == len(found):
            return made
        marked = _Repeated(made)
        seen: set[str] = set()
        marked.names = [name for name, _ in found if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        repeated.append(marked)
        return marked

    try:
        value = json.loads(data, object_pairs_hook=pairs, parse_int=_integer, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"expected JSON: {excerpt(str(error))}") from error
    check_depth(value)
    if not repeated:
        return value, []
    return orjson.loads(orjson.dumps(value)), [f'duplicate field "{path}"' for path in _paths(value)]


class _Repeated(dict[str, Any]):
    """An object in which some names occur twice."""

    names: list[str]


def _paths(value: Json, at: str = "") -> list[str]:
    found: list[str] = []
    if isinstance(value, _Repeated):
        found += [f"{at}.{name}" if at else name for name in value.names]
    if isinstance(value, dict):
        for name, child in value.items():
            if isinstance(child, dict | list):
                found += _paths(child, f"{at}.{name}" if at else name)
    else:
        for index, child in enumerate(value):
            if isinstance(child, dict | list):
                found += _paths(child, f"{at}[{index}]")
    return found


def _integer(text: str) -> int | float:
    """Read an integer as Go does: what 64 bits do not hold becomes a float."""
    number = int(text) if len(text) < 21 else float(text)
    return number if _SMALLEST <= number <= _LARGEST else float(text)


def _refuse(name: str) -> NoReturn:
    raise Malformed(f"expected JSON, got the constant {name}")


def check_size(body: bytes) -> bytes:
    """Return the encoded object `body` if it may be stored. Raises `TooLarge` over `OBJECT_LIMIT`."""
    if len(body) > OBJECT_LIMIT:
        raise TooLarge(f"request is too large: expected an object of at most {OBJECT_LIMIT} bytes, got {len(body)}")
    return body
