"""Makes proofs: gathers what a decision rests on from journals, registry and fleet, and has the control plane vouch.

Everything that is gathered is believed by nobody yet: the proof is verified as any reader would before it is given out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from wharfinger.controllers.desk import Desk
from wharfinger.controllers.world import Cache
from wharfinger.core.clock import Clock, rfc3339
from wharfinger.core.document import Json, canonical
from wharfinger.core.errors import Denied, NotFound, WharfingerError
from wharfinger.govern import proof
from wharfinger.gpu.devices import DRIVER
from wharfinger.identity.spiffeid import Part, Person, SpiffeId
from wharfinger.policy import journal
from wharfinger.policy.decision import from_record
from wharfinger.supply import manifest
from wharfinger.supply.artifact import Artifact
from wharfinger.supply.predicates import dataset, evaluation, provenance, screening, summary
from wharfinger.supply.predicates.decision import DecisionRecord
from wharfinger.supply.predicates.provenance import Provenance
from wharfinger.supply.trustroot import TrustRoot

_SILICON: Final = ("productName", "profile", "parentUUID")
_NAMES: Final[Mapping[str, str]] = {
    manifest.PREDICATE: "signature",
    provenance.TYPE: "provenance",
    evaluation.TYPE: "evaluation",
    summary.TYPE: "summary",
    dataset.TYPE: "dataset",
    screening.TYPE: "screening",
}


class Prover:
    """Makes proofs of the decisions in the journals below `evidence`."""

    def __init__(self, evidence: Path, desk: Desk, cache: Cache, clock: Clock) -> None:
        self._evidence = evidence
        self._desk = desk
        self._cache = cache
        self._clock = clock

    def prove(self, identifier: str, asker: SpiffeId | None) -> bytes:
        """Return the proof of the decision `identifier` for `asker`: the local admin, or an admin of its tenant.

        Raises `Denied`, `NotFound`, `Corrupt` for damaged evidence, `Unverified` when the chain does not hold, and what
        registry and issuer raise.
        """
        if asker is None:
            raise Denied("a proof is for those who are known")
        where, record, inputs = journal.locate(self._evidence, identifier)
        self._admit(asker, str(record["tenant"]), identifier)
        parts = self._vouched(where, record, inputs, "")
        decision = from_record(record)
        grants = inputs.get("grants") or []
        if decision.rule == "grant.permits_any" and decision.verdict.allowed and grants:
            self._grant(grants[0], parts)
        told = proof.manifest_of(record, parts, rfc3339(self._clock.now()))
        bundle = self._desk.notary.sign(told.statement(), self._desk.control)
        made = proof.write(parts, bundle)
        proof.verify(made, self.trust_root())
        return made

    def trust_root(self) -> bytes:
        """Return what a verifier must know beforehand."""
        trust: TrustRoot = self._desk.notary.trust
        return trust.encode()

    def _admit(self, asker: SpiffeId, tenant: str, identifier: str) -> None:
        if str(asker.trust_domain) == self._desk.trust_domain:
            kind = asker.kind
            if isinstance(kind, Part) and kind.name == "admin":
                return
            found = self._cache.get("tenants", "", tenant) if tenant else None
            if isinstance(kind, Person) and kind.tenant == tenant and found is not None:
                if kind.user in found["spec"].get("admins", ()):
                    return
                raise Denied(f"only admins of {tenant} may have its decisions proven")
        raise NotFound(f"no decision {identifier}", hint="wharf get decisions lists them")

    def _vouched(
        self, where: str, record: Mapping[str, Json], inputs: Mapping[str, Json], prefix: str
    ) -> dict[str, bytes]:
        """Return a decision of the journal `where`, signed and logged, and its inputs."""
        statement = DecisionRecord(dict(record), where).statement()
        parts = {f"{prefix}{proof.DECISION}": self._desk.notary.sign(statement, self._desk.control)}
        for name, value in inputs.items():
            parts[f"{prefix}{proof.INPUTS}{name}.json"] = canonical(value)
        return parts

    def _grant(self, grant: Mapping[str, Any], parts: dict[str, bytes]) -> None:
        """Add how the grant came to be, the model's papers, and the silicon."""
        where, record, inputs = journal.locate(self._evidence, str(grant["decision"]))
        parts |= self._vouched(where, record, inputs, proof.GRANT)
        told = (inputs.get("request") or {}).get("artifact")
        if not isinstance(told, dict):
            raise NotFound(f"decision {grant['decision']} does not say which model it was about")
        model = self._artifact(told["repository"], told["digest"], proof.MODEL, parts)
        papers = self._desk.papers(model.repository, model.digest)
        seen: list[str] = []
        for signed in papers.about(provenance.TYPE, model.digest, model.contents.digest):
            for dependency in Provenance.parse(signed.statement.predicate).dependencies:
                if dependency.role == provenance.DATASET and dependency.digest not in seen:
                    prefix = f"{proof.DATASET}{len(seen)}/"
                    self._artifact(dependency.repository, dependency.digest, prefix, parts)
                    seen.append(dependency.digest)
        parts[proof.SILICON] = canonical(self._silicon(grant))

    def _artifact(self, repository: str, digest: str, prefix: str, parts: dict[str, bytes]) -> Artifact:
        """Add an artifact's manifest and every paper of it that holds."""
        artifact = self._desk.shelf.artifact(repository, digest)
        parts[f"{prefix}{proof.MANIFEST}"] = self._desk.shelf.manifest(repository, digest)
        found: list[tuple[int, str, bytes]] = []
        for bundle in self._desk.shelf.attached(repository, digest):
            try:
                signed = proof.exact(bundle, self._desk.notary.trust)
            except WharfingerError:
                continue
            found.append((signed.log_index or 0, _NAMES.get(signed.statement.predicate_type, "paper"), bundle))
        numbered: Counter[str] = Counter()
        for _, name, bundle in sorted(set(found)):
            numbered[name] += 1
            number = f"-{numbered[name]}" if numbered[name] > 1 else ""
            parts[f"{prefix}{name}{number}.bundle.json"] = bundle
        return artifact

    def _silicon(self, grant: Mapping[str, Any]) -> dict[str, Json]:
        claim = grant.get("claim") or {}
        published = {
            (o["spec"]["driver"], o["spec"]["pool"]["name"], device["name"]): device
            for o in self._cache.list("resourceslices")
            for device in o["spec"].get("devices") or ()
        }
        devices: list[Json] = []
        for device in claim.get("devices") or ():
            found = published.get((device["driver"], device["pool"], device["device"]), {})
            attributes = found.get("attributes") or {}
            told = {"uuid": device["uuid"]}
            for name in _SILICON:
                value = (attributes.get(name) or attributes.get(f"{DRIVER}/{name}") or {}).get("string")
                if value:
                    told[{"productName": "product"}.get(name, name)] = value
            capacity = found.get("capacity") or {}
            memory = capacity.get("memory") or capacity.get(f"{DRIVER}/memory")
            if memory:
                told["memory"] = str(memory.get("value"))
            devices.append(told)
        return {"claim": claim.get("uid", ""), "devices": devices}
