"""TLS by SVID: peers known by their SPIFFE ID, rotation between handshakes, and who is turned away."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from trust_domain import CONTROL, DOMAIN, TRAINER, Domain
from world import SetClock

from wharfinger.core.clock import HOUR
from wharfinger.identity.issuer import certificates
from wharfinger.identity.issuer.authority import Authority
from wharfinger.identity.issuer.vault import Vault
from wharfinger.identity.source import FileSource, Material, from_pem
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain
from wharfinger.identity.tls import client_context, peer_id, server_context
from wharfinger.identity.x509svid import X509Svid, certificates_to_pem

API = SpiffeId.part(DOMAIN, "api")


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    """Make a trust domain."""
    made = Domain(tmp_path)
    yield made
    made.close()


class Handshake:
    """Both ends of one TLS connection over a socket pair: what each end knows of the other, or why it failed."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        theirs.settimeout(10)
        self.served: ssl.SSLSocket | None = None
        self.server_error = self.client_error = ""
        thread = threading.Thread(target=self._serve, args=(server, ours))
        thread.start()
        self.client: ssl.SSLSocket | None = None
        try:
            self.client = client.wrap_socket(theirs, server_hostname="unheard-of")
            self.client.sendall(b"x")
            self.answer = self.client.recv(1)
        except (ssl.SSLError, OSError) as error:
            self.client_error = str(error)
            theirs.close()
        thread.join(15)

    def _serve(self, context: ssl.SSLContext, connection: socket.socket) -> None:
        try:
            self.served = context.wrap_socket(connection, server_side=True)
            self.served.sendall(self.served.recv(1))
        except (ssl.SSLError, OSError) as error:
            self.server_error = str(error)
            connection.close()

    @property
    def failed(self) -> str:
        """What either end said when it failed, empty when none did."""
        return self.server_error or self.client_error

    def close(self) -> None:
        """Close both ends."""
        for end in (self.served, self.client):
            if end is not None:
                end.close()


def test_each_end_knows_the_other(domain: Domain) -> None:
    """After the handshake both ends know a verified SPIFFE ID; the host name means nothing."""
    shake = Handshake(
        server_context(domain.source(API), client_certs="required"), client_context(domain.source(CONTROL), expect=API)
    )
    assert shake.failed == "" and shake.answer == b"x"
    assert peer_id(shake.served) == CONTROL
    assert peer_id(shake.client) == API
    assert shake.client is not None
    assert shake.client.version() == "TLSv1.3" and not shake.client.session_reused
    shake.close()


def test_a_client_without_a_certificate_is_nobody(domain: Domain) -> None:
    """Where certificates are optional such a client gets in as nobody; where they are required it does not."""
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE
    shake = Handshake(server_context(domain.source(API)), anonymous)
    assert shake.failed == "" and peer_id(shake.served) is None
    shake.close()
    assert Handshake(server_context(domain.source(API), client_certs="required"), anonymous).failed


def test_whoever_is_not_expected_is_turned_away(domain: Domain) -> None:
    """A valid SVID of somebody else is refused, by an ID and by a predicate, at either end."""
    server = server_context(domain.source(API))
    assert "expected spiffe" in Handshake(server, client_context(domain.source(CONTROL), expect=TRAINER)).failed
    picky = server_context(domain.source(API), expect=lambda peer: peer == TRAINER)
    assert "peer refused" in Handshake(picky, client_context(domain.source(CONTROL), expect=API)).failed
    shake = Handshake(picky, client_context(domain.source(TRAINER), expect=API))
    assert shake.failed == ""
    shake.close()


def test_another_authority_is_not_believed(domain: Domain, tmp_path: Path) -> None:
    """A root of the same name, and another trust domain that is not in the bundles, vouch for nobody here."""
    for name in (DOMAIN, TrustDomain("other.test")):
        vault = Vault(tmp_path / "forged" / name.name, name, domain.clock.now())
        forger = Authority(vault, domain.clock)
        forged = FileSource(Material(forger.svid(SpiffeId.part(name, "control")), domain.authority.bundles))
        shake = Handshake(server_context(domain.source(API)), client_context(forged, expect=API))
        assert shake.server_error and shake.served is None


def test_an_expired_svid_is_turned_away(domain: Domain) -> None:
    """An hour later by the verifier's clock the same SVID is refused, with the reason."""
    later = SetClock(domain.clock.now() + 2 * HOUR)
    shake = Handshake(
        server_context(domain.source(API), clock=later), client_context(domain.source(CONTROL), expect=API)
    )
    assert "no longer valid" in shake.server_error


def test_a_leaf_for_signing_opens_no_connection(domain: Domain) -> None:
    """A code-signing certificate is no proof of identity on the wire."""
    key = ec.generate_private_key(ec.SECP256R1())
    now, root = domain.clock.now(), domain.vault.root
    template = certificates.svid(CONTROL, key.public_key(), root, now, now + HOUR, uses=certificates.CODE_SIGNING)
    svid = X509Svid(CONTROL, (domain.vault.sign_certificate(template),), key)
    signer = FileSource(Material(svid, domain.authority.bundles))
    assert Handshake(server_context(domain.source(API)), client_context(signer, expect=API)).failed


def test_a_new_handshake_uses_the_newest_svid(domain: Domain) -> None:
    """When the source rotates, connections that stand go on, and the next one shows the new certificate."""
    source = domain.source(API)
    server = server_context(source)
    client = client_context(domain.source(CONTROL), expect=API)
    first = Handshake(server, client)
    source.set(Material(domain.authority.svid(API), domain.authority.bundles))
    second = Handshake(server, client)
    shown = [end.getpeercert(True) for end in (first.client, second.client) if end is not None]
    assert len(shown) == 2 and shown[0] != shown[1]
    assert first.client is not None and first.served is not None
    first.client.sendall(b"y")
    assert first.served.recv(1) == b"y"
    first.close()
    second.close()


def test_tls_1_2_is_not_spoken(domain: Domain) -> None:
    """Nothing older than TLS 1.3 gets a connection."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert Handshake(server_context(domain.source(API)), old).failed


def test_a_client_that_knows_nothing_of_spiffe_verifies_a_part(domain: Domain) -> None:
    """With the trust domain's root alone the standard library verifies a part by its address and by its name."""
    for name in ("127.0.0.1", "localhost"):
        plain = ssl.create_default_context(
            cadata=certificates_to_pem(domain.authority.bundles[DOMAIN].x509_authorities).decode()
        )
        ours, theirs = socket.socketpair()
        served = threading.Thread(target=Handshake._serve, args=(_Quiet(), server_context(domain.source(API)), ours))
        served.start()
        with plain.wrap_socket(theirs, server_hostname=name) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        served.join(10)


class _Quiet(Handshake):
    """The serving end alone."""

    def __init__(self) -> None:
        self.served = None
        self.server_error = ""


def test_an_identity_from_files_is_used_as_it_is(domain: Domain) -> None:
    """PEM texts, as a kubeconfig holds them, make a source that the platform's parts accept."""
    svid = domain.authority.svid(SpiffeId.part(DOMAIN, "admin"))
    files = from_pem(svid.chain_pem(), svid.key_pem(), certificates_to_pem([domain.vault.root]))
    shake = Handshake(server_context(domain.source(API)), client_context(files, expect=API))
    assert shake.failed == "" and str(peer_id(shake.served)) == f"spiffe://{DOMAIN}/wharfinger/admin"
    shake.close()
