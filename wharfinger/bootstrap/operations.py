"""Requests to the platform's parts as the local admin: what the command line asks of a running platform.

mTLS with the certificate in the state directory's kubeconfig; the part is judged by its SPIFFE ID.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Final

from wharfinger.bootstrap.state import State
from wharfinger.cluster.client import error_of
from wharfinger.cluster.endpoint import credentials
from wharfinger.core.document import Json, canonical
from wharfinger.core.errors import Corrupt, HostUnfit, Unavailable, WharfingerError, excerpt
from wharfinger.identity.source import FileSource, from_pem
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context

TIMEOUT_SECONDS: Final = 60.0


def admin(state: State) -> FileSource:
    """Return the local admin's identity.

    Raises `HostUnfit` when there is no kubeconfig, `Invalid` or `BadIdentity` when it is not one.
    """
    told = credentials(state.kubeconfig)
    return from_pem(told.certificates, told.key, told.authorities)


def port_of(state: State, part: str) -> int:
    """Return the port of `part`. Raises `HostUnfit` when no platform was ever started here, `Corrupt`."""
    try:
        port = json.loads((state.root / "ports.json").read_bytes())[part]
    except OSError as error:
        raise HostUnfit(f"no platform on {state.root}", hint="start one with wharf up") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{state.root}/ports.json: expected a port for {part}") from error
    return int(port)


def request(state_dir: Path, part: str, method: str, path: str, body: Json = None) -> bytes:
    """Send a request, with `body` as JSON, to a part of the platform on `state_dir`; return what it answers.

    Raises the error that a refusal names, `Unavailable` when the part does not answer, and what `admin` and `port_of`
    raise.
    """
    state = State(state_dir.absolute())
    source = admin(state)
    expected = SpiffeId.part(source.material().svid.id.trust_domain, part)
    connection = http.client.HTTPSConnection(
        "127.0.0.1",
        port_of(state, part),
        timeout=TIMEOUT_SECONDS,
        context=client_context(source, expect=expected),
    )
    try:
        data = None if body is None else canonical(body)
        connection.request(method, path, body=data, headers={"Content-Type": "application/json"} if data else {})
        answer = connection.getresponse()
        found = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            f"{part} does not answer: {error or type(error).__name__}", hint="wharf status shows what runs"
        ) from error
    finally:
        connection.close()
    if answer.status >= 400:
        raise refusal(answer.status, found)
    return found


def refusal(status: int, data: bytes) -> WharfingerError:
    """Return the error that an answer with this `status` and body stands for: a Kubernetes `Status`, or any text."""
    try:
        told = json.loads(data)
    except ValueError:
        told = None
    if not isinstance(told, dict) or "message" not in told:
        told = {"message": f"HTTP status {status}: {excerpt(data[:200].decode('utf-8', 'replace'))}"}
    error = error_of(told, status)
    error.hint = str(told.get("hint") or "")
    return error
