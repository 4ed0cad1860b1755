"""`wharf demo`: the whole story on this machine, a line a step, exit 0 only when every step held."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import click

from wharfinger.cli.options import output, show_json
from wharfinger.cli.story.stage import Stage, Step
from wharfinger.core.errors import Conflict, NotFound, WharfingerError

AGAIN: Final = ("swap", "doors")
"""Acts that change nothing, and so can be shown again on a platform that was kept."""


@click.command()
@click.option("--keep", is_flag=True, help="Leave the platform running, and say where it is.")
@click.option(
    "--dataset",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Your own texts. Default: the language reference that ships with CPython.",
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the platform keeps everything. Default: a new temporary directory.",
)
@click.option("--again", type=click.Choice(AGAIN), help="Show one act again on a kept platform (--state-dir).")
@output("json")
def demo(keep: bool, dataset: Path | None, state_dir: Path | None, again: str | None, output: str | None) -> None:
    """Run the whole story on this machine: from a dataset to a governed answer, and every way around refused."""
    began = time.monotonic()
    if again and state_dir is None:
        raise NotFound("expected the --state-dir of a kept platform", hint="wharf demo --keep says where it is")
    if state_dir is not None and not keep and not again:
        _is_ours_to_remove(state_dir)
    directory = state_dir.absolute() if state_dir else Path(tempfile.mkdtemp(prefix="wharfinger-demo-")) / "state"
    stage = Stage(directory, tell=_quiet if output == "json" else _line)
    problem: WharfingerError | None = None
    try:
        if again:
            stage.load()
            _act(stage, again)
        else:
            _story(stage, dataset, keep=keep)
    except WharfingerError as error:
        problem = error
        stage.check("story", "the story could not go on", "wharf demo", "every act told", str(error), ok=False)
    finally:
        if not keep and not again:
            _leave_nothing(stage, ours=state_dir is None)
    ok = all(step.ok for step in stage.steps) and bool(stage.steps)
    if output == "json":
        show_json({"ok": ok, "steps": [step.record() for step in stage.steps]})
    else:
        held = sum(step.ok for step in stage.steps)
        click.echo(f"{held} of {len(stage.steps)} steps held, in {time.monotonic() - began:.0f} s")
        if problem is not None and problem.hint:
            click.echo(f"hint: {problem.hint}", err=True)
        if keep:
            _where(directory)
    if not ok:
        raise click.exceptions.Exit(1)


def _story(stage: Stage, dataset: Path | None, *, keep: bool) -> None:
    from wharfinger.cli.story import line, opening, proof, refusals, revocation

    opening.tell(stage)
    line.tell(stage, dataset, _examples())
    refusals.tell(stage)
    stage.save()
    for act in AGAIN:
        _act(stage, act)
    proof.prepare(stage)
    revocation.tell(stage)
    if keep:
        proof.tell_running(stage)
    else:
        proof.tell(stage)


def _act(stage: Stage, name: str) -> None:
    from wharfinger.cli.story import doors, swap

    {"swap": swap.tell, "doors": doors.tell}[name](stage)


def _examples() -> Path:
    """Return the folder of the example steps, which stands beside the package in a checkout."""
    found = Path(__file__).resolve().parents[2] / "examples"
    if not (found / "train.py").is_file():
        raise NotFound("the example steps are not here", hint="run the demo from a checkout of the repository")
    return found


def _is_ours_to_remove(directory: Path) -> None:
    """Raise `Conflict` when `directory` holds something: the demo removes its state directory in the end."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(
            f"{directory} is not empty, and the demo would remove it in the end",
            hint="name a new directory, or keep everything with --keep",
        )


def _leave_nothing(stage: Stage, *, ours: bool) -> None:
    """Stop the platform and remove its state, which was not there before; `ours` says that its folder is the demo's."""
    from wharfinger.bootstrap import up

    try:
        up.stop(stage.directory)
    except WharfingerError as error:
        if not isinstance(error, Conflict):
            click.echo(f"stopping: {error}", err=True)
    for path in (stage.directory, stage.directory.with_name(stage.directory.name + ".moved")):
        shutil.rmtree(path, ignore_errors=True)
    if ours:
        shutil.rmtree(stage.directory.parent, ignore_errors=True)


def _where(directory: Path) -> None:
    from wharfinger.bootstrap.health import health

    found = health(directory)
    click.echo(f"the platform goes on running; its state is in {directory}")
    click.echo(f"  console     {found['endpoints'].get('console', '')}")
    click.echo(f"  kubeconfig  {found['kubeconfig']}")
    click.echo(f"  one act again: wharf demo --again swap --state-dir {directory}")
    click.echo(f"  stop it:       wharf down --state-dir {directory}")


def _line(step: Step) -> None:
    mark = "ok  " if step.ok else "FAIL"
    click.echo(f"{mark} {step.name:<22} {step.shown}")
    if not step.ok:
        click.echo(f"     expected {step.expected}\n     got      {step.got}\n     again:   {step.command}")


def _quiet(_: Step) -> None:
    """Say nothing while it goes on: the JSON at the end says all."""
