"""Attestation: who a process is by what the kernel says, with real processes, sockets and pid namespaces."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from trust_domain import CONTROL, DOMAIN, TRAINER, Domain

from wharfinger.core.errors import Conflict, Denied, Invalid
from wharfinger.identity.issuer.attestation import Facts, Process, hold_namespace, own_pidns
from wharfinger.identity.issuer.registrations import Registrations, belongs
from wharfinger.identity.issuerclient import PodRegistration
from wharfinger.identity.spiffeid import SpiffeId

ASK = """
import sys
from pathlib import Path
from wharfinger.core.errors import WharfingerError
from wharfinger.identity import workloadapi
from wharfinger.identity.jwtsvid import parse
from wharfinger.identity.workloadsource import _Connection
for path in sys.stdin:
    try:
        asked = workloadapi.JwtRequest(("door",)).encode()
        token, = workloadapi.parse_jwt_svids(_Connection(Path(path.strip())).call(workloadapi.FETCH_JWT_SVID, asked)).values()
        print(parse(token).id, flush=True)
    except WharfingerError as error:
        print("refused:", error, flush=True)
"""


class Asker:
    """A process that asks the Workload API for a token at each path that it is told."""

    def __init__(self, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin is not None and self.process.stdout is not None

    def ask(self, path: Path) -> str:
        """Return the SPIFFE ID that it got at `path`, or the refusal."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """Kill and reap it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _isolated() -> tuple[str, ...]:
    """Return what starts a process in a pid namespace of its own; skips where the host has none."""
    prefix = ("unshare", *(() if os.getuid() == 0 else ("--user",)), "--pid", "--fork", "--kill-child")
    try:
        allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this host gives no pid namespaces")
    return prefix


@contextmanager
def asker(*prefix: str) -> Iterator[Asker]:
    """Give an asker that ends with the test."""
    made = Asker(*prefix)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    """Make a trust domain."""
    made = Domain(tmp_path / "state")
    yield made
    made.close()


@pytest.fixture
def known() -> Iterator[Registrations]:
    """Make an empty table."""
    made = Registrations(DOMAIN)
    yield made
    made.close()


def _ticks(pid: int) -> int:
    process = Process.open(pid)
    try:
        return process.started()
    finally:
        process.close()


def _pidns_below(pid: int) -> int:
    """Return the pid namespace of the child of a process that `unshare` runs as."""
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        os.sched_yield()
    return Path(f"/proc/{children[0]}/ns/pid").stat().st_ino


def _pod(uid: str, of: Asker, folder: Path, *, pidns: int, spiffe_id: SpiffeId = TRAINER) -> PodRegistration:
    pid = of.process.pid
    return PodRegistration(uid, spiffe_id, folder, pidns, pid, _ticks(pid))


def test_only_the_introduced_process_is_the_part(domain: Domain, known: Registrations, tmp_path: Path) -> None:
    """A part's identity is for the very process that the supervisor started: its siblings are refused."""
    path = tmp_path / "parts.sock"
    domain.serve(path, known.part_of)
    with asker() as part, asker() as stranger:
        known.introduce("control", Process.open(part.process.pid))
        assert part.ask(path) == str(CONTROL)
        assert stranger.ask(path).startswith("refused: no identity issued")
        # Started again, the part is another process; the first one is nobody then.
        known.introduce("control", Process.open(stranger.process.pid))
        assert stranger.ask(path) == str(CONTROL)
        assert part.ask(path).startswith("refused")
    assert [r for r in domain.records if r[3]], "refusals are recorded"


def test_a_pid_that_another_process_has_now_proves_nothing(known: Registrations) -> None:
    """When a part dies its pid may become anybody's: the pidfd of the part that was introduced no longer runs."""
    with asker() as part:
        pid = part.process.pid
        known.introduce("control", Process.open(pid))
    reused = Process(pid, os.pidfd_open(os.getpid()))
    with pytest.raises(Denied, match="no part of the platform"):
        known.part_of(reused)
    reused.close()
    with asker() as part, asker() as gone:
        known.introduce("control", Process.open(part.process.pid))
        dead = Process(part.process.pid, os.pidfd_open(gone.process.pid))
        gone.end()
        with pytest.raises(Denied):
            known.part_of(dead)
        dead.close()


def test_only_known_parts_are_introduced(known: Registrations) -> None:
    """A name that is no part of the platform is refused, whoever says it."""
    with pytest.raises(Invalid, match="part root"):
        known.introduce("root", Process.open(os.getpid()))


def test_a_pod_is_its_pid_namespace_and_no_other(domain: Domain, known: Registrations, tmp_path: Path) -> None:
    """At each pod's socket its own processes are served; the other pod's and the host's are refused."""
    isolated = _isolated()
    first, second = tmp_path / "a.sock", tmp_path / "b.sock"
    domain.serve(first, lambda peer: known.pod_of("a", "", peer))
    domain.serve(second, lambda peer: known.pod_of("b", "", peer))
    scorer = SpiffeId.workload(DOMAIN, "research", "scorer")
    with asker(*isolated) as a, asker(*isolated) as b, asker() as host:
        known.register(_pod("a", a, tmp_path, pidns=_pidns_below(a.process.pid)))
        known.register(_pod("b", b, tmp_path, pidns=_pidns_below(b.process.pid), spiffe_id=scorer))
        assert (a.ask(first), b.ask(second)) == (str(TRAINER), str(scorer))
        for process, path in ((a, second), (b, first), (host, first), (host, second)):
            assert process.ask(path).startswith("refused: no identity issued")
        known.forget("a")
        assert a.ask(first).startswith("refused")
        assert b.ask(second) == str(scorer)


def test_a_namespace_that_is_held_gives_its_number_to_nobody(known: Registrations, tmp_path: Path) -> None:
    """The kernel gives freed inode numbers away at once; a dead pod's is held until the pod is forgotten."""
    isolated = _isolated()
    with asker(*isolated) as pod:
        pidns = _pidns_below(pod.process.pid)
        known.register(_pod("a", pod, tmp_path, pidns=pidns))
    later = set()
    for _ in range(5):
        with asker(*isolated) as other:
            later.add(_pidns_below(other.process.pid))
    assert pidns not in later


def test_a_pod_that_has_ended_is_nobody(domain: Domain, known: Registrations, tmp_path: Path) -> None:
    """With the process that held it up the pod's identity ends, whoever is in its namespace or below it."""
    path = tmp_path / "a.sock"
    domain.serve(path, lambda peer: known.pod_of("a", "", peer))
    with asker("sh", "-c", '"$@"; :', "sh") as pod:
        known.register(_pod("a", pod, tmp_path, pidns=0))
        assert pod.ask(path) == str(TRAINER)
        pod.process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, pod.process.pid, os.WEXITED | os.WNOWAIT)
        assert pod.ask(path).startswith("refused")


def test_without_isolation_a_pod_is_what_descends_from_its_launcher(
    domain: Domain, known: Registrations, tmp_path: Path
) -> None:
    """Children of the launcher are the pod's; the launcher itself, siblings and strangers are not."""
    path = tmp_path / "a.sock"
    domain.serve(path, lambda peer: known.pod_of("a", "", peer))
    with asker("sh", "-c", '"$@"; :', "sh") as pod, asker() as stranger:
        known.register(_pod("a", pod, tmp_path, pidns=own_pidns()))
        assert pod.ask(path) == str(TRAINER)
        assert stranger.ask(path).startswith("refused")


@pytest.mark.parametrize(
    ("facts", "pidns", "expected"),
    [
        (Facts(9, 77, ((1, 5),)), 77, True),
        (Facts(9, 78, ((7, 5),)), 77, False),
        (Facts(9, 77, ((7, 5),)), 0, False),
        (Facts(9, 4, ((8, 1), (7, 5), (1, 0))), 0, True),
        (Facts(9, 4, ((8, 1), (7, 6), (1, 0))), 0, False),
        (Facts(7, 4, ((1, 0),)), 0, False),
        (Facts(9, 4, ((7, 5),)), 4, True),
    ],
    ids=["inside", "other-namespace", "nested", "descendant", "reused-pid", "launcher", "host-namespace"],
)
def test_who_belongs_to_a_pod(facts: Facts, pidns: int, expected: bool) -> None:
    """By namespace where there is one, by descent from the very process that was started where there is none."""
    pod = PodRegistration("a", TRAINER, Path("/x"), pidns, 7, 5)
    assert belongs(facts, pod, 4) is expected


def test_a_registration_names_a_process_that_is_there(known: Registrations, tmp_path: Path) -> None:
    """A pid that is gone, that started at another time, or has no process in the namespace is refused."""
    with asker() as pod:
        ticks = _ticks(pod.process.pid)
        for pid, at, pidns in ((pod.process.pid, ticks + 1, 0), (pod.process.pid, ticks, 12345), (2**22 + 1, 0, 0)):
            with pytest.raises(Conflict):
                known.register(PodRegistration("a", TRAINER, tmp_path, pidns, pid, at))
        for identity in (CONTROL, SpiffeId("spiffe://other.test/ns/a/sa/b"), SpiffeId.person(DOMAIN, "a", "b")):
            with pytest.raises(Invalid):
                known.register(PodRegistration("a", identity, tmp_path, 0, pod.process.pid, ticks))
        assert known.pods() == []
        good = PodRegistration("a", TRAINER, tmp_path, 0, pod.process.pid, ticks)
        assert known.register(good) is True
        assert known.register(good) is False
        assert known.forget("a") == [good]
        assert known.forget("a") == []


def test_the_peer_is_whoever_connected(tmp_path: Path) -> None:
    """The kernel names the process at the other end; a namespace is held only of one who is in it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = Process.peer(ours)
        assert peer.pid == os.getpid() and peer.runs()
        assert peer.facts().pidns == own_pidns()
        peer.close()
    with pytest.raises(Conflict):
        hold_namespace(os.getpid(), 1)
