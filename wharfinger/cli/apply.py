"""`wharf apply`, `delete`, `wait`: change objects and see them become so, where there is no kubectl."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import click

from wharfinger.cli.get import connect, find
from wharfinger.cli.options import namespace, output, show_json, state_dir
from wharfinger.cluster.client import Client, Resource
from wharfinger.core.clock import SECOND, Span
from wharfinger.core.errors import Invalid, Malformed, NotFound, Unavailable, excerpt
from wharfinger.core.systemclock import SystemClock

_MANAGER = "wharf"
_UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}


@click.command()
@click.option(
    "-f", "--filename", required=True, type=click.File("r", encoding="utf-8"), help="YAML or JSON; - is stdin."
)
@namespace
@click.option("--dry-run", is_flag=True, help="Have the server judge it, and store nothing.")
@click.option("--force-conflicts", is_flag=True, help="Take fields over that others own.")
@output("json", "name")
@state_dir
def apply(
    filename: IO[str], namespace: str, dry_run: bool, force_conflicts: bool, output: str | None, state_dir: Path
) -> None:
    """Apply the objects in a file, as `kubectl apply --server-side` does."""
    client = connect(state_dir)
    applied = []
    for manifest in documents(filename.read()):
        resource = _kind_of(client, manifest)
        if resource.namespaced:
            meta = manifest["metadata"]
            meta.setdefault("namespace", namespace or client.endpoint.namespace)
        applied.append(client.apply(resource, manifest, manager=_MANAGER, force=force_conflicts, dry_run=dry_run))
        if output != "json":
            name = _name(resource, manifest)
            click.echo(name if output == "name" else f"{name} applied{' (dry run)' if dry_run else ''}")
    if output == "json":
        show_json(applied[0] if len(applied) == 1 else {"apiVersion": "v1", "kind": "List", "items": applied})


@click.command()
@click.argument("noun", default="")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-f", "--filename", type=click.File("r", encoding="utf-8"), help="Delete the objects that a file names.")
@namespace
@state_dir
def delete(noun: str, names: tuple[str, ...], filename: IO[str] | None, namespace: str, state_dir: Path) -> None:
    """Delete objects by kind and NAME, or those that a file names."""
    client = connect(state_dir)
    if filename is not None:
        targets = [(_kind_of(client, m), m) for m in documents(filename.read())]
    elif noun and names:
        resource = find(client, noun)
        targets = [(resource, {"metadata": {"name": name}}) for name in names]
    else:
        raise Invalid("expected NOUN NAME, or -f FILE", hint="wharf delete model NAME -n NAMESPACE")
    for resource, manifest in targets:
        meta = manifest["metadata"]
        where = (meta.get("namespace") or namespace or client.endpoint.namespace) if resource.namespaced else ""
        client.delete(resource, where, meta["name"])
        click.echo(f"{_name(resource, manifest)} deleted")


@click.command()
@click.argument("noun")
@click.argument("name")
@click.option(
    "--for", "wanted", default="condition=Ready", show_default=True, help="condition=TYPE[=STATUS], or delete."
)
@click.option("--timeout", default="60s", show_default=True, help="How long: 30s, 5m.")
@namespace
@state_dir
def wait(noun: str, name: str, wanted: str, timeout: str, namespace: str, state_dir: Path) -> None:
    """Wait until an object meets a condition, or is gone. Exits 2 when it does not in time."""
    client = connect(state_dir)
    resource = find(client, noun)
    where = (namespace or client.endpoint.namespace) if resource.namespaced else ""
    last = until(client, resource, where, name, wanted, parse_span(timeout))
    if last:
        raise Unavailable(f"{resource.plural} {name}: {last}", hint=f"wharf get {resource.plural} {name} -o yaml")
    click.echo(f"{_name(resource, {'metadata': {'name': name}})} {'gone' if wanted == 'delete' else 'condition met'}")


def until(client: Client, resource: Resource, where: str, name: str, wanted: str, within: Span) -> str:
    """Watch one object until it meets `wanted`; return "" when it does, what is the case when it does not `within`.

    Raises `Invalid` when `wanted` is neither `delete` nor `condition=TYPE[=STATUS]`.
    """
    kind, _, condition = wanted.partition("=")
    if wanted != "delete" and (kind != "condition" or not condition):
        raise Invalid(f"expected --for condition=TYPE[=STATUS] or --for delete, got {excerpt(wanted)}")
    clock = SystemClock()
    deadline = clock.monotonic() + within
    told = "not there"
    while (left := deadline - clock.monotonic()) > 0:
        try:
            version, told = _look(client, resource, where, name, condition)
        except NotFound:
            version, told = "", "" if wanted == "delete" else "not there"
        if not told:
            return ""
        if not version:
            version = client.list(resource, where, fields=f"metadata.name={name}")["metadata"]["resourceVersion"]
        seconds = max(1, min(30, -(-left // SECOND)))
        for event in client.watch(
            resource, where, resource_version=version, fields=f"metadata.name={name}", timeout_seconds=seconds
        ):
            if event.type != "BOOKMARK":
                break
    return told


def _look(client: Client, resource: Resource, where: str, name: str, condition: str) -> tuple[str, str]:
    """Return the object's version and what is missing, "" when nothing is."""
    found = client.get(resource, where, name)
    version = found["metadata"]["resourceVersion"]
    if not condition:
        return version, "still there"
    kind, _, status = condition.partition("=")
    for entry in found.get("status", {}).get("conditions") or ():
        if entry["type"].lower() == kind.lower():
            current = entry.get("observedGeneration") in (None, found["metadata"].get("generation"))
            if current and entry["status"].lower() == (status or "True").lower():
                return version, ""
            return version, f"{entry['type']} is {entry['status']}: {entry.get('message') or entry.get('reason')}"
    return version, f"it has no condition {kind} yet"


def documents(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a YAML or JSON text, those of a List one by one. Raises `Malformed`."""
    import yaml

    try:
        loaded = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise Malformed(f"expected YAML or JSON: {excerpt(str(error), 300)}") from error
    for index, document in enumerate(loaded):
        if document is None:
            continue
        for manifest in document.get("items", [document]) if isinstance(document, dict) else [document]:
            named = isinstance(manifest, dict) and isinstance(manifest.get("metadata"), dict)
            if not named or not all(isinstance(manifest.get(f), str) for f in ("apiVersion", "kind")):
                wanted = "an object with apiVersion, kind and metadata"
                raise Malformed(f"document {index + 1}: expected {wanted}, got {excerpt(manifest)}")
            yield manifest


def parse_span(text: str) -> Span:
    """Return the length of time that `text`, a number and s, m or h, names. Raises `Invalid`."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit()):
        raise Invalid(f"expected a time such as 30s, 5m or 1h, got {excerpt(text)}")
    return int(number) * _UNITS[unit]


def _kind_of(client: Client, manifest: Mapping[str, Any]) -> Resource:
    group, _, version = manifest["apiVersion"].rpartition("/")
    resource = find(client, f"{manifest['kind']}.{group}" if group else manifest["kind"])
    if (resource.group, resource.version) != (group, version):
        raise NotFound(f"the API has no {manifest['kind']} of {excerpt(manifest['apiVersion'])}")
    return resource


def _name(resource: Resource, manifest: Mapping[str, Any]) -> str:
    suffix = f".{resource.group}" if resource.group else ""
    return f"{resource.kind.lower()}{suffix}/{manifest['metadata']['name']}"
