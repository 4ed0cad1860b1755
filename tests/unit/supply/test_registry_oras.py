"""The unmodified `oras` against the registry: it logs in with a JWT-SVID, pushes, pulls, attaches and discovers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from kube_apiserver import neighbour
from local_registry import ALICE, MALLORY, SERVER, LocalRegistry

from wharfinger.core.digests import sha256
from wharfinger.supply.artifact import attach, pull_folder, push_folder

pytestmark = pytest.mark.neighbours
REPO = "research/models/tiny"
FILES = {"model.safetensors": b"\x00\x01weights" * 5000, "config/config.json": b"{}\n", "empty.txt": b""}


class Oras:
    """`oras` with a home of its own, logged in with the token of one identity."""

    def __init__(self, folder: Path, registry: LocalRegistry, who: str) -> None:
        program = neighbour("oras")
        if program is None:
            pytest.skip("oras is not built: run make neighbours")
        self.program = program
        self.folder = folder
        folder.mkdir()
        (folder / "ca.pem").write_bytes(registry.authority.bundle)
        self.host = f"127.0.0.1:{registry.port}"
        self.who = who

    def login(self) -> subprocess.CompletedProcess[str]:
        """Log in with a JWT-SVID as password."""
        return self("login", "-u", "anything", "--password-stdin", self.host, stdin=f"token:{self.who}")

    def __call__(self, *words: str, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return subprocess.run(
            [self.program, words[0], *(("ls",) if words[0] == "repo" else ()), "--ca-file", str(self.folder / "ca.pem"),
             *words[1:]],
            cwd=cwd or self.folder, input=stdin, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)},
        )  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of files."""
    root = tmp_path / "files"
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def pulled(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_oras_pushes_and_pulls_by_tag_and_digest(registry: LocalRegistry, files: Path, tmp_path: Path) -> None:
    """What oras pushed, oras and our own client pull, byte for byte."""
    oras = Oras(tmp_path / "alice", registry, ALICE)
    assert oras.login().returncode == 0
    target = f"{oras.host}/research/things/x"
    pushed = oras("push", f"{target}:v1", *FILES, "--artifact-type", "application/x.test", cwd=files)
    assert pushed.returncode == 0, pushed.stderr
    digest = registry.client(ALICE).resolve("research/things/x", "v1")
    for number, reference in enumerate((f"{target}:v1", f"{target}@{digest}")):
        done = oras("pull", reference, "-o", str(tmp_path / f"out{number}"))
        assert done.returncode == 0, done.stderr
        assert pulled(tmp_path / f"out{number}") == FILES


def test_oras_pulls_what_our_client_pushed(registry: LocalRegistry, files: Path, tmp_path: Path) -> None:
    """A model that `push_folder` pushed is an OCI artifact like any other; pushed again it is the same."""
    client = registry.client(ALICE)
    digest = push_folder(client, REPO, files, "model")
    assert push_folder(client, REPO, files, "model") == digest
    oras = Oras(tmp_path / "alice", registry, ALICE)
    oras.login()
    done = oras("pull", f"{oras.host}/{REPO}@{digest}", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert pulled(tmp_path / "out") == FILES
    pull_folder(client, REPO, digest, tmp_path / "ours")
    assert pulled(tmp_path / "ours") == FILES


def test_oras_attaches_and_discovers(registry: LocalRegistry, files: Path, tmp_path: Path) -> None:
    """Referrers attached by oras and by us are discovered by both, filtered by type."""
    digest = push_folder(registry.client(ALICE), REPO, files, "model")
    oras = Oras(tmp_path / "alice", registry, ALICE)
    oras.login()
    (oras.folder / "note.txt").write_text("a note")
    target = f"{oras.host}/{REPO}@{digest}"
    assert oras("attach", "--artifact-type", "application/x.note", target, "note.txt").returncode == 0
    attach(registry.client(ALICE), REPO, digest, b'{"a":"bundle"}')
    found = json.loads(oras("discover", "--format", "json", target).stdout)["referrers"]
    assert {item["artifactType"] for item in found} == {
        "application/x.note", "application/vnd.dev.sigstore.bundle.v0.3+json",
    }  # fmt: skip
    only = json.loads(oras("discover", "--format", "json", "--artifact-type", "application/x.note", target).stdout)
    assert len(only["referrers"]) == 1
    assert len(registry.client(ALICE).referrers(REPO, digest, "application/x.note")) == 1


def test_oras_of_another_tenant_gets_nothing(registry: LocalRegistry, files: Path, tmp_path: Path) -> None:
    """Mallory logs in, since they are known, and may neither pull, push, list nor fetch a blob by its URL."""
    digest = push_folder(registry.client(ALICE), REPO, files, "model")
    oras = Oras(tmp_path / "mallory", registry, MALLORY)
    assert oras.login().returncode == 0
    target = f"{oras.host}/{REPO}"
    blob = f"{target}@{sha256(FILES['model.safetensors'])}"
    (oras.folder / "x.txt").write_text("x")
    for words in (
        ("pull", f"{target}@{digest}"),
        ("push", f"{target}:mine", "x.txt"),
        ("discover", f"{target}@{digest}"),
    ):
        done = oras(*words)
        assert done.returncode == 1 and ("may not" in done.stderr or "403" in done.stderr), done.stderr
    fetched = subprocess.run(
        [oras.program, "blob", "fetch", "--ca-file", str(oras.folder / "ca.pem"), "--output", "-", blob],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "HOME": str(oras.folder)},
    )  # fmt: skip
    assert fetched.returncode == 1 and fetched.stdout == ""


def test_oras_with_a_grant_pulls_until_it_is_revoked(registry: LocalRegistry, files: Path, tmp_path: Path) -> None:
    """A workload's JWT-SVID opens what its grant names; after the revocation the same login is refused."""
    digest = push_folder(registry.client(ALICE), REPO, files, "model")
    oras = Oras(tmp_path / "server", registry, SERVER)
    assert oras.login().returncode == 0
    registry.grant(SERVER, digest)
    assert oras("pull", f"{oras.host}/{REPO}@{digest}", "-o", "a").returncode == 0
    registry.grant(SERVER, digest, revoked=True)
    refused = oras("pull", f"{oras.host}/{REPO}@{digest}", "-o", "b")
    assert refused.returncode == 1 and "revoked" in refused.stderr


def test_oras_without_a_login_is_asked_for_one(registry: LocalRegistry, tmp_path: Path) -> None:
    """Neither anonymous nor with a wrong password does anyone come in."""
    oras = Oras(tmp_path / "nobody", registry, ALICE)
    assert oras("pull", f"{oras.host}/{REPO}:v1").returncode == 1
    assert oras("login", "-u", "x", "--password-stdin", oras.host, stdin="nonsense").returncode == 1
