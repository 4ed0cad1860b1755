"""Identifiers as values, and the port that makes new ones.

Pure code takes the identifiers it needs as arguments; `wharfinger.core.systemids` makes them.
"""

from __future__ import annotations

from typing import Protocol

NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""What generated name suffixes are made of: no vowels, nothing that reads like another (Kubernetes' choice)."""


class Ids(Protocol):
    """Makes identifiers. Adapters: `systemids.SystemIds`, and the tests' counting one."""

    def uid(self) -> str:
        """Return a new UUID text, for `metadata.uid`, decisions and requests."""
        ...

    def suffix(self) -> str:
        """Return five characters of `NAME_ALPHABET`, for `metadata.generateName`."""
        ...
