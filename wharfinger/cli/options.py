"""Options that many commands share, spelled as kubectl spells them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wharfinger.bootstrap.state import State, default_directory

F = TypeVar("F", bound=Callable[..., Any])


def state_dir(command: F) -> F:
    """Add `--state-dir`, which also comes from WHARF_STATE_DIR; the command gets an absolute `state_dir`."""
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=lambda: default_directory(os.environ),
        show_default="$WHARF_STATE_DIR, else below the XDG state home",
        help="Where the platform keeps everything.",
        callback=lambda _context, _option, value: value.absolute(),
    )(command)


def output(*forms: str) -> Callable[[F], F]:
    """Add `-o` with these `forms`; without it the command gets the empty string."""

    def add(command: F) -> F:
        return click.option("-o", "--output", type=click.Choice(forms), default=None, help="Form of the output.")(
            command
        )

    return add


def namespace(command: F) -> F:
    """Add `-n`."""
    return click.option("-n", "--namespace", default="", help="Namespace.")(command)


def show_json(value: object) -> None:
    """Write `value` to stdout as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def state_of(directory: Path) -> State:
    """Return the state directory; whether there is one is checked where it is used."""
    return State(directory)
