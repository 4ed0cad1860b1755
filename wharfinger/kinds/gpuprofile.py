"""GPUProfile: what to ask of a GPU, without naming a vendor; compiles to a DeviceClass and a claim template."""

from __future__ import annotations

from typing import Annotated, Literal

from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind
from wharfinger.kinds.schema import Conditions, Part, Quantity, rule, says, whole


class Topology(Part, frozen=True, kw_only=True):
    """Where the devices of one claim lie to each other."""

    same_numa_node: Annotated[bool, says("All devices on one NUMA node.")] = False


class GPUProfileSpec(Part, frozen=True, kw_only=True):
    """The ask."""

    memory: Annotated[Quantity, says("Least memory of each device, for example 10Gi.")]
    compute_slices: Annotated[
        int, says("Least compute of each device in slices, where a whole GPU has 7.", ge=1, le=7)
    ] = 1
    count: Annotated[int, says("How many devices.", ge=1, le=32)] = 1
    sharing: Annotated[
        Literal["Exclusive", "Partition"],
        says("Exclusive: a whole GPU. Partition: a hardware slice of one (MIG)."),
    ] = "Exclusive"
    topology: Annotated[Topology, says("Where the devices lie to each other.")] = Topology()
    selector: Annotated[str, says("A further CEL condition on the device, as in a DRA request.", max_length=10240)] = ""


class GPUProfileStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    device_class: Annotated[str, says("The DeviceClass made from this profile.")] = ""
    matching: Annotated[int, says("Devices and slices of the fleet that match, taken or free.", ge=0)] = 0
    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="GPUProfile",
    plural="gpuprofiles",
    namespaced=False,
    short_names=("gp",),
    categories=("wharfinger",),
    description="A vendor-neutral ask for GPU devices.",
    schema=whole(
        GPUProfileSpec,
        GPUProfileStatus,
        "A vendor-neutral ask for GPU devices; compiles to a DeviceClass and ResourceClaimTemplates.",
        rules=(
            rule(
                "self.sharing != 'Partition' || self.count == 1",
                "a Partition profile asks for one slice; claim several for more",
                field_path=".count",
            ),
        ),
    ),
    columns=(
        Column("Memory", ".spec.memory"),
        Column("Slices", ".spec.computeSlices", "integer"),
        Column("Count", ".spec.count", "integer"),
        Column("Sharing", ".spec.sharing"),
        Column("Matching", ".status.matching", "integer"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
