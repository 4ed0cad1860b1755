"""Patterns: regular expressions of schemas, matched in linear time whoever wrote them (RE2, as upstream's)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import re2

LARGEST_PROGRAM: Final = 8 * 1024 * 1024
"""Bytes that one compiled pattern may take."""


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Callable[[str], Any] | str:
    """Return the search of `pattern`, or in words why it is none."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = LARGEST_PROGRAM
    try:
        search: Callable[[str], Any] = re2.compile(pattern, options).search
    except (re2.error, UnicodeEncodeError) as error:
        return f"error parsing regexp: {_said(error)}"
    return search


def mismatch(pattern: str, text: str) -> str:
    """Return the pattern as a message names it when nothing in `text` matches it; empty when something does."""
    search = compiled(pattern)
    if isinstance(search, str):
        return f"{pattern}, but pattern is invalid: {search}"
    try:
        return "" if search(text) is not None else pattern
    except UnicodeEncodeError:
        return pattern


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else error
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
