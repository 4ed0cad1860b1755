"""Verification at admission: every paper that a TrustPolicy demands, and each way in which one can be wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from notary import BUILDER, CONTROL, Notary, Shelf, flipped
from world import NOW

from wharfinger.core.clock import DAY
from wharfinger.core.errors import Unverified
from wharfinger.supply.artifact import Artifact
from wharfinger.supply.predicates import evaluation, provenance, screening
from wharfinger.supply.predicates.evaluation import Evaluation
from wharfinger.supply.predicates.provenance import Dependency, Provenance
from wharfinger.supply.predicates.screening import Screening
from wharfinger.supply.verification import Papers, Refused, Verified, applying, read, verify

WEIGHTS = {"model.safetensors": b"weights" * 100, "config.json": b"{}"}
REPOSITORY = "research/models/tiny"
DATASET = ("research/datasets/prose", "sha256:" + "d" * 64)


class Bench:
    """A model with all its papers, to be taken apart."""

    def __init__(self) -> None:
        self.notary, self.shelf = Notary(), Shelf()
        self.model = self.artifact(WEIGHTS)
        self.isolation, self.verdict, self.builder = "namespaces", "Passed", BUILDER
        self.signature = [self.notary.sign(self.model.contents.statement(), BUILDER)]
        self.extra: list[bytes] = []
        self.policy: dict[str, Any] = {"signers": [CONTROL, BUILDER], "builders": [BUILDER]}

    def artifact(self, files: dict[str, bytes]) -> Artifact:
        """Return an artifact of `files`."""
        return self.shelf.artifact(REPOSITORY, self.shelf.push(REPOSITORY, files, "model"))

    def provenance(self, signer: str = BUILDER) -> bytes:
        """Return the signed provenance."""
        made = Provenance(
            self.builder, "research/run-1", "uid", self.isolation, (Dependency(provenance.DATASET, *DATASET),)
        )
        return self.notary.sign(
            made.statement(self.model.repository, self.model.digest, self.model.contents.digest), signer
        )

    def screening(self) -> Papers:
        """Return the papers of the dataset."""
        found = Screening(self.verdict, "sha256:" + "c" * 64, 1, 1, {}, () if self.verdict == "Passed" else ("bad",))
        return read([self.notary.sign(found.statement(*DATASET), CONTROL)], self.notary.trust)

    def verify(self, model: Artifact | None = None, now: int = NOW) -> Verified:
        """Verify the model."""
        papers = read([*self.signature, self.provenance(), *self.extra], self.notary.trust)
        policy = {"metadata": {"name": "strict"}, "spec": self.policy}
        return verify(model or self.model, papers, {DATASET[1]: self.screening()}, [policy], now)

    def refusal(self, model: Artifact | None = None, now: int = NOW) -> Refused:
        """Return why the model is refused."""
        with pytest.raises(Refused) as caught:
            self.verify(model, now)
        return caught.value


@pytest.fixture
def bench() -> Bench:
    """Return a model with all its papers."""
    return Bench()


def test_a_model_with_all_its_papers_is_believed(bench: Bench) -> None:
    """Signature, provenance and the dataset's screening hold: the signer, the builder and the bundles are named."""
    found = bench.verify()
    assert found.signature.signer == BUILDER
    assert found.provenance is not None
    assert found.provenance[1].run == "research/run-1"
    assert len(found.bundles) == 3


def test_without_a_policy_nothing_is_admitted(bench: Bench) -> None:
    """No TrustPolicy speaks of it: refused, however good its papers."""
    with pytest.raises(Refused) as caught:
        verify(bench.model, read(bench.signature, bench.notary.trust), {}, [], NOW)
    assert caught.value.reason == "NoTrustPolicy"


def test_an_unsigned_model_is_refused(bench: Bench) -> None:
    """Without a signature bundle the reason is Unsigned."""
    bench.signature = []
    assert bench.refusal().reason == "Unsigned"


def test_one_flipped_bit_is_a_digest_mismatch(bench: Bench) -> None:
    """Files that differ by one bit from those that were signed are refused, naming the file."""
    other = bench.artifact({**WEIGHTS, "model.safetensors": flipped(WEIGHTS["model.safetensors"], 77)})
    refusal = bench.refusal(other)
    assert refusal.reason == "DigestMismatch"
    assert "model.safetensors" in refusal.message


@pytest.mark.parametrize("change", ["added", "missing", "renamed"])
def test_other_files_than_the_signed_ones_are_a_digest_mismatch(bench: Bench, change: str) -> None:
    """A file more, a file less, or one under another name: not what was signed."""
    files = dict(WEIGHTS)
    if change == "added":
        files["extra.json"] = b"1"
    elif change == "missing":
        del files["config.json"]
    else:
        files["other.json"] = files.pop("config.json")
    assert bench.refusal(bench.artifact(files)).reason == "DigestMismatch"


def test_a_stranger_of_another_trust_domain_is_an_unknown_builder(bench: Bench) -> None:
    """A signature that verifies under somebody else's authorities and log is not believed here; it names them."""
    stranger = "spiffe://elsewhere.example/wharfinger/builder"
    bench.signature = [Notary("elsewhere.example").sign(bench.model.contents.statement(), stranger)]
    refusal = bench.refusal()
    assert refusal.reason == "UnknownBuilder"
    assert stranger in refusal.message


def test_a_signer_whom_the_policy_does_not_name_is_an_unknown_builder(bench: Bench) -> None:
    """A valid signature of our own trust domain by an identity that is not trusted to sign is refused."""
    bench.signature = [bench.notary.sign(bench.model.contents.statement(), "spiffe://wharfinger.local/ns/x/sa/y")]
    assert bench.refusal().reason == "UnknownBuilder"


def test_a_signature_in_a_trusted_name_that_does_not_hold_is_invalid(bench: Bench) -> None:
    """A forger may write a trusted name into a certificate; without the authority it is SignatureInvalid."""
    bench.signature = [Notary().sign(bench.model.contents.statement(), BUILDER)]
    assert bench.refusal().reason == "SignatureInvalid"


def test_a_signature_that_is_not_in_the_log_does_not_count(bench: Bench) -> None:
    """Signed by the right identity, never logged: nobody knows when, so it is not believed."""
    bench.signature = [bench.notary.bundle(bench.model.contents.statement(), BUILDER).encode()]
    assert bench.refusal().reason == "SignatureInvalid"


def test_a_signature_outlives_its_certificate_and_may_be_limited_in_age(bench: Bench) -> None:
    """A month later it still verifies, by the log's time; a policy may say that this is too old."""
    bench.verify(now=NOW + 30 * DAY)
    bench.policy["maximumAgeDays"] = 7
    bench.verify(now=NOW + 7 * DAY)
    assert bench.refusal(now=NOW + 8 * DAY).reason == "SignatureTooOld"


def test_provenance_by_another_than_it_names_is_refused(bench: Bench) -> None:
    """Provenance in the builder's name, signed by somebody else of the domain, is an unknown builder's."""
    papers = read([*bench.signature, bench.provenance(CONTROL)], bench.notary.trust)
    policy = {"metadata": {"name": "strict"}, "spec": bench.policy}
    with pytest.raises(Refused) as caught:
        verify(bench.model, papers, {DATASET[1]: bench.screening()}, [policy], NOW)
    assert caught.value.reason == "UnknownBuilder"


def test_a_builder_whom_the_policy_does_not_name_is_refused(bench: Bench) -> None:
    """The policy names other builders: UnknownBuilder."""
    bench.policy["builders"] = ["spiffe://wharfinger.local/wharfinger/other"]
    assert bench.refusal().reason == "UnknownBuilder"


def test_provenance_of_another_model_proves_nothing(bench: Bench) -> None:
    """The provenance is valid but about another artifact: there is none about this one."""
    other = bench.artifact({**WEIGHTS, "more.json": b"{}"})
    bench.signature.append(bench.notary.sign(other.contents.statement(), BUILDER))
    assert bench.refusal(other).reason == "NoProvenance"


def test_steps_without_isolation_are_refused_unless_a_policy_allows_them(bench: Bench) -> None:
    """Isolation none is NotIsolated; a policy that says so takes it."""
    bench.isolation = "none"
    assert bench.refusal().reason == "NotIsolated"
    bench.policy["minimumIsolation"] = "none"
    bench.verify()


def test_a_dataset_that_failed_screening_spoils_the_model(bench: Bench) -> None:
    """The dataset's newest verdict is Failed: refused with its reasons, unless no screening is demanded."""
    bench.verdict = "Failed"
    refusal = bench.refusal()
    assert (refusal.reason, "bad" in refusal.message) == ("NotScreened", True)
    bench.policy["requireScreening"] = False
    bench.verify()


@pytest.mark.parametrize("name", ["model.pkl", "model.bin", "weights", "model.safetensors.exe", "x.pt"])
def test_weights_in_other_formats_are_refused(bench: Bench, name: str) -> None:
    """What is not an allowed format or known to lie beside weights is refused, signed or not."""
    bench.model = bench.artifact({**WEIGHTS, name: b"x"})
    bench.signature = [bench.notary.sign(bench.model.contents.statement(), BUILDER)]
    refusal = bench.refusal()
    assert (refusal.reason, name in refusal.message) == ("FormatNotAllowed", True)


def test_a_demanded_attestation_must_be_there(bench: Bench) -> None:
    """A policy demands an evaluation: MissingAttestation until a believed signer attests one of this artifact."""
    bench.policy["predicates"] = [evaluation.TYPE]
    assert bench.refusal().reason == "MissingAttestation"
    told = Evaluation("research/run-1", {"loss": 1.5}, "sha256:" + "1" * 64)
    bench.extra = [bench.notary.sign(told.statement(REPOSITORY, "sha256:" + "9" * 64, "sha256:" + "8" * 64), CONTROL)]
    assert bench.refusal().reason == "MissingAttestation"
    bench.extra.append(
        bench.notary.sign(told.statement(REPOSITORY, bench.model.digest, bench.model.contents.digest), CONTROL)
    )
    assert len(bench.verify().bundles) == 4


def test_every_policy_that_applies_must_hold(bench: Bench) -> None:
    """Of two policies the one that refuses wins; one for another tenant or kind does not apply."""
    papers = read([*bench.signature, bench.provenance()], bench.notary.trust)
    loose = {"metadata": {"name": "a"}, "spec": {**bench.policy, "tenants": ["support"]}}
    other = {"metadata": {"name": "b"}, "spec": {**bench.policy, "artifacts": ["Dataset"], "signers": ["spiffe://x/y"]}}
    strict = {"metadata": {"name": "c"}, "spec": {**bench.policy, "signers": [CONTROL]}}
    policies = [strict, other, loose]
    assert [p["metadata"]["name"] for p in applying(policies, "Model", "research")] == ["c"]
    assert [p["metadata"]["name"] for p in applying(policies, "Model", "support")] == ["a", "c"]
    datasets = {DATASET[1]: bench.screening()}
    with pytest.raises(Refused, match="TrustPolicy c"):
        verify(bench.model, papers, datasets, applying(policies, "Model", "support"), NOW)


def test_a_dataset_needs_its_own_screening_of_these_very_files(bench: Bench) -> None:
    """A screening of other content does not count for a dataset."""
    data = bench.shelf.artifact(
        "research/datasets/d", bench.shelf.push("research/datasets/d", {"a.txt": b"hi"}, "dataset")
    )
    policy = {"metadata": {"name": "strict"}, "spec": {"signers": [CONTROL]}}
    signature = bench.notary.sign(data.contents.statement(), CONTROL)
    for content, good in (("sha256:" + "0" * 64, False), (data.contents.digest, True)):
        told = Screening("Passed", content, 1, 2)
        papers = read(
            [signature, bench.notary.sign(told.statement(data.repository, data.digest), CONTROL)], bench.notary.trust
        )
        if good:
            assert verify(data, papers, {}, [policy], NOW).screenings[0][1].verdict == "Passed"
        else:
            with pytest.raises(Refused, match="not screened"):
                verify(data, papers, {}, [policy], NOW)


def test_no_flipped_byte_of_a_bundle_is_believed(bench: Bench) -> None:
    """A bit flipped anywhere in the signature's bundle never lets the model pass."""
    whole = bench.signature[0]
    for at in range(0, len(whole), 37):
        bench.signature = [flipped(whole, at, at % 8)]
        papers = read([*bench.signature, bench.provenance()], bench.notary.trust)
        policy = {"metadata": {"name": "strict"}, "spec": bench.policy}
        try:
            found = verify(bench.model, papers, {DATASET[1]: bench.screening()}, [policy], NOW)
        except Unverified:
            continue
        assert found.signature.statement == bench.model.contents.statement()
        assert found.signature.signer == BUILDER


def test_screening_predicate_reads_back() -> None:
    """A predicate is read back as it was written."""
    told = Screening("Failed", "sha256:" + "0" * 64, 1, 2, {"pii": 3}, ("why",), ("a:1",), "s")
    assert Screening.parse(told.to_json()) == told
    assert screening.TYPE.startswith("https://")


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_no_bundle_breaks_the_reading_of_others(bench: Bench) -> None:
    """Every field of a bundle replaced by junk or left out: a claim at most, never an error, and nothing new is signed."""
    whole = json.loads(bench.signature[0])
    junk: list[Any] = [None, True, -1, 2**70, 1.5, "", "x", "\ud800", [], {}, [[]], "////", "99999999999999999999", ...]
    mutants = [_with(whole, path, value) for path in _paths(whole) for value in junk]
    papers = read([*mutants, b"", b"[", b"{}", b"\xff", b"[" * 100_000], bench.notary.trust)
    assert len(papers.signed) + len(papers.claims) == len(mutants) + 5
    assert {s.signer for s in papers.signed} <= {BUILDER}
    assert all(s.statement == bench.model.contents.statement() for s in papers.signed)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _paths(inner, (*path, key))
    return found


def _with(value: Any, path: tuple[Any, ...], told: Any) -> bytes:
    changed = json.loads(json.dumps(value))
    at = changed
    for key in path[:-1]:
        at = at[key]
    if told is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = told
    return json.dumps(changed).encode()
