"""The demo is the main job: every step holds, no step holds without its door, and nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_under_test import Platform

from wharfinger.cli.story import manifests

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

OPEN_DOOR = """
import os
import sys
from wharfinger.policy import grant
from wharfinger.policy.decision import Verdict

_file = os.environ["WHARF_TEST_OPEN_DOOR"]
_permits, _permits_any = grant.permits, grant.permits_any


def _is_open(door):
    try:
        return open(_file).read().strip() == door.value
    except OSError:
        return False


def permits(spec, door, *asked):
    verdict = _permits(spec, door, *asked)
    return Verdict(True, "no check") if _is_open(door) and not verdict.allowed else verdict


def permits_any(specs, door, *asked):
    verdict, spoken_of = _permits_any(specs, door, *asked)
    return (Verdict(True, "no check"), spoken_of) if _is_open(door) and not verdict.allowed else (verdict, spoken_of)


grant.permits, grant.permits_any = permits, permits_any
if "wharfinger.bootstrap.node" in sys.orig_argv:
    from wharfinger.local.node import devicedoor

    _of = devicedoor._of
    devicedoor._of = lambda asked, grants: _of(asked, grants) or ([{}] if _is_open(grant.Door.DEVICE) else [])
"""
"""A sitecustomize of the platform's processes: the check of the door that a file names says yes to everything."""

RUNTIME_OPEN = """
import wharfinger.inference.runtime.door as door
from wharfinger.policy.decision import Verdict
door.RuntimeDoor.heard = lambda self, peer, caller: Verdict(True, "no check")
door.permits_any = lambda *a: (Verdict(True, "no check"), None)
import wharfinger.policy.doorkeeper as keeper
keeper.permits_any = lambda *a: (Verdict(True, "no check"), None)
import runpy
runpy.run_module("wharfinger.inference.runtime", run_name="__main__")
"""
"""A model's server whose own door lets everybody in."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, dict[str, Any]]]:
    """A platform on which the story was told and which was kept, and what the story said."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(OPEN_DOOR)
    changed = {"PYTHONPATH": str(folder / "site"), "WHARF_TEST_OPEN_DOOR": str(folder / "open-door")}
    platform = Platform(folder / "state", changed)
    done = platform.wharf("demo", "--keep", "-o", "json", "--state-dir", str(platform.directory), timeout=600)
    try:
        yield platform, json.loads(done.stdout) | {"code": done.returncode, "said": done.stderr}
    finally:
        platform.down()


def again(platform: Platform, act: str) -> dict[str, bool]:
    """Show an act again; return how each step went."""
    words = ("demo", "--again", act, "--state-dir", str(platform.directory), "-o", "json")
    done = platform.wharf(*words, timeout=300)
    told = json.loads(done.stdout)
    assert done.returncode == (0 if told["ok"] else 1)
    return {step["name"]: step["ok"] for step in told["steps"]}


@pytest.mark.timeout(700)
def test_every_step_holds(kept: tuple[Platform, dict[str, Any]]) -> None:
    """The whole story, on real processes: exit 0, every step with what was expected, what came, and its command."""
    _, told = kept
    red = [step for step in told["steps"] if not step["ok"]]
    assert told["ok"], red
    assert told["code"] == 0
    assert {"name", "ok", "shown", "command", "expected", "got", "decision"} == set(told["steps"][0])
    names = [step["name"] for step in told["steps"]]
    assert sum(name.startswith("swap/") for name in names) == 16
    assert all(step["command"] for step in told["steps"])


def test_a_decision_of_the_story_is_told_and_replays(kept: tuple[Platform, dict[str, Any]]) -> None:
    """`wharf explain` names the caller, `wharf replay` reaches the same verdict, though policies have changed since."""
    platform, told = kept
    answer = next(step for step in told["steps"] if step["name"] == "answer")
    assert "tenant/research/user/alice" in platform.until("explain", "decision", answer["decision"])
    assert "same verdict: allow" in platform.until("replay", "decision", answer["decision"])


def expected_red(door: str) -> set[str]:
    """Return the steps of the acts `swap` and `doors` that stand on the check of `door` alone."""
    swaps = {f"swap/{i}{m}{d}{c}" for i in "ab" for m in "ab" for d in "ab" for c in "ab"}
    if door == "registry":
        return {"door/registry"} | {s for s in swaps if s[5] != s[6]}
    if door == "gateway":
        refused = {s for s in swaps if len(set(s[5:])) > 1}
        return {"door/gateway", "door/gateway-tenant"} | refused
    if door == "device":
        return {"door/device-no-grant"}
    return {"door/runtime"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("door", ["registry", "gateway", "device"])
def test_without_a_doors_check_exactly_its_steps_turn_red(kept: tuple[Platform, dict[str, Any]], door: str) -> None:
    """Each step stands on the door that it is about, and on no other."""
    platform, _ = kept
    mark = Path(platform.environment["WHARF_TEST_OPEN_DOOR"])
    mark.write_text(door)
    try:
        steps = {**again(platform, "swap"), **again(platform, "doors")}
    finally:
        mark.unlink()
    assert {name for name, ok in steps.items() if not ok} == expected_red(door)


@pytest.mark.timeout(600)
def test_without_the_runtimes_check_its_own_port_lets_people_in(kept: tuple[Platform, dict[str, Any]]) -> None:
    """The runtime's door stands in the model's own process: without it, exactly the way around the gateway opens."""
    platform, _ = kept
    space = manifests.RESEARCH
    service = json.loads(platform.until("get", "inferenceservice", "assistant", "-n", space, "-o", "json"))
    command = service["spec"]["runtime"]["command"]
    hostile = f"import sys; sys.argv += ['--serve', {RUNTIME_OPEN!r}]; import runpy; "
    hostile += "runpy.run_module('wharfinger.cli.story.hostile', run_name='__main__')"
    _replace_command(platform, service, ["python", "-c", hostile])
    try:
        steps = again(platform, "doors")
    finally:
        _replace_command(platform, service, command)
    assert {name for name, ok in steps.items() if not ok} == expected_red("runtime")


def _replace_command(platform: Platform, service: dict[str, Any], command: list[str]) -> None:
    meta = {"name": service["metadata"]["name"], "namespace": service["metadata"]["namespace"]}
    spec = {**service["spec"], "runtime": {**service["spec"]["runtime"], "command": command}}
    spec.pop("replicas", None)
    made = {"apiVersion": service["apiVersion"], "kind": service["kind"], "metadata": meta, "spec": spec}
    platform.until("apply", "--force-conflicts", "-f", "-", stdin=json.dumps(made))
    platform.until("wait", "deployment", meta["name"], "-n", meta["namespace"], "--for", "condition=Progressing")
    platform.until("wait", "inferenceservice", meta["name"], "-n", meta["namespace"], seconds=120)


@pytest.mark.timeout(600)
def test_the_demo_leaves_nothing(tmp_path: Path) -> None:
    """Told without --keep, with the user's own texts: every step holds, and no process and no file stays."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(60):
        (texts / f"{number:02}.txt").write_text(f"Berth {number} of the wharf takes ships of {number * 7} tons.\n" * 60)
    platform = Platform(tmp_path / "state")
    words = ("demo", "--dataset", str(texts), "--state-dir", str(platform.directory), "-o", "json")
    done = platform.wharf(*words, timeout=560)
    told = json.loads(done.stdout)
    assert told["ok"], [step for step in told["steps"] if not step["ok"]]
    assert done.returncode == 0
    assert not platform.directory.exists()
    assert not platform.processes()
