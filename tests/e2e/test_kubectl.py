"""The real kubectl against a running platform: every command that people know, on kinds of Kubernetes and of ours."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kube_apiserver import neighbour
from platform_under_test import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.serial, pytest.mark.neighbours]

TENANT = """
apiVersion: wharfinger.io/v1alpha1
kind: Tenant
metadata: {name: harbour}
spec: {namespaces: [quay], admins: [ada]}
"""
SERVICE = """
apiVersion: wharfinger.io/v1alpha1
kind: InferenceService
metadata: {name: pilot, namespace: quay}
spec: {model: charts, replicas: 1}
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: bell}
spec:
  replicas: 1
  selector: {matchLabels: {app: bell}}
  template:
    metadata: {labels: {app: bell}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: wharfinger.io/host
        command: [sh, -c, "i=0; while :; do echo strike $i; i=$((i+1)); sleep 0.2; done"]
"""


class Kubectl:
    """The real kubectl as the local admin of a platform."""

    def __init__(self, platform: Platform, home: Path) -> None:
        self._program = str(neighbour("kubectl"))
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "KUBECONFIG": str(platform.directory / "kubeconfig"),
        }

    def run(self, *words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command and return how it ended."""
        return subprocess.run(
            [self._program, *words], input=stdin, env={**self._environment, **environment}, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip

    def __call__(self, *words: str, stdin: str = "", **environment: str) -> str:
        """Run a command that must succeed; return what it printed."""
        done = self.run(*words, stdin=stdin, **environment)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command; its output is a pipe."""
        return subprocess.Popen([self._program, *words], env=self._environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """A platform with one tenant, and kubectl on it."""
    if neighbour("kubectl") is None:
        pytest.skip("kubectl is not built: run make neighbours")
    platform = Platform(tmp_path_factory.mktemp("platform") / "s")
    platform.up()
    try:
        made = Kubectl(platform, tmp_path_factory.mktemp("home"))
        made("apply", "-f", "-", stdin=TENANT)
        made("wait", "tenant/harbour", "--for=condition=Ready", "--timeout=60s")
        yield made
    finally:
        platform.down()


@pytest.fixture
def lines() -> Iterator[Callable[[subprocess.Popen[str]], str]]:
    """Read a line of what a command prints; the commands are ended afterwards."""
    seen: list[subprocess.Popen[str]] = []

    def read(process: subprocess.Popen[str]) -> str:
        seen.append(process)
        assert process.stdout is not None
        return process.stdout.readline()

    yield read
    for process in seen:
        process.terminate()
        process.wait(10)


def test_who_am_i_and_what_may_i(kubectl: Kubectl) -> None:
    """The local admin may do everything but write grants and status."""
    assert "/wharfinger/admin" in kubectl("auth", "whoami")
    assert kubectl("auth", "can-i", "delete", "tenants") == "yes\n"
    assert kubectl.run("auth", "can-i", "create", "grants", "-n", "quay").stdout.startswith("no")
    refused = kubectl.run(
        "create", "-f", "-", stdin=SERVICE.replace("InferenceService", "Grant").replace("pilot", "forged")
    )
    assert refused.returncode == 1 and "only the control plane may create grants" in refused.stderr


def test_what_there_is(kubectl: Kubectl) -> None:
    """Kinds, their fields, nodes and namespaces."""
    assert "inferenceservices" in kubectl("api-resources", "--api-group=wharfinger.io")
    assert "How replicas follow load" in kubectl("explain", "isvc.spec.scaling")
    assert "Ready" in kubectl("get", "nodes") and "quay" in kubectl("get", "namespaces")
    assert "harbour" in kubectl("get", "tenants", "-o", "wide")
    assert "Allocatable" in kubectl("describe", "nodes")


def test_apply_both_ways_with_conflicts_and_diff(kubectl: Kubectl) -> None:
    """Client-side, server-side, whose field it is, and what would change."""
    assert "created" in kubectl("apply", "-f", "-", stdin=SERVICE)
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=SERVICE)
    changed = SERVICE.replace("model: charts", "model: stars")
    assert "+  model: stars" in kubectl.run("diff", "-f", "-", stdin=changed).stdout
    assert "configured" in kubectl("apply", "-f", "-", stdin=changed)
    kubectl("apply", "--server-side", "--field-manager=one", "--force-conflicts", "-f", "-", stdin=changed)
    refused = kubectl.run("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=SERVICE)
    assert refused.returncode == 1 and ".spec.model" in refused.stderr
    kubectl("apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-", stdin=SERVICE)


def test_get_label_patch_edit_and_scale(kubectl: Kubectl) -> None:
    """In every form; each change is there."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("label", "--overwrite", "-n", "quay", "isvc/pilot", "tier=gold")
    assert kubectl("get", "isvc", "-A", "-l", "tier=gold", "-o", "name").endswith("/pilot\n")
    kubectl("patch", "-n", "quay", "isvc/pilot", "--type=merge", "-p", '{"spec":{"callers":["spiffe://a/b"]}}')
    kubectl("scale", "-n", "quay", "isvc/pilot", "--replicas=2")
    kubectl("edit", "-n", "quay", "isvc/pilot", KUBE_EDITOR="sed -i s/charts/stars/")
    found = json.loads(kubectl("get", "-n", "quay", "isvc", "pilot", "-o", "json"))["spec"]
    assert (found["model"], found["replicas"], found["callers"]) == ("stars", 2, ["spiffe://a/b"])
    assert kubectl("get", "-n", "quay", "isvc", "pilot", "-o", "jsonpath={.spec.model}") == "stars"
    assert "model: stars" in kubectl("get", "-n", "quay", "isvc", "pilot", "-o", "yaml")
    assert kubectl("get", "-n", "quay", "isvc").splitlines()[0].split()[:2] == ["NAME", "MODEL"]
    assert "Conditions" in kubectl("describe", "-n", "quay", "isvc", "pilot")


def test_watch_wait_and_delete(kubectl: Kubectl, lines: Callable[[subprocess.Popen[str]], str]) -> None:
    """A watch shows what the control plane does; wait returns when it is done."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    watching = kubectl.start("get", "-n", "quay", "isvc", "-w", "--no-headers")
    assert lines(watching).split()[0] == "pilot"
    kubectl("wait", "-n", "quay", "isvc/pilot", "--for=condition=Ready=False", "--timeout=60s")
    kubectl("annotate", "--overwrite", "-n", "quay", "isvc/pilot", "note=seen")
    assert lines(watching).split()[0] == "pilot"
    waiting = kubectl.start("wait", "-n", "quay", "isvc/pilot", "--for=delete", "--timeout=60s")
    kubectl("delete", "-n", "quay", "isvc", "pilot")
    assert waiting.wait(60) == 0


def test_rollout_and_logs(kubectl: Kubectl, lines: Callable[[subprocess.Popen[str]], str]) -> None:
    """A Deployment rolls out as processes of this machine; their output is followed as it comes."""
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    assert "successfully rolled out" in kubectl("rollout", "status", "deploy/bell", "--timeout=60s")
    assert "strike 0" in kubectl("logs", "deploy/bell")
    following = kubectl.start("logs", "-f", "deploy/bell", "--tail=1")
    first = int(lines(following).split()[1])
    assert [int(lines(following).split()[1]) for _ in range(3)] == [first + 1, first + 2, first + 3]
    assert "1/1" in kubectl("get", "deploy", "bell") and "Running" in kubectl("get", "pods", "-l", "app=bell")
    kubectl("delete", "deploy", "bell", "--cascade=foreground", "--timeout=60s")
    assert kubectl("get", "pods", "-l", "app=bell", "-o", "name") == ""
