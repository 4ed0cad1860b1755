"""Killed at any moment: every acknowledged write is there, the story goes on to its end, and nothing is left running."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from platform_under_test import Platform

import wharfinger
from wharfinger.cli.story import manifests
from wharfinger.core import failpoint

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "wharfinger.local"
SEED = int(os.environ.get("WHARF_CRASH_SEED", "20261125"))
KILLS = 50
PARTS = ("issuer", "api", "registry", "node", "control", "gateway", "console", "supervisor")
ELSEWHERE = {
    "log.turn": "a full bundle of 256 entries begins a new tail: tests/unit/supply",
    "objects.copied": "a copy is marked by `wharf backup`, not by a part: tests/unit/api",
    "objects.leap": "a restored copy leaps when it is opened: tests/unit/api",
    "silicon.release": "a slice is destroyed when its pod is over, and the story's pods stay: tests/unit/gpu",
}
"""Durable writes that the story does not reach, and where they are crashed instead."""


@dataclass
class Story:
    """A story that goes on whatever dies: what it was told is done is remembered, and looked for at the end."""

    platform: Platform
    notes: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Tenants, policies and accounts."""
        run = self.platform.until
        run("apply", "-f", "-", stdin=manifests.text(manifests.tenants()))
        run("wait", "tenant", manifests.RESEARCH, "--timeout", "30s")
        run("apply", "-f", "-", stdin=manifests.text(manifests.policies(DOMAIN)))
        names = ("trainer", "assistant")
        run("apply", "-f", "-", stdin=manifests.text(manifests.account(n, manifests.RESEARCH) for n in names))

    def note(self, number: int) -> None:
        """Write a note; once it is acknowledged it must stay."""
        name, text = f"note-{number}", f"written {number}"
        made = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": manifests.RESEARCH},
            "data": {"text": text},
        }
        self.platform.until("apply", "-f", "-", stdin=json.dumps(made))
        self.notes[name] = text

    def work(self, folder: Path) -> None:
        """From a dataset to a service that answers."""
        run, space = self.platform.until, manifests.RESEARCH
        texts = folder / "texts"
        texts.mkdir()
        for number in range(20):
            (texts / f"{number}.txt").write_text(f"Line {number} of the story is about the number {number}.\n" * 40)
        run("push", "dataset", "reference", str(texts), "-n", space)
        run("wait", "dataset", "reference", "-n", space, "--timeout", "60s")
        code = json.loads(run("push", "code", "steps", str(ROOT / "examples"), "-n", space, "-o", "json"))
        made = manifests.run("train", "reference", "topics", {k: code[k] for k in ("repository", "digest")}, 1e9)
        run("apply", "-f", "-", stdin=manifests.text([made]))
        run(
            "wait", "pipelinerun", "train", "-n", space, "--for", "condition=Succeeded", "--timeout", "60s", seconds=240
        )
        run("wait", "model", "topics", "-n", space, "--timeout", "60s")
        alice = manifests.person(DOMAIN, space, "alice")
        run("apply", "-f", "-", stdin=manifests.text([manifests.service("assistant", "topics", [alice])]))
        run("wait", "inferenceservice", "assistant", "-n", space, "--timeout", "60s", seconds=240)

    def ask(self) -> None:
        """Ask once; an answer that came whole was decided and counted for good."""
        words = ("ask", f"{manifests.RESEARCH}/assistant", "Line 3?", "--as", f"{manifests.RESEARCH}/alice")
        told = json.loads(self.platform.until(*words, "--max-tokens", "8", "-o", "json", seconds=240))
        self.answers.append(told["decision"])

    def check(self) -> None:
        """Everything that was acknowledged is there."""
        shown = self.platform.until("get", "configmaps", "-n", manifests.RESEARCH, "-o", "json")
        kept = {o["metadata"]["name"]: (o.get("data") or {}).get("text") for o in json.loads(shown)["items"]}
        assert {name: kept.get(name) for name in self.notes} == self.notes
        decided = {r["id"] for r in self.platform.records("decision") if r["allowed"]}
        counted = {r["id"] for r in self.platform.records("tokens")}
        assert set(self.answers) <= decided
        assert set(self.answers) <= counted


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform whose end is checked: nothing of it runs on."""
    made = Platform(tmp_path / "state")
    try:
        yield made
    finally:
        made.down()
    deadline = time.monotonic() + 5
    while (left := made.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, f"left running: {left}"


def every_failpoint() -> set[str]:
    """Return the failpoints of every module of the package."""
    for module in pkgutil.walk_packages(wharfinger.__path__, "wharfinger."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return set(failpoint.NAMES)


@pytest.mark.timeout(900)
def test_a_death_before_and_after_every_durable_write_loses_nothing(platform: Platform, tmp_path: Path) -> None:
    """Each part dies once before and once after each of its durable writes, and the story still comes to its end."""
    names = sorted(n for n in every_failpoint() if n.rpartition(".")[0] not in ELSEWHERE)
    platform.environment["WHARF_FAILPOINTS"] = ",".join(names)
    story = Story(platform)
    platform.up()
    story.begin()
    story.note(0)
    story.work(tmp_path)
    story.note(1)
    story.ask()
    story.check()
    fired = {mark.name.partition(".")[2] for mark in (platform.directory / "run" / "failpoints").iterdir()}
    assert fired == set(names), f"never reached: {sorted(set(names) - fired)}"


@pytest.mark.timeout(1200)
def test_fifty_deaths_inside_one_story_lose_nothing(platform: Platform, tmp_path: Path) -> None:
    """Fifty seeded kill -9 of any process of the platform: acknowledged writes stay, the story ends, no orphans."""
    print(f"seed {SEED}")
    story = Story(platform)
    platform.up()
    dice, over, killed = random.Random(SEED), threading.Event(), []

    def killer() -> None:
        while len(killed) < KILLS and not over.is_set():
            part = dice.choice(PARTS)
            if platform.kill(part):
                killed.append(part)
                if part == "supervisor":
                    platform.up()
            time.sleep(dice.uniform(0.3, 1.5))

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    try:
        story.begin()
        story.work(tmp_path)
        number = 0
        while thread.is_alive():
            story.note(number)
            story.ask()
            number += 1
    finally:
        over.set()
        thread.join(120)
    assert len(killed) == KILLS
    platform.up()
    story.note(10_000)
    story.ask()
    story.check()
    assert set(killed) == set(PARTS), f"seed {SEED} never killed {set(PARTS) - set(killed)}"
