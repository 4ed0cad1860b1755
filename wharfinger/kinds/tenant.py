"""Tenant: who shares the fleet, with which namespaces, how much of it, and apart from whom."""

from __future__ import annotations

from typing import Annotated, Literal

from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind
from wharfinger.kinds.schema import SET, Conditions, Name, Part, Quantity, rule, says, whole

Money = Annotated[str, says("An amount of money, decimal.", pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?$")]
UserName = Annotated[str, says("A person's name.", min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._-]+$")]


class GPUQuota(Part, frozen=True, kw_only=True):
    """How much silicon the tenant's claims may hold at one time; what is left out is 0."""

    memory: Annotated[Quantity, says("GPU memory over all claims, for example 120Gi.")] = "0"
    compute_slices: Annotated[
        int,
        says("Compute slices over all claims: a whole 7-slice GPU counts 7, a 1g slice 1.", ge=0, le=1_000_000),
    ] = 0


class Quota(Part, frozen=True, kw_only=True):
    """What the tenant may use."""

    gpu: Annotated[GPUQuota, says("Silicon held at one time.")] = GPUQuota()
    tokens_per_minute: Annotated[
        int,
        says("Prompt and answer tokens a minute over all models; 0 lets no request through.", ge=0, le=10**12),
    ] = 0


class Budget(Part, frozen=True, kw_only=True):
    """What the tenant may spend; passing it raises a condition and an event."""

    monthly: Annotated[Money, says("Amount per calendar month (UTC).")]
    currency: Annotated[str, says("ISO 4217 code.", pattern=r"^[A-Z]{3}$")] = "USD"


class Rates(Part, frozen=True, kw_only=True):
    """What the tenant is billed by."""

    per_million_tokens: Annotated[Money, says("Price of a million tokens, prompt and answer alike.")] = "0"
    per_gpu_hour: Annotated[Money, says("Price of a whole GPU for an hour; a slice costs its part in compute.")] = "0"


class Isolation(Part, frozen=True, kw_only=True):
    """What other tenants may be on, seen from this one."""

    from_others: Annotated[
        Literal["slice", "device", "node"],
        says(
            "slice: another tenant may hold another MIG slice of the same GPU. device: never the same GPU. "
            "node: never a GPU of the same node."
        ),
    ] = "slice"


class TenantSpec(Part, frozen=True, kw_only=True):
    """What a platform engineer grants a team."""

    namespaces: Annotated[
        list[Name],
        says("The namespaces that are this tenant's alone.", schema=SET, min_length=1, max_length=100),
    ]
    admins: Annotated[
        list[UserName],
        says("People who may also set access and delete for the tenant.", schema=SET, max_length=100),
    ] = []
    quota: Annotated[Quota, says("Limits on GPUs and tokens.")] = Quota()
    budget: Annotated[Budget | None, says("Limit on money.")] = None
    rates: Annotated[Rates, says("Prices for the bill.")] = Rates()
    weight: Annotated[int, says("Fair share against other tenants; kept, nothing goes by it yet.", ge=1, le=1000)] = 1
    isolation: Annotated[Isolation, says("Isolation demanded from other tenants.")] = Isolation()


class Used(Part, frozen=True, kw_only=True):
    """What the tenant holds now."""

    memory: Annotated[Quantity, says("GPU memory claimed.")] = "0"
    compute_slices: Annotated[int, says("Compute slices claimed.", ge=0)] = 0


class TenantStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    used: Annotated[Used, says("GPU quota in use.")] = Used()
    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="Tenant",
    plural="tenants",
    namespaced=False,
    short_names=("tn",),
    categories=("wharfinger",),
    description="A team that shares the fleet.",
    schema=whole(
        TenantSpec,
        TenantStatus,
        "A team that shares the fleet: its namespaces, quota, rates and the isolation it demands.",
        rules=(
            rule(
                "self.namespaces.all(n, !(n in ['default', 'wharfinger-system']) && !n.startsWith('kube-'))",
                "default, wharfinger-system and kube-* belong to no tenant",
                field_path=".namespaces",
            ),
        ),
    ),
    columns=(
        Column("GPU-Memory", ".spec.quota.gpu.memory"),
        Column("Used", ".status.used.memory"),
        Column("Tokens/min", ".spec.quota.tokensPerMinute", "integer"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
