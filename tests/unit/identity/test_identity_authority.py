"""The authority: the forms and lifetimes of what it issues, judged by the verifiers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from trust_domain import CONTROL, DOMAIN, TRAINER
from world import SetClock

from wharfinger.core.clock import DAY, HOUR, MINUTE, SECOND
from wharfinger.core.errors import HostUnfit, Invalid
from wharfinger.identity.fault import UntrustedIdentity
from wharfinger.identity.issuer.authority import Authority
from wharfinger.identity.issuer.vault import Vault
from wharfinger.identity.jwtsvid import parse
from wharfinger.identity.jwtsvid import verify as verify_token
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.x509svid import Use, X509Svid, verify

ADA = SpiffeId.person(DOMAIN, "research", "ada")


@pytest.fixture
def clock() -> Iterator[SetClock]:
    """Give a clock that is set by hand."""
    yield SetClock()


@pytest.fixture
def authority(tmp_path: Path, clock: SetClock) -> Authority:
    """Make an authority with new keys."""
    return Authority(Vault(tmp_path, DOMAIN, clock.now()), clock)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_an_svid_verifies_for_its_hour_and_not_after(authority: Authority, clock: SetClock) -> None:
    """A workload's SVID holds for an hour, in the form that the verifier demands, under its own key."""
    svid = authority.svid(TRAINER)
    assert X509Svid.from_der(svid.chain_der(), svid.key_der()).id == TRAINER
    assert verify(svid.certificates, authority.bundles, clock.now()) == TRAINER
    assert verify(svid.certificates, authority.bundles, clock.now() + HOUR - SECOND) == TRAINER
    with pytest.raises(UntrustedIdentity) as expired:
        verify(svid.certificates, authority.bundles, clock.now() + HOUR + SECOND)
    assert expired.value.reason == "expired"
    with pytest.raises(UntrustedIdentity):
        verify(svid.certificates, authority.bundles, clock.now(), Use.CODE_SIGNING)


def test_a_part_names_this_host_and_a_workload_does_not(authority: Authority) -> None:
    """Clients that know nothing of SPIFFE find 127.0.0.1 and localhost in a part's certificate, and in no other."""
    names = _names(authority.svid(CONTROL).certificates[0])
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.IPv4Address("127.0.0.1")]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert len(_names(authority.svid(TRAINER).certificates[0])) == 1


def test_the_admin_has_a_day(authority: Authority, clock: SetClock) -> None:
    """The kubeconfig of the local admin lasts a working day between two renewals."""
    svid = authority.svid(SpiffeId.part(DOMAIN, "admin"))
    assert verify(svid.certificates, authority.bundles, clock.now() + 23 * HOUR).path == "/wharfinger/admin"


def test_a_person_gets_a_certificate_over_their_own_key(authority: Authority, clock: SetClock) -> None:
    """The issuer never sees the private half; eight hours by default, as asked up to a day, never more."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = authority.person(ADA, _pem(key))
    assert leaf.public_key() == key.public_key()
    assert verify([leaf], authority.bundles, clock.now() + 8 * HOUR - SECOND) == ADA
    with pytest.raises(UntrustedIdentity):
        verify([leaf], authority.bundles, clock.now() + 8 * HOUR + SECOND)
    assert verify([authority.person(ADA, _pem(key), DAY)], authority.bundles, clock.now() + 23 * HOUR) == ADA
    for life in (DAY + SECOND, -SECOND, 1):
        with pytest.raises(Invalid, match="lifetime"):
            authority.person(ADA, _pem(key), life)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        _pem(ec.generate_private_key(ec.SECP224R1())),
        _pem(rsa.generate_private_key(65537, 1024)),
    ],
    ids=["nothing", "nonsense", "P-224", "RSA 1024"],
)
def test_a_key_that_is_not_fit_gets_no_certificate(authority: Authority, pem: bytes) -> None:
    """Weak keys, curves that nobody trusts and what is no key are refused."""
    with pytest.raises(Invalid):
        authority.person(ADA, pem)


def test_a_token_verifies_for_its_audience_and_its_minutes(authority: Authority, clock: SetClock) -> None:
    """A JWT-SVID holds for five minutes for each audience that it names, and for nobody else."""
    token = authority.token(TRAINER, ["registry", "gateway", ""])
    assert parse(token).audiences == ("gateway", "registry")
    for audience in ("registry", "gateway"):
        assert verify_token(token, authority.bundles, audience, clock.now() + 5 * MINUTE - SECOND) == TRAINER
    for audience, at, reason in (
        ("api", clock.now(), "wrong_audience"),
        ("registry", clock.now() + 5 * MINUTE, "expired"),
    ):
        with pytest.raises(UntrustedIdentity) as refused:
            verify_token(token, authority.bundles, audience, at)
        assert refused.value.reason == reason
    with pytest.raises(Invalid):
        authority.token(TRAINER, ["registry"], HOUR + SECOND)
    with pytest.raises(Invalid):
        authority.token(TRAINER, [""])


def test_a_signature_has_a_leaf_of_its_own(authority: Authority, clock: SetClock) -> None:
    """Each signature comes with a code-signing leaf over a key made for it, good for ten minutes and for no TLS."""
    first, signature = authority.sign_once(CONTROL, b"message")
    second, _ = authority.sign_once(CONTROL, b"message")
    assert first.public_key() != second.public_key()
    key = first.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature, b"message", ec.ECDSA(first.signature_hash_algorithm or pytest.fail("no hash")))
    assert verify([first], authority.bundles, clock.now() + 10 * MINUTE - SECOND, Use.CODE_SIGNING) == CONTROL
    with pytest.raises(UntrustedIdentity):
        verify([first], authority.bundles, clock.now())
    with pytest.raises(UntrustedIdentity):
        verify([first], authority.bundles, clock.now() + 10 * MINUTE + SECOND, Use.CODE_SIGNING)


def test_nothing_is_issued_while_the_clock_stands_before_the_root(authority: Authority, clock: SetClock) -> None:
    """A clock set back while the issuer runs stops it rather than have it issue what never verifies."""
    clock.at -= HOUR
    for issue in (lambda: authority.svid(TRAINER), lambda: authority.token(TRAINER, ["a"])):
        with pytest.raises(HostUnfit, match="clock"):
            issue()
