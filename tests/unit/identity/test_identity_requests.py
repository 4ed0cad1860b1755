"""The issuer's typed requests over real mTLS: who may ask what, what is signed, what is refused, what is written down."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from trust_domain import DOMAIN, TRAINER, Domain

from wharfinger.bootstrap.issuer import Minutes, PodSockets
from wharfinger.bootstrap.issuerrequests import Requests
from wharfinger.bootstrap.notary import PARSERS, Notary
from wharfinger.core.errors import Conflict, Denied, Invalid, Malformed, Unauthenticated, WharfingerError
from wharfinger.core.systemids import SystemIds
from wharfinger.govern.replay import replay
from wharfinger.identity import serve
from wharfinger.identity.bundledocument import parse_jwks
from wharfinger.identity.issuer.attestation import Process
from wharfinger.identity.issuer.registrations import Registrations
from wharfinger.identity.issuerclient import IssuerClient, PodRegistration
from wharfinger.identity.jwtsvid import verify as verify_token
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.workloadsource import WorkloadSource
from wharfinger.identity.x509svid import Use, certificates_from_pem, verify
from wharfinger.policy import journal
from wharfinger.policy.decision import from_record
from wharfinger.policy.issuance import MAY_ASK, judge
from wharfinger.supply import dsse
from wharfinger.supply.bundle import Bundle, Chain
from wharfinger.supply.predicates import SIGNERS
from wharfinger.supply.predicates.screening import TYPE as SCREENING
from wharfinger.supply.publickey import PublicKey
from wharfinger.supply.tlog.checkpoint import Checkpoint, open_checkpoint
from wharfinger.supply.tlog.merkle import EMPTY_ROOT, consistency_proof, leaf_hash, node_hash, root
from wharfinger.supply.tlog.note import VerifierKey

ADA = SpiffeId.person(DOMAIN, "research", "ada")
PARTS = ("node", "admin", "control", "registry", "gateway", "console", "api")
REQUESTS = (*MAY_ASK, "read trust root")


class Issuer:
    """The issuer's surface in this process, and a client of it for each caller."""

    def __init__(self, folder: Path) -> None:
        self.domain = Domain(folder)
        self.folder = folder
        self.journal = journal.Journal(folder / "evidence" / "issuer")
        minutes = Minutes(self.journal, self.domain.clock, SystemIds())
        registrations = Registrations(DOMAIN)
        self.pods = PodSockets(registrations, self.domain.authority, minutes, self.domain.clock)
        self.notary = Notary(self.domain.vault, self.domain.authority)
        requests = Requests(self.domain.authority, self.notary, self.pods, minutes.asked)
        own = self.domain.source(SpiffeId.part(DOMAIN, "issuer"))

        async def start() -> serve.Server:
            server = serve.Server(requests, own, serve.bind())
            await server.start()
            return server

        self.server = self.domain.loop.run(start())

    def client(self, who: str | SpiffeId) -> IssuerClient:
        """Return a client for a part's name, or for any SPIFFE ID."""
        spiffe_id = SpiffeId.part(DOMAIN, who) if isinstance(who, str) else who
        return IssuerClient("127.0.0.1", self.server.port, self.domain.source(spiffe_id))

    def decisions(self) -> list[dict[str, Any]]:
        """Return what was written down."""
        return [r for r in journal.read(self.folder / "evidence" / "issuer") if r["kind"] == "decision"]

    def close(self) -> None:
        """Stop everything."""
        self.domain.loop.run(self.pods.stop())
        self.domain.loop.run(self.server.stop())
        self.domain.close()
        self.journal.close()
        assert self.domain.loop.problems == []


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    """Start an issuer."""
    made = Issuer(tmp_path)
    yield made
    made.close()


def _statement(**changes: Any) -> dict[str, Any]:
    made = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "research/topics", "digest": {"sha256": "ab" * 32}}],
        "predicateType": "https://wharfinger.io/attestations/dataset/v1",
        "predicate": {"name": "research/topics", "contentDigest": "sha256:" + "cd" * 32, "files": 2, "bytes": 10},
    }
    return {**made, **changes}


def _public_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _try(client: IssuerClient, request: str) -> object:
    pod = PodRegistration("u", TRAINER, Path("/nowhere"), 0, 2**22 + 7, 0)
    control = SpiffeId.part(DOMAIN, "control")
    return {
        "register pod": lambda: client.register_pod(pod),
        "list pods": client.pods,
        "forget pod": lambda: client.forget_pod("u"),
        "issue person": lambda: client.person_certificate("research", "ada", _public_pem()),
        "issue token": lambda: client.token(ADA, "registry"),
        "sign statement": lambda: client.sign_statement(_statement(), control),
        "sign checkpoint": lambda: client.sign_checkpoint(f"{DOMAIN}/log", 0, EMPTY_ROOT, []),
        "read trust root": client.trust_root,
    }[request]()


def test_each_request_is_for_its_own_part_alone(issuer: Issuer) -> None:
    """Of every caller with every request only the one whose duty it is gets through: a node gets no signature."""
    passed = set()
    for who in (*PARTS, TRAINER, ADA, SpiffeId.part(DOMAIN, "builder")):
        client = issuer.client(who)
        for request in REQUESTS:
            try:
                _try(client, request)
            except Denied as error:
                assert f"may not {request}" in str(error)
                continue
            except Conflict:
                assert request == "register pod"
            passed.add((str(who), request))
        client.close()
    everyone = {str(who) for who in (*PARTS, TRAINER, ADA, SpiffeId.part(DOMAIN, "builder"))}
    granted = {(part, request) for request, part in MAY_ASK.items()}
    assert passed == granted | {(who, "read trust root") for who in everyone}
    written = [(d["who"].rpartition("/")[2], d["verb"], d["what"], d["allowed"]) for d in issuer.decisions()]
    assert len(written) == len(everyone) * len(REQUESTS)
    assert ("node", "sign", "statement", False) in written
    for written_down in issuer.decisions():
        found, inputs = journal.find(issuer.folder / "evidence", written_down["id"])
        assert replay(from_record(found), inputs).allowed is written_down["allowed"]


def test_nobody_anonymous_is_answered() -> None:
    """Without a certificate every request is refused, the public trust root too."""
    assert not any(judge(None, request).allowed for request in REQUESTS)
    assert not judge("spiffe://example.test/wharfinger/admin/more", "issue token").allowed
    assert not judge("spiffe://example.test/wharfinger/admin", "make tea").allowed


def test_a_connection_without_a_certificate_gets_401(issuer: Issuer) -> None:
    """Who shows no SVID is told so, and it is written down."""
    client = issuer.client("admin")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection, _ = client._connected()
    connection._context = context
    with pytest.raises(Unauthenticated):
        client.trust_root()
    assert issuer.decisions()[-1]["who"] == "anonymous"


def test_a_person_gets_a_certificate_and_a_token(issuer: Issuer) -> None:
    """The admin lets a person in; the answers verify under the trust root that the issuer tells."""
    admin = issuer.client("admin")
    told = admin.trust_root()
    bundles = issuer.domain.authority.bundles
    assert told.authorities == bundles[DOMAIN].x509_authorities
    assert parse_jwks(json.dumps(told.jwt_authorities).encode()) == bundles[DOMAIN].jwt_authorities
    chain = certificates_from_pem(admin.person_certificate("research", "ada", _public_pem(), 60))
    now = issuer.domain.clock.now()
    assert verify(chain, bundles, now) == ADA
    assert verify_token(admin.token(ADA, "registry"), bundles, "registry", now) == ADA
    for holder in (TRAINER, SpiffeId.part(DOMAIN, "admin"), SpiffeId.person(DOMAIN, "a", "b").trust_domain.id):
        with pytest.raises(Invalid, match="expected a person"):
            admin.token(holder, "registry")
    with pytest.raises(Malformed):
        admin.person_certificate("../x", "ada", _public_pem())


def test_a_statement_is_signed_by_a_leaf_of_its_own(issuer: Issuer) -> None:
    """Control gets a bundle whose envelope verifies under its certificate, which names the signer that it asked for."""
    control = issuer.client("control")
    signer = SpiffeId.part(DOMAIN, "control")
    bundle = Bundle.of_json(control.sign_statement(_statement(), signer))
    assert isinstance(bundle.material, Chain)
    payload = dsse.verify(bundle.envelope, [PublicKey.of(bundle.material.leaf)])
    assert json.loads(payload)["predicate"]["files"] == 2
    bundles, now = issuer.domain.authority.bundles, issuer.domain.clock.now()
    assert verify(bundle.material.certificates, bundles, now, Use.CODE_SIGNING) == signer
    assert issuer.decisions()[-1]["what"].endswith(f"by {signer}")


@pytest.mark.parametrize(
    ("statement", "signer"),
    [
        ({}, "control"),
        (_statement(_type="https://in-toto.io/Statement/v0.1"), "control"),
        (_statement(predicateType="https://example.com/anything"), "control"),
        (_statement(predicateType=SCREENING), "control"),
        (_statement(subject=[]), "control"),
        (_statement(predicate={"name": "x"}), "control"),
        (_statement(), "builder"),
        (_statement(), "node"),
        (_statement(), "admin"),
    ],
    ids=["empty", "old", "foreign", "mistyped", "no-subject", "not-read", "not-its-word", "node", "admin"],
)
def test_what_is_no_statement_of_ours_is_not_signed(issuer: Issuer, statement: dict[str, Any], signer: str) -> None:
    """Bytes, foreign predicates, predicates that do not read as their type, signers who may not say it: none is signed."""
    with pytest.raises((Malformed, Invalid)):
        issuer.client("control").sign_statement(statement, SpiffeId.part(DOMAIN, signer))


def test_every_predicate_that_may_be_signed_is_read_first() -> None:
    """There is a reader for each predicate type that anyone may sign."""
    assert set(PARSERS) == set(SIGNERS)


class Log:
    """A log's tree over numbered leaves; `salt` makes another one."""

    def __init__(self, salt: str = "") -> None:
        self._salt = salt

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a perfect subtree."""
        if level == 0:
            return leaf_hash(f"{self._salt}{index}".encode())
        return node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def root(self, size: int) -> bytes:
        """Return the root over the first `size` leaves."""
        return root(size, self.node)

    def proof(self, old: int, new: int) -> list[bytes]:
        """Return the consistency proof."""
        return consistency_proof(old, new, self.node) if old else []


def test_a_checkpoint_that_follows_is_signed_and_kept(issuer: Issuer) -> None:
    """A growing log is signed step by step, the same checkpoint again gives the same note, over a restart too."""
    registry, log, origin = issuer.client("registry"), Log(), f"{DOMAIN}/log"
    key = VerifierKey.parse(registry.trust_root().log_key)
    assert key.name == origin
    last = 0
    for size in (0, 3, 4, 9):
        note = registry.sign_checkpoint(origin, size, log.root(size), log.proof(last, size))
        checkpoint = open_checkpoint(note.encode(), origin, [key])
        assert (checkpoint.size, checkpoint.root) == (size, log.root(size))
        assert registry.sign_checkpoint(origin, size, log.root(size), []) == note
        last = size
    again = Notary(issuer.domain.vault, issuer.domain.authority)
    with pytest.raises(Conflict):
        again.checkpoint(Checkpoint(origin, 8, log.root(8)), [])


def test_a_log_that_was_rolled_back_or_forked_is_refused(issuer: Issuer) -> None:
    """Fewer entries, other entries, a wrong or missing proof, another log: refused, and the last stays the last."""
    registry, log, forked, origin = issuer.client("registry"), Log(), Log("other"), f"{DOMAIN}/log"
    registry.sign_checkpoint(origin, 5, log.root(5), [])
    kept = issuer.domain.vault.last_checkpoint()
    for size, of, proof in (
        (4, log, []),
        (4, log, log.proof(4, 5)),
        (0, log, []),
        (5, forked, []),
        (8, forked, forked.proof(5, 8)),
        (8, log, []),
        (8, log, log.proof(4, 8)),
        (8, log, list(reversed(log.proof(5, 8)))),
        (8, log, [*log.proof(5, 8), bytes(32)]),
    ):
        with pytest.raises(Conflict, match=r"rolled back|forked"):
            registry.sign_checkpoint(origin, size, of.root(size), proof)
    with pytest.raises(Invalid):
        registry.sign_checkpoint("another/log", 8, log.root(8), log.proof(5, 8))
    with pytest.raises(Invalid):
        registry.sign_checkpoint(origin, -1, log.root(8), [])
    assert issuer.domain.vault.last_checkpoint() == kept
    registry.sign_checkpoint(origin, 8, log.root(8), log.proof(5, 8))


def test_a_pod_that_is_registered_gets_its_identity(issuer: Issuer, tmp_path: Path) -> None:
    """The node registers a pod, its process fetches its SVID, the issuer forgets it on the node's word."""
    node, folder = issuer.client("node"), tmp_path / "pod"
    folder.mkdir()
    # This test is its own pod: what descends from the process above it.
    parent = Process.open(os.getppid())
    pod = PodRegistration("uid-1", TRAINER, folder, 0, parent.pid, parent.started(), "main")
    parent.close()
    path = node.register_pod(pod)
    assert path == folder / "workload.sock" and path.stat().st_mode & 0o777 == 0o666
    assert node.register_pod(pod) == path
    assert node.pods() == (pod,)
    source = WorkloadSource(path)
    assert source.material().svid.id == TRAINER
    source.close()
    node.forget_pod("uid-1")
    node.forget_pod("uid-1")
    assert node.pods() == () and not path.exists()
    with pytest.raises(Conflict):
        node.register_pod(PodRegistration("uid-1", TRAINER, folder, 0, pod.pid, pod.ticks + 1))
    assert (str(TRAINER), "fetch", "x509-svid") in [(d["who"], d["verb"], d["what"]) for d in issuer.decisions()]


@pytest.mark.parametrize(
    "body",
    [None, [], "x", {}, {"uid": 1}, {"uid": "u", "spiffeId": "x"}, {"uid": "u", "folder": "relative"}],
)
def test_a_registration_that_is_none_is_refused(issuer: Issuer, body: Any) -> None:
    """Bodies that are no registration get an error of the family, and nothing is known afterwards."""
    node = issuer.client("node")
    with pytest.raises((Malformed, Invalid)):
        node._ask("POST", "/v1/pods", {"body": body} if body is None else body)
    assert node.pods() == ()


def test_unknown_paths_are_404(issuer: Issuer) -> None:
    """What is no request is not found."""
    with pytest.raises(WharfingerError) as missing:
        issuer.client("admin")._ask("GET", "/v1/keys")
    assert missing.value.status == 404


def test_nothing_is_given_when_it_cannot_be_written_down(issuer: Issuer) -> None:
    """When the journal fails the request fails, and the caller gets no certificate."""

    async def fails(*_: object) -> None:
        raise Conflict("the disk is full")

    requests = Requests(issuer.domain.authority, issuer.notary, issuer.pods, fails)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: Any) -> None:
        sent.append(message)

    admin = SpiffeId.part(DOMAIN, "admin")
    scope = {"type": "http", "method": "GET", "path": "/v1/trust-root", "extensions": {serve.PEER: admin}}
    asyncio.run(requests(scope, receive, send))
    assert sent[0]["status"] == 409 and b"BEGIN" not in sent[1]["body"]
