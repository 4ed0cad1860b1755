"""Proofs: what they show, offline; no byte of one, and no part of another, goes unnoticed."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from notary import BUILDER, CONTROL, Notary, flipped
from served import ALICE, BOB, DOMAIN, Served

from wharfinger.core.digests import sha256
from wharfinger.core.errors import Denied, NotFound, Unverified
from wharfinger.govern import archive, proof
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.policy.decision import Decision
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.grant import Door
from wharfinger.policy.journal import Journal

ADMIN = SpiffeId(f"spiffe://{DOMAIN}/wharfinger/admin")


class Proven:
    """Two proofs of the same platform, for two grants, and its trust root."""

    def __init__(self, evidence: Path) -> None:
        self.served = Served(evidence)
        self.root = self.served.prover.trust_root()
        self.decision = self.served.ask("assistant", ALICE)
        self.proof = self.served.prover.prove(self.decision.id, ADMIN)
        self.other = self.served.prover.prove(self.served.ask("archive", BOB).id, ADMIN)

    def refused(self, data: bytes, root: bytes | None = None) -> str:
        """Return the words in which a proof is refused."""
        with pytest.raises(Unverified) as caught:
            proof.verify(data, root or self.root)
        assert caught.value.exit_code == 1
        return caught.value.message

    def prove(self, decision: Decision) -> bytes:
        """Return the proof of a decision."""
        return self.served.prover.prove(decision.id, ADMIN)


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proven]:
    """Return two proofs."""
    made = Proven(tmp_path_factory.mktemp("evidence"))
    yield made
    made.served.close()


def test_a_proof_names_who_what_silicon_caller_and_policy(proven: Proven) -> None:
    """Verified with nothing but the trust root, it shows every element of the grant and where the model is from."""
    shown = proof.verify(proven.proof, proven.root)
    facts = shown.facts()
    assert facts["allowed"] is True
    assert facts["decision"] == proven.decision.id
    assert facts["who"] == f"spiffe://{DOMAIN}/ns/research/sa/assistant"
    assert str(facts["what"]).startswith("research/models/assistant-model@sha256:")
    assert facts["silicon"] == ["MIG-research-assistant-0 (node-a/mig-research-assistant-0: H100, 1g.10gb, 10Gi)"]
    assert facts["caller"] == ALICE
    assert str(facts["policy"]).startswith("sha256:")
    assert {"AccessPolicy research-serves", "AccessPolicy research-calls", "TrustPolicy papers"} == set(
        facts["policies"]
    )
    assert (facts["run"], facts["builder"], facts["vouchedBy"]) == (
        "research/run-assistant-model",
        BUILDER,
        CONTROL,
    )
    words = "\n".join(shown.words())
    assert all(str(facts[name]) in words for name in ("who", "what", "caller", "policy"))


def test_any_tar_reads_a_proof(proven: Proven) -> None:
    """It is an ordinary ustar archive of JSON parts."""
    with tarfile.open(fileobj=io.BytesIO(proven.proof)) as tar:
        names = tar.getnames()
    assert {"proof.json", "decision.json", "grant/decision.json", "model/signature.bundle.json", "silicon.json"} <= set(
        names
    )
    assert any(name.startswith("dataset-0/screening") for name in names)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_no_byte_can_be_flipped(proven: Proven) -> None:
    """Every byte of one header, a seeded sample of all others, of the padding and of the parts."""
    data = proven.proof
    draw = random.Random(7)
    positions = set(draw.sample(range(len(data)), 400))
    at = 0
    for index, part in enumerate(data for _, data in sorted(archive.read(data).items())):
        start, end = at + 512, at + 512 + len(part)
        at = end + (-len(part) % 512)
        header = range(start - 512, start)
        positions |= set(header if index == 0 else draw.sample(header, 12))
        positions |= set(draw.sample(range(end, at), min(4, at - end)))
    positions |= set(draw.sample(range(at, len(data)), 40))
    draw = random.Random(11)
    for position in sorted(positions):
        with pytest.raises(Unverified):
            proof.verify(flipped(data, position, draw.randrange(8)), proven.root)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_no_bit_of_what_vouches_can_be_flipped(proven: Proven) -> None:
    """A bit of each byte of proof.json, put into an archive that is otherwise as it must be, breaks it."""
    parts = archive.read(proven.proof)
    whole = parts["proof.json"]
    draw = random.Random(3)
    for position in range(len(whole)):
        changed = archive.write({**parts, "proof.json": flipped(whole, position, draw.randrange(8))})
        with pytest.raises(Unverified):
            proof.verify(changed, proven.root)


def test_every_part_swapped_with_the_other_grants_is_named(proven: Proven) -> None:
    """Each part of the other proof in this one's place: refused, naming the part or what it breaks."""
    mine, theirs = archive.read(proven.proof), archive.read(proven.other)
    names = [name for name in mine if name in theirs and mine[name] != theirs[name]]
    assert len(names) >= 8
    for name in names:
        message = proven.refused(archive.write({**mine, name: theirs[name]}))
        if name != "proof.json":
            assert message.startswith(name), message


def test_parts_swapped_and_vouched_for_again_break_a_deeper_link(proven: Proven) -> None:
    """Even if the control plane vouched for a mixture, the links between the parts do not hold."""
    mine, theirs = archive.read(proven.proof), archive.read(proven.other)
    record = json.loads(mine["inputs/request.json"])
    assert record["caller"] == ALICE
    links = {
        "inputs/": "inputs/",
        "grant/": "grant",
        "model/": "model",
        "dataset-0/": "",
        "silicon.json": "silicon.json",
        "decision.json": "decision.json",
    }
    for prefix, link in links.items():
        mixed = {n: d for n, d in mine.items() if not n.startswith(prefix) and n != "proof.json"}
        mixed |= {n: d for n, d in theirs.items() if n.startswith(prefix)}
        told = proof.manifest_of(_record(proven), mixed, "2027-01-15T08:00:00Z")
        bundle = proven.served.notary.sign(told.statement(), CONTROL)
        whole = proof.write(mixed, bundle)
        if link:
            assert proven.refused(whole).startswith(link)
        else:
            # Both tenants' models were made from the same dataset: the same part, so the same proof.
            proof.verify(whole, proven.root)


def test_a_part_missing_or_added_is_named(proven: Proven) -> None:
    """A part less, or one more that nobody vouched for."""
    parts = archive.read(proven.proof)
    for name in parts:
        less = {other: data for other, data in parts.items() if other != name}
        assert proven.refused(archive.write(less)).startswith(name)
    assert "evil.json" in proven.refused(archive.write({**parts, "evil.json": b"{}"}))


def test_a_proof_of_another_platform_is_not_believed(proven: Proven, tmp_path: Path) -> None:
    """Under the trust root of another platform of the same name nothing holds; garbage is no trust root."""
    other = Notary().trust.encode()
    assert proven.refused(proven.proof, other).startswith("proof.json")
    assert proven.refused(proven.proof, b"{}").startswith("trust root")


def test_garbage_is_refused_without_a_crash(proven: Proven) -> None:
    """Empty, cut short, random and huge headers: always a named refusal."""
    draw = random.Random(5)
    for data in (
        b"",
        b"\0" * 1024,
        proven.proof[:-1],
        proven.proof + b"\0",
        proven.proof[:700],
        draw.randbytes(4096),
        proven.proof[:512] * 600,
    ):
        proven.refused(data)


def test_the_same_decision_gives_proofs_that_verify_each(proven: Proven) -> None:
    """A proof is made again from the same evidence, also when the grant was revoked meanwhile and policies changed."""
    [grant] = proven.served.grants("assistant")
    proven.served.world.patch("grants", "research", grant["metadata"]["name"], {"spec": {"revoked": True}})
    again = proven.prove(proven.decision)
    assert proof.verify(again, proven.root).facts()["caller"] == ALICE
    proven.served.world.patch("grants", "research", grant["metadata"]["name"], {"spec": {"revoked": False}})


def test_a_refusal_is_proven_by_its_inputs(proven: Proven) -> None:
    """A denied call has a proof too: who was refused what, by which rule, replayed."""
    denied = proven.served.ask("assistant", BOB)
    assert not denied.verdict.allowed
    shown = proof.verify(proven.prove(denied), proven.root).facts()
    assert (shown["allowed"], shown["caller"]) == (False, BOB)


def test_a_decision_of_a_pod_is_told_as_its_runtimes_own(proven: Proven) -> None:
    """The runtime's journal is its pod's to write: what it tells of is its own grant, or it is not vouched for."""
    served = proven.served
    [grant] = served.grants("assistant")
    uid = grant["spec"]["podUid"]
    for pod, good in ((uid, True), ("another", False)):
        journal = Journal(served.evidence / f"pod-{pod}")
        keeper = Doorkeeper("runtime", journal, served.notary.clock, served.ids)
        decision = keeper.judge(
            Door.RUNTIME,
            [grant["spec"]],
            who=grant["spec"]["workload"],
            what=grant["spec"]["artifacts"][0],
            caller=ALICE,
            tenant="research",
        )
        journal.close()
        if good:
            assert proof.verify(proven.prove(decision), proven.root).facts()["recordedBy"] == f"pod-{uid}"
        else:
            with pytest.raises(Unverified, match="not its own"):
                proven.prove(decision)


def test_only_the_tenants_admins_and_the_platforms_may_have_it_proven(proven: Proven) -> None:
    """The tenant's own people without that right are refused; for all others the decision does not exist."""
    prove = proven.served.prover.prove
    prove(proven.decision.id, SpiffeId(f"spiffe://{DOMAIN}/tenant/research/user/ann"))
    with pytest.raises(Denied):
        prove(proven.decision.id, SpiffeId(ALICE))
    with pytest.raises(Denied):
        prove(proven.decision.id, None)
    for stranger in (f"spiffe://{DOMAIN}/tenant/support/user/ann", "spiffe://elsewhere/wharfinger/admin"):
        with pytest.raises(NotFound):
            prove(proven.decision.id, SpiffeId(stranger))


def test_an_archive_is_written_in_one_way_only() -> None:
    """What Python's tarfile writes of the same parts is the same, and reading gives the parts back."""
    parts = {"a/b.json": b"x" * 700, "c": b"", "d.json": b"hello"}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(parts.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert archive.write(parts) == made.getvalue()
    assert archive.read(archive.write(parts)) == parts


def _record(proven: Proven) -> Any:
    payload = proof.exact(archive.read(proven.proof)["decision.json"], proven.served.notary.trust).statement.predicate
    assert sha256(b"") != payload
    return payload["record"]
