"""`wharf get`: kinds by any of their names, categories, and what is printed, against the local API server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from local_api import LocalApi

from wharfinger.cli import get as module
from wharfinger.cluster.client import Resource
from wharfinger.core.errors import Invalid, NotFound
from wharfinger.policy.journal import Journal

TENANTS = Resource("wharfinger.io", "v1alpha1", "tenants", "Tenant", namespaced=False)
CONFIGS = Resource("", "v1", "configmaps", "ConfigMap")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalApi]:
    """A server with two tenants and a ConfigMap."""
    made = LocalApi(tmp_path_factory.mktemp("api") / "objects.db").start()
    client = made.client()
    for name in ("blue", "red"):
        tenant = {"metadata": {"name": name}, "spec": {"namespaces": [name]}}
        client.create(TENANTS, {"apiVersion": TENANTS.api_version, "kind": "Tenant", **tenant})
    metadata = {"name": "c", "namespace": "default"}
    client.create(CONFIGS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    yield made
    made.stop()


@pytest.fixture
def run(server: LocalApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs `wharf get`."""
    monkeypatch.setattr(module, "connect", lambda _directory: server.client())
    return lambda *words: CliRunner().invoke(module.get, [*words, "--state-dir", str(tmp_path)])


@pytest.mark.parametrize("noun", ["tenants", "tenant", "Tenant", "tn", "tenants.wharfinger.io"])
def test_a_kind_is_known_by_all_its_names(run: Callable[..., Result], noun: str) -> None:
    """Plural, singular, kind, short name, with its group or without."""
    assert [line.split()[0] for line in run(noun).stdout.splitlines()] == ["NAME", "blue", "red"]


def test_a_category_shows_a_table_per_kind_that_has_objects(run: Callable[..., Result]) -> None:
    """`wharfinger` are all kinds of ours; those without objects are left out."""
    assert run("wharfinger").stdout.splitlines()[0] == "tenants:"
    assert run("wharfinger", "-A", "-o", "name").stdout.split() == [
        f"tenant.wharfinger.io/{n}" for n in ("blue", "red")
    ]
    assert isinstance(run("wharfinger", "blue").exception, Invalid)


def test_nothing_found_is_told_on_stderr_alone(run: Callable[..., Result]) -> None:
    """A script that reads stdout reads nothing, not a line of headings."""
    done = run("models", "-A")
    assert (done.stdout, done.exit_code) == ("", 0)
    assert "No models found" in done.stderr


def test_output_forms_agree(run: Callable[..., Result]) -> None:
    """JSON, YAML and names speak of the same objects; one object by name is itself, not a list."""
    listed = json.loads(run("tenants", "-o", "json").stdout)
    assert [o["metadata"]["name"] for o in listed["items"]] == ["blue", "red"]
    assert yaml.safe_load(run("tenants", "-o", "yaml").stdout) == listed
    assert json.loads(run("tenant", "blue", "-o", "json").stdout)["kind"] == "Tenant"
    assert run("configmaps", "-o", "name").stdout == "configmap/c\n"
    assert "NAMESPACE" in run("configmaps", "-A").stdout.splitlines()[0]


def test_an_unknown_kind_is_named(run: Callable[..., Result]) -> None:
    """The error names the word, and the hint where to look."""
    error = run("boats").exception
    assert isinstance(error, NotFound)
    assert "boats" in error.message


def test_what_a_tenant_wrote_steers_no_terminal() -> None:
    """A cell is one line without control characters, whatever a pod left as its last words."""
    columns = [{"name": "Name"}, {"name": "Reason"}]
    table = {"columnDefinitions": columns, "rows": [{"cells": ["a", "\x1b[2J\nforged \u202e"]}]}
    shown = list(module.rows(table, wide=False, headers=False, namespaces=False))
    assert shown == ["a   \\x1b[2J\\nforged \\u202e"]


def test_a_pods_journal_is_believed_for_its_runtimes_decisions_alone(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    """What a pod says in the name of a part, of tokens, or in another form is not shown; its words stay on a line."""
    fields = {"rule": "r", "reason": "no\nforged", "element": "", "verb": "call", "what": "w", "tenant": "t"}
    record = {"kind": "decision", "id": "true", "part": "runtime", "who": "w", "allowed": False, "inputs": {}, **fields}
    record["at"] = "2027-01-15T08:00:00Z"
    journal = Journal(tmp_path / "evidence" / "pod-1")
    journal.append(record)
    journal.append({**record, "id": "lie", "part": "gateway"})
    journal.append({"kind": "decision", "id": "broken"})
    journal.append({"kind": "tokens", "id": "lie"})
    journal.close()
    lines = run("decisions").stdout.splitlines()
    assert lines == ["2027-01-15T08:00:00Z  deny   true  call   w", "    w: no\\nforged"]
    assert run("tokens").stdout == ""
