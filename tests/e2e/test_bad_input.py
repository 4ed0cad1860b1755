"""Bad input on the whole platform: an error that names the thing, exit code 2 (1 for a "no"), and state as before."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ordinary
import pytest
from platform_under_test import Platform

from wharfinger.cli.story import manifests

pytestmark = [pytest.mark.e2e, pytest.mark.serial]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system of its own needs root")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with the story's tenants."""
    made = Platform(tmp_path_factory.mktemp("bad") / "state")
    made.up()
    made.until("apply", "-f", "-", stdin=manifests.text(manifests.tenants()))
    made.until("wait", "tenant", manifests.RESEARCH)
    yield made
    made.down()


def tenant(**spec: Any) -> str:
    """Return a Tenant as JSON, a good one but for what is changed."""
    good = {"namespaces": ["other"], **spec}
    made = {"apiVersion": "wharfinger.io/v1alpha1", "kind": "Tenant", "metadata": {"name": "other"}, "spec": good}
    return json.dumps(made)


def config(name: str = "c", **more: Any) -> str:
    """Return a ConfigMap of research as JSON."""
    metadata = {"name": name, "namespace": manifests.RESEARCH, **more.pop("metadata", {})}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **more})


@pytest.mark.parametrize(
    ("manifest", "code", "told"),
    [
        ("a: [1", 2, "expected YAML or JSON"),
        ("- 1", 2, "expected an object with apiVersion"),
        (tenant(nmespaces=["x"]), 2, "nmespaces"),
        (tenant(namespaces="other"), 2, "spec.namespaces"),
        (tenant(weight="heavy"), 2, "spec.weight"),
        (tenant(weight=0), 2, "spec.weight"),
        (tenant(namespaces=["kube-system"]), 2, "spec.namespaces: Invalid value: default"),
        (tenant(namespaces=[manifests.RESEARCH]), 2, "belongs to tenant research"),
        (tenant().replace('"name": "other"', '"name": "' + "n" * 254 + '"'), 2, "metadata.name"),
        (tenant().replace("v1alpha1", "v9"), 2, "v9"),
        (config(data={"a": 5}), 2, "data"),
        (config(data={"a": "x" * 1_600_000}), 2, "may not be more than 1048576 bytes"),
        (config(metadata={"namespace": "nowhere"}), 2, "nowhere"),
    ],
)
def test_a_bad_manifest_is_refused_by_its_field(platform: Platform, manifest: str, code: int, told: str) -> None:
    """The error names what is wrong, and nothing was stored."""
    done = platform.wharf("apply", "-f", "-", stdin=manifest)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert platform.wharf("get", "tenant", "other").returncode == 2
    assert platform.wharf("get", "configmap", "c", "-n", manifests.RESEARCH).returncode == 2


def test_owners_in_a_circle_do_not_hang_a_deletion(platform: Platform) -> None:
    """Two objects that own each other go when one is deleted, and the server goes on."""
    space, uids = manifests.RESEARCH, {}
    for name in ("left", "right"):
        platform.until("apply", "-f", "-", stdin=config(name))
        shown = platform.until("get", "configmap", name, "-n", space, "-o", "json")
        uids[name] = json.loads(shown)["metadata"]["uid"]
    for name, owner in (("left", "right"), ("right", "left")):
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uids[owner]}
        platform.until("apply", "-f", "-", stdin=config(name, metadata={"ownerReferences": [reference]}))
    platform.until("delete", "configmap", "left", "-n", space)
    platform.until("wait", "configmap", "right", "-n", space, "--for", "delete", "--timeout", "20s")


def test_a_dataset_that_leads_out_of_its_folder_is_not_pushed(platform: Platform, tmp_path: Path) -> None:
    """A symbolic link out of the folder is named, and no Dataset appears."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    (folder / "leak").symlink_to("/etc/passwd")
    done = platform.wharf("push", "dataset", "leaky", str(folder), "-n", manifests.RESEARCH)
    assert done.returncode == 2
    assert "leak" in done.stderr
    assert platform.wharf("get", "dataset", "leaky", "-n", manifests.RESEARCH).returncode == 2


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """Nothing is started; the hint says how to choose another."""
    platform = Platform(tmp_path / "state")
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = platform.wharf("up", "--detach", "--port", f"api={port}")
    assert done.returncode == 2
    assert f"port {port} for api is in use" in done.stderr
    assert "--port api=PORT" in done.stderr
    assert not platform.processes()


def test_a_corrupt_database_is_not_served(tmp_path: Path) -> None:
    """The error names the database and the way back; its bytes stay as they are."""
    platform = Platform(tmp_path / "state")
    platform.up()
    platform.down()
    (database,) = (p for p in (platform.directory / "api").iterdir() if p.suffix == ".db")
    database.write_bytes(b"no database" + database.read_bytes()[11:])
    before = database.read_bytes()
    done = platform.wharf("up", "--detach", timeout=90)
    assert done.returncode == 2
    assert database.name in done.stderr
    assert "Traceback" not in done.stderr
    assert database.read_bytes() == before
    assert not platform.processes()


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """An ordinary user's `wharf up` on somebody else's folder: exit 2, the folder named, nothing made."""
    place = tmp_path / "others"
    place.mkdir(mode=0o555)
    words = (sys.executable, "-m", "wharfinger.cli.main", "up", "--detach", "--state-dir", str(place / "state"))
    if os.geteuid() == 0:
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents[:2]:
            parent.chmod(0o755)
    command = ordinary.command(*words) if os.geteuid() == 0 else list(words)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "state directory" in done.stderr
    assert not any(place.iterdir())


@needs_root
def test_a_state_that_became_read_only_is_named_and_stays(tmp_path: Path) -> None:
    """Even root cannot start on a read-only file system: exit 2, the folder named; writable again, it goes on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    platform = Platform(folder / "state")
    platform.up()
    platform.until("apply", "-f", "-", stdin=tenant())
    platform.down()
    before = sorted(str(path) for path in platform.directory.rglob("*"))
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        done = platform.wharf("up", "--detach")
        assert done.returncode == 2
        assert f"state directory {platform.directory} cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
        assert not platform.processes()
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert sorted(str(path) for path in platform.directory.rglob("*")) == before
    platform.up()
    try:
        assert "other" in platform.until("get", "tenants", "-o", "name")
    finally:
        platform.down()


@needs_root
@pytest.mark.timeout(240)
def test_a_full_disk_loses_nothing_and_says_so(tmp_path: Path) -> None:
    """What was acknowledged stays; a write that finds no room is refused with an error; with room again it goes on."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=True)
    platform = Platform(folder / "state")
    ballast = folder / "ballast"
    try:
        platform.up()
        platform.until("apply", "-f", "-", stdin=manifests.text(manifests.tenants()))
        platform.until("wait", "tenant", manifests.RESEARCH)
        platform.until("apply", "-f", "-", stdin=config("kept", data={"a": "1"}))
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        refused = [
            platform.wharf("apply", "-f", "-", stdin=config(f"n{n}", data={"x": "y" * 900_000})) for n in range(4)
        ]
        assert any(done.returncode == 2 for done in refused), "the disk was not full"
        acknowledged = [f"n{n}" for n, done in enumerate(refused) if done.returncode == 0]
        ballast.unlink()
        names = platform.until("get", "configmaps", "-n", manifests.RESEARCH, "-o", "name")
        assert all(f"configmap/{name}\n" in names for name in ["kept", *acknowledged])
        platform.until("apply", "-f", "-", stdin=config("after"))
    finally:
        platform.down()
        subprocess.run(["umount", str(folder)], check=False)
