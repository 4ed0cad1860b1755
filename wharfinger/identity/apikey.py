"""API keys: a name for a SPIFFE ID, kept as a Secret that holds the key's digest, never the key.

The Secret is of type `wharfinger.io/apikey`; its data are `sha256` (hex over the key's text) and `spiffeId`. One in
`wharfinger-system` may stand for any person or workload; one in a tenant's namespace, which the tenant's admins can
write, only for that tenant's people and that namespace's workloads.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wharfinger.core.document import Json
from wharfinger.identity.fault import BadIdentity
from wharfinger.identity.spiffeid import Person, SpiffeId, Workload

SECRET_TYPE: Final = "wharfinger.io/apikey"  # noqa: S105  the type of the object
SYSTEM_NAMESPACE: Final = "wharfinger-system"
PREFIX: Final = "wharf-"
"""What every key begins with, so that scanners for leaked secrets know one."""
_HEX64: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who holds the key with the hex `sha256`."""

    sha256: str
    holder: SpiffeId


def digest(key: str) -> str:
    """Return the hex sha256 of a key's text: what a presented key is looked up by."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def secret(name: str, namespace: str, key: str, holder: SpiffeId) -> dict[str, Json]:
    """Return the Secret that makes `key` stand for `holder`."""
    data = {"sha256": digest(key), "spiffeId": str(holder)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": SECRET_TYPE,
        "data": {field: base64.b64encode(value.encode()).decode() for field, value in data.items()},
    }


def read(value: Mapping[str, Json], tenant_of: Mapping[str, str]) -> ApiKey:
    """Return the key that a Secret of our type stands for; `tenant_of` names the tenant of each namespace.

    Raises `BadIdentity` when it is not such a Secret, or stands for somebody whom its namespace may not name.
    """
    if value.get("type") != SECRET_TYPE:
        raise BadIdentity("not_an_api_key", f"expected a Secret of type {SECRET_TYPE}")
    data = value.get("data") or {}
    hexed, holder = _text(data, "sha256"), SpiffeId(_text(data, "spiffeId"))
    if _HEX64.fullmatch(hexed) is None:
        raise BadIdentity("bad_digest", "expected sha256 as 64 lower-case hex digits")
    namespace = (value.get("metadata") or {}).get("namespace", "")
    if not _may_name(namespace, holder, tenant_of):
        raise BadIdentity("not_its_holder", f"a key in namespace {namespace} may not stand for {holder}")
    return ApiKey(hexed, holder)


def _may_name(namespace: str, holder: SpiffeId, tenant_of: Mapping[str, str]) -> bool:
    kind = holder.kind
    if namespace == SYSTEM_NAMESPACE:
        return isinstance(kind, Person | Workload)
    if isinstance(kind, Person):
        return namespace in tenant_of and tenant_of[namespace] == kind.tenant
    return isinstance(kind, Workload) and kind.namespace == namespace


def _text(data: Mapping[str, Json], field: str) -> str:
    try:
        return base64.b64decode(data[field], validate=True).decode("ascii")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise BadIdentity("bad_field", f"expected {field} in base64") from error
