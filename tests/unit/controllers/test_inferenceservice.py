"""An InferenceService from its premises to grants: issued, replaced, revoked, and nobody else's touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import ALICE, BOB, DOMAIN, Served, made

from wharfinger.controllers.grant import GrantReconciler
from wharfinger.controllers.inferenceservice import InferenceServiceReconciler
from wharfinger.core.clock import HOUR, MINUTE, rfc3339
from wharfinger.core.errors import Invalid
from wharfinger.govern.replay import replay
from wharfinger.kinds.condition import find
from wharfinger.policy.decision import from_record
from wharfinger.policy.journal import find as find_decision
from wharfinger.policy.journal import read


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Return three services that serve."""
    world = Served(tmp_path)
    yield world
    world.close()


def ready(served: Served, name: str, namespace: str = "research") -> tuple[str, str, str]:
    """Return status, reason and message of a service's Ready condition."""
    status = served.world.must("inferenceservices", namespace, name)["status"]
    found = find(status["conditions"], "Ready")
    assert found is not None
    return found["status"], found["reason"], found["message"]


def deny(served: Served, identity: str, verbs: tuple[str, ...] = ("serve", "pull", "call")) -> None:
    """Write the policy that `wharf revoke` writes."""
    spec = {"effect": "Deny", "identities": [identity], "verbs": list(verbs)}
    served.world.put(made("AccessPolicy", "revoked", "", spec))
    served.settle()


def test_each_service_serves_under_a_grant_of_its_own(served: Served) -> None:
    """Identity, the digest of its model, its slice and its caller are in the grant, and its decision replays."""
    assert ready(served, "assistant")[1] == "Serving"
    [grant] = served.grants("assistant")
    spec = grant["spec"]
    model = served.world.must("models", "research", "assistant-model")
    assert spec["workload"] == f"spiffe://{DOMAIN}/ns/research/sa/assistant"
    assert spec["artifacts"] == [model["spec"]["artifact"]["digest"]]
    assert spec["callers"] == [ALICE]
    assert spec["claim"]["devices"][0]["uuid"] == "MIG-research-assistant-0"
    record, inputs = find_decision(served.evidence, spec["decision"])
    assert replay(from_record(record), inputs).allowed


def test_nothing_changes_when_nothing_changed(served: Served) -> None:
    """Settled means settled: more looks issue, revoke and write nothing."""
    before = (served.world.list("grants"), len(list(read(served.evidence / "control"))))
    served.world.writes.clear()
    served.settle()
    assert (served.world.list("grants"), len(list(read(served.evidence / "control")))) == before
    assert [write for write in served.world.writes if write[1] != "pods"] == []


def test_a_deny_revokes_the_grants_and_scales_to_zero(served: Served) -> None:
    """A Deny for the workload: every grant of it revoked with the reason, no replica wanted, the refusal on record."""
    deny(served, f"spiffe://{DOMAIN}/ns/research/sa/assistant")
    assert served.grants("assistant") == []
    [revoked] = [g for g in served.world.list("grants") if g["spec"]["service"] == "assistant"]
    assert "AccessPolicy revoked denies serve" in revoked["spec"]["revokedReason"]
    assert served.world.must("deployments", "research", "assistant")["spec"]["replicas"] == 0
    assert ready(served, "assistant")[:2] == ("False", "AccessDenied")
    refusals = [r for r in read(served.evidence / "control") if r.get("kind") == "decision" and not r["allowed"]]
    assert [r["rule"] for r in refusals] == ["access.decide"]
    record, inputs = find_decision(served.evidence, refusals[0]["id"])
    assert not replay(from_record(record), inputs).allowed


def test_a_deny_leaves_the_neighbours_grants_untouched(served: Served) -> None:
    """The other service of the tenant and the other tenant's keep the very grant objects they had."""
    before = [served.grants("archive"), served.grants("hotline", "support")]
    deny(served, f"spiffe://{DOMAIN}/ns/research/sa/assistant")
    assert [served.grants("archive"), served.grants("hotline", "support")] == before


def test_lifting_the_deny_gives_a_new_grant(served: Served) -> None:
    """Without the policy a replica starts and gets a grant; the revoked one stays revoked."""
    deny(served, f"spiffe://{DOMAIN}/ns/research/sa/assistant")
    served.world.delete("accesspolicies", "", "revoked")
    served.settle()
    assert len(served.grants("assistant")) == 1
    assert ready(served, "assistant")[1] == "Serving"


def test_a_caller_who_is_denied_is_taken_out_of_the_grant_at_once(served: Served) -> None:
    """The old grant, which still allows the caller, is revoked, not merely replaced; the new one names nobody."""
    deny(served, ALICE, ("call",))
    [grant] = served.grants("assistant")
    assert grant["spec"]["callers"] == []
    assert served.grants("archive")[0]["spec"]["callers"] == [BOB]


def test_a_grant_is_renewed_before_the_old_one_goes(served: Served) -> None:
    """After half its life a new grant is there before the old is revoked as replaced."""
    [old] = served.grants("assistant")
    served.world.clock.pass_(13 * HOUR)
    served.world.writes.clear()
    served.settle()
    [new] = served.grants("assistant")
    assert new["metadata"]["name"] != old["metadata"]["name"]
    mine = [(verb, name) for verb, kind, name in served.world.writes if kind == "grants"]
    assert mine.index(("create", new["metadata"]["name"])) < mine.index(("patch", old["metadata"]["name"]))
    gone = served.world.must("grants", "research", old["metadata"]["name"])
    assert gone["spec"]["revokedReason"] == "replaced by a newer grant"


def test_a_clock_that_was_set_back_gives_a_grant_that_holds_now(served: Served) -> None:
    """A grant of the future permits nothing yet: another takes its place."""
    served.world.clock.pass_(-2 * HOUR)
    served.settle()
    [grant] = served.grants("assistant")
    assert grant["spec"]["notBefore"] == rfc3339(served.world.clock.now())
    assert served.ask("assistant", ALICE).verdict.allowed


def test_a_lagging_cache_issues_no_second_grant(served: Served) -> None:
    """Looking again before the new grant is seen makes the same name, so nothing is issued twice."""
    served.world.clock.pass_(13 * HOUR)
    listed = served.world.list
    stale = {"grants": listed("grants")}
    served.world.list = lambda plural, ns="": stale.get(plural) or listed(plural, ns)  # type: ignore[method-assign,assignment]
    key = served.world.must("inferenceservices", "research", "assistant")["metadata"]
    for _ in range(3):
        served.services.reconcile(_key(key), served.world.clock.now())
        served.world.clock.pass_(10**9)
    served.world.list = listed  # type: ignore[method-assign]
    fresh = [g for g in served.world.list("grants") if g not in stale["grants"]]
    assert len([g for g in fresh if g["spec"]["service"] == "assistant" and not g["spec"]["revoked"]]) == 1


def test_an_unverified_model_is_not_served(served: Served) -> None:
    """The TrustPolicy names another builder: the model's readiness goes, and the service's grants with it."""
    policy = served.world.must("trustpolicies", "", "papers")
    policy["spec"]["builders"] = [f"spiffe://{DOMAIN}/wharfinger/audited"]
    served.world.put({k: policy[k] for k in ("apiVersion", "kind", "metadata", "spec")})
    served.settle()
    assert ready(served, "assistant")[:2] == ("False", "Unverified")
    assert served.grants() == []


def test_a_replica_with_a_flipped_bit_says_so_in_the_services_status(served: Served) -> None:
    """What the runtime said as it ended stands in the status, whatever the node says of restarts."""
    pod = served.world.must("pods", "research", "assistant-0")
    ended = {"exitCode": 1, "reason": "Error", "message": "DigestMismatch: model.safetensors"}
    served.world.status(
        "pods",
        "research",
        "assistant-0",
        {
            **pod["status"],
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [
                {
                    "name": "runtime",
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10 s"}},
                    "lastState": {"terminated": ended},
                }
            ],
        },
    )
    served.settle()
    assert ready(served, "assistant")[:2] == ("False", "DigestMismatch")
    assert "DigestMismatch: model.safetensors" in ready(served, "assistant")[2]


def test_a_pod_that_only_bears_the_label_is_no_replica(served: Served) -> None:
    """A person's pod with the service's label and a claim of its own gets no grant and is no endpoint."""
    template = served.world.must("deployments", "research", "assistant")["spec"]["template"]
    served.pod("research", "impostor", template)
    served.settle()
    assert [g["spec"]["pod"] for g in served.grants("assistant")] == ["assistant-0"]
    endpoints = served.world.must("inferenceservices", "research", "assistant")["status"]["endpoints"]
    assert [e["pod"] for e in endpoints] == ["assistant-0"]


def test_a_deployment_that_the_api_refuses_is_told_in_the_status(served: Served) -> None:
    """The words of the refusal are the service's reason."""

    def refusing(desired: Any) -> Any:
        raise Invalid("deployments assistant: spec.template: no")

    served.world.apply = refusing  # type: ignore[method-assign]
    served.world.patch("inferenceservices", "research", "assistant", {"spec": {"replicas": 2}})
    served.world.settle(served.services)
    assert ready(served, "assistant") == ("False", "DeploymentRefused", "deployments assistant: spec.template: no")


def test_another_ask_is_another_template_and_the_replicas_roll_over(served: Served) -> None:
    """A changed profile puts another claim template in the place of the old, and the replicas say which they are of."""
    asks, uids = set(), set()
    for count in (1, 2):
        served.world.patch("gpuprofiles", "", "small", {"spec": {"sharing": "Exclusive", "count": count}})
        served.world.settle(served.services)
        deployment = served.world.must("deployments", "research", "assistant")["spec"]["template"]
        [named] = [claim["resourceClaimTemplateName"] for claim in deployment["spec"]["resourceClaims"]]
        template = served.world.must("resourceclaimtemplates", "research", named)
        assert template["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"] == count
        asks.add(deployment["metadata"]["annotations"]["wharfinger.io/ask"])
        uids.add(template["metadata"]["uid"])
    assert (len(asks), len(uids)) == (2, 2)


def test_grants_go_with_the_service(served: Served) -> None:
    """Deleting the service deletes its deployment and its grants, and nobody else's."""
    served.world.delete("inferenceservices", "research", "assistant")
    assert served.grants("assistant") == []
    assert served.world.get("deployments", "research", "assistant") is None
    assert len(served.grants("archive")) == 1


def test_a_grant_says_whether_it_is_in_force_and_goes_when_it_is_long_over(served: Served) -> None:
    """Issued, then revoked with the reason; minutes after its pod is gone the object goes too."""
    grants = GrantReconciler(served.world, served.world, served.journal, ())
    served.world.settle(grants)
    [grant] = served.grants("assistant")
    name = grant["metadata"]["name"]
    assert find(served.world.must("grants", "research", name)["status"]["conditions"], "Active")["reason"] == "Issued"  # type: ignore[index]
    deny(served, f"spiffe://{DOMAIN}/ns/research/sa/assistant")
    served.world.settle(grants)
    told = find(served.world.must("grants", "research", name)["status"]["conditions"], "Active")
    assert told is not None
    assert (told["status"], told["reason"]) == ("False", "Revoked")
    assert "AccessPolicy revoked denies serve" in told["message"]
    served.world.clock.pass_(6 * MINUTE)
    served.world.settle(grants)
    assert served.world.get("grants", "research", name) is None
    assert len(served.grants("archive")) == 1


def test_over_quota_waits_with_the_schedulers_words(served: Served) -> None:
    """A replica that is not scheduled gives its reason to the service, and gets no grant."""
    message = "tenant research: quota compute slices 1, in use 1, asks 7"
    served.world.delete("resourceclaims", "research", "assistant-0-gpu")
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    pod: Any = served.world.must("pods", "research", "assistant-0")
    served.world.put({**pod, "status": {"phase": "Pending", "conditions": [unscheduled]}})
    served.settle()
    assert message in ready(served, "assistant")[2]
    assert served.grants("assistant") == []


def _key(meta: Any) -> Any:
    from wharfinger.controllers.world import Key

    return Key(meta["namespace"], meta["name"])


def test_a_service_that_a_finalizer_holds_keeps_no_grant(served: Served) -> None:
    """Deleted and held: its grants are revoked at once, or nothing could ever revoke them; its neighbour keeps its."""
    service = served.world.must("inferenceservices", "research", "assistant")
    service["metadata"]["finalizers"] = ["example.com/hold"]
    served.world.put(service)
    served.world.delete("inferenceservices", "research", "assistant")
    served.settle()
    assert served.grants("assistant") == []
    assert len(served.grants("archive")) == 1


def test_a_grant_that_was_orphaned_is_revoked(served: Served) -> None:
    """Deleted with its dependents left behind: no grant outlives its service, seen now or after a restart."""
    [grant] = served.grants("assistant")
    orphan = served.world.must("grants", "research", grant["metadata"]["name"])
    del orphan["metadata"]["ownerReferences"]
    served.world.put(orphan)
    served.world.delete("inferenceservices", "research", "assistant")
    [reconciler] = [r for r in served.reconcilers if isinstance(r, InferenceServiceReconciler)]
    for key in reconciler.watches()["grants"](orphan):
        reconciler.reconcile(key, served.world.clock.now())
    gone = served.world.must("grants", "research", grant["metadata"]["name"])
    assert gone["spec"]["revokedReason"] == "its service is gone"
