"""Every kind of Wharfinger's own, in the order that docs and discovery list them."""

from __future__ import annotations

from wharfinger.kinds import (
    accesspolicy,
    dataset,
    gpuprofile,
    grant,
    inferencepolicy,
    inferenceservice,
    model,
    pipelinerun,
    tenant,
    trustpolicy,
)
from wharfinger.kinds.kind import Kind

KINDS: tuple[Kind, ...] = (
    tenant.KIND,
    gpuprofile.KIND,
    trustpolicy.KIND,
    accesspolicy.KIND,
    dataset.KIND,
    model.KIND,
    pipelinerun.KIND,
    inferenceservice.KIND,
    inferencepolicy.KIND,
    grant.KIND,
)
