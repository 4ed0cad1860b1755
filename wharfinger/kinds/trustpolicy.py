"""TrustPolicy: whose signatures, builders, attestations and formats are believed."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind
from wharfinger.kinds.schema import SET, Conditions, Name, Part, SpiffePattern, says, whole

Days = Annotated[int, msgspec.Meta(ge=1, le=36500)]


class TrustPolicySpec(Part, frozen=True, kw_only=True):
    """What an artifact must show. Every policy that applies must hold; with none that applies, nothing is admitted."""

    tenants: Annotated[list[Name], says("Tenants it applies to; empty for all.", schema=SET)] = []
    artifacts: Annotated[
        list[Literal["Model", "Dataset"]],
        says("Kinds it applies to.", schema={**SET, "default": ["Model", "Dataset"]}, min_length=1),
    ] = msgspec.field(default_factory=lambda: ["Model", "Dataset"])
    signers: Annotated[
        list[SpiffePattern],
        says("Identities whose signature counts.", schema=SET, min_length=1, max_length=100),
    ]
    builders: Annotated[
        list[SpiffePattern],
        says("Builders whose SLSA provenance counts (models).", schema=SET, max_length=100),
    ] = []
    predicates: Annotated[
        list[str], says("Predicate types that must be attested by a signer.", schema=SET, max_length=32)
    ] = []
    formats: Annotated[
        list[Literal["safetensors"]],
        says("Weight formats that may be loaded.", schema={**SET, "default": ["safetensors"]}),
    ] = msgspec.field(default_factory=lambda: ["safetensors"])
    minimum_isolation: Annotated[
        Literal["none", "namespaces"], says("How isolated the build steps must have been.")
    ] = "namespaces"
    maximum_age_days: Annotated[Days | None, says("Oldest signature that counts, in days; absent: any age.")] = None
    require_screening: Annotated[
        bool,
        says("Demand a passing screening verdict (datasets; for models, of the datasets they were made from)."),
    ] = True


class TrustPolicyStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="TrustPolicy",
    plural="trustpolicies",
    namespaced=False,
    short_names=("tp",),
    categories=("wharfinger",),
    description="Whose signatures and attestations are believed.",
    schema=whole(
        TrustPolicySpec,
        TrustPolicyStatus,
        "Whose signatures, builders, attestations and formats are believed.",
    ),
    columns=(
        Column("Signers", ".spec.signers"),
        Column("Isolation", ".spec.minimumIsolation"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
