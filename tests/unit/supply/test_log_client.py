"""The log as it is served: appended to by the control plane, read by those who are known, held to what it said."""

from __future__ import annotations

import http.server
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from local_registry import ALICE, CONTROL, LocalRegistry
from logkeeper import LogKeeper
from notary import CONTROL as SIGNER
from notary import Notary
from world import SetClock

from wharfinger.core.errors import Denied, NotFound, Unverified
from wharfinger.core.systemclock import SystemClock
from wharfinger.identity.spiffeid import TrustDomain
from wharfinger.supply.bundle import Bundle
from wharfinger.supply.channel import Channel
from wharfinger.supply.signing import verify_svid
from wharfinger.supply.statement import Resource, Statement
from wharfinger.supply.tlog.client import LogClient
from wharfinger.supply.tlog.entry import SignatureEntry
from wharfinger.supply.tlog.memory import Memory
from wharfinger.supply.tlog.merkle import verify_consistency
from wharfinger.supply.tlog.tiles import Tile
from wharfinger.supply.trustroot import of_trust_domain


@pytest.fixture
def notary() -> Notary:
    """A notary whose clock is the machine's."""
    return Notary(clock=SetClock(SystemClock().now()))


def bundle(notary: Notary, text: str) -> Bundle:
    """Return a signed bundle, not logged yet."""
    return notary.bundle(Statement((Resource.of("it", "sha256:" + "ab" * 32),), "test", {"text": text}), SIGNER)


def test_the_control_plane_appends_and_what_it_gets_verifies_offline(registry: LocalRegistry, notary: Notary) -> None:
    """A bundle sent comes back with its entry; trust root and bundle are all that a verifier needs."""
    logged = registry.log_client(CONTROL).append(bundle(notary, "a"))
    trust = of_trust_domain(TrustDomain(notary.domain), [notary.certificate], registry.keeper.key)
    assert verify_svid(logged, trust, [SIGNER]).log_index == 0
    with pytest.raises(Denied):
        registry.log_client(ALICE).append(bundle(notary, "b"))
    with pytest.raises(Unverified):
        one, other = bundle(notary, "x"), bundle(notary, "y")
        registry.log_client(CONTROL).append(Bundle(one.envelope, other.material))


def test_whoever_is_known_reads_checkpoint_entries_and_proofs(registry: LocalRegistry, notary: Notary) -> None:
    """The tiles lead to the checkpoint's root, also at a size in the middle of a tile, and grow along proofs."""
    writer, reader = registry.log_client(CONTROL), registry.log_client(ALICE)
    for number in range(5):
        writer.append(bundle(notary, str(number)))
    older = reader.checkpoint()
    assert reader.root(older) == older.root
    waiting = [registry.log.submit(bundle(notary, f"more {number}")) for number in range(300)]
    for future in waiting:
        future.result(timeout=60)
    newer = reader.checkpoint()
    assert newer.size == 305
    verify_consistency(5, 305, older.root, newer.root, reader.consistency(5, newer))
    assert reader.root(newer) == newer.root and reader.root(older) == older.root
    found = [entry for start in (0, 256) for entry in reader.entries(newer, start)]
    assert len(found) == 305 and SignatureEntry.parse(found[-1])
    with pytest.raises(NotFound):
        reader.tile(Tile(0, 2))


class Mirror:
    """A static file server on copies of a log's folder: what any web server would do with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        mirror = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def translate_path(self, path: str) -> str:
                return str(mirror.root / path.removeprefix("/log/"))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=lambda: self.server.serve_forever(0.02), daemon=True).start()

    def client(self, key: Any, memory: Memory) -> LogClient:
        """Return a client of it."""
        channel = Channel("127.0.0.1", self.server.server_port, None, "log")
        return LogClient("", 0, None, key, memory=memory, channel=channel)


def test_a_client_with_a_memory_refuses_a_log_that_goes_back_or_aside(
    registry: LocalRegistry, notary: Notary, tmp_path: Path
) -> None:
    """Served as static files: the grown log is followed, an older copy and a forked one are refused."""
    writer = registry.log_client(CONTROL)
    for number in range(3):
        writer.append(bundle(notary, str(number)))
    older, forked = tmp_path / "older", tmp_path / "forked"
    shutil.copytree(registry.folder / "log", older)
    shutil.copytree(registry.folder / "log", forked)
    mirror = Mirror(registry.folder / "log")
    try:
        client = mirror.client(registry.keeper.key, Memory(tmp_path / "memory", registry.keeper.key))
        assert client.checkpoint().size == 3
        for number in range(4):
            writer.append(bundle(notary, f"more {number}"))
        assert client.checkpoint().size == 7
        mirror.root = older
        with pytest.raises(Unverified, match="rolled back"):
            client.checkpoint()
        mirror.root = fork(forked, registry.keeper, notary)
        with pytest.raises(Unverified, match="forked"):
            client.checkpoint()
        mirror.root = registry.folder / "log"
        assert client.checkpoint().size == 7
        client.close()
    finally:
        mirror.server.shutdown()
        mirror.server.server_close()


def fork(folder: Path, keeper: LogKeeper, notary: Notary) -> Path:
    """Have the log in `folder` grow another way, signed with the real key by a keeper who forgot; return `folder`."""
    from wharfinger.supply.tlog.checkpoint import open_checkpoint
    from wharfinger.supply.tlog.log import Log

    forgetful = LogKeeper()
    forgetful.last = open_checkpoint((folder / "checkpoint").read_bytes(), keeper.key.name, [keeper.key])
    log = Log(folder, keeper.key, forgetful.sign, SystemClock())
    for number in range(9):
        log.append(bundle(notary, f"other {number}"))
    log.close()
    return folder
