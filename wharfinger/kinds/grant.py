"""Grant: this identity may use these artifacts on this silicon for these callers, until then.

Written by the control plane alone (`policy.grant.issue`); every door asks it (`policy.grant.permits`).
"""

from __future__ import annotations

from typing import Annotated

from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind
from wharfinger.kinds.schema import (
    ATOMIC,
    SET,
    Conditions,
    Part,
    Sha256,
    SpiffePattern,
    Time,
    keyed,
    rule,
    says,
    whole,
)


class GrantedDevice(Part, frozen=True, kw_only=True):
    """One device or slice, as the claim's allocation names it, and the silicon behind it."""

    driver: Annotated[str, says("DRA driver.", min_length=1)]
    pool: Annotated[str, says("Resource pool, the node's name.", min_length=1)]
    device: Annotated[str, says("Device in the pool.", min_length=1)]
    uuid: Annotated[str, says("UUID of the GPU or MIG slice.", min_length=1)]
    request: Annotated[str, says("Request of the claim that it answers.")] = ""


class GrantedClaim(Part, frozen=True, kw_only=True):
    """The ResourceClaim and what it got."""

    name: Annotated[str, says("Name of the ResourceClaim, in the grant's namespace.", min_length=1)]
    uid: Annotated[str, says("Its uid.", min_length=1)]
    devices: Annotated[
        list[GrantedDevice], says("What it got.", schema=keyed("driver", "pool", "device"), min_length=1)
    ]


class GrantSpec(Part, frozen=True, kw_only=True):
    """The grant; all but revocation never changes."""

    workload: Annotated[str, says("SPIFFE ID that may use it.", pattern=r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$")]
    pod: Annotated[str, says("The pod that runs as this workload.")] = ""
    pod_uid: Annotated[str, says("Its uid.")] = ""
    service: Annotated[str, says("The InferenceService it serves.")] = ""
    artifacts: Annotated[list[Sha256], says("Digests of the artifacts it may pull and load.", schema=SET, min_length=1)]
    claim: Annotated[GrantedClaim | None, says("The silicon; none for CPU.")] = None
    callers: Annotated[list[SpiffePattern], says("Who may call it.", schema=SET)] = []
    policy_revision: Annotated[Sha256, says("Digest of the policies that it was issued under.")]
    not_before: Annotated[Time, says("From when.")]
    not_after: Annotated[Time, says("Until when.")]
    revoked: Annotated[bool, says("Set once, never unset: closes every door.")] = False
    revoked_reason: Annotated[str, says("Why.", max_length=1024)] = ""
    decision: Annotated[str, says("Id of the decision to issue it.")] = ""
    verification: Annotated[list[str], says("Digests of the verification summaries it rests on.", schema=ATOMIC)] = []


class GrantStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="Grant",
    plural="grants",
    namespaced=True,
    short_names=("gr",),
    categories=("wharfinger",),
    description="This identity, these artifacts, this silicon, these callers.",
    schema=whole(
        GrantSpec,
        GrantStatus,
        "This identity may use these artifacts on this silicon for these callers.",
        rules=(
            rule("!oldSelf.revoked || self.revoked", "a revoked grant stays revoked", field_path=".revoked"),
            rule(
                "self.workload == oldSelf.workload && self.artifacts == oldSelf.artifacts && "
                "self.policyRevision == oldSelf.policyRevision && self.notBefore == oldSelf.notBefore && "
                "self.notAfter == oldSelf.notAfter",
                "a grant does not change but for its revocation",
            ),
        ),
    ),
    columns=(
        Column("Workload", ".spec.workload"),
        Column("Service", ".spec.service"),
        Column("Device", ".spec.claim.devices[*].uuid"),
        Column("Revoked", ".spec.revoked", "boolean"),
        Column("Until", ".spec.notAfter", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
