"""Model: weights in the registry by digest, with signature, provenance and the data they were made from."""

from __future__ import annotations

from typing import Annotated, Literal

from wharfinger.kinds.artifact import Reference, Signature
from wharfinger.kinds.kind import GROUP, VERSION, Column, Kind
from wharfinger.kinds.schema import ATOMIC, Conditions, Part, Sha256, rule, says, whole


class ModelSpec(Part, frozen=True, kw_only=True):
    """What it is."""

    artifact: Annotated[Reference, says("Where the weights are.")]
    format: Annotated[Literal["safetensors"], says("Format of the weights.")] = "safetensors"


class ModelProvenance(Part, frozen=True, kw_only=True):
    """Where it came from, as the verified SLSA provenance says."""

    builder: Annotated[str, says("SPIFFE ID of the builder.")]
    run: Annotated[str, says("The PipelineRun, namespace/name.")]
    isolation: Annotated[str, says("How the steps were isolated: namespaces or none.")]
    datasets: Annotated[list[str], says("Digests of the datasets it was made from.", schema=ATOMIC)] = []
    attestation: Annotated[Sha256 | None, says("Digest of the signed provenance.")] = None


class ModelStatus(Part, frozen=True, kw_only=True):
    """What is so."""

    content_digest: Annotated[Sha256 | None, says("Digest of the manifest of files (OpenSSF Model Signing).")] = None
    signature: Annotated[Signature | None, says("The verified signature.")] = None
    provenance: Annotated[ModelProvenance | None, says("The verified provenance.")] = None
    summary: Annotated[Sha256 | None, says("Digest of the verification summary that admission reads.")] = None
    conditions: Conditions = []


KIND = Kind(
    group=GROUP,
    version=VERSION,
    name="Model",
    plural="models",
    namespaced=True,
    short_names=("mdl",),
    categories=("wharfinger",),
    description="Weights by digest, signed, with provenance.",
    schema=whole(
        ModelSpec,
        ModelStatus,
        "Weights by digest, signed, with provenance.",
        rules=(
            rule(
                "self.artifact == oldSelf.artifact",
                "a model's artifact does not change: make another",
                field_path=".artifact",
            ),
        ),
    ),
    columns=(
        Column("Digest", ".spec.artifact.digest", priority=1),
        Column("Signer", ".status.signature.signer"),
        Column("Run", ".status.provenance.run"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
