"""What an operator relies on: every process can be asked, a state is started again, a backup is the same platform."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_under_test import Platform

from wharfinger.bootstrap.operations import port_of
from wharfinger.bootstrap.state import State
from wharfinger.cli.story import manifests
from wharfinger.cluster.endpoint import credentials, from_kubeconfig

pytestmark = [pytest.mark.e2e, pytest.mark.serial]
SPACE = manifests.RESEARCH
PARTS = ("issuer", "api", "registry", "node", "control", "gateway", "console")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with the story's tenants, policies and a dataset that was signed and logged."""
    folder = tmp_path_factory.mktemp("operations")
    made = Platform(folder / "state")
    made.up()
    objects = [*manifests.tenants(), *manifests.policies("wharfinger.local")]
    made.until("apply", "-f", "-", stdin=manifests.text(objects))
    made.until("wait", "tenant", SPACE)
    push(made, "first", folder)
    yield made
    made.down()


def push(platform: Platform, name: str, folder: Path) -> dict[str, Any]:
    """Push a dataset of one text; return its object once it is signed, logged and admitted."""
    texts = folder / name
    texts.mkdir()
    (texts / "a.txt").write_text(f"The harbour master writes down every ship of the {name} day.\n" * 20)
    platform.until("push", "dataset", name, str(texts), "-n", SPACE)
    platform.until("wait", "dataset", name, "-n", SPACE, "--timeout", "60s")
    return get(platform, "dataset", name)


def get(platform: Platform, kind: str, name: str) -> dict[str, Any]:
    """Return an object of research."""
    found: dict[str, Any] = json.loads(platform.until("get", kind, name, "-n", SPACE, "-o", "json"))
    return found


def note(platform: Platform, name: str) -> None:
    """Write a ConfigMap; it was acknowledged when this returns."""
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": SPACE}}
    platform.until("apply", "-f", "-", stdin=json.dumps({**made, "data": {"text": name}}))


def notes(platform: Platform) -> set[str]:
    """Return the names of the ConfigMaps that are there."""
    shown = platform.until("get", "configmaps", "-n", SPACE, "-o", "name").split()
    return {name.partition("/")[2] for name in shown}


def log_size(platform: Platform) -> int:
    """Return how many entries the transparency log has signed for."""
    return int((platform.directory / "log" / "checkpoint").read_text().splitlines()[1])


@pytest.mark.parametrize("part", PARTS)
def test_every_part_says_whether_it_is_ready_and_counts(platform: Platform, part: str) -> None:
    """`/readyz` answers the local admin, and `/metrics` in Prometheus' form with the process's own figures."""
    state = State(platform.directory)
    context = from_kubeconfig(state.kubeconfig).context
    assert context is not None
    context.check_hostname = False
    for path, told in (("/readyz", "ok\n"), ("/metrics", "process_resident_memory_bytes ")):
        connection = http.client.HTTPSConnection("127.0.0.1", port_of(state, part), context=context, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        assert told in answer.read().decode()
        connection.close()


def test_a_second_start_on_the_same_state_continues(platform: Platform, tmp_path: Path) -> None:
    """Objects keep uid and version, versions go on from where they were, and so does the log."""
    note(platform, "kept")
    kept, dataset, size = get(platform, "configmap", "kept"), get(platform, "dataset", "first"), log_size(platform)
    platform.down()
    assert not platform.processes()
    platform.up()
    assert get(platform, "configmap", "kept") == kept
    assert get(platform, "dataset", "first")["metadata"]["uid"] == dataset["metadata"]["uid"]
    note(platform, "later")
    version = int(get(platform, "configmap", "later")["metadata"]["resourceVersion"])
    assert version > int(kept["metadata"]["resourceVersion"])
    push(platform, "second", tmp_path)
    assert log_size(platform) > size


@pytest.mark.timeout(240)
def test_a_backup_taken_live_starts_as_the_same_platform(platform: Platform, tmp_path: Path) -> None:
    """Taken amid writes: what was acknowledged before is there, the same root signs, and the log goes on."""
    note(platform, "before")
    dataset = get(platform, "dataset", "first")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            note(platform, f"amid-{number}")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        platform.until("backup", str(tmp_path / "backup.tar"))
    finally:
        stop.set()
        writer.join()
    assert json.loads(platform.until("status", "-o", "json"))["ok"]
    restored = Platform(tmp_path / "restored")
    restored.until("restore", str(tmp_path / "backup.tar"))
    restored.up()
    try:
        assert "before" in notes(restored) <= notes(platform)
        assert get(restored, "dataset", "first")["spec"] == dataset["spec"]
        restored.until("wait", "dataset", "first", "-n", SPACE, "--timeout", "60s")
        roots = [credentials(p.directory / "kubeconfig").authorities for p in (platform, restored)]
        assert roots[0] == roots[1]
        size = log_size(restored)
        push(restored, "third", tmp_path)
        assert log_size(restored) > size
    finally:
        restored.down()
    assert not restored.processes()
    assert platform.wharf("get", "dataset", "third", "-n", SPACE).returncode == 2
