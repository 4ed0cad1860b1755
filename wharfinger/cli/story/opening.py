"""The opening: the platform comes up, and a verifier writes down what is to be believed before anything happens."""

from __future__ import annotations

import shlex
from importlib import resources
from typing import Any

from wharfinger.bootstrap import state
from wharfinger.bootstrap.health import health
from wharfinger.cli.story.stage import Stage
from wharfinger.core.errors import Unavailable


def tell(stage: Stage) -> None:
    """Start the platform and export its trust root. Raises `Unavailable` when it does not come up.

    The fleet is the shipped one everywhere: a machine's own GPUs may be in another mode than the story needs.
    """
    up = ("up", "--detach", "--fleet", str(resources.files("wharfinger.gpu") / "fleets/default.yaml"))
    command = f"wharf {shlex.join(up)}"
    words = ""
    if not (state.is_locked(state.State(stage.directory)) or (ran := stage.run(*up)).code == 0):
        words = ran.err.strip()[-300:]
    found: dict[str, Any] = health(stage.directory) if not words else {"ok": False, "parts": {}}
    parts = ", ".join(found["parts"])
    if not stage.check("platform", f"up: {parts}", command, "every part ready", words or parts, ok=found["ok"]):
        raise Unavailable(f"the platform did not come up: {words}")
    stage.facts["trustDomain"] = found["trustDomain"]
    stage.work.mkdir(mode=0o700, exist_ok=True)
    root = stage.work / "trust-root.json"
    ran = stage.run("trust-root", binary=root)
    stage.check(
        "trust-root",
        "what a verifier believes, written down before the story",
        ran.command,
        "authorities and the log's key",
        ran.err.strip() or f"{root.stat().st_size} bytes",
        ok=ran.code == 0 and root.stat().st_size > 0,
    )
