"""Verification summary: the artifact passed these policies, so that others need not judge again (SLSA VSA v1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed
from wharfinger.supply.predicates import fields
from wharfinger.supply.statement import Resource, Statement

TYPE: Final = "https://slsa.dev/verification_summary/v1"
PASSED: Final = "PASSED"


@dataclass(frozen=True, slots=True)
class Summary:
    """`verifier` judged `resource` under the policies with the digest `policy` at `at` (RFC 3339): it passed.

    `inputs` are the digests of the bundles that it rests on; `levels` what it shows, as SLSA names it.
    """

    verifier: str
    at: str
    resource: str
    policy: str
    inputs: tuple[str, ...]
    levels: tuple[str, ...] = ()

    @classmethod
    def parse(cls, predicate: Json) -> Summary:
        """Return the summary in a decoded JSON `predicate`. Raises `Malformed`, also for one that did not pass."""
        value = fields.thing(predicate, "summary")
        if fields.text(value, "verificationResult") != PASSED:
            raise Malformed("summary: expected verificationResult PASSED")
        policy = fields.thing(value.get("policy"), "summary policy")
        return cls(
            fields.text(fields.thing(value.get("verifier"), "summary verifier"), "id"),
            fields.moment(value, "timeVerified"),
            fields.text(value, "resourceUri"),
            Resource.parse(policy).sha256,
            tuple(Resource.parse(item).sha256 for item in fields.things(value, "inputAttestations")),
            fields.texts(value, "verifiedLevels"),
        )

    def to_json(self) -> dict[str, Json]:
        """Return the predicate as a JSON object."""
        return {
            "verifier": {"id": self.verifier},
            "timeVerified": self.at,
            "resourceUri": self.resource,
            "policy": Resource.of("trustpolicies", self.policy).to_json(),
            "inputAttestations": [Resource.of("bundle", digest).to_json() for digest in self.inputs],
            "verificationResult": PASSED,
            "verifiedLevels": list(self.levels),
        }

    def statement(self, repository: str, digest: str) -> Statement:
        """Return the statement that the artifact `digest` in `repository` passed."""
        return Statement((Resource.of(repository, digest),), TYPE, self.to_json())
