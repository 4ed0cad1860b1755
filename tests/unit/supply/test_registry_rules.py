"""The registry's rules as a pure function: every kind of caller, every action, and what a Deny does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wharfinger.core.errors import Invalid
from wharfinger.supply.registry.authorization import Action, Ask, Known, Named, decide, inputs_of, replay

TD = "spiffe://wharfinger.local"
DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
REPO = "research/models/tiny"
KNOWN = Known(
    "wharfinger.local",
    {"research": "research", "support": "support"},
    {"research": frozenset({"ada"})},
    (Named("Model", "research", "tiny", DIGEST),),
)
PULL, PUSH, DELETE, SEE = Action.PULL, Action.PUSH, Action.DELETE, Action.SEE


def condition(text: str, variables: Mapping[str, Any]) -> bool:
    """Evaluate `tenant=NAME`; anything else is an error."""
    name, _, value = text.partition("=")
    if name != "tenant":
        raise Invalid("no such condition")
    return bool(variables["tenant"] == value)


def rule(who: str, action: Action, repository: str = REPO, *policies: dict[str, Any], digest: str = DIGEST) -> bool:
    """Return whether it is allowed without a grant."""
    named = KNOWN.named if repository == REPO else ()
    known = Known(KNOWN.trust_domain, KNOWN.tenant_of, KNOWN.admins, named, tuple(policies))
    asked = Ask(f"{TD}/{who}" if "://" not in who else who, action, repository, (digest,) if action is PULL else ())
    ruling = decide(asked, known, condition)
    assert ruling.verdict.reason and (ruling.verdict.allowed or ruling.verdict.element)
    assert replay(inputs_of(asked, known), condition) == ruling.verdict
    assert not (ruling.ask_grants and (ruling.verdict.allowed or action is not PULL))
    return ruling.verdict.allowed


def policy(
    *verbs: str, who: str = f"{TD}/ns/research/sa/x", effect: str = "Allow", text: str = "", **objects: Any
) -> Any:
    """Return an AccessPolicy."""
    spec: dict[str, Any] = {"effect": effect, "identities": [who], "verbs": list(verbs), "objects": objects}
    return {"metadata": {"name": f"p{effect}"}, "spec": {**spec, "condition": text} if text else spec}


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ("wharfinger/control", {PULL, PUSH, DELETE, SEE}),
        ("wharfinger/admin", {PULL, PUSH, DELETE, SEE}),
        ("wharfinger/node", {PULL}),
        ("wharfinger/gateway", set()),
        ("wharfinger/registry", set()),
        ("wharfinger/builder", set()),
        ("tenant/research/user/ada", {PULL, PUSH, DELETE, SEE}),
        ("tenant/research/user/alice", {PULL, PUSH, SEE}),
        ("tenant/support/user/ada", set()),
        ("ns/research/sa/server", set()),
        ("ns/support/sa/server", set()),
        ("something/else", set()),
        ("spiffe://other.domain/tenant/research/user/ada", set()),
        ("spiffe://other.domain/wharfinger/control", set()),
    ],
)
def test_each_caller_may_do_what_is_theirs(who: str, allowed: set[Action]) -> None:
    """Without a policy: parts by their duty, a tenant's people in their namespaces, nobody else anything."""
    assert {action for action in Action if rule(who, action)} == allowed


def test_the_node_pushes_outputs_of_steps_alone() -> None:
    """`NAMESPACE/steps-POD`, one segment, and nothing beside it."""
    assert rule("wharfinger/node", PUSH, "research/steps-pod-1")
    for repository in ("research/models/x", "research/steps-a/b", "research/xsteps-a", "steps-a"):
        assert not rule("wharfinger/node", PUSH, repository)


def test_an_allow_opens_what_it_names() -> None:
    """By verb, kind, namespace and name, and for a pull by the very digest that the object names."""
    who = "ns/research/sa/x"
    assert rule(who, PULL, REPO, policy("pull"))
    assert not rule(who, PULL, REPO, policy("pull"), digest=OTHER)
    assert not rule("ns/research/sa/y", PULL, REPO, policy("pull"))
    for wrong in (policy("push"), policy("pull", kinds=["Dataset"]), policy("pull", names=["big"]),
                  policy("pull", namespaces=["support"])):  # fmt: skip
        assert not rule(who, PULL, REPO, wrong)
    assert rule(who, PUSH, REPO, policy("push")) and rule(who, PUSH, "research/models/new", policy("push"))
    assert not rule(who, PUSH, "research/anything", policy("push"))
    assert rule(who, SEE, REPO, policy("see")) and rule(who, SEE, REPO, policy("pull"))
    assert not rule(who, DELETE, REPO, policy("pull", "push", "see"))


def test_a_deny_wins_over_allow_and_tenancy() -> None:
    """Over every Allow, over the tenant's own people, and then no grant is asked; the parts go on."""
    deny = policy("pull", who=f"{TD}/*", effect="Deny")
    for who in ("ns/research/sa/x", "tenant/research/user/ada"):
        asked = Ask(f"{TD}/{who}", PULL, REPO, (DIGEST,))
        ruling = decide(
            asked, Known(**{**{f: getattr(KNOWN, f) for f in KNOWN.__slots__}, "policies": (deny,)}), condition
        )
        assert not ruling.verdict.allowed and not ruling.ask_grants and "denies" in ruling.verdict.reason
    assert not rule("ns/research/sa/x", PULL, REPO, deny, policy("pull"))
    assert rule("wharfinger/control", PULL, REPO, deny)
    assert rule("tenant/research/user/ada", PULL, REPO, deny, digest=OTHER), "it speaks of the artifact that is named"


def test_a_condition_that_errs_allows_nothing_and_denies() -> None:
    """A broken condition counts as false for an Allow and as true for a Deny."""
    assert rule("ns/research/sa/x", PULL, REPO, policy("pull", text="tenant=research"))
    assert not rule("ns/research/sa/x", PULL, REPO, policy("pull", text="tenant=support"))
    assert not rule("ns/research/sa/x", PULL, REPO, policy("pull", text="broken"))
    assert not rule("tenant/research/user/ada", PULL, REPO, policy("pull", who=f"{TD}/*", effect="Deny", text="broken"))


def test_names_of_another_trust_domain_mean_nothing() -> None:
    """A stranger's `tenant/research` is not our research, in no rule and in no condition."""
    stranger = "spiffe://other.domain/tenant/research/user/ada"
    known = policy("pull", who=stranger, text="tenant=research")
    assert not rule(stranger, PULL, REPO, known)
    assert rule(stranger, PULL, REPO, policy("pull", who=stranger))


@given(
    who=st.sampled_from(["ns/a/sa/b", "tenant/t/user/u", "wharfinger/node", "tenant/research/user/ada", "x/y"]),
    action=st.sampled_from(list(Action)),
    repository=st.sampled_from([REPO, "support/datasets/d", "nobody/x", "research/steps-x"]),
    effects=st.lists(st.sampled_from(["Allow", "Deny"]), max_size=3),
)
def test_a_deny_never_opens_anything(who: str, action: Action, repository: str, effects: list[str]) -> None:
    """Adding a Deny to any policies turns no refusal into a permission."""
    policies = [policy("pull", "push", "see", who=f"{TD}/{who}", effect=effect) for effect in effects]
    with_deny = [*policies, policy("pull", "push", "see", who=f"{TD}/*", effect="Deny")]
    if not rule(who, action, repository, *policies):
        assert not rule(who, action, repository, *with_deny)
