"""What is generated from the code is what stands in the tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wharfinger.kinds.crd import definition, render
from wharfinger.kinds.kind import Kind
from wharfinger.kinds.registry import KINDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_a_definition_is_not_stale(kind: Kind) -> None:
    """The CRD in deploy/crds is the one that the code gives."""
    path = ROOT / "deploy" / "crds" / f"{kind.plural}.yaml"
    assert path.read_text(encoding="utf-8") == render(kind), "run `make generate`"
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == definition(kind)


def test_no_definition_without_a_kind() -> None:
    """A CRD whose kind is gone is gone too."""
    there = {path.stem for path in (ROOT / "deploy" / "crds").glob("*.yaml")}
    assert there == {kind.plural for kind in KINDS}


def test_every_field_is_described() -> None:
    """`kubectl explain` has words for every field of every kind."""

    def walk(schema: dict[str, object], where: str) -> None:
        for name, child in schema.get("properties", {}).items():  # type: ignore[attr-defined]
            assert child.get("description"), f"{where}.{name}"
            walk(child.get("items", child) if child.get("type") == "array" else child, f"{where}.{name}")

    for kind in KINDS:
        walk(kind.schema, kind.name)


def test_the_reference_is_not_stale() -> None:
    """docs/reference says what the code says."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "reference.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
