"""The registry's bytes: whole or not there, killed at every durable write, and no room is an error like any other."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_registry import ALICE, LocalRegistry
from world import CountedIds, SetClock

from wharfinger.core import failpoint
from wharfinger.core.clock import HOUR
from wharfinger.core.digests import sha256
from wharfinger.core.errors import Conflict, Corrupt, DigestMismatch, NotFound, Throttled
from wharfinger.supply import disk
from wharfinger.supply.disk import StorageFull
from wharfinger.supply.registry import storage as module
from wharfinger.supply.registry.catalog import Catalog, MissingBlob
from wharfinger.supply.registry.oci import NOTHING, Descriptor, Manifest
from wharfinger.supply.registry.storage import MOST_UPLOADS_EACH, Storage

REPO = "research/x"
DATA = b"some bytes" * 100


class Shelf:
    """A storage in a folder that can be opened again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SetClock()
        self.open()

    def open(self) -> None:
        """Open it, anew if it was open."""
        self.catalog = Catalog(self.folder / "catalog.db")
        self.storage = Storage(self.folder, self.catalog, self.clock, CountedIds(), room=0)

    def push(self, data: bytes, repository: str = REPO) -> str:
        """Put a blob there."""
        upload = self.storage.begin(repository, "alice")
        with self.storage.held(upload):
            self.storage.write(upload, data)
            self.storage.finish(upload, sha256(data))
        return sha256(data)

    def files(self) -> set[str]:
        """Return the names of the blobs on disk."""
        return {f"sha256:{path.name}" for path in (self.folder / "blobs").rglob("*") if path.is_file()}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A shelf with nothing on it."""
    return Shelf(tmp_path / "registry")


def manifest_of(*data: bytes, subject: Descriptor | None = None) -> bytes:
    """Return a manifest with these layers."""
    layers = tuple(Descriptor.of("a/b", item) for item in data)
    return Manifest(config=NOTHING, layers=layers, artifact_type="a/b", subject=subject).encode()


def test_a_blob_is_there_once_it_is_finished(shelf: Shelf) -> None:
    """Bytes of an upload are nowhere to be read before; after, they are what was sent."""
    upload = shelf.storage.begin(REPO, "alice")
    with shelf.storage.held(upload):
        shelf.storage.write(upload, DATA)
        assert shelf.files() == set()
        with pytest.raises(NotFound):
            shelf.storage.open(sha256(DATA))
        shelf.storage.finish(upload, sha256(DATA))
    assert shelf.storage.read(sha256(DATA), 10_000) == DATA
    assert shelf.catalog.blob_size(REPO, sha256(DATA)) == len(DATA)
    assert shelf.catalog.blob_size("research/y", sha256(DATA)) is None


def test_an_upload_that_is_not_its_digest_leaves_nothing(shelf: Shelf) -> None:
    """The upload ends with the error, its bytes are gone."""
    upload = shelf.storage.begin(REPO, "alice")
    with shelf.storage.held(upload):
        shelf.storage.write(upload, DATA)
        with pytest.raises(DigestMismatch):
            shelf.storage.finish(upload, sha256(b"other"))
    assert shelf.files() == set() and list((shelf.folder / "uploads").iterdir()) == []
    with pytest.raises(NotFound):
        shelf.storage.upload(upload.id, REPO, "alice")


def test_an_upload_cut_back_goes_on_from_there(shelf: Shelf) -> None:
    """What is taken back does not count for the digest."""
    upload = shelf.storage.begin(REPO, "alice")
    with shelf.storage.held(upload):
        shelf.storage.write(upload, DATA)
        shelf.storage.write(upload, b"to be taken back")
        shelf.storage.cut(upload, len(DATA))
        shelf.storage.write(upload, b"!")
        shelf.storage.finish(upload, sha256(DATA + b"!"))
    assert shelf.storage.read(sha256(DATA + b"!"), 10_000) == DATA + b"!"


def test_one_request_at_a_time_writes_to_an_upload(shelf: Shelf) -> None:
    """A second one is told so, and nothing is mixed."""
    upload = shelf.storage.begin(REPO, "alice")
    with shelf.storage.held(upload), pytest.raises(Conflict), shelf.storage.held(upload):
        pass


def test_uploads_are_bounded_and_idle_ones_expire(shelf: Shelf) -> None:
    """One identity has so many open; after an hour without a byte they are forgotten."""
    uploads = [shelf.storage.begin(REPO, "alice") for _ in range(MOST_UPLOADS_EACH)]
    with pytest.raises(Throttled):
        shelf.storage.begin(REPO, "alice")
    shelf.storage.begin(REPO, "bob")
    shelf.clock.pass_(HOUR + 1)
    shelf.storage.begin(REPO, "alice")
    with pytest.raises(NotFound):
        shelf.storage.upload(uploads[0].id, REPO, "alice")


def test_what_two_repositories_hold_goes_with_the_last(shelf: Shelf) -> None:
    """Deleting an artifact frees what nobody else needs, and nothing more."""
    for repository in (REPO, "research/y"):
        shelf.push(DATA, repository)
        shelf.push(b"{}", repository)
        shelf.storage.put_manifest(repository, manifest_of(DATA), Manifest.parse(manifest_of(DATA)), "v1")
    digest = sha256(manifest_of(DATA))
    shelf.storage.delete_manifest(REPO, digest)
    assert shelf.catalog.resolve(REPO, "v1") is None and shelf.catalog.blob_size(REPO, sha256(DATA)) is None
    assert shelf.files() == {digest, sha256(DATA), sha256(b"{}")}
    shelf.storage.delete_manifest("research/y", digest)
    assert shelf.files() == set()


def test_a_manifest_whose_blobs_are_missing_leaves_no_bytes(shelf: Shelf) -> None:
    """Refused, it is not on disk either."""
    with pytest.raises(MissingBlob):
        shelf.storage.put_manifest(REPO, manifest_of(DATA), Manifest.parse(manifest_of(DATA)))
    assert shelf.files() == set()


def test_opening_sweeps_what_a_crash_left(shelf: Shelf) -> None:
    """Uploads and blobs that no repository holds are gone, what is held stays."""
    kept = shelf.push(DATA)
    shelf.storage.begin(REPO, "alice")
    orphan = shelf.storage.path(sha256(b"orphan"))
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"orphan")
    (orphan.parent / "nonsense").write_bytes(b"")
    shelf.open()
    assert shelf.files() == {kept} and list((shelf.folder / "uploads").iterdir()) == []


def test_a_blob_that_was_damaged_on_disk_is_healed_by_a_push(shelf: Shelf) -> None:
    """Pushed again, the bytes are what the digest says."""
    digest = shelf.push(DATA)
    shelf.storage.path(digest).write_bytes(b"damaged")
    shelf.push(DATA)
    assert shelf.storage.read(digest, 10_000) == DATA


def test_a_corrupt_catalog_is_an_error(tmp_path: Path) -> None:
    """A file that is no database is refused and left as it is."""
    path = tmp_path / "catalog.db"
    path.write_bytes(b"this is no database, but long enough to look" * 100)
    with pytest.raises(Corrupt):
        Catalog(path)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_full_disk_is_an_error_and_state_is_as_before(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC in the middle of a chunk takes the upload back to the last whole chunk; with room it goes on."""
    upload = shelf.storage.begin(REPO, "alice")
    with shelf.storage.held(upload):
        shelf.storage.write(upload, DATA)

        def full(descriptor: int, data: bytes) -> None:
            os.write(descriptor, data[:3])
            raise OSError(errno.ENOSPC, "no space")

        monkeypatch.setattr(module, "write_all", full)
        with pytest.raises(StorageFull, match="No space left"):
            shelf.storage.write(upload, b"more")
        monkeypatch.setattr(module, "write_all", disk.write_all)
        assert upload.size == len(DATA) == upload.path.stat().st_size
        shelf.storage.write(upload, b"more")
        shelf.storage.finish(upload, sha256(DATA + b"more"))
    assert shelf.files() == {sha256(DATA + b"more")}


def test_a_body_that_does_not_say_its_length_leaves_room_too(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is kept for journals and catalog at every chunk, not only where a length was announced."""
    upload = shelf.storage.begin(REPO, "alice")
    with shelf.storage.held(upload):
        shelf.storage.write(upload, DATA)
        monkeypatch.setattr(shelf.storage, "_room", 1 << 62)
        with pytest.raises(StorageFull):
            shelf.storage.write(upload, DATA)
        assert upload.size == len(DATA)


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[LocalRegistry]:
    """A registry that wants more room than any disk has."""
    made = LocalRegistry(tmp_path / "state", room=1 << 62).start()
    yield made
    made.stop()


def test_no_room_is_told_before_the_bytes_are_read(cramped: LocalRegistry) -> None:
    """507 with a hint; the client has an error of our family."""
    begun = cramped.ask(ALICE, "POST", f"/v2/{REPO}/blobs/uploads/")
    answer = cramped.ask(ALICE, "PATCH", begun.headers["location"], DATA)
    assert (answer.status, answer.code) == (507, "STORAGE_FULL")
    from wharfinger.core.errors import HostUnfit

    with pytest.raises(HostUnfit, match="no room"):
        cramped.client(ALICE).push_blob(REPO, DATA)


_WRITER = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from world import CountedIds, SetClock
from wharfinger.core import failpoint
from wharfinger.core.digests import sha256
from wharfinger.supply.registry.catalog import Catalog
from wharfinger.supply.registry.oci import NOTHING, Descriptor, Manifest
from wharfinger.supply.registry.storage import Storage
folder, armed = Path(sys.argv[1]), sys.argv[2]
failpoint.arm(armed, lambda: os.kill(os.getpid(), signal.SIGKILL))
catalog = Catalog(folder / "catalog.db")
storage = Storage(folder, catalog, SetClock(), CountedIds(), room=0)
for data in (b"{{}}", b"one", b"two"):
    upload = storage.begin("research/x", "alice")
    with storage.held(upload):
        storage.write(upload, data)
        storage.finish(upload, sha256(data))
    print("blob", sha256(data), flush=True)
for data in (b"one", b"two"):
    manifest = Manifest(config=NOTHING, layers=(Descriptor.of("a/b", data),), artifact_type="a/b")
    print("manifest", storage.put_manifest("research/x", manifest.encode(), manifest, data.decode()), flush=True)
catalog.delete_tag("research/x", "one")
print("untagged", flush=True)
storage.delete_manifest("research/x", catalog.resolve("research/x", "two").digest)
print("deleted", flush=True)
"""
NAMES = sorted(name for name in failpoint.NAMES if name.startswith("registry."))


def test_every_durable_write_of_the_registry_has_its_failpoints() -> None:
    """The writes are these; each can be stopped before and after."""
    assert {name.rpartition(".")[0] for name in NAMES} == {"registry.blob", "registry.catalog"}


@pytest.mark.parametrize("hit", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("name", NAMES)
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, name: str, hit: int) -> None:
    """After kill -9 at the failpoint every acknowledged blob and manifest is whole, and nothing half is to be seen."""
    command = [sys.executable, "-c", _WRITER, str(tmp_path), f"{name}:{hit}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, -9), done.stderr
    told = [line.split() for line in done.stdout.splitlines()]
    shelf = Shelf(tmp_path)
    deleted = ["deleted"] in told
    for kind, *rest in told:
        if kind == "manifest" and (not deleted or rest[0] != told[4][1]):
            held = shelf.catalog.resolve(REPO, rest[0])
            assert held is not None or len(told) == 6, "gone only if its deletion was under way"
        if kind == "blob" and len(told) < 6:
            assert sha256(shelf.storage.read(rest[0], 100)) == rest[0]
    assert not (["untagged"] in told and shelf.catalog.resolve(REPO, "one"))
    assert shelf.files() == shelf.catalog.everything()
    for digest in shelf.files():
        assert sha256(shelf.storage.read(digest, 10_000)) == digest
