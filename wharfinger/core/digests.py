"""Content digests, written as OCI writes them: `sha256:` and 64 lower-case hex digits."""

from __future__ import annotations

import hashlib
import re

from wharfinger.core.errors import DigestMismatch, Malformed, excerpt

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def sha256(data: bytes | bytearray | memoryview) -> str:
    """Return the digest of `data`, `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def parse_sha256(text: str) -> str:
    """Return `text` if it is a sha256 digest (OCI image-spec, descriptor, Digests).

    Raises `Malformed` when it is not.
    """
    if _SHA256.fullmatch(text) is None:
        raise Malformed(f"expected a digest sha256:<64 lower-case hex digits>, got {excerpt(text)}")
    return text


def check_sha256(data: bytes | bytearray | memoryview, digest: str, what: str) -> None:
    """Raise `DigestMismatch`, naming `what`, unless `data` has this `digest`."""
    got = sha256(data)
    if got != digest:
        raise DigestMismatch(f"{what}: expected {digest}, got {got}")
