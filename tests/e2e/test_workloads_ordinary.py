"""The whole platform as an ordinary user: pods are isolated, known, and end with it, without any power of root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ordinary
import pytest
from platform_under_test import Platform

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

WHO = """
import json, os
from wharfinger.identity.workloadsource import WorkloadSource
root = os.environ["ROOT_OF_STATE"]
seen = [name for name in ("issuer", "api/objects.db", "kubeconfig", "run") if os.path.exists(os.path.join(root, name))]
print(json.dumps([str(WorkloadSource.of_environment(os.environ).id), seen, os.environ["WHARF_ISOLATION"]]))
"""


class OrdinaryPlatform(Platform):
    """A platform whose commands are run as nobody."""

    def wharf(self, *words: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command once."""
        command = [sys.executable, "-m", "wharfinger.cli.main", *words]
        if os.geteuid() == 0:
            command = ordinary.command(*command)
        return subprocess.run(
            command, input=stdin, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )


@pytest.fixture
def platform() -> Iterator[OrdinaryPlatform]:
    """A platform in a folder of nobody's."""
    with tempfile.TemporaryDirectory(prefix="wharf-", ignore_cleanup_errors=True) as name:
        if os.geteuid() == 0:
            os.chown(name, ordinary.NOBODY, ordinary.NOBODY)
        made = OrdinaryPlatform(Path(name) / "s")
        made.up(attempts=2)
        yield made
        made.down()
        end = time.monotonic() + 30
        while made.processes():
            assert time.monotonic() < end, made.processes()
            time.sleep(0.2)


def test_an_ordinary_user_runs_the_platform(platform: OrdinaryPlatform) -> None:
    """A job is isolated by namespaces or says that it is not, gets its own identity, and finds nothing of the state."""
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "who"},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        {
                            "name": "c",
                            "image": "wharfinger.io/host",
                            "command": ["python3", "-c", WHO],
                            "env": [{"name": "ROOT_OF_STATE", "value": str(platform.directory)}],
                        }
                    ],
                }
            },
        },
    }
    platform.until("apply", "-f", "-", stdin=json.dumps(job))
    platform.until("wait", "job", "who", "--for", "condition=Complete", "--timeout", "60s")
    pods = json.loads(platform.until("get", "pods", "-o", "json"))["items"]
    told = json.loads(platform.until("logs", pods[0]["metadata"]["name"]))
    isolation = json.loads(platform.until("get", "nodes", "-o", "json"))["items"][0]["metadata"]["labels"]
    assert told[0] == "spiffe://wharfinger.local/ns/default/sa/default"
    assert told[2] == isolation["wharfinger.io/isolation"]
    if told[2] == "namespaces":
        assert told[1] == []
