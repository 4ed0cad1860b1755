"""Who calls the gateway: a client certificate, a JWT-SVID or an API key, each to one SPIFFE ID.

A certificate is verified by TLS before the first byte of the request. A bearer token is an API key when it begins as
ours do, else a JWT-SVID for the gateway. With a certificate and a token both must say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from wharfinger.core.errors import Unauthenticated, WharfingerError
from wharfinger.identity import apikey
from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.spiffeid import Part, SpiffeId
from wharfinger.inference.http1 import Request

VerifyToken: TypeAlias = Callable[[str], SpiffeId]
"""Returns whom a JWT-SVID for the gateway proves; raises an error of the family."""
_HOW: Final = "come with a client certificate, a JWT-SVID for the gateway or an API key"


def keys_of(secrets: Iterable[Mapping[str, Any]], tenants: Iterable[Mapping[str, Any]]) -> dict[str, SpiffeId]:
    """Return the holders of the API keys in `secrets` by the keys' digests, but for keys that may not name theirs."""
    tenant_of = {ns: t["metadata"]["name"] for t in tenants for ns in t["spec"].get("namespaces", ())}
    found: dict[str, SpiffeId] = {}
    for secret in secrets:
        if secret.get("type") != apikey.SECRET_TYPE or secret["metadata"].get("deletionTimestamp"):
            continue
        try:
            key = apikey.read(secret, tenant_of)
        except BadIdentity:
            continue
        found[key.sha256] = key.holder
    return found


class Callers:
    """Names the caller of a request; `keys` is replaced when Secrets change."""

    def __init__(self, verify_token: VerifyToken) -> None:
        self._verify_token = verify_token
        self.keys: Mapping[str, SpiffeId] = {}

    def identify(self, request: Request) -> str:
        """Return the caller's SPIFFE ID. Raises `Unauthenticated`."""
        bearer = self._bearer(request)
        if request.peer is None and bearer is None:
            raise Unauthenticated("nobody is calling: no certificate and no token", hint=_HOW)
        if request.peer is not None and bearer is not None and request.peer != bearer:
            raise Unauthenticated(f"the certificate says {request.peer}, the token {bearer}", hint="send one of them")
        caller = bearer or request.peer
        assert caller is not None
        return str(caller)

    def _bearer(self, request: Request) -> SpiffeId | None:
        told = request.headers.get(b"authorization")
        if told is None:
            return None
        scheme, _, token = told.decode("latin-1").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("expected Authorization: Bearer and a token", hint=_HOW)
        if token.startswith(apikey.PREFIX):
            holder = self.keys.get(apikey.digest(token))
            if holder is None:
                raise Unauthenticated("this API key is not known here", hint="it may have been deleted")
            return holder
        try:
            found = self._verify_token(token)
        except WharfingerError as error:
            raise Unauthenticated(f"the token proves nothing here: {error}", hint=_HOW) from error
        return found


def is_part(peer: SpiffeId | None, trust_domain: str, names: Iterable[str]) -> bool:
    """Say whether `peer` is one of these parts of the platform of `trust_domain`."""
    if peer is None or str(peer.trust_domain) != trust_domain:
        return False
    kind = peer.kind
    return isinstance(kind, Part) and kind.name in names
