"""A PipelineRun from dataset to published model: every step, every failure, and what is taken over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from notary import BUILDER, CONTROL, DOMAIN, Notary, Shelf
from world import World

from wharfinger.controllers.dataset import DatasetReconciler
from wharfinger.controllers.desk import Desk
from wharfinger.controllers.model import ModelReconciler
from wharfinger.controllers.pipelinerun import PipelineRunReconciler
from wharfinger.controllers.world import Key
from wharfinger.core.errors import Invalid, Unavailable
from wharfinger.kinds.condition import find
from wharfinger.supply import pipeline
from wharfinger.supply.predicates import evaluation, provenance
from wharfinger.supply.predicates.provenance import Provenance

API = "wharfinger.io/v1alpha1"
WEIGHTS = {"model.safetensors": b"weights" * 50, "config.json": b"{}"}
TRAIN = {"command": ["python", "$(WHARF_CODE)/train.py"], "env": [{"name": "EPOCHS", "value": "3"}]}
EVALUATE = {"command": ["python", "eval.py"], "thresholds": [{"metric": "perplexity", "maximum": 50}]}


def run_of(name: str = "run-1", **changes: Any) -> dict[str, Any]:
    """Return a PipelineRun."""
    spec = {"dataset": "prose", "model": "tiny", "serviceAccountName": "trainer", "train": TRAIN, "evaluate": EVALUATE}
    meta = {"name": name, "namespace": "research"}
    return {"apiVersion": API, "kind": "PipelineRun", "metadata": meta, "spec": {**spec, **changes}}


class Yard:
    """A world with a dataset, a registry, a notary, the reconcilers, and a node that does what it is told."""

    def __init__(self) -> None:
        self.notary, self.shelf = Notary(), Shelf()
        policy = {"signers": [CONTROL, BUILDER], "builders": [BUILDER]}
        digest = self.shelf.push("research/datasets/prose", {"a.txt": b"prose"}, "dataset")
        artifact = {"repository": "research/datasets/prose", "digest": digest}
        self.world = World(
            _object("Tenant", "research", "", {"namespaces": ["research"]}),
            _object("TrustPolicy", "strict", "", policy),
            _object("Dataset", "prose", "research", {"artifact": artifact}),
        )
        desk = Desk(self.shelf, self.notary, DOMAIN)
        self.reconcilers = (
            DatasetReconciler(self.world, self.world, desk, lambda _: []),
            PipelineRunReconciler(self.world, self.world, desk),
            ModelReconciler(self.world, self.world, desk),
        )
        self.outputs: dict[str, dict[str, bytes]] = {
            "train": WEIGHTS,
            "evaluate": {"metrics.json": json.dumps({"perplexity": 31.5}).encode()},
        }
        self.isolation, self.started = "namespaces", list[str]()
        self.fails: dict[str, dict[str, Any]] = {}

    def work(self, rounds: int = 12) -> None:
        """Reconcile and run pods until nothing changes."""
        for _ in range(rounds):
            self.world.settle(*self.reconcilers)
            if not self.node():
                return

    def node(self) -> bool:
        """Run every pod that has not run; say whether there was one."""
        fresh = [pod for pod in self.world.list("pods") if "status" not in pod]
        for pod in fresh:
            name, step = pod["metadata"]["name"], pod["metadata"]["labels"][pipeline.STEP_LABEL]
            self.started.append(name)
            conditions = [_condition(pipeline.ISOLATION_CONDITION, self.isolation)]
            status: dict[str, Any] = self.fails.get(step) or {"phase": "Succeeded"}
            if status["phase"] == "Succeeded":
                digest = self.shelf.push(f"research/steps-{name}", self.outputs[step], "output")
                conditions.append(_condition(pipeline.OUTPUT_CONDITION, digest))
            self.world.status("pods", "research", name, {**status, "conditions": conditions})
        return bool(fresh)

    def start(self, run: dict[str, Any]) -> Any:
        """Make a run, let all work, return its status."""
        self.world.put(run)
        self.work()
        return self.status(run["metadata"]["name"])

    def status(self, name: str = "run-1") -> Any:
        """Return the status of a run."""
        return self.world.must("pipelineruns", "research", name)["status"]


@pytest.fixture
def yard() -> Yard:
    """Return a yard."""
    return Yard()


def outcome(status: Any) -> str:
    """Return phase and reason."""
    found = find(status["conditions"], "Succeeded")
    assert found is not None
    return f"{status['phase']} {found['reason']}"


def test_a_run_ends_in_a_published_model_that_verifies(yard: Yard) -> None:
    """Five steps, two pods; the Model is Ready under the TrustPolicy, and its provenance names data and command."""
    status = yard.start(run_of())
    assert outcome(status) == "Succeeded Published"
    assert [s["phase"] for s in status["steps"]] == ["Succeeded"] * 5
    assert yard.started == ["run-1-train", "run-1-evaluate"]
    model = yard.world.must("models", "research", "tiny")
    assert model["spec"]["artifact"]["digest"] == status["modelDigest"]
    assert find(model["status"]["conditions"], "Ready")["reason"] == "Verified"  # type: ignore[index]
    assert status["metrics"] == {"perplexity": 31.5}
    papers = Desk(yard.shelf, yard.notary, DOMAIN).papers("research/models/tiny", status["modelDigest"])
    made = Provenance.parse(papers.about(provenance.TYPE, status["modelDigest"])[0].statement.predicate)
    assert (made.run, made.isolation) == ("research/run-1", "namespaces")
    assert made.external["train"]["command"] == TRAIN["command"]
    data = yard.world.must("datasets", "research", "prose")["spec"]["artifact"]["digest"]
    assert made.digests(provenance.DATASET) == [data]
    assert papers.about(evaluation.TYPE, status["modelDigest"])[0].signer == CONTROL


def test_a_steps_pod_has_its_inputs_by_digest_and_the_runs_identity(yard: Yard) -> None:
    """Evaluation sees the dataset and what training made; neither pod is given more than the run says."""
    yard.start(run_of())
    train, evaluate = (yard.world.must("pods", "research", f"run-1-{s}") for s in ("train", "evaluate"))
    assert train["spec"]["serviceAccountName"] == "trainer"
    assert set(json.loads(train["metadata"]["annotations"][pipeline.INPUTS])) == {"WHARF_INPUT"}
    asked = json.loads(evaluate["metadata"]["annotations"][pipeline.INPUTS])
    assert asked["WHARF_MODEL"]["repository"] == "research/steps-run-1-train"
    assert train["spec"]["activeDeadlineSeconds"] == 600


def test_a_failed_step_names_its_reason_and_the_command_for_its_log(yard: Yard) -> None:
    """The container's exit is in the message with `wharf logs`; later steps never start."""
    ended = {"terminated": {"exitCode": 3, "reason": "Error", "finishedAt": "2027-01-15T08:00:05Z"}}
    yard.fails["train"] = {"phase": "Failed", "containerStatuses": [{"name": "train", "state": ended}]}
    status = yard.start(run_of())
    assert outcome(status) == "Failed Error"
    step = status["steps"][1]
    assert "exit code 3" in step["message"]
    assert "wharf logs run-1-train -n research" in step["message"]
    assert step["finishedAt"] == "2027-01-15T08:00:05Z"
    assert yard.started == ["run-1-train"]
    assert yard.world.get("models", "research", "tiny") is None


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        (b'{"perplexity": 80}', "ThresholdMissed"),
        (b'{"perplexity": NaN}', "NoMetrics"),
        (b'{"loss": 1}', "MetricMissing"),
        (b"not json", "NoMetrics"),
        (b'{"perplexity": true}', "MetricMissing"),
    ],
)
def test_a_model_that_does_not_pass_evaluation_is_not_signed(yard: Yard, metrics: bytes, reason: str) -> None:
    """Above the bound, not a number, missing, or no JSON: the run fails and nothing is signed for the model."""
    yard.outputs["evaluate"] = {"metrics.json": metrics}
    assert outcome(yard.start(run_of())) == f"Failed {reason}"
    assert BUILDER not in {signer for _, signer in yard.notary.signed}


def test_a_rerun_takes_over_steps_whose_inputs_are_unchanged(yard: Yard) -> None:
    """The second run starts no pod and publishes the same model; another environment trains anew."""
    first = yard.start(run_of())
    second = yard.start(run_of("run-2"))
    assert outcome(second) == "Succeeded Published"
    assert second["modelDigest"] == first["modelDigest"]
    assert [s["reused"] for s in second["steps"] if s["name"] in ("train", "evaluate")] == [True, True]
    assert yard.started == ["run-1-train", "run-1-evaluate"]
    yard.start(run_of("run-3", model="other", train={**TRAIN, "env": [{"name": "EPOCHS", "value": "4"}]}))
    assert "run-3-train" in yard.started
    assert yard.status("run-3")["steps"][2].get("reused")


def test_a_failed_step_is_not_taken_over(yard: Yard) -> None:
    """What failed once is tried again."""
    yard.fails["train"] = {"phase": "Failed", "reason": "DeadlineExceeded", "message": "took longer than 600 s"}
    assert outcome(yard.start(run_of())) == "Failed DeadlineExceeded"
    yard.fails.clear()
    assert outcome(yard.start(run_of("run-2"))) == "Succeeded Published"


def test_steps_that_were_not_isolated_say_so_in_the_provenance(yard: Yard) -> None:
    """Isolation none goes into the provenance, and the TrustPolicy refuses the model for it."""
    yard.isolation = "none"
    assert outcome(yard.start(run_of())) == "Succeeded Published"
    model = yard.world.must("models", "research", "tiny")
    assert find(model["status"]["conditions"], "Ready")["reason"] == "NotIsolated"  # type: ignore[index]


def test_a_run_waits_for_its_dataset_and_fails_with_a_bad_one(yard: Yard) -> None:
    """No such Dataset: pending, saying so. One that fails screening: failed, by its reason, before any pod."""
    assert outcome(yard.start(run_of("early", dataset="later"))) == "Pending DatasetNotFound"
    digest = yard.shelf.push("research/datasets/later", {"a.txt": b"\xff\xfe"}, "dataset")
    artifact = {"repository": "research/datasets/later", "digest": digest}
    yard.world.put(_object("Dataset", "later", "research", {"artifact": artifact}))
    yard.work()
    assert outcome(yard.status("early")) == "Failed ScreeningFailed"
    assert yard.started == []


@pytest.mark.parametrize("until", ["screen", "train"])
def test_a_dataset_made_anew_with_other_data_fails_the_run(yard: Yard, until: str) -> None:
    """What was screened is what is learned from and what provenance names, whoever puts another in its place."""
    yard.world.put(run_of())
    yard.world.settle(*yard.reconcilers)
    if until == "train":
        yard.node()
        yard.world.settle(*yard.reconcilers)
    digest = yard.shelf.push("research/datasets/other", {"a.txt": b"poison"}, "dataset")
    artifact = {"repository": "research/datasets/other", "digest": digest}
    yard.world.delete("datasets", "research", "prose")
    yard.world.put(_object("Dataset", "prose", "research", {"artifact": artifact}))
    yard.work()
    assert outcome(yard.status()) == "Failed DatasetChanged"
    assert yard.world.get("models", "research", "tiny") is None


def test_a_pod_of_that_name_that_is_not_the_runs_fails_the_step(yard: Yard) -> None:
    """A person's pod in the way is not taken for the step's."""
    yard.world.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "run-1-train", "namespace": "research"},
            "spec": {"containers": []},
            "status": {"phase": "Succeeded"},
        }
    )
    assert outcome(yard.start(run_of())) == "Failed PodNameTaken"


def test_a_pod_that_the_api_refuses_fails_the_step_with_its_words(yard: Yard) -> None:
    """What is wrong with the step stands in the run's status, not in a log of ours."""
    create = yard.world.create

    def refusing(desired: Any) -> Any:
        if desired["kind"] == "Pod":
            raise Invalid("pods run-1-train: spec.containers[0].env[0].name: no")
        return create(desired)

    yard.world.create = refusing  # type: ignore[method-assign]
    status = yard.start(run_of())
    assert outcome(status) == "Failed PodRefused"
    assert "spec.containers[0].env[0].name" in status["steps"][1]["message"]


def test_a_model_of_that_name_with_other_bytes_is_left_alone(yard: Yard) -> None:
    """A published model does not change: the run fails and says to name another."""
    artifact = {"repository": "research/models/tiny", "digest": "sha256:" + "0" * 64}
    yard.world.put(_object("Model", "tiny", "research", {"artifact": artifact}))
    assert outcome(yard.start(run_of())) == "Failed ModelExists"
    assert yard.world.must("models", "research", "tiny")["spec"]["artifact"] == artifact


def test_a_crash_between_signing_and_publishing_signs_nothing_twice(yard: Yard) -> None:
    """The status write after signing fails: the next try finds the papers and goes on."""
    yard.world.put(run_of())
    yard.world.settle(*yard.reconcilers)
    yard.node()
    yard.world.settle(*yard.reconcilers)
    yard.node()
    status, calls = yard.world.status, [0]

    def failing(plural: str, namespace: str, name: str, told: Any) -> Any:
        if plural == "pipelineruns" and any(
            s["name"] == "sign" and s["phase"] == "Succeeded" for s in told.get("steps", ())
        ):
            calls[0] += 1
            if calls[0] == 1:
                raise Unavailable("api gone")
        return status(plural, namespace, name, told)

    yard.world.status = failing  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        yard.reconcilers[1].reconcile(Key("research", "run-1"), yard.world.clock.now())
    signed = list(yard.notary.signed)
    yard.work()
    assert outcome(yard.status()) == "Succeeded Published"
    assert [s for s in yard.notary.signed if s[1] == BUILDER] == [s for s in signed if s[1] == BUILDER]


def test_inputs_decide_sameness_whatever_their_order() -> None:
    """The digest is over values: the order of environment variables does not matter, each value does."""
    inputs = {"WHARF_INPUT": pipeline.Output("a/b", "sha256:" + "1" * 64)}
    one = {"command": ["x"], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    other = {"command": ["x"], "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}
    assert pipeline.inputs_digest(one, inputs) == pipeline.inputs_digest(other, inputs)
    assert pipeline.inputs_digest({**one, "command": ["y"]}, inputs) != pipeline.inputs_digest(one, inputs)


def test_long_names_give_pods_with_valid_names() -> None:
    """A run with a name of any length has pods of at most 63 characters, different for different runs."""
    names = {pipeline.pod_name({"metadata": {"name": "a" * 80 + tail}}, "evaluate") for tail in "xy"}
    assert len(names) == 2
    assert all(len(name) <= 63 for name in names)


def _object(kind: str, name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec}


def _condition(kind: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": "True", "reason": "Told", "message": message}
