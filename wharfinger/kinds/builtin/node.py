"""Node: a machine that runs pods; schema."""

from __future__ import annotations

from wharfinger.kinds.builtin.fields import (
    boolean,
    int32,
    int64,
    keyed,
    many,
    one,
    quantities,
    record,
    string,
    strings,
    time,
    unique,
    whole,
)
from wharfinger.kinds.kind import Kind

_CONFIG_SOURCE = record(
    "core.v1.NodeConfigSource",
    "Where its configuration came from. Not used any more.",
    {
        "configMap": record(
            "core.v1.ConfigMapNodeConfigSource",
            "A key of a ConfigMap.",
            {
                "kubeletConfigKey!": string("The key."),
                "name!": string("The ConfigMap."),
                "namespace!": string("Its namespace."),
                "resourceVersion": string("Its version."),
                "uid": string("Its UID."),
            },
        )
    },
)

TAINT = record(
    "core.v1.Taint",
    "Keeps pods away that do not tolerate it.",
    {
        "effect!": string("NoSchedule, PreferNoSchedule or NoExecute."),
        "key!": string("Its key."),
        "timeAdded": time("When it was put on."),
        "value": string("Its value."),
    },
)

_SPEC = record(
    "core.v1.NodeSpec",
    "What the node is to be.",
    {
        "configSource": one(_CONFIG_SOURCE, "Not used any more."),
        "externalID": string("Not used any more."),
        "podCIDR": string("Addresses for its pods."),
        "podCIDRs": unique({"type": "string"}, "Addresses for its pods, one range a family.", merged=True),
        "podPreemptionPolicy": record(
            "core.v1.NodePodPreemptionPolicy",
            "What pods may not be displaced for.",
            {"disableResizePreemption": unique({"type": "string"}, "Resizes that displace nobody.")},
        ),
        "providerID": string("The machine's id with its provider."),
        "taints": many(TAINT, "Keep pods away that do not tolerate them."),
        "unschedulable": boolean("No new pods."),
    },
)

_SYSTEM = record(
    "core.v1.NodeSystemInfo",
    "What the machine is and runs.",
    {
        "architecture!": string("Processor architecture."),
        "bootID!": string("Id of this boot."),
        "containerRuntimeVersion!": string("Container runtime and version."),
        "kernelVersion!": string("Kernel version."),
        "kubeProxyVersion!": string("Not used any more."),
        "kubeletVersion!": string("Version of the node's agent."),
        "machineID!": string("Id of the machine."),
        "operatingSystem!": string("Operating system."),
        "osImage!": string("Name of the distribution."),
        "runningInUserNamespace": boolean("The agent runs in a user namespace."),
        "swap": record("core.v1.NodeSwapStatus", "Swap.", {"capacity": int64("Bytes of swap.")}),
        "systemUUID!": string("UUID of the machine."),
    },
)

_STATUS = record(
    "core.v1.NodeStatus",
    "How the node is; written by its agent.",
    {
        "addresses": keyed(
            record(
                "core.v1.NodeAddress",
                "An address of the node.",
                {"address!": string("The address."), "type!": string("Hostname, InternalIP, ExternalIP and so on.")},
            ),
            "How it is reached.",
            "type",
        ),
        "allocatable": quantities("What pods can have."),
        "capacity": quantities("What the machine has."),
        "conditions": keyed(
            record(
                "core.v1.NodeCondition",
                "What holds, and why not.",
                {
                    "lastHeartbeatTime": time("When it was last said."),
                    "lastTransitionTime": time("When the status last changed."),
                    "message": string("Why, in words."),
                    "reason": string("Why, in one word."),
                    "status!": string("True, False or Unknown."),
                    "type!": string("What it is about."),
                },
            ),
            "What holds, and why not.",
            "type",
        ),
        "config": record(
            "core.v1.NodeConfigStatus",
            "Not used any more.",
            {
                "active": one(_CONFIG_SOURCE, "In use."),
                "assigned": one(_CONFIG_SOURCE, "To be used."),
                "error": string("What went wrong."),
                "lastKnownGood": one(_CONFIG_SOURCE, "Last that worked."),
            },
        ),
        "daemonEndpoints": record(
            "core.v1.NodeDaemonEndpoints",
            "Where its agents listen.",
            {"kubeletEndpoint": record("core.v1.DaemonEndpoint", "The node's agent.", {"Port!": int32("Its port.")})},
        ),
        "declaredFeatures": strings("Features that the node has."),
        "features": record(
            "core.v1.NodeFeatures",
            "What its runtime can do.",
            {"supplementalGroupsPolicy": boolean("Honours supplementalGroupsPolicy.")},
        ),
        "images": many(
            record(
                "core.v1.ContainerImage",
                "An image it has.",
                {"names": strings("Its names."), "sizeBytes": int64("Its size.")},
            ),
            "Images it has.",
        ),
        "nodeInfo": _SYSTEM,
        "phase": string("Not used any more."),
        "runtimeHandlers": many(
            record(
                "core.v1.NodeRuntimeHandler",
                "A runtime that it offers.",
                {
                    "features": record(
                        "core.v1.NodeRuntimeHandlerFeatures",
                        "What the runtime can do.",
                        {
                            "recursiveReadOnlyMounts": boolean("Recursive read-only mounts."),
                            "userNamespaces": boolean("User namespaces."),
                        },
                    ),
                    "name": string("Its name; empty for the default one."),
                },
            ),
            "Runtimes that it offers.",
        ),
        "volumesAttached": many(
            record(
                "core.v1.AttachedVolume",
                "An attached volume.",
                {"devicePath!": string("Path of the device."), "name!": string("The volume.")},
            ),
            "Volumes that are attached.",
        ),
        "volumesInUse": strings("Volumes that are mounted."),
    },
)

NODE = Kind(
    group="",
    version="v1",
    name="Node",
    plural="nodes",
    namespaced=False,
    short_names=("no",),
    description="A machine that runs pods.",
    selectable=("spec.unschedulable",),
    schema=whole("core.v1.Node", "A machine that runs pods.", {"spec": _SPEC, "status": _STATUS}),
)
