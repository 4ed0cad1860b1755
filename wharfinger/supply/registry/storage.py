"""The registry's bytes on disk, by content address: `blobs/sha256/ab/abcd...`; uploads apart until they are whole.

A blob appears at once and durably, under the name that its bytes have; a name is made of a checked digest or a drawn
id alone, so that no request names a path.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from wharfinger.core import failpoint
from wharfinger.core.clock import HOUR, Clock, Instant
from wharfinger.core.digests import parse_sha256, sha256
from wharfinger.core.errors import Conflict, DigestMismatch, Malformed, NotFound, Throttled, TooLarge
from wharfinger.core.ids import Ids
from wharfinger.supply.disk import StorageFull, sync_folder, unfit, write_all
from wharfinger.supply.registry.catalog import Catalog, MissingBlob
from wharfinger.supply.registry.oci import LARGEST_BLOB, Manifest

CHUNK: Final = 1024 * 1024
MOST_UPLOADS: Final = 1024
MOST_UPLOADS_EACH: Final = 64
"""Uploads under way, in all and of one identity."""
UPLOAD_LIFETIME: Final = HOUR
"""How long an upload is kept after its last byte."""
ROOM: Final = 64 * 1024 * 1024
"""Bytes of the disk that uploads leave free, for journals and catalog."""
_BEFORE, _AFTER = failpoint.declare("registry.blob")


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


@dataclass(slots=True)
class Upload:
    """A blob on its way to `repository` by `who`: `size` bytes so far. One request at a time holds `lock`."""

    id: str
    repository: str
    who: str
    path: Path
    touched: Instant
    descriptor: int
    size: int = 0
    hasher: _Hasher = field(default_factory=hashlib.sha256)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Storage:
    """Blobs and uploads below `directory`, catalogued in `catalog`; threads share it.

    Opening sweeps what a crash left: uploads, and blobs that no repository holds. Raises `HostUnfit`, in every method
    `StorageFull` where the disk is.
    """

    def __init__(self, directory: Path, catalog: Catalog, clock: Clock, ids: Ids, *, room: int = ROOM) -> None:
        self.catalog = catalog
        self._blobs = directory / "blobs" / "sha256"
        self._pending = directory / "uploads"
        self._clock = clock
        self._ids = ids
        self._room = room
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        try:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._pending)
            self._pending.mkdir(mode=0o700, parents=True)
            self._blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise unfit("registry", error) from error

    def path(self, digest: str) -> Path:
        """Return where the blob `digest` is. Raises `Malformed`."""
        name = parse_sha256(digest)[7:]
        return self._blobs / name[:2] / name

    def open(self, digest: str) -> int:
        """Return a descriptor that reads the blob. Raises `NotFound` when its bytes are gone."""
        try:
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise NotFound(f"the bytes of {digest} are not here") from error
        except OSError as error:
            raise unfit(f"blob {digest}", error) from error

    def read(self, digest: str, limit: int) -> bytes:
        """Return a blob of at most `limit` bytes. Raises `NotFound`, `TooLarge`."""
        with os.fdopen(self.open(digest), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise TooLarge(f"blob {digest}: expected at most {limit} bytes")
        return data

    def begin(self, repository: str, who: str) -> Upload:
        """Begin an upload. Raises `Throttled` when too many are under way."""
        now = self._clock.now()
        with self._lock:
            for old in [u for u in self._uploads.values() if u.touched + UPLOAD_LIFETIME < now]:
                if old.lock.acquire(blocking=False):
                    self._drop(old)
            own = sum(1 for upload in self._uploads.values() if upload.who == who)
            if len(self._uploads) >= MOST_UPLOADS or own >= MOST_UPLOADS_EACH:
                raise Throttled(
                    f"expected at most {MOST_UPLOADS_EACH} uploads at a time, got one more",
                    retry_after=10,
                    hint="end those that are open",
                )
            name = self._ids.uid()
            path = self._pending / name
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise unfit("registry", error) from error
            upload = Upload(name, repository, who, path, now, descriptor)
            self._uploads[name] = upload
            return upload

    def upload(self, name: str, repository: str, who: str) -> Upload:
        """Return an upload of `who` to `repository`. Raises `NotFound`, for another's too."""
        with self._lock:
            upload = self._uploads.get(name)
        if upload is None or upload.repository != repository or upload.who != who:
            raise NotFound("there is no such upload", hint="begin another")
        return upload

    def check_room(self, size: int) -> None:
        """Raise `StorageFull` unless the disk has room for `size` more bytes."""
        status = os.statvfs(self._pending)
        if status.f_bavail * status.f_frsize < size + self._room:
            raise StorageFull(f"registry: no room for {size} bytes", hint="free space on the disk, then repeat")

    @contextlib.contextmanager
    def held(self, upload: Upload) -> Iterator[Upload]:
        """Hold `upload` for one request. Raises `Conflict` while another holds it, `NotFound` when it is over."""
        if not upload.lock.acquire(blocking=False):
            raise Conflict("another request is writing to this upload", hint="send one chunk at a time")
        try:
            if upload.descriptor < 0:
                raise NotFound("there is no such upload", hint="begin another")
            yield upload
        finally:
            upload.lock.release()

    def write(self, upload: Upload, data: bytes) -> None:
        """Add `data` to a held upload. Raises `TooLarge`, `StorageFull`; then nothing of `data` counts."""
        if upload.size + len(data) > LARGEST_BLOB:
            raise TooLarge(f"expected a blob of at most {LARGEST_BLOB} bytes")
        # Not every body says its length: none may take the room that evidence needs.
        self.check_room(len(data))
        try:
            write_all(upload.descriptor, data)
        except OSError as error:
            self.cut(upload, upload.size)
            raise unfit("registry", error) from error
        upload.hasher.update(data)
        upload.size += len(data)
        upload.touched = self._clock.now()

    def cut(self, upload: Upload, size: int) -> None:
        """Take a held upload back to its first `size` bytes."""
        with contextlib.suppress(OSError):
            os.ftruncate(upload.descriptor, size)
            os.lseek(upload.descriptor, size, os.SEEK_SET)
        if size == upload.size:
            return
        upload.hasher, upload.size = hashlib.sha256(), size
        left = size
        with upload.path.open("rb") as file:
            while left and (data := file.read(min(CHUNK, left))):
                upload.hasher.update(data)
                left -= len(data)

    def finish(self, upload: Upload, digest: str) -> None:
        """Make a held upload the blob `digest` of its repository. Raises `DigestMismatch`; the upload is over then."""
        got = f"sha256:{upload.hasher.hexdigest()}"
        try:
            if got != digest:
                raise DigestMismatch(f"blob: expected {digest}, got {got}")
            os.fsync(upload.descriptor)
            with self.catalog.lock:
                self._place(upload.path, digest)
                self.catalog.add_blob(upload.repository, digest, upload.size)
        except OSError as error:
            raise unfit("registry", error) from error
        finally:
            self._forget(upload)

    def cancel(self, upload: Upload) -> None:
        """End a held upload and forget its bytes."""
        self._forget(upload)

    def mount(self, source: str, digest: str, target: str) -> bool:
        """Have the repository `target` hold a blob of `source` too; say whether `source` holds it."""
        with self.catalog.lock:
            size = self.catalog.blob_size(source, digest)
            if size is None:
                return False
            self.catalog.add_blob(target, digest, size)
            return True

    def put_manifest(self, repository: str, data: bytes, manifest: Manifest, tag: str = "") -> str:
        """Have `repository` hold the manifest in `data`; return its digest. Raises `catalog.MissingBlob`."""
        digest = sha256(data)
        path = self._pending / self._ids.uid()
        try:
            with self.catalog.lock:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    write_all(descriptor, data)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                self._place(path, digest)
                try:
                    self.catalog.add_manifest(repository, digest, len(data), manifest, tag)
                except MissingBlob:
                    if not self.catalog.holds(digest):
                        self._remove([digest])
                    raise
        except OSError as error:
            raise unfit("registry", error) from error
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
        return digest

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Have `repository` forget a manifest, and the disk what nobody holds any more. Raises `NotFound`."""
        with self.catalog.lock:
            self._remove(self.catalog.delete_manifest(repository, digest))

    def delete_blob(self, repository: str, digest: str) -> None:
        """Have `repository` forget a blob that no manifest needs. Raises `NotFound`, `catalog.MissingBlob`."""
        with self.catalog.lock:
            self._remove(self.catalog.delete_blob(repository, digest))

    def close(self) -> None:
        """End every upload."""
        for upload in list(self._uploads.values()):
            self._forget(upload)

    def _place(self, path: Path, digest: str) -> None:
        """Give the synced file at `path` the name that its bytes have; what is there already is replaced, so healed."""
        target = self.path(digest)
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._blobs)
        failpoint.reached(_BEFORE)
        path.replace(target)
        sync_folder(target.parent)
        failpoint.reached(_AFTER)

    def _remove(self, digests: Iterable[str]) -> None:
        for digest in digests:
            with contextlib.suppress(FileNotFoundError):
                self.path(digest).unlink()

    def _forget(self, upload: Upload) -> None:
        with self._lock:
            self._drop(upload)

    def _drop(self, upload: Upload) -> None:
        self._uploads.pop(upload.id, None)
        descriptor, upload.descriptor = upload.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            upload.path.unlink()

    def _sweep(self) -> None:
        held = self.catalog.everything()
        for folder in self._blobs.iterdir():
            for path in folder.iterdir():
                try:
                    known = parse_sha256(f"sha256:{path.name}") in held
                except Malformed:
                    known = False
                if not known:
                    path.unlink()
