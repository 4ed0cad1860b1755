"""Quota: how much silicon a tenant holds, and whether it may hold more.

Counted are GPU memory and compute slices (sevenths of a GPU), over the devices that the tenant's claims have been
allocated; admin access holds nothing. What a tenant's quota does not name is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wharfinger.core.errors import Malformed
from wharfinger.core.quantity import Format, Quantity
from wharfinger.gpu.devices import DRIVER
from wharfinger.gpu.inventory import DeviceId, Object
from wharfinger.gpu.partitions import COMPUTE_SLICES
from wharfinger.kinds.schema import read
from wharfinger.kinds.tenant import TenantSpec


@dataclass(frozen=True, slots=True)
class Amount:
    """Silicon: `memory` in bytes, `compute_slices` in sevenths of a GPU. Neither is negative."""

    memory: int = 0
    compute_slices: int = 0

    def __add__(self, other: Amount) -> Amount:
        """Return both together."""
        return Amount(self.memory + other.memory, self.compute_slices + other.compute_slices)


@dataclass(frozen=True, slots=True)
class Silicon:
    """One published device: what it is worth, and the UUIDs of itself and of its GPU."""

    amount: Amount
    uuid: str
    gpu: str
    node: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit stands in the way: `limit` its name, the amounts as a tenant would write them.

    `never` says that it would not fit either if nothing were in use.
    """

    limit: str
    used: str
    asked: str
    allowed: str
    never: bool = False

    def __str__(self) -> str:
        """Say it in words."""
        never = ": more than the quota alone" if self.never else ""
        return f"quota {self.limit} {self.allowed}, in use {self.used}, asks {self.asked}{never}"


def silicon(slices: Iterable[Object]) -> dict[DeviceId, Silicon]:
    """Return what each published device is worth.

    A device of another driver, without the attributes of ours, counts as a whole GPU of its memory.
    """
    made: dict[DeviceId, Silicon] = {}
    for resource_slice in slices:
        spec = resource_slice["spec"]
        driver, pool = spec["driver"], spec["pool"]["name"]
        for device in spec.get("devices") or ():
            attributes = device.get("attributes") or {}

            def attribute(name: str, kind: str, attributes: Object = attributes) -> object:
                found = attributes.get(name) or attributes.get(f"{DRIVER}/{name}") or {}
                return found.get(kind)

            name = f"{driver}/{pool}/{device['name']}"
            slices_of_compute = attribute("computeSlices", "int")
            uuid = str(attribute("uuid", "string") or name)
            made[driver, pool, device["name"]] = Silicon(
                Amount(
                    _memory(device),
                    slices_of_compute if isinstance(slices_of_compute, int) else COMPUTE_SLICES,
                ),
                uuid,
                str(attribute("parentUUID", "string") or uuid),
                spec.get("nodeName") or device.get("nodeName") or pool,
            )
    return made


def _memory(device: Object) -> int:
    for name, capacity in (device.get("capacity") or {}).items():
        if name.rsplit("/", 1)[-1] == "memory":
            try:
                return Quantity.of_json(capacity.get("value")).scaled()
            except Malformed:
                return 0
    return 0


def allowed(tenant: Object) -> Amount:
    """Return what the quota of a Tenant object allows. Raises `Invalid` for a spec that is none."""
    gpu = read(TenantSpec, tenant["spec"]).quota.gpu
    return Amount(Quantity.of_json(gpu.memory).scaled(), gpu.compute_slices)


def held(claims: Iterable[Object], worth: Mapping[DeviceId, Silicon]) -> Amount:
    """Return what these claims hold together. A device that is not published now counts as the largest that is."""
    devices = {device for claim in claims for device in devices_of(claim)}
    return amount_of(devices, worth)


def amount_of(devices: Iterable[DeviceId], worth: Mapping[DeviceId, Silicon]) -> Amount:
    """Return what these devices are worth together."""
    largest = Amount(
        max((s.amount.memory for s in worth.values()), default=0),
        max((s.amount.compute_slices for s in worth.values()), default=COMPUTE_SLICES),
    )
    total = Amount()
    for device in devices:
        total += worth[device].amount if device in worth else largest
    return total


def devices_of(claim: Object) -> list[DeviceId]:
    """Return the devices that a claim holds; those it may only look at (admin access) are left out."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return [
        (result["driver"], result["pool"], result["device"])
        for result in (allocation.get("devices") or {}).get("results") or ()
        if not result.get("adminAccess")
    ]


def admit(used: Amount, asked: Amount, limit: Amount) -> Refusal | None:
    """Return None when `asked` fits beside `used` within `limit`, else which limit is in the way."""
    if asked.memory and used.memory + asked.memory > limit.memory:
        return Refusal("memory", written(used), written(asked), written(limit), asked.memory > limit.memory)
    if asked.compute_slices and used.compute_slices + asked.compute_slices > limit.compute_slices:
        have, want, may = (str(amount.compute_slices) for amount in (used, asked, limit))
        return Refusal("compute slices", have, want, may, asked.compute_slices > limit.compute_slices)
    return None


def written(amount: Amount) -> str:
    """Return the memory of an amount as a quantity (`80Gi`)."""
    return str(Quantity.of(amount.memory, form=Format.BINARY_SI))
