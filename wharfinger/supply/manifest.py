"""Manifests: what a model or dataset consists of, by digest (OpenSSF Model Signing v1.0, sections 5 and 6).

A manifest lists every file, or every shard of one, with its digest; its root digest names the whole. The
statement that is signed carries it, so that two directories are the same artifact exactly when their root
digests are. This module is pure; `supply.hashing` reads directories.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid, Malformed, Unverified, excerpt
from wharfinger.supply.statement import Resource, Statement

PREDICATE: Final = "https://model_signing/signature/v1.0"
OLD_PREDICATE: Final = "https://model_signing/Digests/v0.1"
"""What version 0.2.0 of the reference implementation wrote: read, never produced (OMS 5.1)."""
ALWAYS_IGNORED: Final = (".git", ".gitattributes", ".github", ".gitignore")
"""Top-level names that are never part of an artifact (OMS 6.2)."""
MOST_ENTRIES: Final = 1_000_000
HASH_HEX: Final[Mapping[str, int]] = {"sha256": 64, "blake2b": 128, "blake3": 64}
"""Hash algorithms of the OMS registry, and the hex digits of their digests."""
_GLOB: Final = frozenset("*?[")
_SHARD: Final = re.compile(r"(?P<path>.+):(?P<start>0|[1-9][0-9]{0,18}):(?P<end>[1-9][0-9]{0,18})", re.DOTALL)
_HEX: Final = re.compile(r"[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Serialization:
    """How the files were enumerated and hashed (OMS 5.2.2)."""

    method: Literal["files", "shards"] = "files"
    hash_type: str = "sha256"
    allow_symlinks: bool = False
    shard_size: int = 0
    ignore_paths: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: Json) -> Serialization:
        """Return the serialization in a decoded JSON `value`. Raises `Malformed`."""
        if not isinstance(value, dict):
            raise Malformed(f"serialization: expected an object, got {excerpt(value)}")
        unknown = set(value) - {"method", "hash_type", "allow_symlinks", "shard_size", "ignore_paths"}
        if unknown:
            raise Malformed(f"serialization: expected no field {excerpt(min(unknown))}")
        method, hash_type, symlinks = value.get("method"), value.get("hash_type"), value.get("allow_symlinks")
        shard_size, ignored = value.get("shard_size", 0), value.get("ignore_paths", [])
        if method not in ("files", "shards"):
            raise Malformed(f"serialization: expected method files or shards, got {excerpt(method)}")
        if not isinstance(hash_type, str) or hash_type not in HASH_HEX:
            raise Malformed(f"serialization: expected hash_type {' or '.join(HASH_HEX)}, got {excerpt(hash_type)}")
        if type(symlinks) is not bool:
            raise Malformed(f"serialization: expected allow_symlinks true or false, got {excerpt(symlinks)}")
        if type(shard_size) is not int or ("shard_size" in value) != (method == "shards") or shard_size < 0:
            raise Malformed("serialization: expected shard_size with method shards, and only there")
        if method == "shards" and shard_size < 1:
            raise Malformed(f"serialization: expected a shard_size of at least 1, got {shard_size}")
        if not isinstance(ignored, list) or not all(isinstance(path, str) and path for path in ignored):
            raise Malformed("serialization: expected ignore_paths as a list of paths")
        return cls(method, hash_type, symlinks, shard_size, tuple(ignored))

    def to_json(self) -> dict[str, Json]:
        """Return the serialization as a JSON object."""
        value: dict[str, Json] = {
            "method": self.method,
            "hash_type": self.hash_type,
            "allow_symlinks": self.allow_symlinks,
        }
        if self.method == "shards":
            value["shard_size"] = self.shard_size
        if self.ignore_paths:
            value["ignore_paths"] = list(self.ignore_paths)
        return value


WHOLE_FILES: Final = Serialization()
"""What we sign with: each file whole, by sha256, no links."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, or one shard of a file: its `name` in the artifact and its `digest` in lower-case hex.

    `blake3` is the second digest of what we hash ourselves, empty where it is not known; `size` in bytes, None
    where it is not known. Neither counts when entries are compared.
    """

    name: str
    digest: str
    algorithm: str = "sha256"
    blake3: str = field(default="", compare=False)
    size: int | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, value: Json) -> Entry:
        """Return the entry in a decoded JSON resource descriptor of OMS. Raises `Malformed`."""
        if not isinstance(value, dict):
            raise Malformed(f"resource: expected an object, got {excerpt(value)}")
        name, digest, algorithm = value.get("name"), value.get("digest"), value.get("algorithm")
        if not isinstance(name, str) or not name:
            raise Malformed(f"resource: expected a name, got {excerpt(name)}")
        if not isinstance(algorithm, str) or algorithm not in HASH_HEX:
            raise Malformed(f"resource {excerpt(name)}: expected an algorithm, got {excerpt(algorithm)}")
        if not isinstance(digest, str) or len(digest) != HASH_HEX[algorithm] or _HEX.fullmatch(digest) is None:
            raise Malformed(f"resource {excerpt(name)}: expected a {algorithm} digest, got {excerpt(digest)}")
        annotations = value.get("annotations")
        blake3 = annotations.get("blake3", "") if isinstance(annotations, dict) else ""
        return cls(name, digest, algorithm, blake3 if isinstance(blake3, str) else "")

    def to_json(self) -> dict[str, Json]:
        """Return the entry as a resource descriptor of OMS."""
        value: dict[str, Json] = {"name": self.name, "digest": self.digest, "algorithm": self.algorithm}
        if self.blake3:
            value["annotations"] = {"blake3": self.blake3}
        return value


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact called `name`, in the order in which the root digest reads them."""

    name: str
    entries: tuple[Entry, ...]
    serialization: Serialization = WHOLE_FILES

    @property
    def digest(self) -> str:
        """The root digest (OMS 6.5.1), `sha256:<hex>`: the sha256 over the entries' digests."""
        return "sha256:" + hashlib.sha256(b"".join(bytes.fromhex(e.digest) for e in self.entries)).hexdigest()

    @property
    def size(self) -> int:
        """The bytes of all entries whose size is known."""
        return sum(entry.size or 0 for entry in self.entries)

    def statement(self) -> Statement:
        """Return the statement that is signed: an in-toto statement with the OMS predicate (OMS 6.6)."""
        predicate = {
            "resources": [entry.to_json() for entry in self.entries],
            "serialization": self.serialization.to_json(),
        }
        return Statement((Resource.of(self.name, self.digest),), PREDICATE, predicate)

    @classmethod
    def of_statement(cls, statement: Statement) -> Manifest:
        """Return the manifest that a verified `statement` carries.

        Raises `Malformed` when it is no OMS statement or its manifest cannot be one: entries twice, paths
        that leave the artifact, a root digest that is not that of the entries.
        """
        if statement.predicate_type == OLD_PREDICATE:
            return _of_old(statement)
        if statement.predicate_type != PREDICATE:
            raise Malformed(f"expected predicate {PREDICATE}, got {excerpt(statement.predicate_type)}")
        if len(statement.subjects) != 1:
            raise Malformed(f"expected exactly one subject, got {len(statement.subjects)}")
        if set(statement.predicate) != {"resources", "serialization"}:
            raise Malformed("expected a predicate with resources and serialization")
        resources = statement.predicate["resources"]
        if not isinstance(resources, list) or not 0 < len(resources) <= MOST_ENTRIES:
            raise Malformed(f"expected 1 to {MOST_ENTRIES} resources")
        serialization = Serialization.parse(statement.predicate["serialization"])
        entries = tuple(Entry.parse(_current_name(value, serialization)) for value in resources)
        manifest = cls(statement.subjects[0].name, entries, serialization)
        check_entries(entries, serialization)
        if statement.subjects[0].sha256 != manifest.digest:
            raise Malformed(f"expected subject {manifest.digest}, got {excerpt(statement.subjects[0].sha256)}")
        return manifest


def made(name: str, entries: Iterable[Entry], serialization: Serialization) -> Manifest:
    """Return the manifest of `entries`, put into canonical order: by name, as code points (OMS 5.2.1).

    Raises `Invalid` for none at all: an artifact without a file proves nothing (OMS 6.1).
    """
    ordered = tuple(sorted(entries, key=lambda entry: entry.name))
    if not ordered:
        raise Invalid(f"{name}: expected at least one file, got none")
    return Manifest(name, ordered, serialization)


def compare(signed: Manifest, found: Manifest, *, allow_unsigned: bool = False) -> None:
    """Check that `found` is what was `signed` (OMS 8.4); with `allow_unsigned`, files beside it may be there.

    Raises `Unverified` naming the first few files that are missing, changed or not signed.
    """
    want = {entry.name: entry for entry in signed.entries}
    got = {entry.name: entry for entry in found.entries}
    missing = sorted(set(want) - set(got))
    changed = sorted(name for name, entry in want.items() if name in got and got[name] != entry)
    unsigned = [] if allow_unsigned else sorted(set(got) - set(want))
    problems = [
        f"{len(names)} {what}: {', '.join(excerpt(name) for name in names[:3])}"
        for what, names in (("changed", changed), ("missing", missing), ("not signed", unsigned))
        if names
    ]
    if problems:
        raise Unverified(f"{signed.name or 'artifact'}: " + "; ".join(problems))


def canonical_path(text: str) -> str:
    """Return the canonical form of the path `text` in an artifact (OMS 6.1.2).

    Raises `Malformed` for one that is absolute, leaves the root, ends in a slash, holds a NUL or is not UTF-8.
    """
    if not text or text.startswith("/") or text.endswith("/") or "\x00" in text:
        raise Malformed(f"expected a relative path of a file, got {excerpt(text)}")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise Malformed(f"expected a path inside the artifact, got {excerpt(text)}")
    path = "/".join(parts)
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Malformed(f"expected a path in UTF-8, got {excerpt(text)}") from error
    return path


def check_ignored(path: str) -> str:
    """Return `path` if it may be an ignore path: exact, relative, without glob characters (OMS 6.2.1).

    Raises `Malformed`.
    """
    if _GLOB & set(path) or canonical_path(path) != path:
        raise Malformed(f"expected an exact relative path to ignore, got {excerpt(path)}")
    return path


def is_ignored(path: str, ignored: Iterable[str]) -> bool:
    """Say whether the canonical `path` is left out: always, or since it or a folder above it is `ignored`."""
    return any(path == prefix or path.startswith(prefix + "/") for prefix in (*ALWAYS_IGNORED, *ignored))


def shard_ranges(size: int, shard_size: int) -> list[tuple[int, int]]:
    """Return the byte ranges [start, end) into which a file of `size` falls; none for an empty file."""
    return [(start, min(start + shard_size, size)) for start in range(0, size, shard_size)]


def shard_name(path: str, start: int, end: int) -> str:
    """Return the name of the shard of `path` over [`start`, `end`) (OMS 6.3.2)."""
    return f"{path}:{start}:{end}"


def parse_shard(name: str) -> tuple[str, int, int]:
    """Return path, start and end of the shard `name`; the path may hold colons. Raises `Malformed`."""
    match = _SHARD.fullmatch(name)
    if match is None or int(match["start"]) >= int(match["end"]):
        raise Malformed(f"expected a shard path:start:end, got {excerpt(name)}")
    return match["path"], int(match["start"]), int(match["end"])


def check_entries(entries: Sequence[Entry], serialization: Serialization) -> None:
    """Check that `entries` can be a manifest's: canonical paths, none twice, one algorithm, shards that tile files.

    Raises `Malformed`.
    """
    seen: set[str] = set()
    shards: dict[str, list[tuple[int, int]]] = {}
    for entry in entries:
        if entry.algorithm != serialization.hash_type:
            raise Malformed(f"{excerpt(entry.name)}: expected algorithm {serialization.hash_type}")
        if entry.name in seen:
            raise Malformed(f"expected each name once, got {excerpt(entry.name)} twice")
        seen.add(entry.name)
        path = entry.name
        if serialization.method == "shards":
            path, start, end = parse_shard(entry.name)
            shards.setdefault(path, []).append((start, end))
        if path != "." and canonical_path(path) != path:
            raise Malformed(f"expected a canonical path, got {excerpt(path)}")
    if "." in (entry.name for entry in entries) and len(entries) > 1:
        raise Malformed('expected the name "." only for a single file')
    for path, ranges in shards.items():
        ordered = sorted(ranges)
        if ordered != shard_ranges(ordered[-1][1], serialization.shard_size):
            raise Malformed(f"{excerpt(path)}: expected shards of {serialization.shard_size} bytes without a gap")


def named_as_signed(found: Manifest, signed: Manifest) -> Manifest:
    """Return `found`, a single file, under the name `.` if that is how `signed` calls its single file.

    The reference implementation names it so, the specification by its file name (OMS 6.1.2).
    """

    def renamed(name: str) -> str:
        if found.serialization.method == "files":
            return "."
        _, start, end = parse_shard(name)
        return shard_name(".", start, end)

    names = {entry.name if found.serialization.method == "files" else parse_shard(entry.name)[0]
             for entry in signed.entries}  # fmt: skip
    if names != {"."}:
        return found
    return replace(found, entries=tuple(replace(entry, name=renamed(entry.name)) for entry in found.entries))


def _current_name(value: Json, serialization: Serialization) -> Json:
    """Old bundles write the algorithm of a shard as `sha256-sharded-8`; the specification as `sha256`."""
    if isinstance(value, dict) and serialization.method == "shards":
        old = f"{serialization.hash_type}-sharded-{serialization.shard_size}"
        if value.get("algorithm") == old:
            return {**value, "algorithm": serialization.hash_type}
    return value


def _of_old(statement: Statement) -> Manifest:
    """Return the manifest of a statement of version 0.2.0: the files are the subjects."""
    entries = []
    for subject in statement.subjects:
        if subject.annotations.get("actual_hash_algorithm", "file-sha256") != "file-sha256" or not subject.sha256:
            raise Malformed(f"{excerpt(subject.name)}: expected a file-sha256 digest")
        entries.append(Entry(subject.name, subject.sha256[7:]))
    check_entries(entries, WHOLE_FILES)
    return Manifest("", tuple(entries))
