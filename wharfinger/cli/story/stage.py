"""The stage: runs the commands that a step shows, remembers how each step went, and says so as it happens.

A step holds when what came is what was expected; nothing here knows what a step is about. Every step names the command
that shows it again on a platform that `wharf demo --keep` left running.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wharfinger.cluster.client import Client, Object, Resource
from wharfinger.core.errors import NotFound, Unavailable, WharfingerError

PATIENCE: Final = 120.0
"""Seconds that anything may take to become so."""
_POLL: Final = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the story; `decision` is the id of the decision that it led to, where there is one."""

    name: str
    ok: bool
    shown: str
    command: str
    expected: str
    got: str
    decision: str = ""

    def record(self) -> dict[str, Any]:
        """Return it for `-o json`."""
        return {
            "name": self.name,
            "ok": self.ok,
            "shown": self.shown,
            "command": self.command,
            "expected": self.expected,
            "got": self.got,
            "decision": self.decision,
        }


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that was run: what it was, how it ended, what it wrote."""

    command: str
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return what it wrote to stdout as JSON. Raises `Unavailable`, with its last words, when that is none."""
        try:
            return json.loads(self.out)
        except ValueError as error:
            words = (self.err or self.out).strip()[-300:]
            raise Unavailable(f"{self.command}: expected JSON, it exited with {self.code}: {words}") from error


@dataclass(slots=True)
class Stage:
    """A platform on `directory`; `tell` gets every step as it is done."""

    directory: Path
    tell: Callable[[Step], None]
    steps: list[Step] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What one act leaves for the next, kept in `demo/facts.json` so that an act can be shown again."""
    _client: Client | None = None

    @property
    def work(self) -> Path:
        """Where the story keeps its manifests, its dataset and its proofs."""
        return self.directory / "demo"

    @property
    def client(self) -> Client:
        """A client of the API server, as the local admin."""
        if self._client is None:
            from wharfinger.cli.get import connect

            self._client = connect(self.directory)
        return self._client

    def run(self, *words: str, stdin: str | None = None, binary: Path | None = None, patience: float = PATIENCE) -> Ran:
        """Run `wharf WORDS` on this platform; `binary` takes its stdout to a file."""
        command = f"wharf {shlex.join(words)}" + (f" > {shlex.quote(str(binary))}" if binary else "")
        environment = {**os.environ, "WHARF_STATE_DIR": str(self.directory), "NO_COLOR": "1"}
        environment.pop("KUBECONFIG", None)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "wharfinger.cli.main", *words],
                input=None if stdin is None else stdin.encode(),
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                env=environment,
                timeout=patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Ran(command, 124, "", f"it took longer than {patience:.0f} s")
        if binary is not None:
            binary.write_bytes(done.stdout)
        out = "" if binary is not None else done.stdout.decode("utf-8", "replace")
        return Ran(command, done.returncode, out, done.stderr.decode("utf-8", "replace"))

    def check(
        self, name: str, shown: str, command: str, expected: str, got: str, *, ok: bool, decision: str = ""
    ) -> bool:
        """Note a step and tell it; return whether it held."""
        step = Step(name, ok, shown, command, expected, got, decision)
        self.steps.append(step)
        self.tell(step)
        return ok

    def apply(self, file: str, manifest: str) -> Ran:
        """Write `manifest` to the story's `file` and apply it. Raises `Unavailable` when it is refused."""
        path = self.work / file
        path.write_text(manifest, encoding="utf-8")
        ran = self.run("apply", "-f", str(path))
        if ran.code:
            raise Unavailable(f"{ran.command}: {ran.err.strip()}")
        return ran

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Return an object, `{}` when it is not there."""
        try:
            return self.client.get(resource, namespace, name)
        except NotFound:
            return {}

    def until(self, what: str, look: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """Look until there is something; return it. Raises `Unavailable` when it does not come in time."""
        deadline = time.monotonic() + patience
        problem = ""
        while time.monotonic() < deadline:
            try:
                if found := look():
                    return found
            except WharfingerError as error:
                problem = f" ({error})"
            time.sleep(_POLL)
        raise Unavailable(f"{what}: not within {patience:.0f} s{problem}")

    def save(self) -> None:
        """Keep the facts, for acts that are shown again."""
        (self.work / "facts.json").write_text(json.dumps(self.facts, indent=1), encoding="utf-8")

    def load(self) -> None:
        """Read the facts that an earlier run kept. Raises `NotFound` when no story was told here."""
        try:
            self.facts = json.loads((self.work / "facts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NotFound(
                f"no story was told on {self.directory}", hint="wharf demo --keep tells it and leaves it running"
            ) from error


def condition_of(found: Mapping[str, Any], kind: str) -> tuple[str, str, str]:
    """Return status, reason and message of an object's condition; the status is empty when it has none."""
    for entry in (found.get("status") or {}).get("conditions") or ():
        if entry["type"] == kind:
            return entry["status"], entry.get("reason", ""), entry.get("message", "")
    return "", "", ""


def short(text: str, most: int = 160) -> str:
    """Return `text` on one line, cut to `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."
