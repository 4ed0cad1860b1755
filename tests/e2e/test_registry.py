"""The registry of a real platform: oras with a real JWT-SVID, killed and started again, its log rolled back under it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kube_apiserver import neighbour
from platform_under_test import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.serial]
TENANTS = """
apiVersion: wharfinger.io/v1alpha1
kind: Tenant
metadata: {name: research}
spec: {namespaces: [research]}
---
apiVersion: wharfinger.io/v1alpha1
kind: Tenant
metadata: {name: support}
spec: {namespaces: [support]}
---
apiVersion: v1
kind: Namespace
metadata: {name: research}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with two tenants and a dataset that the control plane signed."""
    folder = tmp_path_factory.mktemp("registry")
    made = Platform(folder / "state")
    made.up()
    try:
        made.until("apply", "-f", "-", stdin=TENANTS)
        files = folder / "files"
        files.mkdir()
        (files / "a.txt").write_text("a text\n")
        made.until("push", "dataset", "manual", str(files), "-n", "research")
        yield made
    finally:
        made.down()


def log_size(platform: Platform) -> int:
    """Return how many entries the log's checkpoint has."""
    return int((platform.directory / "log" / "checkpoint").read_text().split("\n")[1])


def logged(platform: Platform, least: int) -> int:
    """Wait until the log has `least` entries; return how many it has."""
    deadline = time.monotonic() + 60
    while log_size(platform) < least:
        assert time.monotonic() < deadline, "the control plane logs what it signed"
        time.sleep(0.2)
    return log_size(platform)


@pytest.mark.neighbours
def test_oras_comes_in_with_a_real_jwt_svid(platform: Platform, tmp_path: Path) -> None:
    """A token for the registry opens the tenant's repositories, one for the gateway nothing, another tenant's not these."""
    oras = neighbour("oras")
    if oras is None:
        pytest.skip("oras is not built: run make neighbours")
    config = yaml.safe_load((platform.directory / "kubeconfig").read_text())
    import base64

    authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "ca.pem").write_bytes(base64.b64decode(authority))
    port = json.loads((platform.directory / "ports.json").read_text())["registry"]
    (tmp_path / "note.txt").write_text("a note")

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [oras, words[0], "--ca-file", "ca.pem", *words[1:]]
        return subprocess.run(
            command, cwd=tmp_path, input=stdin, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip

    def login(tenant: str, audience: str) -> int:
        token = platform.until("token", "--tenant", tenant, "--user", "someone", "--audience", audience)
        return run("login", "-u", "any", "--password-stdin", f"127.0.0.1:{port}", stdin=token).returncode

    target = f"127.0.0.1:{port}/research/things/note:v1"
    assert login("research", "gateway") == 1
    assert login("research", "registry") == 0
    assert run("push", target, "note.txt").returncode == 0
    assert run("pull", target, "-o", "out").returncode == 0
    assert (tmp_path / "out" / "note.txt").read_text() == "a note"
    assert login("support", "registry") == 0
    refused = run("pull", target, "-o", "other")
    assert refused.returncode == 1 and "may not pull" in refused.stderr


def test_a_killed_registry_comes_back_with_everything(platform: Platform, tmp_path: Path) -> None:
    """After kill -9 the supervisor starts it anew: the log goes on, the artifact is there, a push works."""
    before = logged(platform, 3)
    assert platform.kill("registry")
    (tmp_path / "b.txt").write_text("another text\n")
    platform.until("push", "dataset", "second", str(tmp_path), "-n", "research")
    assert logged(platform, before + 3) > before


def test_a_log_that_was_rolled_back_is_not_served(platform: Platform, tmp_path: Path) -> None:
    """With an older copy of the log's files the platform does not come up and says why; with the real ones it does."""
    log, older, newer = platform.directory / "log", tmp_path / "older", tmp_path / "newer"
    platform.down()
    size = log_size(platform)
    shutil.copytree(log, older)
    platform.up()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "c.txt").write_text("a third text\n")
    platform.until("push", "dataset", "third", str(tmp_path / "files"), "-n", "research")
    logged(platform, size + 1)
    platform.down()
    log.rename(newer)
    shutil.copytree(older, log)
    refused = platform.wharf("up", "--detach", timeout=120)
    assert refused.returncode == 2 and "its signed checkpoint" in refused.stderr, refused.stderr
    shutil.rmtree(log)
    newer.rename(log)
    platform.up()
    assert log_size(platform) > size
