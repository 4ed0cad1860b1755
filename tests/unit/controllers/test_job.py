"""Jobs: pods until enough have succeeded or too many failed, with a status that kubectl can wait for."""

from __future__ import annotations

from typing import Any

from world import World

from wharfinger.controllers.completion import _ranges
from wharfinger.controllers.job import JobReconciler
from wharfinger.controllers.world import Key
from wharfinger.core.clock import SECOND, rfc3339
from wharfinger.kinds.condition import find

KEY = Key("n", "train")


def job(**spec: Any) -> dict[str, Any]:
    """Return a Job."""
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "a", "command": ["x"]}]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "n"},
        "spec": {"template": template, "completions": 1, "parallelism": 1, "backoffLimit": 2, **spec},
    }


class Cluster:
    """A world with one Job, and a node that ends pods as told."""

    def __init__(self, **spec: Any) -> None:
        self.world = World(job(**spec))
        self.reconciler = JobReconciler(self.world, self.world)
        self.settle()

    def settle(self) -> None:
        """Reconcile until nothing changes."""
        self.world.settle(self.reconciler)

    def active(self) -> list[str]:
        """Return the names of pods that have not ended."""
        return [p["metadata"]["name"] for p in self.world.list("pods") if not (p.get("status") or {}).get("phase")]

    def end(self, name: str, code: int = 0) -> None:
        """End a pod."""
        ended = {"exitCode": code, "finishedAt": rfc3339(self.world.clock.now())}
        status = {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"name": "c", "state": {"terminated": ended}}],
        }
        self.world.status("pods", "n", name, status)
        self.settle()

    def status(self) -> dict[str, Any]:
        """Return the Job's status."""
        found: dict[str, Any] = self.world.must("jobs", "n", "train")["status"]
        return found

    def condition(self, kind: str) -> tuple[str, str] | None:
        """Return status and reason of a condition."""
        found = find(self.status().get("conditions"), kind)
        return (found["status"], found["reason"]) if found else None


def test_a_job_is_complete_when_its_pod_has_succeeded() -> None:
    """One pod runs; when it has succeeded the Job is Complete, with its times."""
    here = Cluster()
    assert (here.status()["active"], here.status()["startTime"]) == (1, rfc3339(here.world.clock.now()))
    [name] = here.active()
    labels = here.world.must("pods", "n", name)["metadata"]["labels"]
    assert labels["batch.kubernetes.io/job-name"] == "train"
    here.end(name)
    status = here.status()
    assert (status["succeeded"], status.get("active"), status["completionTime"]) == (1, None, status["startTime"])
    assert here.condition("Complete") == ("True", "CompletionsReached")
    assert ("n/train", "Completed", "Job completed") in here.world.events


def test_completions_are_reached_by_as_many_pods_at_a_time_as_told() -> None:
    """Five completions two at a time: never more than two run, never more than are still wanted."""
    here = Cluster(completions=5, parallelism=2)
    widths = []
    while here.active():
        widths.append(len(here.active()))
        here.end(here.active()[0])
    assert widths == [2, 2, 2, 2, 1]
    assert here.status()["succeeded"] == 5
    assert here.condition("Complete") is not None


def test_a_failure_is_tried_again_after_a_pause_until_the_limit() -> None:
    """Each failure doubles the pause; after backoffLimit retries the Job has Failed, and says with what."""
    here = Cluster(backoffLimit=2)
    for pause in (10, 20):
        here.end(here.active()[0], 3)
        assert here.active() == []
        assert here.reconciler.reconcile(KEY, here.world.clock.now()) == pause * SECOND
        here.world.clock.pass_(pause * SECOND)
        here.settle()
        assert len(here.active()) == 1
    here.end(here.active()[0], 3)
    assert here.status()["failed"] == 3
    assert here.condition("Failed") == ("True", "BackoffLimitExceeded")
    assert "exited with 3" in find(here.status()["conditions"], "Failed")["message"]  # type: ignore[index]
    assert here.condition("Complete") is None


def test_a_limit_of_zero_fails_at_once() -> None:
    """With backoffLimit 0 the first failure is the last."""
    here = Cluster(backoffLimit=0)
    here.end(here.active()[0], 1)
    assert here.condition("Failed") == ("True", "BackoffLimitExceeded")


def test_restarts_in_place_count_too() -> None:
    """Under OnFailure a container's restarts are failures, and the pod is ended at the limit."""
    template = {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "a"}]}}
    here = Cluster(backoffLimit=1, template=template)
    [name] = here.active()
    here.world.status("pods", "n", name, {"containerStatuses": [{"name": "c", "restartCount": 2}]})
    here.settle()
    assert here.condition("Failed") == ("True", "BackoffLimitExceeded")
    assert here.world.list("pods") == []


def test_a_deadline_ends_the_job() -> None:
    """A Job that runs for longer than activeDeadlineSeconds is ended and says so; it asks to be looked at in time."""
    here = Cluster(activeDeadlineSeconds=30)
    assert here.reconciler.reconcile(KEY, here.world.clock.now()) == 30 * SECOND
    here.world.clock.pass_(30 * SECOND)
    here.settle()
    assert here.condition("Failed") == ("True", "DeadlineExceeded")
    assert here.world.list("pods") == []


def test_a_suspended_job_runs_nothing_until_resumed() -> None:
    """Suspending deletes what runs; resuming starts anew."""
    here = Cluster()
    here.world.patch("jobs", "n", "train", {"spec": {"suspend": True}})
    here.settle()
    assert (here.active(), here.condition("Suspended")) == ([], ("True", "JobSuspended"))
    assert "startTime" not in here.status()
    here.world.patch("jobs", "n", "train", {"spec": {"suspend": False}})
    here.settle()
    assert (len(here.active()), here.condition("Suspended")) == (1, ("False", "JobResumed"))


def test_an_indexed_job_runs_each_index() -> None:
    """Every index runs once, knows itself, and is tried again when it fails; the status lists what is done."""
    here = Cluster(completions=3, parallelism=3, completionMode="Indexed", backoffLimit=6)
    by_index = {
        p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]: p for p in here.world.list("pods")
    }
    assert sorted(by_index) == ["0", "1", "2"]
    assert by_index["1"]["spec"]["containers"][0]["env"] == [{"name": "JOB_COMPLETION_INDEX", "value": "1"}]
    here.end(by_index["0"]["metadata"]["name"])
    here.end(by_index["1"]["metadata"]["name"], 1)
    here.end(by_index["2"]["metadata"]["name"])
    assert here.status()["completedIndexes"] == "0,2"
    here.world.clock.pass_(10 * SECOND)
    here.settle()
    [again] = here.active()
    assert again.startswith("train-1-")
    here.end(again)
    assert here.status()["completedIndexes"] == "0-2"
    assert here.condition("Complete") is not None


def test_a_finished_job_goes_when_its_time_is_over() -> None:
    """TtlSecondsAfterFinished removes the Job and its pods, not sooner."""
    here = Cluster(ttlSecondsAfterFinished=60)
    here.end(here.active()[0])
    assert here.reconciler.reconcile(KEY, here.world.clock.now()) == 60 * SECOND
    here.world.clock.pass_(60 * SECOND)
    here.settle()
    assert here.world.get("jobs", "n", "train") is None
    assert here.world.list("pods") == []


def test_indexes_are_written_as_kubernetes_does() -> None:
    """Rows of three or more are a range."""
    assert _ranges([1, 3, 4, 5, 7, 8]) == "1,3-5,7,8"
    assert (_ranges([]), _ranges([0])) == ("", "0")
