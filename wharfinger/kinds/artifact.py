"""What datasets and models have in common: an OCI reference, and what verifying it showed."""

from __future__ import annotations

from typing import Annotated

from wharfinger.kinds.schema import Part, Sha256, says

Repository = Annotated[
    str,
    says(
        "Repository in the registry; begins with the object's namespace.",
        min_length=3,
        max_length=255,
        pattern=r"^[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$",
    ),
]


class Reference(Part, frozen=True, kw_only=True):
    """An artifact in the registry, by digest."""

    repository: Repository
    digest: Annotated[Sha256, says("Digest of the OCI manifest.")]


class Signature(Part, frozen=True, kw_only=True):
    """A signature that was verified."""

    signer: Annotated[str, says("SPIFFE ID of the signer.")]
    bundle: Annotated[Sha256, says("Digest of the bundle, a referrer of the artifact.")]
    log_index: Annotated[int, says("Index of its entry in the transparency log.", ge=0)]
    signed_at: Annotated[str, says("The entry's time.")]
