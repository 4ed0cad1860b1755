"""Sets the replicas of InferenceServices that scale, by the tokens in flight that the gateway reports.

`inference.autoscale` decides; what was needed in the last while is remembered here and, being a matter of seconds, not
kept: after a restart the present number counts as needed until the time to scale down has passed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, own
from wharfinger.core.clock import SECOND, Instant, Span
from wharfinger.inference import autoscale
from wharfinger.inference.autoscale import Bounds

Load: TypeAlias = Callable[[], Mapping[str, int] | None]
"""Tokens in flight by service, `NAMESPACE/NAME`; None when the gateway does not answer."""

LOOK_EVERY: Final[Span] = SECOND


class Autoscaler:
    """Keyed by InferenceService; looks at each that scales every second."""

    kind = "inferenceservices"

    def __init__(self, cache: Cache, writer: Writer, load: Load) -> None:
        self._cache = cache
        self._writer = writer
        self._load = load
        self._needs: dict[tuple[Key, str], tuple[tuple[Instant, int], ...]] = {}

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return the services themselves."""
        return {self.kind: own}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Bring one service's replicas to what its load needs."""
        service = self._cache.get(self.kind, key.namespace, key.name)
        scaling = service["spec"].get("scaling") if service is not None else None
        if service is None or deleting(service) or not scaling:
            self._forget(key)
            return None
        mark = (key, service["metadata"]["uid"])
        current = service["spec"].get("replicas", 1)
        bounds = Bounds(
            least=scaling.get("minReplicas", 1),
            most=scaling.get("maxReplicas", 1),
            tokens_per_replica=scaling.get("tokensInFlight", 512),
            down_after=scaling.get("scaleDownSeconds", 60) * SECOND,
        )
        load = self._load()
        tokens = None if load is None else load.get(str(key), 0)
        wanted = autoscale.decide(tokens, current, bounds, self._needs.get(mark, ((now, current),)), now)
        self._needs[mark] = wanted.needs
        if wanted.replicas != current:
            patch = {
                "metadata": {"resourceVersion": service["metadata"]["resourceVersion"]},
                "spec": {"replicas": wanted.replicas},
            }
            self._writer.patch(self.kind, key.namespace, key.name, patch)
            direction = "up" if wanted.replicas > current else "down"
            self._writer.event(
                service, "Scaled", f"{direction} from {current} to {wanted.replicas}: {wanted.reason}", warning=False
            )
        return LOOK_EVERY

    def _forget(self, key: Key) -> None:
        for mark in [mark for mark in list(self._needs) if mark[0] == key]:
            self._needs.pop(mark, None)
