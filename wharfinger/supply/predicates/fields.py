"""Fields of predicates, read strictly: each function returns the field as its type or says what was expected."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wharfinger.core.clock import parse_rfc3339
from wharfinger.core.digests import parse_sha256
from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt


def thing(value: Json, what: str, *names: str) -> dict[str, Json]:
    """Return `value` as an object with only these field `names` (any, when none is given). Raises `Malformed`."""
    if not isinstance(value, dict):
        raise Malformed(f"{what}: expected an object, got {excerpt(value)}")
    unknown = set(value) - set(names) if names else set()
    if unknown:
        raise Malformed(f"{what}: expected no field {excerpt(min(unknown))}")
    return value


def text(value: dict[str, Json], name: str, default: str | None = None) -> str:
    """Return the field `name` as text. Raises `Malformed`."""
    found = value.get(name, default)
    if not isinstance(found, str):
        raise Malformed(f"expected {name} as text, got {excerpt(found)}")
    return found


def choice(value: dict[str, Json], name: str, among: Collection[str]) -> str:
    """Return the field `name`, one of `among`. Raises `Malformed`."""
    found = text(value, name)
    if found not in among:
        raise Malformed(f"expected {name} as {' or '.join(sorted(among))}, got {excerpt(found)}")
    return found


def digest(value: dict[str, Json], name: str, default: str | None = None) -> str:
    """Return the field `name` as a sha256 in OCI form. Raises `Malformed`."""
    found = text(value, name, default)
    return found if default is not None and found == default else parse_sha256(found)


def number(value: dict[str, Json], name: str) -> int:
    """Return the field `name` as a whole number from 0. Raises `Malformed`."""
    found = value.get(name)
    if type(found) is not int or found < 0:
        raise Malformed(f"expected {name} as a whole number, got {excerpt(found)}")
    return found


def moment(value: dict[str, Json], name: str) -> str:
    """Return the field `name` as an RFC 3339 time, in its text. Raises `Malformed`."""
    found = text(value, name)
    parse_rfc3339(found)
    return found


def things(value: dict[str, Json], name: str) -> list[dict[str, Json]]:
    """Return the field `name` as a list of objects; empty when it is absent. Raises `Malformed`."""
    found = value.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Malformed(f"expected {name} as a list of objects, got {excerpt(found)}")
    return found


def texts(value: dict[str, Json], name: str) -> tuple[str, ...]:
    """Return the field `name` as texts; empty when it is absent. Raises `Malformed`."""
    found = value.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise Malformed(f"expected {name} as a list of texts, got {excerpt(found)}")
    return tuple(found)


def table(value: dict[str, Json], name: str, of: type | tuple[type, ...]) -> dict[str, Any]:
    """Return the field `name` as an object whose values are of type `of`; empty when absent. Raises `Malformed`."""
    found = value.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(item, of) for item in found.values()):
        raise Malformed(f"expected {name} as an object, got {excerpt(found)}")
    return found
