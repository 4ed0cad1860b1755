"""`wharf push`: files to the registry, the object to the API, as whom the kubeconfig says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Authority
from local_api import CONTROL as API_CONTROL
from local_api import LocalApi
from local_registry import ADMIN, ALICE, LocalRegistry

from wharfinger.cluster.client import Resource
from wharfinger.core.errors import NotFound
from wharfinger.supply.artifact import read

DATASETS = Resource("wharfinger.io", "v1alpha1", "datasets", "Dataset")
MODELS = Resource("wharfinger.io", "v1alpha1", "models", "Model")


class Wharf:
    """The command on a state directory with an API server and a registry of one authority."""

    def __init__(self, folder: Path) -> None:
        authority = Authority()
        self.registry = LocalRegistry(folder / "platform", authority=authority).start()
        self.api = LocalApi(folder / "objects.db", authority=authority).start()
        self.state = folder / "state"
        self.state.mkdir()
        (self.state / "ports.json").write_text(json.dumps({"registry": self.registry.port}))
        self.kubeconfig = self.api.kubeconfig(folder, ADMIN)
        client = self.api.client(API_CONTROL)
        for name in ("research", "support"):
            client.create(Resource("", "v1", "namespaces", "Namespace", False), {
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
            })  # fmt: skip
            client.create(Resource("wharfinger.io", "v1alpha1", "tenants", "Tenant", False), {
                "apiVersion": "wharfinger.io/v1alpha1", "kind": "Tenant", "metadata": {"name": name},
                "spec": {"namespaces": [name]},
            })  # fmt: skip

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it."""
        return subprocess.run(
            [sys.executable, "-m", "wharfinger.cli.main", *words, "--state-dir", str(self.state)],
            env={"KUBECONFIG": str(self.kubeconfig), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def stop(self) -> None:
        """End the servers."""
        self.api.stop()
        self.registry.stop()


@pytest.fixture(scope="module")
def wharf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wharf]:
    """The command and what it speaks to."""
    made = Wharf(tmp_path_factory.mktemp("wharf"))
    yield made
    made.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub" / "b.txt").write_text("bb")
    return tmp_path


def test_a_dataset_is_pushed_and_named(wharf: Wharf, folder: Path) -> None:
    """The files are in the registry by digest, the Dataset names them with what was said of them; again changes nothing."""
    done = wharf("push", "dataset", "manual", str(folder), "-n", "research", "--license", "CC0-1.0", "-o", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["repository"], told["files"], told["bytes"]) == ("research/datasets/manual", 2, 3)
    spec = wharf.api.client().get(DATASETS, "research", "manual")["spec"]
    assert spec["artifact"] == {"repository": told["repository"], "digest": told["digest"]}
    assert spec["license"] == "CC0-1.0"
    assert list(read(wharf.registry.client(ALICE), told["repository"], told["digest"]).layers) == ["a.txt", "sub/b.txt"]
    again = wharf("push", "dataset", "manual", str(folder), "-n", "research", "-o", "name")
    assert again.stdout.strip() == f"{told['repository']}@{told['digest']}"


def test_code_is_pushed_and_only_its_reference_told(wharf: Wharf, folder: Path) -> None:
    """Code is no object: what is printed belongs into a PipelineRun."""
    done = wharf("push", "code", "steps", str(folder), "-n", "research")
    assert done.returncode == 0 and done.stdout.startswith("research/code/steps@sha256:")
    assert done.stderr == "", "no progress where there is no terminal"


def test_a_model_is_pushed_as_the_person_of_the_kubeconfig(wharf: Wharf, folder: Path) -> None:
    """Alice pushes to her tenant's namespace; to another's it is a no, with exit code 1, and no object is made."""
    admin, wharf.kubeconfig = wharf.kubeconfig, wharf.api.kubeconfig(folder.parent, ALICE, "research")
    try:
        assert wharf("push", "model", "tiny", str(folder)).returncode == 0
        refused = wharf("push", "model", "tiny", str(folder), "-n", "support")
    finally:
        wharf.kubeconfig = admin
    assert refused.returncode == 1 and "may not push support/models/tiny" in refused.stderr
    assert (
        wharf.api.client().get(MODELS, "research", "tiny")["spec"]["artifact"]["repository"] == "research/models/tiny"
    )
    with pytest.raises(NotFound):
        wharf.api.client().get(MODELS, "support", "tiny")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push", "dataset", "Bad_Name"), "name"),
        (("push", "model", "m", "--license", "MIT"), "--license is said of a dataset"),
        (("push", "dataset", "a/b"), "name"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_sent(
    wharf: Wharf, folder: Path, words: tuple[str, ...], said: str
) -> None:
    """A bad name, an option of another noun: exit code 2."""
    done = wharf(*words[:3], str(folder), *words[3:], "-n", "research")
    assert done.returncode == 2 and said in done.stderr


def test_a_folder_with_a_link_out_of_it_is_refused(wharf: Wharf, folder: Path) -> None:
    """Exit code 2, naming the link; nothing is there afterwards."""
    (folder / "passwd").symlink_to("/etc/passwd")
    done = wharf("push", "dataset", "linked", str(folder), "-n", "research")
    assert done.returncode == 2 and "passwd" in done.stderr and "hint" in done.stderr
    assert "research/datasets/linked" not in wharf.registry.client(ADMIN).repositories()


def test_an_artifact_does_not_change_under_its_name(wharf: Wharf, folder: Path) -> None:
    """A dataset's files are what they were: other files want another name."""
    assert wharf("push", "dataset", "fixed", str(folder), "-n", "research").returncode == 0
    (folder / "a.txt").write_text("other")
    done = wharf("push", "dataset", "fixed", str(folder), "-n", "research")
    assert done.returncode == 2 and "make another" in done.stderr
