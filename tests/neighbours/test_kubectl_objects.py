"""Objects through the real kubectl: apply, diff, get, label, patch, edit, scale, delete."""

from __future__ import annotations

import json

import pytest
from kubectl import DEPLOYMENT, POD, SERVICE, Kubectl

pytestmark = pytest.mark.neighbours


def test_apply_creates_changes_and_leaves_alone(kubectl: Kubectl) -> None:
    """Client-side apply says created, unchanged, configured; for a built-in kind and one of ours."""
    both = f"{DEPLOYMENT}---{SERVICE}"
    assert kubectl("apply", "-f", "-", stdin=both) == (
        "deployment.apps/web created\ninferenceservice.wharfinger.io/assistant created\n"
    )
    assert kubectl("apply", "-f", "-", stdin=both).count("unchanged") == 2
    changed = both.replace("replicas: 2", "replicas: 3").replace("replicas: 1", "replicas: 2")
    assert kubectl("apply", "-f", "-", stdin=changed).count("configured") == 2
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"
    removed = changed.replace("  replicas: 2\n", "")
    kubectl("apply", "-f", "-", stdin=removed)
    assert kubectl("get", "isvc", "assistant", "-o", "jsonpath={.spec.replicas}") == "1"


def test_apply_merges_containers_by_name(kubectl: Kubectl) -> None:
    """A three-way strategic merge keeps a container that somebody else added."""
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    side = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "example/side"}]}}}}
    kubectl("patch", "deploy", "web", "-p", json.dumps(side))
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT.replace("web:1", "web:2"))
    images = kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].image}")
    assert sorted(images.split()) == ["example/side", "example/web:2"]


def test_server_side_apply_conflicts_between_managers(kubectl: Kubectl) -> None:
    """A second manager that wants another value is told whose field it is, and may force it."""
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=DEPLOYMENT)
    other = DEPLOYMENT.replace("replicas: 2", "replicas: 5")
    refused = kubectl.run("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=other)
    assert refused.returncode == 1 and 'conflict with "one": .spec.replicas' in refused.stderr
    kubectl("apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-", stdin=other)
    shown = json.loads(kubectl("get", "deploy", "web", "-o", "json", "--show-managed-fields"))
    assert {entry["manager"] for entry in shown["metadata"]["managedFields"]} == {"one", "two"}


def test_client_side_apply_becomes_server_side(kubectl: Kubectl) -> None:
    """Who applied client-side may go on server-side without a conflict with himself."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    changed = SERVICE.replace("replicas: 1", "replicas: 2")
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", stdin=changed)


def test_diff_shows_what_apply_would_change(kubectl: Kubectl) -> None:
    """Exit code 1 and the lines that differ; 0 when nothing does; nothing is changed."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    same = kubectl.run("diff", "-f", "-", stdin=SERVICE)
    assert (same.returncode, same.stdout) == (0, "")
    for words in ((), ("--server-side", "--force-conflicts")):
        shown = kubectl.run("diff", *words, "-f", "-", stdin=SERVICE.replace("replicas: 1", "replicas: 4"))
        assert shown.returncode == 1, shown.stderr
        assert "-  replicas: 1" in shown.stdout and "+  replicas: 4" in shown.stdout
    assert kubectl("get", "isvc", "assistant", "-o", "jsonpath={.spec.replicas}") == "1"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("name", "inferenceservice.wharfinger.io/assistant\n"),
        ("jsonpath={.spec.model}", "small"),
        ("go-template={{.spec.model}}", "small"),
        ("custom-columns=N:.metadata.name,M:.spec.model", "N           M\nassistant   small\n"),
    ],
)
def test_get_prints_what_is_asked_for(kubectl: Kubectl, form: str, expected: str) -> None:
    """Forms that print a part."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    assert kubectl("get", "isvc", "assistant", "-o", form) == expected


def test_get_prints_tables(kubectl: Kubectl) -> None:
    """The server's columns, wide ones too, with and without headers, for one, many and all kinds."""
    kubectl("apply", "-f", "-", stdin=f"{SERVICE}---{DEPLOYMENT}---{POD}")
    lines = kubectl("get", "isvc").splitlines()
    assert lines[0].split() == ["NAME", "MODEL", "READY", "REPLICAS", "AVAILABLE", "REASON", "AGE"]
    assert lines[1].split()[:2] == ["assistant", "small"]
    wide = kubectl("get", "pods", "-o", "wide").splitlines()[0].split()
    assert wide[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"] and "NODE" in wide
    assert kubectl("get", "deploy", "--no-headers").split()[:2] == ["web", "0/2"]
    assert "pod/worker" in kubectl("get", "all") and "deployment.apps/web" in kubectl("get", "all")
    assert "assistant" in kubectl("get", "wharfinger")
    assert kubectl("get", "pods", "-A", "--show-labels").splitlines()[0].split()[0] == "NAMESPACE"


def test_get_prints_whole_objects(kubectl: Kubectl) -> None:
    """As JSON, as YAML, one and many; what is printed can be applied again."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    one = json.loads(kubectl("get", "isvc", "assistant", "-o", "json"))
    assert one["kind"] == "InferenceService" and one["spec"]["model"] == "small"
    many = json.loads(kubectl("get", "isvc", "-o", "json"))
    assert many["kind"] == "List" and len(many["items"]) == 1
    text = kubectl("get", "isvc", "assistant", "-o", "yaml")
    assert "kind: InferenceService" in text
    assert "configured" in kubectl("apply", "-f", "-", stdin=text)


def test_get_selects_sorts_and_pages(kubectl: Kubectl) -> None:
    """Selectors by label and field, sorting, and pages of one."""
    for name, tier in (("a", "x"), ("b", "y"), ("c", "x")):
        kubectl("create", "configmap", name)
        kubectl("label", "configmap", name, f"tier={tier}")
    names = ["-o", "name", "configmaps"]
    assert kubectl("get", *names, "-l", "tier=x").split() == ["configmap/a", "configmap/c"]
    assert kubectl("get", *names, "--field-selector=metadata.name=b").split() == ["configmap/b"]
    assert kubectl("get", *names, "--chunk-size=1").split() == ["configmap/a", "configmap/b", "configmap/c"]
    assert kubectl("get", "configmaps", "--sort-by=.metadata.name", "-o", "name").split()[0] == "configmap/a"


def test_what_is_not_there_is_told(kubectl: Kubectl) -> None:
    """Exit code 1 and Kubernetes' words."""
    done = kubectl.run("get", "isvc", "none")
    assert done.returncode == 1
    assert done.stderr == 'Error from server (NotFound): inferenceservices.wharfinger.io "none" not found\n'
    assert kubectl.run("get", "nonsense").stderr == 'error: the server doesn\'t have a resource type "nonsense"\n'


def test_label_and_annotate(kubectl: Kubectl) -> None:
    """Set, overwrite, remove."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    kubectl("label", "isvc", "assistant", "tier=gold")
    assert kubectl.run("label", "isvc", "assistant", "tier=silver").returncode == 1
    kubectl("label", "--overwrite", "isvc", "assistant", "tier=silver")
    assert kubectl("get", "isvc", "-l", "tier=silver", "-o", "name") == "inferenceservice.wharfinger.io/assistant\n"
    kubectl("label", "isvc", "assistant", "tier-")
    assert kubectl("get", "isvc", "-l", "tier", "-o", "name") == ""
    kubectl("annotate", "isvc", "assistant", "note=hello")
    assert kubectl("get", "isvc", "assistant", "-o", "jsonpath={.metadata.annotations.note}") == "hello"


@pytest.mark.parametrize("sort", ["merge", "json", "strategic"])
def test_patch_in_every_form(kubectl: Kubectl, sort: str) -> None:
    """Merge, JSON and strategic patches; our kinds have no strategic one, which kubectl says."""
    kubectl("apply", "-f", "-", stdin=f"{DEPLOYMENT}---{SERVICE}")
    change = '[{"op":"replace","path":"/spec/replicas","value":7}]' if sort == "json" else '{"spec":{"replicas":7}}'
    kubectl("patch", "deploy", "web", f"--type={sort}", "-p", change)
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "7"
    ours = kubectl.run("patch", "isvc", "assistant", f"--type={sort}", "-p", change)
    assert (ours.returncode == 0) == (sort != "strategic"), ours.stderr
    status = kubectl.run("patch", "isvc", "assistant", "--subresource=status", "--type=merge", "-p", '{"status":{}}')
    assert status.returncode == 1 and "only the control plane" in status.stderr


def test_edit_changes_what_the_editor_writes(kubectl: Kubectl) -> None:
    """The object goes through an editor; what is saved is applied."""
    kubectl("apply", "-f", "-", stdin=SERVICE)
    told = kubectl("edit", "isvc", "assistant", KUBE_EDITOR="sed -i s/small/large/g")
    assert told == "inferenceservice.wharfinger.io/assistant edited\n"
    assert kubectl("get", "isvc", "assistant", "-o", "jsonpath={.spec.model}") == "large"


def test_scale_both_kinds(kubectl: Kubectl) -> None:
    """Through the scale subresource; with a precondition on the present number."""
    kubectl("apply", "-f", "-", stdin=f"{DEPLOYMENT}---{SERVICE}")
    kubectl("scale", "deploy/web", "--replicas=5")
    kubectl("scale", "isvc/assistant", "--current-replicas=1", "--replicas=3")
    assert kubectl("get", "isvc", "assistant", "-o", "jsonpath={.spec.replicas}") == "3"
    wrong = kubectl.run("scale", "deploy/web", "--current-replicas=1", "--replicas=2")
    assert wrong.returncode == 1 and "Expected replicas to be 1, was 5" in wrong.stderr


def test_create_replace_and_delete(kubectl: Kubectl) -> None:
    """Typed creation (which speaks protobuf), replacement, and deletion by name, file and label."""
    kubectl("create", "deployment", "made", "--image=example/made")
    kubectl("create", "secret", "generic", "hidden", "--from-literal=key=value")
    kubectl("create", "job", "once", "--image=example/once", "--", "true")
    kubectl("create", "namespace", "made")
    assert "NotFound" in kubectl.run("replace", "-f", "-", stdin=SERVICE).stderr
    kubectl("create", "-f", "-", stdin=SERVICE)
    kubectl("replace", "-f", "-", stdin=kubectl("get", "isvc", "assistant", "-o", "yaml").replace("small", "large"))
    assert kubectl("delete", "-f", "-", stdin=SERVICE) == (
        'inferenceservice.wharfinger.io "assistant" deleted from default namespace\n'
    )
    assert "deleted" in kubectl("delete", "deploy", "made") and "deleted" in kubectl("delete", "jobs", "--all")
    assert "deleted" in kubectl("delete", "namespace", "made")


def test_dry_runs_and_strictness(kubectl: Kubectl) -> None:
    """--dry-run=server stores nothing; a misspelled field is an error unless --validate=warn."""
    assert "created (server dry run)" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=SERVICE)
    wrong = SERVICE + "  replicsa: 3\n"
    refused = kubectl.run("apply", "-f", "-", stdin=wrong)
    assert refused.returncode == 1 and 'unknown field "spec.replicsa"' in refused.stderr
    warned = kubectl.run("apply", "--validate=warn", "-f", "-", stdin=wrong)
    assert warned.returncode == 0 and 'Warning: unknown field "spec.replicsa"' in warned.stderr


def test_what_is_invalid_is_told_by_field(kubectl: Kubectl) -> None:
    """Every field that is wrong is named."""
    done = kubectl.run("apply", "-f", "-", stdin=SERVICE.replace("replicas: 1", "replicas: -1"))
    assert done.returncode == 1 and "spec.replicas: Invalid value: -1" in done.stderr
