"""ResourceSlice, ResourceClaim, ResourceClaimTemplate, DeviceClass (resource.k8s.io/v1): schemas."""

from __future__ import annotations

from wharfinger.kinds.builtin.core import AGE
from wharfinger.kinds.builtin.fields import (
    anything,
    boolean,
    int64,
    keyed,
    many,
    mapping,
    one,
    quantities,
    quantity,
    record,
    string,
    strings,
    time,
    unique,
    whole,
)
from wharfinger.kinds.builtin.meta import CONDITION, NODE_SELECTOR, OBJECT_META
from wharfinger.kinds.kind import Column, Kind, Schema

GROUP = "resource.k8s.io"


def _opaque() -> Schema:
    return record(
        "resource.v1.OpaqueDeviceConfiguration",
        "Configuration that only the driver understands.",
        {"driver!": string("The driver."), "parameters!": anything("What it is told.")},
    )


_SELECTOR = record(
    "resource.v1.DeviceSelector",
    "Which devices will do.",
    {
        "cel": record(
            "resource.v1.CELDeviceSelector",
            "By a CEL expression.",
            {"expression!": string("True for a device that will do; `device` is its variable.")},
        )
    },
)

_TOLERATION = record(
    "resource.v1.DeviceToleration",
    "A taint of devices that is borne.",
    {
        "effect": string("Effect of the taint; every effect when empty."),
        "key": string("Key of the taint; every key when empty."),
        "operator": string("Equal or Exists.", default="Equal"),
        "tolerationSeconds": int64("How long a NoExecute taint is borne."),
        "value": string("Value of the taint."),
    },
)

_DERIVED = record(
    "resource.v1.DeviceDerivedAttribute",
    "An attribute that is computed.",
    {"expression!": string("CEL expression of its value."), "name!": string("Its name.")},
)

_REQUEST_FIELDS: dict[str, Schema] = {
    "allocationMode": string("ExactCount or All.", default="ExactCount"),
    "capacity": record(
        "resource.v1.CapacityRequirements",
        "How much of each device.",
        {"requests": quantities("At least, by capacity.")},
    ),
    "count": int64("How many devices (ExactCount)."),
    "derivedAttributes": many(_DERIVED, "Attributes that are computed for constraints."),
    "deviceClassName!": string("The DeviceClass."),
    "selectors": many(_SELECTOR, "Which devices will do; all must hold."),
    "tolerations": many(_TOLERATION, "Taints that are borne."),
}

_REQUEST = record(
    "resource.v1.DeviceRequest",
    "One thing asked for: exactly one of exactly and firstAvailable.",
    {
        "exactly": record(
            "resource.v1.ExactDeviceRequest",
            "This, and nothing else.",
            {**_REQUEST_FIELDS, "adminAccess": boolean("For watching devices that others use.")},
        ),
        "firstAvailable": many(
            record(
                "resource.v1.DeviceSubRequest",
                "One alternative.",
                {**_REQUEST_FIELDS, "name!": string("Its name among the alternatives.")},
            ),
            "Alternatives, best first.",
        ),
        "name!": string("Its name in the claim."),
    },
)

_CLAIM_SPEC = record(
    "resource.v1.ResourceClaimSpec",
    "What is asked for.",
    {
        "devices": record(
            "resource.v1.DeviceClaim",
            "Devices.",
            {
                "config": many(
                    record(
                        "resource.v1.DeviceClaimConfiguration",
                        "Configuration for some requests.",
                        {"opaque": _opaque(), "requests": strings("The requests; all of them when absent.")},
                    ),
                    "Configuration for drivers.",
                ),
                "constraints": many(
                    record(
                        "resource.v1.DeviceConstraint",
                        "What devices must have in common.",
                        {
                            "distinctAttribute": string("Attribute in which they must differ."),
                            "matchAttribute": string("Attribute in which they must agree."),
                            "requests": strings("The requests; all of them when absent."),
                        },
                    ),
                    "What devices must have in common.",
                ),
                "requests": many(_REQUEST, "What is asked for; all of it or nothing."),
            },
        )
    },
)

_RESULT = record(
    "resource.v1.DeviceRequestAllocationResult",
    "A device given to a request.",
    {
        "adminAccess": boolean("Given for watching only."),
        "bindingConditions": strings("Conditions to wait for before binding."),
        "bindingFailureConditions": strings("Conditions that make binding fail."),
        "consumedCapacity": quantities("How much of it is used."),
        "device!": string("The device."),
        "driver!": string("Its driver."),
        "pool!": string("Its pool."),
        "request!": string("The request."),
        "shareID": string("Which share of the device."),
        "skipNodeOperations": unique({"type": "string"}, "What the node need not do."),
        "tolerations": many(_TOLERATION, "Taints that were borne."),
    },
)

_ALLOCATION = record(
    "resource.v1.AllocationResult",
    "What was given.",
    {
        "allocationTimestamp": time("When."),
        "devices": record(
            "resource.v1.DeviceAllocationResult",
            "The devices.",
            {
                "config": many(
                    record(
                        "resource.v1.DeviceAllocationConfiguration",
                        "Configuration for some requests.",
                        {
                            "opaque": _opaque(),
                            "requests": strings("The requests; all of them when absent."),
                            "source!": string("FromClass or FromClaim."),
                        },
                    ),
                    "Configuration for drivers.",
                ),
                "results": many(_RESULT, "The devices."),
            },
        ),
        "nodeSelector": one(NODE_SELECTOR, "Where they can be used; anywhere when absent."),
    },
)

_CLAIM_STATUS = record(
    "resource.v1.ResourceClaimStatus",
    "What was given, and who uses it.",
    {
        "allocation": _ALLOCATION,
        "devices": keyed(
            record(
                "resource.v1.AllocatedDeviceStatus",
                "What the driver says of a device that was given.",
                {
                    "conditions": keyed(one(CONDITION, "What holds."), "What holds, and why not.", "type", patch=""),
                    "data": anything("What the driver adds."),
                    "device!": string("The device."),
                    "driver!": string("Its driver."),
                    "networkData": record(
                        "resource.v1.NetworkDeviceData",
                        "For network devices.",
                        {
                            "hardwareAddress": string("Hardware address."),
                            "interfaceName": string("Name of the interface."),
                            "ips": strings("Addresses."),
                        },
                    ),
                    "pool!": string("Its pool."),
                    "shareID": string("Which share of the device."),
                },
            ),
            "What drivers say of the devices.",
            "driver",
            "device",
            "pool",
            "shareID",
            patch="",
        ),
        "reservedFor": keyed(
            record(
                "resource.v1.ResourceClaimConsumerReference",
                "Who may use it.",
                {
                    "apiGroup": string("Its group."),
                    "name!": string("Its name."),
                    "resource!": string("Its resource, such as pods."),
                    "uid!": string("Its UID."),
                },
            ),
            "Who may use it now.",
            "uid",
        ),
    },
)

RESOURCE_CLAIM = Kind(
    group=GROUP,
    version="v1",
    name="ResourceClaim",
    plural="resourceclaims",
    namespaced=True,
    description="Asks for devices.",
    schema=whole(
        "resource.v1.ResourceClaim",
        "Asks for devices, and says which were given.",
        {"spec!": _CLAIM_SPEC, "status": _CLAIM_STATUS},
    ),
)

RESOURCE_CLAIM_TEMPLATE = Kind(
    group=GROUP,
    version="v1",
    name="ResourceClaimTemplate",
    plural="resourceclaimtemplates",
    namespaced=True,
    status=False,
    description="Makes a ResourceClaim for each pod that names it.",
    columns=(AGE,),
    schema=whole(
        "resource.v1.ResourceClaimTemplate",
        "Makes a ResourceClaim for each pod that names it.",
        {
            "spec!": record(
                "resource.v1.ResourceClaimTemplateSpec",
                "What the claims look like.",
                {
                    "metadata": one(OBJECT_META, "Their labels and annotations."),
                    "spec!": _CLAIM_SPEC,
                },
            )
        },
    ),
)

DEVICE_CLASS = Kind(
    group=GROUP,
    version="v1",
    name="DeviceClass",
    plural="deviceclasses",
    namespaced=False,
    status=False,
    description="A sort of device.",
    columns=(AGE,),
    schema=whole(
        "resource.v1.DeviceClass",
        "A sort of device that claims can ask for.",
        {
            "spec!": record(
                "resource.v1.DeviceClassSpec",
                "Which devices are of it.",
                {
                    "config": many(
                        record(
                            "resource.v1.DeviceClassConfiguration",
                            "Configuration for a driver.",
                            {"opaque": _opaque()},
                        ),
                        "Configuration for drivers.",
                    ),
                    "extendedResourceName": string("Extended resource that means a device of this class."),
                    "selectors": many(_SELECTOR, "Which devices are of it; all must hold."),
                },
            )
        },
    ),
)

_ATTRIBUTE = record(
    "resource.v1.DeviceAttribute",
    "A fact about a device; exactly one of the fields.",
    {
        "bool": boolean("A truth value."),
        "bools": many({"type": "boolean"}, "Truth values."),
        "int": int64("A number."),
        "ints": many({"type": "integer", "format": "int64"}, "Numbers."),
        "string": string("A text.", maxLength=64),
        "strings": strings("Texts."),
        "version": string("A semantic version.", maxLength=64),
        "versions": strings("Semantic versions."),
    },
)

_CAPACITY = record(
    "resource.v1.DeviceCapacity",
    "How much of something a device has.",
    {
        "requestPolicy": record(
            "resource.v1.CapacityRequestPolicy",
            "How it may be shared out.",
            {
                "default": quantity("What a request gets that names no amount."),
                "validRange": record(
                    "resource.v1.CapacityRequestPolicyRange",
                    "Amounts between two.",
                    {"max": quantity("At most."), "min!": quantity("At least."), "step": quantity("In steps of.")},
                ),
                "validValues": many(quantity("An amount."), "These amounts."),
            },
        ),
        "value!": quantity("How much there is."),
    },
)

_COUNTERS = mapping(
    record("resource.v1.Counter", "An amount that devices share.", {"value!": quantity("How much.")}),
    "Amounts, by name.",
)

_DEVICE = record(
    "resource.v1.Device",
    "A device, or a part of one that can be given.",
    {
        "allNodes": boolean("Every node reaches it."),
        "allowMultipleAllocations": boolean("Several claims may have it."),
        "attributes": mapping(_ATTRIBUTE, "Facts about it, by name."),
        "bindingConditions": strings("Conditions to wait for before binding."),
        "bindingFailureConditions": strings("Conditions that make binding fail."),
        "bindsToNode": boolean("The claim is bound to the node."),
        "capacity": mapping(_CAPACITY, "How much it has, by name."),
        "consumesCounters": many(
            record(
                "resource.v1.DeviceCounterConsumption",
                "What it takes of shared amounts.",
                {
                    "compatibilityGroups": strings("Groups it can be given together with."),
                    "counterSet!": string("The set."),
                    "counters!": one(_COUNTERS, "How much of each."),
                },
            ),
            "What it takes of amounts that devices share.",
        ),
        "name!": string("Unique in its pool: a DNS label."),
        "nodeAllocatableResources": mapping(
            record(
                "resource.v1.NodeAllocatableResource",
                "What it takes of a resource of the node itself.",
                {
                    "mapping": record(
                        "resource.v1.NodeAllocatableMapping",
                        "It stands for the resource.",
                        {
                            "capacityKey": string("The capacity that counts."),
                            "capacityMultiplier": quantity("Resource for each unit of the capacity."),
                            "deviceMultiplier": quantity("Resource for each device."),
                        },
                    ),
                    "overhead": record(
                        "resource.v1.NodeAllocatableOverhead",
                        "It takes the resource on top.",
                        {
                            "perContainer": quantity("For each container."),
                            "perPod": quantity("For the pod."),
                        },
                    ),
                },
            ),
            "What it takes of the node's own resources.",
        ),
        "nodeName": string("The node that it is in."),
        "nodeSelector": one(NODE_SELECTOR, "Nodes that reach it."),
        "taints": many(
            record(
                "resource.v1.DeviceTaint",
                "Keeps claims away that do not tolerate it.",
                {
                    "effect!": string("None, NoSchedule or NoExecute."),
                    "key!": string("Its key."),
                    "timeAdded": time("When it was put on."),
                    "value": string("Its value."),
                },
            ),
            "Keep claims away that do not tolerate them.",
        ),
    },
)

RESOURCE_SLICE = Kind(
    group=GROUP,
    version="v1",
    name="ResourceSlice",
    plural="resourceslices",
    namespaced=False,
    status=False,
    description="Devices that a driver offers.",
    selectable=("spec.driver", "spec.nodeName"),
    columns=(
        Column("Node", ".spec.nodeName"),
        Column("Driver", ".spec.driver"),
        Column("Pool", ".spec.pool.name"),
        AGE,
    ),
    schema=whole(
        "resource.v1.ResourceSlice",
        "Devices that a driver offers.",
        {
            "spec!": record(
                "resource.v1.ResourceSliceSpec",
                "Which devices, where.",
                {
                    "allNodes": boolean("Every node reaches them."),
                    "devices": many(_DEVICE, "The devices.", maxItems=128),
                    "driver!": string("The driver: a DNS subdomain."),
                    "nodeName": string("The node that they are in."),
                    "nodeSelector": one(NODE_SELECTOR, "Nodes that reach them."),
                    "partitionTypeAttribute": string("Attribute that names the sort of partition."),
                    "perDeviceNodeSelection": boolean("Each device says which nodes reach it."),
                    "pool!": record(
                        "resource.v1.ResourcePool",
                        "The pool that the slice is a part of.",
                        {
                            "generation!": int64("Grows with every change of the pool."),
                            "name!": string("Its name."),
                            "resourceSliceCount!": int64("Slices of this generation."),
                        },
                    ),
                    "sharedCounters": many(
                        record(
                            "resource.v1.CounterSet",
                            "Amounts that devices share.",
                            {"counters!": one(_COUNTERS, "The amounts."), "name!": string("Its name.")},
                        ),
                        "Amounts that devices share.",
                    ),
                    "skipNodeOperations": unique({"type": "string"}, "What nodes need not do."),
                },
            )
        },
    ),
)
