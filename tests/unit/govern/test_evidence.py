"""Decisions told in words and decided again: every rule that keeps its inputs, and none that was tampered with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from served import ALICE, BOB, DOMAIN, Served, made

from wharfinger.core.errors import Corrupt, NotFound, Unverified
from wharfinger.govern.explanation import explain
from wharfinger.govern.replay import replay
from wharfinger.policy.decision import Decision, Verdict, from_record
from wharfinger.policy.journal import find, read


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Return services that serve."""
    world = Served(tmp_path)
    yield world
    world.close()


def told(served: Served, identifier: str) -> tuple[Decision, dict[str, Any]]:
    """Return a decision and its inputs."""
    record, inputs = find(served.evidence, identifier)
    return from_record(record), inputs


def test_an_allowed_call_names_the_grant_and_its_issue(served: Served) -> None:
    """Who, what, at which door, under which grant, and how to decide it again."""
    words = "\n".join(explain(*told(served, served.ask("assistant", ALICE).id)))
    for part in (
        ALICE,
        "gateway door",
        "The grant that allowed it",
        "MIG-research-assistant-0",
        "wharf replay decision",
    ):
        assert part in words


def test_a_refusal_names_what_did_not_belong(served: Served) -> None:
    """The element, in words, and the grant that comes nearest."""
    words = "\n".join(explain(*told(served, served.ask("assistant", BOB).id)))
    assert "What did not belong: the caller" in words
    assert "The grant that comes nearest" in words


def test_an_issued_grant_names_its_premises_and_policies(served: Served) -> None:
    """Verification, the right to serve, each caller and the policies that had a say."""
    [grant] = served.grants("assistant")
    words = "\n".join(explain(*told(served, grant["spec"]["decision"])))
    for part in (
        "verified",
        "AccessPolicy research-serves allows serve",
        f"Caller {ALICE} is in it",
        "TrustPolicy papers",
    ):
        assert part in words


def test_a_decision_replays_after_its_policies_have_changed(served: Served) -> None:
    """The stored inputs decide, not what the policies say today."""
    [grant] = served.grants("assistant")
    call = served.ask("assistant", ALICE)
    deny = {"effect": "Deny", "identities": [f"spiffe://{DOMAIN}/ns/research/*"], "verbs": ["serve"]}
    served.world.put(made("AccessPolicy", "stop", "", deny))
    served.settle()
    assert served.grants() == []
    assert replay(*told(served, grant["spec"]["decision"])).allowed
    assert replay(*told(served, call.id)).allowed
    refusals = [r["id"] for r in read(served.evidence / "control") if r.get("kind") == "decision" and not r["allowed"]]
    assert len(refusals) == 2
    assert not any(replay(*told(served, refusal)).allowed for refusal in refusals)


@pytest.mark.parametrize("change", ["devices", "callers", "policies", "premises"])
def test_an_issue_on_changed_inputs_is_another_verdict(served: Served, change: str) -> None:
    """A grant, a premise or a policy that is not the stored one is found out."""
    decision, inputs = told(served, served.grants("assistant")[0]["spec"]["decision"])
    if change == "devices":
        inputs["grants"][0]["claim"]["devices"][0]["uuid"] = "MIG-other"
    elif change == "callers":
        inputs["grants"][0]["callers"].append(BOB)
    elif change == "policies":
        inputs["policies"] = inputs["policies"][1:]
    else:
        inputs["premises"][0]["silicon"][0][3] = "MIG-other"
    with pytest.raises(Unverified):
        replay(decision, inputs)


def test_a_verdict_that_was_turned_is_found_out(served: Served) -> None:
    """A refusal stored as an allow does not replay."""
    decision, inputs = told(served, served.ask("assistant", BOB).id)
    with pytest.raises(Unverified, match="replayed deny"):
        replay(replace(decision, verdict=Verdict(True, "granted")), inputs)


def test_inputs_of_another_shape_are_corrupt_and_unknown_rules_are_said(served: Served) -> None:
    """Missing inputs are no verdict; a rule that keeps none says so, and its explanation does not promise a replay."""
    decision, inputs = told(served, served.ask("assistant", ALICE).id)
    with pytest.raises(Corrupt):
        replay(decision, {})
    other = replace(decision, rule="door.record")
    with pytest.raises(NotFound):
        replay(other, inputs)
    assert "not replayed" in explain(other, {})[-1]
