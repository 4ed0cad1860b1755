"""How a part of the platform reaches the API server: by its own SVID, expecting the `api` part's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from wharfinger.bootstrap.part import Setting
from wharfinger.cluster.client import Client, Resource
from wharfinger.cluster.endpoint import Endpoint
from wharfinger.cluster.informer import Informers
from wharfinger.cluster.writer import ObjectWriter
from wharfinger.core.clock import Clock
from wharfinger.core.ids import Ids
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context
from wharfinger.kinds.builtin.registry import BUILTINS
from wharfinger.kinds.kind import Kind
from wharfinger.kinds.registry import KINDS


def _resource(kind: Kind) -> Resource:
    return Resource(kind.group, kind.version, kind.plural, kind.name, kind.namespaced)


RESOURCES: Final[Mapping[str, Resource]] = MappingProxyType(
    {kind.plural: _resource(kind) for kind in (*(builtin.kind for builtin in BUILTINS), *KINDS)}
)
"""Every kind that the API server serves, Kubernetes' own and ours, by plural."""


def endpoint(setting: Setting, source: SvidSource) -> Endpoint:
    """Return where the API server of this platform is: TLS with `source`'s SVID, and the `api` part at the other end.

    Waits for the first SVID. A connection made later uses the newest material.
    """
    context = client_context(source, expect=SpiffeId(setting.identity("api")))
    return Endpoint("127.0.0.1", setting.ports["api"], context)


def client(setting: Setting, source: SvidSource, part: str) -> Client:
    """Return a client of the API server for `part`; threads may share it."""
    return Client(endpoint(setting, source), user_agent=f"wharfinger-{part}")


def informers(client: Client, plurals: Iterable[str]) -> Informers:
    """Return informers of the kinds with these `plurals`, not started. Raises `KeyError` for a kind not served."""
    return Informers(client, [RESOURCES[plural] for plural in plurals])


def writer(client: Client, part: str, clock: Clock, ids: Ids) -> ObjectWriter:
    """Return what writes objects as `part`: field manager `wharfinger-PART`."""
    return ObjectWriter(client, tuple(RESOURCES.values()), f"wharfinger-{part}", clock, ids)
