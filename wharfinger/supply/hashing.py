"""Hashing: from a directory to its manifest, in one pass, on every core.

Files are opened relative to their folder and without following links, so that a path that is swapped for a
link while we look leads nowhere. A file that changes while it is hashed is told apart from one that does
not by size, times and inode before and after: what is signed is one state of the directory, or nothing.
Not protected against: somebody who may write the files and sets their times back.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from blake3 import blake3

from wharfinger.core.errors import Conflict, HostUnfit, Invalid, excerpt
from wharfinger.supply.manifest import (
    WHOLE_FILES,
    Entry,
    Manifest,
    Serialization,
    canonical_path,
    check_ignored,
    compare,
    is_ignored,
    made,
    named_as_signed,
    shard_name,
    shard_ranges,
)

_CHUNK: Final = 1024 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
MOST_FILES: Final = 1_000_000
DEEPEST: Final = 128
"""Levels of folders below the root."""


class _Hasher(Protocol):
    def update(self, data: memoryview, /) -> object: ...
    def hexdigest(self) -> str: ...


_State: TypeAlias = tuple[int, ...]
"""What of a file's status changes when the file does."""


def measure(
    root: Path,
    serialization: Serialization = WHOLE_FILES,
    *,
    without: Iterable[Path] = (),
    workers: int | None = None,
) -> Manifest:
    """Return the manifest of `root`, a directory or a single file, hashed by `workers` threads (None: one per core).

    `without` are files below it that are no part of it, such as its signature. Whatever the hash type, entries of
    whole files carry a blake3 digest beside it. Raises `Invalid` for an artifact without files or with what
    cannot be signed (a symbolic link, one that leaves the root, a device, a name that is not UTF-8), `Conflict` when
    a file changes meanwhile, `HostUnfit` when one cannot be read, `Malformed` for an ignore path that is not one.
    """
    _, entries = _hash(root, serialization, without, workers, skip_links=False)
    return made(root.absolute().name, entries, serialization)


def check(
    root: Path,
    signed: Manifest,
    *,
    without: Iterable[Path] = (),
    ignore_paths: Iterable[str] = (),
    allow_unsigned: bool = False,
    workers: int | None = None,
) -> Manifest:
    """Return the manifest of `root` if it is what was `signed`, measured as the signed manifest says (OMS 8.4).

    `ignore_paths` are left out beside those that the signed manifest names. Raises `Unverified` naming what
    differs, or what `measure` raises.
    """
    ignored = tuple(dict.fromkeys((*signed.serialization.ignore_paths, *ignore_paths)))
    serialization = replace(signed.serialization, ignore_paths=ignored)
    single, entries = _hash(root, serialization, without, workers, skip_links=allow_unsigned)
    found = Manifest(signed.name, tuple(sorted(entries, key=lambda entry: entry.name)), serialization)
    if single:
        found = named_as_signed(found, signed)
    compare(signed, found, allow_unsigned=allow_unsigned)
    return found


def _hash(
    root: Path, serialization: Serialization, without: Iterable[Path], workers: int | None, *, skip_links: bool
) -> tuple[bool, list[Entry]]:
    ignored = [check_ignored(path) for path in serialization.ignore_paths]
    top = root.absolute()
    try:
        single = not stat.S_ISDIR(top.stat().st_mode)
        if single:
            folder, files = top.parent, {canonical_path(top.name): _state(top.stat())}
        else:
            folder = top.resolve()
            left_out = [*ignored, *(os.path.relpath(path.absolute(), top) for path in without)]
            files = dict(_walk(folder, serialization, left_out, skip_links=skip_links))
        with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="hash") as pool:
            hashed = list(pool.map(lambda item: _hash_seen(folder, item[0], item[1], serialization), files.items()))
        if not single:
            after = dict(_walk(folder, serialization, left_out, skip_links=skip_links))
            for path in sorted(set(files) | set(after)):
                if files.get(path) != after.get(path):
                    raise _changed(path)
        return single, [entry for entries in hashed for entry in entries]
    except OSError as error:
        raise HostUnfit(f"{excerpt(str(error.filename or root))}: {error.strerror}") from error


def _walk(
    root: Path, serialization: Serialization, ignored: list[str], *, skip_links: bool
) -> Iterator[tuple[str, _State]]:
    """Yield path and state of every regular file below `root` that is not ignored."""
    count = 0
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        folder, above = pending.pop()
        here = (root / folder).stat()
        identity = (here.st_dev, here.st_ino)
        if identity in above:
            raise Invalid(f"{excerpt(folder)}: a symbolic link leads back to a folder above it")
        if len(above) > DEEPEST:
            raise Invalid(f"{excerpt(folder)}: expected at most {DEEPEST} levels of folders")
        with os.scandir(root / folder) as items:
            for item in items:
                path = _path_in(folder, item.name)
                if is_ignored(path, ignored):
                    continue
                if item.is_symlink() and not _is_followed(root, path, serialization, skip_links=skip_links):
                    continue
                status = item.stat()
                if stat.S_ISDIR(status.st_mode):
                    pending.append((path, (*above, identity)))
                elif stat.S_ISREG(status.st_mode):
                    count += 1
                    if count > MOST_FILES:
                        raise Invalid(f"expected at most {MOST_FILES} files")
                    yield path, _state(status)
                else:
                    raise Invalid(f"{excerpt(path)}: expected a regular file or a folder")


def _path_in(folder: str, name: str) -> str:
    path = f"{folder}/{name}" if folder else name
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Invalid(f"expected file names in UTF-8, got {excerpt(path)}") from error
    return path


def _is_followed(root: Path, path: str, serialization: Serialization, *, skip_links: bool) -> bool:
    """Say whether the link at `path` is read as what it leads to; raise `Invalid` where it must not be there."""
    if not serialization.allow_symlinks:
        if skip_links:
            return False
        raise Invalid(f"{excerpt(path)}: expected no symbolic link", hint="replace it by the file, or ignore it")
    target = Path(os.path.realpath(root / path))
    if not target.is_relative_to(root):
        raise Invalid(f"{excerpt(path)}: expected a symbolic link inside the artifact, it leads out of it")
    return True


def _hash_seen(root: Path, path: str, seen: _State, serialization: Serialization) -> list[Entry]:
    """Hash a file that was there a moment ago: one that is gone, or a link by now, has changed."""
    try:
        return _hash_file(root, path, seen, serialization)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise _changed(path) from error
        raise


def _hash_file(root: Path, path: str, seen: _State, serialization: Serialization) -> list[Entry]:
    with _opened(root, path, serialization) as descriptor:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise Invalid(f"{excerpt(path)}: expected a regular file")
        if serialization.method == "files":
            size, digest, second = _digests(descriptor, before.st_size, serialization.hash_type)
            entries = [Entry(path, digest, serialization.hash_type, second, size)]
        else:
            entries = []
            size = 0
            for start, end in shard_ranges(before.st_size, serialization.shard_size):
                read, digest, _ = _digests(descriptor, end - start, serialization.hash_type)
                size += read
                entries.append(Entry(shard_name(path, start, end), digest, serialization.hash_type, size=end - start))
        after = os.fstat(descriptor)
    if size != before.st_size or not seen == _state(before) == _state(after):
        raise _changed(path)
    return entries


def _changed(path: str) -> Conflict:
    return Conflict(f"{excerpt(path)} changed while it was hashed", hint="stop what writes there, then repeat")


@contextmanager
def _opened(root: Path, path: str, serialization: Serialization) -> Iterator[int]:
    """Open `path` below `root`; unless links are followed, no part of the path may have become one."""
    if serialization.allow_symlinks:
        # The link may have been turned elsewhere since it was judged: judge where this descriptor leads.
        descriptor = os.open(root / path, _FLAGS & ~os.O_NOFOLLOW)
        if not Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(root):
            os.close(descriptor)
            raise Invalid(f"{excerpt(path)}: expected a symbolic link inside the artifact, it leads out of it")
    else:
        descriptor = _open_beneath(root, path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_beneath(root: Path, path: str) -> int:
    *folders, name = path.split("/")
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, _FLAGS, dir_fd=at)
    finally:
        os.close(at)


def _digests(descriptor: int, size: int, hash_type: str) -> tuple[int, str, str]:
    """Return how many of the next `size` bytes were there, their digest, and their blake3."""
    first = _hasher(hash_type)
    hashers: list[_Hasher] = [first]
    second: _Hasher = first
    if hash_type != "blake3":
        second = blake3()
        hashers.append(second)
    buffer = memoryview(bytearray(min(_CHUNK, max(size, 1))))
    left = size
    while left:
        got = os.readv(descriptor, [buffer[:left]])
        if got == 0:
            break
        for hasher in hashers:
            hasher.update(buffer[:got])
        left -= got
    return size - left, first.hexdigest(), second.hexdigest()


def _hasher(hash_type: str) -> _Hasher:
    if hash_type == "blake3":
        hasher: _Hasher = blake3()
        return hasher
    return hashlib.new(hash_type, usedforsecurity=True)


def _state(status: os.stat_result) -> _State:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
