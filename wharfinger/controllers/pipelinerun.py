"""Reconciles PipelineRuns: observes what `supply.pipeline.decide` needs, takes the action that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from wharfinger.controllers.desk import Desk
from wharfinger.controllers.readiness import settle
from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, own, owner
from wharfinger.core.clock import SECOND, Instant, Span
from wharfinger.core.document import parse_json
from wharfinger.core.errors import AlreadyExists, Conflict, Denied, Invalid, Malformed, NotFound, TooLarge
from wharfinger.supply import pipeline
from wharfinger.supply.pipeline import MakePod, Output, Publish, ReadMetrics, Seen, Sign

_MOST_ACTIONS: Final = 8
_LARGEST_METRICS: Final = 1024 * 1024


class PipelineRunReconciler:
    """Steps, papers and status of PipelineRuns."""

    kind = "pipelineruns"

    def __init__(self, cache: Cache, writer: Writer, desk: Desk) -> None:
        self._cache = cache
        self._writer = writer
        self._desk = desk

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return runs, their pods, and the datasets that they wait for."""
        return {self.kind: own, "pods": owner("PipelineRun"), "datasets": self._of_dataset}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Bring one run a step further, as far as it goes now."""
        run = self._cache.get(self.kind, key.namespace, key.name)
        if run is None or deleting(run) or pipeline.is_over(run):
            return None
        seen = self._observe(run)
        for _ in range(_MOST_ACTIONS):
            found = pipeline.decide(seen, now)
            # What a step came to is on disk before the next begins: a crash goes on from there.
            settle(self._writer, self.kind, run, found.status, "Succeeded")
            run = {**run, "status": found.status}
            if found.action is None:
                return None if pipeline.is_over(run) else 30 * SECOND
            if isinstance(found.action, MakePod):
                refused = self._make(found.action)
                if not refused:
                    return 5 * SECOND
                seen = replace(seen, run=run, refused=refused)
                continue
            seen = replace(self._take(found.action, seen), run=run)
        return SECOND

    def _observe(self, run: Object) -> Seen:
        namespace, spec = run["metadata"]["namespace"], run["spec"]
        return Seen(
            run=run,
            dataset=self._cache.get("datasets", namespace, spec["dataset"]),
            pods={pod["metadata"]["name"]: pod for pod in self._cache.list("pods", namespace) if not deleting(pod)},
            earlier=[
                other
                for other in self._cache.list(self.kind, namespace)
                if other["metadata"]["name"] != run["metadata"]["name"]
            ],
            model=self._cache.get("models", namespace, spec["model"]),
            builder=self._desk.builder,
        )

    def _make(self, action: MakePod) -> str:
        """Create a step's pod; return why it was refused, empty when it is there."""
        try:
            self._writer.create(action.pod)
        except AlreadyExists:
            return ""
        except (Invalid, Denied) as error:
            return error.message
        return ""

    def _take(self, action: ReadMetrics | Sign | Publish, seen: Seen) -> Seen:
        if isinstance(action, ReadMetrics):
            return replace(seen, metrics=self._metrics(action.output))
        if isinstance(action, Sign):
            return replace(seen, signed=self._sign(action))
        try:
            model = self._writer.create(action.model)
        except AlreadyExists:
            meta = action.model["metadata"]
            held = self._cache.get("models", meta["namespace"], meta["name"])
            if held is None:
                raise Conflict(f"Model {meta['name']} is there and not seen yet") from None
            model = held
        return replace(seen, model=model)

    def _metrics(self, output: Output) -> dict[str, float] | str:
        """Return what metrics.json says, or the words why it says nothing."""
        try:
            artifact = self._desk.shelf.artifact(output.repository, output.digest)
            if pipeline.METRICS not in artifact.layers:
                return f"evaluation left no {pipeline.METRICS}"
            data = next(data for path, data in self._desk.shelf.files(artifact) if path == pipeline.METRICS)
            told = parse_json(data, limit=_LARGEST_METRICS)
        except (NotFound, Malformed, TooLarge) as error:
            return f"{pipeline.METRICS}: {error}"
        if not isinstance(told, dict):
            return f"{pipeline.METRICS}: expected an object of numbers"
        return {str(name): float(value) for name, value in told.items() if type(value) in (int, float)}

    def _sign(self, action: Sign) -> str:
        """Put the model to its repository and have it signed; return its digest."""
        desk = self._desk
        output = desk.shelf.artifact(action.output.repository, action.output.digest)
        model = desk.shelf.publish(output, action.repository)
        papers = desk.papers(model.repository, model.digest)
        desk.sign(model, model.contents.statement(), desk.builder, papers)
        told = (model.repository, model.digest, model.contents.digest)
        desk.sign(model, action.provenance.statement(*told), desk.builder, papers)
        if action.evaluation is not None:
            desk.sign(model, action.evaluation.statement(*told), desk.control, papers)
        return model.digest

    def _of_dataset(self, o: Object) -> list[Key]:
        meta = o["metadata"]
        return [
            Key(meta["namespace"], run["metadata"]["name"])
            for run in self._cache.list(self.kind, meta["namespace"])
            if run["spec"]["dataset"] == meta["name"] and not pipeline.is_over(run)
        ]
