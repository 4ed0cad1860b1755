"""Where a process gets its own SVID and the bundles to judge others by, kept current.

The port `SvidSource` has two adapters: `FileSource` here (what a kubeconfig or a folder of PEM files holds) and
`workloadsource.WorkloadSource` (the SPIFFE Workload API, which rotates).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wharfinger.core.errors import HostUnfit, Unavailable
from wharfinger.identity.bundle import Bundle, Bundles
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.x509svid import X509Svid, certificates_from_pem


@dataclass(frozen=True, slots=True)
class Material:
    """One state of a source: the process's own X509-SVID and every bundle it may judge by."""

    svid: X509Svid
    bundles: Bundles


class SvidSource(Protocol):
    """Gives a process its identity. Threads may share one."""

    def material(self) -> Material:
        """Return the newest material; waits for the first. Raises `Unavailable` when there is none to be had."""
        ...

    def jwt_svid(self, audience: SpiffeId) -> str:
        """Return a JWT-SVID of this process for `audience`, valid for at least half its lifetime.

        Raises `Unavailable` when nobody issues one here.
        """
        ...

    def subscribe(self, changed: Callable[[Material], None]) -> Callable[[], None]:
        """Call `changed` with each new material, from a thread of the source's; return what ends that."""
        ...

    def close(self) -> None:
        """Stop whatever keeps the source current."""
        ...


class Subscribers:
    """The callbacks of one source."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Material], None]] = []

    def add(self, changed: Callable[[Material], None]) -> Callable[[], None]:
        """Add a callback; return what removes it again."""
        with self._lock:
            self._callbacks.append(changed)

        def remove() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._callbacks.remove(changed)

        return remove

    def tell(self, material: Material) -> None:
        """Call every callback with `material`, in the order they were added."""
        with self._lock:
            callbacks = list(self._callbacks)
        for changed in callbacks:
            changed(material)


class FileSource:
    """`SvidSource` on material that was read once or is set by hand: files, a kubeconfig, a test.

    `set` replaces it, which tells the subscribers.
    """

    def __init__(self, material: Material) -> None:
        self._material = material
        self._subscribers = Subscribers()

    def material(self) -> Material:
        """Return the material."""
        return self._material

    def set(self, material: Material) -> None:
        """Replace the material; new handshakes use it from now on."""
        self._material = material
        self._subscribers.tell(material)

    def jwt_svid(self, audience: SpiffeId) -> str:
        """Raise `Unavailable`: files hold X509-SVIDs only."""
        raise Unavailable(
            f"expected an issuer that gives a JWT-SVID for {audience}, got an identity from files",
            hint="ask the issuer's control surface for one",
        )

    def subscribe(self, changed: Callable[[Material], None]) -> Callable[[], None]:
        """Call `changed` at each `set`; return what ends that."""
        return self._subscribers.add(changed)

    def close(self) -> None:
        """Do nothing: nothing is kept current."""


def from_pem(certificates: bytes, key: bytes, bundle: bytes) -> FileSource:
    """Return a source on PEM texts: an X509-SVID, its key, and the CA certificates of its trust domain.

    Raises `BadIdentity` when one of them cannot be read.
    """
    svid = X509Svid.from_pem(certificates, key)
    trust_domain = svid.id.trust_domain
    return FileSource(Material(svid, {trust_domain: Bundle(trust_domain, certificates_from_pem(bundle))}))


def from_files(certificates: Path, key: Path, bundle: Path) -> FileSource:
    """Return a source on PEM files; raises `HostUnfit` when one cannot be read, `BadIdentity` when one is not PEM."""
    texts: list[bytes] = []
    for path in (certificates, key, bundle):
        try:
            texts.append(path.read_bytes())
        except OSError as error:
            raise HostUnfit(f"{path}: {error.strerror}") from error
    return from_pem(*texts)
