"""Deployments and Jobs on the whole platform, by the real kubectl: what a user of Kubernetes does and sees."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kube_apiserver import neighbour
from platform_under_test import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.serial, pytest.mark.neighbours]

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: wharfinger.io/host
        command: [sh, -c, "echo hello from $WHARF_POD; exec sleep 3600"]
"""
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: c, image: wharfinger.io/host, command: [python3, -c, "print('done')"]}
"""
IDENTITY = """
import os, time
from wharfinger.identity.workloadsource import WorkloadSource
source = WorkloadSource.of_environment(os.environ)
print(source.id, flush=True)
time.sleep(3600)
"""
Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform."""
    if neighbour("kubectl") is None:
        pytest.skip("kubectl is not built: run make neighbours")
    made = Platform(tmp_path_factory.mktemp("platform") / "s")
    made.up()
    yield made
    made.down()
    until(lambda: made.processes() == {})


@pytest.fixture(scope="module")
def kubectl(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Kubectl as the local admin; fails when the command does, unless `fails`."""
    home = tmp_path_factory.mktemp("home")
    program = str(neighbour("kubectl"))
    environment = {**os.environ, "KUBECONFIG": str(platform.directory / "kubeconfig"), "HOME": str(home)}

    def run(*words: str, stdin: str = "", fails: bool = False) -> str:
        done = subprocess.run(
            [program, *words], input=stdin, env=environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def pods(kubectl: Kubectl, label: str) -> list[dict[str, object]]:
    """Return the pods with a label."""
    found: list[dict[str, object]] = json.loads(kubectl("get", "pods", "-l", label, "-o", "json"))["items"]
    return found


def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds`."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "did not come"
        time.sleep(0.2)


def test_a_deployment_rolls_out_scales_and_changes(kubectl: Kubectl) -> None:
    """Rollout status, scale, logs, a change of the template and its pods' end work as on any cluster."""
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert kubectl("logs", "deployment/web").startswith("hello from web-")
    kubectl("scale", "deployment/web", "--replicas=4")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    before = {pod["metadata"]["name"] for pod in pods(kubectl, "app=web")}  # type: ignore[index]
    assert len(before) == 4
    kubectl("rollout", "restart", "deployment/web")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    until(lambda: len(pods(kubectl, "app=web")) == 4)
    assert not before & {pod["metadata"]["name"] for pod in pods(kubectl, "app=web")}  # type: ignore[index]
    kubectl("delete", "deployment", "web")
    until(lambda: not pods(kubectl, "app=web"))


def test_a_job_completes_or_says_how_it_failed(kubectl: Kubectl) -> None:
    """Wait on conditions works for both ends, and the log is there."""
    kubectl("apply", "-f", "-", stdin=JOB)
    kubectl("wait", "--for=condition=complete", "job/once", "--timeout=60s")
    assert kubectl("logs", "job/once") == "done\n"
    kubectl("delete", "job", "once")
    kubectl("apply", "-f", "-", stdin=JOB.replace("print('done')", "raise SystemExit(3)"))
    kubectl("wait", "--for=condition=failed", "job/once", "--timeout=60s")
    told = json.loads(kubectl("get", "job", "once", "-o", "json"))["status"]["conditions"]
    assert any("exited with 3" in c["message"] for c in told)
    kubectl("delete", "job", "once")


def test_a_log_is_followed_while_it_grows(kubectl: Kubectl) -> None:
    """`logs -f` ends with its pod, having shown every line."""
    script = "import time\nfor n in range(20): print(n, flush=True); time.sleep(0.05)"
    kubectl("apply", "-f", "-", stdin=JOB.replace("print('done')", json.dumps(script)[1:-1]))
    until(lambda: bool(pods(kubectl, "batch.kubernetes.io/job-name=once")))
    kubectl(
        "wait", "--for=jsonpath={.status.phase}", "pods", "-l", "batch.kubernetes.io/job-name=once", "--timeout=30s"
    )
    until(lambda: "Pending" not in kubectl("get", "pods", "-l", "batch.kubernetes.io/job-name=once"))
    assert kubectl("logs", "-f", "job/once") == "".join(f"{n}\n" for n in range(20))
    assert kubectl("logs", "job/once", "--tail=1") == "19\n"
    assert "previous terminated container" in kubectl("logs", "job/once", "--previous", fails=True)
    kubectl("delete", "job", "once")


def test_a_pod_keeps_its_identity_and_its_life_through_deaths_of_parts(platform: Platform, kubectl: Kubectl) -> None:
    """A pod gets its SVID by what the kernel says of it, goes on when node, issuer or API are killed, and gets it again."""
    told = DEPLOYMENT.replace("replicas: 2", "replicas: 1").replace("web", "known")
    command = json.dumps(["python3", "-c", IDENTITY])
    told = told.replace('[sh, -c, "echo hello from $WHARF_POD; exec sleep 3600"]', command)
    kubectl("apply", "-f", "-", stdin=told)
    kubectl("rollout", "status", "deployment/known", "--timeout=60s")
    until(lambda: kubectl("logs", "deployment/known") == "spiffe://wharfinger.local/ns/default/sa/default\n")
    [before] = pods(kubectl, "app=known")
    for part in ("node", "issuer", "api"):
        old = platform.pids()[part]
        assert platform.kill(part)
        until(lambda part=part, old=old: platform.pids().get(part, old) != old)  # type: ignore[misc]
        until(lambda: json.loads(platform.wharf("status", "-o", "json").stdout or "{}").get("ok", False))
    [after] = pods(kubectl, "app=known")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]  # type: ignore[index]
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]  # type: ignore[index]
    kubectl("delete", "deployment", "known")


def test_pods_end_with_the_platform_and_come_back_with_it(platform: Platform, kubectl: Kubectl) -> None:
    """When the supervisor is killed nothing is left running; started again, the platform has its pods again."""
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    platform.kill("supervisor")
    until(lambda: platform.processes() == {})
    platform.up()
    until(lambda: "2/2" in kubectl("get", "deployment", "web"))
    assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 1 for pod in pods(kubectl, "app=web"))  # type: ignore[index]
    kubectl("delete", "deployment", "web")


def test_nodes_say_how_they_isolate(kubectl: Kubectl) -> None:
    """Node objects are Ready, have their capacity and a lease, and say how pods are kept apart."""
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    assert {node["metadata"]["labels"]["wharfinger.io/isolation"] for node in nodes} <= {"namespaces", "none"}
    for node in nodes:
        assert any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
        lease = json.loads(kubectl("get", "lease", node["metadata"]["name"], "-n", "kube-node-lease", "-o", "json"))
        assert lease["spec"]["holderIdentity"] == node["metadata"]["name"]


def test_the_logs_command_shows_pods_and_parts(platform: Platform, kubectl: Kubectl) -> None:
    """`wharf logs` reads a pod through the API and a part from its file."""
    kubectl("apply", "-f", "-", stdin=JOB)
    kubectl("wait", "--for=condition=complete", "job/once", "--timeout=60s")
    [made] = pods(kubectl, "batch.kubernetes.io/job-name=once")
    assert platform.wharf("logs", str(made["metadata"]["name"])).stdout == "done\n"  # type: ignore[index]
    assert '"part": "node"' in platform.wharf("logs", "--part", "node", "--tail", "1").stdout
    assert platform.wharf("logs", "nobody").returncode == 2
    kubectl("delete", "job", "once")


def test_the_state_directory_is_the_platforms_alone(platform: Platform, kubectl: Kubectl) -> None:
    """A pod on the running platform finds neither its keys, nor its database, nor its kubeconfig."""
    wanted = [
        str(Path(platform.directory, name)) for name in ("issuer", "api/objects.db", "kubeconfig", "evidence", "run")
    ]
    script = f"import os; print([p for p in {wanted!r} if os.path.exists(p)], 'state' in os.listdir('/'))"
    kubectl("apply", "-f", "-", stdin=JOB.replace("print('done')", script))
    kubectl("wait", "--for=condition=complete", "job/once", "--timeout=60s")
    assert kubectl("logs", "job/once").startswith("[] False")
    kubectl("delete", "job", "once")
