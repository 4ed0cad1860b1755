"""Killed at every durable write of the objects' database: what was acknowledged is there, what was not is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wharfinger.core import failpoint
from wharfinger.local.api import store as module
from wharfinger.local.api.store import Store

_WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from wharfinger.core import failpoint
from wharfinger.local.api.commit import Committer
from wharfinger.local.api.store import Key, Store, mark_copied
path, armed = Path(sys.argv[1]), sys.argv[2]
failpoint.arm(armed, lambda: os.kill(os.getpid(), signal.SIGKILL))
store = Store(path)
kind = store.enrol(["things.example.com"])["things.example.com"]
committer = Committer(store, lambda events: None)
def put(number):
    name = f"n{number:03}"
    value = {"metadata": {"name": name, "uid": name}, "number": number}
    return lambda transaction: transaction.create(Key(kind, "", name), value).rv
async def main():
    for number in range(5):
        print(await committer.run(put(number)), flush=True)
asyncio.run(main())
import sqlite3
copy = sqlite3.connect(path.with_name("copy.db"))
store.reader.backup(copy)
copy.close()
mark_copied(path.with_name("copy.db"))
print("copied", flush=True)
Store(path.with_name("copy.db"))
"""
NAMES = sorted(name for name in failpoint.NAMES if name.startswith("objects."))


def test_every_durable_write_has_its_failpoints() -> None:
    """The writes of the store are these; each can be stopped before and after."""
    assert {name.rpartition(".")[0] for name in NAMES} == {
        "objects.schema", "objects.kinds", "objects.commit", "objects.copied", "objects.leap",
    }  # fmt: skip
    assert len(NAMES) == 10 and module.__doc__


@pytest.mark.parametrize("name", [*NAMES, "objects.commit.before:3", "objects.commit.after:3"])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, name: str) -> None:
    """After kill -9 at the failpoint the database opens, holds every acknowledged write and at most one more."""
    path = tmp_path / "objects.db"
    command = [sys.executable, "-c", _WRITER, str(path), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    acknowledged = [line for line in done.stdout.split() if line.isdigit()]
    store = Store(path)
    kind = store.enrol(["things.example.com"])["things.example.com"]
    found = [json.loads(version.body) for version in store.page(kind, None, ("", ""), 100, store.newest())]
    assert [value["number"] for value in found] == list(range(len(found)))
    assert len(acknowledged) <= len(found) <= len(acknowledged) + 1
    assert [value["metadata"]["resourceVersion"] for value in found] == [str(rv + 1) for rv in range(len(found))]
    store.close()
    copy = path.with_name("copy.db")
    if copy.exists():
        copied = Store(copy)
        number = copied.enrol(["things.example.com"])["things.example.com"]
        assert len(copied.page(number, None, ("", ""), 9, 2**40)) == 5
        copied.close()
