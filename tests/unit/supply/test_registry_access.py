"""The registry's door: who gets what, by which way in, and that each decision is on disk before the bytes."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from pathlib import Path

import pytest
from authority import identity
from local_registry import (
    ADA,
    ADMIN,
    ALICE,
    CONTROL,
    MALLORY,
    NODE,
    OTHER,
    SERVER,
    LocalRegistry,
    condition,
)

from wharfinger.core.digests import sha256
from wharfinger.core.errors import Denied
from wharfinger.supply.artifact import attach, pull_folder, push_folder
from wharfinger.supply.registry import authorization
from wharfinger.supply.registry.oci import Descriptor, Manifest

REPO = "research/models/tiny"
WEIGHTS = b"weights" * 1000


@pytest.fixture
def model(registry: LocalRegistry, tmp_path: Path) -> str:
    """A model that Alice pushed; its digest."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "config.json").write_text("{}")
    return push_folder(registry.client(ALICE), REPO, folder, "model")


BLOB = f"/v2/{REPO}/blobs/{sha256(WEIGHTS)}"


def everything(registry: LocalRegistry, who: str, digest: str) -> set[int]:
    """Return the answers to every way of reading the model."""
    targets = [
        f"/v2/{REPO}/manifests/{digest}", BLOB, f"/v2/{REPO}/referrers/{digest}",
    ]  # fmt: skip
    return {registry.ask(who, method, target).status for target in targets for method in ("GET", "HEAD")} - {405}


def test_a_tenants_people_pull_what_is_theirs_and_nobody_elses(registry: LocalRegistry, model: str) -> None:
    """Alice reads all of it; another tenant's person, a workload without a grant and other parts read none of it."""
    assert everything(registry, ALICE, model) == {200}
    for stranger in (MALLORY, SERVER, "ns/support/sa/server", "wharfinger/gateway", "wharfinger/console"):
        assert everything(registry, stranger, model) == {403}, stranger
    for part in (CONTROL, NODE, ADMIN):
        assert everything(registry, part, model) == {200}, part


def test_a_stranger_learns_nothing_of_what_is_there(registry: LocalRegistry, model: str) -> None:
    """To whom it does not concern, what is there and what is not look the same; lists show them nothing."""
    for target in (
        f"/v2/{REPO}/manifests/latest",
        f"/v2/{REPO}/manifests/sha256:{'0' * 64}",
        "/v2/research/no/tags/list",
    ):
        assert registry.ask(MALLORY, "GET", target).status == 403
    assert json.loads(registry.ask(MALLORY, "GET", "/v2/_catalog").body) == {"repositories": []}
    assert json.loads(registry.ask(ALICE, "GET", "/v2/_catalog").body) == {"repositories": [REPO]}
    assert registry.client(CONTROL).repositories() == (REPO,)


def test_nobody_comes_in_without_credentials_that_hold(registry: LocalRegistry, model: str) -> None:
    """No certificate and no token is a challenge; a token that does not hold is refused, also beside a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=registry.authority.bundle.decode())
    answers = []
    for header in (
        "",
        "Authorization: Bearer nonsense\r\n",
        "Authorization: Basic !!!\r\n",
        "Authorization: Digest x\r\n",
    ):
        raw = socket.create_connection(("127.0.0.1", registry.port))
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as connection:
            request = f"GET /v2/{REPO}/manifests/{model} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n"
            connection.sendall(request.encode())
            answers.append(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert all(answer.startswith(b"HTTP/1.1 401") for answer in answers)
    assert all(b'www-authenticate: Basic realm="wharfinger"' in answer for answer in answers)
    assert registry.ask(ALICE, "GET", BLOB, authorization="Bearer nonsense").status == 401


def test_a_jwt_svid_is_taken_as_bearer_and_as_password(registry: LocalRegistry, model: str) -> None:
    """The token's holder is the caller, whatever certificate the connection has."""
    basic = base64.b64encode(f"anything:token:{ALICE}".encode()).decode()
    assert registry.ask(MALLORY, "GET", BLOB, authorization=f"Basic {basic}").status == 200
    assert registry.ask(MALLORY, "GET", BLOB, authorization=f"Bearer token:{ALICE}").status == 200
    assert registry.ask(ALICE, "GET", BLOB, authorization=f"Bearer token:{MALLORY}").status == 403


def test_a_grant_opens_exactly_the_artifact_to_exactly_the_identity(registry: LocalRegistry, model: str) -> None:
    """With a grant the workload reads the model, its blobs and its referrers; another workload and another model not."""
    attach(registry.client(CONTROL), REPO, model, b'{"a":"bundle"}')
    registry.grant(SERVER, model)
    assert everything(registry, SERVER, model) == {200}
    (referrer,) = registry.client(SERVER).referrers(REPO, model)
    assert registry.client(SERVER).pull_manifest(REPO, referrer.digest).manifest.subject
    assert everything(registry, OTHER, model) == {403}
    other = Manifest(artifact_type="a/b", annotations={"another": "model"})
    client = registry.client(ALICE)
    client.push_blob(REPO, b"{}")
    digest = client.push_manifest(REPO, other, tag="latest")
    assert registry.ask(SERVER, "GET", f"/v2/{REPO}/manifests/{digest}").status == 403
    assert registry.ask(SERVER, "GET", f"/v2/{REPO}/manifests/latest").status == 403
    assert registry.ask(SERVER, "POST", f"/v2/{REPO}/blobs/uploads/").status == 403


def test_a_revoked_grant_closes_the_door_at_once(registry: LocalRegistry, model: str, tmp_path: Path) -> None:
    """The pull after a revocation is 403, manifest and blobs alike; the neighbour's grant is untouched."""
    registry.grant(SERVER, model)
    registry.grant(OTHER, model, name="other")
    pull_folder(registry.client(SERVER), REPO, model, tmp_path / "before")
    registry.grant(SERVER, model, revoked=True)
    assert everything(registry, SERVER, model) == {403}
    with pytest.raises(Denied, match="revoked"):
        pull_folder(registry.client(SERVER), REPO, model, tmp_path / "after")
    assert everything(registry, OTHER, model) == {200}


def test_a_blob_is_not_readable_but_through_a_manifest(registry: LocalRegistry) -> None:
    """What was uploaded and is needed by no manifest is read by nobody, its uploader included."""
    registry.client(ALICE).push_blob(REPO, WEIGHTS)
    assert registry.ask(ALICE, "GET", BLOB).status == 404
    assert registry.ask(ALICE, "HEAD", BLOB).status == 200
    assert registry.ask(MALLORY, "HEAD", BLOB).status == 403
    assert registry.ask(CONTROL, "GET", BLOB).status == 404


def test_another_tenants_blob_cannot_be_reached_from_ones_own_repository(registry: LocalRegistry, model: str) -> None:
    """Neither by its URL there, nor by a mount, nor by a manifest that names it."""
    mine = "support/models/stolen"
    digest = sha256(WEIGHTS)
    assert registry.ask(MALLORY, "GET", f"/v2/{mine}/blobs/{digest}").status == 404
    mounted = registry.ask(MALLORY, "POST", f"/v2/{mine}/blobs/uploads/?mount={digest}&from={REPO}")
    assert mounted.status == 202, "an upload, as if it were not here"
    client = registry.client(MALLORY)
    client.push_blob(mine, b"{}")
    manifest = Manifest(layers=(Descriptor("a/b", digest, len(WEIGHTS)),), artifact_type="a/b").encode()
    answer = registry.ask(
        MALLORY, "PUT", f"/v2/{mine}/manifests/x", manifest, content_type="application/vnd.oci.image.manifest.v1+json"
    )
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert registry.ask(MALLORY, "HEAD", f"/v2/{mine}/blobs/{digest}").status == 404


def test_anothers_upload_cannot_be_written_read_or_ended(registry: LocalRegistry) -> None:
    """An upload is its beginner's: a colleague and a stranger find none."""
    location = registry.ask(ALICE, "POST", f"/v2/{REPO}/blobs/uploads/").headers["location"]
    for who in (ADA, MALLORY, CONTROL):
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            assert registry.ask(who, method, location, b"x" if method == "PATCH" else b"").status == 404
    assert registry.ask(ALICE, "GET", location).status == 204


def test_pushes_go_to_ones_own_namespace_alone(registry: LocalRegistry) -> None:
    """A person pushes below their tenant's namespaces, the node the outputs of steps, a workload nowhere."""

    def may(who: str, repository: str) -> bool:
        return registry.ask(who, "POST", f"/v2/{repository}/blobs/uploads/").status == 202

    assert may(ALICE, "research/x") and not may(ALICE, "support/x") and not may(ALICE, "nobody/x")
    assert may(NODE, "research/steps-pod-1") and not may(NODE, "research/x") and not may(NODE, "research/steps-a/b")
    assert may(CONTROL, "anything/x") and may(ADMIN, "anything/x")
    assert not may(SERVER, "research/x") and not may("wharfinger/gateway", "research/x")


@pytest.mark.parametrize(
    "name", ["single", "../x/y", "research/../support/x", "research//x", "Research/x", "a/b\x00", "a/" + "x" * 300]
)
def test_no_name_is_a_path(registry: LocalRegistry, name: str) -> None:
    """Names that are none never get as far as a decision."""
    from urllib.parse import quote

    for safe in ("/", ""):
        status = registry.ask(ADMIN, "POST", f"/v2/{quote(name, safe=safe)}/blobs/uploads/").status
        assert status in (400, 404)
    assert {path.name for path in (registry.folder / "registry").iterdir()} <= {
        "blobs", "uploads", "catalog.db", "catalog.db-wal", "catalog.db-shm",
    }  # fmt: skip


def test_access_policies_allow_and_deny(registry: LocalRegistry, model: str) -> None:
    """An Allow opens the artifact that an object names; a Deny that matches closes it, for the tenant's own people too."""
    registry.names("models", "research", "tiny", REPO, model)
    registry.policy("share", identities=[identity(MALLORY)], verbs=["pull"], objects={"names": ["tiny"]})
    assert everything(registry, MALLORY, model) == {200}
    assert registry.ask(MALLORY, "GET", f"/v2/{REPO}/tags/list").status == 200
    registry.policy("stop", effect="Deny", identities=["spiffe://test.local/tenant/*"], verbs=["pull"])
    assert everything(registry, MALLORY, model) == everything(registry, ALICE, model) == {403}
    registry.policy("stop", "DELETED", effect="Deny", identities=["x"], verbs=["pull"])
    registry.policy("share", identities=[identity(MALLORY)], verbs=["pull"], condition="nonsense")
    assert everything(registry, MALLORY, model) == {403}


def test_an_object_of_ones_own_namespace_opens_nothing_of_anothers(registry: LocalRegistry, model: str) -> None:
    """A Model in `support` that names `research`'s artifact gives a policy on `support` no hold on it."""
    registry.names("models", "support", "mine", REPO, model)
    registry.policy("ours", identities=[identity(MALLORY)], verbs=["pull"], objects={"namespaces": ["support"]})
    assert everything(registry, MALLORY, model) == {403}


def test_a_push_may_be_allowed_by_a_policy(registry: LocalRegistry) -> None:
    """A policy on a Dataset of a name lets a workload push to the repository that is for it, and to no other."""
    registry.policy(
        "feed", identities=[identity(SERVER)], verbs=["push"], objects={"kinds": ["Dataset"], "names": ["logs"]}
    )
    assert registry.ask(SERVER, "POST", "/v2/research/datasets/logs/blobs/uploads/").status == 202
    assert registry.ask(SERVER, "POST", "/v2/research/datasets/other/blobs/uploads/").status == 403
    assert registry.ask(SERVER, "POST", "/v2/research/models/logs/blobs/uploads/").status == 403
    client, repository = registry.client(SERVER), "research/datasets/logs"
    for _ in range(2):
        client.push(repository, {"a.txt": b"a"}, artifact_type="a/b", tag="v1")
    assert registry.ask(SERVER, "GET", f"/v2/{repository}/manifests/v1").status == 403
    assert registry.ask(SERVER, "GET", f"/v2/{repository}/blobs/{sha256(b'a')}").status == 403


def test_every_decision_is_on_disk_and_replays(registry: LocalRegistry, model: str) -> None:
    """Each use leaves one decision with its inputs; the same rule on the same inputs gives the same verdict."""
    before = len(registry.decisions())
    registry.grant(SERVER, model)
    for who, allowed, rule in ((ALICE, True, authorization.RULE), (MALLORY, False, authorization.RULE),
                               (SERVER, True, "grant.permits_any")):  # fmt: skip
        status = registry.ask(who, "GET", BLOB).status
        record = registry.decisions()[-1]
        assert (record["allowed"], record["rule"], record["who"]) == (allowed, rule, identity(who))
        assert (status == 200) == allowed and record["verb"] == "pull" and record["reason"]
    assert len(registry.decisions()) == before + 3
    from wharfinger.policy.journal import find

    for record in registry.decisions():
        if record["rule"] == authorization.RULE:
            _, inputs = find(registry.folder, record["id"])
            verdict = authorization.replay(inputs, condition)
            assert (verdict.allowed, verdict.reason) == (record["allowed"], record["reason"])


def test_only_the_control_plane_adds_to_the_log(registry: LocalRegistry) -> None:
    """Everybody known reads the log; a tenant's person and other parts append nothing, and it is recorded."""
    for who in (ALICE, NODE, ADMIN, SERVER):
        assert registry.ask(who, "POST", "/log/entries", b"{}").status == 403
        assert registry.ask(who, "GET", "/log/checkpoint").status == 200
    assert registry.ask(CONTROL, "POST", "/log/entries", b"{}").status == 400
    assert [record["allowed"] for record in registry.decisions()][-5:] == [False, False, False, False, True]
