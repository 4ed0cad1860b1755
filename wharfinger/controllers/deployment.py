"""Reconciles Deployments: makes and deletes their pods as `rollout.decide` says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wharfinger.controllers import podset, rollout
from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, own, owner
from wharfinger.core.clock import SECOND, Instant, Span
from wharfinger.core.errors import AlreadyExists, Denied, Invalid

_REFUSED_AGAIN: Span = 10 * SECOND


class DeploymentReconciler:
    """Pods and status of Deployments."""

    kind = "deployments"

    def __init__(self, cache: Cache, writer: Writer) -> None:
        self._cache = cache
        self._writer = writer

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return Deployments and the pods that they control."""
        return {self.kind: own, "pods": owner("Deployment")}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Bring one Deployment to what it should be."""
        deployment = self._cache.get(self.kind, key.namespace, key.name)
        if deployment is None or deleting(deployment):
            return None
        pods = podset.owned(deployment, self._cache.list("pods", key.namespace))
        desired = rollout.decide(deployment, pods, now)
        for pod in desired.delete:
            self._writer.delete("pods", key.namespace, pod["metadata"]["name"], pod["metadata"]["uid"])
        refusal = self._create(deployment, desired.create)
        if refusal:
            desired = rollout.decide(deployment, pods, now, refusal)
        if desired.status:
            self._writer.status(self.kind, key.namespace, key.name, desired.status)
        return _REFUSED_AGAIN if refusal else desired.again

    def _create(self, deployment: Object, pods: Iterable[Object]) -> str:
        """Make pods; return why the first that is refused is. One that is there is one the cache lags behind."""
        for pod in pods:
            try:
                self._writer.create(pod)
            except AlreadyExists:
                continue
            except (Denied, Invalid) as error:
                self._writer.event(deployment, "FailedCreate", f"Error creating: {error.message}", warning=True)
                return error.message
            self._writer.event(deployment, "SuccessfulCreate", f"Created pod {pod['metadata']['name']}", warning=False)
        return ""
