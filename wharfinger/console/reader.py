"""Where the console reads: informers for the objects, every part's journal for decisions and token accounts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wharfinger.cluster.informer import Informers
from wharfinger.console import views
from wharfinger.core.errors import Corrupt, Malformed
from wharfinger.policy.decision import from_record
from wharfinger.policy.journal import RUNTIME, is_pods, journals
from wharfinger.policy.tail import Tail

SHOWN: Final = (
    "tenants", "gpuprofiles", "datasets", "models", "pipelineruns", "inferenceservices", "grants", "pods", "nodes",
    "resourceslices", "resourceclaims",
)  # fmt: skip
"""The kinds that the pages show."""
_KEPT: Final = 5_000
"""How many of the newest decisions, and of the newest token accounts, are held to be shown."""
_KEPT_OF_PODS: Final = 1_000


class Evidence:
    """The newest records of every journal below a folder; threads share it.

    What a pod writes is shown for what it may be, a runtime's decision of the right form, and apart, so that no pod
    can crowd out what the platform's parts say.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tails: dict[str, Tail] = {}
        self._lock = threading.Lock()
        self._decisions: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._of_pods: deque[dict[str, Any]] = deque(maxlen=_KEPT_OF_PODS)
        self._tokens: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def look(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Read what is new; return the newest decisions and the newest token accounts."""
        with self._lock:
            for journal in journals(self._folder) if self._folder.is_dir() else ():
                if journal.name not in self._tails:
                    self._tails[journal.name] = Tail(journal, ("decision", "tokens"), segments=1)
                pods = is_pods(journal)
                for record in self._tails[journal.name].fresh():
                    self._take(record, pods=pods)
            return [*self._decisions, *self._of_pods], list(self._tokens)

    def damaged(self) -> list[str]:
        """Return which journals of the platform's parts cannot be read on, and where."""
        with self._lock:
            return [tail.damaged for name, tail in self._tails.items() if tail.damaged and not is_pods(Path(name))]

    def _take(self, record: dict[str, Any], *, pods: bool) -> None:
        if record.get("kind") == "tokens" and not pods:
            self._tokens.append(record)
        elif record.get("kind") == "decision":
            try:
                decision = from_record(record)
            except (Corrupt, Malformed):
                return
            if not pods:
                self._decisions.append(decision.record())
            elif decision.part == RUNTIME:
                self._of_pods.append(decision.record())


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
