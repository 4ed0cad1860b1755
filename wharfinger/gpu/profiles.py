"""GPU profiles: a vendor-neutral ask, compiled to what a scheduler of Kubernetes understands.

A profile becomes a DeviceClass of its name, which says what a device must be, and the spec of a claim, which says how
many and how they lie to each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid, Malformed
from wharfinger.core.quantity import Quantity
from wharfinger.gpu.devices import DRIVER
from wharfinger.gpu.inventory import Inventory, Object
from wharfinger.gpu.slices import NUMA_NODE, TYPE_GPU, TYPE_PARTITION
from wharfinger.kinds.gpuprofile import GPUProfileSpec
from wharfinger.kinds.schema import read
from wharfinger.policy import cel

REQUEST = "gpu"
"""The name of the one request in a profile's claims."""


def device_class(profile: Object) -> dict[str, Json]:
    """Return the DeviceClass of a GPUProfile object. Raises `Invalid` when its selector or memory cannot be read."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": profile["metadata"]["name"]},
        "spec": {"selectors": [{"cel": {"expression": text}} for text in selectors(profile)]},
    }


def claim_spec(profile: Object) -> dict[str, Json]:
    """Return the ResourceClaimSpec that asks for what a GPUProfile object asks for."""
    spec = read(GPUProfileSpec, profile["spec"])
    exactly = {"deviceClassName": profile["metadata"]["name"], "allocationMode": "ExactCount", "count": spec.count}
    devices: dict[str, Json] = {"requests": [{"name": REQUEST, "exactly": exactly}]}
    if spec.topology.same_numa_node and spec.count > 1:
        devices["constraints"] = [{"requests": [REQUEST], "matchAttribute": NUMA_NODE}]
    return {"devices": devices}


def selectors(profile: Object) -> list[str]:
    """Return the CEL conditions on a device, all of which must hold. Raises `Invalid`."""
    spec = read(GPUProfileSpec, profile["spec"])
    try:
        memory = Quantity.parse(str(spec.memory))
    except Malformed as error:
        raise Invalid(f"spec.memory: {error.message}") from error
    kind = TYPE_PARTITION if spec.sharing == "Partition" else TYPE_GPU
    made = [
        f'device.driver == "{DRIVER}"',
        f'device.attributes["{DRIVER}"].type == "{kind}"',
        f'device.capacity["{DRIVER}"].memory.compareTo(quantity("{memory}")) >= 0',
        f'device.attributes["{DRIVER}"].computeSlices >= {spec.compute_slices}',
    ]
    if spec.selector:
        cel.DEVICE.compile(spec.selector)
        made.append(spec.selector)
    return made


def matching(profile: Object, inventory: Inventory, nodes: Iterable[Object]) -> int:
    """Return how many devices of the fleet, taken or free, a profile fits. Raises `Invalid` when its selector errs."""
    expressions = selectors(profile)
    return sum(
        all(inventory.matches(expression, offer) for expression in expressions)
        for node in nodes
        for pool in inventory.pools(node)
        if not pool.problem
        for offer in pool.offers
    )
