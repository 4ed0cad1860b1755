"""Pod, and its template in workloads: schema."""

from __future__ import annotations

from wharfinger.kinds.builtin.containers import (
    APPARMOR,
    CONTAINER,
    EPHEMERAL_CONTAINER,
    RESOURCES,
    SECCOMP,
    SELINUX,
    WINDOWS,
)
from wharfinger.kinds.builtin.fields import (
    boolean,
    int32,
    int64,
    keyed,
    many,
    one,
    one_of,
    quantities,
    record,
    string,
    string_map,
    strings,
    whole,
)
from wharfinger.kinds.builtin.meta import (
    LABEL_SELECTOR,
    LOCAL_OBJECT_REFERENCE,
    NODE_SELECTOR,
    NODE_SELECTOR_TERM,
    OBJECT_META,
)
from wharfinger.kinds.builtin.podstatus import POD_STATUS
from wharfinger.kinds.builtin.volumes import VOLUME
from wharfinger.kinds.kind import Kind, Schema

_AFFINITY_TERM = record(
    "core.v1.PodAffinityTerm",
    "Pods, and what counts as near them.",
    {
        "labelSelector": one(LABEL_SELECTOR, "The pods."),
        "matchLabelKeys": strings("Labels that must be equal to this pod's."),
        "mismatchLabelKeys": strings("Labels that must differ from this pod's."),
        "namespaceSelector": one(LABEL_SELECTOR, "Namespaces to look in."),
        "namespaces": strings("Namespaces to look in; this pod's when neither is given."),
        "topologyKey!": string("Node label whose equal value means near."),
    },
)

_WEIGHTED_TERM = record(
    "core.v1.WeightedPodAffinityTerm",
    "A term with its weight.",
    {"podAffinityTerm!": _AFFINITY_TERM, "weight!": int32("From 1 to 100.", minimum=1, maximum=100)},
)


def _pod_affinity(name: str, text: str) -> Schema:
    return record(
        f"core.v1.{name}",
        text,
        {
            "preferredDuringSchedulingIgnoredDuringExecution": many(_WEIGHTED_TERM, "Better so."),
            "requiredDuringSchedulingIgnoredDuringExecution": many(_AFFINITY_TERM, "Only so."),
        },
    )


_AFFINITY = record(
    "core.v1.Affinity",
    "Where it wants to be.",
    {
        "nodeAffinity": record(
            "core.v1.NodeAffinity",
            "Which nodes.",
            {
                "preferredDuringSchedulingIgnoredDuringExecution": many(
                    record(
                        "core.v1.PreferredSchedulingTerm",
                        "A term with its weight.",
                        {"preference!": NODE_SELECTOR_TERM, "weight!": int32("From 1 to 100.", minimum=1, maximum=100)},
                    ),
                    "Better so.",
                ),
                "requiredDuringSchedulingIgnoredDuringExecution": one(NODE_SELECTOR, "Only so."),
            },
        ),
        "podAffinity": _pod_affinity("PodAffinity", "Near which pods."),
        "podAntiAffinity": _pod_affinity("PodAntiAffinity", "Away from which pods."),
    },
)

TOLERATION = record(
    "core.v1.Toleration",
    "A taint that does not keep the pod away.",
    {
        "effect": string("Effect of the taint; every effect when empty."),
        "key": string("Key of the taint; every key when empty."),
        "operator": string("Equal or Exists; Equal when empty."),
        "tolerationSeconds": int64("How long a NoExecute taint is borne."),
        "value": string("Value of the taint."),
    },
)

_SPREAD = record(
    "core.v1.TopologySpreadConstraint",
    "How evenly pods are to lie.",
    {
        "labelSelector": one(LABEL_SELECTOR, "The pods that are counted."),
        "matchLabelKeys": strings("Labels that must be equal to this pod's."),
        "maxSkew!": int32("Most that two domains may differ by.", minimum=1),
        "minDomains": int32("Fewest domains to count."),
        "nodeAffinityPolicy": string("Honor or Ignore."),
        "nodeTaintsPolicy": string("Honor or Ignore."),
        "topologyKey!": string("Node label that makes a domain."),
        "whenUnsatisfiable!": string("DoNotSchedule or ScheduleAnyway."),
    },
)

_SECURITY_CONTEXT = record(
    "core.v1.PodSecurityContext",
    "Rights of all containers.",
    {
        "appArmorProfile": APPARMOR,
        "fsGroup": int64("Group id that owns the volumes."),
        "fsGroupChangePolicy": string("When volumes are given to fsGroup: OnRootMismatch or Always."),
        "runAsGroup": int64("Group id to run as."),
        "runAsNonRoot": boolean("Refuse to run as root."),
        "runAsUser": int64("User id to run as."),
        "seLinuxChangePolicy": string("How volumes get their SELinux label."),
        "seLinuxOptions": SELINUX,
        "seccompProfile": SECCOMP,
        "supplementalGroups": many({"type": "integer", "format": "int64"}, "More groups to be in."),
        "supplementalGroupsPolicy": string("Merge or Strict."),
        "sysctls": many(
            record(
                "core.v1.Sysctl",
                "A kernel parameter of the pod.",
                {"name!": string("Its name."), "value!": string("Its value.")},
            ),
            "Kernel parameters.",
        ),
        "windowsOptions": WINDOWS,
    },
)

_DNS = record(
    "core.v1.PodDNSConfig",
    "DNS settings on top of dnsPolicy.",
    {
        "nameservers": strings("Name servers."),
        "options": many(
            record(
                "core.v1.PodDNSConfigOption",
                "A resolver option.",
                {"name": string("Its name."), "value": string("Its value.")},
            ),
            "Resolver options.",
        ),
        "searches": strings("Search domains."),
    },
)

_CLAIM = record(
    "core.v1.PodResourceClaim",
    "A device claim of the pod, under the name that its containers use.",
    {
        "name!": string("That name: a DNS label."),
        "resourceClaimName": string("An existing ResourceClaim."),
        "resourceClaimTemplateName": string("A ResourceClaimTemplate to make one from."),
    },
)


def _named(name: str, text: str, field: str = "name") -> Schema:
    return record(f"core.v1.{name}", text, {f"{field}!": string("Its name.")})


POD_SPEC = record(
    "core.v1.PodSpec",
    "What runs together on one node.",
    {
        "activeDeadlineSeconds": int64("Seconds it may run in all."),
        "affinity": _AFFINITY,
        "automountServiceAccountToken": boolean("Mount a token of the service account."),
        "containers!": keyed(CONTAINER, "What runs.", "name"),
        "dnsConfig": _DNS,
        "dnsPolicy": string("ClusterFirst, ClusterFirstWithHostNet, Default or None.", default="ClusterFirst"),
        "enableServiceLinks": boolean("Tell services by environment variables."),
        "ephemeralContainers": keyed(EPHEMERAL_CONTAINER, "Added to a running pod to look at it.", "name"),
        "evictionResponders": keyed(
            record(
                "core.v1.EvictionResponder",
                "Who is asked when the pod is to be evicted.",
                {"name!": string("Its name."), "priority!": int32("Who is asked first.")},
                atomic=True,
            ),
            "Who is asked when the pod is to be evicted.",
            "name",
        ),
        "hostAliases": keyed(
            record(
                "core.v1.HostAlias",
                "A line of /etc/hosts.",
                {"hostnames": strings("Names."), "ip!": string("Address.")},
            ),
            "Lines of /etc/hosts.",
            "ip",
        ),
        "hostIPC": boolean("Share the node's IPC namespace."),
        "hostNetwork": boolean("Share the node's network."),
        "hostPID": boolean("Share the node's process namespace."),
        "hostUsers": boolean("Share the node's user namespace."),
        "hostname": string("Host name; the pod's name when absent."),
        "hostnameOverride": string("Host name as it is, without domain."),
        "imagePullSecrets": keyed(LOCAL_OBJECT_REFERENCE, "Secrets for pulling images.", "name"),
        "initContainers": keyed(CONTAINER, "Run one after another before the containers.", "name"),
        "nodeName": string("The node it is bound to."),
        "nodeSelector": string_map("Labels that the node must have.", atomic=True),
        "os": _named("PodOS", "Operating system: linux or windows."),
        "overhead": quantities("What running it takes on top."),
        "preemptionPolicy": string("Never or PreemptLowerPriority."),
        "priority": int32("Higher goes first."),
        "priorityClassName": string("Names the priority."),
        "readinessGates": many(
            _named("PodReadinessGate", "A condition that must be true too.", "conditionType"),
            "Conditions that must be true for the pod to be ready.",
        ),
        "resourceClaims": keyed(_CLAIM, "Device claims.", "name", patch="merge,retainKeys"),
        "resources": one(RESOURCES, "What the containers need and may use together."),
        "restartPolicy": one_of("When containers are restarted.", "Always", "OnFailure", "Never", default="Always"),
        "runtimeClassName": string("RuntimeClass to run under."),
        "schedulerName": string("Who schedules it.", default="default-scheduler"),
        "schedulingGates": keyed(
            _named("PodSchedulingGate", "Keeps the pod from being scheduled."), "Keep it from being scheduled.", "name"
        ),
        "schedulingGroup": record(
            "core.v1.PodSchedulingGroup",
            "The pods it is scheduled with.",
            {"podGroupName": string("Their PodGroup.")},
        ),
        "securityContext": one(_SECURITY_CONTEXT, "Rights of all containers.", default={}),
        "serviceAccount": string("Old name of serviceAccountName."),
        "serviceAccountName": string("The service account that it runs as: its identity."),
        "setHostnameAsFQDN": boolean("The host name is the full domain name."),
        "shareProcessNamespace": boolean("Containers see each other's processes."),
        "subdomain": string("Subdomain of the full host name."),
        "terminationGracePeriodSeconds": int64("Seconds from the stop signal to the kill signal.", default=30),
        "tolerations": many(TOLERATION, "Taints that do not keep it away."),
        "topologySpreadConstraints": keyed(_SPREAD, "How evenly to lie.", "topologyKey", "whenUnsatisfiable"),
        "volumes": keyed(VOLUME, "What containers can mount.", "name", patch="merge,retainKeys"),
    },
)

POD_TEMPLATE = record(
    "core.v1.PodTemplateSpec",
    "What the pods made from it look like.",
    {"metadata": one(OBJECT_META, "Their labels and annotations."), "spec": POD_SPEC},
)

POD = Kind(
    group="",
    version="v1",
    name="Pod",
    plural="pods",
    namespaced=True,
    short_names=("po",),
    categories=("all",),
    description="Processes that run together on one node.",
    schema=whole("core.v1.Pod", "Processes that run together on one node.", {"spec": POD_SPEC, "status": POD_STATUS}),
    selectable=(
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
)
