"""The fleet of a machine: what is kept, what is opened, what a pod is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from quay import SMALL

from wharfinger.bootstrap import fleet as fleets
from wharfinger.bootstrap.fleet import Fleet, keep_fleet, open_fleet
from wharfinger.bootstrap.part import Setting
from wharfinger.bootstrap.state import State, prepare
from wharfinger.core.errors import HostUnfit, Invalid, TooLarge
from wharfinger.gpu.fleet import MAX_BYTES

SLICE = ("gpu.wharfinger.io", "n2", "gpu-0-mig-1g5gb-0")


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A new state directory."""
    return prepare(tmp_path / "state")


def setting(state: State) -> Setting:
    """Return the setting of a node part."""
    return Setting("node", state, "test.local", {})


def small(state: State, tmp_path: Path) -> Fleet:
    """Return the small fleet, opened."""
    (tmp_path / "fleet.yaml").write_text(SMALL, encoding="utf-8")
    keep_fleet(state, tmp_path / "fleet.yaml")
    return open_fleet(setting(state))


def test_a_machine_without_gpus_plays_the_shipped_fleet(state: State) -> None:
    """Without a file and without NVML there are the nodes that come with the package."""
    fleet = open_fleet(setting(state))
    if fleet.source == "hardware":
        pytest.skip("this machine has GPUs")
    assert [n["metadata"]["name"] for n in fleet.nodes] == ["h100-a", "h100-b", "a100-a"]
    assert fleet.nodes[0]["status"]["allocatable"]["cpu"] == "96"
    slices, gone = fleet.slices("a100-a")
    assert len(slices) == 4 and not gone
    assert fleet.slices("a100-a", slices) == ([], [])


def test_a_fleet_file_is_taken_into_the_state_directory(state: State, tmp_path: Path) -> None:
    """The file given once is the fleet of every later start, wherever it goes."""
    fleet = small(state, tmp_path)
    (tmp_path / "fleet.yaml").unlink()
    keep_fleet(state, None)
    again = open_fleet(setting(state))
    assert again.nodes == fleet.nodes
    assert {n: [d.uuid for d in ds] for n, ds in again.devices.items()} == {
        n: [d.uuid for d in ds] for n, ds in fleet.devices.items()
    }


@pytest.mark.parametrize(
    ("data", "error"), [(b"kind: Fleet", Invalid), (b"x" * (MAX_BYTES + 1), TooLarge), (None, HostUnfit)]
)
def test_a_fleet_file_that_is_wrong_changes_nothing(
    data: bytes | None, error: type[Exception], state: State, tmp_path: Path
) -> None:
    """What was kept stays when the new file cannot be read."""
    small(state, tmp_path)
    before = (state.of("fleet") / "fleet.yaml").read_bytes()
    wrong = tmp_path / "wrong.yaml"
    if data is not None:
        wrong.write_bytes(data)
    with pytest.raises(error):
        keep_fleet(state, wrong)
    assert (state.of("fleet") / "fleet.yaml").read_bytes() == before


def test_a_slice_survives_a_start_of_the_node(state: State, tmp_path: Path) -> None:
    """A prepared slice has the same device files after the node has been started again."""
    before = small(state, tmp_path).silicon.prepare(SLICE)
    assert open_fleet(setting(state)).silicon.prepare(SLICE).nodes == before.nodes


def test_where_devices_are_enforced_a_pod_sees_every_file(state: State, tmp_path: Path) -> None:
    """As root a pod is shown what it may not open too, so that the control group and not the view decides."""
    fleet = small(state, tmp_path)
    if not fleet.enforced:
        pytest.skip(f"devices are not enforced here: {fleet.reason}")
    shown = fleet.shown("n2", ())
    device = fleet.silicon.prepare(SLICE)
    assert {(f.path, f.major, f.minor) for f in device.nodes} <= {(s.path, s.major, s.minor) for s in shown}
    assert all(s.source is None and s.major for s in shown)
    assert len({(s.major, s.minor) for n in ("n1", "n2") for s in fleet.shown(n, ())}) == len(shown) + len(
        fleet.shown("n1", ())
    )


def test_where_they_are_not_a_pod_sees_its_own(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's pods are shown plain files, those that they were given alone, and the fleet says so."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    fleet = small(state, tmp_path)
    assert (fleet.enforced, fleet.reason) == (False, "only root can make device files")
    device = fleet.silicon.prepare(SLICE)
    shown = fleet.shown("n2", [file.path for file in device.nodes])
    assert [s.path for s in shown] == sorted(file.path for file in device.nodes)
    assert all(s.source is not None and Path(s.source).is_file() for s in shown)


def test_a_folder_that_cannot_be_written_is_an_error(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses is told as such."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fleets.declared, "_lay_out", full)
    monkeypatch.setattr(fleets, "_hardware", lambda: (_ for _ in ()).throw(HostUnfit("", hint=fleets.ABSENT)))
    with pytest.raises(HostUnfit, match="declared node h100-a: No space left"):
        open_fleet(setting(state))
