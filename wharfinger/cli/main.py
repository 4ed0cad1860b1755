"""The command `wharf`: `wharf VERB NOUN [NAME]`, kubectl's flags, data on stdout, talk on stderr.

Exit codes: 0 yes, 1 no, 2 could not decide. Commands are loaded when they are called, so that `wharf --help`
costs what click costs.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from wharfinger.core.errors import WharfingerError

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("wharfinger.cli.platform", "Start the platform on this machine."),
    "down": ("wharfinger.cli.platform", "Stop the platform."),
    "status": ("wharfinger.cli.platform", "Show the platform's parts, endpoints and health."),
    "backup": ("wharfinger.cli.platform", "Write a backup of the running platform."),
    "restore": ("wharfinger.cli.platform", "Make a state directory from a backup."),
    "get": ("wharfinger.cli.get", "List or show objects, decisions or tokens."),
    "apply": ("wharfinger.cli.apply", "Apply the objects in a file."),
    "delete": ("wharfinger.cli.apply", "Delete objects."),
    "wait": ("wharfinger.cli.apply", "Wait until an object meets a condition."),
    "ask": ("wharfinger.cli.ask", "Ask a served model something, through the gateway."),
    "judge": ("wharfinger.cli.judge", "Ask whether a workload may use a model on a device for a caller."),
    "kubeconfig": ("wharfinger.cli.access", "Issue a person of a tenant a short-lived kubeconfig."),
    "apikey": ("wharfinger.cli.access", "Make an API key for the gateway that stands for a SPIFFE ID."),
    "token": ("wharfinger.cli.access", "Issue a person a short-lived JWT-SVID."),
    "revoke": ("wharfinger.cli.access", "Revoke what an identity was granted, at every door."),
    "push": ("wharfinger.cli.artifacts", "Push a dataset, a model or code to the registry."),
    "logs": ("wharfinger.cli.logs", "Show the log of a pod or of a part of the platform."),
    "bill": ("wharfinger.cli.evidence", "Show what each tenant used and owes."),
    "explain": ("wharfinger.cli.evidence", "Tell a decision in words."),
    "replay": ("wharfinger.cli.evidence", "Decide again on the same inputs."),
    "prove": ("wharfinger.cli.evidence", "Write a proof of a decision that verifies offline."),
    "trust-root": ("wharfinger.cli.evidence", "Write what a verifier must know beforehand."),
    "verify": ("wharfinger.cli.evidence", "Verify a proof against a trust root, offline."),
    "demo": ("wharfinger.cli.demo", "Run the whole story on this machine."),
}
"""Command to the module that holds it and the line that help shows."""


class _Lazy(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module = importlib.import_module(place[0])
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"unknown command {args[0]!r}{_did_you_mean(args[0])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _did_you_mean(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1)
    return f"\nhint: did you mean {near[0]!r}?" if near else ""


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="wharfinger")
def wharf() -> None:
    """Share GPUs by one decision: this identity, this signed model, this GPU, these callers."""


def main() -> None:
    """Run the command line; every error of ours is one line, a hint and an exit code."""
    try:
        # Outside its standalone mode click returns the code of an `Exit`, and a command's own result, which is None.
        sys.exit(wharf.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except WharfingerError as error:
        click.echo(f"error: {error}", err=True)
        for problem in error.fields if len(error.fields) > 1 else ():
            click.echo(f"  {problem}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
