"""Upstream's field errors and our problems, in one form that can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wharfinger.core.errors import FieldProblem

Said = tuple[str, str, str]
"""Reason, field and message."""


def told(problems: Iterable[FieldProblem]) -> list[Said]:
    """Return problems sorted: upstream's order is that of its maps."""
    return sorted((each.reason, each.field, each.message) for each in problems)


def wanted(errors: Iterable[dict[str, Any]]) -> list[Said]:
    """Return upstream's errors in the same form; the root is the empty path."""
    return sorted(
        (each["type"], "" if each["field"] == "<nil>" else each["field"], each.get("message", "")) for each in errors
    )
