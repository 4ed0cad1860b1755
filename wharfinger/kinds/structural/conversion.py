"""Conversion between a definition's versions: the webhook that does it (apis/apiextensions/validation)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from wharfinger.core import names
from wharfinger.core.causes import child, forbidden, invalid, item, not_supported, required
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem

_PATH: Final = "spec.conversion"
_RECOGNIZED: Final = ("v1", "v1beta1")
_PORT: Final = 443
_FORM: Final = "; desired format: https://host[/path]"
_certificate = re.compile(rb"-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def is_recognized(versions: list[str]) -> bool:
    """Tell whether a stored list of review versions holds one that the API server speaks; an empty one counts."""
    return not versions or any(version in _RECOGNIZED for version in versions)


def has_bad_bundle(conversion: Json) -> bool:
    """Tell whether a stored conversion has CA certificates that cannot be read."""
    bundle: str = (conversion.get("webhookClientConfig") or {}).get("caBundle") or ""
    return bundle != "" and any(_bundle_problems(bundle, ""))


def conversion_problems(conversion: Json, *, recognized: bool, any_bundle: bool) -> Iterator[FieldProblem]:
    """Yield what is wrong with a conversion in its internal form.

    `recognized` asks for a review version that the API server speaks; `any_bundle` lets CA certificates be anything.
    """
    strategy = conversion.get("strategy") or ""
    if not strategy:
        yield required(child(_PATH, "strategy"))
    elif strategy not in {"None", "Webhook"}:
        yield not_supported(child(_PATH, "strategy"), strategy, ("None", "Webhook"))
    client, versions = conversion.get("webhookClientConfig"), conversion.get("conversionReviewVersions") or []
    if strategy != "Webhook":
        text = "should not be set when strategy is not set to Webhook"
        if client is not None:
            yield forbidden(child(_PATH, "webhookClientConfig"), text)
        if versions:
            yield forbidden(child(_PATH, "conversionReviewVersions"), text)
        return
    if client is None:
        yield required(child(_PATH, "webhookClientConfig"), "required when strategy is set to Webhook")
    else:
        yield from _client_problems(client, child(_PATH, "webhookClientConfig"), any_bundle=any_bundle)
    yield from _review_problems(versions, child(_PATH, "conversionReviewVersions"), recognized=recognized)


def _client_problems(client: Json, path: str, *, any_bundle: bool) -> Iterator[FieldProblem]:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        yield required(path, "exactly one of url or service is required")
    elif url is not None:
        yield from _url_problems(url, child(path, "url"))
    else:
        yield from _service_problems(service, child(path, "service"))
    if client.get("caBundle") and not any_bundle:
        yield from _bundle_problems(client["caBundle"], child(path, "caBundle"))


def _url_problems(url: str, path: str) -> Iterator[FieldProblem]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        yield required(path, f"url must be a valid URL: {error}{_FORM}")
        return
    if parts.scheme != "https":
        yield invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}")
    host = parts.netloc.rpartition("@")[2]
    if not host:
        yield invalid(path, "", f"host must be specified{_FORM}")
    for value, text in (
        (parts.netloc.rpartition("@")[0], "user information is not permitted in the URL"),
        (parts.fragment, "fragments are not permitted in the URL"),
        (parts.query, "query parameters are not permitted in the URL"),
    ):
        if value:
            yield invalid(path, value, text)


def _service_problems(service: Json, path: str) -> Iterator[FieldProblem]:
    # Upstream swaps the two names when it calls the check, so the fields in messages are swapped as well.
    for name, other in (("name", "namespace"), ("namespace", "name")):
        if not service.get(other):
            yield required(child(path, name))
    port = service.get("port", _PORT)
    wrong = names.port(port if isinstance(port, int) else 0)
    if wrong:
        yield invalid(child(path, "port"), port, f"port is not valid: {', '.join(wrong)}")
    where, at = service.get("path") or "/", child(path, "path")
    if where == "/":
        return
    if where == "//":
        yield invalid(at, where, "segment[0] may not be empty")
        return
    if not where.startswith("/"):
        yield invalid(at, where, "must start with a '/'")
    for index, step in enumerate(where[1:].removesuffix("/").split("/")):
        if not step:
            yield invalid(at, where, f"segment[{index}] may not be empty")
        for text in names.dns_subdomain(step) if step else ():
            yield invalid(at, where, f"segment[{index}]: {text}")


def _bundle_problems(bundle: str, path: str) -> Iterator[FieldProblem]:
    try:
        raw = base64.b64decode(bundle, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if _certificate.search(raw) is None:
        yield invalid(path, bundle, "unable to load root certificates: unable to parse bytes as PEM block")


def _review_problems(versions: list[str], path: str, *, recognized: bool) -> Iterator[FieldProblem]:
    if not versions:
        yield required(path)
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            yield invalid(item(path, index), version, "duplicate version")
            continue
        for text in names.dns_1035_label(version):
            yield invalid(item(path, index), version, text)
    if recognized and not any(version in _RECOGNIZED for version in versions):
        yield invalid(path, versions, f"must include at least one of {', '.join(_RECOGNIZED)}")
