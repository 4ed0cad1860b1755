"""Pods that a workload makes of its template: their names, how ready they are, the conditions of their owner.

Pure. Names follow from the owner and what is there, with no dice: a reconcile that is repeated because the cache lags
asks for a name that is taken, and makes no second pod.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final

from wharfinger.core.clock import SECOND, Instant, Span, parse_rfc3339, rfc3339
from wharfinger.core.digests import sha256
from wharfinger.core.document import canonical
from wharfinger.core.ids import NAME_ALPHABET
from wharfinger.kinds.condition import find, is_true

Object = Mapping[str, Any]
_LONGEST_PREFIX: Final = 57
"""Characters of a pod's name before its suffix: 63 less a dash and five."""


def owned(owner: Object, pods: Sequence[Object]) -> list[Object]:
    """Return the pods that `owner` controls, the oldest first."""
    uid = owner["metadata"]["uid"]
    mine = [
        pod
        for pod in pods
        if any(r.get("uid") == uid and r.get("controller") for r in pod["metadata"].get("ownerReferences") or ())
    ]
    return sorted(mine, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))


def is_active(pod: Object) -> bool:
    """Say whether a pod counts: it has not ended and is not on its way out."""
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not ended and not pod["metadata"].get("deletionTimestamp")


def is_ready(pod: Object) -> bool:
    """Say whether a pod serves."""
    return is_true((pod.get("status") or {}).get("conditions"), "Ready")


def available_in(pod: Object, least: Span, now: Instant) -> Span | None:
    """Return after how long a pod has been ready for `least`, 0 when it has, None while it is not ready."""
    ready = find((pod.get("status") or {}).get("conditions"), "Ready")
    if ready is None or ready.get("status") != "True":
        return None
    return max(0, parse_rfc3339(ready["lastTransitionTime"]) + least - now) if least else 0


def fingerprint(template: Object) -> str:
    """Return the short name of a pod template, in the letters that names are made of."""
    return _letters(sha256(canonical(dict(template))), 10)


def names(prefix: str, uid: str, taken: Container[str]) -> Iterator[str]:
    """Yield names for new pods of the owner `uid` that are not `taken`, the same ones every time."""
    number = 0
    while True:
        name = f"{prefix[:_LONGEST_PREFIX].rstrip('-.')}-{_letters(sha256(f'{uid}/{prefix}/{number}'.encode()), 5)}"
        if name not in taken:
            yield name
        number += 1


def pod_of(owner: Object, name: str, template: Object, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the pod `name` of a template, controlled by `owner`."""
    meta = template.get("metadata") or {}
    made: dict[str, Any] = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": {**(meta.get("labels") or {}), **labels},
        "ownerReferences": [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if meta.get("annotations"):
        made["annotations"] = dict(meta["annotations"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": dict(template["spec"])}


def with_condition(
    conditions: Sequence[Object] | None, kind: str, holds: bool, reason: str, message: str, stamp: str, now: Instant
) -> list[dict[str, Any]]:
    """Return `conditions` with the one of type `kind` set, as workloads' conditions are: without a generation.

    `stamp` is the field that says when the condition was last looked at; it moves when anything else in it does.
    """
    fresh = {"type": kind, "status": str(holds), "reason": reason, "message": message}
    made = [dict(c) for c in conditions or () if c.get("type") != kind]
    old = find(conditions, kind) or {}
    if all(old.get(name) == value for name, value in fresh.items()):
        return sorted([*made, dict(old)], key=lambda c: str(c["type"]))
    since = old.get("lastTransitionTime") if old.get("status") == fresh["status"] else None
    made.append({**fresh, stamp: rfc3339(now), "lastTransitionTime": since or rfc3339(now)})
    return sorted(made, key=lambda c: str(c["type"]))


def difference(old: Object | None, fresh: Mapping[str, Any], counts: Sequence[str]) -> dict[str, Any]:
    """Return the merge patch that makes the status `old` say `fresh`; `counts` are left out when they are zero."""
    wanted = {name: value for name, value in fresh.items() if name not in counts or value}
    before = old or {}
    patch: dict[str, Any] = {name: None for name in counts if name in before and name not in wanted}
    return {**patch, **{name: value for name, value in wanted.items() if before.get(name) != value}}


def seconds(value: object) -> Span:
    """Return a field in seconds as a span."""
    return int(str(value or 0)) * SECOND


def _letters(digest: str, length: int) -> str:
    number = int(digest.partition(":")[2] or digest, 16)
    made = []
    for _ in range(length):
        number, letter = divmod(number, len(NAME_ALPHABET))
        made.append(NAME_ALPHABET[letter])
    return "".join(made)
