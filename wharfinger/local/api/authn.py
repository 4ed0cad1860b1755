"""Who is calling: the SPIFFE ID of the client's certificate, or of its JWT-SVID."""

from __future__ import annotations

from collections.abc import Callable

from wharfinger.core.errors import Unauthenticated, WharfingerError
from wharfinger.identity.serve import Scope, peer_of
from wharfinger.identity.spiffeid import Person, SpiffeId
from wharfinger.local.api.reviews import Caller

VerifyToken = Callable[[str], SpiffeId]
"""Returns whose JWT-SVID a token is, meant for this server; raises `Unauthenticated` or `Malformed`."""


class Authenticator:
    """Names the caller of a request; a certificate goes before a token, and a bad token is never nobody."""

    def __init__(self, verify_token: VerifyToken) -> None:
        self._verify_token = verify_token

    def __call__(self, scope: Scope, authorization: str) -> Caller:
        """Return the caller of the request in `scope` with this Authorization header.

        Raises `Unauthenticated` when it shows nothing, or a token that does not hold.
        """
        peer = peer_of(scope)
        if peer is not None:
            return _known(peer, "X509-SVID")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            try:
                return _known(self._verify_token(token.strip()), "JWT-SVID")
            except WharfingerError as error:
                raise Unauthenticated(f"Unauthorized: {error.message}") from error
        raise Unauthenticated(
            "Unauthorized", hint="call with a client certificate or a JWT-SVID; wharf kubeconfig makes one"
        )


def _known(who: SpiffeId, how: str) -> Caller:
    match who.kind:
        case Person(tenant, _):
            return Caller(who.text, how, ("system:authenticated", f"tenant:{tenant}"))
        case _:
            return Caller(who.text, how)
