"""Requests: what the claims of a pod ask for, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wharfinger.core.errors import Invalid
from wharfinger.gpu.inventory import Object, Offer

MAX_DEVICES: Final = 32
"""Devices that one claim may get (resource.k8s.io/v1, AllocationResultsMaxSize)."""


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One request, or one alternative of a prioritized list, with its class looked up.

    `selectors` are those of the class and its own, each with whose it is; `everything` says that all devices are
    asked for, which `every` then holds, on a node; it is None for an exact count.
    """

    name: str
    parent: str
    device_class: Object
    count: int
    admin: bool
    selectors: tuple[tuple[str, str], ...]
    tolerations: Sequence[Object]
    everything: bool = False
    every: tuple[int, ...] | None = None

    @property
    def full_name(self) -> str:
        """`request`, or `request/alternative`."""
        return f"{self.parent}/{self.name}" if self.parent else self.name


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be allocated: per claim, per request, the alternatives (one unless it is a list).

    `plain` says that devices which are taken can be no part of an answer, and that it takes some.
    """

    claims: Sequence[Object]
    asks: Sequence[Sequence[Sequence[Ask]]]
    plain: bool = False


def selectors_of(spec: Object, where: str) -> tuple[str, ...]:
    """Return the CEL expressions of a class or request. Raises `Invalid` for any other kind of selector."""
    expressions = []
    for i, selector in enumerate(spec.get("selectors") or ()):
        expression = (selector.get("cel") or {}).get("expression")
        if expression is None:
            raise Invalid(f"{where}, selector {i}: expected a CEL expression, got a kind that is not offered")
        expressions.append(expression)
    return tuple(expressions)


def tolerated(offer: Offer, tolerations: Sequence[Object]) -> bool:
    """Say whether every taint of a device that keeps pods away is tolerated (resource/v1, DeviceToleration)."""
    for taint in offer.device.get("taints") or ():
        if taint.get("effect") not in ("NoSchedule", "NoExecute"):
            continue
        if not any(_tolerates(toleration, taint) for toleration in tolerations):
            return False
    return True


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    match toleration.get("operator") or "Equal":
        case "Equal":
            return bool((toleration.get("value") or "") == (taint.get("value") or ""))
        case "Exists":
            return True
    return False
