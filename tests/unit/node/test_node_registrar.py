"""The registrar: what the issuer forgot over its own death is told again; Node objects and their heartbeat."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from wharfinger.core.errors import Conflict, Unavailable
from wharfinger.identity.issuerclient import PodRegistration
from wharfinger.kinds.condition import find, is_true
from wharfinger.local.node import nodestatus
from wharfinger.local.node.containers import Running
from wharfinger.local.node.nodestatus import Machine
from wharfinger.local.node.registrar import Registrar, listens

WHO = "spiffe://test.local/ns/n/sa/worker"
RUNNING = Running(attempt=0, pid=10, ticks=20, boot="b", first=11, pidns=30, started=0)


class Issuer:
    """An issuer that may be away, and that knows nothing when it comes back."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], PodRegistration] = {}
        self.away = False
        self.ended: set[str] = set()

    def register_pod(self, pod: PodRegistration) -> Path:
        """Remember."""
        self._here()
        if pod.uid in self.ended:
            raise Conflict("its process is gone")
        self.known[pod.uid, pod.container] = pod
        return pod.folder / "workload.sock"

    def forget_pod(self, uid: str) -> None:
        """Forget."""
        self._here()
        self.known = {key: pod for key, pod in self.known.items() if key[0] != uid}

    def pods(self) -> tuple[PodRegistration, ...]:
        """Return what is known."""
        return tuple(self.known.values())

    def _here(self) -> None:
        if self.away:
            raise Unavailable("the issuer is away")


@pytest.fixture
def issuer() -> Issuer:
    """Return an issuer."""
    return Issuer()


@pytest.fixture
def registrar(issuer: Issuer) -> Registrar:
    """Return a registrar with two containers of pod a and one of pod b."""
    made = Registrar(issuer, answers=lambda path: bool(issuer.known))
    for uid, container in (("a", "c"), ("a", "d"), ("b", "c")):
        made.register(uid, container, WHO, Path("/run/pods") / uid / container, RUNNING)
    return made


def test_every_container_is_known_again_after_the_issuer_died(issuer: Issuer, registrar: Registrar) -> None:
    """An issuer that starts with nothing is told of everything; one that answers is left alone."""
    assert set(issuer.known) == {("a", "c"), ("a", "d"), ("b", "c")}
    before = dict(issuer.known)
    issuer.known.clear()
    registrar.look()
    assert issuer.known == before
    issuer.known.pop(("b", "c"))
    registrar.look()
    assert ("b", "c") not in issuer.known


def test_a_registration_that_failed_is_remembered(issuer: Issuer, registrar: Registrar) -> None:
    """Who could not be told is told as soon as the issuer is back."""
    issuer.away = True
    issuer.known.clear()
    with pytest.raises(Unavailable):
        registrar.register("e", "c", WHO, Path("/run/pods/e"), RUNNING)
    issuer.away = False
    registrar.look()
    assert ("e", "c") in issuer.known


def test_a_container_that_has_ended_is_not_told_again(issuer: Issuer, registrar: Registrar) -> None:
    """The issuer refuses a process that is gone; it is not asked for ever."""
    issuer.known.clear()
    issuer.ended.add("a")
    registrar.look()
    issuer.ended.clear()
    issuer.known.clear()
    registrar.look()
    assert set(issuer.known) == {("b", "c")}


def test_a_pod_is_forgotten_even_when_the_issuer_is_away(issuer: Issuer, registrar: Registrar) -> None:
    """What could not be taken back at once is taken back later."""
    issuer.away = True
    with pytest.raises(Unavailable):
        registrar.unregister("a")
    issuer.away = False
    registrar.look()
    assert set(issuer.known) == {("b", "c")}


def test_what_nobody_has_any_more_is_swept(issuer: Issuer, registrar: Registrar) -> None:
    """A node that starts has the issuer forget pods that are not there any more."""
    registrar.sweep(["b"])
    assert set(issuer.known) == {("b", "c")}


def test_a_socket_answers_while_somebody_listens(tmp_path: Path) -> None:
    """A socket without a process behind it, or none at all, does not answer; long paths are no matter."""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    path = folder / "workload.sock"
    assert not listens(path)
    with socket.socket(socket.AF_UNIX) as listener:
        held = os.open(folder, os.O_PATH)
        listener.bind(f"/proc/self/fd/{held}/workload.sock")
        os.close(held)
        assert not listens(path)
        listener.listen()
        assert listens(path)
    assert not listens(path)


MACHINE = Machine("none", "no user namespaces", "", "amd64", "6.1", "b", "0.1.0")
TOLD = {"metadata": {"name": "h100-a", "labels": {"zone": "1"}}, "status": {"capacity": {"cpu": "4"}}}


def test_a_node_says_how_it_isolates() -> None:
    """Label and condition say how pods are kept apart, and why not better."""
    assert nodestatus.node(TOLD, MACHINE)["metadata"]["labels"]["wharfinger.io/isolation"] == "none"
    status = nodestatus.status(TOLD, MACHINE, None, 0)
    told = find(status["conditions"], "wharfinger.io/Isolation")
    assert told is not None
    assert (told["status"], told["message"]) == ("False", "no user namespaces")
    assert is_true(status["conditions"], "Ready")
    assert is_true(status["conditions"], "wharfinger.io/DeviceDoors")
    assert status["capacity"] == {"cpu": "4"}


def test_a_node_that_stops_says_so() -> None:
    """A node that stops is not Ready, and keeps the time at which what did not change came."""
    before = nodestatus.status(TOLD, MACHINE, None, 0)
    after = nodestatus.status(TOLD, MACHINE, before, 10**12, stopping="the platform was stopped")
    ready, isolation = find(after["conditions"], "Ready"), find(after["conditions"], "wharfinger.io/Isolation")
    assert ready is not None and isolation is not None
    assert (ready["status"], ready["message"]) == ("False", "the platform was stopped")
    assert ready["lastTransitionTime"] != isolation["lastTransitionTime"]


def test_a_heartbeat_has_its_time() -> None:
    """The lease says who lives, until when it can be believed, and when that was said."""
    spec = nodestatus.lease("h100-a", 10**9)["spec"]
    assert spec == {
        "holderIdentity": "h100-a", "leaseDurationSeconds": 40, "renewTime": "1970-01-01T00:00:01.000000Z",
    }  # fmt: skip
