"""The log killed at every durable write: each acknowledged entry is there, and the log goes on as one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from logkeeper import LogKeeper
from notary import CONTROL, DOMAIN, Notary
from world import SetClock

from wharfinger.core import failpoint
from wharfinger.supply.bundle import Bundle
from wharfinger.supply.statement import Resource, Statement
from wharfinger.supply.tlog import log as module
from wharfinger.supply.tlog import memory
from wharfinger.supply.tlog.entry import SignatureEntry
from wharfinger.supply.tlog.log import Log
from wharfinger.supply.tlog.merkle import leaf_hash, verify_inclusion

TESTS = Path(__file__).resolve().parents[2]
_WRITER = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from logkeeper import LogKeeper
from world import SetClock
from wharfinger.core import failpoint
from wharfinger.supply.bundle import Bundle
from wharfinger.supply.tlog.log import Log
folder, armed = Path(sys.argv[1]), sys.argv[2]
failpoint.arm(armed, lambda: os.kill(os.getpid(), signal.SIGKILL))
keeper = LogKeeper(path=folder / "keeper")
log = Log(folder / "log", keeper.key, keeper.sign, SetClock())
for number in range(4):
    for path in sorted((folder / "in").glob(f"{{number}}-*")):
        last = log.submit(Bundle.parse(path.read_bytes()))
    (folder / f"out-{{number}}").write_bytes(last.result().encode())
"""
NAMES = sorted(name for name in failpoint.NAMES if name.startswith("log.") and not name.startswith("log.memory"))


@pytest.fixture(scope="module")
def bundles() -> list[list[bytes]]:
    """Four rounds of signatures, 260 in all, so that a tile is filled and turned on the way."""
    notary = Notary(DOMAIN, SetClock())
    made = [
        notary.bundle(Statement((Resource.of("it", "sha256:" + "ab" * 32),), "test", {"n": n}), CONTROL).encode()
        for n in range(6)
    ]
    return [made[:1], [made[n % 6] for n in range(255)], made[:3], made[:1]]


def test_every_durable_write_of_the_log_has_its_failpoints() -> None:
    """The writes are these; each can be stopped before and after."""
    assert {name.rpartition(".")[0] for name in NAMES} == {"log.append", "log.turn", "log.tiles", "log.checkpoint"}
    assert module.__doc__ and memory.__doc__


@pytest.mark.parametrize("hit", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_log_goes_on(tmp_path: Path, bundles: list[list[bytes]], name: str, hit: int) -> None:
    """After kill -9 at the failpoint the log opens under the same signer, holds every entry that was acknowledged with the proof it gave, and appends."""
    (tmp_path / "in").mkdir()
    for number, group in enumerate(bundles):
        for place, data in enumerate(group):
            (tmp_path / "in" / f"{number}-{place:03}").write_bytes(data)
    command = [sys.executable, "-c", _WRITER, str(tmp_path), f"{name}:{hit}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, -9), done.stderr
    if done.returncode == 0 and hit > 2:
        pytest.skip("this write does not happen that often")
    keeper = LogKeeper(path=tmp_path / "keeper")
    log = Log(tmp_path / "log", keeper.key, keeper.sign, SetClock())
    acknowledged = [Bundle.parse(path.read_bytes()) for path in sorted(tmp_path.glob("out-*"))]
    assert log.size >= (acknowledged[-1].entries[0].index + 1 if acknowledged else 0)
    for bundle in acknowledged:
        (entry,) = bundle.entries
        leaf = leaf_hash(entry.body)
        verify_inclusion(entry.index, log.size, leaf, log._tree.inclusion(entry.index), log._tree.root())
    fresh = log.append(Bundle.parse(bundles[0][0]))
    assert fresh.entries[0].index == log.size - 1
    assert SignatureEntry.parse(fresh.entries[0].body)
    log.close()
