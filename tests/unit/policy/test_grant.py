"""The grant: what each door is told, over every combination of what may be swapped."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wharfinger.core.clock import HOUR, SECOND
from wharfinger.core.errors import Denied
from wharfinger.policy.decision import Verdict
from wharfinger.policy.grant import NEEDS, Door, Premises, Silicon, issue, permits, permits_any

NOW = 1_800_000_000 * SECOND
TD = "spiffe://wharfinger.local"
YES = Verdict(True, "verified")
NO = Verdict(False, "unsigned", "signature")


def premises(letter: str, **changes: Any) -> Premises:
    """Return premises that hold, every element marked by `letter`."""
    told: dict[str, Any] = {
        "workload": f"{TD}/ns/team-{letter}/sa/chat",
        "pod": f"chat-{letter}",
        "pod_uid": f"uid-{letter}",
        "service": "chat",
        "artifact_verdicts": {"sha256:" + letter * 64: YES},
        "serve": YES,
        "calls": {f"{TD}/ns/team-{letter}/sa/caller": YES},
        "claim_name": "gpu",
        "claim_uid": f"claim-{letter}",
        "claim_holder": f"uid-{letter}",
        "silicon": [Silicon("gpu.wharfinger.io", "node", f"gpu-{letter}", f"GPU-{letter}", "gpu")],
        "policy_revision": "sha256:" + "0" * 64,
    }
    return Premises(**{**told, **changes})


A, B = (issue(premises(letter), "decision", NOW) for letter in "ab")


def ask(door: Door, letters: str, now: int = NOW) -> Verdict:
    """Ask both grants at `door` with (identity, artifact, device, caller) taken from `letters`."""
    who, what, device, caller = letters
    verdict, _ = permits_any(
        [A, B],
        door,
        f"{TD}/ns/team-{who}/sa/chat",
        "sha256:" + what * 64,
        f"GPU-{device}",
        f"{TD}/ns/team-{caller}/sa/caller",
        now,
    )
    return verdict


@pytest.mark.parametrize("letters", ["".join(p) for p in product("ab", repeat=4)])
def test_of_sixteen_swaps_only_the_two_granted_pass(letters: str) -> None:
    """Every element valid in itself: exactly aaaa and bbbb pass, each refusal names an element that was swapped."""
    verdict = ask(Door.GATEWAY, letters)
    assert verdict.allowed == (letters in ("aaaa", "bbbb"))
    if verdict.allowed:
        return
    position = ("identity", "artifact", "device", "caller").index(verdict.element)
    minority = min("ab", key=letters.count)
    if letters.count("a") != 2:
        assert letters[position] == minority


def test_a_grant_that_is_over_does_not_stand_before_one_in_force() -> None:
    """A workload's revoked grant named the device that is asked for: the refusal names the device, not the revocation."""
    over = {**A, "claim": B["claim"], "revoked": True, "revokedReason": "its replica went"}
    told = {"who": A["workload"], "what": A["artifacts"][0], "device": "GPU-b", "caller": A["callers"][0]}
    for grants, element in (
        ([over, A, B], "device"),
        ([over, B], "revocation"),
        ([over], "revocation"),
        ([None, over], "revocation"),
    ):
        verdict, grant = permits_any(grants, Door.RUNTIME, **told, now=NOW)  # type: ignore[arg-type]
        assert (verdict.allowed, verdict.element) == (False, element)
        assert grant == (A if element == "device" else over)


@pytest.mark.parametrize("door", list(Door))
def test_a_door_that_presents_too_little_is_refused(door: Door) -> None:
    """What a door must present and does not is a no that names it."""
    for element in NEEDS[door]:
        told: dict[str, str | None] = {
            "identity": A["workload"],
            "artifact": A["artifacts"][0],
            "device": "GPU-a",
            "caller": A["callers"][0],
        }
        told[element] = None
        verdict = permits(A, door, told["identity"], told["artifact"], told["device"], told["caller"], NOW)
        assert not verdict.allowed
        assert verdict.element == element


def test_revocation_and_time_close_every_door() -> None:
    """A revoked grant, one not yet valid and one expired permit nothing."""
    arguments = (A["workload"], A["artifacts"][0], "GPU-a", A["callers"][0])
    for door in Door:
        assert permits(A, door, *arguments, NOW).allowed
        assert permits({**A, "revoked": True}, door, *arguments, NOW).element == "revocation"
        assert permits(A, door, *arguments, NOW - SECOND).element == "validity"
        assert permits(A, door, *arguments, NOW + 24 * HOUR).element == "validity"


@given(
    st.dictionaries(
        st.sampled_from([*A, "claim"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.text(),
            st.lists(st.text()),
            st.dictionaries(st.text(), st.none()),
        ),
    )
)
def test_a_damaged_grant_is_a_no_or_says_what_the_whole_one_says(damage: dict[str, Any]) -> None:
    """Whatever stands in a grant's fields, asking it never raises and never permits a stranger."""
    for door in Door:
        verdict = permits(
            {**A, **damage}, door, f"{TD}/ns/stranger/sa/x", "sha256:" + "c" * 64, "GPU-c", f"{TD}/x", NOW
        )
        assert not verdict.allowed


def test_a_missing_field_is_a_no() -> None:
    """A grant that lacks any field it is judged by permits nothing."""
    for name in ("revoked", "notBefore", "notAfter", "workload", "artifacts", "callers", "claim"):
        broken = {key: value for key, value in A.items() if key != name}
        assert not permits(
            broken, Door.GATEWAY, A["workload"], A["artifacts"][0], "GPU-a", A["callers"][0], NOW
        ).allowed


def test_a_verdict_is_never_a_bare_yes() -> None:
    """`if verdict:` would be true of every object, so it raises."""
    with pytest.raises(TypeError, match="allowed"):
        bool(NO)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"artifact_verdicts": {"sha256:" + "a" * 64: NO}}, "unsigned"),
        ({"artifact_verdicts": {}}, "at least one"),
        ({"serve": NO}, "may not serve"),
        ({"silicon": []}, "allocated claim"),
        ({"claim_holder": "somebody-else"}, "not reserved"),
    ],
)
def test_no_grant_without_every_premise(changes: dict[str, Any], says: str) -> None:
    """Each premise alone, when it does not hold, is in the way of the grant and is named."""
    with pytest.raises(Denied, match=says):
        issue(premises("a", **changes), "decision", NOW)


def test_a_refused_caller_is_left_out_of_the_grant() -> None:
    """One caller that policy refuses does not stand in the way of the others."""
    spec = issue(premises("a", calls={f"{TD}/a": YES, f"{TD}/b": NO}), "decision", NOW)
    assert spec["callers"] == [f"{TD}/a"]


def test_a_pattern_matches_below_and_not_beside() -> None:
    """`.../*` stands for what is below it, neither for itself nor for a longer sibling."""
    spec = {**A, "callers": [f"{TD}/tenant/a/*"]}
    told = (A["workload"], A["artifacts"][0], "GPU-a")
    for caller, expected in (
        ("tenant/a/user/x", True),
        ("tenant/a", False),
        ("tenant/ab/user/x", False),
        ("tenant/a/", False),
    ):
        assert permits(spec, Door.GATEWAY, *told, f"{TD}/{caller}", NOW).allowed == expected
