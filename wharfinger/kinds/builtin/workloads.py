"""Deployment and Job: schemas."""

from __future__ import annotations

from wharfinger.kinds.builtin.fields import (
    boolean,
    int32,
    int64,
    int_or_string,
    keyed,
    many,
    one,
    record,
    string,
    time,
    unique,
    whole,
)
from wharfinger.kinds.builtin.meta import LABEL_SELECTOR
from wharfinger.kinds.builtin.pods import POD_TEMPLATE
from wharfinger.kinds.kind import Kind, Scale

_CONDITION_FIELDS = {
    "lastTransitionTime": time("When the status last changed."),
    "message": string("Why, in words."),
    "reason": string("Why, in one word."),
    "status!": string("True, False or Unknown."),
    "type!": string("What it is about."),
}

DEPLOYMENT = Kind(
    group="apps",
    version="v1",
    name="Deployment",
    plural="deployments",
    namespaced=True,
    short_names=("deploy",),
    categories=("all",),
    description="Keeps a number of equal pods running.",
    scale=Scale(label_selector=".spec.selector"),
    schema=whole(
        "apps.v1.Deployment",
        "Keeps a number of equal pods running, and replaces them when their template changes.",
        {
            "spec!": record(
                "apps.v1.DeploymentSpec",
                "How many of what.",
                {
                    "minReadySeconds": int32("Seconds ready before a pod counts as available.", minimum=0),
                    "paused": boolean("Do not act on changes of the template."),
                    "progressDeadlineSeconds": int32(
                        "Seconds without progress until it counts as failed.", default=600
                    ),
                    "replicas": int32("How many pods.", default=1, minimum=0),
                    "revisionHistoryLimit": int32("How many old revisions to keep.", default=10, minimum=0),
                    "selector!": one(LABEL_SELECTOR, "Which pods are its own; cannot change."),
                    "strategy": record(
                        "apps.v1.DeploymentStrategy",
                        "How pods are replaced.",
                        {
                            "rollingUpdate": record(
                                "apps.v1.RollingUpdateDeployment",
                                "How fast.",
                                {
                                    "maxSurge": int_or_string("Pods above replicas, as a number or percentage."),
                                    "maxUnavailable": int_or_string("Pods below replicas, as a number or percentage."),
                                },
                            ),
                            "type": string("RollingUpdate or Recreate.", default="RollingUpdate"),
                        },
                    )
                    | {"default": {}, "x-kubernetes-patch-strategy": "retainKeys"},
                    "template!": one(POD_TEMPLATE, "What its pods look like."),
                },
            ),
            "status": record(
                "apps.v1.DeploymentStatus",
                "How far it is.",
                {
                    "availableReplicas": int32("Pods that are available."),
                    "collisionCount": int32("How often a name was taken."),
                    "conditions": keyed(
                        record(
                            "apps.v1.DeploymentCondition",
                            "What holds, and why not.",
                            {**_CONDITION_FIELDS, "lastUpdateTime": time("When it was last said.")},
                        ),
                        "What holds, and why not.",
                        "type",
                    ),
                    "observedGeneration": int64("The generation that this speaks of."),
                    "readyReplicas": int32("Pods that are ready."),
                    "replicas": int32("Pods there are."),
                    "terminatingReplicas": int32("Pods that are ending."),
                    "unavailableReplicas": int32("Pods that are still missing."),
                    "updatedReplicas": int32("Pods of the present template."),
                },
            ),
        },
    ),
)

_FAILURE_RULE = record(
    "batch.v1.PodFailurePolicyRule",
    "What a certain failure means.",
    {
        "action!": string("FailJob, FailIndex, Ignore or Count."),
        "onExitCodes": record(
            "batch.v1.PodFailurePolicyOnExitCodesRequirement",
            "The exits meant.",
            {
                "containerName": string("The container; every one when absent."),
                "operator!": string("In or NotIn."),
                "values!": unique({"type": "integer", "format": "int32"}, "Exit codes."),
            },
        ),
        "onPodConditions": many(
            record(
                "batch.v1.PodFailurePolicyOnPodConditionsPattern",
                "A condition of the pod.",
                {"status": string("Its status; True when absent."), "type!": string("Its type.")},
            ),
            "The conditions meant.",
        ),
    },
)

_SCHEDULING = record(
    "batch.v1.JobSchedulingConfiguration",
    "How its pods are scheduled together.",
    {
        "disruptionMode": record(
            "scheduling.v1alpha3.WorkloadPodGroupDisruptionMode",
            "Which pods go when one must; one of the fields.",
            {
                "all": record("scheduling.v1alpha3.WorkloadPodGroupAllDisruptionMode", "All of them.", {}),
                "single": record("scheduling.v1alpha3.WorkloadPodGroupSingleDisruptionMode", "Only that one.", {}),
            },
        ),
        "resourceClaims": keyed(
            record(
                "scheduling.v1alpha3.WorkloadPodGroupResourceClaim",
                "A device claim that the pods share.",
                {
                    "name!": string("Its name among them."),
                    "resourceClaimName": string("An existing ResourceClaim."),
                    "resourceClaimTemplateName": string("A ResourceClaimTemplate to make one from."),
                },
            ),
            "Device claims that the pods share.",
            "name",
        ),
        "schedulingConstraints": record(
            "scheduling.v1alpha3.WorkloadPodGroupSchedulingConstraints",
            "Where they must lie.",
            {
                "topology": many(
                    record(
                        "scheduling.v1alpha3.TopologyConstraint",
                        "In one domain.",
                        {"key!": string("Node label that makes a domain.")},
                    ),
                    "Domains that they must share.",
                )
            },
        ),
        "schedulingPolicy": record(
            "scheduling.v1alpha3.WorkloadPodGroupSchedulingPolicy",
            "One by one or together; one of the fields.",
            {
                "basic": record("scheduling.v1alpha3.WorkloadPodGroupBasicSchedulingPolicy", "One by one.", {}),
                "gang": record(
                    "scheduling.v1alpha3.WorkloadPodGroupGangSchedulingPolicy",
                    "Together or not at all.",
                    {"minCount": int32("How many at least.")},
                ),
            },
        ),
    },
)

JOB = Kind(
    group="batch",
    version="v1",
    name="Job",
    plural="jobs",
    namespaced=True,
    categories=("all",),
    description="Runs pods until a number of them have succeeded.",
    selectable=("status.successful",),
    schema=whole(
        "batch.v1.Job",
        "Runs pods until a number of them have succeeded.",
        {
            "spec": record(
                "batch.v1.JobSpec",
                "What to run, how often, how stubbornly.",
                {
                    "activeDeadlineSeconds": int64("Seconds it may take in all.", minimum=0),
                    "backoffLimit": int32("Failures until it counts as failed.", minimum=0),
                    "backoffLimitPerIndex": int32("The same for each index.", minimum=0),
                    "completionMode": string("NonIndexed or Indexed.", default="NonIndexed"),
                    "completions": int32("Successes wanted.", minimum=0),
                    "managedBy": string("Who manages it instead of the Job controller."),
                    "manualSelector": boolean("The selector is given, not made."),
                    "maxFailedIndexes": int32("Failed indexes until it counts as failed.", minimum=0),
                    "parallelism": int32("Pods at one time.", minimum=0),
                    "podFailurePolicy": record(
                        "batch.v1.PodFailurePolicy",
                        "What failures mean.",
                        {"rules!": many(_FAILURE_RULE, "Looked at in order.")},
                    ),
                    "podReplacementPolicy": string("When a new pod is made: TerminatingOrFailed or Failed."),
                    "scheduling": _SCHEDULING,
                    "selector": one(LABEL_SELECTOR, "Which pods are its own; made by the server."),
                    "successPolicy": record(
                        "batch.v1.SuccessPolicy",
                        "What counts as success.",
                        {
                            "rules!": many(
                                record(
                                    "batch.v1.SuccessPolicyRule",
                                    "One way to succeed.",
                                    {
                                        "succeededCount": int32("That many indexes."),
                                        "succeededIndexes": string("These indexes, such as 1,3-5."),
                                    },
                                ),
                                "Ways to succeed.",
                            )
                        },
                    ),
                    "suspend": boolean("Run no pods for now.", default=False),
                    "template!": one(POD_TEMPLATE, "What its pods look like."),
                    "ttlSecondsAfterFinished": int32("Seconds after which a finished job is deleted.", minimum=0),
                },
            ),
            "status": record(
                "batch.v1.JobStatus",
                "How far it is.",
                {
                    "active": int32("Pods that run or wait."),
                    "completedIndexes": string("Indexes that succeeded, such as 1,3-5."),
                    "completionTime": time("When it succeeded."),
                    "conditions": many(
                        record(
                            "batch.v1.JobCondition",
                            "What holds, and why not.",
                            {**_CONDITION_FIELDS, "lastProbeTime": time("When it was last looked at.")},
                        ),
                        "Complete, Failed, Suspended and so on.",
                        **{"x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "type"},
                    ),
                    "failed": int32("Pods that failed."),
                    "failedIndexes": string("Indexes that failed."),
                    "ready": int32("Pods that are ready."),
                    "startTime": time("When it was taken up."),
                    "succeeded": int32("Pods that succeeded."),
                    "terminating": int32("Pods that are ending."),
                    "uncountedTerminatedPods": record(
                        "batch.v1.UncountedTerminatedPods",
                        "Pods that ended and are not counted yet.",
                        {
                            "failed": unique({"type": "string"}, "UIDs of failed ones."),
                            "succeeded": unique({"type": "string"}, "UIDs of succeeded ones."),
                        },
                    ),
                },
            ),
        },
    ),
)
