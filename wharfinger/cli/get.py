"""`wharf get`: objects as the API server prints them, decisions and tokens as the journals hold them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from wharfinger.cli.options import namespace, output, show_json, state_dir
from wharfinger.cluster.client import TABLE, Client, Resource
from wharfinger.cluster.endpoint import from_kubeconfig
from wharfinger.core.errors import Corrupt, Invalid, Malformed, NotFound, excerpt, plain


@click.command()
@click.argument("noun")
@click.argument("name", default="")
@namespace
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("-l", "--selector", default="", help="Label selector.")
@click.option("-w", "--watch", is_flag=True, help="Go on showing changes.")
@output("json", "yaml", "wide", "name")
@click.option("--no-headers", is_flag=True, help="Rows alone.")
@state_dir
def get(
    noun: str,
    name: str,
    namespace: str,
    all_namespaces: bool,
    selector: str,
    watch: bool,
    output: str | None,
    no_headers: bool,
    state_dir: Path,
) -> None:
    """List or show objects (models, inferenceservices, pods, ...), decisions or tokens.

    NOUN is a kind, its plural or short name, or a category (`wharfinger`: all of ours); `decisions` and `tokens` come
    from the journals.
    """
    if noun in ("decisions", "decision", "tokens"):
        _records(state_dir, noun, name, output)
        return
    client = connect(state_dir)
    kinds = list(_resources(client))
    several = [resource for resource, names in kinds if noun.lower() in names.categories]
    if len(several) > 1:
        if name or watch or output in ("json", "yaml"):
            raise Invalid(f"{excerpt(noun)} names {len(several)} kinds: expected no NAME, -w or -o {output or 'json'}")
        _overview(client, several, namespace, all_namespaces, selector, output)
        return
    resource = _named(kinds, noun)
    where = "" if all_namespaces or not resource.namespaced else namespace or client.endpoint.namespace
    if name and all_namespaces:
        raise Invalid("expected a NAME or --all-namespaces, got both")
    if output in ("json", "yaml", "name"):
        found = client.get(resource, where, name) if name else client.list(resource, where, labels=selector, limit=500)
        _print(found, resource, output)
        return
    if name:
        table = client.get(resource, where, name, accept=TABLE)
    else:
        table = client.list(resource, where, labels=selector, limit=500, accept=TABLE)
    if not table.get("rows"):
        click.echo(f"No {resource.plural} found{f' in {where}' if where else ''}.", err=True)
        no_headers = True
    for line in rows(table, wide=output == "wide", headers=not no_headers, namespaces=all_namespaces):
        click.echo(line)
    if watch:
        _watch(client, resource, where, name, selector, table, wide=output == "wide", namespaces=all_namespaces)


def connect(directory: Path) -> Client:
    """Return a client for KUBECONFIG, when it is set, else for the platform on `directory`."""
    told = os.environ.get("KUBECONFIG")
    return Client(from_kubeconfig(Path(told) if told else directory / "kubeconfig"))


@dataclass(frozen=True, slots=True)
class _Names:
    """What a kind may be called, and the categories that it is in."""

    words: frozenset[str]
    categories: frozenset[str]


def find(client: Client, noun: str) -> Resource:
    """Return the resource that `noun` (kind, plural, singular or short name) names. Raises `NotFound`."""
    return _named(_resources(client), noun)


def _named(kinds: Iterable[tuple[Resource, _Names]], noun: str) -> Resource:
    word, _, group = noun.lower().partition(".")
    for resource, names in kinds:
        if word in names.words and (not group or resource.group.startswith(group)):
            return resource
    raise NotFound(f"the API has no resource {excerpt(noun)}", hint="kubectl api-resources lists them")


def _overview(
    client: Client,
    several: list[Resource],
    namespace: str,
    all_namespaces: bool,
    selector: str,
    output: str | None,
) -> None:
    """Show a table per kind that has objects."""
    for resource in several:
        where = "" if all_namespaces or not resource.namespaced else namespace or client.endpoint.namespace
        if output == "name":
            _print(client.list(resource, where, labels=selector, limit=500), resource, "name")
            continue
        table = client.list(resource, where, labels=selector, limit=500, accept=TABLE)
        if table.get("rows"):
            click.echo(f"{resource.plural}:")
            spaces = all_namespaces and resource.namespaced
            for line in rows(table, wide=output == "wide", headers=True, namespaces=spaces):
                click.echo(f"  {line}")


def _resources(client: Client) -> Iterator[tuple[Resource, _Names]]:
    """Yield every kind that the API serves."""
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    for path in ("/apis", "/api"):
        status, data = client.raw("GET", path, accept=accept)
        if status >= 400:
            continue
        for group in json.loads(data).get("items") or ():
            for version in group.get("versions") or ():
                for entry in version.get("resources") or ():
                    kind, plural = entry["responseKind"]["kind"], entry["resource"]
                    words = {plural, kind.lower(), entry.get("singularResource", ""), *(entry.get("shortNames") or ())}
                    yield (
                        Resource(
                            group["metadata"].get("name", ""),
                            version["version"],
                            plural,
                            kind,
                            entry["scope"] == "Namespaced",
                        ),
                        _Names(frozenset(words), frozenset(entry.get("categories") or ())),
                    )


def rows(table: Mapping[str, Any], *, wide: bool, headers: bool, namespaces: bool) -> Iterator[str]:
    """Yield the lines of a Table (meta.k8s.io/v1), columns as wide as their widest cell."""
    columns = [(i, c) for i, c in enumerate(table["columnDefinitions"]) if wide or not c.get("priority")]
    lines = [[c["name"].upper() for _, c in columns]] if headers else []
    for row in table.get("rows") or ():
        lines.append([_cell(row["cells"][i]) for i, _ in columns])
    if namespaces:
        spaces = [(row.get("object") or {}).get("metadata", {}).get("namespace", "") for row in table.get("rows") or ()]
        for line, space in zip(lines, ["NAMESPACE", *spaces] if headers else spaces, strict=True):
            line.insert(0, space)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)] if lines else []
    for line in lines:
        yield "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    if value is None:
        return "<none>"
    if isinstance(value, dict | list):
        return json.dumps(value)
    return plain(str(value))


def _print(found: Mapping[str, Any], resource: Resource, output: str) -> None:
    if output == "json":
        show_json(found)
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(dict(found), sort_keys=False, allow_unicode=True), nl=False)
    else:
        suffix = f".{resource.group}" if resource.group else ""
        for item in found.get("items", [found]):
            click.echo(f"{resource.kind.lower()}{suffix}/{item['metadata']['name']}")


def _watch(
    client: Client,
    resource: Resource,
    where: str,
    name: str,
    selector: str,
    table: Mapping[str, Any],
    *,
    wide: bool,
    namespaces: bool,
) -> None:
    version = str(table["metadata"].get("resourceVersion", ""))
    fields = f"metadata.name={name}" if name else ""
    for event in client.watch(resource, where, resource_version=version, labels=selector, fields=fields):
        if event.type == "BOOKMARK":
            continue
        meta = event.object["metadata"]
        shown = client.list(resource, meta.get("namespace", ""), fields=f"metadata.name={meta['name']}", accept=TABLE)
        for line in rows(shown, wide=wide, headers=False, namespaces=namespaces):
            click.echo(line)
        if event.type == "DELETED":
            click.echo(f"{meta['name']} deleted")


def _records(directory: Path, noun: str, name: str, output: str | None) -> None:
    from wharfinger.policy.journal import is_pods, journals, read

    kind = "tokens" if noun == "tokens" else "decision"
    found: list[dict[str, Any]] = []
    evidence = directory / "evidence"
    for part in journals(evidence) if evidence.is_dir() else ():
        try:
            told = [r for r in read(part) if r.get("kind") == kind and (not name or r.get("id") == name)]
            found += [r for r in told if not is_pods(part) or _of_runtime(r)]
        except Corrupt as error:
            if not is_pods(part):
                raise
            click.echo(f"warning: {error}", err=True)
    found.sort(key=lambda record: str(record.get("at")))
    if name and not found:
        raise NotFound(f"no decision {excerpt(name)}")
    if output in ("json", "yaml"):
        show_json({"items": found} if not name else found[0])
        return
    for record in found:
        if output == "name":
            click.echo(plain(f"{kind}/{record.get('id')}"))
        elif kind == "decision":
            verdict = "allow" if record["allowed"] else "deny "
            line = f"{record['at'][:19]}Z  {verdict}  {record['id']}  {record['verb']:<6} {record['who']}"
            click.echo(plain(line))
            if output == "wide" or not record["allowed"]:
                click.echo(plain(f"    {record['what']}: {record['reason']}"))
        else:
            click.echo(json.dumps(record))


def _of_runtime(record: Mapping[str, Any]) -> bool:
    """Say whether a record of a pod's journal is a runtime's decision: the pod is believed for nothing else."""
    from wharfinger.policy.decision import from_record
    from wharfinger.policy.journal import RUNTIME

    try:
        return from_record(record).part == RUNTIME
    except (Corrupt, Malformed):
        return False
