"""`wharf push`: a folder to the registry, and the object that names it to the API."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from wharfinger.cli.get import connect
from wharfinger.cli.options import namespace, output, show_json, state_dir
from wharfinger.cluster.client import Resource
from wharfinger.core.errors import Invalid, excerpt
from wharfinger.core.names import dns_subdomain

if TYPE_CHECKING:
    from wharfinger.supply.registry.client import RegistryClient

_MANAGER: Final = "wharf"
_RESOURCES: Final = {
    "dataset": Resource("wharfinger.io", "v1alpha1", "datasets", "Dataset"),
    "model": Resource("wharfinger.io", "v1alpha1", "models", "Model"),
}


@click.command()
@click.argument("noun", type=click.Choice(["dataset", "model", "code"]))
@click.argument("name")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, path_type=Path))
@namespace
@click.option("--source", default="", help="Where the data came from; of a dataset.")
@click.option("--license", "license_", default="", help="SPDX licence expression; of a dataset.")
@click.option("--purpose", default="", help="What the data may be used for; of a dataset.")
@output("json", "name")
@state_dir
def push(
    noun: str,
    name: str,
    folder: Path,
    namespace: str,
    source: str,
    license_: str,
    purpose: str,
    output: str | None,
    state_dir: Path,
) -> None:
    """Push the files of DIR to the registry, and apply the dataset or model NAME that names them by digest.

    Of code the reference alone is printed: it belongs into a PipelineRun. Pushes as KUBECONFIG says, else as the
    local admin.
    """
    from wharfinger.supply.artifact import push_folder, repository_of

    problems = dns_subdomain(name)
    if problems:
        raise Invalid(f"name {excerpt(name)}: {problems[0]}")
    said = {"source": source, "license": license_, "purpose": purpose}
    given = {field: value for field, value in said.items() if value}
    if given and noun != "dataset":
        raise Invalid(f"--{min(given)} is said of a dataset, not of {noun}")
    client = connect(state_dir)
    home = namespace or client.endpoint.namespace
    kind: Any = noun
    repository = repository_of(home, kind, name)
    with contextlib.closing(_registry(state_dir)) as registry, _progress() as (starting, progress):
        told: list[int] = []

        def begin(files: int, size: int) -> None:
            told.extend((files, size))
            starting(files, size)

        digest = push_folder(registry, repository, folder, kind, starting=begin, progress=progress)
    if noun in _RESOURCES:
        resource = _RESOURCES[noun]
        manifest = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": home},
            "spec": {"artifact": {"repository": repository, "digest": digest}, **given},
        }
        client.apply(resource, manifest, manager=_MANAGER)
    if output == "json":
        show_json(
            {"kind": noun, "name": name, "namespace": home, "repository": repository, "digest": digest,
             "files": told[0], "bytes": told[1]}
        )  # fmt: skip
    elif output == "name" or noun == "code":
        click.echo(f"{repository}@{digest}")
    else:
        click.echo(f"{noun}.wharfinger.io/{name} pushed: {told[0]} files, {told[1]} bytes, {digest}")


def _registry(directory: Path) -> RegistryClient:
    """Return a client of the platform's registry: as the person whom KUBECONFIG names, else as the admin."""
    from wharfinger.bootstrap.operations import port_of
    from wharfinger.bootstrap.state import State
    from wharfinger.cluster.endpoint import credentials
    from wharfinger.identity.source import from_pem
    from wharfinger.supply.registry.client import RegistryClient

    state = State(directory)
    kubeconfig = os.environ.get("KUBECONFIG")
    told = credentials(Path(kubeconfig) if kubeconfig else state.kubeconfig)
    source = from_pem(told.certificates, told.key, told.authorities)
    return RegistryClient("127.0.0.1", port_of(state, "registry"), source)


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[int, int], None], Callable[[int], None] | None]]:
    """Give what is told the size of the work and each step of it: a bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield (lambda files, size: None), None
        return
    with click.progressbar(length=1, label="pushing", file=sys.stderr) as bar:

        def starting(files: int, size: int) -> None:
            bar.length, bar.label = max(size, 1), f"pushing {files} files"

        yield starting, bar.update
