"""CustomResourceDefinitions, generated from the kinds: what a cluster is given, and what the tests compare with.

`python -m wharfinger.kinds.crd FOLDER` writes one file per kind; a test fails when a file there is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from wharfinger.kinds.kind import Kind, Schema
from wharfinger.kinds.registry import KINDS


def definition(kind: Kind) -> dict[str, Any]:
    """Return the apiextensions.k8s.io/v1 CustomResourceDefinition of `kind`."""
    subresources: dict[str, Any] = {}
    if kind.status:
        subresources["status"] = {}
    if kind.scale is not None:
        subresources["scale"] = {
            "specReplicasPath": kind.scale.spec_replicas,
            "statusReplicasPath": kind.scale.status_replicas,
            "labelSelectorPath": kind.scale.label_selector,
        }
    version: dict[str, Any] = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _without_metadata(kind.schema)},
        "subresources": subresources,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": f".{path}"} for path in kind.selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.resource},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": kind.list_name,
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short_names),
                "categories": list(kind.categories),
            },
            "versions": [version],
        },
    }


def _without_metadata(schema: Schema) -> Schema:
    """Return the schema with nothing said of metadata but its type: the rest is Kubernetes' (apiextensions/v1)."""
    return {**schema, "properties": {**schema["properties"], "metadata": {"type": "object"}}}


def render(kind: Kind) -> str:
    """Return the definition of `kind` as the text of its file."""
    body = yaml.safe_dump(definition(kind), sort_keys=False, width=110, allow_unicode=True)
    return f"# Generated from wharfinger/kinds/{kind.singular}.py by `make generate`; edits here are lost.\n{body}"


def _column(column: Any) -> dict[str, Any]:
    made = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.priority:
        made["priority"] = column.priority
    if column.format:
        made["format"] = column.format
    if column.description:
        made["description"] = column.description
    return made


def main(arguments: list[str]) -> None:
    """Write every definition below the folder that the one argument names."""
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (folder / f"{kind.plural}.yaml").write_text(render(kind), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
