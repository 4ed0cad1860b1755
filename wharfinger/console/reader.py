"""Where the console reads: informers for the objects, every part's journal for decisions and token accounts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wharfinger.cluster.informer import Informers
from wharfinger.console import views
from wharfinger.policy.tail import Tail

SHOWN: Final = (
    "tenants", "gpuprofiles", "datasets", "models", "pipelineruns", "inferenceservices", "grants", "pods", "nodes",
    "resourceslices", "resourceclaims",
)  # fmt: skip
"""The kinds that the pages show."""
_KEPT: Final = 5_000
"""How many of the newest decisions, and of the newest token accounts, are held to be shown."""


class Evidence:
    """The newest records of every journal below a folder; threads share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tails: dict[str, Tail] = {}
        self._lock = threading.Lock()
        self._decisions: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._tokens: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def look(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Read what is new; return the newest decisions and the newest token accounts."""
        with self._lock:
            for journal in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
                if journal.is_dir() and journal.name not in self._tails:
                    self._tails[journal.name] = Tail(journal)
            for tail in self._tails.values():
                for record in tail.fresh():
                    if record.get("kind") == "decision":
                        self._decisions.append(record)
                    elif record.get("kind") == "tokens":
                        self._tokens.append(record)
            return list(self._decisions), list(self._tokens)

    def damaged(self) -> list[str]:
        """Return which journals cannot be read on, and where."""
        with self._lock:
            return [tail.damaged for tail in self._tails.values() if tail.damaged]


class Shown:
    """The console's reader on informers and journals."""

    def __init__(self, informers: Informers, evidence: Evidence) -> None:
        self._informers = informers
        self._evidence = evidence

    def objects(self) -> views.Objects:
        """Return every object that the pages show."""
        return {plural: self._informers.list(plural) for plural in SHOWN}

    def decisions(self) -> Sequence[Mapping[str, Any]]:
        """Return the newest decisions of every part."""
        return self._evidence.look()[0]

    def tokens(self) -> Iterable[Mapping[str, Any]]:
        """Return the newest token accounts."""
        return self._evidence.look()[1]

    def faults(self) -> Sequence[str]:
        """Return what of the evidence cannot be read."""
        return self._evidence.damaged()
