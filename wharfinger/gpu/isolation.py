"""Isolation: which free devices a tenant may not get, because of who is next to them.

A Tenant demands a distance from others (`spec.isolation.fromOthers`): `slice` lets another tenant hold another slice of
the same GPU, `device` never the same GPU, `node` never the same node. Between two tenants the stricter demand holds,
whoever came first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from wharfinger.gpu.inventory import DeviceId
from wharfinger.gpu.quota import Silicon

SLICE: Final = "slice"
_STRICTNESS: Final = {SLICE: 0, "device": 1, "node": 2}


def forbidden(
    tenant: str,
    demands: Mapping[str, str],
    holders: Iterable[tuple[DeviceId, str]],
    worth: Mapping[DeviceId, Silicon],
) -> dict[DeviceId, str]:
    """Return the devices that `tenant` may not get, each with the reason.

    `demands` maps tenants to what they demand (`slice` where nothing), `holders` says which device is held by whom,
    the empty tenant for namespaces that are nobody's.
    """
    gpus: dict[str, str] = {}
    nodes: dict[str, str] = {}
    for device, other in holders:
        silicon = worth.get(device)
        if other == tenant or silicon is None:
            continue
        # One tenant's people learn that others are near, not who they are.
        if _demands(demands, tenant, other) == "node":
            nodes.setdefault(silicon.node, "another tenant is on the node")
        elif _demands(demands, tenant, other) == "device":
            gpus.setdefault(silicon.gpu, "another tenant is on the GPU")
    made: dict[DeviceId, str] = {}
    for device, silicon in worth.items():
        reason = nodes.get(silicon.node) or gpus.get(silicon.gpu)
        if reason:
            made[device] = reason
    return made


def _demands(demands: Mapping[str, str], one: str, other: str) -> str:
    return max((demands.get(one, SLICE), demands.get(other, SLICE)), key=lambda demand: _STRICTNESS.get(demand, 2))
