"""Continue tokens: where a list that is read in pages goes on. Pure."""

from __future__ import annotations

import base64
import binascii

import orjson

from wharfinger.core.errors import Malformed, excerpt


def write_token(at: int, after: tuple[str, str]) -> str:
    """Return the token that continues a list at resourceVersion `at` after the key `after`."""
    text = orjson.dumps({"v": "meta.k8s.io/v1", "rv": at, "start": list(after)})
    return base64.urlsafe_b64encode(text).decode("ascii").rstrip("=")


def read_token(token: str) -> tuple[int, tuple[str, str]]:
    """Return what `write_token` wrote. Raises `Malformed` for any other text."""
    try:
        found = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        at, (namespace, name) = found["rv"], found["start"]
    except (binascii.Error, ValueError, TypeError, KeyError) as error:
        raise Malformed(f"continue key is not valid: {excerpt(token)}") from error
    if type(at) is not int or not isinstance(namespace, str) or not isinstance(name, str) or at < 0:
        raise Malformed(f"continue key is not valid: {excerpt(token)}")
    return at, (namespace, name)
