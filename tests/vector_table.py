"""Runs a file of outside vectors and compares what differs with the table of cases left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from shared_material import rows

Row = dict[str, Any]
Check = tuple[str, Any, Any]
"""An aspect of a case (such as `value`), what came, what upstream gave."""


def differences(file: str, checks: Callable[[Row], Iterable[Check]]) -> tuple[int, dict[str, str]]:
    """Run `checks` over every row of `file`; return the number of checks and what differs.

    A difference is named `LINE.ASPECT`, lines counted from 1.
    """
    count = 0
    found: dict[str, str] = {}
    for line, row in enumerate(rows(file), start=1):
        for aspect, got, want in _guarded(checks, row):
            count += 1
            if got != want or type(got) is not type(want):
                found[f"{line}.{aspect}"] = f"got {got!r}, want {want!r}"
    return count, found


def _guarded(checks: Callable[[Row], Iterable[Check]], row: Row) -> Iterator[Check]:
    try:
        yield from checks(row)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        yield "raised", repr(error), None


def assert_only_left_out(found: Mapping[str, str], left_out: Mapping[str, str]) -> None:
    """Assert that exactly the cases of `left_out` (reason -> names) differ: no more, and none that passes by now."""
    listed = {name: reason for reason, names in left_out.items() for name in names.split()}
    unlisted = {name: text for name, text in found.items() if name not in listed}
    assert not unlisted, f"{len(unlisted)} cases differ: " + "; ".join(
        f"{name}: {text}" for name, text in list(unlisted.items())[:20]
    )
    stale = sorted(set(listed) - set(found))
    assert not stale, f"these cases pass and must leave the table: {stale}"
