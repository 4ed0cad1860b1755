"""Backups: one tar of everything that a platform must not lose, taken while it runs.

No part is stopped. What makes the copy consistent is the order and how each kind of file is written: the issuer's keys
and its last checkpoint come first, so that the log that follows is never behind it; the objects' database comes before
the blobs that it names; a database is copied by SQLite's own online backup; journals and the log only grow, and a
line cut short at their end is one that nobody had been told of; everything else is replaced as a whole, never edited.

```
wharfinger-backup.json     the first member: format and schema version
issuer/ api/ registry/ ... the files
manifest.json              the last member: size and sha256 of every file
```

It holds the platform's keys: mode 0600, and to be kept like them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from wharfinger.bootstrap.state import SCHEMA_VERSION, State, check_version
from wharfinger.core.errors import Conflict, Corrupt, HostUnfit, excerpt
from wharfinger.local.api.store import DATABASE, mark_copied

FORMAT: Final = 1
FOLDERS: Final = ("issuer", "api", "registry", "log", "evidence", "fleet", "gateway", "console", "node")
"""What is kept, in the order in which it is copied."""
_LEFT_OUT: Final = ("node/pods", "node/sockets")
"""What belongs to processes of this machine, and is made anew with them."""
_HEAD: Final = "wharfinger-backup.json"
_MANIFEST: Final = "manifest.json"
_SQLITE: Final = b"SQLite format 3\0"
_CHUNK: Final = 1024 * 1024


def write_backup(root: Path, file: Path) -> int:
    """Write a backup of the state directory `root`, of a platform that runs or not, to `file`; return its bytes.

    Raises `HostUnfit` when `root` is no state directory, or a file cannot be read or written; then `file` is as before.
    """
    state = State(root.absolute())
    check_version(state)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            _write(state, out)
            out.flush()
            os.fsync(out.fileno())
            size = out.tell()
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise HostUnfit(f"backup {file}: {error.strerror or error}", hint="name another file") from error
    return size


def restore_backup(file: Path, root: Path) -> None:
    """Make the state directory `root` from the backup `file`; every byte is checked before `root` appears.

    Raises `Conflict` when `root` is there and not empty or the backup is of a newer program, `Corrupt` when `file` is
    not a whole backup, `HostUnfit` when it cannot be read or `root` not be written; then nothing is left behind.
    """
    root = root.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise Conflict(f"{root} is not empty: a backup is restored to a new directory", hint="name another --state-dir")
    scratch: Path | None = None
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        with tarfile.open(file, "r:") as tar:
            _read(tar, scratch)
        objects = scratch / "api" / DATABASE
        if objects.exists():
            mark_copied(objects)
        (scratch / "version").write_text(f"{SCHEMA_VERSION}\n", encoding="ascii")
        if root.exists():
            root.rmdir()
        scratch.rename(root)
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{file} is not a whole backup: {excerpt(str(error))}") from error
    except OSError as error:
        raise HostUnfit(f"restoring {file} to {root}: {error.strerror or error}") from error
    finally:
        if scratch is not None and scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)


def _write(state: State, out: IO[bytes]) -> None:
    listed: dict[str, dict[str, object]] = {}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, _HEAD, _json({"format": FORMAT, "schema": SCHEMA_VERSION}))
        for name, path in _files(state.root):
            try:
                with path.open("rb") as source:
                    listed[name] = _copy(tar, name, path, source)
            except FileNotFoundError:
                continue
        _add(tar, _MANIFEST, _json(listed))


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield every regular file to keep; sockets, links, lock files and what is half written are left out."""
    for folder in FOLDERS:
        for at, folders, names in os.walk(root / folder):
            here = Path(at)
            folders[:] = sorted(f for f in folders if str((here / f).relative_to(root)) not in _LEFT_OUT)
            # A checkpoint commits to tiles that are there already: whatever has no suffix or is short comes first.
            for name in sorted(names, key=lambda n: (n != "checkpoint", n)):
                path = here / name
                half = name.startswith(".") or name.endswith(("-wal", "-shm", "-journal"))
                if not half and path.is_file() and not path.is_symlink():
                    yield str(path.relative_to(root)), path


def _copy(tar: tarfile.TarFile, name: str, path: Path, source: IO[bytes]) -> dict[str, object]:
    if source.read(len(_SQLITE)) == _SQLITE:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".backup.") as folder:
            copy = Path(folder) / "copy"
            _copy_database(path, copy)
            with copy.open("rb") as whole:
                return _add_file(tar, name, whole)
    source.seek(0)
    return _add_file(tar, name, source)


def _copy_database(path: Path, copy: Path) -> None:
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as live,
            contextlib.closing(sqlite3.connect(copy)) as made,
        ):
            live.backup(made)
    except sqlite3.Error as error:
        raise HostUnfit(f"database {path.name}: {excerpt(str(error))}") from error


def _add_file(tar: tarfile.TarFile, name: str, source: IO[bytes]) -> dict[str, object]:
    """Add the bytes that `source` has now; what is appended meanwhile is left out."""
    size = os.fstat(source.fileno()).st_size
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    hashed = _Hashed(source, size)
    tar.addfile(info, hashed)  # type: ignore[arg-type]  # an object that reads is all that it needs
    return {"bytes": size, "sha256": hashed.digest.hexdigest()}


class _Hashed:
    """Reads `size` bytes of a file and hashes them on the way."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self._source = source
        self._left = size
        self.digest = hashlib.sha256()

    def read(self, most: int) -> bytes:
        data = self._source.read(min(most, self._left))
        self._left -= len(data)
        self.digest.update(data)
        return data


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _read(tar: tarfile.TarFile, into: Path) -> None:
    head = tar.next()
    if head is None or head.name != _HEAD:
        raise Corrupt("expected a backup that wharf backup wrote")
    told = json.loads(_bytes(tar, head))
    if told["format"] > FORMAT or told["schema"] > SCHEMA_VERSION:
        raise Conflict(
            f"the backup has schema version {told['schema']}, this program knows {SCHEMA_VERSION}",
            hint="restore it with the program that wrote it, or a newer one",
        )
    if told != {"format": FORMAT, "schema": SCHEMA_VERSION}:
        raise Corrupt("expected a backup that wharf backup wrote, got another form")
    found: dict[str, dict[str, object]] = {}
    listed: dict[str, dict[str, object]] | None = None
    while (member := tar.next()) is not None:
        if listed is not None or not member.isreg():
            raise Corrupt(f"the backup holds {excerpt(member.name)}, which does not belong")
        if member.name == _MANIFEST:
            listed = json.loads(_bytes(tar, member))
        else:
            found[member.name] = _extract(tar, member, into)
    if listed is None or listed != found:
        wrong = sorted(name for name in {*found, *(listed or {})} if found.get(name) != (listed or {}).get(name))
        raise Corrupt(f"the backup is not what its manifest lists: {excerpt(wrong[0] if wrong else 'it has none')}")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, into: Path) -> dict[str, object]:
    parts = member.name.split("/")
    if parts[0] not in FOLDERS or any(part in ("", ".", "..") for part in parts) or "\0" in member.name:
        raise Corrupt(f"the backup holds {excerpt(member.name)}, which does not belong")
    path = into.joinpath(*parts)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    source = tar.extractfile(member)
    assert source is not None
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        while data := source.read(_CHUNK):
            digest.update(data)
            out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return {"bytes": member.size, "sha256": digest.hexdigest()}


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = tar.extractfile(member)
    assert source is not None
    return source.read()
