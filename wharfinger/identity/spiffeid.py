"""SPIFFE IDs and trust domains, strictly as the SPIFFE-ID standard writes them.

`SpiffeId(text)` and `TrustDomain(name)` validate on construction, so that a value of these types is
always well-formed and its text is its only spelling: two IDs are equal exactly when their texts are.
Where the standard calls scheme and trust domain case-insensitive yet wants them in lower case
(SPIFFE-ID 2, 2.1, 2.4), upper case is refused rather than folded: one identity, one spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from wharfinger.core.errors import excerpt
from wharfinger.identity.fault import BadIdentity

MAX_ID_BYTES: Final = 2048
"""The longest SPIFFE ID (SPIFFE-ID 2.3)."""
MAX_TRUST_DOMAIN_BYTES: Final = 255
"""The longest trust domain name (SPIFFE-ID 2.3)."""

_SCHEME = "spiffe://"
_NAME = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*)", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """The name of a trust domain, such as `wharfinger.local` (SPIFFE-ID 2.1).

    Raises `BadIdentity` when `name` is empty, longer than 255 bytes, or holds anything but
    lower-case letters, digits, dots, dashes and underscores.
    """

    name: str

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            _refuse_trust_domain(self.name)

    @classmethod
    def of(cls, text: str) -> TrustDomain:
        """Return the trust domain that `text`, a name or a whole SPIFFE ID, names.

        Raises `BadIdentity` when it is neither.
        """
        return SpiffeId(text).trust_domain if ":/" in text else cls(text)

    @property
    def id(self) -> SpiffeId:
        """The SPIFFE ID of the trust domain itself, without a path (SPIFFE-ID 2.2)."""
        return SpiffeId(_SCHEME + self.name)

    def __str__(self) -> str:
        """Return the name."""
        return self.name


@dataclass(frozen=True, slots=True)
class Workload:
    """What the ID of a workload says: its namespace and service account (SPIRE's default form)."""

    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Person:
    """What the ID of a person says: the tenant and the user's name in it."""

    tenant: str
    user: str


@dataclass(frozen=True, slots=True)
class Part:
    """What the ID of a part of the platform says: `api`, `issuer`, `registry`, ..., or `admin`, the local admin."""

    name: str


Kind: TypeAlias = Workload | Person | Part


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """One SPIFFE ID, such as `spiffe://wharfinger.local/ns/risk/sa/trainer` (SPIFFE-ID 2).

    Raises `BadIdentity`, naming the rule, when `text` is not one.
    """

    text: str

    def __post_init__(self) -> None:
        if _ID.fullmatch(self.text) is None or len(self.text) > MAX_ID_BYTES:
            _refuse_id(self.text)

    @classmethod
    def of(cls, trust_domain: TrustDomain, segments: Iterable[str]) -> SpiffeId:
        """Return the ID in `trust_domain` whose path has these `segments`.

        Raises `BadIdentity` when a segment is empty, a dot segment, or holds a character that a path may not.
        """
        return cls(f"{_SCHEME}{trust_domain.name}{join(segments)}")

    @classmethod
    def workload(cls, trust_domain: TrustDomain, namespace: str, service_account: str) -> SpiffeId:
        """Return the ID of the workload that runs as `service_account` in `namespace`; raises `BadIdentity`."""
        return cls.of(trust_domain, ("ns", namespace, "sa", service_account))

    @classmethod
    def person(cls, trust_domain: TrustDomain, tenant: str, user: str) -> SpiffeId:
        """Return the ID of `user` of `tenant`; raises `BadIdentity`."""
        return cls.of(trust_domain, ("tenant", tenant, "user", user))

    @classmethod
    def part(cls, trust_domain: TrustDomain, name: str) -> SpiffeId:
        """Return the ID of the platform's part `name`; raises `BadIdentity`."""
        return cls.of(trust_domain, ("wharfinger", name))

    @property
    def trust_domain(self) -> TrustDomain:
        """The trust domain that the ID belongs to."""
        return TrustDomain(self.text[len(_SCHEME) :].partition("/")[0])

    @property
    def path(self) -> str:
        """The path with its leading slash; empty for the ID of a trust domain."""
        _, slash, path = self.text[len(_SCHEME) :].partition("/")
        return slash + path

    @property
    def kind(self) -> Kind | None:
        """What the path says in this house's forms (design D3), None for any other path."""
        match self.path.split("/"):
            case ["", "ns", namespace, "sa", service_account]:
                return Workload(namespace, service_account)
            case ["", "tenant", tenant, "user", user]:
                return Person(tenant, user)
            case ["", "wharfinger", name]:
                return Part(name)
            case _:
                return None

    def member_of(self, trust_domain: TrustDomain) -> bool:
        """Say whether the ID belongs to `trust_domain`."""
        return self.trust_domain == trust_domain

    def __str__(self) -> str:
        """Return the ID's text."""
        return self.text


def join(segments: Iterable[str]) -> str:
    """Return the path of `segments`: a slash before each, empty for none.

    Raises `BadIdentity` when one is not a path segment (SPIFFE-ID 2.2).
    """
    return "".join("/" + segment_of(text) for text in segments)


def segment_of(text: str) -> str:
    """Return `text` if it may be a segment of a path (SPIFFE-ID 2.2); raises `BadIdentity`."""
    if not text:
        raise BadIdentity("empty_segment", "expected a path segment, got an empty one")
    if text in {".", ".."}:
        raise BadIdentity("dot_segment", f"expected no dot segment in a path, got {excerpt(text)}")
    if _SEGMENT.fullmatch(text) is None:
        raise BadIdentity(
            "bad_path_char", f"expected letters, digits, '.', '-' and '_' in a path segment, got {excerpt(text)}"
        )
    return text


def path_of(text: str) -> str:
    """Return `text` if it is the path of an ID: empty, or segments each after a slash; raises `BadIdentity`."""
    if not text:
        return text
    if not text.startswith("/"):
        raise BadIdentity("no_leading_slash", f"expected a path that starts with '/', got {excerpt(text)}")
    *before, last = text[1:].split("/")
    for segment in before:
        segment_of(segment)
    if not last:
        raise BadIdentity("trailing_slash", f"expected a path without a trailing slash, got {excerpt(text)}")
    segment_of(last)
    return text


def _refuse_trust_domain(name: str) -> None:
    if not name:
        raise BadIdentity("missing_trust_domain", "expected the name of a trust domain, got none")
    if len(name) > MAX_TRUST_DOMAIN_BYTES and _SEGMENT.fullmatch(name):
        raise BadIdentity(
            "trust_domain_too_long",
            f"expected a trust domain of at most {MAX_TRUST_DOMAIN_BYTES} bytes, got {len(name)}",
        )
    raise BadIdentity(
        "bad_trust_domain_char",
        f"expected lower-case letters, digits, '.', '-' and '_' in a trust domain, got {excerpt(name)}",
    )


def _refuse_id(text: str) -> None:
    """Raise `BadIdentity` for `text`, which is no ID, naming the first rule that it breaks from left to right."""
    if not text:
        raise BadIdentity("empty", "expected a SPIFFE ID, got an empty text")
    if not text.startswith(_SCHEME):
        raise BadIdentity("bad_scheme", f"expected a SPIFFE ID that starts with spiffe://, got {excerpt(text)}")
    name, slash, path = text[len(_SCHEME) :].partition("/")
    TrustDomain(name)
    path_of(slash + path)
    raise BadIdentity("too_long", f"expected a SPIFFE ID of at most {MAX_ID_BYTES} bytes, got {len(text)}")
