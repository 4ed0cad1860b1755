"""A served model that also tries what it may not: pulls every model and opens every device that it can see.

The story runs its services with this as their command, and a pod that no grant speaks of. It tries with its own
identity, from inside its own pod, again and again, and writes a line of JSON to its log whenever something comes out
differently than before:
`{"try": "pull" | "open", "what": digest | device path, "got": "ok" | HTTP status | errno name, "who": SPIFFE ID}`.
Beside that it serves as the built-in runtime does (`--serve CODE`: as that code does; `--only-try`: not at all), and it
ignores being asked to end.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from wharfinger.core.errors import WharfingerError
from wharfinger.identity.workloadsource import WorkloadSource
from wharfinger.supply.registry.client import RegistryClient

MODELS: Final = "DEMO_MODELS"
"""Environment variable: what it tries to pull, REPOSITORY@DIGEST, separated by blanks."""
_EVERY: Final = 0.25
_SERVER: Final = "wharfinger.inference.runtime"


def tries(client: RegistryClient, models: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield how each try comes out: what was tried, on what, and the outcome."""
    for model in models:
        repository, _, digest = model.partition("@")
        try:
            client.pull_manifest(repository, digest)
            yield "pull", digest, "ok"
        except WharfingerError as error:
            yield "pull", digest, f"{error.status} {error}"
    for path in devices():
        try:
            os.close(os.open(path, os.O_RDWR))
            yield "open", path, "ok"
        except OSError as error:
            yield "open", path, errno.errorcode.get(error.errno or 0, str(error.errno))


def devices() -> list[str]:
    """Return the device nodes of GPUs and slices that can be seen from here."""
    return sorted(str(p) for pattern in ("nvidia[0-9]*", "nvidia-caps/*") for p in Path("/dev").glob(pattern))


def main() -> None:
    """Serve in a process of its own; try in this one, which does not end because it is asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serving = None
    if "--only-try" not in sys.argv:
        server = ["-c", sys.argv[sys.argv.index("--serve") + 1]] if "--serve" in sys.argv else ["-m", _SERVER]
        serving = subprocess.Popen([sys.executable, *server])
    source = WorkloadSource(Path(os.environ["SPIFFE_ENDPOINT_SOCKET"].removeprefix("unix://")))
    registry = urlsplit(os.environ["WHARF_REGISTRY"])
    client = RegistryClient(registry.hostname or "127.0.0.1", registry.port or 443, source)
    who = source.material().svid.id.text
    own = {"devices": os.environ.get("WHARF_DEVICES", ""), "nodes": os.environ.get("WHARF_DEVICE_NODES", "")}
    print(json.dumps({"try": "self", "who": who, **own}), flush=True)
    known: dict[tuple[str, str], str] = {}
    while serving is None or serving.poll() is None:
        for kind, what, got in tries(client, os.environ.get(MODELS, "").split()):
            if known.get((kind, what)) != got:
                known[kind, what] = got
                print(json.dumps({"try": kind, "what": what, "got": got, "who": who}), flush=True)
        time.sleep(_EVERY)
    sys.exit(serving.returncode)


if __name__ == "__main__":
    main()
