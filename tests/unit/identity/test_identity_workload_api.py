"""The Workload API: independent and own clients, rotation, refusals, hostile peers."""

from __future__ import annotations

import itertools
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import spiffe
from trust_domain import CONTROL, DOMAIN, TRAINER, Domain, anyone, eventually, nobody
from world import SetClock

from wharfinger.core.clock import SECOND
from wharfinger.core.errors import Denied, Unavailable
from wharfinger.identity import workloadapi
from wharfinger.identity.issuer.authority import Lifetimes
from wharfinger.identity.issuer.workloadserver import CALLS_PER_SECOND, MOST_AT_ONCE, Pace, TooMany
from wharfinger.identity.jwtsvid import verify as verify_token
from wharfinger.identity.source import Material
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.workloadsource import WorkloadSource, _Connection
from wharfinger.identity.x509svid import verify


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    """Make a trust domain; what nobody handled in its loop fails the test."""
    made = Domain(tmp_path)
    yield made
    made.close()
    assert made.loop.problems == []


def test_an_independent_client_gets_an_x509_svid(domain: Domain, tmp_path: Path) -> None:
    """The unmodified py-spiffe client fetches an X.509-SVID and the bundle that it verifies under."""
    domain.serve(tmp_path / "w.sock", anyone(TRAINER))
    with spiffe.WorkloadApiClient(f"unix://{tmp_path}/w.sock") as client:
        context = client.fetch_x509_context(timeout=10)
        bundles = client.fetch_x509_bundles(timeout=10)
    svid = context.default_svid
    assert str(svid.spiffe_id) == str(TRAINER)
    assert verify(svid.cert_chain, domain.authority.bundles, domain.clock.now()) == TRAINER
    bundle = bundles.get_bundle_for_trust_domain(spiffe.TrustDomain(DOMAIN.name))
    assert bundle is not None and bundle.x509_authorities == {domain.vault.root}
    assert (str(TRAINER), "fetch", "x509-svid", "") in domain.records


def test_an_independent_client_gets_and_validates_a_jwt_svid(domain: Domain, tmp_path: Path) -> None:
    """The unmodified py-spiffe client fetches a JWT-SVID, the bundles, and has the issuer validate the token."""
    domain.serve(tmp_path / "w.sock", anyone(TRAINER))
    with spiffe.WorkloadApiClient(f"unix://{tmp_path}/w.sock") as client:
        fetched = client.fetch_jwt_svid(audience={"registry"}, timeout=10)
        bundle = client.fetch_jwt_bundles(timeout=10).get_bundle_for_trust_domain(spiffe.TrustDomain(DOMAIN.name))
        validated = client.validate_jwt_svid(fetched.token, "registry", timeout=10)
        with pytest.raises(Exception, match="expected a JWT-SVID for"):
            client.validate_jwt_svid(fetched.token, "another", timeout=10)
    assert bundle is not None
    assert str(spiffe.JwtSvid.parse_and_validate(fetched.token, bundle, {"registry"}).spiffe_id) == str(TRAINER)
    assert str(validated.spiffe_id) == str(TRAINER)
    assert verify_token(fetched.token, domain.authority.bundles, "registry", domain.clock.now()) == TRAINER


def test_an_independent_source_follows_rotation(tmp_path: Path) -> None:
    """py-spiffe's own source is sent a new SVID at half the life of the last."""
    domain = Domain(tmp_path, lifetimes=Lifetimes(svid=2 * SECOND))
    domain.serve(tmp_path / "w.sock", anyone(TRAINER))
    changed = threading.Event()
    with spiffe.X509Source(socket_path=f"unix://{tmp_path}/w.sock", timeout_in_seconds=10) as source:
        first = source.get_x509_context().default_svid.leaf.serial_number
        source.subscribe_for_updates(changed.set)
        eventually(lambda: source.get_x509_context().default_svid.leaf.serial_number != first, changed)
    domain.close()


def test_our_own_source_gets_svid_bundles_and_tokens(domain: Domain, tmp_path: Path) -> None:
    """`WorkloadSource` holds the SVID, both kinds of authorities, and keeps a token until half its life is over."""
    folder = tmp_path / ("long" * 20) / ("er" * 40)
    folder.mkdir(parents=True)
    domain.serve(folder / "workload.sock", anyone(CONTROL))
    source = WorkloadSource(folder / "workload.sock")
    material = source.material()
    assert material.svid.id == source.id == CONTROL
    assert material.bundles == domain.authority.bundles
    audience = SpiffeId.part(DOMAIN, "registry")
    token = source.jwt_svid(audience)
    assert verify_token(token, material.bundles, str(audience), domain.clock.now()) == CONTROL
    assert source.jwt_svid(audience) == token
    source.close()


def test_svids_rotate_at_half_their_life(tmp_path: Path) -> None:
    """A stream sends a new SVID when half the life of the last is over, long before it ends."""
    domain = Domain(tmp_path, lifetimes=Lifetimes(svid=2 * SECOND))
    domain.serve(tmp_path / "w.sock", anyone(CONTROL))
    seen: list[Material] = []
    changed = threading.Event()
    source = WorkloadSource(tmp_path / "w.sock")

    def note(material: Material) -> None:
        seen.append(material)
        changed.set()

    source.subscribe(note)
    eventually(lambda: len({m.svid.certificates[0].serial_number for m in seen}) >= 3, changed)
    for before, after in itertools.pairwise(seen):
        assert after.svid.certificates[0].not_valid_before_utc < before.svid.certificates[0].not_valid_after_utc
    assert source.material() is seen[-1]
    source.close()
    domain.close()


def test_a_source_survives_a_restart_of_the_issuer(domain: Domain, tmp_path: Path) -> None:
    """While nobody answers the last material stays; when somebody does again, it is replaced."""
    server = domain.serve(tmp_path / "w.sock", anyone(CONTROL))
    source = WorkloadSource(tmp_path / "w.sock")
    first = source.material()
    domain.stop(server)
    assert source.material() is first
    changed = threading.Event()
    source.subscribe(lambda _: changed.set())
    domain.serve(tmp_path / "w.sock", anyone(CONTROL))
    eventually(lambda: source.material() is not first, changed)
    source.close()


def test_a_source_whose_socket_comes_later_waits_for_it(domain: Domain, tmp_path: Path) -> None:
    """A process may start before its socket is made."""
    source = WorkloadSource(tmp_path / "w.sock")
    domain.serve(tmp_path / "w.sock", anyone(CONTROL))
    assert source.material().svid.id == CONTROL
    source.close()


def test_an_unregistered_peer_is_refused_and_recorded(domain: Domain, tmp_path: Path) -> None:
    """A process that nobody introduced gets PERMISSION_DENIED on every call, and each refusal is on record."""
    domain.serve(tmp_path / "w.sock", nobody)
    with spiffe.WorkloadApiClient(f"unix://{tmp_path}/w.sock") as client:
        for call in (client.fetch_x509_svid, client.fetch_x509_bundles, client.fetch_jwt_bundles):
            with pytest.raises(Exception, match=r"PERMISSION_DENIED|no identity issued"):
                call(timeout=10)
        with pytest.raises(Exception, match=r"PERMISSION_DENIED|no identity issued"):
            client.fetch_jwt_svid(audience={"a"}, timeout=10)
    assert len(domain.records) == 4
    assert all(refused for *_, refused in domain.records)
    source = WorkloadSource(tmp_path / "w.sock", wait=0.2)
    with pytest.raises(Unavailable, match="no identity issued"):
        source.material()
    source.close()


def test_a_peer_that_loses_its_registration_gets_nothing_more(domain: Domain, tmp_path: Path) -> None:
    """Attestation holds for each answer: one who was known when a stream began is refused once forgotten."""
    known = [True]

    def attest(_: object) -> SpiffeId:
        if not known[0]:
            raise Denied("forgotten")
        return TRAINER

    domain.serve(tmp_path / "w.sock", attest)
    connection = _Connection(tmp_path / "w.sock")
    connection.call(workloadapi.FETCH_JWT_SVID, workloadapi.JwtRequest(("a",)).encode())
    known[0] = False
    with pytest.raises(workloadapi.CallFailed) as refused:
        _Connection(tmp_path / "w.sock").call(workloadapi.FETCH_JWT_SVID, workloadapi.JwtRequest(("a",)).encode())
    assert refused.value.grpc_status == workloadapi.Status.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("method", "message", "status"),
    [
        (workloadapi.FETCH_JWT_SVID, b"", workloadapi.Status.INVALID_ARGUMENT),
        (workloadapi.FETCH_JWT_SVID, workloadapi.JwtRequest(("",)).encode(), workloadapi.Status.INVALID_ARGUMENT),
        (
            workloadapi.FETCH_JWT_SVID,
            workloadapi.JwtRequest(("a",), str(CONTROL)).encode(),
            workloadapi.Status.PERMISSION_DENIED,
        ),
        (workloadapi.VALIDATE_JWT_SVID, b"", workloadapi.Status.INVALID_ARGUMENT),
        (workloadapi.FETCH_JWT_SVID, b"\xff\xff\xff", workloadapi.Status.INVALID_ARGUMENT),
        (workloadapi.SERVICE + "FetchWITSVID", b"", workloadapi.Status.UNIMPLEMENTED),
    ],
)
def test_bad_calls_get_their_status(
    domain: Domain, tmp_path: Path, method: str, message: bytes, status: workloadapi.Status
) -> None:
    """No audience, somebody else's ID, bytes that are no message, an unknown method: each has its gRPC status."""
    domain.serve(tmp_path / "w.sock", anyone(TRAINER))
    with pytest.raises(workloadapi.CallFailed) as failed:
        _Connection(tmp_path / "w.sock").call(method, message)
    assert failed.value.grpc_status == status


def test_a_call_without_the_security_header_is_refused(domain: Domain, tmp_path: Path) -> None:
    """What a forged server-side request cannot set must be there (SPIFFE Workload Endpoint 5)."""
    domain.serve(tmp_path / "w.sock", anyone(TRAINER))
    for header in (("x-other", "true"), ("workload.spiffe.io", "false")):
        connection = _Connection(tmp_path / "w.sock")
        connection.open(workloadapi.FETCH_X509_SVID, b"", header)
        with pytest.raises(workloadapi.CallFailed) as failed:
            next(connection.messages())
        assert failed.value.grpc_status == workloadapi.Status.INVALID_ARGUMENT


def test_a_flood_of_calls_is_slowed_down(tmp_path: Path) -> None:
    """A hundred calls at once, then twenty a second: the rest get RESOURCE_EXHAUSTED and leave no line anywhere."""
    domain = Domain(tmp_path, clock=SetClock())
    domain.serve(tmp_path / "w.sock", anyone(TRAINER))
    request = workloadapi.JwtRequest(("a",)).encode()
    refused = []
    for _ in range(MOST_AT_ONCE + 50):
        try:
            _Connection(tmp_path / "w.sock").call(workloadapi.FETCH_JWT_SVID, request)
        except workloadapi.CallFailed as error:
            refused.append(error.grpc_status)
    assert refused == [workloadapi.Status.RESOURCE_EXHAUSTED] * 50
    assert len(domain.records) == MOST_AT_ONCE
    domain.close()
    pace = Pace(0)
    for second in range(3):
        for _ in range(MOST_AT_ONCE if second == 0 else CALLS_PER_SECOND):
            pace.take(second * SECOND)
        with pytest.raises(TooMany):
            pace.take(second * SECOND)


def test_any_bytes_do_the_server_no_harm(domain: Domain, tmp_path: Path) -> None:
    """200 connections of seeded noise, some after a good preface, raise nothing, and the next caller is served."""
    domain.serve(tmp_path / "w.sock", anyone(TRAINER))
    noise = random.Random(20261125)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    for turn in range(200):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "w.sock"))
            frame = noise.randbytes(noise.randrange(1, 400))
            if turn % 2:
                kind = noise.randrange(12)
                frame = len(frame).to_bytes(3, "big") + bytes([kind, noise.randrange(256)]) + b"\0\0\0\x01" + frame
            try:
                connection.sendall((preface if turn % 4 else b"") + frame)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
            except OSError:
                pass
    source = WorkloadSource(tmp_path / "w.sock")
    assert source.material().svid.id == TRAINER
    source.close()
