"""Deployments: pods of the present template, replaced within bounds, with a status that kubectl can follow."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from world import World

from wharfinger.controllers import podset, rollout
from wharfinger.controllers.deployment import DeploymentReconciler
from wharfinger.controllers.world import Key
from wharfinger.core.clock import SECOND, rfc3339
from wharfinger.core.errors import Denied
from wharfinger.kinds.condition import find

KEY = Key("n", "web")


def deployment(image: str = "a", replicas: int = 3, **spec: Any) -> dict[str, Any]:
    """Return a Deployment."""
    template = {
        "metadata": {"labels": {"app": "web"}, "annotations": {"note": "1"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "n"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


class Cluster:
    """A world with one Deployment, and a node that makes pods ready when told."""

    def __init__(self, told: dict[str, Any] | None = None) -> None:
        self.world = World(told or deployment())
        self.reconciler = DeploymentReconciler(self.world, self.world)

    def step(self) -> None:
        """Reconcile once."""
        self.reconciler.reconcile(KEY, self.world.clock.now())

    def pods(self, image: str = "") -> list[dict[str, Any]]:
        """Return the pods, those of an image."""
        return [dict(p) for p in self.world.list("pods") if image in ("", p["spec"]["containers"][0]["image"])]

    def make_ready(self, *images: str) -> None:
        """Have the pods of these images ready."""
        for pod in self.pods():
            if pod["spec"]["containers"][0]["image"] in images:
                ready = {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(self.world.clock.now())}
                self.world.status("pods", "n", pod["metadata"]["name"], {"phase": "Running", "conditions": [ready]})

    def change(self, **spec: Any) -> None:
        """Change the Deployment's spec."""
        self.world.patch("deployments", "n", "web", {"spec": spec})

    def status(self) -> dict[str, Any]:
        """Return the Deployment's status."""
        found: dict[str, Any] = self.world.must("deployments", "n", "web")["status"]
        return found

    def condition(self, kind: str) -> tuple[str, str]:
        """Return status and reason of a condition."""
        found = find(self.status()["conditions"], kind)
        assert found is not None
        return found["status"], found["reason"]


def image_of(name: str) -> dict[str, Any]:
    """Return a patch of the template."""
    return {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}


def test_pods_are_made_of_the_template_and_owned() -> None:
    """A Deployment makes its replicas, labelled with the template's fingerprint and controlled by it."""
    here = Cluster()
    here.world.settle(here.reconciler)
    pods = here.pods()
    assert len(pods) == 3
    mark = podset.fingerprint(here.world.must("deployments", "n", "web")["spec"]["template"])
    for pod in pods:
        assert pod["metadata"]["labels"] == {"app": "web", "pod-template-hash": mark}
        assert pod["metadata"]["annotations"] == {"note": "1"}
        assert pod["metadata"]["name"].startswith(f"web-{mark}-")
        assert pod["metadata"]["ownerReferences"][0]["controller"] is True


def test_the_status_says_how_far_a_rollout_is() -> None:
    """Counts, Available and Progressing are what kubectl rollout status waits for."""
    here = Cluster()
    here.world.settle(here.reconciler)
    assert here.status()["updatedReplicas"] == here.status()["unavailableReplicas"] == 3
    assert here.condition("Available") == ("False", "MinimumReplicasUnavailable")
    assert here.condition("Progressing") == ("True", "ReplicaSetUpdated")
    here.make_ready("a")
    here.world.settle(here.reconciler)
    status = here.status()
    assert (status["readyReplicas"], status["availableReplicas"], status.get("unavailableReplicas")) == (3, 3, None)
    assert status["observedGeneration"] == 1
    assert here.condition("Available") == ("True", "MinimumReplicasAvailable")
    assert here.condition("Progressing") == ("True", "NewReplicaSetAvailable")


def test_a_stale_cache_makes_no_second_pod() -> None:
    """Names follow from what is there: deciding again on the same view asks for the same names."""
    told = {**deployment(), "metadata": {"name": "web", "namespace": "n", "uid": "u", "generation": 1}}
    first = rollout.decide(told, [], 0)
    again = rollout.decide(told, [], 0)
    assert [p["metadata"]["name"] for p in first.create] == [p["metadata"]["name"] for p in again.create]


def test_scaling_down_takes_what_is_missed_least() -> None:
    """Pods that are not ready go before those that are."""
    here = Cluster()
    here.world.settle(here.reconciler)
    here.make_ready("a")
    unready = here.pods()[0]["metadata"]["name"]
    here.world.status("pods", "n", unready, {"conditions": [{"type": "Ready", "status": "False"}]})
    here.change(replicas=2)
    here.world.settle(here.reconciler)
    assert unready not in [p["metadata"]["name"] for p in here.pods()]
    assert len(here.pods()) == 2
    here.change(replicas=0)
    here.world.settle(here.reconciler)
    assert here.pods() == []


def test_a_rolling_update_stays_within_its_bounds() -> None:
    """New pods come within maxSurge, old ones go within maxUnavailable, until only new ones are left."""
    here = Cluster(deployment(strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}))
    here.world.settle(here.reconciler)
    here.make_ready("a")
    here.world.settle(here.reconciler)
    here.change(**image_of("b"))
    for _ in range(20):
        here.step()
        assert len(here.pods()) <= 4
        ready = [p for p in here.pods() if podset.is_ready(p)]
        assert len(ready) >= 3
        here.make_ready("b")
    assert (len(here.pods("a")), len(here.pods("b"))) == (0, 3)


def test_a_template_that_fails_does_not_block_the_next() -> None:
    """Pods of a template that never becomes ready give way to those of the next, and the good ones stay."""
    here = Cluster(deployment(strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}))
    here.world.settle(here.reconciler)
    here.make_ready("a")
    here.change(**image_of("bad"))
    here.world.settle(here.reconciler)
    assert (len(here.pods("a")), len(here.pods("bad"))) == (3, 1)
    here.change(**image_of("good"))
    here.world.settle(here.reconciler)
    assert (len(here.pods("a")), len(here.pods("bad")), len(here.pods("good"))) == (3, 0, 1)
    for _ in range(5):
        here.make_ready("good")
        here.world.settle(here.reconciler)
    assert (len(here.pods("a")), len(here.pods("good"))) == (0, 3)


def test_recreate_ends_all_before_it_begins() -> None:
    """Under Recreate no two templates run at a time."""
    here = Cluster(deployment(strategy={"type": "Recreate"}))
    here.world.settle(here.reconciler)
    here.make_ready("a")
    here.change(**image_of("b"))
    here.step()
    assert here.pods() == []
    here.world.settle(here.reconciler)
    assert len(here.pods("b")) == 3


def test_a_pod_that_has_failed_is_replaced_and_removed() -> None:
    """A pod that ended for good does not count, and does not stay."""
    here = Cluster()
    here.world.settle(here.reconciler)
    gone = here.pods()[0]["metadata"]["name"]
    here.world.status("pods", "n", gone, {"phase": "Failed", "reason": "GrantRevoked"})
    here.world.settle(here.reconciler)
    assert len(here.pods()) == 3
    assert all((p.get("status") or {}).get("phase") != "Failed" for p in here.pods())


def test_a_refused_pod_is_told_in_the_status() -> None:
    """When admission refuses a pod, the condition ReplicaFailure says why, and it is tried again."""
    here = Cluster()
    create = here.world.create

    def refuse(_: Any) -> Any:
        raise Denied("tenant n is over its quota")

    here.world.create = refuse  # type: ignore[method-assign]
    assert here.reconciler.reconcile(KEY, here.world.clock.now()) == 10 * SECOND
    assert here.condition("ReplicaFailure") == ("True", "FailedCreate")
    here.world.create = create  # type: ignore[method-assign]
    here.world.settle(here.reconciler)
    assert find(here.status()["conditions"], "ReplicaFailure") is None


def test_no_progress_within_the_deadline_is_told() -> None:
    """A rollout that stands still for progressDeadlineSeconds says ProgressDeadlineExceeded, once."""
    here = Cluster(deployment(progressDeadlineSeconds=60))
    here.world.settle(here.reconciler)
    assert here.reconciler.reconcile(KEY, here.world.clock.now()) == 60 * SECOND
    here.world.clock.pass_(60 * SECOND)
    here.world.settle(here.reconciler)
    assert here.condition("Progressing") == ("False", "ProgressDeadlineExceeded")


def test_a_pod_is_available_after_its_least_time_ready() -> None:
    """MinReadySeconds is waited for, and looked at again when it is over."""
    here = Cluster(deployment(replicas=1, minReadySeconds=5))
    here.world.settle(here.reconciler)
    here.make_ready("a")
    assert here.reconciler.reconcile(KEY, here.world.clock.now()) == 5 * SECOND
    assert here.status().get("availableReplicas") is None
    here.world.clock.pass_(5 * SECOND)
    here.world.settle(here.reconciler)
    assert here.status()["availableReplicas"] == 1


def test_a_paused_deployment_is_left_alone() -> None:
    """A change of the template waits until the Deployment is resumed."""
    here = Cluster()
    here.world.settle(here.reconciler)
    here.change(paused=True, **image_of("b"))
    here.world.settle(here.reconciler)
    assert (len(here.pods("a")), len(here.pods("b"))) == (3, 0)


@settings(max_examples=60, deadline=None)
@given(
    replicas=st.integers(0, 6),
    surge=st.sampled_from([0, 1, 2, "25%", "100%"]),
    spare=st.sampled_from([0, 1, 2, "25%", "50%"]),
    ready=st.lists(st.sets(st.sampled_from("abcdef")), min_size=1, max_size=12),
)
def test_no_rollout_leaves_its_bounds(replicas: int, surge: Any, spare: Any, ready: list[set[str]]) -> None:
    """Whatever templates come and whichever pods become ready: never too many pods, never too few that serve."""
    strategy = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": spare}}
    here = Cluster(deployment(replicas=replicas, strategy=strategy))
    here.world.settle(here.reconciler)
    here.make_ready("a")
    above, below = rollout._leeway({"strategy": strategy}, replicas)
    for number, images in enumerate(ready):
        here.change(**image_of("abcdef"[number % 6]))
        for _ in range(3):
            here.step()
            assert len(here.pods()) <= replicas + above
            assert len([p for p in here.pods() if podset.is_ready(p)]) >= replicas - below
            here.make_ready(*images)
