"""Provenance of a model: which run of which steps made it from which data (SLSA Provenance v1).

Written by the control plane from what it ordered and what the registry holds, never by a step. The build type's
external parameters are the run's spec: command and environment of each step; the internal ones say how the steps
were isolated. Resolved dependencies are the dataset and the code, by digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, excerpt
from wharfinger.supply.predicates import fields
from wharfinger.supply.statement import Resource, Statement

TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "https://wharfinger.io/builds/pipelinerun/v1"
DATASET: Final = "dataset"
CODE: Final = "code"
ISOLATION: Final = ("none", "namespaces")
"""How steps may have been isolated, the weakest first."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """One input: its `role` (dataset or code), repository and digest."""

    role: str
    repository: str
    digest: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """`run` (NAMESPACE/NAME, with its `uid`) made it, as `builder` says. Times are RFC 3339, empty where unknown."""

    builder: str
    run: str
    uid: str
    isolation: str
    dependencies: tuple[Dependency, ...] = ()
    external: Mapping[str, Json] = field(default_factory=dict)
    started: str = ""
    finished: str = ""

    def digests(self, role: str) -> list[str]:
        """Return the digests of the inputs with this role."""
        return [dependency.digest for dependency in self.dependencies if dependency.role == role]

    @classmethod
    def parse(cls, predicate: Json) -> Provenance:
        """Return the provenance in a decoded JSON `predicate`. Raises `Malformed`, also for another build type."""
        value = fields.thing(predicate, "provenance", "buildDefinition", "runDetails")
        definition = fields.thing(value.get("buildDefinition"), "provenance buildDefinition")
        details = fields.thing(value.get("runDetails"), "provenance runDetails")
        kind = fields.text(definition, "buildType")
        if kind != BUILD_TYPE:
            raise Malformed(f"provenance: expected buildType {BUILD_TYPE}, got {excerpt(kind)}")
        internal = fields.thing(definition.get("internalParameters", {}), "provenance internalParameters")
        metadata = fields.thing(details.get("metadata", {}), "provenance metadata")
        return cls(
            builder=fields.text(fields.thing(details.get("builder"), "provenance builder"), "id"),
            run=fields.text(internal, "run"),
            uid=fields.text(metadata, "invocationId"),
            isolation=fields.choice(internal, "isolation", ISOLATION),
            dependencies=tuple(_dependency(item) for item in fields.things(definition, "resolvedDependencies")),
            external=fields.thing(definition.get("externalParameters", {}), "provenance externalParameters"),
            started=fields.text(metadata, "startedOn", ""),
            finished=fields.text(metadata, "finishedOn", ""),
        )

    def to_json(self) -> dict[str, Json]:
        """Return the predicate as a JSON object."""
        metadata = {"invocationId": self.uid, "startedOn": self.started, "finishedOn": self.finished}
        return {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(self.external),
                "internalParameters": {"run": self.run, "isolation": self.isolation},
                "resolvedDependencies": [
                    Resource.of(d.role, d.digest, uri=f"oci:{d.repository}@{d.digest}").to_json()
                    for d in self.dependencies
                ],
            },
            "runDetails": {
                "builder": {"id": self.builder},
                "metadata": {name: value for name, value in metadata.items() if value},
            },
        }

    def statement(self, repository: str, digest: str, content: str) -> Statement:
        """Return the statement that the artifact `digest` in `repository`, whose files are `content`, was made so."""
        return Statement((Resource.of(repository, digest), Resource.of("files", content)), TYPE, self.to_json())


def _dependency(value: Json) -> Dependency:
    resource = Resource.parse(value)
    at = resource.uri.removeprefix("oci:")
    repository, _, digest = at.partition("@")
    if not resource.sha256 or digest != resource.sha256 or at == resource.uri:
        raise Malformed(f"provenance: expected oci:REPOSITORY@DIGEST of its digest, got {excerpt(resource.uri)}")
    return Dependency(resource.name, repository, digest)
