"""Verification at admission: does this artifact have the papers that the TrustPolicies demand?

Pure. A shell hands in the artifact, as its OCI manifest describes it, and the bundles that refer to it; `read`
authenticates the bundles once, `verify` judges them under every policy that applies and returns what it believed, or
raises `Refused` with a reason in one word. A layer's digest is its file's sha256, so that the signed manifest of files
is held against the OCI manifest without reading a byte of the files; whoever loads them checks them against that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.core.clock import DAY, Instant, rfc3339
from wharfinger.core.document import Json
from wharfinger.core.errors import Malformed, Unverified, WharfingerError, excerpt
from wharfinger.policy.grant import caller_matches
from wharfinger.supply import dsse
from wharfinger.supply import manifest as oms
from wharfinger.supply.artifact import Artifact
from wharfinger.supply.bundle import Bundle, Chain
from wharfinger.supply.manifest import Manifest
from wharfinger.supply.predicates import provenance as slsa
from wharfinger.supply.predicates import screening
from wharfinger.supply.predicates.provenance import ISOLATION, Provenance
from wharfinger.supply.predicates.screening import Screening
from wharfinger.supply.signing import Signed, authenticate_bytes, certificate_names
from wharfinger.supply.statement import Statement
from wharfinger.supply.trustroot import TrustRoot

MODEL: Final = "Model"
DATASET: Final = "Dataset"
_KINDS: Final[Mapping[str, str]] = {"model": MODEL, "dataset": DATASET}
_SUFFIXES: Final[Mapping[str, str]] = {".safetensors": "safetensors"}
_BESIDE: Final = (".json", ".jsonl", ".txt", ".md", ".model", ".jinja")
"""Suffixes of what may lie beside weights: configuration, vocabularies, texts. Everything else counts as weights."""

Policy = Mapping[str, Any]
"""A TrustPolicy object."""


class Refused(Unverified):
    """The papers do not suffice; `reason` says why in one word, as a condition's reason wants it."""

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Claim:
    """A bundle that could not be authenticated: whose it claims to be, of which predicate type, and why not."""

    signer: str
    predicate_type: str
    why: str


@dataclass(frozen=True, slots=True)
class Papers:
    """The bundles about one artifact: what is `signed`, and what only claims to be."""

    signed: tuple[Signed, ...] = ()
    claims: tuple[Claim, ...] = ()

    def about(self, predicate_type: str, *digests: str) -> list[Signed]:
        """Return what is signed of this type about any of `digests`, the newest first."""
        found = [
            s
            for s in self.signed
            if s.statement.predicate_type == predicate_type
            and not {x.sha256 for x in s.statement.subjects}.isdisjoint(digests)
        ]
        return sorted(found, key=lambda s: s.at or 0, reverse=True)

    def signatures(self) -> list[Signed]:
        """Return the signatures over files (OpenSSF Model Signing), the newest first."""
        found = [s for s in self.signed if s.statement.predicate_type in (oms.PREDICATE, oms.OLD_PREDICATE)]
        return sorted(found, key=lambda s: s.at or 0, reverse=True)


def read(bundles: Iterable[bytes], trust: TrustRoot) -> Papers:
    """Authenticate `bundles`; never raises: one that does not hold becomes a claim."""
    signed, claims = [], []
    for data in bundles:
        try:
            signed.append(authenticate_bytes(data, trust))
        except WharfingerError as error:
            claims.append(_claim(data, str(error)))
    return Papers(tuple(signed), tuple(claims))


@dataclass(frozen=True, slots=True)
class Verified:
    """What was believed: the signature over the files, and for models how they were made.

    `bundles` are the digests of every bundle that it rests on.
    """

    signature: Signed
    provenance: tuple[Signed, Provenance] | None
    screenings: tuple[tuple[Signed, Screening], ...]
    bundles: tuple[str, ...]


def applying(policies: Iterable[Policy], kind: str, tenant: str) -> list[Policy]:
    """Return the TrustPolicies that apply to artifacts of `kind` of `tenant`, by name."""
    return sorted(
        (
            p
            for p in policies
            if kind in p["spec"].get("artifacts", (MODEL, DATASET))
            and (not p["spec"].get("tenants") or tenant in p["spec"]["tenants"])
        ),
        key=lambda p: str(p["metadata"]["name"]),
    )


def verify(
    artifact: Artifact,
    papers: Papers,
    datasets: Mapping[str, Papers],
    policies: Sequence[Policy],
    now: Instant,
) -> Verified:
    """Return what is believed of `artifact` under all of `policies`, those that apply to it.

    `datasets` gives the papers of the datasets that a model's provenance names, by digest.

    1. At least one policy applies.
    2. A signature over exactly these files is by a signer whom every policy believes, and is not too old.
    3. The attestations that a policy demands are there, about this artifact or its files, by a believed signer.
    4. A model's provenance is by a believed builder, in its own name, about this artifact or its files.
    5. Its steps were isolated as every policy demands.
    6. Its weights are in formats that every policy allows.
    7. The dataset, or every dataset that the model was made from, passed screening.

    Raises `Refused`, `DigestMismatch` or `Malformed`.
    """
    kind = _KINDS.get(artifact.kind)
    # (1)
    if kind is None or not policies:
        raise Refused("NoTrustPolicy", f"no TrustPolicy speaks of this {artifact.kind}: nothing is admitted by default")
    # (2)
    signature = _signature(artifact, kind, papers, policies, now)
    used = [signature.bundle]
    made: tuple[Signed, Provenance] | None = None
    screenings: list[tuple[Signed, Screening]] = []
    for policy in policies:
        spec = policy["spec"]
        # (3)
        for predicate_type in spec.get("predicates") or ():
            used.append(_attested(artifact, papers, predicate_type, policy).bundle)
        if kind == MODEL:
            # (4)
            made = _provenance(artifact, papers, policy) if _wants_provenance(spec) else made
            # (5)
            if made is not None:
                used.append(made[0].bundle)
                _isolated(made[1], policy)
            # (6)
            _formats(artifact.contents, spec.get("formats") or ("safetensors",))
        # (7)
        if spec.get("requireScreening", True):
            found = _screened(artifact, papers, datasets, made, policy)
            used += [signed.bundle for signed, _ in found]
            screenings += found
    return Verified(signature, made, tuple(screenings), tuple(dict.fromkeys(used)))


def _signature(artifact: Artifact, kind: str, papers: Papers, policies: Sequence[Policy], now: Instant) -> Signed:
    over_these, mismatch = [], ""
    for signed in papers.signatures():
        try:
            oms.compare(signed.manifest, artifact.contents)
        except (Unverified, Malformed) as error:
            if all(_believed(signed.signer, p["spec"]["signers"]) for p in policies):
                mismatch = mismatch or f"{signed.signer} signed other files: {error}"
            continue
        over_these.append(signed)
    unbelieved, old = "", ""
    for signed in over_these:
        doubting = next((p for p in policies if not _believed(signed.signer, p["spec"]["signers"])), None)
        if doubting is not None:
            unbelieved = f"signed by {signed.signer}, whom TrustPolicy {_name(doubting)} does not name"
            continue
        late = next((p for p in policies if _too_old(signed, p["spec"], now)), None)
        if late is not None:
            days = late["spec"]["maximumAgeDays"]
            old = f"signed at {rfc3339(signed.at or 0)}, TrustPolicy {_name(late)} takes at most {days} days"
            continue
        return signed
    stranger = "UnknownBuilder" if kind == MODEL else "UnknownSigner"
    claims = [c for c in papers.claims if c.predicate_type in ("", oms.PREDICATE, oms.OLD_PREDICATE)]
    if old:
        raise Refused("SignatureTooOld", old)
    if mismatch:
        raise Refused("DigestMismatch", mismatch, hint="push the files that were signed, or have these signed")
    if unbelieved:
        raise Refused(stranger, unbelieved)
    for claim in claims:
        if not any(_believed(claim.signer, p["spec"]["signers"]) for p in policies):
            raise Refused(stranger, f"signed by {claim.signer or 'a bare key'}, who is not believed: {claim.why}")
        raise Refused("SignatureInvalid", f"the signature in the name of {claim.signer} does not hold: {claim.why}")
    raise Refused(
        "Unsigned",
        f"{artifact.reference} has no signature",
        hint="make it by a PipelineRun: the control plane signs what a run made",
    )


def _attested(artifact: Artifact, papers: Papers, predicate_type: str, policy: Policy) -> Signed:
    if predicate_type in (oms.PREDICATE, oms.OLD_PREDICATE):
        found = papers.signatures()
    else:
        found = papers.about(predicate_type, artifact.digest, artifact.contents.digest)
    believed = [*policy["spec"]["signers"], *(policy["spec"].get("builders") or ())]
    for signed in found:
        if _believed(signed.signer, believed):
            return signed
    by = f"; those there are by {', '.join(sorted({s.signer for s in found}))}" if found else ""
    raise Refused("MissingAttestation", f"TrustPolicy {_name(policy)} demands {predicate_type}, there is none{by}")


def _wants_provenance(spec: Mapping[str, Any]) -> bool:
    return bool(
        spec.get("builders")
        or spec.get("minimumIsolation", "namespaces") != "none"
        or spec.get("requireScreening", True)
    )


def _provenance(artifact: Artifact, papers: Papers, policy: Policy) -> tuple[Signed, Provenance]:
    spec = policy["spec"]
    believed = spec.get("builders") or spec["signers"]
    stranger = ""
    for signed in papers.about(slsa.TYPE, artifact.digest, artifact.contents.digest):
        told = Provenance.parse(signed.statement.predicate)
        if told.builder != signed.signer:
            stranger = f"provenance in the name of {excerpt(told.builder)}, signed by {signed.signer}"
        elif not _believed(told.builder, believed):
            stranger = f"built by {told.builder}, whom TrustPolicy {_name(policy)} does not name"
        else:
            return signed, told
    if stranger:
        raise Refused("UnknownBuilder", stranger)
    raise Refused("NoProvenance", f"TrustPolicy {_name(policy)} demands provenance of the build, there is none")


def _isolated(made: Provenance, policy: Policy) -> None:
    least = policy["spec"].get("minimumIsolation", "namespaces")
    if ISOLATION.index(made.isolation) < ISOLATION.index(least):
        raise Refused(
            "NotIsolated",
            f"the steps of {made.run} ran with isolation {made.isolation}, TrustPolicy {_name(policy)} demands {least}",
        )


def _formats(content: Manifest, allowed: Sequence[str]) -> None:
    weights = [e.name for e in content.entries if not e.name.lower().endswith(_BESIDE)]
    for name in weights:
        suffix = "." + name.lower().rpartition(".")[2]
        if _SUFFIXES.get(suffix) not in allowed:
            raise Refused("FormatNotAllowed", f"{excerpt(name)}: expected weights as {' or '.join(allowed)}")
    if not weights:
        raise Refused("FormatNotAllowed", f"expected weights as {' or '.join(allowed)}, got none")


def _screened(
    artifact: Artifact,
    papers: Papers,
    datasets: Mapping[str, Papers],
    made: tuple[Signed, Provenance] | None,
    policy: Policy,
) -> list[tuple[Signed, Screening]]:
    if artifact.kind == "dataset":
        return [_passed(artifact.digest, papers, policy, artifact.contents.digest)]
    digests = made[1].digests(slsa.DATASET) if made is not None else []
    if not digests:
        raise Refused("NotScreened", "its provenance names no dataset, so none was screened")
    return [_passed(digest, datasets.get(digest, Papers()), policy) for digest in digests]


def _passed(digest: str, papers: Papers, policy: Policy, content: str = "") -> tuple[Signed, Screening]:
    found = [s for s in papers.about(screening.TYPE, digest) if _believed(s.signer, policy["spec"]["signers"])]
    for signed in found:
        told = Screening.parse(signed.statement.predicate)
        if content and told.content != content:
            continue
        if told.verdict != screening.PASSED:
            raise Refused("NotScreened", f"dataset {digest} failed screening: {'; '.join(told.reasons)}")
        return signed, told
    raise Refused("NotScreened", f"dataset {digest} was not screened by anyone whom {_name(policy)} believes")


def _claim(data: bytes, why: str) -> Claim:
    signer = predicate_type = ""
    try:
        bundle = Bundle.parse(data)
        if isinstance(bundle.material, Chain):
            signer = certificate_names(bundle.material.leaf)[0]
        if bundle.envelope.payload_type == dsse.IN_TOTO:
            predicate_type = Statement.parse(bundle.envelope.payload).predicate_type
    except (WharfingerError, IndexError):
        return Claim(signer, predicate_type, why)
    return Claim(signer, predicate_type, why)


def _believed(signer: str, patterns: Iterable[str]) -> bool:
    return any(caller_matches(pattern, signer) for pattern in patterns)


def _too_old(signed: Signed, spec: Mapping[str, Any], now: Instant) -> bool:
    days = spec.get("maximumAgeDays")
    return days is not None and (signed.at is None or now - signed.at > days * DAY)


def _name(policy: Policy) -> Json:
    return policy["metadata"]["name"]
