"""A pipeline run, decided: screen, train, evaluate, sign, publish; from what there is to what comes next.

Pure. The reconciler (`controllers.pipelinerun`) observes, calls `decide`, takes the one action that it names, and asks
again with what came of it. What a step did stands in the run's status, which the control plane alone writes: a step
that succeeded is never done again, and one of an earlier run with the same command, environment and input digests
is taken over instead of being run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from wharfinger.core.clock import Instant, rfc3339
from wharfinger.core.digests import sha256
from wharfinger.core.document import canonical
from wharfinger.kinds.condition import condition, find
from wharfinger.kinds.kind import GROUP, VERSION
from wharfinger.supply.predicates import provenance as slsa
from wharfinger.supply.predicates.evaluation import Evaluation
from wharfinger.supply.predicates.provenance import ISOLATION, Dependency, Provenance

Object = Mapping[str, Any]
Step = dict[str, Any]
"""A step's status, as the kind has it."""

RUN_LABEL: Final = f"{GROUP}/run"
STEP_LABEL: Final = f"{GROUP}/step"
INPUTS: Final = f"{GROUP}/inputs"
OUTPUT: Final = f"{GROUP}/output"
OUTPUT_CONDITION: Final = f"{GROUP}/Output"
ISOLATION_CONDITION: Final = f"{GROUP}/Isolation"
METRICS: Final = "metrics.json"
IMAGE: Final = "wharfinger.io/host"
_WAITS: Final = frozenset({"ArtifactNotFound", "NoTrustPolicy"})
"""Reasons of a Dataset that may go away by themselves."""


@dataclass(frozen=True, slots=True)
class Output:
    """An artifact that a step left: where, and its digest."""

    repository: str
    digest: str


@dataclass(frozen=True, slots=True)
class MakePod:
    """Create this pod."""

    pod: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReadMetrics:
    """Read metrics.json of what evaluation left."""

    output: Output


@dataclass(frozen=True, slots=True)
class Sign:
    """Put the files of `output` to `repository` as a model; sign them, their provenance and the evaluation."""

    output: Output
    repository: str
    provenance: Provenance
    evaluation: Evaluation | None


@dataclass(frozen=True, slots=True)
class Publish:
    """Create this Model."""

    model: dict[str, Any]


Action: TypeAlias = MakePod | ReadMetrics | Sign | Publish


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is: the run, what it names, its pods by name, the other runs of the namespace.

    `metrics` is what evaluation measured, or the words why that cannot be read; None where it was not read yet.
    `signed` is the digest of the model that was signed, empty before. `refused` says why the API would not take the
    pod that was to be made. `builder` is who builds here.
    """

    run: Object
    dataset: Object | None
    pods: Mapping[str, Object]
    earlier: Sequence[Object]
    model: Object | None
    builder: str
    metrics: Mapping[str, float] | str | None = None
    signed: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Next:
    """The run's status as it is to be, and what to do now; None: wait until something changes."""

    status: dict[str, Any]
    action: Action | None = None


def decide(seen: Seen, now: Instant) -> Next:
    """Return the status of the run and the next action."""
    old = seen.run.get("status") or {}
    if old.get("phase") in ("Succeeded", "Failed"):
        return Next(dict(old))
    plan = _Plan(seen, now)
    action: Action | None = None
    halted = False
    for name in _names(seen.run):
        if halted:
            plan.steps.append({"name": name, "phase": "Pending"})
            continue
        step, action = plan.of(name)
        plan.steps.append(step)
        halted = step["phase"] != "Succeeded"
    return Next(_status(seen, plan, now), action)


def is_over(run: Object) -> bool:
    """Say whether the run has ended."""
    return (run.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def pod_name(run: Object, step: str) -> str:
    """Return the name of the pod of a step: the same at every try."""
    name = run["metadata"]["name"]
    if len(name) > 40:
        name = f"{name[:32]}-{sha256(name.encode())[7:14]}"
    return f"{name}-{step}"


def inputs_digest(command: Object, inputs: Mapping[str, Output]) -> str:
    """Return the digest over a step's command, environment and the digests of its inputs: what makes two the same."""
    return sha256(
        canonical(
            {
                "command": list(command["command"]),
                "env": {e["name"]: e.get("value", "") for e in command.get("env") or ()},
                "inputs": {name: output.digest for name, output in inputs.items()},
            }
        )
    )


def _names(run: Object) -> list[str]:
    return ["screen", "train", *(["evaluate"] if run["spec"].get("evaluate") else []), "sign", "publish"]


class _Plan:
    """The steps so far; `of` gives the next one's status and what it needs done."""

    def __init__(self, seen: Seen, now: Instant) -> None:
        self.seen = seen
        self.now = now
        self.steps: list[Step] = []
        self.metrics: dict[str, float] = dict((seen.run.get("status") or {}).get("metrics") or {})
        self._old = {s["name"]: s for s in (seen.run.get("status") or {}).get("steps") or ()}

    def of(self, name: str) -> tuple[Step, Action | None]:
        """Return the status of the step `name` and the action that it waits for."""
        old = self._old.get(name)
        if old is not None and old["phase"] == "Succeeded":
            return dict(old), None
        if name == "screen":
            return self._screen(), None
        other = self._other_dataset(name)
        if other is not None:
            return other, None
        if name == "sign":
            return self._sign()
        if name == "publish":
            return self._publish()
        return self._pod_step(name)

    def done(self, name: str) -> Step:
        """Return the status of a step that has succeeded."""
        return next(s for s in self.steps if s["name"] == name)

    def output_of(self, name: str) -> Output:
        """Return what a pod step left."""
        step = self.done(name)
        return Output(f"{self.seen.run['metadata']['namespace']}/steps-{step['pod']}", step["outputDigest"])

    def inputs(self, name: str) -> dict[str, Output]:
        """Return the inputs of a pod step by the variable that names their folder."""
        assert self.seen.dataset is not None
        data = self.seen.dataset["spec"]["artifact"]
        found = {"WHARF_INPUT": Output(data["repository"], data["digest"])}
        code = self.seen.run["spec"].get("code")
        if code:
            found["WHARF_CODE"] = Output(code["repository"], code["digest"])
        if name == "evaluate":
            found["WHARF_MODEL"] = self.output_of("train")
        return found

    def _step(self, name: str, phase: str, reason: str = "", message: str = "", **more: Any) -> Step:
        old = self._old.get(name) or {}
        made: Step = {"name": name, "phase": phase}
        if reason:
            made["reason"] = reason
        if message:
            made["message"] = message[:2000]
        started = more.pop("startedAt", None) or old.get("startedAt")
        if phase != "Pending":
            made["startedAt"] = started or rfc3339(self.now)
        if phase in ("Succeeded", "Failed"):
            made["finishedAt"] = more.pop("finishedAt", None) or rfc3339(self.now)
        return made | {key: value for key, value in more.items() if value}

    def _screen(self) -> Step:
        namespace, name = self.seen.run["metadata"]["namespace"], self.seen.run["spec"]["dataset"]
        dataset = self.seen.dataset
        if dataset is None:
            return self._step("screen", "Pending", "DatasetNotFound", f"there is no Dataset {name} in {namespace}")
        ready = find((dataset.get("status") or {}).get("conditions"), "Ready")
        if ready is None or ready.get("observedGeneration") != dataset["metadata"].get("generation"):
            return self._step("screen", "Running", "Screening", f"Dataset {name} is being screened and signed")
        if ready["status"] == "True":
            digest = dataset["spec"]["artifact"]["digest"]
            return self._step("screen", "Succeeded", inputsDigest=digest, outputDigest=digest)
        phase = "Pending" if ready["reason"] in _WAITS else "Failed"
        return self._step("screen", phase, ready["reason"], f"Dataset {name}: {ready['message']}")

    def _other_dataset(self, name: str) -> Step | None:
        """Return the failure of a step that would learn from, or be signed as made of, other data than was screened.

        A Dataset does not change, but one may be deleted and another made in its place.
        """
        screened, dataset = self.done("screen")["outputDigest"], self.seen.dataset
        if name == "publish" or (dataset is not None and dataset["spec"]["artifact"]["digest"] == screened):
            return None
        wanted = self.seen.run["spec"]["dataset"]
        return self._step(name, "Failed", "DatasetChanged", f"Dataset {wanted} is no longer {screened}, as screened")

    def _pod_step(self, name: str) -> tuple[Step, Action | None]:
        """Return a step of the user's: taken over from an earlier run, or its pod's state."""
        command, inputs = self.seen.run["spec"][name], self.inputs(name)
        digest = inputs_digest(command, inputs)
        same = self._same(name, digest)
        if same is not None:
            run, earlier = same
            step = self._step(
                name,
                "Succeeded",
                message=f"taken over from run {run}: same command, environment and inputs",
                pod=earlier["pod"],
                inputsDigest=digest,
                outputDigest=earlier["outputDigest"],
                isolation=earlier.get("isolation", ""),
                reused=True,
            )
        else:
            pod = self.seen.pods.get(pod_name(self.seen.run, name))
            if pod is None and self.seen.refused:
                return self._step(name, "Failed", "PodRefused", self.seen.refused, inputsDigest=digest), None
            if pod is None:
                made = _pod(self.seen.run, name, inputs)
                waiting = self._step(name, "Pending", pod=made["metadata"]["name"], inputsDigest=digest)
                return waiting, MakePod(made)
            step = self._of_pod(name, pod, digest)
        if name != "evaluate" or step["phase"] != "Succeeded":
            return step, None
        return self._judged(step)

    def _same(self, name: str, digest: str) -> tuple[str, Step] | None:
        """Return a step of an earlier run of the namespace with the same inputs, and the run's name."""
        for run in sorted(self.seen.earlier, key=lambda r: str(r["metadata"].get("creationTimestamp")), reverse=True):
            for step in (run.get("status") or {}).get("steps") or ():
                alike = (step["name"], step.get("inputsDigest")) == (name, digest)
                if alike and step["phase"] == "Succeeded" and step.get("outputDigest") and step.get("pod"):
                    return run["metadata"]["name"], step
        return None

    def _of_pod(self, name: str, pod: Object, digest: str) -> Step:
        meta, status = pod["metadata"], pod.get("status") or {}
        owners = {reference.get("uid") for reference in meta.get("ownerReferences") or ()}
        if self.seen.run["metadata"]["uid"] not in owners:
            return self._step(name, "Failed", "PodNameTaken", f"pod {meta['name']} is not this run's")
        more = {
            "pod": meta["name"],
            "inputsDigest": digest,
            "isolation": _message(pod, ISOLATION_CONDITION),
            "startedAt": status.get("startTime"),
        }
        log = f"wharf logs {meta['name']} -n {meta['namespace']}"
        if status.get("phase") == "Failed":
            reason, message, finished = _failure(status)
            return self._step(name, "Failed", reason, f"{message}; its log: {log}", finishedAt=finished, **more)
        if status.get("phase") == "Succeeded":
            kept = find(status.get("conditions"), OUTPUT_CONDITION)
            if kept is None:
                return self._step(name, "Running", "Storing", "its output is being stored", **more)
            if kept.get("status") != "True":
                return self._step(
                    name, "Failed", kept.get("reason") or "OutputNotKept", kept.get("message", ""), **more
                )
            return self._step(name, "Succeeded", outputDigest=kept["message"], finishedAt=_failure(status)[2], **more)
        if status.get("phase") == "Running":
            return self._step(name, "Running", message=f"follow it: {log} -f", **more)
        scheduled = find(status.get("conditions"), "PodScheduled")
        why = scheduled.get("message", "") if scheduled is not None and scheduled.get("status") == "False" else ""
        return self._step(name, "Pending", "NotScheduled" if why else "", why, **more)

    def _judged(self, step: Step) -> tuple[Step, Action | None]:
        """Hold what evaluation measured against the thresholds."""
        told = self.seen.metrics
        kept = {k: v for k, v in step.items() if k not in ("name", "phase", "finishedAt", "message", "reason")}
        if told is None:
            output = Output(f"{self.seen.run['metadata']['namespace']}/steps-{step['pod']}", step["outputDigest"])
            return self._step("evaluate", "Running", "Judging", **kept), ReadMetrics(output)
        thresholds = self.seen.run["spec"]["evaluate"].get("thresholds") or ()
        if isinstance(told, str):
            if not thresholds:
                return step, None
            return self._step("evaluate", "Failed", "NoMetrics", told, **kept), None
        self.metrics = dict(told)
        for threshold in thresholds:
            name = threshold["metric"]
            value, most, least = told.get(name), threshold.get("maximum"), threshold.get("minimum")
            if value is None:
                problem = ("MetricMissing", f"evaluation did not report {name}")
            elif most is not None and not value <= most:
                problem = ("ThresholdMissed", f"{name} is {value:g}, at most {most:g} passes")
            elif least is not None and not value >= least:
                problem = ("ThresholdMissed", f"{name} is {value:g}, at least {least:g} passes")
            else:
                continue
            return self._step("evaluate", "Failed", *problem, **kept), None
        return step, None

    def _sign(self) -> tuple[Step, Action | None]:
        if self.seen.signed:
            return self._step("sign", "Succeeded", outputDigest=self.seen.signed), None
        meta, spec = self.seen.run["metadata"], self.seen.run["spec"]
        run, evaluated = f"{meta['namespace']}/{meta['name']}", None
        if spec.get("evaluate"):
            thresholds = tuple(dict(t) for t in spec["evaluate"].get("thresholds") or ())
            evaluated = Evaluation(run, self.metrics, self.done("evaluate")["inputsDigest"], thresholds)
        action = Sign(
            self.output_of("train"), f"{meta['namespace']}/models/{spec['model']}", self._provenance(run), evaluated
        )
        return self._step("sign", "Running", "Signing"), action

    def _provenance(self, run: str) -> Provenance:
        spec, inputs = self.seen.run["spec"], self.inputs("train")
        steps = [s for s in self.steps if s["name"] in ("train", "evaluate")]
        external: dict[str, Any] = {
            "dataset": spec["dataset"],
            "model": spec["model"],
            "serviceAccountName": spec.get("serviceAccountName", "default"),
            **{name: _asked(spec[name]) for name in ("train", "evaluate") if spec.get(name)},
        }
        roles = {"WHARF_INPUT": slsa.DATASET, "WHARF_CODE": slsa.CODE}
        return Provenance(
            builder=self.seen.builder,
            run=run,
            uid=self.seen.run["metadata"]["uid"],
            isolation=min((_isolation(s) for s in steps), key=ISOLATION.index),
            dependencies=tuple(Dependency(roles[name], o.repository, o.digest) for name, o in inputs.items()),
            external=external,
            started=self.done("train")["startedAt"],
            finished=steps[-1]["finishedAt"],
        )

    def _publish(self) -> tuple[Step, Action | None]:
        meta, spec = self.seen.run["metadata"], self.seen.run["spec"]
        digest = self.done("sign")["outputDigest"]
        artifact = {"repository": f"{meta['namespace']}/models/{spec['model']}", "digest": digest}
        if self.seen.model is None:
            model = {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": "Model",
                "metadata": {"name": spec["model"], "namespace": meta["namespace"]},
                "spec": {"artifact": artifact},
            }
            return self._step("publish", "Running", "Publishing"), Publish(model)
        held = self.seen.model["spec"]["artifact"]
        if held != artifact:
            why = f"Model {spec['model']} is {held['digest']} already, this run made {digest}: name another model"
            return self._step("publish", "Failed", "ModelExists", why), None
        return self._step("publish", "Succeeded", outputDigest=digest), None


def _status(seen: Seen, plan: _Plan, now: Instant) -> dict[str, Any]:
    meta, steps = seen.run["metadata"], plan.steps
    failed = next((s for s in steps if s["phase"] == "Failed"), None)
    current = next((s for s in steps if s["phase"] != "Succeeded"), None)
    if failed is not None:
        phase, holds, reason = "Failed", False, failed.get("reason", "StepFailed")
        message = f"{failed['name']}: {failed.get('message', '')}"
    elif current is None:
        phase, holds, reason, message = (
            "Succeeded",
            True,
            "Published",
            f"Model {seen.run['spec']['model']} is published",
        )
    else:
        begun = len(steps) > 0 and steps[0]["phase"] != "Pending"
        phase, holds, reason = "Running" if begun else "Pending", None, current.get("reason") or current["phase"]
        message = f"{current['name']}: {current.get('message') or current['phase'].lower()}"
    old = (seen.run.get("status") or {}).get("conditions")
    status: dict[str, Any] = {
        "phase": phase,
        "steps": steps,
        "conditions": condition(old, "Succeeded", holds, reason, message, meta.get("generation", 0), now),
    }
    if plan.metrics:
        status["metrics"] = plan.metrics
    signed = next((s for s in steps if s["name"] == "publish" and s["phase"] == "Succeeded"), None)
    if signed is not None:
        status["modelDigest"] = signed["outputDigest"]
    return status


def _pod(run: Object, step: str, inputs: Mapping[str, Output]) -> dict[str, Any]:
    meta, spec = run["metadata"], run["spec"]
    asked = {name: {"repository": o.repository, "digest": o.digest} for name, o in sorted(inputs.items())}
    owner = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": "PipelineRun", "name": meta["name"], "uid": meta["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(run, step),
            "namespace": meta["namespace"],
            "labels": {RUN_LABEL: meta["name"][:63].rstrip("-._"), STEP_LABEL: step},
            "annotations": {INPUTS: json.dumps(asked, sort_keys=True), OUTPUT: "true"},
            "ownerReferences": [owner],
        },
        "spec": {
            "serviceAccountName": spec.get("serviceAccountName", "default"),
            "restartPolicy": "Never",
            "activeDeadlineSeconds": spec[step].get("timeoutSeconds", 600),
            "terminationGracePeriodSeconds": 2,
            "containers": [
                {
                    "name": step,
                    "image": IMAGE,
                    "command": list(spec[step]["command"]),
                    "env": [{"name": e["name"], "value": e.get("value", "")} for e in spec[step].get("env") or ()],
                }
            ],
        },
    }


def _asked(step: Object) -> dict[str, Any]:
    made: dict[str, Any] = {
        "command": list(step["command"]),
        "env": {e["name"]: e.get("value", "") for e in step.get("env") or ()},
    }
    if step.get("thresholds"):
        made["thresholds"] = [dict(t) for t in step["thresholds"]]
    return made


def _isolation(step: Step) -> str:
    """Return how a step was isolated; what nobody said counts as not at all."""
    told = step.get("isolation", "")
    return told if told in ISOLATION else ISOLATION[0]


def _message(pod: Object, kind: str) -> str:
    return str((find((pod.get("status") or {}).get("conditions"), kind) or {}).get("message", ""))


def _failure(status: Object) -> tuple[str, str, str]:
    """Return reason, words and end of the first container that ended, or of the pod."""
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated")
        if ended:
            code = ended.get("exitCode", 0)
            words = ended.get("message") or f"exit code {code}"
            reason = status.get("reason") or ended.get("reason") or "Error"
            if status.get("reason"):
                words = status.get("message") or words
            return reason, words, ended.get("finishedAt", "")
    return status.get("reason") or "PodFailed", status.get("message") or "the pod failed", ""
