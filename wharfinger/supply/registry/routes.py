"""The registry's paths: which endpoint a request means (distribution-spec 1.1, "Endpoints"), and what it may ask.

Pure. A name or digest that is not well formed never becomes a route.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qs

from wharfinger.core.digests import parse_sha256
from wharfinger.core.errors import Malformed, NotFound, WharfingerError, excerpt
from wharfinger.supply.registry.oci import parse_name, parse_reference

MOST_NAMES: Final = 1000
"""Names in one page of a list."""


class Endpoint(StrEnum):
    """What a path is about."""

    BASE = "base"
    CATALOG = "catalog"
    MANIFEST = "manifest"
    BLOB = "blob"
    UPLOADS = "uploads"
    UPLOAD = "upload"
    TAGS = "tags"
    REFERRERS = "referrers"


METHODS: Final = {
    Endpoint.BASE: ("GET", "HEAD"),
    Endpoint.CATALOG: ("GET",),
    Endpoint.MANIFEST: ("GET", "HEAD", "PUT", "DELETE"),
    Endpoint.BLOB: ("GET", "HEAD", "DELETE"),
    Endpoint.UPLOADS: ("POST",),
    Endpoint.UPLOAD: ("GET", "PATCH", "PUT", "DELETE"),
    Endpoint.TAGS: ("GET",),
    Endpoint.REFERRERS: ("GET",),
}


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint, the repository it is about, and the `reference`: tag, digest or the upload's id."""

    endpoint: Endpoint
    repository: str = ""
    reference: str = ""


class BadName(Malformed):
    """The name of a repository is not one (NAME_INVALID)."""


class BadDigest(Malformed):
    """A digest is not one that is supported (DIGEST_INVALID)."""


class BadTag(Malformed):
    """A tag is not one: nothing can be there (MANIFEST_INVALID)."""


_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_FORMS: Final = (
    (re.compile(r"/v2/(.+)/blobs/uploads/?"), Endpoint.UPLOADS),
    (re.compile(r"/v2/(.+)/blobs/uploads/([^/]+)"), Endpoint.UPLOAD),
    (re.compile(r"/v2/(.+)/manifests/([^/]+)"), Endpoint.MANIFEST),
    (re.compile(r"/v2/(.+)/blobs/([^/]+)"), Endpoint.BLOB),
    (re.compile(r"/v2/(.+)/referrers/([^/]+)"), Endpoint.REFERRERS),
    (re.compile(r"/v2/(.+)/tags/list"), Endpoint.TAGS),
)


def route(path: str) -> Route:
    """Return what the decoded `path` is about.

    Raises `BadName`, `BadDigest`, `BadTag` for a part of it that is not well formed, `NotFound` for no endpoint.
    """
    if path in ("/v2", "/v2/"):
        return Route(Endpoint.BASE)
    if path == "/v2/_catalog":
        return Route(Endpoint.CATALOG)
    for form, endpoint in _FORMS:
        match = form.fullmatch(path)
        if match is None:
            continue
        repository = name(match[1])
        reference = match[2] if form.groups > 1 else ""
        if endpoint is Endpoint.UPLOAD and _ID.fullmatch(reference) is None:
            raise NotFound("there is no such upload")
        if endpoint in (Endpoint.BLOB, Endpoint.REFERRERS):
            digest(reference)
        if endpoint is Endpoint.MANIFEST:
            if ":" in reference:
                digest(reference)
            else:
                try:
                    parse_reference(reference)
                except WharfingerError as error:
                    raise BadTag(str(error)) from error
        return Route(endpoint, repository, reference)
    raise NotFound(f"there is nothing at {excerpt(path)}")


def name(text: str) -> str:
    """Return `text` if it is the name of a repository in a namespace. Raises `BadName`."""
    try:
        parse_name(text)
    except WharfingerError as error:
        raise BadName(str(error)) from error
    if "/" not in text:
        raise BadName(f"expected NAMESPACE/NAME, got {excerpt(text)}", hint="a repository belongs to a namespace")
    return text


def digest(text: str) -> str:
    """Return `text` if it is a digest. Raises `BadDigest`."""
    try:
        return parse_sha256(text)
    except WharfingerError as error:
        raise BadDigest(str(error)) from error


@dataclass(frozen=True, slots=True)
class Query:
    """What stands behind the question mark; of what is there twice, neither counts."""

    values: dict[str, str]

    @classmethod
    def parse(cls, text: bytes) -> Query:
        """Return the query in `text`. Raises `Malformed`."""
        try:
            found = parse_qs(text.decode("ascii"), keep_blank_values=True, max_num_fields=32, errors="strict")
        except ValueError as error:
            raise Malformed(f"expected a query, got {excerpt(str(error))}") from error
        twice = [key for key, told in found.items() if len(told) > 1]
        if twice:
            raise Malformed(f"expected {excerpt(twice[0])} once")
        return cls({key: told[0] for key, told in found.items()})

    def get(self, key: str) -> str:
        """Return a value, empty where there is none."""
        return self.values.get(key, "")

    def page(self) -> tuple[str, int]:
        """Return after which name a page of a list begins, and how many it may hold. Raises `Malformed`."""
        count = self.get("n")
        if not count:
            return self.get("last"), MOST_NAMES
        if not (count.isascii() and count.isdigit() and len(count) < 10):
            raise Malformed(f"expected n as a number, got {excerpt(count)}")
        return self.get("last"), min(int(count), MOST_NAMES)


_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
_CONTENT_RANGE: Final = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?", re.ASCII)


class BadRange(Malformed):
    """A range that cannot be satisfied (RFC 9110 14.1.2)."""

    status = 416


def byte_range(headers: Sequence[bytes], size: int) -> tuple[int, int] | None:
    """Return the range [start, end) that a Range header asks for of `size` bytes, None for all of them.

    A header that is no single range of bytes is passed over (RFC 9110 14.2). Raises `BadRange`.
    """
    match = _RANGE.fullmatch(headers[0].decode("latin-1").strip()) if len(headers) == 1 else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= end:
        raise BadRange(f"expected a range within {size} bytes")
    return start, end


def content_range(text: str) -> tuple[int, int]:
    """Return the range [start, end) that a chunk says it is (distribution-spec: `start-last`). Raises `Malformed`."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise Malformed(f"expected Content-Range as START-LAST, got {excerpt(text)}")
    return int(match[1]), int(match[2]) + 1
