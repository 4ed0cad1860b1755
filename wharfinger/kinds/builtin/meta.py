"""Types of meta/v1 and references that several built-in kinds share."""

from __future__ import annotations

from wharfinger.kinds.builtin.fields import (
    anything,
    boolean,
    int64,
    keyed,
    many,
    record,
    string,
    string_map,
    strings,
    time,
    unique,
)

OWNER_REFERENCE = record(
    "meta.v1.OwnerReference",
    "An object that this one belongs to, and goes with.",
    {
        "apiVersion!": string("Group and version of the owner."),
        "blockOwnerDeletion": boolean("A foreground deletion of the owner waits for this object."),
        "controller": boolean("The owner is the one that controls this object."),
        "kind!": string("Kind of the owner."),
        "name!": string("Name of the owner."),
        "uid!": string("UID of the owner."),
    },
    atomic=True,
)

MANAGED_FIELDS_ENTRY = record(
    "meta.v1.ManagedFieldsEntry",
    "The fields that one manager has set.",
    {
        "apiVersion": string("Version of the object in which the fields are named."),
        "fieldsType": string("Form of the fields: FieldsV1."),
        "fieldsV1": anything("The fields."),
        "manager": string("Who set them."),
        "operation": string("How: Apply or Update."),
        "subresource": string("Through which subresource; empty for the object itself."),
        "time": time("When the manager last changed them."),
    },
)

OBJECT_META = record(
    "meta.v1.ObjectMeta",
    "What every object has.",
    {
        "annotations": string_map("Notes of tools; not selectable."),
        "creationTimestamp": time("When the object was created. Set by the server."),
        "deletionGracePeriodSeconds": int64("Seconds it may take to end. Set by the server."),
        "deletionTimestamp": time("When the object is to be gone. Set by the server on deletion."),
        "finalizers": unique({"type": "string"}, "Who must let go before the object can go.", merged=True),
        "generateName": string("Prefix from which the server makes a unique name."),
        "generation": int64("Counts changes of what is wanted. Set by the server."),
        "labels": string_map("What selectors select by."),
        "managedFields": many(MANAGED_FIELDS_ENTRY, "Who set which fields. Kept by the server."),
        "name": string("Unique among objects of its kind in its namespace; cannot change."),
        "namespace": string("The namespace it lives in; cannot change."),
        "ownerReferences": keyed(OWNER_REFERENCE, "The objects that this one belongs to.", "uid"),
        "resourceVersion": string("Version of the stored object, opaque. Set by the server."),
        "selfLink": string("Not used any more."),
        "uid": string("Identifies this object among all there ever were. Set by the server."),
    },
)

LABEL_SELECTOR = record(
    "meta.v1.LabelSelector",
    "Selects objects by label; all conditions must hold, none selects everything.",
    {
        "matchExpressions": many(
            record(
                "meta.v1.LabelSelectorRequirement",
                "One condition on one label.",
                {
                    "key!": string("The label's key."),
                    "operator!": string("In, NotIn, Exists or DoesNotExist."),
                    "values": strings("Values for In and NotIn."),
                },
            ),
            "Conditions.",
        ),
        "matchLabels": string_map("Labels with the values that they must have."),
    },
    atomic=True,
)

CONDITION = record(
    "meta.v1.Condition",
    "What holds, and why not.",
    {
        "lastTransitionTime!": time("When the status last changed."),
        "message!": string("Why, in words."),
        "observedGeneration": int64("The generation that this speaks of."),
        "reason!": string("Why, in one CamelCase word."),
        "status!": string("True, False or Unknown."),
        "type!": string("What the condition is about, CamelCase."),
    },
)

LOCAL_OBJECT_REFERENCE = record(
    "core.v1.LocalObjectReference",
    "An object of a known kind in the same namespace.",
    {"name": string("Its name.")},
    atomic=True,
)

OBJECT_REFERENCE = record(
    "core.v1.ObjectReference",
    "An object, or a part of one.",
    {
        "apiVersion": string("Its group and version."),
        "fieldPath": string("The part of it that is meant."),
        "kind": string("Its kind."),
        "name": string("Its name."),
        "namespace": string("Its namespace."),
        "resourceVersion": string("The version of it that is meant."),
        "uid": string("Its UID."),
    },
    atomic=True,
)

NODE_SELECTOR_REQUIREMENT = record(
    "core.v1.NodeSelectorRequirement",
    "One condition on a node's label or field.",
    {
        "key!": string("The label's key, or the field's name."),
        "operator!": string("In, NotIn, Exists, DoesNotExist, Gt or Lt."),
        "values": strings("Values to compare with."),
    },
)

NODE_SELECTOR_TERM = record(
    "core.v1.NodeSelectorTerm",
    "Conditions that must all hold; without any, no node is selected.",
    {
        "matchExpressions": many(NODE_SELECTOR_REQUIREMENT, "Conditions on the node's labels."),
        "matchFields": many(NODE_SELECTOR_REQUIREMENT, "Conditions on the node's fields."),
    },
    atomic=True,
)

NODE_SELECTOR = record(
    "core.v1.NodeSelector",
    "Selects nodes: one of the terms must hold.",
    {"nodeSelectorTerms!": many(NODE_SELECTOR_TERM, "The terms.")},
    atomic=True,
)
