"""The registry: OCI Distribution 1.1 and the transparency log as one ASGI application.

The walk of a request: who calls (`authentication`), what is meant (`routes`), whether they may (`door`, on disk before
a byte flows), then bytes (`storage`). Content is reached through a manifest alone: a blob is readable when the
caller may pull a manifest of that repository that needs it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from urllib.parse import urlencode

from prometheus_client import Counter

from wharfinger.core.digests import check_sha256
from wharfinger.core.document import canonical
from wharfinger.core.errors import Conflict, Denied, Malformed, NotFound, Unauthenticated, WharfingerError
from wharfinger.identity.serve import Receive, Scope, Send, peer_of
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.supply.bundle import LARGEST_BUNDLE, Bundle
from wharfinger.supply.registry.authentication import Anonymous, Authenticator
from wharfinger.supply.registry.authorization import Action
from wharfinger.supply.registry.catalog import Catalog, Held
from wharfinger.supply.registry.door import RegistryDoor
from wharfinger.supply.registry.exchange import Exchange, Gone, Unsupported
from wharfinger.supply.registry.oci import INDEX, LARGEST_MANIFEST, MANIFEST, OCTETS, Manifest
from wharfinger.supply.registry.routes import (
    METHODS,
    BadDigest,
    Endpoint,
    Query,
    Route,
    byte_range,
    content_range,
    digest,
    name,
    route,
)
from wharfinger.supply.registry.storage import Storage, Upload
from wharfinger.supply.tlog.log import CHECKPOINT, Log

_REQUESTS: Final = Counter("wharfinger_registry_requests", "Requests answered.", ["endpoint", "method", "outcome"])
_UNKNOWN: Final = {
    Endpoint.MANIFEST: "MANIFEST_UNKNOWN",
    Endpoint.BLOB: "BLOB_UNKNOWN",
    Endpoint.UPLOADS: "BLOB_UPLOAD_INVALID",
    Endpoint.UPLOAD: "BLOB_UPLOAD_UNKNOWN",
    Endpoint.TAGS: "NAME_UNKNOWN",
    Endpoint.REFERRERS: "MANIFEST_UNKNOWN",
}
_METHODS: Final = frozenset(method for methods in METHODS.values() for method in methods)
_MOST_REFERRERS: Final = 1000
_LOG: Final = "/log/"
_Handler: TypeAlias = Callable[[Exchange, SpiffeId, Route], Awaitable[None]]


class Registry:
    """The application; `log` None serves no log. `trust_domain` is that of the platform's parts."""

    def __init__(
        self,
        storage: Storage,
        door: RegistryDoor,
        authenticator: Authenticator,
        trust_domain: str,
        log: Log | None = None,
    ) -> None:
        self._storage = storage
        self._catalog: Catalog = storage.catalog
        self._door = door
        self._authenticator = authenticator
        self._trust_domain = trust_domain
        self._log = log
        self._handlers: dict[Endpoint, _Handler] = {
            Endpoint.BASE: self._base,
            Endpoint.CATALOG: self._repositories,
            Endpoint.MANIFEST: self._manifest,
            Endpoint.BLOB: self._blob,
            Endpoint.UPLOADS: self._begin,
            Endpoint.UPLOAD: self._upload,
            Endpoint.TAGS: self._tags,
            Endpoint.REFERRERS: self._referrers,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        unknown, what, outcome = "UNKNOWN", "other", "ok"
        try:
            who = await self._caller(scope, exchange)
            if exchange.path.startswith(_LOG):
                what = "log"
                await self._serve_log(exchange, who)
                return
            meant = route(exchange.path)
            what, unknown = meant.endpoint.value, _UNKNOWN.get(meant.endpoint, "UNKNOWN")
            if exchange.method not in METHODS[meant.endpoint]:
                raise Unsupported(f"{exchange.method} is none of {', '.join(METHODS[meant.endpoint])} here")
            await self._handlers[meant.endpoint](exchange, who, meant)
        except Gone:
            outcome = "gone"
        except WharfingerError as error:
            outcome = error.code
            if exchange.started:
                raise
            await exchange.refuse(error, "MANIFEST_INVALID" if _is_bad_manifest(exchange, what, error) else unknown)
        finally:
            method = exchange.method if exchange.method in _METHODS else "other"
            _REQUESTS.labels(what, method, outcome).inc()

    async def _caller(self, scope: Scope, exchange: Exchange) -> SpiffeId:
        try:
            return self._authenticator.caller(peer_of(scope), exchange.headers)
        except Anonymous:
            raise
        except Unauthenticated as error:
            await self._door.refuse(str(error), f"{exchange.method} {exchange.path[:200]}")
            raise

    async def _base(self, exchange: Exchange, who: SpiffeId, meant: Route) -> None:
        await exchange.json({}, {"docker-distribution-api-version": "registry/2.0"})

    async def _repositories(self, exchange: Exchange, who: SpiffeId, meant: Route) -> None:
        last, most = Query.parse(exchange.query).page()
        names = [found for found in self._catalog.repositories(last) if self._door.may_see(who, found)]
        await exchange.json({"repositories": names[:most]}, _link(exchange, names, most))

    async def _tags(self, exchange: Exchange, who: SpiffeId, meant: Route) -> None:
        await self._door.open(who, Action.SEE, meant.repository)
        if not self._catalog.has_repository(meant.repository):
            raise NotFound(f"there is no repository {meant.repository}")
        last, most = Query.parse(exchange.query).page()
        tags = self._catalog.tags(meant.repository, last, most + 1)
        await exchange.json({"name": meant.repository, "tags": tags[:most]}, _link(exchange, tags, most))

    async def _referrers(self, exchange: Exchange, who: SpiffeId, meant: Route) -> None:
        query = Query.parse(exchange.query)
        await self._door.open(who, Action.PULL, meant.repository, self._catalog.ways(meant.repository, meant.reference))
        found = self._catalog.referrers(meant.repository, meant.reference)
        headers = {"content-type": INDEX}
        wanted, (last, most) = query.get("artifactType"), query.page()
        if wanted:
            found = [child for child in found if child.artifact_type == wanted]
            headers["oci-filters-applied"] = "artifactType"
        found = [child for child in found if child.digest > last]
        most = min(most, _MOST_REFERRERS) or 1
        headers |= _link(exchange, [child.digest for child in found], most, artifactType=wanted)
        index = Manifest(children=tuple(found[:most]), media_type=INDEX)
        await exchange.answer(200, headers, index.encode())

    async def _manifest(self, exchange: Exchange, who: SpiffeId, meant: Route) -> None:
        if exchange.method == "PUT":
            await self._put_manifest(exchange, who, meant)
            return
        held = self._catalog.resolve(meant.repository, meant.reference)
        if exchange.method == "DELETE":
            await self._delete_manifest(exchange, who, meant, held)
            return
        ways = self._catalog.ways(meant.repository, held.digest) if held is not None else _ways(meant.reference)
        if exchange.method == "HEAD":
            await self._door.look(who, meant.repository, ways)
        else:
            await self._door.open(who, Action.PULL, meant.repository, ways)
        if held is None:
            raise NotFound(f"{meant.repository} has no manifest {meant.reference}")
        _check_accepted(exchange, held)
        data = await asyncio.to_thread(self._storage.read, held.digest, LARGEST_MANIFEST)
        headers = {"content-type": held.media_type, **_digest_headers(held.digest)}
        await exchange.answer(200, headers, data)

    async def _put_manifest(self, exchange: Exchange, who: SpiffeId, meant: Route) -> None:
        await self._door.open(who, Action.PUSH, meant.repository)
        data = await exchange.body(LARGEST_MANIFEST)
        media_type = exchange.header(b"content-type").partition(";")[0].strip()
        if media_type not in (MANIFEST, INDEX):
            raise Malformed(f"expected Content-Type {MANIFEST} or {INDEX}", hint="push OCI manifests")
        manifest = Manifest.parse(data, media_type)
        tag = "" if ":" in meant.reference else meant.reference
        if not tag:
            check_sha256(data, meant.reference, "manifest")
        stored = await asyncio.to_thread(self._storage.put_manifest, meant.repository, data, manifest, tag)
        headers = {"location": f"/v2/{meant.repository}/manifests/{stored}", **_digest_headers(stored)}
        if manifest.subject is not None:
            headers["oci-subject"] = manifest.subject.digest
        await exchange.answer(201, headers)

    async def _delete_manifest(self, exchange: Exchange, who: SpiffeId, meant: Route, held: Held | None) -> None:
        await self._door.open(who, Action.DELETE, meant.repository, (held.digest,) if held is not None else ())
        if held is None:
            raise NotFound(f"{meant.repository} has no manifest {meant.reference}")
        if ":" in meant.reference:
            await asyncio.to_thread(self._storage.delete_manifest, meant.repository, held.digest)
        else:
            await asyncio.to_thread(self._catalog.delete_tag, meant.repository, meant.reference)
        await exchange.answer(202)

    async def _blob(self, exchange: Exchange, who: SpiffeId, meant: Route) -> None:
        size = self._catalog.blob_size(meant.repository, meant.reference)
        if exchange.method == "DELETE":
            await self._door.open(who, Action.DELETE, meant.repository)
            await asyncio.to_thread(self._storage.delete_blob, meant.repository, meant.reference)
            await exchange.answer(202)
            return
        ways = self._catalog.ways_to_blob(meant.repository, meant.reference)
        if exchange.method == "HEAD":
            # Who pushes asks what is there already; what no manifest needs yet nobody may read.
            await self._door.look(who, meant.repository, ways)
        else:
            await self._door.open(who, Action.PULL, meant.repository, ways)
        if size is None or (not ways and exchange.method != "HEAD"):
            raise NotFound(f"{meant.repository} has no blob {meant.reference} that a manifest needs")
        await self._send_blob(exchange, meant.reference, size)

    async def _send_blob(self, exchange: Exchange, wanted: str, size: int) -> None:
        told = [value for key, value in exchange.headers if key == b"range"]
        part = byte_range(told, size) if exchange.method == "GET" else None
        headers = {"content-type": OCTETS, "accept-ranges": "bytes", **_digest_headers(wanted)}
        descriptor = await asyncio.to_thread(self._storage.open, wanted)
        try:
            if part is None:
                await exchange.file(descriptor, 0, size, 200, headers)
            else:
                start, end = part
                headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
                await exchange.file(descriptor, start, end, 206, headers)
        finally:
            os.close(descriptor)

    async def _begin(self, exchange: Exchange, who: SpiffeId, meant: Route) -> None:
        await self._door.open(who, Action.PUSH, meant.repository)
        query = Query.parse(exchange.query)
        if query.get("mount"):
            wanted, source = digest(query.get("mount")), query.get("from")
            if source and await self._mounted(who, wanted, name(source), meant.repository):
                await exchange.answer(201, _blob_headers(meant.repository, wanted))
                return
        wanted = digest(query.get("digest")) if query.get("digest") else ""
        upload = self._storage.begin(meant.repository, str(who))
        with self._storage.held(upload):
            if wanted:
                await self._fill(exchange, upload)
                await self._finish(exchange, upload, wanted)
                return
        await exchange.answer(202, _upload_headers(upload))

    async def _mounted(self, who: SpiffeId, wanted: str, source: str, target: str) -> bool:
        """Mount a blob that `who` may pull from the repository `source`; say whether that was done."""
        ways = self._catalog.ways_to_blob(source, wanted)
        if not ways:
            return False
        try:
            await self._door.open(who, Action.PULL, source, ways)
        except Denied:
            # The blob must be sent then, as if it were not here (distribution-spec, "Mounting a blob").
            return False
        return await asyncio.to_thread(self._storage.mount, source, wanted, target)

    async def _upload(self, exchange: Exchange, who: SpiffeId, meant: Route) -> None:
        upload = self._storage.upload(meant.reference, meant.repository, str(who))
        await self._door.open(who, Action.PUSH, meant.repository)
        with self._storage.held(upload):
            if exchange.method == "GET":
                await exchange.answer(204, _upload_headers(upload))
            elif exchange.method == "DELETE":
                await asyncio.to_thread(self._storage.cancel, upload)
                await exchange.answer(204)
            elif exchange.method == "PATCH":
                if await self._in_order(exchange, upload):
                    await self._fill(exchange, upload)
                    await exchange.answer(202, _upload_headers(upload))
            else:
                wanted = Query.parse(exchange.query).get("digest")
                if not wanted:
                    raise BadDigest("expected the digest of the blob, got none")
                digest(wanted)
                if await self._in_order(exchange, upload):
                    await self._fill(exchange, upload)
                    await self._finish(exchange, upload, wanted)

    async def _in_order(self, exchange: Exchange, upload: Upload) -> bool:
        """Say whether a chunk begins where the upload is; answer 416 when it does not."""
        text = exchange.header(b"content-range")
        if not text:
            return True
        start, end = content_range(text)
        if exchange.length is not None and end - start != exchange.length:
            raise Malformed(f"expected {end - start} bytes, as the range says, got {exchange.length}")
        if start == upload.size:
            return True
        await exchange.answer(416, _upload_headers(upload))
        return False

    async def _fill(self, exchange: Exchange, upload: Upload) -> None:
        """Add the body to an upload; after any error the upload is where it was.

        What came before the client left is kept: it may come back and ask how far it got.
        """
        before = upload.size
        await asyncio.to_thread(self._storage.check_room, exchange.length or 0)
        try:
            async for chunk in exchange.chunks():
                await asyncio.to_thread(self._storage.write, upload, chunk)
            if exchange.length is not None and upload.size - before != exchange.length:
                raise Malformed(f"expected {exchange.length} bytes, got {upload.size - before}")
        except WharfingerError:
            await asyncio.to_thread(self._storage.cut, upload, before)
            raise

    async def _finish(self, exchange: Exchange, upload: Upload, wanted: str) -> None:
        await asyncio.to_thread(self._storage.finish, upload, wanted)
        await exchange.answer(201, _blob_headers(upload.repository, wanted))

    async def _serve_log(self, exchange: Exchange, who: SpiffeId) -> None:
        if self._log is None:
            raise NotFound("no log is served here")
        path = exchange.path[len(_LOG) :]
        if path == "entries":
            if exchange.method != "POST":
                raise Unsupported("expected POST of a bundle")
            await self._door.only_control(who, self._trust_domain, "append", "to the transparency log")
            bundle = Bundle.parse(await exchange.body(LARGEST_BUNDLE))
            logged = await asyncio.wrap_future(self._log.submit(bundle))
            await exchange.answer(201, {"content-type": "application/json"}, canonical(logged.to_json()))
            return
        if exchange.method not in ("GET", "HEAD"):
            raise Unsupported("expected GET")
        # What the log holds is public among those who are known: reading it is no decision.
        data = await asyncio.to_thread(self._log.read, path)
        if path == CHECKPOINT:
            await exchange.answer(200, {"content-type": "text/plain; charset=utf-8", "cache-control": "no-cache"}, data)
        else:
            await exchange.answer(200, {"content-type": OCTETS, "cache-control": "max-age=31536000, immutable"}, data)


def _is_bad_manifest(exchange: Exchange, what: str, error: WharfingerError) -> bool:
    return what == Endpoint.MANIFEST and exchange.method == "PUT" and isinstance(error, Malformed | Conflict)


def _ways(reference: str) -> tuple[str, ...]:
    return (reference,) if ":" in reference else ()


def _check_accepted(exchange: Exchange, held: Held) -> None:
    """Raise `NotFound` when the client accepts media types, but not the manifest's."""
    accepted = [
        item.partition(";")[0].strip()
        for key, value in exchange.headers
        if key == b"accept"
        for item in value.decode("latin-1").split(",")
    ]
    if accepted and held.media_type not in accepted and not {"*/*", "application/*"} & set(accepted):
        raise NotFound(f"the manifest is of {held.media_type}, which the client does not accept")


def _digest_headers(stored: str) -> dict[str, str]:
    return {"docker-content-digest": stored, "etag": f'"{stored}"'}


def _blob_headers(repository: str, stored: str) -> dict[str, str]:
    return {"location": f"/v2/{repository}/blobs/{stored}", "docker-content-digest": stored}


def _upload_headers(upload: Upload) -> dict[str, str]:
    return {
        "location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "range": f"0-{max(upload.size - 1, 0)}",
        "docker-upload-uuid": upload.id,
    }


def _link(exchange: Exchange, names: list[str], most: int, **more: str) -> dict[str, str]:
    """Return the link to the next page of a list, where there is one (RFC 5988)."""
    if most == 0 or len(names) <= most:
        return {}
    query = urlencode({"n": most, "last": names[most - 1], **{key: value for key, value in more.items() if value}})
    return {"link": f'<{exchange.path}?{query}>; rel="next"'}
