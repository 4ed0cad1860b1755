"""AccessPolicy: which identities may pull, serve, call and see what."""

from __future__ import annotations

from typing import Annotated, Literal

from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind
from wharfinger.kinds.schema import SET, Conditions, Name, Part, SpiffePattern, says, whole


class Objects(Part, frozen=True, kw_only=True):
    """What the policy speaks of; what is left out matches everything."""

    kinds: Annotated[list[Literal["Model", "Dataset", "InferenceService"]], says("Kinds.", schema=SET)] = []
    namespaces: Annotated[list[Name], says("Namespaces.", schema=SET)] = []
    names: Annotated[list[str], says("Object names.", schema=SET)] = []


class AccessPolicySpec(Part, frozen=True, kw_only=True):
    """Who may do what. Default deny: something must allow, and a Deny that matches wins."""

    effect: Annotated[Literal["Allow", "Deny"], says("What a match means; Deny wins over Allow.")] = "Allow"
    identities: Annotated[
        list[SpiffePattern],
        says("Who: SPIFFE IDs, or all below one (`.../*`).", schema=SET, min_length=1, max_length=1000),
    ]
    verbs: Annotated[
        list[Literal["pull", "push", "serve", "call", "see"]], says("What they do.", schema=SET, min_length=1)
    ]
    objects: Annotated[Objects, says("With what.")] = Objects()
    condition: Annotated[
        str,
        says(
            "A CEL condition over identity, tenant, verb, object and device; an error counts as not true for "
            "Allow and as true for Deny.",
            max_length=10240,
        ),
    ] = ""


class AccessPolicyStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="AccessPolicy",
    plural="accesspolicies",
    namespaced=False,
    short_names=("ap",),
    categories=("wharfinger",),
    description="Which identities may pull, serve, call and see what.",
    schema=whole(AccessPolicySpec, AccessPolicyStatus, "Which identities may pull, serve, call and see what."),
    columns=(
        Column("Effect", ".spec.effect"),
        Column("Verbs", ".spec.verbs"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
