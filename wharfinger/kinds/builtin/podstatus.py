"""The status of a pod: what its node says of it."""

from __future__ import annotations

from wharfinger.kinds.builtin.containers import RESOURCES
from wharfinger.kinds.builtin.fields import (
    boolean,
    int32,
    int64,
    keyed,
    many,
    one,
    quantities,
    quantity,
    record,
    string,
    time,
    unique,
)
from wharfinger.kinds.builtin.volumes import VOLUME_HEALTH, VOLUME_STATUS
from wharfinger.kinds.kind import Schema

_STATE = record(
    "core.v1.ContainerState",
    "Waiting, running or terminated; exactly one of the fields.",
    {
        "running": record("core.v1.ContainerStateRunning", "It runs.", {"startedAt": time("Since when.")}),
        "terminated": record(
            "core.v1.ContainerStateTerminated",
            "It ended.",
            {
                "containerID": string("The runtime's id of it."),
                "exitCode!": int32("Exit code."),
                "finishedAt": time("When it ended."),
                "message": string("Why, in words."),
                "reason": string("Why, in one word."),
                "signal": int32("The signal that ended it."),
                "startedAt": time("When it had started."),
            },
        ),
        "waiting": record(
            "core.v1.ContainerStateWaiting",
            "It does not run yet.",
            {"message": string("Why, in words."), "reason": string("Why, in one word.")},
        ),
    },
)

_CONTAINER_STATUS = record(
    "core.v1.ContainerStatus",
    "How one container is.",
    {
        "allocatedResources": quantities("What the node has set aside for it."),
        "allocatedResourcesStatus": keyed(
            record(
                "core.v1.ResourceStatus",
                "Health of one resource that it uses.",
                {
                    "name!": string("The resource."),
                    "resources": keyed(
                        record(
                            "core.v1.ResourceHealth",
                            "Health of one device.",
                            {
                                "health": string("Healthy, Unhealthy or Unknown."),
                                "message": string("In words."),
                                "resourceID!": string("The device."),
                            },
                        ),
                        "The devices.",
                        "resourceID",
                        patch="",
                    ),
                },
            ),
            "Health of the resources it uses.",
            "name",
        ),
        "containerID": string("The runtime's id of it."),
        "image!": string("The image it runs."),
        "imageID!": string("The image by digest."),
        "lastState": one(_STATE, "How its last run ended."),
        "name!": string("The container."),
        "ready!": boolean("It passes its readiness probe."),
        "resources": one(RESOURCES, "What it has now."),
        "restartCount!": int32("How often it was restarted."),
        "started": boolean("It passed its startup probe."),
        "state": one(_STATE, "How it is now."),
        "stopSignal": string("The signal that stops it."),
        "user": record(
            "core.v1.ContainerUser",
            "Who it runs as.",
            {
                "linux": record(
                    "core.v1.LinuxContainerUser",
                    "On Linux.",
                    {
                        "gid!": int64("Group id."),
                        "supplementalGroups": many({"type": "integer", "format": "int64"}, "More groups."),
                        "uid!": int64("User id."),
                    },
                )
            },
        ),
        "volumeMounts": keyed(VOLUME_STATUS, "How its mounts turned out.", "mountPath"),
    },
)

_CONDITION = record(
    "core.v1.PodCondition",
    "What holds of the pod, and why not.",
    {
        "lastProbeTime": {**time("When it was last looked at."), "nullable": True},
        "lastTransitionTime": time("When the status last changed."),
        "message": string("Why, in words."),
        "observedGeneration": int64("The generation that this speaks of."),
        "reason": string("Why, in one word."),
        "status!": string("True, False or Unknown."),
        "type!": string("What it is about."),
    },
)


def _address(name: str, text: str) -> Schema:
    return record(f"core.v1.{name}", text, {"ip!": string("The address.")})


_ALLOCATABLE_CLAIM = record(
    "core.v1.NodeAllocatableResourceClaimStatus",
    "What a claim takes of the node's own resources.",
    {
        "containers": unique({"type": "string"}, "The containers that use it."),
        "mapping": keyed(
            record(
                "core.v1.NodeAllocatableMappedResources",
                "A resource that the devices stand for.",
                {"name!": string("The resource."), "quantity!": quantity("How much.")},
            ),
            "Resources that the devices stand for.",
            "name",
        ),
        "overhead": keyed(
            record(
                "core.v1.NodeAllocatableOverheadResources",
                "A resource that the devices take on top.",
                {
                    "name!": string("The resource."),
                    "perContainer": quantity("For each container."),
                    "perPod": quantity("For the pod."),
                },
            ),
            "Resources that the devices take on top.",
            "name",
        ),
        "resourceClaimName!": string("The claim."),
    },
)

_EXTENDED_CLAIM = record(
    "core.v1.PodExtendedResourceClaimStatus",
    "The claim that was made for extended resources.",
    {
        "requestMappings!": many(
            record(
                "core.v1.ContainerExtendedResourceRequest",
                "Which request stands for which resource.",
                {
                    "containerName!": string("The container."),
                    "requestName!": string("The request of the claim."),
                    "resourceName!": string("The resource."),
                },
            ),
            "Which requests stand for which resources.",
        ),
        "resourceClaimName!": string("The claim."),
    },
)

_STATUSES = many(_CONTAINER_STATUS, "How each container is.")

POD_STATUS = record(
    "core.v1.PodStatus",
    "How the pod is; written by its node.",
    {
        "allocatedResources": quantities("What the node has set aside for it."),
        "conditions": keyed(_CONDITION, "What holds, and why not.", "type"),
        "containerStatuses": _STATUSES,
        "ephemeralContainerStatuses": one(_STATUSES, "How each ephemeral container is."),
        "extendedResourceClaimStatus": _EXTENDED_CLAIM,
        "hostIP": string("Address of its node."),
        "hostIPs": many(
            _address("HostIP", "An address of the node."),
            "Addresses of its node.",
            **{"x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "ip"},
        ),
        "initContainerStatuses": one(_STATUSES, "How each init container is."),
        "message": string("Why it is so, in words."),
        "nodeAllocatableResourceClaimStatuses": keyed(
            _ALLOCATABLE_CLAIM, "What claims take of the node's own resources.", "resourceClaimName"
        ),
        "nominatedNodeName": string("The node where room is being made for it."),
        "observedGeneration": int64("The generation that this speaks of."),
        "phase": string("Pending, Running, Succeeded, Failed or Unknown."),
        "podIP": string("Its address."),
        "podIPs": keyed(_address("PodIP", "An address of the pod."), "Its addresses.", "ip"),
        "qosClass": string("Guaranteed, Burstable or BestEffort."),
        "reason": string("Why it is so, in one word."),
        "resize": string("How a change of resources gets on."),
        "resourceClaimStatuses": keyed(
            record(
                "core.v1.PodResourceClaimStatus",
                "Which claim was made for which name.",
                {"name!": string("The pod's name for it."), "resourceClaimName": string("The claim.")},
            ),
            "Claims made from templates.",
            "name",
            patch="merge,retainKeys",
        ),
        "resources": one(RESOURCES, "What the pod has now."),
        "startTime": time("When its node took it up."),
        "volumeHealth": keyed(VOLUME_HEALTH, "What is known of its volumes' health.", "name", patch=""),
    },
)
