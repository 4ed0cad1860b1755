"""Folders as artifacts: what goes in comes out, and a registry that lies is found out before a byte is used."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from local_registry import ALICE, CONTROL, LocalRegistry
from notary import CONTROL as SIGNER
from notary import Notary

from wharfinger.core.digests import sha256
from wharfinger.core.errors import (
    Conflict,
    DigestMismatch,
    HostUnfit,
    Invalid,
    Malformed,
    NotFound,
    TooLarge,
    Unavailable,
    Unverified,
    WharfingerError,
)
from wharfinger.supply.artifact import (
    ARTIFACT_TYPES,
    MOST_ATTACHED,
    attach,
    attached,
    pull_folder,
    push_folder,
    read,
    repository_of,
)
from wharfinger.supply.channel import Channel
from wharfinger.supply.hashing import measure
from wharfinger.supply.manifest import compare
from wharfinger.supply.registry.client import RegistryClient
from wharfinger.supply.registry.oci import INDEX, MANIFEST, NOTHING, OCTETS, TITLE, Descriptor, Manifest
from wharfinger.supply.signing import authenticate_bytes

REPO = "research/datasets/d"
FILES = {"a.txt": b"a" * 10, "sub/b.txt": b"b" * 70_000, "sub/deep/c": b"", "ünï code": b"x"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    """A registry."""
    made = LocalRegistry(tmp_path_factory.mktemp("registry")).start()
    yield made
    made.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files."""
    return laid(tmp_path / "folder", FILES)


def laid(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write `files` below `root`."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def test_a_folder_comes_back_as_it_was(registry: LocalRegistry, folder: Path, tmp_path: Path) -> None:
    """Pushed and pulled, the files are the same, and so is the manifest that OMS signs."""
    client = registry.client(ALICE)
    digest = push_folder(client, REPO, folder, "dataset")
    artifact = pull_folder(client, REPO, digest, tmp_path / "out")
    assert measure(tmp_path / "out").entries == measure(folder).entries == artifact.contents.entries
    assert artifact.contents.digest == measure(folder).digest
    assert [entry.blake3 for entry in artifact.contents.entries] == [entry.blake3 for entry in measure(folder).entries]
    assert artifact.kind == "dataset" and artifact.contents.size == sum(map(len, FILES.values()))


def test_the_same_files_are_the_same_artifact(registry: LocalRegistry, folder: Path, tmp_path: Path) -> None:
    """The digest depends on the files alone: not on the folder's name, order or times."""
    client = registry.client(ALICE)
    again = laid(tmp_path / "elsewhere", dict(reversed(FILES.items())))
    assert push_folder(client, REPO, folder, "dataset") == push_folder(client, REPO, again, "dataset")
    (again / "a.txt").write_bytes(b"A" * 10)
    assert push_folder(client, REPO, again, "dataset") != push_folder(client, REPO, folder, "dataset")


def test_a_single_file_is_an_artifact_too(registry: LocalRegistry, tmp_path: Path) -> None:
    """A dataset may be one file."""
    (tmp_path / "one.jsonl").write_bytes(b"{}\n")
    digest = push_folder(registry.client(ALICE), REPO, tmp_path / "one.jsonl", "dataset")
    assert list(read(registry.client(ALICE), REPO, digest).layers) == ["one.jsonl"]


def test_a_model_is_a_modelpack_artifact(registry: LocalRegistry, tmp_path: Path) -> None:
    """Weights, configuration and documents have ModelPack's media types, and so has its config."""
    files = {"model.safetensors": b"w", "tokenizer.json": b"{}", "README.md": b"#"}
    digest = push_folder(registry.client(ALICE), "research/models/m", laid(tmp_path / "m", files), "model")
    manifest = read(registry.client(ALICE), "research/models/m", digest).manifest
    assert manifest.artifact_type == ARTIFACT_TYPES["model"]
    assert manifest.config is not None and manifest.config.media_type == "application/vnd.cncf.model.config.v1+json"
    assert [layer.media_type.split(".model.")[1] for layer in manifest.layers] == [
        "doc.v1.raw", "weight.v1.raw", "weight.config.v1.raw",
    ]  # fmt: skip


def test_code_leaves_out_what_python_compiled(registry: LocalRegistry, tmp_path: Path) -> None:
    """Running the code before pushing it does not change its digest."""
    root = laid(tmp_path / "code", {"train.py": b"", "pkg/x.py": b""})
    client = registry.client(ALICE)
    before = push_folder(client, "research/code/c", root, "code")
    laid(root, {"__pycache__/train.pyc": b"1", "pkg/__pycache__/x.pyc": b"2"})
    assert push_folder(client, "research/code/c", root, "code") == before


@pytest.mark.parametrize("what", ["nothing", "link", "fifo"])
def test_what_cannot_be_signed_is_not_pushed(registry: LocalRegistry, tmp_path: Path, what: str) -> None:
    """An empty folder, a link out of it, a pipe: refused before anything is sent."""
    import os

    root = tmp_path / "root"
    root.mkdir()
    if what == "link":
        (root / "passwd").symlink_to("/etc/passwd")
    if what == "fifo":
        os.mkfifo(root / "pipe")
    with pytest.raises(Invalid):
        push_folder(registry.client(ALICE), REPO, root, "dataset")


def test_a_file_that_changes_while_it_is_pushed_is_refused(registry: LocalRegistry, tmp_path: Path) -> None:
    """Changed, grown or shrunk after it was hashed: `Conflict`, and no manifest names it."""
    for number, change in enumerate((b"y" * 500_000, b"x" * 500_001, b"x" * 499_999, b"")):
        root = laid(tmp_path / str(number), {"big": b"x" * 500_000})

        def meddle(files: int, size: int, root: Path = root, change: bytes = change) -> None:
            (root / "big").write_bytes(change)

        with pytest.raises(Conflict):
            push_folder(registry.client(ALICE), f"research/meddled{number}", root, "dataset", starting=meddle)
        with pytest.raises(NotFound):
            registry.client(ALICE).tags(f"research/nothing{number}")


def test_a_bundle_is_attached_and_found_again(registry: LocalRegistry, folder: Path) -> None:
    """Bundles come back as the bytes that were attached, by predicate type where one is asked for."""
    client = registry.client(CONTROL)
    digest = push_folder(client, REPO, folder, "dataset")
    notary = Notary()
    bundles = {
        kind: notary.sign(read(client, REPO, digest).contents.statement(), SIGNER) for kind in ("type/one", "type/two")
    }
    for kind, bundle in bundles.items():
        assert attach(client, REPO, digest, bundle, predicate_type=kind) == sha256(bundle)
    assert set(attached(client, REPO, digest)) == set(bundles.values())
    assert list(attached(client, REPO, digest, predicate_type="type/two")) == [bundles["type/two"]]


def test_a_bundle_of_another_artifact_is_not_this_ones(registry: LocalRegistry, folder: Path, tmp_path: Path) -> None:
    """A valid signature over other files, attached to these, names what differs."""
    client = registry.client(CONTROL)
    digest = push_folder(client, "research/datasets/one", folder, "dataset")
    other = push_folder(client, "research/datasets/two", laid(tmp_path / "two", {"a.txt": b"other"}), "dataset")
    notary = Notary()
    attach(
        client,
        "research/datasets/one",
        digest,
        notary.sign(read(client, "research/datasets/two", other).contents.statement(), SIGNER),
    )
    (bundle,) = attached(client, "research/datasets/one", digest)
    signed = authenticate_bytes(bundle, notary.trust).manifest
    compare(signed, read(client, "research/datasets/two", other).contents)
    with pytest.raises(Unverified, match="changed"):
        compare(signed, read(client, "research/datasets/one", digest).contents)


def test_an_artifact_is_copied_without_sending_it_again(registry: LocalRegistry, folder: Path, tmp_path: Path) -> None:
    """`copy` mounts the blobs: the digest is the same, the files are there."""
    client = registry.client(CONTROL)
    digest = push_folder(client, "research/steps-one", folder, "output")
    client.copy("research/steps-one", digest, "research/models/copied", tag="v1")
    pull_folder(client, "research/models/copied", client.resolve("research/models/copied", "v1"), tmp_path / "out")
    assert measure(tmp_path / "out").entries == measure(folder).entries


def test_a_folder_with_something_in_it_is_not_pulled_into(registry: LocalRegistry, folder: Path) -> None:
    """Nothing that is there is overwritten or mixed with."""
    client = registry.client(ALICE)
    with pytest.raises(Conflict):
        pull_folder(client, REPO, push_folder(client, REPO, folder, "dataset"), folder)


def test_repositories_are_named_by_kind() -> None:
    """Datasets, models and code of one name do not meet; a step's output has no name of its own."""
    assert repository_of("research", "model", "tiny") == "research/models/tiny"
    with pytest.raises(Invalid):
        repository_of("research", "output", "x")


class Liar:
    """An HTTP server that answers whatever it is told to: path to (type, body)."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[str, bytes]] = {}
        self.headers: dict[str, str] = {}
        self.status = 200
        self.cut = 0
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                kind, body = liar.answers.get(self.path.partition("?")[0], ("text/plain", b""))
                self.send_response(liar.status if self.path.partition("?")[0] in liar.answers else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                for name, value in liar.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[: len(body) - liar.cut])
                self.close_connection = bool(liar.cut)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=lambda: self.server.serve_forever(0.02), daemon=True).start()
        self.client = RegistryClient("", 0, channel=Channel("127.0.0.1", self.server.server_port, None, "registry"))

    def serve(self, manifest: Manifest, blobs: Mapping[str, bytes]) -> str:
        """Serve a manifest, and `blobs` by the digest that they are to pass for; return the manifest's digest."""
        data = manifest.encode()
        self.answers[f"/v2/{REPO}/manifests/{sha256(data)}"] = (MANIFEST, data)
        for digest, blob in blobs.items():
            self.answers[f"/v2/{REPO}/blobs/{digest}"] = (OCTETS, blob)
        return sha256(data)


@pytest.fixture
def liar() -> Iterator[Liar]:
    """A registry that lies."""
    made = Liar()
    yield made
    made.client.close()
    made.server.shutdown()
    made.server.server_close()


def layer(path: str, data: bytes = b"data") -> Descriptor:
    """Return the layer of a file."""
    return Descriptor.of(OCTETS, data, {TITLE: path})


def dataset(*layers: Descriptor) -> Manifest:
    """Return the manifest of a dataset."""
    return Manifest(config=NOTHING, layers=layers, artifact_type=ARTIFACT_TYPES["dataset"])


@pytest.mark.parametrize("bad", [b"dat", b"data!", b"dbta", b"", b"data" * 1000])
def test_bytes_that_are_not_the_digests_are_refused(liar: Liar, tmp_path: Path, bad: bytes) -> None:
    """One flipped bit, a byte less or more: `DigestMismatch`, and the file is not left there."""
    digest = liar.serve(dataset(layer("f")), {sha256(b"data"): bad})
    with pytest.raises(DigestMismatch):
        pull_folder(liar.client, REPO, digest, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(DigestMismatch):
        liar.client.pull_blob(REPO, layer("f"))


def test_an_answer_that_breaks_off_is_no_blob(liar: Liar, tmp_path: Path) -> None:
    """A connection that ends early is `Unavailable`, and leaves no file."""
    digest = liar.serve(dataset(layer("f")), {sha256(b"data"): b"data"})
    liar.client.pull_manifest(REPO, digest)
    liar.cut = 2
    with pytest.raises((Unavailable, DigestMismatch)):
        liar.client.save_blob(REPO, layer("f"), tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_manifest_that_is_not_its_digest_is_refused(liar: Liar) -> None:
    """Another manifest under the digest that was asked for: swapped, added, missing or renamed files alike."""
    told = sha256(dataset(layer("f")).encode())
    for swapped in (dataset(layer("f", b"evil")), dataset(layer("f"), layer("g")), dataset(), dataset(layer("g"))):
        liar.answers[f"/v2/{REPO}/manifests/{told}"] = (MANIFEST, swapped.encode())
        with pytest.raises(DigestMismatch):
            read(liar.client, REPO, told)


@pytest.mark.parametrize(
    "path",
    ["../evil", "/etc/passwd", "a/../../evil", "a//b", "./a", "a/", "", ".", "a\x00b", "sub/../x", "\ud800".encode(errors="surrogatepass").decode("latin-1") + "/../x"],
)  # fmt: skip
def test_a_path_that_leaves_the_folder_is_refused(liar: Liar, tmp_path: Path, path: str) -> None:
    """`..`, absolute, NUL, empty or not canonical: no file is fetched, none is written."""
    digest = liar.serve(dataset(layer(path)), {sha256(b"data"): b"data"})
    with pytest.raises(Malformed):
        pull_folder(liar.client, REPO, digest, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("x/y/z", "x/y")])
def test_paths_that_contradict_each_other_are_refused(liar: Liar, paths: tuple[str, str]) -> None:
    """A name twice, or once as a file and once as a folder, is no artifact."""
    digest = liar.serve(dataset(*(layer(path, path.encode()) for path in paths), layer(paths[0], b"other")), {})
    with pytest.raises(Malformed):
        read(liar.client, REPO, digest)


def test_only_artifacts_of_ours_are_read(liar: Liar) -> None:
    """Another artifact type, an index, a layer without a path, no layer at all."""
    for manifest in (
        Manifest(config=NOTHING, layers=(layer("f"),), artifact_type="application/vnd.other"),
        Manifest(config=NOTHING, layers=(Descriptor.of(OCTETS, b"data"),), artifact_type=ARTIFACT_TYPES["model"]),
        dataset(),
    ):
        with pytest.raises((Malformed, Invalid)):
            read(liar.client, REPO, liar.serve(manifest, {}))
    index = Manifest(children=(), media_type=INDEX, artifact_type=ARTIFACT_TYPES["model"]).encode()
    liar.answers[f"/v2/{REPO}/manifests/{sha256(index)}"] = (INDEX, index)
    with pytest.raises(Malformed):
        read(liar.client, REPO, sha256(index))


def test_what_claims_to_refer_to_the_artifact_is_asked(liar: Liar) -> None:
    """A bundle whose manifest names another subject is refused; too many are refused before any is fetched."""
    bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
    digest = liar.serve(dataset(layer("f")), {})
    other = Manifest(layers=(layer("x"),), artifact_type=bundle, subject=Descriptor.of(MANIFEST, b"another"))
    found = Descriptor(MANIFEST, liar.serve(other, {}), 1, {}, bundle)
    listing = f"/v2/{REPO}/referrers/{digest}"
    liar.answers[listing] = (INDEX, Manifest(children=(found,), media_type=INDEX).encode())
    with pytest.raises(Unverified):
        list(attached(liar.client, REPO, digest))
    liar.answers[listing] = (INDEX, Manifest(children=(found,) * (MOST_ATTACHED + 1), media_type=INDEX).encode())
    with pytest.raises(TooLarge):
        list(attached(liar.client, REPO, digest))


def test_lists_and_answers_are_bounded(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list whose pages never end, a location on another host, an answer without end: each is an error."""
    monkeypatch.setattr("wharfinger.supply.registry.client.MOST_PAGES", 9)
    liar.answers[f"/v2/{REPO}/tags/list"] = ("application/json", b'{"tags":["a"]}')
    liar.headers = {"Link": f'</v2/{REPO}/tags/list?n=1>; rel="next"'}
    with pytest.raises(TooLarge):
        liar.client.tags(REPO)
    liar.headers = {"Link": '<https://evil.example/steal>; rel="next"'}
    with pytest.raises(Malformed):
        liar.client.tags(REPO)
    liar.headers = {}
    liar.answers["/v2/_catalog"] = ("application/json", b" " * (9 * 1024 * 1024))
    with pytest.raises(TooLarge):
        liar.client.repositories()


def test_a_blob_larger_than_wanted_is_not_fetched_into_memory(liar: Liar) -> None:
    """`pull_blob` is bounded by what its caller allows."""
    with pytest.raises(TooLarge):
        liar.client.pull_blob(REPO, Descriptor(OCTETS, sha256(b""), 1 << 40))


@pytest.mark.parametrize(
    ("status", "body"), [(500, b"oops"), (502, b"\xff\xfe"), (403, b'{"errors":[]}'), (418, b"[" * 99999)]
)
def test_errors_of_any_form_are_ours(liar: Liar, status: int, body: bytes) -> None:
    """Whatever a server answers instead of the spec's errors, the client raises one of the family."""
    liar.answers["/v2/_catalog"] = ("text/html", body)
    liar.status = status
    with pytest.raises(WharfingerError):
        liar.client.repositories()


def test_nobody_at_the_other_end_is_unavailable() -> None:
    """A refused connection is an error with a hint."""
    client = RegistryClient("", 0, channel=Channel("127.0.0.1", 1, None, "registry"))
    with pytest.raises(Unavailable) as raised:
        client.repositories()
    assert raised.value.hint


def test_a_folder_that_cannot_be_written_is_an_error(liar: Liar, tmp_path: Path) -> None:
    """A file where the folder should be is `HostUnfit`."""
    (tmp_path / "file").write_text("")
    digest = liar.serve(dataset(layer("f")), {sha256(b"data"): b"data"})
    with pytest.raises(HostUnfit):
        pull_folder(liar.client, REPO, digest, tmp_path / "file")
