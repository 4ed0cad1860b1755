"""Who calls: each way to say so gives one SPIFFE ID, and no way gives another's."""

from __future__ import annotations

from typing import Any

import pytest

from wharfinger.core.errors import Unauthenticated
from wharfinger.identity import apikey
from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.inference.callers import Callers, is_part, keys_of
from wharfinger.inference.http1 import Request

TD = "wharfinger.local"
ALICE, APP = SpiffeId(f"spiffe://{TD}/tenant/red/user/alice"), SpiffeId(f"spiffe://{TD}/ns/red-ml/sa/app")
KEY = "wharf-" + "k" * 40
TENANTS = [{"metadata": {"name": "red"}, "spec": {"namespaces": ["red-ml"]}}]


def verify(token: str) -> SpiffeId:
    """Accept one token, Alice's."""
    if token != "alices.jwt.svid":
        raise BadIdentity("bad_token", "no")
    return ALICE


def secret(holder: SpiffeId, namespace: str = "red-ml", **metadata: Any) -> dict[str, Any]:
    """Return the Secret that makes KEY stand for `holder`."""
    made = apikey.secret("k", namespace, KEY, holder)
    made["metadata"].update(metadata)
    return made


def identify(peer: SpiffeId | None = None, authorization: bytes | None = None, *secrets: dict[str, Any]) -> str:
    """Return whom the gateway takes a request to be of."""
    callers = Callers(verify)
    callers.keys = keys_of(secrets, TENANTS)
    headers = {} if authorization is None else {b"authorization": authorization}
    return callers.identify(Request("GET", "/v1/models", headers, peer))


def test_certificate_token_and_key_each_name_the_caller() -> None:
    """mTLS, a JWT-SVID and an API key lead to the same kind of name."""
    assert identify(ALICE) == str(ALICE)
    assert identify(None, b"Bearer alices.jwt.svid") == str(ALICE)
    assert identify(None, b"bearer " + KEY.encode(), secret(APP)) == str(APP)
    assert identify(ALICE, b"Bearer alices.jwt.svid") == str(ALICE)


@pytest.mark.parametrize(
    "authorization",
    [None, b"", b"Bearer", b"Bearer ", b"Basic abc", b"Bearer nonsense", b"Bearer \xff\xfe", b"Bearer " + KEY.encode()],
)
def test_nobody_is_nobody(authorization: bytes | None) -> None:
    """Nothing, another scheme, a token that proves nothing and a key that is not known are all refused."""
    with pytest.raises(Unauthenticated):
        identify(None, authorization)


def test_a_certificate_and_a_token_of_two_callers_are_refused() -> None:
    """Whoever says two things about themselves is believed neither."""
    with pytest.raises(Unauthenticated, match="the certificate says"):
        identify(APP, b"Bearer alices.jwt.svid")


def test_a_tenants_key_speaks_for_its_own_alone() -> None:
    """A Secret in a tenant's namespace that names somebody else's identity is no key, nor is one that is being deleted."""
    stranger = SpiffeId(f"spiffe://{TD}/ns/blue-ml/sa/app")
    part = SpiffeId(f"spiffe://{TD}/wharfinger/control")
    bearer = b"Bearer " + KEY.encode()
    for bad in (
        secret(stranger),
        secret(part),
        secret(part, "wharfinger-system"),
        secret(APP, deletionTimestamp="now"),
    ):
        with pytest.raises(Unauthenticated, match="API key"):
            identify(None, bearer, bad)
    assert identify(None, bearer, secret(stranger, "wharfinger-system")) == str(stranger)


def test_a_part_is_known_by_name_and_trust_domain() -> None:
    """A part of another trust domain, a workload of a part's name and nobody are no parts."""
    assert is_part(SpiffeId(f"spiffe://{TD}/wharfinger/control"), TD, ["control"])
    for peer in (
        None,
        SpiffeId("spiffe://other/wharfinger/control"),
        SpiffeId(f"spiffe://{TD}/ns/wharfinger/sa/control"),
        ALICE,
    ):
        assert not is_part(peer, TD, ["control"])
