"""Pipelines and papers with the real processes: what fails says why, what was done is not done again, proofs stand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_under_test import Platform

from tests.e2e.test_crash import Story
from wharfinger.bootstrap.operations import request
from wharfinger.cli.story import manifests
from wharfinger.govern import proof

pytestmark = [pytest.mark.e2e, pytest.mark.serial]
SPACE = manifests.RESEARCH
TRAINER = """
import json, os, pathlib, struct, sys
source = pathlib.Path(os.environ["WHARF_INPUT"])
text = b"".join(path.read_bytes() for path in sorted(source.iterdir()))
if os.environ.get("FAIL"):
    print("the trainer gives up"); sys.exit(7)
try:
    (source / "mine").write_text("x"); sys.exit(9)
except OSError:
    pass
header = json.dumps({"t": {"dtype": "U8", "shape": [len(text)], "data_offsets": [0, len(text)]}}).encode()
out = pathlib.Path(os.environ["WHARF_OUTPUT"])
(out / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + text)
"""
"""A trainer of a user's own, which knows nothing of the platform; its input is read-only."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return a platform with tenants, policies and one dataset."""
    folder = tmp_path_factory.mktemp("pipeline")
    made = Platform(folder / "state")
    try:
        made.up()
        Story(made).begin()
        (folder / "texts").mkdir()
        (folder / "texts" / "a.txt").write_text("The wharfinger weighs the cargo.\n" * 20)
        made.until("push", "dataset", "prose", str(folder / "texts"), "-n", SPACE)
        made.until("wait", "dataset", "prose", "-n", SPACE, "--timeout", "60s")
        yield made
    finally:
        made.down()


def ran(platform: Platform, name: str, model: str, dataset: str = "prose", **train: Any) -> dict[str, Any]:
    """Have a run of the trainer and return its status at the end."""
    step = {"command": ["python", "-c", TRAINER], **train}
    spec = {"dataset": dataset, "model": model, "serviceAccountName": "trainer", "train": step}
    meta = {"name": name, "namespace": SPACE}
    made = {"apiVersion": "wharfinger.io/v1alpha1", "kind": "PipelineRun", "metadata": meta, "spec": spec}
    platform.until("apply", "-f", "-", stdin=json.dumps(made))
    for _ in range(60):
        status = shown(platform, "pipelinerun", name).get("status", {})
        if status.get("phase") in ("Succeeded", "Failed"):
            return status
        platform.wharf("wait", "pipelinerun", name, "-n", SPACE, "--for", "condition=Succeeded", "--timeout", "2s")
    raise AssertionError(f"run {name} does not end: {status}")


def shown(platform: Platform, kind: str, name: str) -> dict[str, Any]:
    """Return an object."""
    found: dict[str, Any] = json.loads(platform.until("get", kind, name, "-n", SPACE, "-o", "json"))
    return found


def told(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a condition."""
    found: dict[str, Any] = {c["type"]: c for c in status["conditions"]}[kind]
    return found


def steps(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the steps by name."""
    return {step["name"]: step for step in status["steps"]}


@pytest.mark.timeout(240)
def test_a_trainer_of_ones_own_makes_a_verified_model_and_a_rerun_takes_it_over(platform: Platform) -> None:
    """Twenty lines that know nothing of us: signed, with provenance; the same inputs are not trained on again."""
    first = ran(platform, "first", "own")
    assert told(first, "Succeeded")["reason"] == "Published"
    platform.until("wait", "model", "own", "-n", SPACE, "--timeout", "60s")
    model = shown(platform, "model", "own")["status"]
    assert model["provenance"]["run"] == f"{SPACE}/first"
    assert model["provenance"]["isolation"] in ("namespaces", "none")
    second = ran(platform, "second", "own")
    assert steps(second)["train"]["reused"] is True
    assert second["modelDigest"] == first["modelDigest"]
    pods = json.loads(platform.until("get", "pods", "-n", SPACE, "-o", "json"))["items"]
    assert "second-train" not in {pod["metadata"]["name"] for pod in pods}


@pytest.mark.timeout(240)
def test_a_failed_step_names_its_reason_and_the_command_that_shows_its_log(platform: Platform) -> None:
    """The exit code is in the status, with a command; the command shows what the step said."""
    status = ran(platform, "failing", "never", env=[{"name": "FAIL", "value": "1"}])
    step = steps(status)["train"]
    assert (status["phase"], step["phase"]) == ("Failed", "Failed")
    assert "exit code 7" in step["message"]
    command = step["message"].rpartition("wharf ")[2].split()
    assert "the trainer gives up" in platform.until(*command)
    late = ran(platform, "late", "never", command=["sleep", "60"], timeoutSeconds=1)
    assert steps(late)["train"]["reason"] == "DeadlineExceeded"


@pytest.mark.timeout(240)
def test_a_dataset_with_a_credential_is_not_trained_on(platform: Platform, tmp_path: Path) -> None:
    """Screening fails it: the reason is in its status and in the run's, and no pod was started."""
    (tmp_path / "a.txt").write_text("token: gh" + "p_" + "Zx81kQ" * 6 + "\n")
    platform.until("push", "dataset", "leaky", str(tmp_path), "-n", SPACE)
    status = ran(platform, "from-leaky", "leaky", "leaky")
    dataset = shown(platform, "dataset", "leaky")
    assert dataset["status"]["screening"]["verdict"] == "Failed"
    assert "signature" not in dataset["status"]
    assert told(status, "Succeeded")["reason"] == "ScreeningFailed"
    assert "pod" not in steps(status)["train"]


@pytest.mark.timeout(240)
def test_a_refusal_is_explained_and_proven(platform: Platform) -> None:
    """A call of what is not there: told in words, and the proof holds against the trust root written before."""
    root = platform.until("trust-root").encode()
    refused = platform.wharf("ask", f"{SPACE}/nothing", "hello", "--as", f"{SPACE}/alice", "-o", "json")
    decision = json.loads(refused.stdout)["decision"]
    assert "refused it" in platform.until("explain", "decision", decision)
    made = request(platform.directory, "control", "POST", f"/v1/proofs/{decision}")
    facts = proof.verify(made, root).facts()
    assert (facts["allowed"], facts["decision"], facts["recordedBy"]) == (False, decision, "gateway")
