"""JWT-SVIDs: verified strictly as the SPIFFE JWT-SVID standard writes them."""

from __future__ import annotations

from wharfinger.core.clock import Instant
from wharfinger.identity.bundle import Bundles
from wharfinger.identity.spiffeid import SpiffeId


def verify(token: str, bundles: Bundles, audience: str, now: Instant) -> SpiffeId:
    """Return the SPIFFE ID that `token` proves to `audience` at `now` under the JWT authorities of `bundles`.

    Raises `BadIdentity` when it is not a JWT-SVID, `UntrustedIdentity` when it proves nothing here and now.
    """
    raise NotImplementedError
