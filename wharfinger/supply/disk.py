"""Writes that last: a file is replaced at once and is on disk when the call returns.

Raises `OSError`; the callers, who know what was to be written, make it one of ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from wharfinger.core.errors import HostUnfit

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageFull(HostUnfit):
    """The disk, or the quota on it, has no room for more bytes; nothing was changed."""

    code = "StorageFull"
    status = 507


def replace_file(path: Path, data: bytes, *, sync: bool = True, mode: int = 0o600) -> None:
    """Write `data` to `path`: a reader sees the old bytes or the new, never a part. On disk, if `sync`."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    temporary.replace(path)
    if sync:
        sync_folder(path.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Have the names in `folder` on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfit(what: str, error: OSError) -> HostUnfit:
    """Return our error for a write of `what` that failed."""
    if error.errno in _FULL:
        return StorageFull(f"{what}: {os.strerror(error.errno or 0)}", hint="free space on the disk, then repeat")
    return HostUnfit(f"{what}: {error.strerror or error}", hint="fix the permissions or the disk")
