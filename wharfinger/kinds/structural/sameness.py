"""Sameness of JSON values as the API server compares them: `1`, `1.0` and `true` are three values."""

from __future__ import annotations

from wharfinger.core.document import Json


def same(one: Json, other: Json) -> bool:
    """Tell whether two values are equal and of the same types at every place."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other) or one != other:
        return False
    if kind is dict:
        return all(same(value, other[name]) for name, value in one.items())
    if kind is list:
        return all(map(same, one, other))
    return True


def identity(value: Json) -> object:
    """Return a hashable stand-in for a value: two values are the same exactly when theirs are equal."""
    if isinstance(value, dict):
        return (dict, tuple((name, identity(value[name])) for name in sorted(value)))
    if isinstance(value, list):
        return (list, tuple(map(identity, value)))
    return (type(value), value)
