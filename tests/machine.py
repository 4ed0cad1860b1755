"""A machine for tests of the node: the real agent and sandbox over the small world, with fakes at the node's ports."""

from __future__ import annotations

import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from world import World

import wharfinger
from wharfinger.core.errors import NotFound, Unavailable
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.gpu.devices import Device, DeviceNode
from wharfinger.local.node import cgroups, sandbox
from wharfinger.local.node.agent import Agent, Place
from wharfinger.local.node.containers import Running
from wharfinger.local.node.devicedoor import DeviceDoor, Name
from wharfinger.local.node.host import this_host
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.journal import Journal

Object = Mapping[str, Any]
Handler = Callable[[str, Object], None]
NODE = "here"
WITHIN = 30.0
"""Seconds that a test waits at most for what must come."""


class WatchedWorld(World):
    """A world that tells of each change, as informers do; threads share it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.handlers: dict[str, list[Handler]] = {}
        super().__init__()

    def __getitem__(self, plural: str) -> Informer:
        return Informer(self, plural)

    def synced(self) -> bool:
        """All is known at once."""
        return True

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """As the world's."""
        with self.lock:
            return super().get(plural, namespace, name)

    def list(self, plural: str, namespace: str = "") -> Sequence[Object]:
        """As the world's."""
        with self.lock:
            return super().list(plural, namespace)

    def put(self, told: Object) -> Object:
        """As the world's."""
        with self.lock:
            return super().put(told)

    def status(self, plural: str, namespace: str, name: str, status: Object, *, version: str = "") -> Object:
        """As the world's."""
        with self.lock:
            return super().status(plural, namespace, name, status, version=version)

    def patch(self, plural: str, namespace: str, name: str, patch: Object) -> Object:
        """As the world's."""
        with self.lock:
            return super().patch(plural, namespace, name, patch)

    def delete(self, plural: str, namespace: str, name: str, uid: str = "", grace: int | None = None) -> None:
        """As the world's, told to informers."""
        with self.lock:
            held = self.get(plural, namespace, name)
            super().delete(plural, namespace, name, uid, grace)
            if held is not None and self.get(plural, namespace, name) is None:
                self._tell(plural, "DELETED", held)

    def wait(self, holds: Callable[[], Any], within: float = WITHIN) -> Any:
        """Return what `holds` gives once that is true; fail when it does not come."""
        with self.changed:
            until = time.monotonic() + within
            while not (found := holds()):
                told = [dict(p.get("status") or {}) for p in self.list("pods")]
                assert time.monotonic() < until, f"did not come: {told} {self.events[-5:]}"
                self.changed.wait(0.05)  # what is not in the world, such as a log, tells nobody
            return found

    def _change(self, plural: str, old: dict[str, Any], fresh: dict[str, Any]) -> Object:
        """A pod on its way out stays until its node lets it go."""
        if plural == "pods" and fresh != old:
            return self._store(plural, fresh)
        return super()._change(plural, old, fresh)

    def _store(self, plural: str, fresh: dict[str, Any]) -> Object:
        stored = super()._store(plural, fresh)
        self._tell(plural, "MODIFIED", stored)
        return stored

    def _tell(self, plural: str, kind: str, told: Object) -> None:
        for handler in self.handlers.get(plural, ()):
            handler(kind, told)
        self.changed.notify_all()


class Informer:
    """One kind of a `WatchedWorld`."""

    def __init__(self, world: WatchedWorld, plural: str) -> None:
        self._world = world
        self._plural = plural

    def on_change(self, handler: Handler) -> None:
        """Call `handler` for what is there, and from now on."""
        with self._world.lock:
            self._world.handlers.setdefault(self._plural, []).append(handler)
            for o in self._world.list(self._plural):
                handler("ADDED", o)


class RememberedIssuer:
    """`agent.Issuer` that remembers; `away` has it refuse."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], tuple[str, Path, Running]] = {}
        self.away = False

    def register(self, uid: str, container: str, spiffe_id: str, folder: Path, running: Running) -> None:
        """Remember, and make a file where the socket would be."""
        if self.away:
            raise Unavailable("the issuer is away")
        self.known[uid, container] = (spiffe_id, folder, running)
        (folder / "workload.sock").touch()

    def unregister(self, uid: str) -> None:
        """Forget."""
        for key in [key for key in self.known if key[0] == uid]:
            del self.known[key]


class Shelf:
    """`cargo.Artifacts` on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stored: dict[str, dict[str, bytes]] = {}
        self.away = False

    def fetch(self, repository: str, digest: str, into: Path) -> None:
        """Write the one artifact there is."""
        if (repository, digest) != ("n/data", DIGEST):
            raise NotFound(f"no artifact {repository}@{digest}")
        into.mkdir(parents=True)
        (into / "corpus.txt").write_text("the cargo")

    def store(self, repository: str, folder: Path) -> str:
        """Keep the files."""
        if self.away:
            raise Unavailable("the registry is away")
        self.stored[repository] = {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        return DIGEST


DIGEST = "sha256:" + "ab" * 32


class Fleet:
    """`devicedoor.Silicon` of two GPUs whose numbers no driver has."""

    MAJOR = 236

    def __init__(self) -> None:
        self.released: list[Name] = []

    def prepare(self, name: Name) -> Device:
        """Return a GPU."""
        index = int(name[2].removeprefix("gpu-"))
        node = DeviceNode(f"/dev/nvidia{index}", self.MAJOR, index)
        return Device(
            name[2], f"GPU-{index}", "nvidia", "H100", "Hopper", index, 80 << 30, 7, "", "", None, "", (node,)
        )

    def release(self, name: Name) -> None:
        """Remember."""
        self.released.append(name)


class Machine:
    """A node on `folder`."""

    def __init__(
        self, folder: Path, world: WatchedWorld, guardian: int, *, isolation: str = "", shows_all: bool = False
    ) -> None:
        self.world = world
        self.issuer = RememberedIssuer()
        self.shelf = Shelf(folder)
        self.fleet = Fleet()
        self.folder = folder
        self.name = group_of(folder)
        host = this_host(folder, wharfinger.__path__)
        if isolation:
            host = sandbox.Host(host.mounts, host.search, host.state, host.machine, host.is_root, "none", "asked for")
        self.groups = cgroups.groups(self.name)
        self.clock = SystemClock()
        self.journal = Journal(folder / "evidence" / "node")
        self.door = DeviceDoor(
            Doorkeeper("node", self.journal, self.clock, SystemIds()), self.fleet, self.groups, self.clock
        )
        self.agent = Agent(
            place=Place(folder / "pods", folder / "s", folder / "evidence", self.name),
            trust_domain="test.local",
            informers=world,  # type: ignore[arg-type]  as much of it as the agent uses
            writer=world,
            find=world.get,
            door=self.door,
            issuer=self.issuer,
            artifacts=self.shelf,
            clock=self.clock,
            host=host,
            groups=self.groups,
            guardian=guardian,
            nodes=[NODE],
            shown=lambda _node, paths: shown([f"/dev/nvidia{n}" for n in range(2)] if shows_all else paths),
            endpoints={"api": "https://127.0.0.1:1"},
        )
        self.agent.start()

    def log(self, name: str, *, attempt: int = 0, container: str = "c") -> str:
        """Return what a container said."""
        uid = self.world.must("pods", "n", name)["metadata"]["uid"]
        path = self.folder / "pods" / uid / "containers" / container / f"{attempt}.log"
        lines = path.read_text(errors="replace").splitlines()
        return "\n".join(line.split(" ", 3)[-1] for line in lines)

    def end(self) -> None:
        """Stop, and leave nothing."""
        self.agent.stop()
        self.journal.close()

    def phase(self, name: str) -> str:
        """Return the pod's phase."""
        return str((self.world.must("pods", "n", name).get("status") or {}).get("phase"))

    def ends(self, name: str) -> str:
        """Wait until the pod has ended; return its phase."""
        self.world.wait(lambda: self.phase(name) in ("Succeeded", "Failed"))
        return self.phase(name)

    def is_ready(self, name: str) -> bool:
        """Say whether the pod is ready."""
        status = self.world.must("pods", "n", name).get("status") or {}
        return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())


def shown(paths: Sequence[str]) -> list[sandbox.ShownDevice]:
    """Return how device nodes are shown."""
    return [sandbox.ShownDevice(path, Fleet.MAJOR, int(path[-1])) for path in paths]


def group_of(folder: Path) -> str:
    """Return the name of the control groups of a machine on `folder`."""
    return f"wharf-test-{zlib.crc32(str(folder).encode()):08x}"


@contextmanager
def machine(
    folder: Path, world: WatchedWorld | None = None, *, isolation: str = "", shows_all: bool = False
) -> Iterator[Machine]:
    """Give a machine on `folder`; end it, with all that runs on it."""
    guardian = os.pidfd_open(os.getpid())
    made = Machine(folder, world or WatchedWorld(), guardian, isolation=isolation, shows_all=shows_all)
    try:
        yield made
    finally:
        made.end()
        os.close(guardian)
        shutil.rmtree(folder, ignore_errors=True)


def pod(name: str, *command: str, **more: Any) -> dict[str, Any]:
    """Return a pod of one container on this node; `container` is merged into it, `annotations` into its metadata."""
    container = {"name": "c", "image": "wharfinger.io/host", "command": list(command), **more.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "annotations": more.pop("annotations", {})},
        "spec": {
            "nodeName": NODE,
            "restartPolicy": "Never",
            "serviceAccountName": "worker",
            "terminationGracePeriodSeconds": 5,
            "containers": [container],
            **more,
        },
    }
