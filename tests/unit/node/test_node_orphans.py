"""No death leaves a process behind: of a pod, its launcher, the node or the supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ordinary
import pytest
from machine import group_of, machine, pod

from wharfinger.local.node import cgroups

pytestmark = pytest.mark.serial
NODE = str(Path(ordinary.__file__).with_name("nodeprocess.py"))


def inhabitants(pidns: int) -> list[int]:
    """Return the processes of a pid namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "ns" / "pid").stat().st_ino == pidns:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def sleeping(pidns: int) -> int:
    """Return how many commands of the pod sleep; while it starts more there are others as well, and this is 0."""
    words = []
    for pid in inhabitants(pidns):
        try:
            words.append(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])
        except OSError:
            return 0
    names = [word for word in words if not word.endswith(b"python")]
    return len(names) if set(names) == {b"sleep"} else 0


def until(holds: Callable[[], bool]) -> None:
    """Wait until `holds`: a killed process takes a moment to go."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "did not come"
        os.sched_yield()


class Node:
    """A node process, and another process that stands for its supervisor."""

    def __init__(self, user: str, folder: str) -> None:
        self._command = [sys.executable, NODE, folder]
        if user == "ordinary" and os.geteuid() == 0:
            self._command = ordinary.command(*self._command)
        same = {"user": ordinary.NOBODY, "group": ordinary.NOBODY} if "ordinary" in user and os.geteuid() == 0 else {}
        self.guardian = subprocess.Popen(["sleep", "600"], **same)  # type: ignore[call-overload]
        self.start()

    def start(self) -> None:
        """Start the node, and read what it says of its pod."""
        self.process = subprocess.Popen(
            [*self._command, str(self.guardian.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.told = self.read()

    def read(self) -> dict[str, Any]:
        """Return the next thing that the node says."""
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def ask(self, word: str) -> dict[str, Any]:
        """Ask the node for something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.read()

    def end(self) -> None:
        """End everything."""
        self.guardian.kill()
        self.guardian.wait()
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture(params=["root", "ordinary"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """Return a node that runs a pod."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("root is needed to run as root")
    with tempfile.TemporaryDirectory(prefix="wharf-", ignore_cleanup_errors=True) as name:
        if request.param == "ordinary" and os.geteuid() == 0:
            os.chown(name, ordinary.NOBODY, ordinary.NOBODY)
        made = Node(request.param, name)
        try:
            yield made
        finally:
            made.end()
            until(lambda: not inhabitants(made.told["pidns"]))
            groups = cgroups.groups(group_of(Path(name)))
            for group in groups.names():
                groups.remove(group)
            groups.close()


def test_a_pod_survives_its_node_and_is_found_again(node: Node) -> None:
    """A node that was killed and starts again goes on with the very processes that ran."""
    until(lambda: sleeping(node.told["pidns"]) == 4)
    before = inhabitants(node.told["pidns"])
    node.process.kill()
    node.process.wait()
    assert inhabitants(node.told["pidns"]) == before
    first = node.told
    node.start()
    assert node.told == first
    assert inhabitants(node.told["pidns"]) == before


def test_nothing_survives_the_supervisor(node: Node) -> None:
    """When the supervisor is killed, node and all, every process of every pod is gone."""
    node.process.kill()
    node.guardian.kill()
    node.process.wait()
    node.guardian.wait()
    until(lambda: not inhabitants(node.told["pidns"]))
    until(lambda: not Path(f"/proc/{node.told['launcher']}").exists())


def test_nothing_survives_the_launcher(node: Node) -> None:
    """When its launcher is killed a container is gone, and starts again as one whose end nobody knows."""
    os.kill(node.told["launcher"], signal.SIGKILL)
    until(lambda: not inhabitants(node.told["pidns"]))
    told = node.ask("restarted")
    assert (told["exitCode"], told["reason"]) == (137, "ContainerStatusUnknown")
    assert inhabitants(told["pidns"])
    node.told["pidns"] = told["pidns"]


def test_nothing_survives_the_node_that_is_told_to_stop(node: Node) -> None:
    """A node that stops takes its pods with it."""
    assert node.process.stdin is not None
    node.process.stdin.close()
    node.process.wait(timeout=20)
    assert not inhabitants(node.told["pidns"])


def test_a_fork_bomb_ends_with_its_pod(tmp_path: Path) -> None:
    """A pod that forks without end hits its bound, and all of it is gone when the pod is killed."""
    with machine(tmp_path) as here:
        script = ["import os, signal", "while True:", "  try: os.fork()", "  except OSError: signal.pause()"]
        bomb = "\n".join(script)
        uid = here.world.put(pod("bomb", "python3", "-I", "-S", "-c", bomb))["metadata"]["uid"]
        here.world.wait(lambda: (uid, "c") in here.issuer.known)
        pidns = here.issuer.known[uid, "c"][2].pidns
        until(lambda: len(inhabitants(pidns)) > 900)
        fresh = here.world.must("pods", "n", "bomb")
        fresh["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z"
        here.world.put(fresh)
        here.world.wait(lambda: here.world.get("pods", "n", "bomb") is None)
        assert not inhabitants(pidns)
        assert here.groups.names() == []


def test_nothing_survives_the_launcher_where_nothing_isolates(tmp_path: Path) -> None:
    """Without namespaces, what a container left when its launcher was killed is found by its environment and ended."""
    with machine(tmp_path, isolation="none") as here:
        script = "setsid sleep 1000 & echo $!; exec sleep 1001"
        uid = here.world.put(pod("bare", "sh", "-c", script))["metadata"]["uid"]
        here.world.wait(lambda: (uid, "c") in here.issuer.known and here.log("bare"))
        left = Path("/proc", here.log("bare").strip())
        until(lambda: b"sleep" in (left / "cmdline").read_bytes())
        os.kill(here.issuer.known[uid, "c"][2].pid, signal.SIGKILL)
        assert here.ends("bare") == "Failed"
        until(lambda: not left.exists() or (left / "cmdline").read_bytes() == b"")
