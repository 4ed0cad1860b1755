"""The local admin: the kubeconfig that follows rotation, the policy that revokes, keys that may not name anybody."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from trust_domain import CONTROL, DOMAIN, TRAINER, Domain, anyone, eventually

from wharfinger.bootstrap import admin
from wharfinger.bootstrap.state import prepare
from wharfinger.cli.access import _Lifetime, denial
from wharfinger.cluster.endpoint import credentials, from_kubeconfig
from wharfinger.core.clock import SECOND
from wharfinger.core.errors import Unauthenticated
from wharfinger.core.names import dns_subdomain
from wharfinger.identity import apikey
from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.issuer.authority import Lifetimes
from wharfinger.identity.source import from_pem
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.kinds.accesspolicy import AccessPolicySpec
from wharfinger.kinds.schema import read
from wharfinger.policy.access import Question, decide

ADMIN = SpiffeId.part(DOMAIN, "admin")
ADA = SpiffeId.person(DOMAIN, "research", "ada")


def test_the_kubeconfig_is_the_admins_alone_and_follows_rotation(tmp_path: Path) -> None:
    """It is mode 0600, holds everything inline, and is written anew whenever the admin's SVID is."""
    state = prepare(tmp_path / "state")
    domain = Domain(tmp_path / "keys", lifetimes=Lifetimes(admin=2 * SECOND))
    domain.serve(state.run / "issuer.sock", anyone(ADMIN))
    source = admin.write_kubeconfig(state, str(DOMAIN), {"api": 1234})
    assert state.kubeconfig.stat().st_mode & 0o777 == 0o600
    endpoint = from_kubeconfig(state.kubeconfig)
    assert (endpoint.host, endpoint.port, endpoint.namespace) == ("127.0.0.1", 1234, "default")
    first = credentials(state.kubeconfig)
    assert from_pem(first.certificates, first.key, first.authorities).material().svid.id == ADMIN
    changed = threading.Event()
    source.subscribe(lambda _: changed.set())
    eventually(lambda: credentials(state.kubeconfig).certificates != first.certificates, changed)
    assert [path.name for path in state.root.glob(".kubeconfig*")] == []
    source.close()
    domain.close()


def test_an_issuer_that_takes_us_for_another_is_not_believed(tmp_path: Path) -> None:
    """A kubeconfig with the wrong identity is never written."""
    state = prepare(tmp_path / "state")
    domain = Domain(tmp_path / "keys")
    domain.serve(state.run / "issuer.sock", anyone(CONTROL))
    with pytest.raises(Unauthenticated, match="wharfinger/admin, got"):
        admin.write_kubeconfig(state, str(DOMAIN), {"api": 1})
    assert not state.kubeconfig.exists()
    domain.close()


def _no_condition(_text: str, _variables: Mapping[str, object]) -> bool:
    raise AssertionError("there is none")


@pytest.mark.parametrize("who", [TRAINER, ADA, SpiffeId.person(DOMAIN, "A_b.C", "x" * 200)])
def test_a_revocation_denies_its_identity_everything_and_nobody_else_anything(who: SpiffeId) -> None:
    """The policy is a valid AccessPolicy of its own name; with everything allowed it still denies each verb."""
    policy = denial(who, "a reason")
    assert dns_subdomain(policy["metadata"]["name"]) == []
    assert policy["metadata"]["name"] == denial(who)["metadata"]["name"]
    assert policy["metadata"]["name"] != denial(SpiffeId(f"{who}-2"))["metadata"]["name"]
    spec = read(AccessPolicySpec, policy["spec"])
    assert spec.effect == "Deny"
    others = [f"spiffe://{DOMAIN}/ns/research/sa/other", str(who)]
    allow = {
        "metadata": {"name": "all"},
        "spec": {"identities": others, "verbs": ["pull", "push", "serve", "call", "see"]},
    }
    for verb in ("pull", "push", "serve", "call", "see"):
        verdicts = [
            decide([allow, policy], Question(each, verb, "Model", "research", "m"), _no_condition).allowed
            for each in others
        ]
        assert verdicts == [True, False]


@pytest.mark.parametrize(
    ("namespace", "holder", "stands"),
    [
        ("wharfinger-system", ADA, True),
        ("wharfinger-system", TRAINER, True),
        ("wharfinger-system", CONTROL, False),
        ("wharfinger-system", DOMAIN.id, False),
        ("research", ADA, True),
        ("research", TRAINER, True),
        ("research", SpiffeId.person(DOMAIN, "support", "sam"), False),
        ("research", SpiffeId.workload(DOMAIN, "support", "bot"), False),
        ("research", CONTROL, False),
        ("nobodys", ADA, False),
        ("", ADA, False),
    ],
)
def test_a_key_stands_for_those_whom_its_namespace_may_name(namespace: str, holder: SpiffeId, stands: bool) -> None:
    """What a tenant's admins can write makes nobody of another tenant, and no part of the platform."""
    secret = apikey.secret("k", namespace, "wharf-key", holder)
    if stands:
        assert apikey.read(secret, {"research": "research"}) == apikey.ApiKey(apikey.digest("wharf-key"), holder)
    else:
        with pytest.raises(BadIdentity):
            apikey.read(secret, {"research": "research"})
    assert "wharf-key" not in str(secret)


def test_lifetimes_are_written_as_kubectl_writes_them() -> None:
    """Seconds, minutes, hours; anything else is refused before anyone is asked."""
    kind = _Lifetime()
    assert [kind.convert(text, None, None) for text in ("90", "90s", "30m", "8h")] == [90, 90, 1800, 28800]
    for text in ("", "0", "-1", "1d", "8 h", "1h\n", "٣h", "1e3"):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)
