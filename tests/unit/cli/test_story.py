"""The story's own judgement: what a combination of the swap matrix may be refused for, and that a step can fail."""

from __future__ import annotations

import itertools
from pathlib import Path

from wharfinger.cli.story.stage import Stage, Step
from wharfinger.cli.story.swap import ELEMENTS, strangers
from wharfinger.policy.grant import Door, permits_any

NOW = 1_700_000_000_000_000_000


def _grant(index: int) -> dict[str, object]:
    return {
        "workload": f"w{index}",
        "artifacts": [f"m{index}"],
        "claim": {"devices": [{"uuid": f"d{index}"}]},
        "callers": [f"spiffe://t/c{index}"],
        "notBefore": "2023-11-14T00:00:00Z",
        "notAfter": "2033-11-14T00:00:00Z",
        "revoked": False,
    }


def test_the_matrix_expects_what_the_grant_says() -> None:
    """For all 16 combinations the rule allows exactly the two grants, and names an element that the story expects."""
    grants = [_grant(0), _grant(1)]
    allowed = 0
    for chosen in itertools.product(range(2), repeat=4):
        who, what, device, caller = (f"{p}{i}" for p, i in zip(("w", "m", "d", "spiffe://t/c"), chosen, strict=True))
        verdict, _ = permits_any(grants, Door.GATEWAY, who, what, device, caller, NOW)
        if len(set(chosen)) == 1:
            assert verdict.allowed
            allowed += 1
        else:
            assert not verdict.allowed
            assert verdict.element in strangers(chosen), chosen
    assert allowed == 2
    assert set(ELEMENTS) == {"identity", "artifact", "device", "caller"}


def test_a_step_that_does_not_hold_is_told_and_kept(tmp_path: Path) -> None:
    """`check` returns false, tells the step and keeps it with what was expected and what came."""
    told: list[Step] = []
    stage = Stage(tmp_path, tell=told.append)
    assert not stage.check("a", "shown", "wharf x", "yes", "no", ok=False, decision="d")
    assert [s.record() for s in told] == [
        {
            "name": "a",
            "ok": False,
            "shown": "shown",
            "command": "wharf x",
            "expected": "yes",
            "got": "no",
            "decision": "d",
        }
    ]
    assert stage.steps == told


def test_a_command_that_fails_is_seen_to_fail(tmp_path: Path) -> None:
    """A command's exit code and words are what the story judges by."""
    ran = Stage(tmp_path, tell=lambda _: None).run("status", "-o", "json")
    assert ran.code != 0
    assert ran.err
