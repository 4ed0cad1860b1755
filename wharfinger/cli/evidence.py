"""`wharf explain`, `replay`, `prove`, `verify`, `trust-root`, `bill`: what was decided, and the proof of it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from wharfinger.cli.options import output, show_json, state_dir
from wharfinger.core.errors import plain


@click.command()
@click.argument("noun", type=click.Choice(["decision"]))
@click.argument("identifier", metavar="ID")
@state_dir
@output("json")
def explain(noun: str, identifier: str, state_dir: Path, output: str | None) -> None:
    """Tell a decision in words: who wanted what, what was decided, and why."""
    from wharfinger.govern.explanation import explain as tell
    from wharfinger.policy.decision import from_record
    from wharfinger.policy.journal import find

    record, inputs = find(state_dir / "evidence", identifier)
    if output == "json":
        show_json({"decision": record, "inputs": inputs})
        return
    for line in tell(from_record(record), inputs):
        click.echo(plain(line))


@click.command()
@click.argument("noun", type=click.Choice(["decision"]))
@click.argument("identifier", metavar="ID")
@state_dir
@output("json")
def replay(noun: str, identifier: str, state_dir: Path, output: str | None) -> None:
    """Decide again on the inputs that were stored. Exits 1 when the verdict is another."""
    from wharfinger.govern.replay import replay as again
    from wharfinger.policy.decision import from_record
    from wharfinger.policy.journal import find

    record, inputs = find(state_dir / "evidence", identifier)
    verdict = again(from_record(record), inputs)
    if output == "json":
        show_json({"id": identifier, "same": True, "allowed": verdict.allowed, "reason": verdict.reason})
    else:
        click.echo(f"same verdict: {'allow' if verdict.allowed else 'deny'}: {plain(verdict.reason)}")


@click.command()
@click.argument("identifier", metavar="DECISION")
@state_dir
def prove(identifier: str, state_dir: Path) -> None:
    """Write a proof of DECISION to stdout: a tar that `wharf verify` checks with no platform and no network."""
    from wharfinger.bootstrap.operations import request

    data = request(state_dir, "control", "POST", f"/v1/proofs/{identifier}")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@click.command("trust-root")
@state_dir
def trust_root(state_dir: Path) -> None:
    """Write what a verifier must know beforehand to stdout: trust domain, authorities, the log's key."""
    from wharfinger.bootstrap.operations import request

    click.echo(request(state_dir, "control", "GET", "/v1/trust-root").decode(), nl=False)


@click.command()
@click.argument("proof", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--trust-root",
    "root",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `wharf trust-root` wrote before.",
)
@output("json")
def verify(proof: Path, root: Path, output: str | None) -> None:
    """Verify a proof offline: names who, what, which silicon, which caller, which policy. Exits 1 on a broken link."""
    from wharfinger.govern.proof import verify as check

    shown = check(proof.read_bytes(), root.read_bytes())
    if output == "json":
        show_json(shown.facts())
        return
    for line in shown.words():
        click.echo(plain(line))


@click.command()
@state_dir
@output("json")
def bill(state_dir: Path, output: str | None) -> None:
    """Show what each tenant used and owes."""
    from wharfinger.bootstrap.billing import bills

    found = bills(state_dir)
    if output == "json":
        show_json(found)
        return
    click.echo(f"{'TENANT':<16} {'TOKENS':>12} {'GPU HOURS':>12} {'AMOUNT':>14}")
    for line in found["tenants"]:
        amount = f"{line['amount']} {line['currency']}"
        click.echo(f"{line['tenant']:<16} {line['tokens']:>12} {line['gpuHours']:>12} {amount:>14}")
