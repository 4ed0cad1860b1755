"""Reconciles Datasets: what a person pushed is measured, screened and signed, then judged under the TrustPolicies.

The artifact is named by digest, so every reading of it reads the same. Papers that are there already are not
made again: after a crash, or on another machine with the same registry, the same Dataset gets the same status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from wharfinger.controllers.desk import Desk
from wharfinger.controllers.readiness import ready, settle
from wharfinger.controllers.world import Cache, Key, Object, Writer, deleting, everything, on_spec, own, tenant_of
from wharfinger.core.clock import MINUTE, SECOND, Instant, Span, rfc3339
from wharfinger.core.errors import Invalid, Malformed, NotFound, TooLarge, Unverified
from wharfinger.supply.artifact import Artifact
from wharfinger.supply.predicates import screening as results
from wharfinger.supply.predicates.dataset import Dataset
from wharfinger.supply.predicates.screening import PASSED, Screening
from wharfinger.supply.screening import DEFAULT, Limits, Scan, screen
from wharfinger.supply.signing import Signed
from wharfinger.supply.verification import DATASET, Papers, Refused, applying, verify

LOOK_AGAIN: Final[Span] = 15 * SECOND
"""How soon an artifact that is not there, or lacks papers, is looked at again: pushing it changes no object."""


class DatasetReconciler:
    """Papers and status of Datasets. Reading files takes as long as they are large: it wants workers of its own."""

    kind = "datasets"

    def __init__(self, cache: Cache, writer: Writer, desk: Desk, scan: Scan, limits: Limits = DEFAULT) -> None:
        self._cache = cache
        self._writer = writer
        self._desk = desk
        self._scan = scan
        self._limits = limits

    def watches(self) -> Mapping[str, Callable[[Object], Iterable[Key]]]:
        """Return datasets, and the policies and tenants that they are judged under."""
        every = everything(self._cache, self.kind)
        return {self.kind: own} | {p: on_spec(self._cache, p, every) for p in ("trustpolicies", "tenants")}

    def reconcile(self, key: Key, now: Instant) -> Span | None:
        """Measure, screen, sign and judge one dataset."""
        dataset = self._cache.get(self.kind, key.namespace, key.name)
        if dataset is None or deleting(dataset):
            return None
        fresh: dict[str, Any] = {}
        try:
            holds, reason, message = self._examine(dataset, fresh, now)
        except Refused as error:
            holds, reason, message = False, error.reason, error.message
        except NotFound as error:
            holds, reason, message = False, "ArtifactNotFound", f"{error.message}: push it with wharf push dataset"
        except (Unverified, Malformed, Invalid, TooLarge) as error:
            holds, reason, message = False, error.code, error.message
        fresh["conditions"] = ready(dataset, holds, reason, message, now)
        settle(self._writer, self.kind, dataset, fresh)
        return 10 * MINUTE if holds else LOOK_AGAIN

    def _examine(self, dataset: Object, fresh: dict[str, Any], now: Instant) -> tuple[bool, str, str]:
        """Fill `fresh` with what is found; return the Ready condition. Raises the error family."""
        meta, spec = dataset["metadata"], dataset["spec"]
        artifact = self._desk.shelf.artifact(spec["artifact"]["repository"], spec["artifact"]["digest"])
        if artifact.kind != "dataset":
            raise Invalid(f"{artifact.reference}: expected a dataset, got a {artifact.kind}")
        content = artifact.contents
        fresh |= {"contentDigest": content.digest, "files": len(content.entries), "bytes": content.size}
        papers = self._desk.papers(artifact.repository, artifact.digest)
        signed, screening = self._screening(artifact, papers)
        fresh["screening"] = {
            "verdict": screening.verdict,
            "findings": screening.findings,
            "attestation": signed.bundle,
        }
        if screening.verdict != PASSED:
            return False, "ScreeningFailed", "; ".join([*screening.reasons, *screening.examples[:3]])
        told = Dataset(
            f"{meta['namespace']}/{meta['name']}",
            content.digest,
            len(content.entries),
            content.size,
            spec.get("source", ""),
            spec.get("license", ""),
            spec.get("purpose", ""),
        )
        control = self._desk.control
        manifest = self._desk.sign(artifact, told.statement(artifact.repository, artifact.digest), control, papers)
        signature = self._desk.sign(artifact, content.statement(), control, papers)
        papers = Papers((*papers.signed, signed, manifest, signature), papers.claims)
        tenant = tenant_of(self._cache, meta["namespace"])
        policies = applying(
            self._cache.list("trustpolicies"), DATASET, tenant["metadata"]["name"] if tenant is not None else ""
        )
        verified = verify(artifact, papers, {}, policies, now)
        fresh["signature"] = signature_of(verified.signature)
        return True, "Verified", f"screened and signed; {len(policies)} TrustPolicies hold"

    def _screening(self, artifact: Artifact, papers: Papers) -> tuple[Signed, Screening]:
        """Return the control plane's verdict on these files: the one there is, else a fresh one."""
        for signed in papers.about(results.TYPE, artifact.digest):
            if signed.signer == self._desk.control:
                told = Screening.parse(signed.statement.predicate)
                if told.content == artifact.contents.digest:
                    return signed, told
        found = screen(self._desk.shelf.files(artifact), artifact.contents.digest, self._scan, self._limits)
        statement = found.statement(artifact.repository, artifact.digest)
        return self._desk.sign(artifact, statement, self._desk.control, papers), found


def signature_of(signed: Signed) -> dict[str, Any]:
    """Return a verified signature as a status shows it."""
    return {
        "signer": signed.signer,
        "bundle": signed.bundle,
        "logIndex": signed.log_index or 0,
        "signedAt": rfc3339(signed.at or 0),
    }
