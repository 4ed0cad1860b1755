"""Reconciles Models: whether a model may be served is decided here, once, from its papers under the TrustPolicies.

What holds is written down as a signed verification summary, so that nobody who starts a replica needs to judge
again; what does not hold stands in the Ready condition, with the reason in one word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wharfinger.controllers.dataset import LOOK_AGAIN, signature_of
from wharfinger.controllers.desk import Desk
from wharfinger.controllers.readiness import ready, settle
from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, everything, on_spec, own, tenant_of
from wharfinger.core.clock import MINUTE, Instant, Span, rfc3339
from wharfinger.core.errors import Invalid, Malformed, NotFound, TooLarge, Unverified
from wharfinger.policy.access import revision
from wharfinger.supply.artifact import Artifact
from wharfinger.supply.predicates import provenance as slsa
from wharfinger.supply.predicates import summary as summaries
from wharfinger.supply.predicates.provenance import Provenance
from wharfinger.supply.predicates.summary import Summary
from wharfinger.supply.signing import Signed
from wharfinger.supply.verification import MODEL, Papers, Policy, Refused, Verified, applying, verify


class ModelReconciler:
    """Verification and status of Models."""

    kind = "models"

    def __init__(self, cache: Cache, writer: Writer, desk: Desk) -> None:
        self._cache = cache
        self._writer = writer
        self._desk = desk

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return models, and the policies and tenants that they are judged under."""
        every = everything(self._cache, self.kind)
        return {self.kind: own} | {p: on_spec(self._cache, p, every) for p in ("trustpolicies", "tenants")}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Verify one model."""
        model = self._cache.get(self.kind, key.namespace, key.name)
        if model is None or deleting(model):
            return None
        fresh: dict[str, Any] = {}
        try:
            holds, reason, message = self._examine(model, fresh, now)
        except Refused as error:
            holds, reason, message = False, error.reason, error.message
        except NotFound as error:
            holds, reason, message = False, "ArtifactNotFound", f"{error.message}: push it with wharf push model"
        except (Unverified, Malformed, Invalid, TooLarge) as error:
            holds, reason, message = False, error.code, error.message
        fresh["conditions"] = ready(model, holds, reason, message, now)
        settle(self._writer, self.kind, model, fresh)
        return 10 * MINUTE if holds else LOOK_AGAIN

    def _examine(self, model: Object, fresh: dict[str, Any], now: Instant) -> tuple[bool, str, str]:
        """Fill `fresh` with what is believed; return the Ready condition. Raises the error family."""
        namespace, told = model["metadata"]["namespace"], model["spec"]["artifact"]
        artifact = self._desk.shelf.artifact(told["repository"], told["digest"])
        if artifact.kind != "model":
            raise Invalid(f"{artifact.reference}: expected a model, got a {artifact.kind}")
        fresh["contentDigest"] = artifact.contents.digest
        papers = self._desk.papers(artifact.repository, artifact.digest)
        tenant = tenant_of(self._cache, namespace)
        name = tenant["metadata"]["name"] if tenant is not None else ""
        policies = applying(self._cache.list("trustpolicies"), MODEL, name)
        verified = verify(artifact, papers, self._datasets(artifact, papers), policies, now)
        fresh["signature"] = signature_of(verified.signature)
        if verified.provenance is not None:
            signed, made = verified.provenance
            fresh["provenance"] = {
                "builder": made.builder,
                "run": made.run,
                "isolation": made.isolation,
                "datasets": made.digests(slsa.DATASET),
                "attestation": signed.bundle,
            }
        fresh["summary"] = self._summary(artifact, papers, verified, policies, now).bundle
        return True, "Verified", f"signature and provenance hold under {len(policies)} TrustPolicies"

    def _datasets(self, artifact: Artifact, papers: Papers) -> dict[str, Papers]:
        """Return the papers of every dataset that a provenance of the artifact names."""
        found: dict[str, Papers] = {}
        for signed in papers.about(slsa.TYPE, artifact.digest, artifact.contents.digest):
            for dependency in Provenance.parse(signed.statement.predicate).dependencies:
                if dependency.role == slsa.DATASET and dependency.digest not in found:
                    found[dependency.digest] = self._desk.papers(dependency.repository, dependency.digest)
        return found

    def _summary(
        self, artifact: Artifact, papers: Papers, verified: Verified, policies: list[Policy], now: Instant
    ) -> Signed:
        """Return the signed summary of this verification: the one there is when it says the same."""
        policy = revision(policies)
        for signed in papers.about(summaries.TYPE, artifact.digest):
            if signed.signer == self._desk.control:
                told = Summary.parse(signed.statement.predicate)
                if (told.policy, told.inputs) == (policy, verified.bundles):
                    return signed
        summary = Summary(
            verifier=self._desk.control,
            at=rfc3339(now),
            resource=f"oci:{artifact.reference}",
            policy=policy,
            inputs=verified.bundles,
            levels=("SLSA_BUILD_LEVEL_2",) if verified.provenance is not None else (),
        )
        statement = summary.statement(artifact.repository, artifact.digest)
        return self._desk.sign(artifact, statement, self._desk.control, papers)
