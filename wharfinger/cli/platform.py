"""`wharf up`, `down`, `status`, `backup`, `restore`: the platform on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wharfinger.cli.options import output, show_json, state_dir
from wharfinger.core.errors import Unavailable


@click.command()
@state_dir
@click.option("--detach", is_flag=True, help="Return when the platform is up; it goes on in the background.")
@click.option("--trust-domain", default="wharfinger.local", show_default=True, help="SPIFFE trust domain.")
@click.option(
    "--fleet",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Declared fleet, where there is no GPU. Default: real GPUs, else the shipped fleet.",
)
@click.option("--port", multiple=True, metavar="PART=PORT", help="Port of a part; may be given again.")
def up(state_dir: Path, detach: bool, trust_domain: str, fleet: Path | None, port: tuple[str, ...]) -> None:
    """Start the platform on this machine: API, identity, registry, node, control plane, gateway, console."""
    from wharfinger.bootstrap import state as states
    from wharfinger.bootstrap import up as supervisor

    ports = dict(map(states.parse_port, port))
    if detach:
        arguments = ["--trust-domain", trust_domain]
        arguments += ["--fleet", str(fleet.absolute())] if fleet else []
        arguments += [f"--port={told}" for told in port]
        supervisor.detach(state_dir, arguments)
        _where(state_dir)
        return
    supervisor.run(
        state_dir, trust_domain=trust_domain, fleet=fleet, ports=ports, say=_say, started=lambda _: _where(state_dir)
    )


@click.command()
@state_dir
def down(state_dir: Path) -> None:
    """Stop the platform; its state stays."""
    from wharfinger.bootstrap import up as supervisor

    if supervisor.stop(state_dir):
        click.echo("stopped", err=True)
    else:
        click.echo(f"no platform runs on {state_dir}", err=True)


@click.command()
@state_dir
@output("json")
def status(state_dir: Path, output: str | None) -> None:
    """Show the platform's parts, their endpoints and health. Exits 1 when a part is not healthy."""
    from wharfinger.bootstrap.health import health

    found = health(state_dir)
    if output == "json":
        show_json(found)
    else:
        _table(found)
    if not found["ok"]:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@state_dir
def backup(file: Path, state_dir: Path) -> None:
    """Write a backup of the platform, running or not, to FILE (a tar)."""
    from wharfinger.bootstrap.backup import write_backup

    size = write_backup(state_dir, file)
    click.echo(f"{file}: {size} bytes", err=True)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@state_dir
def restore(file: Path, state_dir: Path) -> None:
    """Make the state directory anew from the backup FILE; it must not exist yet, or be empty."""
    from wharfinger.bootstrap.backup import restore_backup

    restore_backup(file, state_dir)
    click.echo(f"restored to {state_dir}; start it with wharf up", err=True)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _where(directory: Path) -> None:
    from wharfinger.bootstrap.health import health

    found = health(directory)
    if not found["parts"]:
        raise Unavailable("the platform is not up")
    click.echo(f"kubeconfig  {found['kubeconfig']}")
    for name in ("api", "gateway", "registry", "console"):
        if name in found["endpoints"]:
            click.echo(f"{name:<11} {(name == 'console' and found['console']) or found['endpoints'][name]}")


def _table(found: dict[str, Any]) -> None:
    click.echo(f"{'PART':<10} {'READY':<6} {'PID':<8} {'RESTARTS':<9} ENDPOINT")
    for name, part in found["parts"].items():
        ready = "yes" if part["ready"] else "no"
        click.echo(f"{name:<10} {ready:<6} {part['pid']:<8} {part['restarts']:<9} {part['endpoint']}")
        if part.get("reason"):
            click.echo(f"  {part['reason']}", err=True)
    host = found["host"]
    if host:
        apart = "namespaces" if host["isolation"] == "namespaces" else f"none, {host['reason']}"
        doors = f"not enforced, {host['doors']}" if host["doors"] else "enforced"
        click.echo(f"isolation: {apart}; devices: {host['fleet']}, {doors}")
    if found["console"]:
        click.echo(f"console: {found['console']}", err=True)
    if not found["parts"]:
        click.echo(f"no platform runs on {found['stateDir']}", err=True)
