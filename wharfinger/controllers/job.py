"""Reconciles Jobs: makes and deletes their pods as `completion.decide` says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from wharfinger.controllers import completion, podset
from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, own, owner
from wharfinger.core.clock import SECOND, Instant, Span
from wharfinger.core.errors import AlreadyExists, Denied, Invalid

_REFUSED_AGAIN: Span = 10 * SECOND


class JobReconciler:
    """Pods and status of Jobs."""

    kind = "jobs"

    def __init__(self, cache: Cache, writer: Writer) -> None:
        self._cache = cache
        self._writer = writer

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return Jobs and the pods that they control."""
        return {self.kind: own, "pods": owner("Job")}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Bring one Job to what it should be."""
        job = self._cache.get(self.kind, key.namespace, key.name)
        if job is None or deleting(job):
            return None
        desired = completion.decide(job, podset.owned(job, self._cache.list("pods", key.namespace)), now)
        if desired.over:
            self._writer.delete(self.kind, key.namespace, key.name, job["metadata"]["uid"])
            return None
        for pod in desired.delete:
            self._writer.delete("pods", key.namespace, pod["metadata"]["name"], pod["metadata"]["uid"])
        refused = False
        for pod in desired.create:
            try:
                self._writer.create(pod)
            except AlreadyExists:
                continue
            except (Denied, Invalid) as error:
                self._writer.event(job, "FailedCreate", f"Error creating: {error.message}", warning=True)
                refused = True
                break
            self._writer.event(job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}", warning=False)
        if desired.status:
            self._writer.status(self.kind, key.namespace, key.name, desired.status)
            self._tell(job, desired.status)
        return _REFUSED_AGAIN if refused else desired.again

    def _tell(self, job: Object, status: Mapping[str, object]) -> None:
        told = status.get("conditions")
        for condition in told if isinstance(told, list) else ():
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
                failed = condition["type"] == "Failed"
                reason = condition["reason"] if failed else "Completed"
                self._writer.event(job, reason, condition["message"] if failed else "Job completed", warning=failed)
