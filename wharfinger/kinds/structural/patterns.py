"""Patterns: regular expressions of schemas, matched in linear time whoever wrote them (RE2, as upstream's)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import re2

REMEMBERED: Final = 1024
"""Texts whose answer a pattern remembers."""
LONGEST_REMEMBERED: Final = 128
"""Characters of such a text."""
LARGEST_PROGRAM: Final = 8 * 1024 * 1024
"""Bytes that one compiled pattern may take."""


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Callable[[bytes], Any] | str:
    """Return the search of `pattern` in UTF-8, or in words why it is none.

    Groups are not recorded and places are not counted: a schema asks yes or no, and that is 6 times cheaper.
    """
    options = re2.Options()
    options.log_errors = False
    options.max_mem = LARGEST_PROGRAM
    options.never_capture = True
    try:
        search: Callable[[bytes], Any] = re2.compile(pattern, options).search
    except (re2.error, UnicodeEncodeError) as error:
        return _refusal(error)
    return search


@lru_cache(maxsize=1024)
def quick(pattern: str) -> Callable[[str], bool]:
    """Return whether something in a text matches `pattern`; what short texts gave is remembered.

    Objects name the same things again and again, and asking RE2 through its binding takes 1.5 microseconds.
    """

    def ask(text: str) -> bool:
        return not mismatch(pattern, text)

    remembered = lru_cache(maxsize=REMEMBERED)(ask)
    return lambda text: remembered(text) if len(text) <= LONGEST_REMEMBERED else ask(text)


def mismatch(pattern: str, text: str) -> str:
    """Return the pattern as a message names it when nothing in `text` matches it; empty when something does."""
    search = compiled(pattern)
    if isinstance(search, str):
        return f"{pattern}, but pattern is invalid: {search}"
    try:
        return "" if search(text.encode()) is not None else pattern
    except UnicodeEncodeError:
        return pattern


_WORDS: Final = {
    "no argument for repetition operator": "missing argument to repetition operator",
    "missing ]": "missing closing ]",
    "trailing \\": "trailing backslash at end of expression",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
}
"""What RE2 calls faults, and what Go calls them."""


def _refusal(error: Exception) -> str:
    """Return why a pattern is refused, as Go says it."""
    said = error.args[0] if error.args else error
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    fault, colon, part = text.partition(": ")
    fault = _WORDS.get(fault, fault)
    return f"error parsing regexp: {fault}: `{part}`" if colon else f"error parsing regexp: {fault}"
