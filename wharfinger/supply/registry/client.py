"""A client of OCI registries that believes no byte: whatever has a digest is checked against it as it is read.

Works with any registry of distribution-spec 1.1; ours authenticates it by its SVID over mTLS. The server is
accepted by its SPIFFE ID alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

from wharfinger.core.digests import check_sha256, parse_sha256, sha256
from wharfinger.core.document import parse_json
from wharfinger.core.errors import Conflict, Denied, DigestMismatch, HostUnfit, Malformed, NotFound, TooLarge, excerpt
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context
from wharfinger.supply.channel import CHUNK, Channel
from wharfinger.supply.registry.oci import (
    EMPTY,
    EMPTY_BYTES,
    INDEX,
    LARGEST_MANIFEST,
    MANIFEST,
    OCTETS,
    TITLE,
    Descriptor,
    Manifest,
    is_digest,
    parse_name,
    parse_reference,
)

Progress = Callable[[int], None]
"""Told the number of bytes just moved."""
MOST_PAGES: Final = 1000
AT_ONCE: Final = 1024 * 1024
"""Bytes of a blob that is pushed in one request."""
LARGEST_IN_MEMORY: Final = 64 * 1024 * 1024
"""Bytes of a blob that `pull_blob` returns whole unless told."""
_ACCEPT: Final = f"{MANIFEST}, {INDEX}"
_NEXT: Final = re.compile(r'<([^>]{1,2000})>\s*;\s*rel="?next"?', re.ASCII)


@dataclass(frozen=True, slots=True)
class Pulled:
    """A manifest as it came: verified against `digest` where it was asked for by digest."""

    manifest: Manifest
    digest: str
    data: bytes


class RegistryClient:
    """Speaks to the registry on `host` and `port` as the identity that `source` holds; threads share it.

    `expect` is the registry's SPIFFE ID, by default the part `registry` of the source's own trust domain. `channel`
    replaces all of it, for tests. Methods raise `Denied`, `NotFound`, `Malformed`, `TooLarge`, `Throttled`,
    `Unavailable`; `DigestMismatch` when the registry gave other bytes than were asked for.
    """

    def __init__(
        self,
        host: str,
        port: int,
        source: SvidSource | None = None,
        *,
        expect: SpiffeId | None = None,
        channel: Channel | None = None,
    ) -> None:
        if channel is None:
            assert source is not None, "a client needs an identity"
            wanted = expect or SpiffeId.part(source.material().svid.id.trust_domain, "registry")
            channel = Channel(host, port, client_context(source, expect=wanted), "registry")
        self.channel = channel

    def pull_manifest(self, repository: str, reference: str) -> Pulled:
        """Return the manifest that `reference`, a tag or a digest, names in `repository`."""
        path = f"{_repository(repository)}/manifests/{parse_reference(reference)}"
        with self.channel.ask("GET", path, headers={"Accept": _ACCEPT}) as answer:
            data = self.channel.read(answer, LARGEST_MANIFEST)
            media_type = (answer.headers.get("Content-Type") or "").partition(";")[0].strip()
        if is_digest(reference):
            check_sha256(data, reference, f"manifest {repository}@{reference}")
        return Pulled(Manifest.parse(data, media_type if media_type in (MANIFEST, INDEX) else ""), sha256(data), data)

    def resolve(self, repository: str, tag: str) -> str:
        """Return the digest of the manifest that `tag` names now."""
        return self.pull_manifest(repository, tag).digest

    def pull_blob(self, repository: str, blob: Descriptor, *, limit: int = LARGEST_IN_MEMORY) -> bytes:
        """Return the bytes of `blob`, of at most `limit`, verified."""
        if blob.size > limit:
            raise TooLarge(f"blob {blob.digest}: expected at most {limit} bytes, got {blob.size}")
        return b"".join(self.stream_blob(repository, blob))

    def stream_blob(self, repository: str, blob: Descriptor) -> Iterator[bytes]:
        """Yield the bytes of `blob` as they come; raises `DigestMismatch` at the end when they are not its own.

        Nothing is to be done with a chunk that could not be undone before the last one came.
        """
        hasher, got = hashlib.sha256(), 0
        with self.channel.ask("GET", f"{_repository(repository)}/blobs/{parse_sha256(blob.digest)}") as answer:
            while chunk := answer.read(min(CHUNK, blob.size - got + 1)):
                got += len(chunk)
                if got > blob.size:
                    raise DigestMismatch(f"blob {blob.digest}: expected {blob.size} bytes, got more")
                hasher.update(chunk)
                yield chunk
        if got != blob.size or f"sha256:{hasher.hexdigest()}" != blob.digest:
            raise DigestMismatch(f"blob: expected {blob.digest} of {blob.size} bytes, got {got} of other content")

    def save_blob(self, repository: str, blob: Descriptor, path: Path, progress: Progress | None = None) -> None:
        """Write `blob` to the new file `path`; after any error there is no such file. Raises `HostUnfit`, too."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                for chunk in self.stream_blob(repository, blob):
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(descriptor, view) :]
                    if progress is not None:
                        progress(len(chunk))
            except BaseException:
                path.unlink()
                raise
            finally:
                os.close(descriptor)
        except FileExistsError as error:
            raise Conflict(f"{excerpt(str(path))} is there already") from error
        except OSError as error:
            raise HostUnfit(f"{excerpt(str(path))}: {error.strerror}") from error

    def has_blob(self, repository: str, digest: str) -> bool:
        """Say whether `repository` holds the blob already."""
        try:
            with self.channel.ask("HEAD", f"{_repository(repository)}/blobs/{parse_sha256(digest)}"):
                return True
        except NotFound:
            return False

    def push_blob(
        self,
        repository: str,
        content: bytes | Path,
        *,
        media_type: str = OCTETS,
        annotations: Mapping[str, str] | None = None,
        digest: str = "",
        progress: Progress | None = None,
    ) -> Descriptor:
        """Push `content`, unless it is there, and return its descriptor.

        `digest`, where it is known, spares a push of what is there; a file that does not have it any more raises
        `Conflict`.
        """
        labels = annotations or {}
        if isinstance(content, bytes):
            blob = Descriptor.of(media_type, content, labels)
            if not self._may_skip(repository, blob.digest):
                self._upload_whole(repository, content, blob.digest)
            if progress is not None:
                progress(blob.size)
            return blob
        try:
            with content.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if digest and self._may_skip(repository, digest):
                    if progress is not None:
                        progress(size)
                    return Descriptor(media_type, digest, size, labels)
                if size > AT_ONCE:
                    chunks = iter(lambda: file.read(CHUNK), b"")
                    got, sent = self._upload(repository, chunks, size, progress, digest)
                    return Descriptor(media_type, got, sent, labels)
                data = file.read(AT_ONCE + 1)
        except OSError as error:
            raise HostUnfit(f"{excerpt(str(content))}: {error.strerror}") from error
        blob = Descriptor.of(media_type, data, labels)
        if len(data) != size or (digest and blob.digest != digest):
            raise Conflict(f"{excerpt(str(content))} changed while it was pushed", hint="stop what writes there")
        self._upload_whole(repository, data, blob.digest)
        if progress is not None:
            progress(size)
        return blob

    def push_manifest(self, repository: str, manifest: Manifest, *, tag: str = "") -> str:
        """Push `manifest`, whose blobs are there, by digest and under `tag` where one is given; return its digest."""
        return self.push_manifest_bytes(repository, manifest.encode(), manifest.media_type, tag=tag)

    def push_manifest_bytes(self, repository: str, data: bytes, media_type: str, *, tag: str = "") -> str:
        """Push the bytes of a manifest as they are; return their digest."""
        digest = sha256(data)
        path = f"{_repository(repository)}/manifests/{parse_reference(tag or digest)}"
        with self.channel.ask("PUT", path, headers={"Content-Type": media_type}, body=data) as answer:
            self.channel.read(answer)
        return digest

    def push(
        self,
        repository: str,
        files: Mapping[str, Path | bytes],
        *,
        artifact_type: str,
        config: bytes = EMPTY_BYTES,
        config_type: str = EMPTY,
        layer_type: str = OCTETS,
        annotations: Mapping[str, str] | None = None,
        subject: Descriptor | None = None,
        tag: str = "",
    ) -> str:
        """Push `files`, path to content, as one artifact with a layer per file; return the manifest's digest."""
        layers = tuple(
            self.push_blob(repository, content, media_type=layer_type, annotations={TITLE: path})
            for path, content in sorted(files.items())
        )
        if not layers:
            self.push_blob(repository, EMPTY_BYTES)
        manifest = Manifest(
            config=self.push_blob(repository, config, media_type=config_type),
            layers=layers,
            subject=subject,
            artifact_type=artifact_type,
            annotations=annotations or {},
        )
        return self.push_manifest(repository, manifest, tag=tag)

    def copy(self, source: str, digest: str, target: str, *, tag: str = "") -> None:
        """Have the artifact `digest` of the repository `source` in `target` too, mounted rather than sent again."""
        pulled = self.pull_manifest(source, digest)
        for blob in {blob.digest: blob for blob in pulled.manifest.blobs}.values():
            query = urlencode({"mount": blob.digest, "from": source})
            with self.channel.ask("POST", f"{_repository(target)}/blobs/uploads/?{query}") as answer:
                location = answer.headers.get("Location", "") if answer.status == 202 else ""
                self.channel.read(answer)
            if location:
                self._send_to(location, self.stream_blob(source, blob), blob.size, None, blob.digest)
        for child in pulled.manifest.children:
            self.copy(source, child.digest, target)
        self.push_manifest_bytes(target, pulled.data, pulled.manifest.media_type, tag=tag)

    def referrers(self, repository: str, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the descriptors of the manifests whose subject is `digest`, of `artifact_type` where one is given."""
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        found: list[Descriptor] = []
        for data in self._pages(f"{_repository(repository)}/referrers/{parse_sha256(digest)}{query}"):
            found.extend(Manifest.parse(data, INDEX).children)
        # A registry may pass over the filter, and say so (distribution-spec, "Listing referrers").
        return tuple(child for child in found if not artifact_type or child.artifact_type == artifact_type)

    def tags(self, repository: str) -> tuple[str, ...]:
        """Return the tags of `repository`, in order."""
        return tuple(
            tag for data in self._pages(f"{_repository(repository)}/tags/list") for tag in _texts(data, "tags")
        )

    def repositories(self) -> tuple[str, ...]:
        """Return the repositories that the caller may see."""
        return tuple(name for data in self._pages("/v2/_catalog") for name in _texts(data, "repositories"))

    def delete_manifest(self, repository: str, reference: str) -> None:
        """Delete a manifest by its digest, or a tag alone by its name."""
        with self.channel.ask("DELETE", f"{_repository(repository)}/manifests/{parse_reference(reference)}") as answer:
            self.channel.read(answer)

    def close(self) -> None:
        """Close this thread's connection."""
        self.channel.close()

    def _may_skip(self, repository: str, digest: str) -> bool:
        """As `has_blob`; a refusal is left to the push itself, whose answer can say why."""
        try:
            return self.has_blob(repository, digest)
        except Denied:
            return False

    def _upload_whole(self, repository: str, data: bytes, digest: str) -> None:
        """Push a small blob in one request, or in two where the registry wants it so (distribution-spec, end-4b)."""
        path = f"{_repository(repository)}/blobs/uploads/?{urlencode({'digest': digest})}"
        with self.channel.ask("POST", path, headers={"Content-Type": OCTETS}, body=data) as answer:
            location = answer.headers.get("Location", "") if answer.status == 202 else ""
            self.channel.read(answer)
        if location:
            self._send_to(location, iter([data] if data else []), len(data), None, digest)

    def _upload(
        self,
        repository: str,
        chunks: Iterator[bytes],
        size: int,
        progress: Progress | None = None,
        digest: str = "",
    ) -> tuple[str, int]:
        with self.channel.ask("POST", f"{_repository(repository)}/blobs/uploads/") as answer:
            location = answer.headers.get("Location", "")
            self.channel.read(answer)
        return self._send_to(location, chunks, size, progress, digest)

    def _send_to(
        self, location: str, chunks: Iterator[bytes], size: int, progress: Progress | None, digest: str
    ) -> tuple[str, int]:
        """Send one blob to an upload in one request, then close the upload under the digest of what was sent."""
        hasher, sent = hashlib.sha256(), 0

        def read() -> Iterator[bytes]:
            nonlocal sent
            for chunk in chunks:
                hasher.update(chunk)
                sent += len(chunk)
                if sent > size:
                    raise Conflict("a file grew while it was pushed", hint="stop what writes there, then repeat")
                yield chunk
                if progress is not None:
                    progress(len(chunk))
            if sent != size:
                raise Conflict("a file shrank while it was pushed", hint="stop what writes there, then repeat")

        try:
            if size:
                headers = {"Content-Type": OCTETS, "Content-Range": f"0-{size - 1}"}
                with self.channel.ask("PATCH", _path(location), headers=headers, body=read(), length=size) as answer:
                    location = answer.headers.get("Location", location)
                    self.channel.read(answer)
            got = f"sha256:{hasher.hexdigest()}"
            if digest and got != digest:
                raise Conflict(f"expected {digest}, got {got}: the file changed", hint="stop what writes there")
        except Conflict:
            # The request was left in the middle: neither it nor its connection can go on.
            self.channel.close()
            with contextlib.suppress(NotFound), self.channel.ask("DELETE", _path(location)) as answer:
                self.channel.read(answer)
            raise
        path = _path(location)
        with self.channel.ask("PUT", f"{path}{'&' if '?' in path else '?'}{urlencode({'digest': got})}") as answer:
            self.channel.read(answer)
        return got, sent

    def _pages(self, path: str) -> Iterator[bytes]:
        for _ in range(MOST_PAGES):
            with self.channel.ask("GET", path) as answer:
                link = _NEXT.search(answer.headers.get("Link") or "")
                yield self.channel.read(answer)
            if link is None:
                return
            path = _path(link[1])
        raise TooLarge(f"expected a list of at most {MOST_PAGES} pages, got more")


def _repository(name: str) -> str:
    return f"/v2/{parse_name(name)}"


def _path(location: str) -> str:
    """Return path and query of a location; whatever host it names, we stay with the one that we authenticated."""
    parts = urlsplit(location)
    if not parts.path.startswith("/v2/"):
        raise Malformed(f"registry: expected a location below /v2/, got {excerpt(location)}")
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _texts(data: bytes, name: str) -> list[str]:
    value = parse_json(data)
    items = value.get(name) if isinstance(value, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise Malformed(f"registry: expected a list of {name}")
    return items
