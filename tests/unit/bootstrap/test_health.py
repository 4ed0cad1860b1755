"""What `wharf status` says of a platform and of how its machine keeps pods apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wharfinger.bootstrap.health import Isolated, health, keep_host
from wharfinger.bootstrap.state import prepare, write_file
from wharfinger.cli.platform import _table


def test_a_platform_that_does_not_run_is_not_ok_and_says_nothing_of_its_host(tmp_path: Path) -> None:
    """What an earlier run left is not told as if it were so."""
    state = prepare(tmp_path / "state")
    keep_host(state, Isolated("declared", "namespaces", "", ""))
    found = health(state.root)
    assert (found["ok"], found["host"], found["parts"]) == (False, {}, {})


@pytest.mark.parametrize(
    ("host", "line"),
    [
        (Isolated("declared", "namespaces", "", ""), "isolation: namespaces; devices: declared, enforced"),
        (
            Isolated("declared", "none", "the host allows no user namespaces", "only root can make device files"),
            "isolation: none, the host allows no user namespaces; "
            "devices: declared, not enforced, only root can make device files",
        ),
    ],
)
def test_devices_that_are_not_enforced_are_told(
    host: Isolated, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wharf status` has a line on isolation and devices, with the reason where they are not enforced."""
    state = prepare(tmp_path / "state")
    keep_host(state, host)
    part = {"pid": 1, "ready": True, "restarts": 0, "endpoint": "https://127.0.0.1:1", "log": ""}
    write_file(state.record, json.dumps({"parts": {"node": part}}).encode())
    monkeypatch.setattr("wharfinger.bootstrap.state.is_locked", lambda _: True)
    found = health(state.root)
    _table(found)
    assert line in capsys.readouterr().out.splitlines()
