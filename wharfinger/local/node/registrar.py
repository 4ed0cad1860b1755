"""Makes containers known to the issuer, and known again when the issuer has started anew.

The issuer keeps no list over its own death. That it died is seen without asking it: a container's socket that refuses a
connection has nobody behind it any more, and then every container is made known again.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, Protocol

from wharfinger.core.errors import Conflict, NotFound, WharfingerError
from wharfinger.identity.issuerclient import PodRegistration
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.local.node.containers import Running

SOCKET: Final = "workload.sock"
LOOK_EVERY: Final = 0.5
_log = logging.getLogger(__name__)


class Issuer(Protocol):
    """As much of the issuer's client as is asked; methods raise the error family."""

    def register_pod(self, pod: PodRegistration) -> Path:
        """Have a container known and its socket made."""
        ...

    def forget_pod(self, uid: str) -> None:
        """Have every container of a pod forgotten."""
        ...

    def pods(self) -> tuple[PodRegistration, ...]:
        """Return what is known."""
        ...


class Registrar:
    """`agent.Issuer` on the issuer's client; threads share it."""

    def __init__(self, issuer: Issuer, answers: Callable[[Path], bool] | None = None) -> None:
        self._issuer = issuer
        self._answers = answers or listens
        self._turn = 0
        self._lock = threading.Lock()
        self._mine: dict[tuple[str, str], PodRegistration] = {}
        self._gone: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def register(self, uid: str, container: str, spiffe_id: str, folder: Path, running: Running) -> None:
        """Serve `spiffe_id` on a socket in `folder` to the processes of `running` alone. Raises the error family.

        Even then it is remembered, and told as soon as the issuer can be reached.
        """
        pod = PodRegistration(
            uid, SpiffeId(spiffe_id), folder, running.pidns, running.pid, running.ticks, container=container
        )
        with self._lock:
            self._mine[uid, container] = pod
        self._issuer.register_pod(pod)

    def unregister(self, uid: str) -> None:
        """Serve nothing to that pod any more. Raises the error family; it is tried again."""
        with self._lock:
            known = [key for key in self._mine if key[0] == uid]
            for key in known:
                del self._mine[key]
            if known:
                self._gone.add(uid)
        if known:
            self._forget(uid)

    def look(self) -> None:
        """Try one container's socket, another each time; when nobody is there, tell the issuer of all.

        Raises the error family.
        """
        for uid in sorted(self._gone):
            self._forget(uid)
        with self._lock:
            mine = list(self._mine.values())
        self._turn += 1
        if not mine or self._answers(mine[self._turn % len(mine)].folder / SOCKET):
            return
        for pod in mine:
            try:
                self._issuer.register_pod(pod)
                _log.info("registered", extra={"fields": {"pod": pod.uid, "container": pod.container}})
            except Conflict:
                # Its process has ended: the pod's own worker registers the next one.
                with self._lock:
                    if self._mine.get((pod.uid, pod.container)) == pod:
                        del self._mine[pod.uid, pod.container]

    def sweep(self, kept: Collection[str]) -> None:
        """Have the issuer forget what a node before this one registered, but the pods with uids in `kept`."""
        for uid in {pod.uid for pod in self._issuer.pods()} - set(kept):
            self._issuer.forget_pod(uid)

    def _forget(self, uid: str) -> None:
        try:
            self._issuer.forget_pod(uid)
        except NotFound:
            pass
        self._gone.discard(uid)

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_EVERY):
            try:
                self.look()
            except WharfingerError as error:
                _log.info("the issuer is away", extra={"fields": {"error": str(error)}})


def listens(path: Path) -> bool:
    """Say whether somebody listens on the socket at `path`, however long that is."""
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"/proc/self/fd/{folder}/{path.name}") == 0
    finally:
        os.close(folder)
