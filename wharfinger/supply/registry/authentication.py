"""Who is calling the registry: an SVID over mTLS, or a JWT-SVID as a bearer token or as a password.

Unmodified OCI clients know user names and passwords alone: `oras login -u any -p JWT-SVID` is how they come in.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from wharfinger.core.errors import Malformed, Unauthenticated, WharfingerError
from wharfinger.identity.jwtsvid import LONGEST_TOKEN
from wharfinger.identity.spiffeid import SpiffeId

VerifyToken: TypeAlias = Callable[[str], SpiffeId]
"""Names the holder of a JWT-SVID that is meant for the registry; raises `WharfingerError`."""
CHALLENGE: Final = b'Basic realm="wharfinger", charset="UTF-8"'
_HINT: Final = "wharf token gives one; use it as the password"


class Anonymous(Unauthenticated):
    """No credentials came: the client is asked for some."""


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Names the caller of a request."""

    verify_token: VerifyToken

    def caller(self, peer: SpiffeId | None, headers: Iterable[tuple[bytes, bytes]]) -> SpiffeId:
        """Return who calls: the holder of the token that came, or else the `peer` of the connection.

        A token that does not hold is not passed over for the peer. Raises `Anonymous`, `Unauthenticated`.
        """
        told = [value for name, value in headers if name == b"authorization"]
        if not told:
            if peer is None:
                raise Anonymous("expected an SVID or a JWT-SVID, got no credentials", hint=_HINT)
            return peer
        if len(told) > 1:
            raise Unauthenticated("expected one Authorization header, got more")
        try:
            return self.verify_token(token_of(told[0]))
        except Malformed as error:
            raise Unauthenticated(str(error), hint=_HINT) from error
        except WharfingerError as error:
            raise Unauthenticated(str(error), hint=error.hint or _HINT) from error


def token_of(header: bytes) -> str:
    """Return the token in an Authorization header, Bearer or the password of Basic. Raises `Malformed`."""
    if len(header) > 2 * LONGEST_TOKEN:
        raise Malformed("expected a shorter Authorization header")
    scheme, _, rest = header.decode("latin-1").strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            text = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError) as error:
            raise Malformed("expected base64 of user:password as Basic credentials") from error
        _, colon, password = text.partition(":")
        if not colon:
            raise Malformed("expected base64 of user:password as Basic credentials")
        return password
    raise Malformed("expected Bearer or Basic credentials")
