"""A real kube-apiserver with etcd, for tests that compare with it: started on loopback, stopped after."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wharfinger" / "neighbours" / "bin"
READY_WITHIN = 120.0


def neighbour(name: str) -> str | None:
    """Return the path of the neighbour `name`: the built one, else one on PATH, None when there is neither."""
    built = CACHE / name
    return str(built) if built.exists() else shutil.which(name)


def free_port() -> int:
    """Return a loopback port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class KubeApiserver:
    """etcd and kube-apiserver in `folder`. `fsync` off is etcd's own switch for tests."""

    folder: Path
    fsync: bool = False
    token: str = "contract-admin"
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    url: str = ""
    seconds_to_ready: float = 0.0

    def start(self) -> None:
        """Start both and wait until the API is ready; raises RuntimeError with the log's end when it is not."""
        etcd, apiserver = neighbour("etcd"), neighbour("kube-apiserver")
        assert etcd is not None and apiserver is not None
        client, peer, port = free_port(), free_port(), free_port()
        began = time.monotonic()
        self._spawn(
            etcd,
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            f"--unsafe-no-fsync={'false' if self.fsync else 'true'}",
            "--log-level=error",
        )
        self._spawn(
            apiserver,
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--cert-dir={self.folder / 'certs'}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self._tokens()}",
            f"--service-account-key-file={self._key()}",
            f"--service-account-signing-key-file={self._key()}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount,DefaultTolerationSeconds,Priority",
            "--v=0",
        )
        self.url = f"https://127.0.0.1:{port}"
        self._await_ready(began)

    def stop(self) -> None:
        """Stop both at once: nothing of theirs is kept."""
        for process in reversed(self.processes):
            process.kill()
            process.wait(timeout=30)

    def _spawn(self, *command: str) -> None:
        log = (self.folder / f"{Path(command[0]).name}.log").open("wb")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder))

    def _tokens(self) -> Path:
        path = self.folder / "tokens.csv"
        path.write_text(f'{self.token},admin,admin,"system:masters"\n')
        return path

    def _key(self) -> Path:
        path = self.folder / "service-accounts.pem"
        if not path.exists():
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            form = serialization.PrivateFormat.TraditionalOpenSSL
            path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return path

    def _await_ready(self, began: float) -> None:
        context = ssl._create_unverified_context()
        request = urllib.request.Request(f"{self.url}/readyz", headers={"authorization": f"Bearer {self.token}"})
        while time.monotonic() - began < READY_WITHIN:
            if any(process.poll() is not None for process in self.processes):
                break
            try:
                with urllib.request.urlopen(request, context=context, timeout=5) as answer:
                    if answer.status == 200:
                        self.seconds_to_ready = time.monotonic() - began
                        return
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        log = (self.folder / "kube-apiserver.log").read_text(errors="replace")[-2000:]
        self.stop()
        raise RuntimeError(f"expected kube-apiserver to become ready, got: {log}")
