"""Failpoints: named places around every durable write where a test can stop the process dead.

A durable write is bracketed: `reached("objects.commit.before")`, the write, `reached("objects.commit.after")`.
In production nothing is armed and a call is one dictionary look-up. A part of the platform that is started with
`WHARF_FAILPOINTS=NAME[:HIT],...` arms them (the bootstrap calls `arm`), and dies at the HIT-th passing of each as by
kill -9. `NAMES` is the enumeration that the crash test walks; passing an unlisted name is an error,
so that the enumeration cannot miss one.
"""

from __future__ import annotations

from collections.abc import Callable

from wharfinger.core.errors import Malformed, excerpt

NAMES: set[str] = set()
"""Every failpoint declared by a module that has been imported."""

_armed: dict[str, int] = {}
_die: dict[str, Callable[[], None]] = {}


def declare(write: str) -> tuple[str, str]:
    """Declare the failpoints before and after the durable `write`; return both names."""
    names = (f"{write}.before", f"{write}.after")
    NAMES.update(names)
    return names


def arm(text: str, die: Callable[[], None]) -> None:
    """Arm the failpoint that `text`, `NAME` or `NAME:HIT`, names; `die` ends the process and does not return.

    Raises `Malformed` when HIT is not a positive number. The name need not be declared yet: the module
    that declares it may be imported later.
    """
    name, _, hit = text.partition(":")
    if hit and not (hit.isascii() and hit.isdigit() and int(hit) > 0):
        raise Malformed(f"expected a failpoint NAME or NAME:HIT with HIT from 1, got {excerpt(text)}")
    _armed[name] = int(hit or "1")
    _die[name] = die


def reached(name: str) -> None:
    """Pass the failpoint `name`; die here if it is armed and this is its turn."""
    if not _armed:
        return
    left = _armed.get(name)
    if left is None:
        return
    if left > 1:
        _armed[name] = left - 1
        return
    _die[name]()
