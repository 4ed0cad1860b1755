"""`wharf logs`: what a pod's container said, or a part of the platform."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from wharfinger.cli.options import namespace, state_dir, state_of
from wharfinger.core.errors import Invalid, NotFound, excerpt

_LOOK_EVERY = 0.2
_CHUNK = 64 * 1024


@click.command()
@click.argument("pod", default="")
@namespace
@click.option("-c", "--container", default="", help="Container of the pod; its first when not given.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what comes.")
@click.option("-p", "--previous", is_flag=True, help="Of the container's run before this one.")
@click.option("--tail", type=click.IntRange(min=0), default=None, help="The last lines alone.")
@click.option("--since", type=click.IntRange(min=1), default=None, help="Of the last seconds alone.")
@click.option("--timestamps", is_flag=True, help="With the time of each line.")
@click.option("--part", default="", help="Of a part of the platform instead (issuer, api, node, ...).")
@state_dir
def logs(
    pod: str,
    namespace: str,
    container: str,
    follow: bool,
    previous: bool,
    tail: int | None,
    since: int | None,
    timestamps: bool,
    part: str,
    state_dir: Path,
) -> None:
    """Show the log of POD, or with --part of a part of the platform."""
    if bool(pod) == bool(part):
        raise Invalid("expected a POD or --part, one of them")
    if part:
        if container or previous or since is not None or timestamps or namespace:
            raise Invalid("expected --part with -f and --tail alone")
        pieces = of_part(state_of(state_dir).logs, part, follow=follow, tail=tail)
    else:
        query: dict[str, object] = {
            "container": container,
            "follow": _word(follow),
            "previous": _word(previous),
            "timestamps": _word(timestamps),
            "tailLines": "" if tail is None else tail,
            "sinceSeconds": "" if since is None else since,
        }
        pieces = of_pod(state_dir, namespace, pod, query)
    try:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


def of_pod(directory: Path, namespace: str, name: str, query: dict[str, object]) -> Iterator[bytes]:
    """Yield the log of a pod as it comes. Raises the error family."""
    from wharfinger.cli.get import connect
    from wharfinger.cluster.client import Resource

    client = connect(directory)
    pods = Resource("", "v1", "pods", "Pod")
    yield from client.log(pods, namespace or client.endpoint.namespace, name.removeprefix("pod/"), query=query)


def of_part(folder: Path, part: str, *, follow: bool = False, tail: int | None = None) -> Iterator[bytes]:
    """Yield the log of a part below `folder`. Raises `NotFound`, naming those there are."""
    path = folder / f"{part}.log"
    if not part.isidentifier() or not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.log")))
        raise NotFound(f"no part {excerpt(part)} has a log in {folder}", hint=f"parts: {known}" if known else "")
    with path.open("rb") as log:
        if tail is None:
            while piece := log.read(_CHUNK):
                yield piece
        else:
            lines: list[bytes] = []
            for line in log:
                lines.append(line)
                del lines[: max(0, len(lines) - tail)]
            yield b"".join(lines)
        while follow:
            piece = log.read(_CHUNK)
            if piece:
                yield piece
            else:
                time.sleep(_LOOK_EVERY)


def _word(flag: bool) -> str:
    return "true" if flag else ""
