"""The real kubectl against the local API server in this process."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from kube_apiserver import neighbour
from local_api import ADMIN, LocalApi

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.core.errors import Malformed


class WrittenLogs:
    """The port `app.PodLogs` on a list of lines; whoever follows gets those that are written later, until the end."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.is_over = True

    async def open(self, pod: Any, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Return the lines, in one part each."""
        if options.get("previous") == "true":
            raise Malformed(f"previous terminated container in pod {pod['metadata']['name']} not found")
        return self._parts(int(options.get("tailLines", "1000")), options.get("follow") == "true")

    async def _parts(self, tail: int, follow: bool) -> AsyncIterator[bytes]:
        sent = max(len(self.lines) - tail, 0)
        while True:
            while sent < len(self.lines):
                yield self.lines[sent]
                sent += 1
            if self.is_over or not follow:
                return
            await asyncio.sleep(0.01)


class Kubectl:
    """Runs kubectl as one identity; what it keeps between calls (discovery) goes to `home`."""

    def __init__(self, api: LocalApi, home: Path, path: str = ADMIN) -> None:
        home.mkdir(parents=True, exist_ok=True)
        binary = neighbour("kubectl")
        assert binary is not None
        self.api, self.home, self.binary = api, home, binary
        self.kubeconfig = api.kubeconfig(home, path)

    def run(self, *words: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return how it ended."""
        return subprocess.run(
            [self.binary, *words], input=stdin, capture_output=True, text=True, timeout=60, check=False,
            env=self.environment(**environment), cwd=self.home,
        )  # fmt: skip

    def __call__(self, *words: str, stdin: str | None = None, **environment: str) -> str:
        """Run kubectl, which must succeed; return what it printed."""
        done = self.run(*words, stdin=stdin, **environment)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start kubectl and return the process, its output a pipe."""
        return subprocess.Popen(
            [self.binary, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment()
        )

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment that kubectl runs in."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), **more}

    def status(self, plural: str, name: str, status: Any, namespace: str = "default") -> None:
        """Write an object's status, as its controller would."""
        self.api.client().patch(RESOURCES[plural], namespace, name, {"status": status}, subresource="status")


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "example/web:1"}
"""
SERVICE = """
apiVersion: wharfinger.io/v1alpha1
kind: InferenceService
metadata:
  name: assistant
spec:
  model: small
  replicas: 1
"""
POD = """
apiVersion: v1
kind: Pod
metadata:
  name: worker
spec:
  containers:
  - {name: main, image: "example/worker:1"}
"""
