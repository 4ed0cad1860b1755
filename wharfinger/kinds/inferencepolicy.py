"""InferencePolicy: what prompts and answers are looked at for, and how much may be asked."""

from __future__ import annotations

from typing import Annotated, Literal

from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind
from wharfinger.kinds.schema import SET, Conditions, Count, Name, Part, keyed, says, whole


class Guard(Part, frozen=True, kw_only=True):
    """One detector and what its finding means."""

    name: Annotated[Literal["secrets", "pii"], says("What is looked for.")]
    prompt: Annotated[Literal["Allow", "Deny", "Mask"], says("What a finding in a prompt means.")] = "Deny"
    output: Annotated[Literal["Allow", "Deny", "Mask"], says("What a finding in an answer means.")] = "Mask"


class Limits(Part, frozen=True, kw_only=True):
    """How much one caller may ask; the tenant's own limit is in its quota."""

    max_tokens: Annotated[int, says("Most tokens of one answer.", ge=1, le=10**7)] = 4096
    caller_tokens_per_minute: Annotated[Count | None, says("Tokens a minute of one caller.")] = None


class InferencePolicySpec(Part, frozen=True, kw_only=True):
    """Guards and limits. Where several apply, the strictest action and the lowest limit hold."""

    services: Annotated[
        list[Name], says("InferenceServices it applies to; empty for all of the namespace.", schema=SET)
    ] = []
    guards: Annotated[list[Guard], says("What is looked for.", schema=keyed("name"), max_length=16)] = []
    limits: Annotated[Limits, says("How much may be asked.")] = Limits()
    cache_isolation: Annotated[
        Literal["Tenant", "Caller"],
        says("Who shares a runtime's prefix cache: one salt per tenant or per caller."),
    ] = "Tenant"


class InferencePolicyStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="InferencePolicy",
    plural="inferencepolicies",
    namespaced=True,
    short_names=("ip",),
    categories=("wharfinger",),
    description="Guards and limits on prompts and answers.",
    schema=whole(InferencePolicySpec, InferencePolicyStatus, "Guards and limits on prompts and answers."),
    columns=(
        Column("Guards", ".spec.guards[*].name"),
        Column("Max-Tokens", ".spec.limits.maxTokens", "integer"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
