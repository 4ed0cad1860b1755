"""Proofs: one decision with everything it rests on, so that anyone with the trust root can follow it offline.

A proof is an archive (`govern.archive`) of parts:

```
proof.json                  who vouches for all other parts, by name and digest (a signed and logged bundle)
decision.json               the decision's record, signed and logged
inputs/NAME.json            what the decision's rule was given
grant/decision.json         the decision to issue the grant that allowed it, and its inputs/NAME.json
model/manifest.json         the model's OCI manifest, model/*.bundle.json its papers
dataset-N/manifest.json     the same of each dataset that the model was made from
silicon.json                the devices of the grant, as the fleet published them
```

A decision that no grant allowed (a refusal, a decision at the API) is proven by the first three. Pure: `write` is given
the parts, `verify` the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wharfinger.core.clock import rfc3339
from wharfinger.core.digests import check_sha256, sha256
from wharfinger.core.document import Json, canonical, parse_json
from wharfinger.core.errors import Malformed, NotFound, Unverified, WharfingerError, excerpt
from wharfinger.govern import archive
from wharfinger.govern.replay import RULES, replay
from wharfinger.kinds.trustpolicy import KIND as TRUST_POLICY
from wharfinger.policy.access import revision
from wharfinger.policy.decision import Decision, address, from_record
from wharfinger.policy.grant import Door, permits
from wharfinger.policy.journal import POD_PREFIX, RUNTIME
from wharfinger.supply.artifact import Artifact, of_manifest
from wharfinger.supply.bundle import Bundle
from wharfinger.supply.predicates import decision as decisions
from wharfinger.supply.predicates import proof as proofs
from wharfinger.supply.predicates import provenance as slsa
from wharfinger.supply.predicates import summary as summaries
from wharfinger.supply.predicates.decision import DecisionRecord
from wharfinger.supply.predicates.proof import Parts
from wharfinger.supply.predicates.summary import Summary
from wharfinger.supply.registry.client import Pulled
from wharfinger.supply.registry.oci import Manifest
from wharfinger.supply.signing import Signed, authenticate_bytes
from wharfinger.supply.tlog.entry import SignatureEntry
from wharfinger.supply.tlog.note import Note
from wharfinger.supply.trustroot import TrustRoot
from wharfinger.supply.verification import Papers, Verified
from wharfinger.supply.verification import verify as verify_papers

PROOF: Final = "proof.json"
DECISION: Final = "decision.json"
INPUTS: Final = "inputs/"
GRANT: Final = "grant/"
MODEL: Final = "model/"
DATASET: Final = "dataset-"
SILICON: Final = "silicon.json"
MANIFEST: Final = "manifest.json"
LARGEST: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Shown:
    """What a proof shows, every link of it verified."""

    decision: Decision
    signer: str
    journal: str
    caller: str = ""
    workload: str = ""
    model: str = ""
    signature: str = ""
    run: str = ""
    builder: str = ""
    isolation: str = ""
    datasets: tuple[str, ...] = ()
    silicon: tuple[str, ...] = ()
    policy_revision: str = ""
    policies: tuple[str, ...] = ()
    grant: Mapping[str, Json] = field(default_factory=dict)

    def facts(self) -> dict[str, Json]:
        """Return what is shown as a JSON object."""
        verdict = self.decision.verdict
        return {
            "verified": True,
            "decision": self.decision.id,
            "at": rfc3339(self.decision.at),
            "allowed": verdict.allowed,
            "reason": verdict.reason,
            "who": self.workload or self.decision.who,
            "what": self.model or self.decision.what,
            "silicon": list(self.silicon),
            "caller": self.caller,
            "policy": self.policy_revision,
            "policies": list(self.policies),
            "signedBy": self.signature,
            "run": self.run,
            "builder": self.builder,
            "isolation": self.isolation,
            "datasets": list(self.datasets),
            "recordedBy": self.journal,
            "vouchedBy": self.signer,
        }

    def words(self) -> list[str]:
        """Return what is shown, a line a fact."""
        told = self.facts()
        rows = [
            ("decision", f"{told['decision']} at {told['at']}: {'allowed' if told['allowed'] else 'refused'}"),
            ("reason", told["reason"]),
            ("who", told["who"]),
            ("what", told["what"]),
            ("silicon", ", ".join(told["silicon"])),
            ("caller", told["caller"]),
            ("policy", f"{told['policy']} ({', '.join(told['policies'])})" if told["policy"] else ""),
            ("signed by", told["signedBy"]),
            ("made by", f"{told['run']}, isolation {told['isolation']}" if told["run"] else ""),
            ("made from", ", ".join(told["datasets"])),
            ("recorded by", told["recordedBy"]),
            ("vouched by", told["vouchedBy"]),
        ]
        return ["verified: every link holds", *(f"{name:<11} {value}" for name, value in rows if value)]


def manifest_of(decision: Mapping[str, Json], parts: Mapping[str, bytes], at: str) -> Parts:
    """Return what is to be signed over `parts`, all but proof.json, of the decision with this record."""
    digests = {name: sha256(data) for name, data in sorted(parts.items())}
    return Parts(str(decision["id"]), address(decision), at, digests)


def write(parts: Mapping[str, bytes], bundle: bytes) -> bytes:
    """Return the proof of `parts`, for which `bundle`, over their `manifest_of`, vouches."""
    return archive.write({**parts, PROOF: bundle})


def verify(data: bytes, root: bytes) -> Shown:
    """Return what the proof in `data` shows to whoever believes the trust root `root`, and nothing else.

    1. proof.json is signed by the control plane of the trust root's domain, logged, and names every other part.
    2. decision.json is signed by it, logged, and is the decision that proof.json speaks of.
    3. Its inputs are those that the record names; the rule, on them, gives the stored verdict.
    4. The grant that allowed it was issued by the decision in grant/, on its premises, under the policies given.
    5. The model is the one that the grant names, with the papers that those policies demand, as the grant's
       verification summary says.
    6. The silicon is the grant's.
    7. No byte of the archive is other than it must be.

    Raises `Unverified` that names the first link that does not hold; never anything else.
    """
    try:
        trust = TrustRoot.parse(root)
        control = _control(trust)
    except WharfingerError as error:
        raise Unverified(f"trust root: {error}", hint="write one with wharf trust-root") from error
    with _link("archive"):
        if len(data) > LARGEST:
            raise Malformed(f"expected at most {LARGEST} bytes, got {len(data)}")
        parts = archive.read(data)
    # (1)
    with _link(PROOF):
        vouched = _signed(_part(parts, PROOF), trust, control, proofs.TYPE)
        told = Parts.parse(vouched.statement.predicate)
        if vouched.statement != told.statement():
            raise Malformed("its subject is not the decision that it speaks of")
    _check_parts(parts, told)
    # (2)
    decision, inputs, journal = _decision(parts, "", told.decision, trust, control, told.record)
    # (3)
    _check_replay(decision, inputs, DECISION)
    shown = Shown(decision, vouched.signer, journal, caller=decision.who)
    if decision.verdict.allowed and inputs.get("grants") and decision.rule == "grant.permits_any":
        shown = _of_grant(parts, shown, inputs, trust, control)
    with _link(DECISION):
        _check_journal(decision, journal, shown.grant)
    # (7)
    with _link("archive"):
        archive.check(parts, data)
    return shown


def _of_grant(
    parts: Mapping[str, bytes], shown: Shown, inputs: Mapping[str, Json], trust: TrustRoot, control: str
) -> Shown:
    """Follow the grant that allowed the decision that is `shown` to the model, the silicon and the policies."""
    request, grant = inputs["request"], inputs["grants"][0]
    # (4)
    issued, issue, wrote = _decision(parts, GRANT, str(grant.get("decision")), trust, control)
    with _link("grant"):
        if wrote != "control" or issued.part != wrote:
            raise Malformed(f"expected the journal of control, got that of {wrote}")
        if issued.rule != "grant.issue" or not issued.verdict.allowed:
            raise Malformed(f"decision {issued.id} did not issue a grant")
        if _essence(grant) not in [_essence(g) for g in issue["grants"]]:
            raise Malformed("the grant that allowed it is not one that was issued")
        verdict = permits(
            grant, Door(request["door"]), request["who"], request["what"], request["device"], request["caller"],
            request["now"],
        )  # fmt: skip
        if not verdict.allowed:
            raise Malformed(f"the grant does not permit it: {verdict.reason}")
    _check_replay(issued, issue, f"{GRANT}{DECISION}")
    policies = issue["policies"]
    with _link("policies"):
        if revision(policies) != grant["policyRevision"]:
            raise Malformed(f"expected the policies {grant['policyRevision']}, got {revision(policies)}")
    # (5)
    model, verified = _model(parts, grant, policies, trust, control, issued)
    made = verified.provenance
    # (6)
    silicon = _silicon(parts, grant, request)
    return replace(
        shown,
        caller=request["caller"] or "",
        workload=grant["workload"],
        model=model.reference,
        signature=verified.signature.signer,
        run=made[1].run if made else "",
        builder=made[1].builder if made else "",
        isolation=made[1].isolation if made else "",
        datasets=tuple(made[1].digests(slsa.DATASET)) if made else (),
        silicon=silicon,
        policy_revision=grant["policyRevision"],
        policies=tuple(f"{p['kind']} {p['metadata']['name']}" for p in policies),
        grant=grant,
    )


def _model(
    parts: Mapping[str, bytes],
    grant: Mapping[str, Any],
    policies: list[Mapping[str, Any]],
    trust: TrustRoot,
    control: str,
    issued: Decision,
) -> tuple[Artifact, Verified]:
    papers, bundles = _papers(parts, MODEL, trust)
    with _link("model"):
        model = _artifact(parts, MODEL, papers)
        if grant["artifacts"] != [model.digest]:
            raise Malformed(f"the grant names {', '.join(grant['artifacts'])}, got {model.digest}")
    datasets: dict[str, Papers] = {}
    for prefix in sorted({name.split("/", 1)[0] + "/" for name in parts if name.startswith(DATASET)}):
        found, _ = _papers(parts, prefix, trust)
        with _link(prefix.rstrip("/")):
            datasets[_artifact(parts, prefix, found).digest] = found
    trusted = [p for p in policies if p["kind"] == TRUST_POLICY.name]
    with _link("model papers"):
        verified = verify_papers(model, papers, datasets, trusted, issued.at)
    with _link("verification summary"):
        for digest in grant.get("verification") or ():
            if digest not in bundles:
                raise Malformed(f"the grant rests on {digest}, which is not here")
            signed = bundles[digest]
            if signed.signer != control:
                raise Malformed(f"expected the summary by {control}, got one by {signed.signer}")
            summary = Summary.parse(signed.statement.about(model.digest, summaries.TYPE).predicate)
            if summary.policy != revision(trusted):
                raise Malformed("it was verified under other policies than the grant's")
    with _link("datasets"):
        named = verified.provenance[1].digests(slsa.DATASET) if verified.provenance else []
        if set(named) != set(datasets):
            raise Malformed("the datasets here are not those that the model was made from")
    return model, verified


def _silicon(parts: Mapping[str, bytes], grant: Mapping[str, Any], request: Mapping[str, Any]) -> tuple[str, ...]:
    devices = (grant.get("claim") or {}).get("devices") or []
    with _link(SILICON):
        told = _json(_part(parts, SILICON))
        if not isinstance(told, dict) or set(told) != {"claim", "devices"}:
            raise Malformed("expected a claim and devices")
        if told["claim"] != (grant.get("claim") or {}).get("uid", ""):
            raise Malformed(f"expected the claim of the grant, got {excerpt(told['claim'])}")
        published = told["devices"]
        if not isinstance(published, list) or [d.get("uuid") for d in published] != [d["uuid"] for d in devices]:
            raise Malformed("the devices are not those of the grant")
        if request["device"] and request["device"] not in {d["uuid"] for d in devices}:
            raise Malformed(f"the device {request['device']} is not the grant's")
        return tuple(_described(d, p) for d, p in zip(devices, published, strict=True))


def _essence(grant: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a grant says: the API fills in empty fields, and revoking adds two of its own."""
    return {
        name: value
        for name, value in grant.items()
        if value not in ("", [], None) and name not in ("revoked", "revokedReason")
    }


def _described(device: Mapping[str, Any], published: Mapping[str, Any]) -> str:
    what = ", ".join(str(published[name]) for name in ("product", "profile", "memory") if published.get(name))
    place = f"{device['pool']}/{device['device']}"
    return f"{device['uuid']} ({place}{': ' + what if what else ''})"


def _decision(
    parts: Mapping[str, bytes], prefix: str, identifier: str, trust: TrustRoot, control: str, record: str = ""
) -> tuple[Decision, dict[str, Json], str]:
    """Return the signed decision `identifier` below `prefix`, its inputs, and the journal that held it.

    Each input is at the address that the record names. `record` is the digest of its record where that is known
    beforehand.
    """
    name = f"{prefix}{DECISION}"
    with _link(name):
        signed = _signed(_part(parts, name), trust, control, decisions.TYPE)
        told = DecisionRecord.parse(signed.statement.predicate)
        if signed.statement != told.statement():
            raise Malformed("its subject is not its record")
        decision = from_record(told.record)
        if decision.record() != told.record:
            raise Malformed("expected a record as a journal holds it")
        if decision.id != identifier or record not in ("", told.digest):
            raise Malformed(f"expected decision {identifier}, got {decision.id}")
    found: dict[str, Json] = {}
    for key, digest in decision.inputs.items():
        with _link(f"{prefix}{INPUTS}{key}.json"):
            value = _json(_part(parts, f"{prefix}{INPUTS}{key}.json"))
            if address(value) != digest:
                raise Malformed("it is not what the decision was given")
            found[key] = value
    return decision, found, told.journal


def _check_journal(decision: Decision, journal: str, grant: Mapping[str, Any]) -> None:
    """Check that a decision is told by who took it; a pod's journal is believed for its own runtime alone."""
    if not journal.startswith(POD_PREFIX):
        if decision.part != journal:
            raise Malformed(f"expected a decision of {journal}, got one of {decision.part}")
    elif decision.part != RUNTIME or (grant and f"{POD_PREFIX}{grant.get('podUid')}" != journal):
        raise Malformed(f"{journal} tells of what is not its own")


def _check_replay(decision: Decision, inputs: Mapping[str, Json], name: str) -> None:
    if decision.rule not in RULES:
        return
    with _link(name):
        replay(decision, inputs)


def _papers(parts: Mapping[str, bytes], prefix: str, trust: TrustRoot) -> tuple[Papers, dict[str, Signed]]:
    found: dict[str, Signed] = {}
    for name, data in sorted(parts.items()):
        if name.startswith(prefix) and name != f"{prefix}{MANIFEST}":
            with _link(name):
                found[sha256(data)] = exact(data, trust)
    return Papers(tuple(found.values())), found


def _artifact(parts: Mapping[str, bytes], prefix: str, papers: Papers) -> Artifact:
    """Return the artifact whose manifest is here, under the repository that its papers name."""
    data = _part(parts, f"{prefix}{MANIFEST}")
    digest = sha256(data)
    repository = next(
        (
            subject.name
            for signed in papers.signed
            for subject in signed.statement.subjects
            if subject.sha256 == digest and "/" in subject.name
        ),
        "artifact",
    )
    return of_manifest(repository, Pulled(Manifest.parse(data), digest, data))


def _check_parts(parts: Mapping[str, bytes], told: Parts) -> None:
    """Hold every part against the digest under which it was vouched for."""
    for name, digest in sorted(told.parts.items()):
        with _link(name):
            check_sha256(_part(parts, name), digest, "part")
    extra = sorted(set(parts) - set(told.parts) - {PROOF})
    if extra:
        raise Unverified(f"{extra[0]}: nobody vouched for this part")


def _signed(data: bytes, trust: TrustRoot, signer: str, predicate_type: str) -> Signed:
    signed = exact(data, trust)
    if signed.signer != signer:
        raise Unverified(f"expected a signature of {signer}, got one of {signed.signer}")
    if signed.statement.predicate_type != predicate_type:
        raise Unverified(f"expected {predicate_type}, got {excerpt(signed.statement.predicate_type)}")
    return signed


def exact(data: bytes, trust: TrustRoot) -> Signed:
    """Authenticate a bundle that is written in the one way in which we write it, with nothing that nobody signed."""
    bundle = Bundle.parse(data)
    entry = bundle.entries[0] if len(bundle.entries) == 1 else None
    if bundle.encode() != data or entry is None or entry.proof is None:
        raise Malformed("expected a bundle with one log entry, as canonical JSON")
    if entry != SignatureEntry.parse(entry.body).logged(entry.log_id, entry.proof):
        raise Malformed("expected a log entry as the log writes it")
    note = Note.parse(entry.proof.checkpoint.encode())
    if note.encode() != entry.proof.checkpoint.encode() or len(note.signatures) != 1:
        raise Malformed("expected a checkpoint with the log's signature alone")
    if any(signature.keyid for signature in bundle.envelope.signatures):
        raise Malformed("expected a signature without a hint")
    return authenticate_bytes(data, trust)


def _control(trust: TrustRoot) -> str:
    domains = sorted({authority.uri for authority in trust.authorities if authority.uri.startswith("spiffe://")})
    if len(domains) != 1:
        raise Malformed(f"expected the authorities of one trust domain, got {len(domains)}")
    return f"{domains[0].rstrip('/')}/wharfinger/control"


def _part(parts: Mapping[str, bytes], name: str) -> bytes:
    if name not in parts:
        raise NotFound("it is missing")
    return parts[name]


def _json(data: bytes) -> Json:
    value = parse_json(data, limit=LARGEST)
    if canonical(value) != data:
        raise Malformed("expected canonical JSON")
    return value


@contextmanager
def _link(name: str) -> Iterator[None]:
    """Name the link that does not hold."""
    try:
        yield
    except WharfingerError as error:
        raise Unverified(f"{name}: {error}", hint="the proof was changed, or is not of this platform") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Unverified(f"{name}: it is not what it claims to be", hint="the proof was changed") from error
