"""Datasets and Models reconciled: measured, screened, signed, verified; the same after a crash anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from notary import BUILDER, CONTROL, DOMAIN, Notary, Shelf, flipped
from world import NOW, World

from wharfinger.controllers.dataset import DatasetReconciler
from wharfinger.controllers.desk import Desk
from wharfinger.controllers.model import ModelReconciler
from wharfinger.controllers.world import Key
from wharfinger.core.clock import DAY
from wharfinger.core.errors import Unavailable
from wharfinger.kinds.condition import find
from wharfinger.supply.predicates import provenance, screening, summary
from wharfinger.supply.predicates.provenance import Dependency, Provenance
from wharfinger.supply.statement import Statement

API = "wharfinger.io/v1alpha1"
TEXTS = {"a.txt": b"the wharfinger keeps the wharf", "b/c.txt": b"and weighs the cargo"}
WEIGHTS = {"model.safetensors": b"weights" * 50, "config.json": b"{}"}
POLICY = {
    "apiVersion": API,
    "kind": "TrustPolicy",
    "metadata": {"name": "strict"},
    "spec": {"signers": [CONTROL, BUILDER], "builders": [BUILDER]},
}
TENANT = {"apiVersion": API, "kind": "Tenant", "metadata": {"name": "research"}, "spec": {"namespaces": ["research"]}}


class Harbour:
    """A world with a registry, a notary and the two reconcilers."""

    def __init__(self) -> None:
        self.notary, self.shelf = Notary(), Shelf()
        self.world = World(TENANT, POLICY)
        self.desk = Desk(self.shelf, self.notary, DOMAIN)
        self.datasets = DatasetReconciler(self.world, self.world, self.desk, self.scan)
        self.models = ModelReconciler(self.world, self.world, self.desk)
        self.scans = 0

    def scan(self, text: str) -> list[tuple[str, str, int]]:
        """Find the word SECRET."""
        self.scans += 1
        at = text.find("SECRET")
        return [("test", "secrets", at)] if at >= 0 else []

    def put(self, kind: str, name: str, files: dict[str, bytes]) -> str:
        """Push files and make the object; return the digest."""
        lower: Any = kind.lower()
        repository = f"research/{lower}s/{name}"
        digest = self.shelf.push(repository, files, lower)
        self.world.put(
            {
                "apiVersion": API,
                "kind": kind,
                "metadata": {"name": name, "namespace": "research"},
                "spec": {"artifact": {"repository": repository, "digest": digest}},
            }
        )
        return digest

    def built(self, files: dict[str, bytes], name: str = "tiny") -> str:
        """Have a model that a run made, with its papers, from a screened dataset."""
        self.put("Dataset", "prose", TEXTS)
        self.world.settle(self.datasets)
        digest = self.put("Model", name, files)
        repository = f"research/models/{name}"
        artifact = self.shelf.artifact(repository, digest)
        data = self.world.must("datasets", "research", "prose")["spec"]["artifact"]
        made = Provenance(
            BUILDER,
            "research/run-1",
            "uid-1",
            "namespaces",
            (Dependency(provenance.DATASET, data["repository"], data["digest"]),),
        )
        for statement in (artifact.contents.statement(), made.statement(repository, digest, artifact.contents.digest)):
            bundle = self.notary.sign(statement, BUILDER)
            self.shelf.attach(repository, digest, bundle, statement.predicate_type)
        return digest

    def reason(self, plural: str, name: str) -> str:
        """Return the reason of the Ready condition."""
        found = find(self.world.must(plural, "research", name)["status"]["conditions"], "Ready")
        assert found is not None
        return f"{found['status']} {found['reason']}"


@pytest.fixture
def harbour() -> Harbour:
    """Return a harbour."""
    return Harbour()


def test_a_pushed_dataset_is_screened_signed_and_ready(harbour: Harbour) -> None:
    """Every paper is made by the control plane, and the status names what was measured."""
    harbour.put("Dataset", "prose", TEXTS)
    harbour.world.settle(harbour.datasets)
    status = harbour.world.must("datasets", "research", "prose")["status"]
    assert harbour.reason("datasets", "prose") == "True Verified"
    assert (status["files"], status["bytes"]) == (2, sum(map(len, TEXTS.values())))
    assert status["screening"]["verdict"] == "Passed"
    assert status["signature"]["signer"] == CONTROL
    assert {signer for _, signer in harbour.notary.signed} == {CONTROL}


def test_a_dataset_with_a_secret_is_not_signed(harbour: Harbour) -> None:
    """Screening fails it: the attestation says so, nothing vouches for it, and the reason is in the status."""
    harbour.put("Dataset", "prose", {"a.txt": b"SECRET"})
    harbour.world.settle(harbour.datasets)
    status = harbour.world.must("datasets", "research", "prose")["status"]
    assert harbour.reason("datasets", "prose") == "False ScreeningFailed"
    assert "signature" not in status
    assert [kind for kind, _ in harbour.notary.signed] == [screening.TYPE]


def test_papers_are_made_once(harbour: Harbour) -> None:
    """Reconciling again, or from nothing but the registry, reads no file again and signs nothing again."""
    harbour.put("Dataset", "prose", TEXTS)
    harbour.world.settle(harbour.datasets)
    signed, scans = list(harbour.notary.signed), harbour.scans
    again = World(TENANT, POLICY, {**harbour.world.must("datasets", "research", "prose"), "status": {}})
    again.settle(DatasetReconciler(again, again, harbour.desk, harbour.scan))
    assert (harbour.notary.signed, harbour.scans) == (signed, scans)
    want = harbour.world.must("datasets", "research", "prose")["status"]
    assert again.must("datasets", "research", "prose")["status"]["signature"] == want["signature"]


def test_a_crash_at_any_signature_or_attachment_is_followed_by_the_same_papers(harbour: Harbour) -> None:
    """The issuer or the registry fails once at every step: the next try goes on where it was."""
    harbour.put("Dataset", "prose", TEXTS)
    key = Key("research", "prose")
    for which in ("sign", "attach"):
        for at in range(3):
            harbour = Harbour()
            harbour.put("Dataset", "prose", TEXTS)
            _fail_at(harbour, which, at)
            with pytest.raises(Unavailable):
                harbour.datasets.reconcile(key, NOW)
            harbour.world.settle(harbour.datasets)
            assert harbour.reason("datasets", "prose") == "True Verified"
            attached = harbour.shelf.attached("research/datasets/prose", _digest(harbour, "datasets", "prose"))
            assert len(attached) == 3


def test_an_artifact_that_is_not_there_is_waited_for(harbour: Harbour) -> None:
    """The reason names it, and it is looked at again."""
    digest = harbour.put("Dataset", "prose", TEXTS)
    manifest = harbour.shelf.manifests.pop(("research/datasets/prose", digest))
    assert harbour.datasets.reconcile(Key("research", "prose"), NOW) is not None
    assert harbour.reason("datasets", "prose") == "False ArtifactNotFound"
    harbour.shelf.manifests["research/datasets/prose", digest] = manifest
    harbour.world.settle(harbour.datasets)
    assert harbour.reason("datasets", "prose") == "True Verified"


def test_a_model_that_a_run_made_is_verified_and_summarised(harbour: Harbour) -> None:
    """Signature, provenance and the dataset's screening hold: status names them, a signed summary says so once."""
    harbour.built(WEIGHTS)
    harbour.world.settle(harbour.models)
    status = harbour.world.must("models", "research", "tiny")["status"]
    assert harbour.reason("models", "tiny") == "True Verified"
    assert status["provenance"]["run"] == "research/run-1"
    assert status["signature"]["signer"] == BUILDER
    assert status["summary"].startswith("sha256:")
    harbour.world.clock.pass_(DAY)
    harbour.world.settle(harbour.models)
    assert [kind for kind, _ in harbour.notary.signed].count(summary.TYPE) == 1


def _unsigned(harbour: Harbour) -> None:
    harbour.put("Model", "tiny", WEIGHTS)


def _flipped(harbour: Harbour) -> None:
    good = harbour.built(WEIGHTS, "good")
    bad = harbour.put("Model", "tiny", {**WEIGHTS, "model.safetensors": flipped(WEIGHTS["model.safetensors"], 9)})
    for bundle in harbour.shelf.attached("research/models/good", good):
        harbour.shelf.attach("research/models/tiny", bad, bundle, "")


def _stranger(harbour: Harbour) -> None:
    digest = harbour.put("Model", "tiny", WEIGHTS)
    artifact = harbour.shelf.artifact("research/models/tiny", digest)
    other = Notary("elsewhere.example")
    bundle = other.sign(artifact.contents.statement(), "spiffe://elsewhere.example/wharfinger/builder")
    harbour.shelf.attach("research/models/tiny", digest, bundle, "")


@pytest.mark.parametrize(
    ("prepare", "reason"), [(_unsigned, "Unsigned"), (_flipped, "DigestMismatch"), (_stranger, "UnknownBuilder")]
)
def test_a_model_without_good_papers_is_refused(
    harbour: Harbour, prepare: Callable[[Harbour], None], reason: str
) -> None:
    """Pushed unsigned, with a flipped bit under another's signature, or signed by a stranger: not Ready, and why."""
    prepare(harbour)
    harbour.world.settle(harbour.models)
    assert harbour.reason("models", "tiny") == f"False {reason}"
    status = harbour.world.must("models", "research", "tiny")["status"]
    assert "summary" not in status
    assert "signature" not in status


def test_a_stricter_policy_takes_a_models_readiness(harbour: Harbour) -> None:
    """When a policy names other builders the model is judged again; when it is lifted, the summary is used again."""
    harbour.built(WEIGHTS)
    harbour.world.settle(harbour.models)
    harbour.world.put({**POLICY, "spec": {**POLICY["spec"], "builders": ["spiffe://wharfinger.local/x/y"]}})
    harbour.world.settle(harbour.models)
    assert harbour.reason("models", "tiny") == "False UnknownBuilder"
    harbour.world.put(POLICY)
    harbour.world.settle(harbour.models)
    assert harbour.reason("models", "tiny") == "True Verified"
    assert [kind for kind, _ in harbour.notary.signed].count(summary.TYPE) == 1
    assert harbour.world.events[-1][1] == "Verified"


def test_nothing_is_ready_without_a_policy(harbour: Harbour) -> None:
    """Where no TrustPolicy applies, nothing is admitted."""
    harbour.built(WEIGHTS)
    harbour.world.delete("trustpolicies", "", "strict")
    harbour.world.settle(harbour.models)
    assert harbour.reason("models", "tiny") == "False NoTrustPolicy"


def _digest(harbour: Harbour, plural: str, name: str) -> str:
    return str(harbour.world.must(plural, "research", name)["spec"]["artifact"]["digest"])


def _fail_at(harbour: Harbour, which: str, at: int) -> None:
    """Have the `at`-th call of `which` fail after it has done its work, or before for a signature."""
    calls = 0
    sign, attach = harbour.notary.sign, harbour.shelf.attach

    def failing_sign(statement: Statement, signer: str) -> bytes:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise Unavailable("issuer gone")
        return sign(statement, signer)

    def failing_attach(repository: str, digest: str, bundle: bytes, predicate_type: str) -> str:
        nonlocal calls
        made = attach(repository, digest, bundle, predicate_type)
        calls += 1
        if calls == at + 1:
            raise Unavailable("registry gone")
        return made

    target: Any = harbour.notary if which == "sign" else harbour.shelf
    setattr(target, which, failing_sign if which == "sign" else failing_attach)
