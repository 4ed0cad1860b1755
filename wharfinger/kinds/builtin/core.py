"""Namespace, ServiceAccount, Secret, ConfigMap, Event, Lease: schemas."""

from __future__ import annotations

from wharfinger.kinds.builtin.fields import (
    boolean,
    bytes_map,
    int32,
    keyed,
    many,
    one,
    record,
    string,
    string_map,
    strings,
    time,
    whole,
)
from wharfinger.kinds.builtin.meta import LOCAL_OBJECT_REFERENCE, OBJECT_REFERENCE
from wharfinger.kinds.kind import Column, Kind

AGE = Column("Age", ".metadata.creationTimestamp", "date")

NAMESPACE = Kind(
    group="",
    version="v1",
    name="Namespace",
    plural="namespaces",
    namespaced=False,
    short_names=("ns",),
    description="A space of names.",
    columns=(Column("Status", ".status.phase"), AGE),
    selectable=("status.phase",),
    schema=whole(
        "core.v1.Namespace",
        "A space of names: objects in it go when it goes.",
        {
            "spec": record(
                "core.v1.NamespaceSpec",
                "What must happen before it goes.",
                {"finalizers": strings("Who must let go first.")},
            ),
            "status": record(
                "core.v1.NamespaceStatus",
                "How it is.",
                {
                    "conditions": keyed(
                        record(
                            "core.v1.NamespaceCondition",
                            "What holds, and why not.",
                            {
                                "lastTransitionTime": time("When the status last changed."),
                                "message": string("Why, in words."),
                                "reason": string("Why, in one word."),
                                "status!": string("True, False or Unknown."),
                                "type!": string("What it is about."),
                            },
                        ),
                        "What keeps it from going.",
                        "type",
                    ),
                    "phase": string("Active or Terminating."),
                },
            ),
        },
    ),
)

SERVICE_ACCOUNT = Kind(
    group="",
    version="v1",
    name="ServiceAccount",
    plural="serviceaccounts",
    namespaced=True,
    short_names=("sa",),
    status=False,
    description="An identity for workloads.",
    schema=whole(
        "core.v1.ServiceAccount",
        "An identity for workloads: spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME.",
        {
            "automountServiceAccountToken": boolean("Mount a token into its pods."),
            "imagePullSecrets": many(LOCAL_OBJECT_REFERENCE, "Secrets for pulling images of its pods."),
            "secrets": keyed(OBJECT_REFERENCE, "Secrets that its pods may use.", "name"),
        },
    ),
)

SECRET = Kind(
    group="",
    version="v1",
    name="Secret",
    plural="secrets",
    namespaced=True,
    status=False,
    description="Data that few may read.",
    selectable=("type",),
    schema=whole(
        "core.v1.Secret",
        "Data that few may read; at most 1 MiB.",
        {
            "data": bytes_map("The data, base64."),
            "immutable": boolean("The data can not be changed any more."),
            "stringData": string_map("The data as texts, for writing: they go into data."),
            "type": string("What sort of secret it is.", default="Opaque"),
        },
    ),
)

CONFIG_MAP = Kind(
    group="",
    version="v1",
    name="ConfigMap",
    plural="configmaps",
    namespaced=True,
    short_names=("cm",),
    status=False,
    description="Configuration for pods.",
    schema=whole(
        "core.v1.ConfigMap",
        "Configuration for pods; at most 1 MiB.",
        {
            "binaryData": bytes_map("Data that is not text, base64."),
            "data": string_map("Data that is text."),
            "immutable": boolean("The data can not be changed any more."),
        },
    ),
)

EVENT = Kind(
    group="",
    version="v1",
    name="Event",
    plural="events",
    namespaced=True,
    short_names=("ev",),
    status=False,
    description="What happened to an object.",
    selectable=(
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    schema=whole(
        "core.v1.Event",
        "What happened to an object, for people to read; kept for a while.",
        {
            "action": string("What was done."),
            "count": int32("How often it happened."),
            "eventTime": {**time("When it was first seen, to the microsecond."), "nullable": True},
            "firstTimestamp": {**time("When it first happened."), "nullable": True},
            "involvedObject!": one(OBJECT_REFERENCE, "To what."),
            "lastTimestamp": {**time("When it last happened."), "nullable": True},
            "message": string("What, in words."),
            "reason": string("What, in one word."),
            "related": one(OBJECT_REFERENCE, "What else is concerned."),
            "reportingComponent": string("Who says so.", default=""),
            "reportingInstance": string("Which instance of it.", default=""),
            "series": record(
                "core.v1.EventSeries",
                "It goes on happening.",
                {"count": int32("How often so far."), "lastObservedTime": time("When last.")},
            ),
            "source": record(
                "core.v1.EventSource",
                "Who says so, in the old form.",
                {"component": string("The component."), "host": string("Its node.")},
            ),
            "type": string("Normal or Warning."),
        },
    ),
)

LEASE = Kind(
    group="coordination.k8s.io",
    version="v1",
    name="Lease",
    plural="leases",
    namespaced=True,
    status=False,
    description="Who leads, and until when.",
    columns=(Column("Holder", ".spec.holderIdentity"), AGE),
    schema=whole(
        "coordination.v1.Lease",
        "Who holds something, and until when.",
        {
            "spec": record(
                "coordination.v1.LeaseSpec",
                "Who holds it.",
                {
                    "acquireTime": time("When the holder got it."),
                    "holderIdentity": string("Who holds it."),
                    "leaseDurationSeconds": int32(
                        "Seconds it stays held after renewTime.", exclusiveMinimum=True, minimum=0
                    ),
                    "leaseTransitions": int32("How often it changed hands.", minimum=0),
                    "preferredHolder": string("Who should hold it."),
                    "renewTime": time("When the holder last said so."),
                    "strategy": string("How a holder is chosen."),
                },
            )
        },
    ),
)
