"""The registry under use that nobody meant: any request, any order of operations, many hands at once."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from local_registry import ADA, ALICE, MALLORY, LocalRegistry
from world import CountedIds, SetClock

from wharfinger.core.digests import sha256
from wharfinger.core.errors import NotFound
from wharfinger.supply.artifact import pull_folder, push_folder
from wharfinger.supply.registry.catalog import Catalog, MissingBlob
from wharfinger.supply.registry.oci import NOTHING, Descriptor, Manifest
from wharfinger.supply.registry.storage import Storage

REPOSITORIES = ("a/x", "b/y")
BLOBS = tuple(bytes([number]) * (number + 1) for number in range(4))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    """A registry with one artifact."""
    made = LocalRegistry(tmp_path_factory.mktemp("registry")).start()
    made.client(ALICE).push("research/x", {"f": b"data"}, artifact_type="a/b", tag="v1")
    yield made
    made.stop()


_piece = st.sampled_from(
    ["v2", "research", "x", "..", ".", "", "blobs", "uploads", "manifests", "tags", "list", "referrers", "_catalog", "log",
     "tile", "entries", "checkpoint", "v1", sha256(b"data"), "sha256:x", "%2e%2e", "%00", "a" * 300, "é", "0", "000"]
)  # fmt: skip
_header = st.sampled_from(
    [("content-range", "0-"), ("content-range", "5-1"), ("content-range", "0-3"), ("content-type", "application/json"),
     ("content-type", "application/vnd.oci.image.manifest.v1+json"), ("range", "bytes=0-"), ("range", "bytes=9-"),
     ("accept", "text/plain"), ("authorization", "Basic !!"), ("authorization", "Bearer"), ("content-encoding", "gzip"),
     ("transfer-encoding", "chunked"), ("expect", "100-continue")]
)  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "FOO"]),
    pieces=st.lists(_piece, min_size=1, max_size=7),
    query=st.sampled_from(
        ["", "?digest=x", "?n=x", "?n=99999999999", "?mount=x&from=y", "?digest=a&digest=b", "?" + "a=b&" * 40]
    ),
    headers=st.lists(_header, max_size=2, unique_by=lambda header: header[0]),
    body=st.binary(max_size=40),
    who=st.sampled_from([ALICE, MALLORY]),
)
def test_no_request_is_too_much(
    registry: LocalRegistry, method: str, pieces: list[str], query: str, headers: list[Any], body: bytes, who: str
) -> None:
    """Whatever is asked, the answer is one of the spec's, never a fault of the server's; and the artifact stays."""
    from urllib.parse import quote

    path = "/" + quote("/".join(pieces), safe="/:%") + query
    with registry.connection(who) as connection:
        try:
            connection.request(method, path, body=body or None, headers=dict(headers))
            status = connection.getresponse().status
        except (http.client.HTTPException, OSError):
            status = 400
    assert status < 500, (method, path, headers)
    assert registry.catalog_has("research/x", "v1")


def test_many_hands_push_pull_and_delete_the_same(registry: LocalRegistry, tmp_path: Path) -> None:
    """Eight people push the same files and pull them, while others are deleted: everybody gets what they pushed."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(6):
        (folder / f"f{number}").write_bytes(bytes([number]) * 3000)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        client = registry.client(ALICE)
        try:
            for turn in range(4):
                shared = push_folder(client, "research/shared", folder, "dataset")
                pull_folder(client, "research/shared", shared, tmp_path / f"out{number}-{turn}")
                own = client.push(f"research/own{number}", {"f": bytes([turn]) * 3000}, artifact_type="a/b")
                registry.client(ADA).delete_manifest(f"research/own{number}", own)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    held = registry.storage.catalog.everything()
    found = {f"sha256:{path.name}" for path in (registry.folder / "registry" / "blobs").rglob("*") if path.is_file()}
    assert found == held


class RegistryModel(RuleBasedStateMachine):
    """A storage beside a dictionary that says what it must hold."""

    folder: Path

    @initialize()
    def begin(self) -> None:
        """Open an empty one."""
        import tempfile

        self.folder = Path(tempfile.mkdtemp(prefix="registry-"))
        self.ids = CountedIds()
        self.blobs: dict[str, set[bytes]] = {name: set() for name in REPOSITORIES}
        self.manifests: dict[str, dict[str, tuple[bytes, ...]]] = {name: {} for name in REPOSITORIES}
        self.tags: dict[str, dict[str, str]] = {name: {} for name in REPOSITORIES}
        self.open()

    def open(self) -> None:
        """Open it on what is there."""
        self.catalog = Catalog(self.folder / "catalog.db")
        self.storage = Storage(self.folder, self.catalog, SetClock(), self.ids, room=0)

    @rule(repository=st.sampled_from(REPOSITORIES), data=st.sampled_from((*BLOBS, b"{}")))
    def push(self, repository: str, data: bytes) -> None:
        """Push a blob."""
        upload = self.storage.begin(repository, "alice")
        with self.storage.held(upload):
            self.storage.write(upload, data)
            self.storage.finish(upload, sha256(data))
        self.blobs[repository].add(data)

    @rule(into=st.sampled_from(REPOSITORIES), source=st.sampled_from(REPOSITORIES), data=st.sampled_from(BLOBS))
    def mount(self, into: str, source: str, data: bytes) -> None:
        """Mount a blob."""
        assert self.storage.mount(source, sha256(data), into) == (data in self.blobs[source])
        if data in self.blobs[source]:
            self.blobs[into].add(data)

    @rule(
        repository=st.sampled_from(REPOSITORIES),
        layers=st.sets(st.sampled_from(BLOBS)),
        tag=st.sampled_from(["", "x", "y"]),
    )
    def put(self, repository: str, layers: set[bytes], tag: str) -> None:
        """Put a manifest."""
        named = tuple(Descriptor.of("a/b", data) for data in sorted(layers))
        manifest = Manifest(config=NOTHING, layers=named or (NOTHING,), artifact_type="a/b")
        try:
            digest = self.storage.put_manifest(repository, manifest.encode(), manifest, tag)
        except MissingBlob:
            assert not {*layers, b"{}"} <= self.blobs[repository]
            return
        assert {*layers, b"{}"} <= self.blobs[repository]
        self.manifests[repository][digest] = (*sorted(layers), b"{}")
        if tag:
            self.tags[repository][tag] = digest

    @precondition(lambda self: any(self.manifests.values()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete a manifest: what it alone needed goes from its repository."""
        repository = data.draw(st.sampled_from([name for name in REPOSITORIES if self.manifests[name]]))
        digest = data.draw(st.sampled_from(sorted(self.manifests[repository])))
        self.storage.delete_manifest(repository, digest)
        needed = self.manifests[repository].pop(digest)
        still = {blob for parts in self.manifests[repository].values() for blob in parts}
        self.blobs[repository] -= {blob for blob in needed if blob not in still}
        self.tags[repository] = {tag: held for tag, held in self.tags[repository].items() if held != digest}

    @rule(repository=st.sampled_from(REPOSITORIES), blob=st.sampled_from(BLOBS))
    def delete_blob(self, repository: str, blob: bytes) -> None:
        """Delete a blob that no manifest needs."""
        used = any(blob in parts for parts in self.manifests[repository].values())
        try:
            self.storage.delete_blob(repository, sha256(blob))
        except NotFound:
            assert used or blob not in self.blobs[repository]
            return
        assert not used
        self.blobs[repository].discard(blob)

    @rule()
    def reopen(self) -> None:
        """Close it and open it again."""
        self.storage.close()
        self.catalog.close()
        self.open()

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        """Catalog, disk and dictionary agree."""
        if not hasattr(self, "catalog"):
            return
        everything = set()
        for repository in REPOSITORIES:
            for data in (*BLOBS, b"{}"):
                size = self.catalog.blob_size(repository, sha256(data))
                assert size == (len(data) if data in self.blobs[repository] else None)
            everything |= {sha256(data) for data in self.blobs[repository]} | set(self.manifests[repository])
            assert self.catalog.tags(repository, "", 10) == sorted(self.tags[repository])
            for tag, digest in self.tags[repository].items():
                held = self.catalog.resolve(repository, tag)
                assert held is not None and held.digest == digest
        files = {f"sha256:{path.name}" for path in (self.folder / "blobs").rglob("*") if path.is_file()}
        assert files == everything == self.catalog.everything()

    def teardown(self) -> None:
        """Remove it."""
        import shutil

        if hasattr(self, "catalog"):
            self.storage.close()
            self.catalog.close()
            shutil.rmtree(self.folder)


RegistryModel.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


class TestRegistryModel(RegistryModel.TestCase):  # type: ignore[misc, valid-type]
    """Any order of operations leaves catalog and disk as a dictionary would be."""
