"""Dataset: files in the registry by digest, screened and signed."""

from __future__ import annotations

from typing import Annotated, Literal

from wharfinger.kinds.artifact import Reference, Signature
from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind
from wharfinger.kinds.schema import Conditions, Part, Sha256, rule, says, whole


class DatasetSpec(Part, frozen=True, kw_only=True):
    """What it is and where it came from."""

    artifact: Annotated[Reference, says("Where the files are.")]
    source: Annotated[str, says("Where the data came from.", max_length=1024)] = ""
    license: Annotated[str, says("SPDX licence expression.", max_length=256)] = ""
    purpose: Annotated[str, says("What it may be used for.", max_length=1024)] = ""


class Screening(Part, frozen=True, kw_only=True):
    """What reading the files found."""

    verdict: Annotated[Literal["Passed", "Failed"], says("Whether it may be trained on.")]
    findings: Annotated[int, says("Findings over all checks.", ge=0)] = 0
    attestation: Annotated[Sha256 | None, says("Digest of the signed screening attestation.")] = None


class DatasetStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    content_digest: Annotated[Sha256 | None, says("Digest of the manifest of files (OpenSSF Model Signing).")] = None
    files: Annotated[int, says("Number of files.", ge=0)] = 0
    bytes: Annotated[int, says("Their size.", ge=0)] = 0
    screening: Annotated[Screening | None, says("What screening found.")] = None
    signature: Annotated[Signature | None, says("The verified signature.")] = None
    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="Dataset",
    plural="datasets",
    namespaced=True,
    short_names=("ds",),
    categories=("wharfinger",),
    description="Files to learn from, by digest, screened and signed.",
    schema=whole(
        DatasetSpec,
        DatasetStatus,
        "Files to learn from, by digest, screened and signed.",
        rules=(
            rule(
                "self.artifact == oldSelf.artifact",
                "a dataset's artifact does not change: make another",
                field_path=".artifact",
            ),
        ),
    ),
    columns=(
        Column("Digest", ".spec.artifact.digest", priority=1),
        Column("Files", ".status.files", "integer"),
        Column("Bytes", ".status.bytes", "integer"),
        Column("Screening", ".status.screening.verdict"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
