"""The local admin: whoever holds the state directory. Their kubeconfig, and that of people whom they let in.

The supervisor is introduced to the issuer as `admin`; what it gets there becomes `kubeconfig`, mode 0600, with
everything inline, and is written anew whenever the identity rotates: it holds for a day, renewed at half of that.
Beside it stands `ca.pem`, the platform's authorities alone, for clients that know nothing of ours: `SSL_CERT_FILE`.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from wharfinger.bootstrap.state import State, write_file
from wharfinger.core.errors import HostUnfit, Unauthenticated
from wharfinger.identity.source import Material
from wharfinger.identity.spiffeid import SpiffeId, TrustDomain
from wharfinger.identity.workloadsource import WorkloadSource
from wharfinger.identity.x509svid import certificates_to_pem

CLUSTER: Final = "wharfinger"
_log = logging.getLogger(__name__)


def keep_fleet(state: State, fleet: Path | None) -> None:
    """Take the file `fleet` into the state directory, where the node finds it; raises as `bootstrap.fleet`."""
    from wharfinger.bootstrap.fleet import keep_fleet as keep

    keep(state, fleet)


def write_kubeconfig(state: State, trust_domain: str, ports: Mapping[str, int]) -> WorkloadSource:
    """Write the local admin's kubeconfig, now and at each rotation, for as long as this process lives.

    Returns the source that keeps it current. Raises `Unavailable` when the issuer gives no identity, `Unauthenticated`
    when it gives another one, `HostUnfit` when the file cannot be written.
    """
    expected = SpiffeId.part(TrustDomain(trust_domain), "admin")
    source = WorkloadSource(state.run / "issuer.sock")
    material = source.material()
    if material.svid.id != expected:
        source.close()
        raise Unauthenticated(f"expected the identity {expected}, got {material.svid.id}")

    def write(renewed: Material) -> None:
        write_file(state.kubeconfig, of_admin(renewed, ports["api"]))
        authorities = renewed.bundles[renewed.svid.id.trust_domain].x509_authorities
        write_file(state.root / "ca.pem", certificates_to_pem(authorities), 0o644)

    def renew(renewed: Material) -> None:
        try:
            write(renewed)
        except OSError as error:
            _log.error("kubeconfig", extra={"fields": {"error": str(error)}})

    try:
        write(material)
    except OSError as error:
        source.close()
        raise HostUnfit(f"kubeconfig: {error.strerror}", hint="free space or fix permissions") from error
    source.subscribe(renew)
    with contextlib.suppress(OSError):
        newest = source.material()
        if newest is not material:
            write(newest)
    return source


def of_admin(material: Material, port: int) -> bytes:
    """Return a kubeconfig with the identity in `material` for the API server on the loopback `port`."""
    svid = material.svid
    return kubeconfig(
        port=port,
        authorities=certificates_to_pem(material.bundles[svid.id.trust_domain].x509_authorities),
        user="admin",
        certificates=svid.chain_pem(),
        key=svid.key_pem(),
    )


def kubeconfig(
    *, port: int, authorities: bytes, user: str, certificates: bytes, key: bytes, namespace: str = "default"
) -> bytes:
    """Return a kubeconfig whose certificates and key stand in it, so that it can be handed on as one file."""
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": CLUSTER,
                "cluster": {
                    "server": f"https://127.0.0.1:{port}",
                    "certificate-authority-data": _base64(authorities),
                },
            }
        ],
        "users": [
            {
                "name": user,
                "user": {"client-certificate-data": _base64(certificates), "client-key-data": _base64(key)},
            }
        ],
        "contexts": [
            {
                "name": f"{user}@{CLUSTER}",
                "context": {"cluster": CLUSTER, "user": user, "namespace": namespace},
            }
        ],
        "current-context": f"{user}@{CLUSTER}",
    }
    return yaml.safe_dump(config, sort_keys=False, width=10**6).encode("utf-8")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
