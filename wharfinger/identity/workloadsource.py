"""A process's identity from the SPIFFE Workload API: its X.509-SVID and bundles, rotated in time, and JWT-SVIDs.

`WorkloadSource(path)` is the adapter of `source.SvidSource` that every part and every workload uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from wharfinger.core.errors import Malformed, Unavailable, excerpt
from wharfinger.identity.bundle import Bundles
from wharfinger.identity.source import Material
from wharfinger.identity.spiffeid import SpiffeId


def socket_path(environment: Mapping[str, str]) -> Path:
    """Return the Workload API socket that `SPIFFE_ENDPOINT_SOCKET` names (SPIFFE Workload Endpoint 4).

    Raises `Malformed` when it is not `unix:` and an absolute path, `Unavailable` when it is not set.
    """
    told = environment.get("SPIFFE_ENDPOINT_SOCKET", "")
    if not told:
        raise Unavailable("expected SPIFFE_ENDPOINT_SOCKET, got nothing", hint="run as a workload of the platform")
    path = Path(told.removeprefix("unix:").replace("///", "/", 1))
    if not told.startswith("unix:") or not path.is_absolute():
        raise Malformed(f"expected unix:///PATH in SPIFFE_ENDPOINT_SOCKET, got {excerpt(told)}")
    return path


class WorkloadSource:
    """`SvidSource` on a Workload API socket: a thread of its own follows the stream of SVIDs.

    `wait` is how many seconds `material` waits for the first SVID, and `jwt_svid` for an answer.
    """

    def __init__(self, socket: Path, *, wait: float = 30.0) -> None:
        self._socket = socket
        self._wait = wait

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> WorkloadSource:
        """Return a source on the socket that `environment` names; raises what `socket_path` raises."""
        return cls(socket_path(environment))

    @property
    def id(self) -> SpiffeId:
        """The SPIFFE ID of this process; waits for the first SVID. Raises `Unavailable`."""
        return self.material().svid.id

    def material(self) -> Material:
        """Return the newest material; waits for the first. Raises `Unavailable` when there is none to be had."""
        raise NotImplementedError

    def jwt_svid(self, audience: SpiffeId) -> str:
        """Return a JWT-SVID for `audience` with at least half its life left; raises `Unavailable`."""
        raise NotImplementedError

    def jwt_bundles(self) -> Bundles:
        """Return the bundles by which JWT-SVIDs are judged, kept current by a stream; raises `Unavailable`."""
        raise NotImplementedError

    def subscribe(self, changed: Callable[[Material], None]) -> Callable[[], None]:
        """Call `changed` with each new material, from this source's thread; return what ends that."""
        raise NotImplementedError

    def close(self) -> None:
        """End the streams and their threads."""
        raise NotImplementedError
