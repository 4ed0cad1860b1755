"""The transparency log's writer: proofs that hold, tiles that can be served as files, and no way back."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from logkeeper import LogKeeper
from notary import BUILDER, CONTROL, Notary
from world import SetClock

from wharfinger.core.clock import MINUTE, SECOND
from wharfinger.core.errors import HostUnfit, Malformed, NotFound, Unavailable, Unverified, WharfingerError
from wharfinger.identity.spiffeid import TrustDomain
from wharfinger.supply.bundle import Bundle
from wharfinger.supply.signing import verify_svid
from wharfinger.supply.statement import Resource, Statement
from wharfinger.supply.tlog.checkpoint import Checkpoint, open_checkpoint
from wharfinger.supply.tlog.entry import SignatureEntry
from wharfinger.supply.tlog.log import Log
from wharfinger.supply.tlog.merkle import leaf_hash, node_hash, root, verify_consistency
from wharfinger.supply.tlog.tiles import Tile, split_entries
from wharfinger.supply.trustroot import TrustRoot, of_trust_domain

DIGEST = "sha256:" + "ab" * 32


class Desk:
    """A notary for signatures, a keeper of the log's key, and a log in a folder that can be opened again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SetClock()
        self.notary = Notary(clock=self.clock)
        self.keeper = LogKeeper()
        self.log = self.open()

    def open(self) -> Log:
        """Open the log."""
        return Log(self.folder, self.keeper.key, self.keeper.sign, self.clock)

    def reopen(self) -> Log:
        """Close the log and open it again."""
        self.log.close()
        self.log = self.open()
        return self.log

    def bundle(self, text: str = "", signer: str = CONTROL) -> Bundle:
        """Return a signed bundle, not logged yet."""
        return self.notary.bundle(Statement((Resource.of("it", DIGEST),), "test", {"text": text}), signer)

    @property
    def trust(self) -> TrustRoot:
        """What a verifier believes."""
        return of_trust_domain(TrustDomain(self.notary.domain), [self.notary.certificate], self.keeper.key)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk whose log is open."""
    made = Desk(tmp_path / "log")
    yield made
    made.log.close()


def served(folder: Path, size: int) -> tuple[list[bytes], bytes]:
    """Return the entries that the files of a log hold, read as a static file server gives them, and their root."""
    entries: list[bytes] = []
    while len(entries) < size:
        tile = Tile(None, len(entries) // 256, min(256, size - len(entries)))
        entries += split_entries((folder / tile.path).read_bytes(), tile)
    leaves = [leaf_hash(entry) for entry in entries]

    def node(level: int, index: int) -> bytes:
        if level == 0:
            return leaves[index]
        return node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))

    return entries, root(size, node)


def test_an_appended_bundle_verifies_offline_under_the_trust_root(desk: Desk) -> None:
    """What `append` returns proves by itself, with no log at hand, who signed what and when."""
    logged = Bundle.parse(desk.log.append(desk.bundle("a")).encode())
    signed = verify_svid(logged, desk.trust, [CONTROL])
    assert (signed.signer, signed.log_index, signed.at) == (CONTROL, 0, desk.clock.now() // SECOND * SECOND)


def test_a_short_lived_certificate_is_judged_by_the_entrys_time(desk: Desk) -> None:
    """A bundle verifies long after its ten-minute certificate; without an entry it proves nothing."""
    bundle = desk.bundle()
    logged = desk.log.append(bundle)
    desk.clock.pass_(3650 * 86400 * SECOND)
    assert verify_svid(logged, desk.trust, [CONTROL]).signer == CONTROL
    with pytest.raises(Unverified, match="transparency log"):
        verify_svid(bundle, desk.trust, [CONTROL])


def test_a_certificate_that_had_expired_when_the_log_took_it_is_refused(desk: Desk) -> None:
    """The log's time, not the signer's word, decides: an entry made after the certificate's end proves nothing."""
    bundle = desk.bundle()
    desk.clock.pass_(11 * MINUTE)
    with pytest.raises(Unverified, match="signer"):
        verify_svid(desk.log.append(bundle), desk.trust, [CONTROL])


def test_a_valid_signature_by_a_wrong_identity_is_refused(desk: Desk) -> None:
    """A logged signature of one platform part does not stand for another's."""
    with pytest.raises(Unverified, match="expected a signature of"):
        verify_svid(desk.log.append(desk.bundle(signer=BUILDER)), desk.trust, [CONTROL])


def test_an_entry_of_another_signature_is_refused(desk: Desk) -> None:
    """The entry beside a bundle must speak of that bundle's own signature."""
    first, second = desk.bundle("a"), desk.bundle("b")
    entries = desk.log.append(first).entries
    with pytest.raises(Unverified, match="another signature"):
        verify_svid(Bundle(second.envelope, second.material, entries), desk.trust, [CONTROL])


def test_the_log_takes_no_signature_that_does_not_hold(desk: Desk) -> None:
    """An envelope whose signature is by another key never becomes an entry."""
    one, other = desk.bundle("a"), desk.bundle("b")
    with pytest.raises(Unverified):
        desk.log.append(Bundle(one.envelope, other.material))
    assert desk.log.size == 0


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 300, 513])
def test_the_files_are_a_tlog_tiles_log(desk: Desk, count: int) -> None:
    """Read as plain files, entry bundles and checkpoint agree at every size around a tile's edge."""
    waiting = [desk.log.submit(desk.bundle(str(number))) for number in range(count)]
    logged = [future.result(timeout=60) for future in waiting]
    entries, top = served(desk.folder, count)
    checkpoint = open_checkpoint((desk.folder / "checkpoint").read_bytes(), desk.log.origin, [desk.keeper.key])
    assert (checkpoint.size, checkpoint.root) == (count, top)
    assert [SignatureEntry.parse(entry).signature for entry in entries] == [
        bundle.envelope.signatures[0].signature for bundle in logged
    ]
    verify_svid(logged[0], desk.trust, [CONTROL])
    verify_svid(logged[-1], desk.trust, [CONTROL])


def test_every_tile_of_the_checkpoint_is_served_and_nothing_beyond(desk: Desk) -> None:
    """`read` gives exactly the tiles of the published tree, older partial ones as prefixes, and no other path."""
    for future in [desk.log.submit(desk.bundle(str(number))) for number in range(260)]:
        future.result(timeout=60)
    for path in ("tile/0/000", "tile/0/001.p/4", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/4"):
        assert desk.log.read(path) == (desk.folder / path).read_bytes()
    assert desk.log.read("tile/0/001.p/2") == desk.log.read("tile/0/001.p/4")[:64]
    assert desk.log.read("tile/0/000.p/7") == desk.log.read("tile/0/000")[: 7 * 32]
    assert len(split_entries(desk.log.read("tile/entries/000.p/9"), Tile(None, 0, 9))) == 9
    for path in ("tile/0/001", "tile/0/001.p/5", "tile/1/000", "tile/2/000.p/1", "tile/entries/002.p/1"):
        with pytest.raises(NotFound):
            desk.log.read(path)
    for path in ("tail-000000000256", "../issuer/key", "tile/0/../../checkpoint", "tile/entries/0", ""):
        with pytest.raises(Malformed):
            desk.log.read(path)
    assert not (desk.folder / "tile/0/000.p").exists()


def test_threads_that_append_together_share_a_checkpoint_and_each_has_its_proof(desk: Desk) -> None:
    """Group commit loses nothing: 400 appends of 8 threads have 400 places, and all prove."""
    found: list[Bundle] = []

    def append(number: int) -> None:
        for turn in range(50):
            found.append(desk.log.append(desk.bundle(f"{number}-{turn}")))

    threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(verify_svid(bundle, desk.trust, [CONTROL]).log_index or 0 for bundle in found) == list(range(400))


def test_a_log_goes_on_where_it_was(desk: Desk) -> None:
    """Closed and opened at any size, the log appends consistently with every checkpoint that it gave."""
    notes = []
    for count in (3, 253, 1, 2):
        for future in [desk.log.submit(desk.bundle(f"{count}-{number}")) for number in range(count)]:
            future.result(timeout=60)
        notes.append(open_checkpoint(desk.log.read("checkpoint"), desk.log.origin, [desk.keeper.key]))
        desk.reopen()
    assert [note.size for note in notes] == [3, 256, 257, 259]
    tree = desk.log._tree
    for older in notes[:-1]:
        verify_consistency(older.size, 259, older.root, notes[-1].root, tree.consistency(older.size))


def test_a_rolled_back_log_does_not_open(desk: Desk, tmp_path: Path) -> None:
    """An older copy of the log's files is refused, since the key's holder remembers more."""
    desk.log.append(desk.bundle("a"))
    desk.log.close()
    shutil.copytree(desk.folder, tmp_path / "old")
    desk.open().append(desk.bundle("b"))
    with pytest.raises(Unverified, match="does not follow"):
        Log(tmp_path / "old", desk.keeper.key, desk.keeper.sign, desk.clock)


def test_a_forked_log_does_not_open(desk: Desk, tmp_path: Path) -> None:
    """A log that grew another way from the same past is refused, though it is longer."""
    desk.log.append(desk.bundle("a"))
    desk.log.close()
    shutil.copytree(desk.folder, tmp_path / "fork")
    desk.open().append(desk.bundle("b"))
    keeper = LogKeeper()
    keeper.last = open_checkpoint((tmp_path / "fork/checkpoint").read_bytes(), keeper.key.name, [keeper.key])
    other = Log(tmp_path / "fork", keeper.key, keeper.sign, desk.clock)
    for text in "xyz":
        other.append(desk.bundle(text))
    other.close()
    with pytest.raises(Unverified, match="does not follow"):
        Log(tmp_path / "fork", desk.keeper.key, desk.keeper.sign, desk.clock)
    remembered = open_checkpoint((desk.folder / "checkpoint").read_bytes(), keeper.key.name, [keeper.key])
    with pytest.raises(Unverified, match="not those of its remembered checkpoint"):
        Log(tmp_path / "fork", keeper.key, keeper.sign, desk.clock, remembered=remembered)


def test_log_and_signer_restored_from_one_backup_go_on(desk: Desk, tmp_path: Path) -> None:
    """A backup has the signer's last checkpoint first, then the log, perhaps further by then: it opens and appends."""
    for count in (2, 258):
        for future in [desk.log.submit(desk.bundle(f"{count}-{number}")) for number in range(count)]:
            future.result(timeout=60)
        older = LogKeeper()
        older.last = desk.keeper.last
        desk.log.append(desk.bundle("after the signer was copied"))
        shutil.copytree(desk.folder, tmp_path / f"copy{count}")
        desk.log.append(desk.bundle("after the log was copied"))
        log = Log(tmp_path / f"copy{count}", older.key, older.sign, desk.clock, last=older.last_note)
        assert log.append(desk.bundle("on")).entries[0].index == log.size - 1
        log.close()
        with pytest.raises(Unverified, match="its signed checkpoint"):
            Log(tmp_path / f"copy{count}", older.key, older.sign, desk.clock, last=desk.keeper.last_note)


def test_a_backup_between_two_tails_opens(desk: Desk, tmp_path: Path) -> None:
    """Copied after a full bundle's tail had gone and before the next was listed, the log has all that was signed."""
    for future in [desk.log.submit(desk.bundle(str(number))) for number in range(256)]:
        future.result(timeout=60)
    older = LogKeeper()
    older.last = desk.keeper.last
    shutil.copytree(desk.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("tail-*"))
    log = Log(tmp_path / "copy", older.key, older.sign, desk.clock, last=older.last_note)
    assert log.size == 256 and log.append(desk.bundle("on")).entries[0].index == 256
    log.close()


def test_a_log_that_lost_entries_does_not_open(desk: Desk) -> None:
    """Files shorter than the log's own checkpoint are refused, and so is one behind a remembered checkpoint."""
    desk.log.append(desk.bundle("a"))
    desk.log.append(desk.bundle("b"))
    desk.log.close()
    (tail,) = desk.folder.glob("tail-*")
    tail.write_bytes(tail.read_bytes()[:-1])
    with pytest.raises(Unverified, match="it has 1 entries, its stored checkpoint 2"):
        desk.open()


def test_one_flipped_byte_in_the_tail_is_found(desk: Desk) -> None:
    """A damaged record before others is `Corrupt`, whatever its length says."""
    for text in "abc":
        desk.log.append(desk.bundle(text))
    desk.log.close()
    (tail,) = desk.folder.glob("tail-*")
    data = bytearray(tail.read_bytes())
    data[40] ^= 1
    tail.write_bytes(data)
    with pytest.raises(WharfingerError, match="damaged at byte 0"):
        desk.open()


def test_an_entry_whose_checkpoint_was_not_signed_is_kept_and_signed_later(desk: Desk) -> None:
    """Without an answer of the key's holder the caller gets an error; the next append signs both, and a reopen too."""
    desk.keeper.absent = True
    with pytest.raises(Unavailable):
        desk.log.append(desk.bundle("a"))
    assert desk.log.size == 0
    desk.keeper.absent = False
    assert desk.log.append(desk.bundle("b")).entries[0].index == 1
    desk.keeper.mute = True
    with pytest.raises(Unavailable):
        desk.log.append(desk.bundle("c"))
    with pytest.raises(Unavailable):
        desk.log.append(desk.bundle("never in"))
    desk.keeper.mute = False
    desk.reopen()
    assert desk.log.size == 3
    assert desk.log.append(desk.bundle("d")).entries[0].index == 3


def test_a_signer_that_signs_another_checkpoint_is_not_believed(desk: Desk) -> None:
    """The note that comes back must be the one asked for, under the log's key."""
    desk.log.close()
    wrong: list[Callable[..., str]] = [
        lambda origin, size, top, proof: desk.keeper.note(desk.keeper.last),
        lambda origin, size, top, proof: LogKeeper(b"x" * 32).sign(origin, size, top, proof),
        lambda origin, size, top, proof: "hello",
    ]
    for sign in wrong:
        log = Log(desk.folder, desk.keeper.key, desk.keeper.sign, desk.clock)
        log._sign = sign
        with pytest.raises((Unverified, Malformed)):
            log.append(desk.bundle())
        log.close()


def test_a_log_that_its_signer_refuses_takes_nothing_more_and_says_why(desk: Desk) -> None:
    """Once a checkpoint was refused as one that does not follow, every append fails, and readiness tells it."""
    assert desk.log.why_not_ready() is None
    desk.keeper.last = Checkpoint(desk.log.origin, 7, leaf_hash(b"another history"))
    for _ in range(2):
        with pytest.raises(Unverified, match="does not follow"):
            desk.log.append(desk.bundle())
    assert "does not follow" in (desk.log.why_not_ready() or "")
    assert desk.log.size == 0


def test_entries_are_never_dated_before_the_ones_before_them(desk: Desk) -> None:
    """A clock that goes back a little gives the last entry's time; one that goes back far is an error."""
    first = desk.log.append(desk.bundle()).entries[0].seconds
    desk.clock.pass_(-2 * MINUTE)
    assert desk.log.append(desk.bundle()).entries[0].seconds == first
    desk.reopen()
    desk.clock.pass_(-10 * MINUTE)
    with pytest.raises(HostUnfit, match="clock"):
        desk.log.append(desk.bundle())
