"""`wharf judge`: put one use to the gateway's doorkeeper, as `kubectl auth can-i` puts a verb to the API."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wharfinger.cli.options import output, show_json, state_dir


@click.command()
@click.option("--workload", required=True, help="SPIFFE ID of the workload.")
@click.option("--artifact", required=True, help="Digest of the model.")
@click.option("--device", default=None, help="UUID of the GPU or slice.")
@click.option("--caller", required=True, help="SPIFFE ID of the caller.")
@output("json")
@state_dir
def judge(workload: str, artifact: str, device: str | None, caller: str, output: str | None, state_dir: Path) -> None:
    """Ask whether WORKLOAD may use ARTIFACT on DEVICE for CALLER under the grants of now. Exits 1 for a no.

    The decision is stored like any other: explain and replay it.
    """
    from wharfinger.bootstrap.operations import request

    asked = {"workload": workload, "artifact": artifact, "device": device, "caller": caller}
    told = json.loads(request(state_dir, "gateway", "POST", "/admin/judgements", asked))
    if output == "json":
        show_json(told)
    else:
        click.echo(f"{'yes' if told['allowed'] else 'no'}: {told['reason']}")
        click.echo(f"decision {told['decision']}", err=True)
    if not told["allowed"]:
        raise click.exceptions.Exit(1)
