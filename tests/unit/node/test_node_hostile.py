"""What a hostile pod tries is refused, whoever runs the node; where nothing isolates, the same tries get in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ordinary
import pytest

pytestmark = pytest.mark.serial
HOSTILE = str(Path(ordinary.__file__).with_name("hostile.py"))
TRIES = {"key", "kubeconfig", "database", "socket", "ptrace"}


@pytest.fixture(params=["root", "ordinary"])
def user(request: pytest.FixtureRequest) -> str:
    """Return who runs the node."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("root is needed to run as root")
    return str(request.param)


@pytest.fixture
def folder(user: str) -> Iterator[Path]:
    """Return a folder that is the user's own; pytest's lies where only root may go."""
    with tempfile.TemporaryDirectory(prefix="wharf-", ignore_cleanup_errors=True) as name:
        if user == "ordinary" and os.geteuid() == 0:
            os.chown(name, ordinary.NOBODY, ordinary.NOBODY)
        yield Path(name)


def as_user(user: str, *words: str) -> dict[str, str]:
    """Return what a command says, run as `user`."""
    command = [sys.executable, *words]
    if user == "ordinary" and os.geteuid() == 0:
        command = ordinary.command(*command)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_hostile_pod_is_refused_five_of_five(user: str, folder: Path) -> None:
    """CA key, kubeconfig, database, a neighbour's identity socket and ptrace are all out of a pod's reach."""
    found = as_user(user, HOSTILE, str(folder))
    assert set(found) == TRIES
    assert [name for name, how in found.items() if not how.startswith("refused: ")] == [], found


def test_the_same_tries_get_in_where_nothing_isolates(user: str, folder: Path) -> None:
    """Each try is a real one: without isolation all five succeed, which is why such a host says `none`."""
    found = as_user(user, HOSTILE, str(folder), "none")
    assert {name for name, how in found.items() if how.startswith("got in")} == TRIES, found
