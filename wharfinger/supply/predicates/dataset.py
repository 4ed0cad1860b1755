"""Dataset manifest: what a dataset is, where it came from and what it may be used for.

Source, licence and purpose are what its owner says; the digests and counts are what the control plane measured. A
subset of the Data & Trust Alliance's Data Provenance Standards 1.0.0 (Source, Provenance, Use).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wharfinger.core.document import Json
from wharfinger.supply.predicates import fields
from wharfinger.supply.statement import Resource, Statement

TYPE: Final = "https://wharfinger.io/attestations/dataset/v1"
_FIELDS: Final = ("name", "contentDigest", "files", "bytes", "source", "license", "purpose")


@dataclass(frozen=True, slots=True)
class Dataset:
    """The dataset `name` (NAMESPACE/NAME): `content` is the root digest of its files (OpenSSF Model Signing)."""

    name: str
    content: str
    files: int
    bytes: int
    source: str = ""
    license: str = ""
    purpose: str = ""

    @classmethod
    def parse(cls, predicate: Json) -> Dataset:
        """Return the dataset in a decoded JSON `predicate`. Raises `Malformed`."""
        value = fields.thing(predicate, "dataset", *_FIELDS)
        return cls(
            fields.text(value, "name"),
            fields.digest(value, "contentDigest"),
            fields.number(value, "files"),
            fields.number(value, "bytes"),
            fields.text(value, "source", ""),
            fields.text(value, "license", ""),
            fields.text(value, "purpose", ""),
        )

    def to_json(self) -> dict[str, Json]:
        """Return the predicate as a JSON object."""
        return {
            "name": self.name,
            "contentDigest": self.content,
            "files": self.files,
            "bytes": self.bytes,
            "source": self.source,
            "license": self.license,
            "purpose": self.purpose,
        }

    def statement(self, repository: str, digest: str) -> Statement:
        """Return the statement that this is the artifact `digest` in `repository`."""
        return Statement((Resource.of(repository, digest),), TYPE, self.to_json())
