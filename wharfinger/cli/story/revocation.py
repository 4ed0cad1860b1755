"""Act 5, live revocation: in the middle of a stream every door closes, and the neighbour notices nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from wharfinger.bootstrap.apiclient import RESOURCES
from wharfinger.cli.ask import Reply, question, token_of
from wharfinger.cli.story import manifests
from wharfinger.cli.story.line import QUESTION, granted, runtime
from wharfinger.cli.story.manifests import RESEARCH
from wharfinger.cli.story.stage import Stage, condition_of, short
from wharfinger.cli.story.swap import attempts
from wharfinger.core.errors import NotFound, WharfingerError

_SERVICE: Final = "courier"
_WITHIN_SECONDS: Final = 1.0
"""How soon after `wharf revoke` has returned a stream under way has ended."""


@dataclass(slots=True)
class _Streaming:
    """A stream that runs in a thread; `ended` is when it did."""

    thread: threading.Thread
    reply: Reply | None = None
    ended: float = 0.0


def tell(stage: Stage) -> None:
    """Tell the act. Raises the error family when the story cannot go on."""
    domain = stage.facts["trustDomain"]
    workload = manifests.workload(domain, RESEARCH, _SERVICE)
    callers = [manifests.person(domain, RESEARCH, "carol")]
    made = manifests.service(_SERVICE, next(iter(stage.facts["models"])), callers, runtime=runtime(stage))
    stage.apply("courier.yaml", manifests.text([manifests.account(_SERVICE, RESEARCH), made]))
    stage.until("service courier", lambda: _serves(stage))
    spec = stage.until("grant of courier", lambda: granted(stage, _SERVICE))[0]["spec"]
    stage.until("tries of courier", lambda: ("self", "nodes") in attempts(stage, spec["pod"]))
    stream = _start(stage, _SERVICE, "carol", 6000)
    neighbour = _start(stage, "librarian", "bob", 1500)
    stage.until("both streams to flow", lambda: stream.thread.is_alive() and neighbour.thread.is_alive(), 10)
    time.sleep(1.5)
    ran = stage.run("revoke", workload, "--reason", "the story says so")
    revoked = time.monotonic()
    tried = _tries_after(stage, spec["pod"])
    stream.thread.join(30)
    cut = stream.reply
    late = max(0.0, stream.ended - revoked)
    stage.check(
        "revoked/stream",
        f"cut in the middle, {late:.1f} s after the command returned: {short(cut.error if cut else '', 80)}",
        ran.command,
        "the stream is cut within a second",
        f"cut: {cut.cut if cut else 'it goes on'}, {cut.pieces if cut else 0} pieces, after {late:.1f} s",
        ok=cut is not None and cut.cut and cut.pieces > 0 and late <= _WITHIN_SECONDS,
        decision=cut.decision if cut else "",
    )
    gone = _goes(stage, spec["pod"])
    _doors(stage, tried, spec, ran.command, gone=gone)
    stage.check(
        "revoked/pod",
        "its pod goes",
        f"wharf get pods -n {RESEARCH}",
        "gone",
        "gone" if gone else "there",
        ok=gone,
    )
    neighbour.thread.join(60)
    other = neighbour.reply
    still = granted(stage, "librarian")
    stage.check(
        "revoked/neighbour",
        "the neighbour's stream flowed on past it and ended whole, its grant stands",
        f"wharf get grants -n {RESEARCH}",
        "a whole answer that ended later, one grant",
        f"whole: {bool(other and other.ok)}, {neighbour.ended - revoked:.1f} s later, {len(still)} grant",
        ok=bool(other and other.ok) and neighbour.ended > revoked and len(still) == 1,
    )


def _doors(
    stage: Stage, tried: dict[tuple[str, str], str], spec: dict[str, object], command: str, *, gone: bool
) -> None:
    nodes = tried.get(("self", "nodes"), "").split(",")
    opens = tried.get(("open", nodes[-1]), "not tried")
    artifacts = spec["artifacts"]
    assert isinstance(artifacts, list)
    pulls = tried.get(("pull", str(artifacts[0])), "not tried")
    unenforced = _unenforced(stage)
    if unenforced:
        shown, expected, ok = f"device nodes are no doors here ({unenforced}): its pod goes instead", "pod gone", gone
    else:
        shown, expected, ok = f"its own slice's node: {opens}", "EPERM", opens in ("EPERM", "EACCES", "ENOENT")
    stage.check("revoked/device", shown, command, expected, opens, ok=ok)
    stage.check(
        "revoked/registry",
        f"its own model: {short(pulls, 100)}",
        command,
        "403",
        short(pulls),
        ok=pulls.startswith("403"),
    )


def _unenforced(stage: Stage) -> str:
    """Return why this machine's device nodes are not doors, "" where they are: that takes root."""
    for node in stage.client.list(RESOURCES["nodes"])["items"]:
        status, _, message = condition_of(node, "wharfinger.io/DeviceDoors")
        if status != "True":
            return message or "the node does not say"
    return ""


def _tries_after(stage: Stage, pod: str) -> dict[tuple[str, str], str]:
    """Return how the pod's tries come out once both doors are closed, or the last that were seen."""
    seen: dict[tuple[str, str], str] = {}

    def closed() -> bool:
        try:
            seen.update(attempts(stage, pod))
        except WharfingerError:
            return False
        nodes = seen.get(("self", "nodes"), "").split(",")
        own = [got for (kind, what), got in seen.items() if kind == "pull" and got != "ok"]
        models = [1 for kind, _ in seen if kind == "pull"]
        return seen.get(("open", nodes[-1])) in ("EPERM", "EACCES") and len(own) == len(models)

    try:
        stage.until("closed doors", closed, 6)
    except WharfingerError:
        return seen
    return seen


def _start(stage: Stage, service: str, user: str, tokens: int) -> _Streaming:
    bearer = token_of(stage.directory, f"{RESEARCH}/{user}")
    made = _Streaming(threading.Thread(target=lambda: None))

    def body() -> None:
        try:
            made.reply = question(stage.directory, f"{RESEARCH}/{service}", QUESTION, bearer, tokens, stream=True)
        finally:
            made.ended = time.monotonic()

    made.thread = threading.Thread(target=body, daemon=True)
    made.thread.start()
    return made


def _serves(stage: Stage) -> bool:
    found = stage.get(RESOURCES["inferenceservices"], RESEARCH, _SERVICE)
    return condition_of(found, "Ready")[0] == "True"


def _goes(stage: Stage, pod: str) -> bool:
    try:
        stage.until("the pod to go", lambda: not stage.get(RESOURCES["pods"], RESEARCH, pod), 30)
    except (NotFound, WharfingerError):
        return False
    return True
