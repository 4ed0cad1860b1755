"""Where an API server is and how to speak to it: from a kubeconfig, or handed in by a process with its SVID."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wharfinger.core.errors import HostUnfit, Invalid, excerpt


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An API server: `host`, `port`, the TLS context to reach it with (None: plain, for tests on loopback).

    `token` gives the bearer token of a request, for callers without a certificate.
    """

    host: str
    port: int
    context: ssl.SSLContext | None = None
    token: Callable[[], str] | None = None
    namespace: str = "default"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a kubeconfig holds for mTLS, in PEM: the servers' authorities, the client's chain (leaf first), its key."""

    authorities: bytes
    certificates: bytes
    key: bytes


def from_kubeconfig(path: Path, context: str = "") -> Endpoint:
    """Return the endpoint that `context` (default: the current one) of a kubeconfig names.

    Reads certificate-authority, client-certificate, client-key (inline or files) and token. Raises `HostUnfit` when the
    file cannot be read, `Invalid` naming the field that is wrong.
    """
    told, cluster, user = _chosen(path, context)
    try:
        server = urlsplit(str(cluster["server"]))
        port = server.port or (443 if server.scheme == "https" else 80)
    except (KeyError, ValueError) as error:
        raise Invalid(f"kubeconfig {path}: expected field {excerpt(str(error))}") from error
    tls = _context(path, cluster, user) if server.scheme == "https" else None
    token = user.get("token")
    return Endpoint(
        server.hostname or "127.0.0.1",
        port,
        tls,
        (lambda: str(token)) if token else None,
        told.get("namespace", "default"),
    )


def credentials(path: Path, context: str = "") -> Credentials:
    """Return the certificates and the key that `context` of a kubeconfig names; raises as `from_kubeconfig`."""
    _, cluster, user = _chosen(path, context)
    return Credentials(
        _bytes(path, cluster, "certificate-authority"),
        _bytes(path, user, "client-certificate"),
        _bytes(path, user, "client-key"),
    )


def _chosen(path: Path, context: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the context, the cluster and the user that `context` names."""
    import yaml

    try:
        with path.open(encoding="utf-8") as text:
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            config = yaml.load(text, Loader=loader)  # noqa: S506  a safe loader, in C where there is one
    except OSError as error:
        raise HostUnfit(
            f"kubeconfig {path}: {error.strerror}", hint="start the platform with wharf up, or set KUBECONFIG"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Invalid(f"kubeconfig {path}: expected YAML: {excerpt(str(error))}") from error
    try:
        wanted = context or config["current-context"]
        told = _named(config["contexts"], wanted, "contexts")["context"]
        cluster = _named(config["clusters"], told["cluster"], "clusters")["cluster"]
        user = _named(config["users"], told["user"], "users")["user"]
        return told, cluster, user
    except (KeyError, TypeError) as error:
        raise Invalid(f"kubeconfig {path}: expected field {excerpt(str(error))}") from error


def _named(entries: list[dict[str, Any]], name: str, where: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise KeyError(f"{where}[name={name}]")


def _context(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=_bytes(path, cluster, "certificate-authority").decode("ascii"))
        if "client-certificate" in user or "client-certificate-data" in user:
            pair = _bytes(path, user, "client-key") + b"\n" + _bytes(path, user, "client-certificate")
            descriptor = os.memfd_create("client", os.MFD_CLOEXEC)
            try:
                os.write(descriptor, pair)
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
            finally:
                os.close(descriptor)
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise Invalid(f"kubeconfig {path}: expected PEM certificates and key: {error}") from error
    return context


def _bytes(path: Path, entry: dict[str, Any], field: str) -> bytes:
    inline = entry.get(f"{field}-data")
    try:
        if inline is not None:
            return base64.b64decode(inline, validate=True)
        return (path.parent / str(entry[field])).read_bytes()
    except KeyError as error:
        raise Invalid(f"kubeconfig {path}: expected {field} or {field}-data") from error
    except (OSError, binascii.Error, ValueError) as error:
        raise Invalid(f"kubeconfig {path}: {field}: {error}") from error
