"""The device door on real device nodes, whose numbers no driver has: an open that is let through says ENXIO."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import Fleet, Machine, machine, pod

from wharfinger.local.node import cgroups
from wharfinger.local.node.cgroups import Groups, Hybrid, Limits, Unified
from wharfinger.policy.journal import read

pytestmark = [pytest.mark.serial, pytest.mark.skipif(os.geteuid() != 0, reason="device nodes and groups need root")]

TRY = """
import errno, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
said = {}
while True:
    for path in ("/dev/nvidia0", "/dev/nvidia1"):
        try:
            os.close(os.open(path, os.O_RDWR))
            how = "open"
        except OSError as error:
            how = errno.errorcode[error.errno]
        if said.get(path) != how:
            print(path[-1], how, flush=True)
            said[path] = how
    time.sleep(0.01)
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Machine]:
    """Return a machine whose pods see the nodes of both GPUs."""
    with machine(tmp_path, shows_all=True) as made:
        yield made


def claim(here: Machine, name: str, holder: str) -> None:
    """Have GPU number `name[-1]` allocated to the pod with uid `holder`."""
    results = [{"driver": "gpu.wharfinger.io", "pool": "here", "device": f"gpu-{name[-1]}", "request": "gpu"}]
    here.world.put(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": "n"},
            "status": {"allocation": {"devices": {"results": results}}, "reservedFor": [{"uid": holder}]},
        }
    )


def grant(here: Machine, name: str, holder: str, gpu: int) -> None:
    """Grant a GPU to the pod with uid `holder`."""
    spec = {
        "workload": "spiffe://test.local/ns/n/sa/worker", "podUid": holder, "artifacts": ["sha256:model"],
        "callers": [], "notBefore": "2020-01-01T00:00:00Z", "notAfter": "2099-01-01T00:00:00Z", "revoked": False,
        "claim": {"name": name, "devices": [{"uuid": f"GPU-{gpu}"}]},
    }  # fmt: skip
    here.world.put(
        {
            "apiVersion": "wharfinger.io/v1alpha1",
            "kind": "Grant",
            "metadata": {"name": name, "namespace": "n"},
            "spec": spec,
        }
    )


def asks(here: Machine, name: str, gpu: int | None) -> str:
    """Start a pod that tries both devices, with a claim for one; return its uid."""
    more: dict[str, Any] = {}
    if gpu is not None:
        more["resourceClaims"] = [{"name": "gpu", "resourceClaimName": f"claim-{gpu}"}]
    uid: str = here.world.put(pod(name, "python3", "-c", TRY, **more))["metadata"]["uid"]
    if gpu is not None:
        claim(here, f"claim-{gpu}", uid)
    return uid


def said(here: Machine, name: str) -> list[str]:
    """Return what a pod's tries came to, in order; nothing while it has no log."""
    uid = here.world.must("pods", "n", name)["metadata"]["uid"]
    if not (here.folder / "pods" / uid / "containers" / "c" / "0.log").exists():
        return []
    return here.log(name).splitlines()


def test_a_device_opens_to_the_granted_pod_alone(here: Machine) -> None:
    """The granted pod's open gets as far as the absent driver; everybody else's, and its own of another, is EPERM."""
    first, second = asks(here, "first", 0), asks(here, "second", 1)
    asks(here, "stranger", None)
    grant(here, "grant-0", first, 0)
    grant(here, "grant-1", second, 1)
    here.world.wait(lambda: all(len(said(here, name)) >= 2 for name in ("first", "second", "stranger")))
    assert said(here, "first") == ["0 ENXIO", "1 EPERM"]
    assert said(here, "second") == ["0 EPERM", "1 ENXIO"]
    assert said(here, "stranger") == ["0 EPERM", "1 EPERM"]


def test_a_pod_waits_for_its_grant(here: Machine) -> None:
    """A pod with a claim does not start before the grant is there, and says what it waits for."""
    uid = asks(here, "early", 0)
    here.world.wait(lambda: "has not issued its grant" in str(here.world.must("pods", "n", "early").get("status")))
    assert said(here, "early") == []
    grant(here, "grant-0", uid, 0)
    here.world.wait(lambda: "0 ENXIO" in said(here, "early"))


def test_revocation_shuts_the_device_and_ends_the_pod(here: Machine) -> None:
    """After revocation the device is EPERM to the pod that had it, which is then ended, with the reason; the
    neighbour's stays open, and every decision is in the journal.
    """
    first, second = asks(here, "first", 0), asks(here, "second", 1)
    grant(here, "grant-0", first, 0)
    grant(here, "grant-1", second, 1)
    here.world.wait(lambda: "0 ENXIO" in said(here, "first") and "1 ENXIO" in said(here, "second"))
    here.world.patch("grants", "n", "grant-0", {"spec": {"revoked": True, "revokedReason": "key leaked"}})
    assert here.ends("first") == "Failed"
    status = here.world.must("pods", "n", "first")["status"]
    assert (status["reason"], status["message"]) == ("GrantRevoked", "the grant is revoked: key leaked")
    assert said(here, "first") == ["0 ENXIO", "1 EPERM", "0 EPERM"]
    assert said(here, "second") == ["0 EPERM", "1 ENXIO"]
    here.world.wait(lambda: here.fleet.released == [("gpu.wharfinger.io", "here", "gpu-0")])
    told = [(r["allowed"], r["element"]) for r in read(here.folder / "evidence" / "node") if r["kind"] == "decision"]
    assert sorted(told) == [(False, "revocation"), (True, ""), (True, "")]


def test_a_grant_for_another_device_does_not_open_this_one(here: Machine) -> None:
    """A grant that names another GPU than the claim got starts nothing, and the refusal names the device."""
    uid = asks(here, "swapped", 0)
    grant(here, "grant-0", uid, 1)
    here.world.wait(lambda: "device GPU-0 is not in the grant" in str(here.world.must("pods", "n", "swapped")))
    assert said(here, "swapped") == []


UNIFIED = next((r for r in (cgroups.ROOT, cgroups.ROOT / "unified") if (r / "cgroup.controllers").exists()), None)
HYBRID = cgroups.ROOT if (cgroups.ROOT / "devices" / "cgroup.procs").exists() else None


@pytest.fixture(params=[("version 1", Hybrid, HYBRID), ("version 2", Unified, UNIFIED)], ids=lambda told: told[0])
def groups(request: pytest.FixtureRequest) -> Iterator[Groups]:
    """Return control groups of a kind that this host has."""
    name, kind, root = request.param
    if root is None:
        pytest.skip(f"no {name} control groups are mounted")
    made = kind(f"wharf-test-{os.getpid()}", root)
    yield made
    for group in made.names():
        made.remove(group)
    made.close()


def tries(groups: Groups, path: Path) -> int:
    """Return the errno of opening a device within the group `pod`, 0 when it opens."""
    child = os.fork()
    if child == 0:
        for control in groups.join("pod"):
            Path(control).write_text("0")
        try:
            os.open("/dev/null", os.O_RDWR)
            os.open(path, os.O_RDWR)
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_groups_of_either_version_decide_on_the_same_opens(groups: Groups, tmp_path: Path) -> None:
    """Closed at first, open when told, closed when told; what is plain opens always; a group that is gone has none."""
    path = tmp_path / "gpu"
    os.mknod(path, 0o20666, os.makedev(Fleet.MAJOR, 0))
    groups.create("pod", Limits(memory=1 << 30, cpu=500, cpu_request=100))
    assert tries(groups, path) == errno.EPERM
    groups.open("pod", [(Fleet.MAJOR, 0)])
    assert tries(groups, path) == errno.ENXIO
    groups.open("pod", [])
    assert tries(groups, path) == errno.EPERM
    assert groups.names() == ["pod"]
    groups.create("pod", Limits())
    groups.remove("pod")
    groups.remove("pod")
    groups.open("pod", [(Fleet.MAJOR, 0)])
    assert groups.names() == []
    assert not groups.out_of_memory("pod")


def test_what_is_left_in_a_group_is_ended_with_it(groups: Groups) -> None:
    """Removing a group kills who is in it; its name is free again."""
    groups.create("pod", Limits())
    child = os.fork()
    if child == 0:
        signal.pause()
    for control in groups.join("pod"):
        Path(control).write_text(str(child))
    groups.remove("pod")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    groups.remove("pod")
    assert groups.names() == []


def test_a_host_that_refuses_groups_has_none_and_says_why(tmp_path: Path) -> None:
    """Where groups cannot be made, pods run without, and the node tells why devices are no doors."""
    assert cgroups.groups("x", tmp_path).reason == "this host has no control groups"
    for controller in ("devices", "memory", "pids"):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "cgroup.procs").touch()
    refused = cgroups.groups("x", tmp_path)
    assert not refused.devices
    assert refused.reason.startswith("this host refuses control groups: ")
