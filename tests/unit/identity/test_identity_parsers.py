"""Every parser of the room takes any input and gives a value or an error of ours, and reads back what is written."""

from __future__ import annotations

import array
import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trust_domain import CONTROL, DOMAIN, TRAINER
from world import NOW, SetClock

from wharfinger.bootstrap.issuer import introduction
from wharfinger.core.errors import Conflict, Malformed, Unavailable, WharfingerError
from wharfinger.identity import apikey, bundledocument, jwk, jwtsvid, protowire, workloadapi
from wharfinger.identity.bundle import Bundle
from wharfinger.identity.fault import BadIdentity, UntrustedIdentity
from wharfinger.identity.issuer.authority import Authority
from wharfinger.identity.issuer.vault import Vault
from wharfinger.identity.issuerclient import PodRegistration, pod_json, pod_of
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain
from wharfinger.identity.workloadsource import socket_path
from wharfinger.identity.x509svid import X509Svid, certificates_from_der, certificates_from_pem, verify

MANY = settings(max_examples=300, deadline=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "sub": JSON | st.just(str(TRAINER)),
        "aud": JSON | st.just(["a"]),
        "exp": JSON | st.just(4102444800),
        "nbf": JSON,
        "iat": JSON,
    },
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "alg": JSON | st.sampled_from(sorted(jwtsvid.ALGORITHMS)) | st.just("none"),
        "kid": JSON | st.just("k"),
        "typ": JSON | st.just("JWT"),
        "jku": JSON,
    },
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make an authority."""
    return Authority(Vault(tmp_path_factory.mktemp("vault"), DOMAIN, NOW), SetClock())


def _part(value: Any) -> str:
    return jwk.encode(json.dumps(value).encode())


@MANY
@given(st.text() | st.binary().map(lambda b: "spiffe://" + b.decode("latin-1")))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    """A SPIFFE ID that is accepted spells itself, and its parts make it again."""
    with suppress(BadIdentity):
        parsed = SpiffeId(text)
        assert str(parsed) == text
        assert SpiffeId(f"spiffe://{parsed.trust_domain}{parsed.path}") == parsed
    with suppress(BadIdentity):
        assert str(TrustDomain(text)) == text


@MANY
@given(st.text(max_size=300) | st.tuples(HEADERS, CLAIMS).map(lambda t: f"{_part(t[0])}.{_part(t[1])}.AAAA"))
def test_any_text_is_a_token_or_refused(token: str) -> None:
    """Headers and claims of any shape give a token or an error of ours; none of them verifies."""
    with suppress(BadIdentity):
        svid = jwtsvid.parse(token)
        assert svid.algorithm in jwtsvid.ALGORITHMS and svid.audiences
    with pytest.raises((BadIdentity, UntrustedIdentity)):
        jwtsvid.verify(token, {DOMAIN: Bundle(DOMAIN)}, "a", NOW)


@MANY
@given(data=st.data())
def test_a_token_with_any_character_changed_proves_nothing(authority: Authority, data: st.DataObject) -> None:
    """Whatever is changed, cut or added in a good token, it no longer verifies."""
    token = authority.token(TRAINER, ["a"])
    assert jwtsvid.verify(token, authority.bundles, "a", NOW) == TRAINER
    at = data.draw(st.integers(0, len(token)))
    inserted = data.draw(st.text(st.sampled_from("AZaz09-_.= \n{"), max_size=3))
    changed = token[:at] + inserted + token[at + data.draw(st.integers(0, 3)) :]
    if changed != token:
        with pytest.raises((BadIdentity, UntrustedIdentity)):
            jwtsvid.verify(changed, authority.bundles, "a", NOW)


@MANY
@given(st.binary(max_size=400) | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_a_bundle_or_refused(data: bytes) -> None:
    """Bundle documents, maps and JWK sets of any bytes: a value, or an error of ours."""
    for read in (
        lambda: bundledocument.parse(data, DOMAIN),
        lambda: bundledocument.parse_map(data),
        lambda: bundledocument.parse_jwks(data),
    ):
        with suppress(BadIdentity):
            read()


@MANY
@given(
    st.lists(
        st.fixed_dictionaries(
            {"kty": st.sampled_from(["EC", "RSA", "oct"]) | JSON, "use": st.sampled_from(["jwt-svid", "x509-svid"])},
            optional={
                "crv": st.just("P-256") | JSON,
                "kid": st.text(max_size=3),
                "x": JSON,
                "y": JSON,
                "n": JSON,
                "e": JSON,
                "x5c": JSON,
                "d": JSON,
            },
        ),
        max_size=3,
    )
)
def test_any_keys_are_keys_or_refused(keys: list[dict[str, Any]]) -> None:
    """Entries that nearly are keys are read, passed over, or refused with their rule."""
    with suppress(BadIdentity):
        bundledocument.parse(json.dumps({"keys": keys}).encode(), DOMAIN)


@MANY
@given(st.binary(max_size=300), st.binary(max_size=100))
def test_any_bytes_are_certificates_or_refused(data: bytes, key: bytes) -> None:
    """PEM and DER of any bytes: certificates, or an error of ours."""
    for read in (
        lambda: certificates_from_der(data),
        lambda: certificates_from_pem(data),
        lambda: X509Svid.from_der(data, key),
        lambda: X509Svid.from_pem(data, key),
    ):
        with suppress(BadIdentity):
            read()


@MANY
@given(data=st.data())
def test_a_certificate_with_any_byte_changed_proves_nothing(authority: Authority, data: st.DataObject) -> None:
    """Whatever byte of a good SVID is changed, it does not verify, and fails with an error of ours."""
    der = bytearray(authority.svid(CONTROL).chain_der())
    # The length varies with the signature, the drawing must not.
    at = data.draw(st.integers(0, 2**20)) % len(der)
    der[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((BadIdentity, UntrustedIdentity)):
        verify(certificates_from_der(bytes(der)), authority.bundles, NOW)


@MANY
@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    """Protobuf and gRPC frames of any bytes: messages, or an error of ours; what is left over stays whole."""
    for read in (
        lambda: list(protowire.fields(data)),
        lambda: protowire.entries(data, 1),
        lambda: workloadapi.parse_x509_svids(data),
        lambda: workloadapi.parse_jwt_svids(data),
        lambda: workloadapi.parse_jwt_bundles(data),
        lambda: workloadapi.JwtRequest.parse(data),
        lambda: workloadapi.ValidateRequest.parse(data),
    ):
        with suppress(BadIdentity):
            read()
    with suppress(BadIdentity):
        buffer = bytearray(data)
        found = workloadapi.unframe(buffer)
        assert b"".join(map(workloadapi.frame, found)) + buffer == data


@MANY
@given(JSON)
def test_claims_of_any_shape_can_be_told(value: Any) -> None:
    """What a token claims goes into the answer of ValidateJWTSVID, whatever it is."""
    list(protowire.fields(workloadapi.validated(TRAINER, {"claim": value})))


@MANY
@given(st.lists(st.text()), st.text(), st.text())
def test_requests_survive_being_written_and_read(audiences: list[str], spiffe_id: str, token: str) -> None:
    """What a client encodes the server reads."""
    with suppress(UnicodeEncodeError):
        request = workloadapi.JwtRequest(tuple(audiences), spiffe_id)
        assert workloadapi.JwtRequest.parse(request.encode()) == request
        asked = workloadapi.ValidateRequest(spiffe_id, token)
        assert workloadapi.ValidateRequest.parse(asked.encode()) == asked
        assert workloadapi.parse_status_text(workloadapi.status_text(token[:500])) == token[:500]


@MANY
@given(
    JSON
    | st.fixed_dictionaries({"uid": JSON, "spiffeId": JSON, "folder": JSON, "pidns": JSON, "pid": JSON, "ticks": JSON})
)
def test_any_value_is_a_registration_or_refused(value: Any) -> None:
    """Registrations of any shape: one that reads back, or an error of ours."""
    with suppress(WharfingerError):
        pod = pod_of(value)
        assert pod_of(pod_json(pod)) == pod


def test_a_registration_survives_being_written_and_read() -> None:
    """What a client encodes the server reads."""
    pod = PodRegistration("u", TRAINER, Path("/a b"), 1, 2, 3, "main")
    assert pod_of(json.loads(json.dumps(pod_json(pod)))) == pod


@MANY
@given(JSON, st.text(max_size=5), st.text(max_size=5))
def test_any_secret_is_a_key_or_refused(data: Any, namespace: str, kind: str) -> None:
    """Secrets of any shape: the holder of a key, or an error of ours."""
    body = {"type": apikey.SECRET_TYPE, "metadata": {"namespace": namespace}, "data": data, "kind": kind}
    if not isinstance(data, dict):
        body["data"] = {"sha256": data, "spiffeId": data}
    with suppress(BadIdentity):
        apikey.read(body, {})


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ("unix:///run/a.sock", "/run/a.sock"),
        ("unix:/run/a.sock", "/run/a.sock"),
        ("unix://run/a.sock", None),
        ("unix:a.sock", None),
        ("tcp://127.0.0.1:1", None),
        ("/run/a.sock", None),
        ("unix:////run/a.sock", None),
    ],
)
def test_the_endpoint_is_a_unix_socket_by_its_absolute_path(told: str, path: str | None) -> None:
    """SPIFFE_ENDPOINT_SOCKET names a Unix socket (SPIFFE Workload Endpoint 4); anything else is refused."""
    if path is None:
        with pytest.raises(Malformed):
            socket_path({"SPIFFE_ENDPOINT_SOCKET": told})
    else:
        assert socket_path({"SPIFFE_ENDPOINT_SOCKET": told}) == Path(path)
    with pytest.raises(Unavailable):
        socket_path({})


@MANY
@given(
    st.binary(max_size=100) | st.fixed_dictionaries({"part": JSON, "pid": JSON}).map(lambda v: json.dumps(v).encode()),
    st.integers(0, 2),
)
def test_any_introduction_is_one_or_refused(data: bytes, descriptors: int) -> None:
    """Whatever the channel brings, with whatever descriptors, is an introduction or an error, and nothing leaks."""
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        passed = [os.open("/dev/null", os.O_RDONLY) for _ in range(descriptors)]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))] if passed else []
        theirs.sendmsg([data or b" "], rights)
        for descriptor in passed:
            os.close(descriptor)
        with pytest.raises(Conflict):
            introduction(ours)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_introduction_is_the_process_of_its_pidfd() -> None:
    """The pid is the pidfd's; a message that says another one is refused."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pidfd = os.pidfd_open(os.getpid())
        for pid, good in ((os.getpid(), True), (1, False)):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))]
            theirs.sendmsg([json.dumps({"part": "control", "pid": pid}).encode()], rights)
            if good:
                name, process = introduction(ours)
                assert (name, process.pid) == ("control", os.getpid())
                process.close()
            else:
                with pytest.raises(Conflict):
                    introduction(ours)
        os.close(pidfd)
        theirs.close()
        with pytest.raises(EOFError):
            introduction(ours)
