"""Hashing directories: one state of the files or nothing, and every odd thing a directory can hold has its answer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.core.errors import Conflict, Invalid, Malformed, Unverified, WharfingerError
from wharfinger.supply import hashing
from wharfinger.supply.hashing import check, measure
from wharfinger.supply.manifest import Manifest, Serialization

LINKS = Serialization(allow_symlinks=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that tests fill."""
    made = tmp_path / "model"
    made.mkdir()
    return made


def lay(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write `files` below `root`."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def names(manifest: Manifest) -> list[str]:
    """Return the names in a manifest."""
    return [entry.name for entry in manifest.entries]


def test_one_pass_gives_both_digests_and_sizes(root: Path) -> None:
    """Each file has its sha256, its blake3 and its size; folders are no entries."""
    data = bytes(range(256)) * 9000
    lay(root, {"a/b/c": data, "empty": b""})
    (root / "no files").mkdir()
    first, second = measure(root).entries
    assert (first.name, first.digest, first.blake3, first.size) == (
        "a/b/c", hashlib.sha256(data).hexdigest(), blake3(data).hexdigest(), len(data),
    )  # fmt: skip
    assert (second.name, second.digest, second.size) == ("empty", hashlib.sha256().hexdigest(), 0)


@settings(max_examples=30, deadline=None)
@given(
    files=st.dictionaries(
        st.from_regex(r"[a-zé]{1,4}", fullmatch=True), st.binary(max_size=300), min_size=1, max_size=5
    ),
    shard=st.integers(1, 64),
    workers=st.integers(1, 4),
)
def test_the_manifest_depends_on_the_files_alone(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], shard: int, workers: int
) -> None:
    """However many workers, in whatever order written: the same manifest, whole files or shards, and it checks."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    lay(one, files)
    lay(two, dict(reversed(files.items())))
    for serialization in (
        Serialization(),
        Serialization("shards", shard_size=shard),
        Serialization(hash_type="blake2b"),
    ):
        if serialization.method == "shards" and not any(files.values()):
            continue
        found = measure(one, serialization, workers=workers)
        assert found.entries == measure(two, serialization).entries
        assert check(two, Manifest("x", found.entries, serialization)).digest == found.digest


def test_a_link_out_of_the_artifact_is_refused(root: Path, tmp_path: Path) -> None:
    """Whether links are followed or not, by one link or several, as file or as folder."""
    (tmp_path / "secret").write_text("secret")
    lay(root, {"a": b"a"})
    for target in (tmp_path / "secret", tmp_path, Path("../secret"), Path("/etc/passwd")):
        (root / "link").symlink_to(target)
        for serialization in (Serialization(), LINKS):
            with pytest.raises(Invalid, match="symbolic link"):
                measure(root, serialization)
        (root / "link").unlink()
    (root / "one").symlink_to("two")
    (root / "two").symlink_to(tmp_path / "secret")
    with pytest.raises(Invalid, match="leads out"):
        measure(root, LINKS)


def test_a_link_inside_is_refused_unless_links_are_followed(root: Path) -> None:
    """Followed, it is an entry with the content of what it leads to; a folder's files appear under both names."""
    lay(root, {"a/x": b"x"})
    (root / "b").symlink_to("a")
    (root / "c").symlink_to("a/x")
    with pytest.raises(Invalid, match="expected no symbolic link"):
        measure(root)
    found = measure(root, LINKS)
    assert names(found) == ["a/x", "b/x", "c"] and len({entry.digest for entry in found.entries}) == 1


def test_links_in_a_circle_or_to_nothing_are_refused(root: Path) -> None:
    """Neither is followed for ever, nor read as empty."""
    lay(root, {"a/x": b"x"})
    (root / "a" / "up").symlink_to("..")
    with pytest.raises(Invalid, match="leads back"):
        measure(root, LINKS)
    (root / "a" / "up").unlink()
    (root / "self").symlink_to("self")
    with pytest.raises(WharfingerError):
        measure(root, LINKS)


def during(monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], None]) -> None:
    """Have `meddle` happen once, while the first file is read."""
    digests, done = hashing._digests, []

    def read(descriptor: int, size: int, hash_type: str) -> tuple[int, str, str]:
        found = digests(descriptor, size, hash_type)
        if not done:
            done.append(True)
            meddle()
        return found

    monkeypatch.setattr(hashing, "_digests", read)


@pytest.mark.parametrize("what", ["append", "truncate", "rewrite", "replace", "remove", "add", "link", "touch"])
def test_a_directory_that_changes_while_it_is_hashed_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Appended to, cut, rewritten, replaced, removed, added, swapped for a link: `Conflict`, naming the file."""
    lay(root, {"a": b"a" * 1000, "b": b"b" * 1000})
    (tmp_path / "other").write_bytes(b"a" * 1000)

    def meddle() -> None:
        if what == "append":
            with (root / "a").open("ab") as file:
                file.write(b"!")
        elif what == "truncate":
            os.truncate(root / "a", 10)
        elif what == "rewrite":
            (root / "a").write_bytes(b"x" * 1000)
        elif what == "replace":
            (tmp_path / "other").replace(root / "a")
        elif what == "remove":
            (root / "a").unlink()
        elif what == "add":
            (root / "c").write_bytes(b"")
        elif what == "link":
            (root / "a").unlink()
            (root / "a").symlink_to(tmp_path / "other")
        else:
            os.utime(root / "a", ns=(1, 1))

    during(monkeypatch, meddle)
    with pytest.raises((Conflict, Invalid)):
        measure(root, workers=1)


def test_hard_links_are_files_like_any_other(root: Path) -> None:
    """Two names of one file are two entries with one digest."""
    lay(root, {"a": b"same"})
    os.link(root / "a", root / "b")
    first, second = measure(root).entries
    assert (first.name, second.name) == ("a", "b") and first.digest == second.digest


def test_a_sparse_file_is_its_zeros(root: Path) -> None:
    """A hole reads as zeros, and costs no memory."""
    with (root / "hole").open("wb") as file:
        file.truncate(50_000_000)
    (entry,) = measure(root).entries
    hasher = hashlib.sha256()
    for _ in range(50):
        hasher.update(bytes(1_000_000))
    assert (entry.digest, entry.size) == (hasher.hexdigest(), 50_000_000)


def test_names_that_look_alike_are_different(root: Path) -> None:
    """Case and Unicode form count: what is one name on another system is two here, in code point order."""
    alike = ["Model.bin", "model.bin", "caf\u00e9", "cafe\u0301", "\uff41", "\U0001f600"]
    lay(root, {name: name.encode() for name in alike})
    assert names(measure(root)) == sorted(alike)


def test_an_artifact_without_files_is_refused(root: Path) -> None:
    """Nothing at all, folders alone, or only what is left out; one empty file is an artifact."""
    (root / "sub").mkdir()
    for files in ({}, {".gitignore": b""}, {".git/config": b""}, {"cache/x": b""}):
        lay(root, files)
        with pytest.raises(Invalid, match="at least one file"):
            measure(root, Serialization(ignore_paths=("cache",)))
    lay(root, {"empty": b""})
    assert names(measure(root, Serialization(ignore_paths=("cache",)))) == ["empty"]


def test_what_is_neither_file_nor_folder_is_refused_without_waiting(root: Path) -> None:
    """A pipe that nobody writes to does not block; a device is not read."""
    os.mkfifo(root / "pipe")
    with pytest.raises(Invalid, match="regular file"):
        measure(root)
    with pytest.raises(Invalid, match="regular file"):
        measure(Path("/dev/zero"))


def test_a_name_that_is_not_utf8_is_refused(root: Path) -> None:
    """It cannot be signed, since it cannot be written down."""
    with open(os.path.join(os.fsencode(root), b"f\xff"), "wb"):
        pass
    with pytest.raises(Invalid, match="UTF-8"):
        measure(root)


def test_folders_too_deep_are_refused(root: Path) -> None:
    """Levels are bounded."""
    deep = root.joinpath(*["d"] * 130)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"")
    with pytest.raises(Invalid, match="levels"):
        measure(root)


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    """A path that does not exist names itself in the error."""
    with pytest.raises(WharfingerError, match="nowhere"):
        measure(tmp_path / "nowhere")


@pytest.mark.parametrize("what", ["change", "add", "remove", "rename", "swap", "add a link"])
def test_files_that_are_not_those_signed_are_found(root: Path, what: str) -> None:
    """Changed, added, missing, renamed, swapped: `check` names the files."""
    lay(root, {"a": b"one", "b": b"two"})
    signed = measure(root)
    if what == "change":
        (root / "a").write_bytes(b"onE")
    elif what == "add":
        lay(root, {"sub/c": b""})
    elif what == "remove":
        (root / "b").unlink()
    elif what == "rename":
        (root / "b").rename(root / "B")
    elif what == "swap":
        lay(root, {"a": b"two", "b": b"one"})
    else:
        (root / "c").symlink_to("a")
    with pytest.raises((Unverified, Invalid)):
        check(root, signed)


def test_the_signature_beside_the_files_is_no_part_of_them(root: Path) -> None:
    """What is named as left out is left out, and nothing else of its name."""
    lay(root, {"a": b"a", "model.sig": b"{}", "sub/model.sig": b"{}"})
    assert names(measure(root, without=[root / "model.sig"])) == ["a", "sub/model.sig"]


@pytest.mark.parametrize("path", ["*", "a?", "/a", "../a", "a/../b", ""])
def test_an_ignore_path_is_a_path(root: Path, path: str) -> None:
    """Patterns, absolute and leaving paths are refused before anything is read."""
    lay(root, {"a": b""})
    with pytest.raises(Malformed):
        measure(root, Serialization(ignore_paths=(path,)))
