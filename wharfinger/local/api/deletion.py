"""Deletion, decided: what becomes of an object that somebody wants gone. Pure.

An object goes at once, or is marked with a time and waits: for its grace period (pods), for its
finalizers, for its dependents (foreground), or for them to be let go (orphan).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from wharfinger.core.clock import SECOND, Instant, rfc3339
from wharfinger.core.document import Json
from wharfinger.local.api.request import DeleteOptions

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"


@dataclass(frozen=True, slots=True)
class Deletion:
    """What to do: `remove` the object, `mark` it (store `value` in its place), or `keep` it as it is."""

    step: Literal["remove", "mark", "keep"]
    value: Json


def decide(old: Json, options: DeleteOptions, now: Instant, *, graceful: bool) -> Deletion:
    """Return what a delete with `options` does to the stored object `old` at the time `now`.

    `graceful` says that the kind's objects are asked to end first. The rules are kube-apiserver's:
    the grace period may only be shortened, a propagation policy replaces the one asked for before, and
    an object with finalizers waits for them.
    """
    metadata = dict(old["metadata"])
    finalizers = _finalizers(list(metadata.get("finalizers") or []), options)
    grace = _grace(old, options) if graceful else 0
    pending = metadata.get("deletionTimestamp") is not None
    if pending and graceful:
        grace = min(grace, metadata.get("deletionGracePeriodSeconds") or 0)
    if grace == 0 and not finalizers and not (old.get("spec") or {}).get("finalizers"):
        if graceful and not pending:
            metadata["deletionTimestamp"], metadata["deletionGracePeriodSeconds"] = rfc3339(now), 0
            metadata["generation"] = metadata.get("generation", 0) + 1
        return Deletion("remove", {**old, "metadata": metadata})
    changed = finalizers != (metadata.get("finalizers") or [])
    shorter = pending and grace < (metadata.get("deletionGracePeriodSeconds") or 0)
    if pending and not changed and not shorter:
        return Deletion("keep", old)
    if not pending or shorter:
        metadata["deletionTimestamp"] = rfc3339(now + grace * SECOND)
        metadata["deletionGracePeriodSeconds"] = grace
        if "generation" in metadata and not pending:
            metadata["generation"] += 1
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    value = {**old, "metadata": metadata}
    if old.get("kind") == "Namespace":
        value["status"] = {**(old.get("status") or {}), "phase": "Terminating"}
    return Deletion("mark", value)


def is_over(value: Json) -> bool:
    """Say whether an object that was marked has nothing more to wait for, after an update to `value`."""
    metadata = value["metadata"]
    return (
        metadata.get("deletionTimestamp") is not None
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not (value.get("spec") or {}).get("finalizers")
    )


def _grace(old: Json, options: DeleteOptions) -> int:
    spec, status = old.get("spec") or {}, old.get("status") or {}
    grace = options.grace
    if grace is None:
        grace = spec.get("terminationGracePeriodSeconds", 30)
    if not spec.get("nodeName") or status.get("phase") in {"Failed", "Succeeded"}:
        return 0
    return 1 if grace < 0 else int(grace)


def _finalizers(present: list[str], options: DeleteOptions) -> list[str]:
    if options.propagation is None:
        return present
    wanted = {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(options.propagation)
    kept = [name for name in present if name not in {ORPHAN, FOREGROUND} or name == wanted]
    if wanted is not None and wanted not in kept:
        kept.append(wanted)
    return kept
