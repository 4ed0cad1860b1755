"""What of a machine its containers meet: what they are shown, and whether they can be kept apart here.

Nothing is assumed of the kernel or of who runs the node: a container is tried, once, when the node starts.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from wharfinger.core.errors import HostUnfit, Unavailable
from wharfinger.local.node import containers, launcher, sandbox
from wharfinger.local.node.containers import Container, Ended
from wharfinger.local.node.sandbox import Host, Isolation, Mount

_TRIED_WITHIN: Final = 30.0


def this_host(state: Path, packages: Iterable[str]) -> Host:
    """Return what of this machine matters to containers, after trying one.

    `state` is the state directory, `packages` the folders of this program's own package (its `__path__`).
    """
    folders = [sys.base_prefix, sys.prefix, *packages]
    host = Host(
        mounts=[Mount(path, path) for path in _shown(folders)],
        search=str(Path(sys.executable).parent),
        state=str(state.resolve()),
        machine=os.uname().machine,
        is_root=os.geteuid() == 0,
        isolation="namespaces",
    )
    isolation, reason = tried(host)
    return replace(host, isolation=isolation, reason=reason)


def tried(host: Host) -> tuple[Isolation, str]:
    """Say how this host isolates containers, by running one as it says, and why not better."""
    if host.machine not in launcher.SYS_PIVOT_ROOT:
        return "none", f"no sandbox is known for {host.machine}"
    found: list[Ended] = []
    over = threading.Event()

    def ended(_: Container, how: Ended) -> None:
        found.append(how)
        over.set()

    guardian = os.pidfd_open(os.getpid())
    with tempfile.TemporaryDirectory(prefix="wharf-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "root").mkdir()
        (folder / "termination-log").touch()
        try:
            container = containers.start(_trial(host, folder), guardian, lambda _: None)
            container.watch(ended)
            over.wait(_TRIED_WITHIN)
            container.destroy()
        except (Unavailable, HostUnfit) as error:
            return "none", error.message
        finally:
            os.close(guardian)
        if found and found[0].code == 0:
            return "namespaces", ""
        return "none", containers.last_line(folder / "0.log") or "the sandbox did not run"


def _trial(host: Host, folder: Path) -> sandbox.Plan:
    spec = {"name": "trial", "command": [sys.executable, "-I", "-S", "-c", ""]}
    pod = {"metadata": {"name": "trial", "namespace": "trial", "uid": ""}, "spec": {"containers": [spec]}}
    return sandbox.plan(
        host,
        pod,
        spec,
        environment={},
        volumes={},
        socket_folder=str(folder),
        devices=(),
        base=sandbox.identity_base(()),
        cgroups=(),
        folder=str(folder),
        attempt=0,
    )


def _shown(folders: Iterable[str]) -> list[str]:
    """Return the folders that are not shown with the system, under each name that leads to them, outer ones first."""
    named = {name for folder in folders for name in (str(Path(folder).absolute()), str(Path(folder).resolve()))}
    system = tuple(f"{path}/" for path in sandbox.SYSTEM_PATHS)
    return sorted((name for name in named if not f"{name}/".startswith(system)), key=lambda name: name.count("/"))
