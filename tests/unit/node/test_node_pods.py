"""Pods as processes: the real agent and sandbox, the API and the other parts as fakes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import DIGEST, Machine, WatchedWorld, machine, pod

from wharfinger.core.errors import Unavailable

pytestmark = pytest.mark.serial


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Machine]:
    """Return a machine."""
    with machine(tmp_path) as made:
        yield made


def status_of(here: Machine, name: str, field: str = "containerStatuses") -> Any:
    """Return the status of the pod's first container."""
    return here.world.must("pods", "n", name)["status"][field][0]


def condition_of(here: Machine, name: str, kind: str) -> dict[str, Any]:
    """Return a condition of the pod."""
    found = here.world.must("pods", "n", name)["status"]["conditions"]
    return next(c for c in found if c["type"] == kind)


def test_a_pod_runs_to_its_end_and_says_how(here: Machine) -> None:
    """A command that succeeds makes its pod Succeeded, with its log, its times and its isolation told."""
    here.world.put(pod("good", "sh", "-c", "echo out; echo err >&2"))
    assert here.ends("good") == "Succeeded"
    assert sorted(here.log("good").splitlines()) == ["err", "out"]
    ended = status_of(here, "good")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    told = condition_of(here, "good", "wharfinger.io/Isolation")
    assert (told["status"], told["message"]) == ("True", "namespaces")


def test_an_exit_code_and_a_last_word_are_told(here: Machine) -> None:
    """A command that fails makes its pod Failed, with its exit code and its termination message."""
    here.world.put(pod("bad", "sh", "-c", "echo no corpus > /dev/termination-log; exit 3"))
    assert here.ends("bad") == "Failed"
    ended = status_of(here, "bad")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "no corpus")


def test_a_command_that_is_not_there_is_127(here: Machine) -> None:
    """A missing command ends with 127 and names itself."""
    here.world.put(pod("missing", "no-such-command"))
    assert here.ends("missing") == "Failed"
    ended = status_of(here, "missing")["state"]["terminated"]
    assert ended["exitCode"] == 127
    assert "no-such-command" in ended["message"]


def test_a_failing_container_is_started_again_with_a_pause(here: Machine) -> None:
    """Under Always a container that fails starts again at once, then waits as CrashLoopBackOff."""
    here.world.put(pod("loop", "sh", "-c", "echo again; exit 1", restartPolicy="Always"))
    here.world.wait(
        lambda: (
            status_of(here, "loop")["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
            if here.phase("loop") == "Running"
            else False
        )
    )
    told = status_of(here, "loop")
    assert told["restartCount"] == 1
    assert told["lastState"]["terminated"]["exitCode"] == 1
    assert here.log("loop", attempt=0) == here.log("loop", attempt=1) == "again"


def test_a_pod_has_its_environment(here: Machine) -> None:
    """Fields, secrets, configmaps and the platform's own variables reach the command; references expand."""
    here.world.put(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"}, "data": {"k": "aHVzaA=="}}
    )
    here.world.put(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "n"}, "data": {"a": "1"}}
    )
    env = [
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "BOTH", "value": "$(ME)-$(KEY)"},
    ]
    container = {"env": env, "envFrom": [{"configMapRef": {"name": "m"}}], "args": ["$(BOTH)"]}
    script = "import os, sys, json; print(json.dumps([sys.argv[1], dict(os.environ)]))"
    here.world.put(pod("env", "python3", "-c", script, container=container))
    assert here.ends("env") == "Succeeded"
    argument, seen = json.loads(here.log("env"))
    assert (argument, seen["a"], seen["WHARF_POD"], seen["WHARF_ISOLATION"]) == ("env-hush", "1", "env", "namespaces")
    assert seen["WHARF_POD_IP"].startswith("127.")
    assert seen["SPIFFE_ENDPOINT_SOCKET"] == "unix:///run/spiffe/workload.sock"


def test_a_missing_secret_is_waited_for(here: Machine) -> None:
    """A pod whose Secret is not there waits and says so; it starts when the Secret comes."""
    env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}]
    here.world.put(pod("waits", "sh", "-c", "echo $KEY", container={"env": env}))
    told = here.world.wait(
        lambda: (
            (here.world.must("pods", "n", "waits").get("status") or {})
            .get("containerStatuses", [{}])[0]
            .get("state", {})
            .get("waiting", {})
            .get("message", "")
            .startswith("secret")
        )
    )
    assert told
    here.world.put(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "late", "namespace": "n"},
            "data": {"k": "aHVzaA=="},
        }
    )
    assert here.ends("waits") == "Succeeded"
    assert here.log("waits") == "hush"


def test_volumes_hold_what_they_should(here: Machine) -> None:
    """A configMap volume is read-only, an emptyDir is the pod's own, and the system cannot be written."""
    here.world.put(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "n"}, "data": {"a": "1"}}
    )
    volumes = [{"name": "m", "configMap": {"name": "m"}}, {"name": "e", "emptyDir": {}}]
    mounts = [{"name": "m", "mountPath": "/conf"}, {"name": "e", "mountPath": "/scratch"}]
    script = "cat /conf/a; echo x > /scratch/x && cat /scratch/x; echo x > /conf/b; echo x > /usr/x; echo x > /x; echo x > /tmp/x"
    here.world.put(pod("vol", "sh", "-c", script, volumes=volumes, container={"volumeMounts": mounts}))
    assert here.ends("vol") == "Succeeded"
    assert here.log("vol").startswith("1x\n")
    assert here.log("vol").count("Read-only file system") == 3


def test_a_deleted_pod_gets_time_to_end_and_leaves_nothing(here: Machine) -> None:
    """SIGTERM comes first; when the pod has ended its object goes, its folder and its registration too."""
    script = "import signal, sys\ndef bye(*_):\n print('bye', flush=True); sys.exit(0)\nsignal.signal(signal.SIGTERM, bye)\nprint('up', flush=True)\nsignal.pause()"
    made = here.world.put(pod("goes", "python3", "-c", script))
    uid = made["metadata"]["uid"]
    here.world.wait(lambda: here.phase("goes") == "Running" and "up" in here.log("goes"))
    assert here.issuer.known[uid, "c"][0] == "spiffe://test.local/ns/n/sa/worker"
    fresh = dict(here.world.must("pods", "n", "goes"))
    fresh["metadata"] = {**fresh["metadata"], "deletionTimestamp": "2099-01-01T00:00:00Z"}
    here.world.put(fresh)
    here.world.wait(lambda: here.world.get("pods", "n", "goes") is None)
    assert not here.issuer.known
    assert here.groups.names() == []
    assert ("n/goes", "Killing", "Stopping container c") in here.world.events


def test_probes_make_a_pod_ready_and_alive(here: Machine) -> None:
    """A command probe makes the pod ready; a liveness probe that fails has the container started again."""
    container = {
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1},
        "livenessProbe": {
            "exec": {"command": ["test", "!", "-e", "/tmp/dead"]},
            "periodSeconds": 1,
            "failureThreshold": 1,
            "initialDelaySeconds": 2,
        },
    }
    script = (
        "test -e /scratch/twice && touch /tmp/ready && exec sleep 60; touch /scratch/twice /tmp/dead; exec sleep 60"
    )
    container |= {"volumeMounts": [{"name": "e", "mountPath": "/scratch"}]}
    told = pod(
        "probed",
        "sh",
        "-c",
        script,
        container=container,
        restartPolicy="Always",
        volumes=[{"name": "e", "emptyDir": {}}],
    )
    here.world.put({**told, "spec": {**told["spec"], "terminationGracePeriodSeconds": 1}})
    here.world.wait(lambda: here.is_ready("probed"))
    assert status_of(here, "probed")["restartCount"] == 1
    assert any(reason == "Unhealthy" and "Liveness" in message for _, reason, message in here.world.events)


def test_a_step_reads_its_inputs_and_leaves_an_artifact(here: Machine) -> None:
    """Inputs come verified and read-only, the output is stored when the step has succeeded, its digest in the status."""
    notes = {
        "wharfinger.io/inputs": json.dumps({"WHARF_INPUT": {"repository": "n/data", "digest": DIGEST}}),
        "wharfinger.io/output": "true",
    }
    script = "cp $WHARF_INPUT/corpus.txt $WHARF_OUTPUT/model; touch $WHARF_INPUT/x"
    here.shelf.away = True
    here.world.put(pod("step", "sh", "-c", script + "; true", annotations=notes))
    here.world.wait(lambda: "away" in str(here.world.must("pods", "n", "step").get("status")))
    assert here.phase("step") == "Running"
    here.shelf.away = False
    assert here.ends("step") == "Succeeded"
    told = condition_of(here, "step", "wharfinger.io/Output")
    assert (told["status"], told["message"]) == ("True", DIGEST)
    assert here.shelf.stored == {"n/steps-step": {"model": b"the cargo"}}
    assert "Read-only" in here.log("step")


def test_an_output_stays_until_its_digest_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the API is away what a step made is kept: a node that dies then finds it, and the step has not failed."""
    world = WatchedWorld()
    guardian = os.pidfd_open(os.getpid())
    first = Machine(tmp_path, world, guardian)
    lost: list[str] = []

    def away(*_: object, **__: object) -> None:
        lost.append("status")
        raise Unavailable("the API server does not answer")

    store = first.shelf.store

    def stored(repository: str, folder: Path) -> str:
        monkeypatch.setattr(world, "status", away)
        return store(repository, folder)

    monkeypatch.setattr(first.shelf, "store", stored)
    world.put(pod("step", "sh", "-c", "echo made > $WHARF_OUTPUT/model", annotations={"wharfinger.io/output": "true"}))
    uid = world.must("pods", "n", "step")["metadata"]["uid"]
    world.wait(lambda: len(lost) >= 2)
    assert (tmp_path / "pods" / uid / "output" / "model").read_text() == "made\n"
    first.end()
    monkeypatch.undo()
    second = Machine(tmp_path, world, guardian)
    try:
        assert second.ends("step") == "Succeeded"
        assert condition_of(second, "step", "wharfinger.io/Output")["message"] == DIGEST
    finally:
        second.end()
        os.close(guardian)


def test_an_output_with_a_link_is_refused(here: Machine) -> None:
    """A step cannot have the node read through a link what it could not read itself."""
    script = "ln -s /etc/shadow $WHARF_OUTPUT/model"
    here.world.put(pod("sly", "sh", "-c", script, annotations={"wharfinger.io/output": "true"}))
    assert here.ends("sly") == "Failed"
    assert here.world.must("pods", "n", "sly")["status"]["reason"] == "OutputRefused"
    assert not here.shelf.stored


def test_memory_and_processes_are_bounded(here: Machine) -> None:
    """A container over its memory is killed as OOMKilled; one that forks without end gets no more than its share."""
    if not here.groups.devices:
        pytest.skip("control groups need root")
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    here.world.put(pod("hungry", "python3", "-c", "x = bytearray(256 << 20)", container=limits))
    assert here.ends("hungry") == "Failed"
    assert status_of(here, "hungry")["state"]["terminated"]["reason"] == "OOMKilled"


def test_a_log_is_rotated(here: Machine) -> None:
    """A container that says much keeps its newest lines and at most two files."""
    here.world.put(
        pod("chatty", "sh", "-c", "yes 0123456789012345678901234567890123456789 | head -n 300000; echo last")
    )
    assert here.ends("chatty") == "Succeeded"
    uid = here.world.must("pods", "n", "chatty")["metadata"]["uid"]
    files = sorted((here.folder / "pods" / uid / "containers" / "c").glob("0.log*"))
    assert [f.name for f in files] == ["0.log", "0.log.1"]
    assert all(f.stat().st_size <= 8 << 20 for f in files)
    assert files[0].read_text().rstrip().endswith("last")


def test_init_containers_run_first_and_each_container_has_its_own_socket(here: Machine) -> None:
    """Init containers run to their end in order; every container is registered by itself."""
    told = pod("two", "sh", "-c", "cat /s/x")
    mount = {"volumeMounts": [{"name": "e", "mountPath": "/s"}]}
    told["spec"]["volumes"] = [{"name": "e", "emptyDir": {}}]
    told["spec"]["initContainers"] = [{"name": "first", "command": ["sh", "-c", "echo init > /s/x"], **mount}]
    told["spec"]["containers"][0] |= mount
    seen: list[tuple[str, Path]] = []
    register = here.issuer.register

    def remember(uid: str, container: str, spiffe_id: str, folder: Path, running: Any) -> None:
        seen.append((container, folder))
        register(uid, container, spiffe_id, folder, running)

    here.issuer.register = remember  # type: ignore[method-assign]
    here.world.put(told)
    assert here.ends("two") == "Succeeded"
    assert here.log("two") == "init"
    assert [name for name, _ in seen] == ["first", "c"]
    assert len({folder for _, folder in seen}) == 2


def test_a_pod_does_not_start_unknown_to_the_issuer(here: Machine) -> None:
    """While the issuer is away no command runs; it starts when the issuer is back."""
    here.issuer.away = True
    here.world.put(pod("early", "sh", "-c", "echo ran"))
    here.world.wait(lambda: "issuer is away" in json.dumps(here.world.must("pods", "n", "early").get("status")))
    assert here.log("early") == ""
    here.issuer.away = False
    assert here.ends("early") == "Succeeded"


def test_where_nothing_is_isolated_a_pod_runs_and_says_so(tmp_path: Path) -> None:
    """Without namespaces a pod still runs, with `isolation: none` in its status."""
    with machine(tmp_path, isolation="none") as here:
        here.world.put(pod("bare", "sh", "-c", "echo $WHARF_ISOLATION; sleep 1000 & sleep 1001 & echo $!"))
        assert here.ends("bare") == "Succeeded"
        told = condition_of(here, "bare", "wharfinger.io/Isolation")
        assert (told["status"], told["message"]) == ("False", "none")
        word, left = here.log("bare").splitlines()
        assert word == "none"
        assert not os.path.exists(f"/proc/{left}")


def test_pods_end_with_the_platform_and_go_on_with_it(tmp_path: Path) -> None:
    """What the node's end cut off starts again at once with it, a step from its beginning; what may not, says why."""
    world = WatchedWorld()
    guardian = os.pidfd_open(os.getpid())
    first = Machine(tmp_path, world, guardian)
    world.put(pod("stays", "sh", "-c", "exec sleep 600", restartPolicy="Always"))
    world.put(pod("once", "sh", "-c", "exec sleep 600"))
    step = "test -e /s/twice && echo whole > $WHARF_OUTPUT/model && exit 0; touch /s/twice $WHARF_OUTPUT/part; exec sleep 600"
    begun = {"exec": {"command": ["test", "-e", "/s/twice"]}, "periodSeconds": 1}
    scratch = {"volumeMounts": [{"name": "s", "mountPath": "/s"}], "readinessProbe": begun}
    more = {"container": scratch, "volumes": [{"name": "s", "emptyDir": {}}]}
    world.put(pod("step", "sh", "-c", step, annotations={"wharfinger.io/output": "true"}, **more))
    world.wait(lambda: all(first.is_ready(name) for name in ("stays", "once", "step")))
    first.end()
    assert first.phase("once") == "Failed"
    status = world.must("pods", "n", "once")["status"]
    assert status["reason"] == "Terminated"
    assert condition_of(first, "once", "DisruptionTarget")["status"] == "True"
    second = Machine(tmp_path, world, guardian)
    try:
        world.wait(lambda: second.is_ready("stays") and status_of(second, "stays")["restartCount"] == 1)
        assert "CrashLoopBackOff" not in str(world.must("pods", "n", "stays"))
        assert second.ends("step") == "Succeeded"
        assert second.shelf.stored == {"n/steps-step": {"model": b"whole\n"}}
    finally:
        second.end()
        os.close(guardian)


def test_a_command_that_never_ran_is_no_failure(tmp_path: Path) -> None:
    """A container that was built while the issuer was away, and whose node then ended, counts as never started."""
    world = WatchedWorld()
    guardian = os.pidfd_open(os.getpid())
    first = Machine(tmp_path, world, guardian)
    first.issuer.away = True
    world.put(pod("early", "sh", "-c", "echo ran"))
    world.wait(lambda: "issuer is away" in json.dumps(world.must("pods", "n", "early").get("status")))
    first.end()
    second = Machine(tmp_path, world, guardian)
    try:
        assert second.ends("early") == "Succeeded"
        assert (second.log("early"), status_of(second, "early")["restartCount"]) == ("ran", 0)
    finally:
        second.end()
        os.close(guardian)


def test_a_pod_goes_on_with_its_journal_after_the_platform_was_away(tmp_path: Path) -> None:
    """What serves under a grant writes on where it was, when the node's end has cut it off."""
    world = WatchedWorld()
    guardian = os.pidfd_open(os.getpid())
    first = Machine(tmp_path, world, guardian)
    write = "umask 077; echo line >> $WHARF_JOURNAL/00000001.log && cat $WHARF_JOURNAL/00000001.log; exec sleep 600"
    annotations = {"wharfinger.io/grant": "sha256:model"}
    world.put(pod("door", "sh", "-c", write, annotations=annotations, restartPolicy="Always"))
    spec = {
        "workload": "spiffe://test.local/ns/n/sa/worker", "podUid": world.must("pods", "n", "door")["metadata"]["uid"],
        "artifacts": ["sha256:model"], "callers": [], "revoked": False,
        "notBefore": "2020-01-01T00:00:00Z", "notAfter": "2099-01-01T00:00:00Z",
    }  # fmt: skip
    meta = {"name": "g", "namespace": "n"}
    world.put({"apiVersion": "wharfinger.io/v1alpha1", "kind": "Grant", "metadata": meta, "spec": spec})
    world.wait(lambda: first.is_ready("door") and first.log("door") == "line")
    first.end()
    second = Machine(tmp_path, world, guardian)
    try:
        world.wait(lambda: second.is_ready("door") and status_of(second, "door")["restartCount"] == 1)
        world.wait(lambda: second.log("door", attempt=1) != "")
        assert second.log("door", attempt=1) == "line\nline"
    finally:
        second.end()
        os.close(guardian)
