"""Every command of the README and the guides is run, in the order in which a reader would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commandblocks import Command, commands

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [
    ROOT / "docs" / "guides" / f"{name}.md"
    for name in ("getting-started", "tenants", "models", "evidence", "operations")
]
pytestmark = [pytest.mark.e2e, pytest.mark.serial]


def test_the_readme_names_targets_that_exist() -> None:
    """Each `make TARGET` of the README is a target; what they do is run by CI and by the demo's own test."""
    for command in commands(ROOT / "README.md"):
        words = command.text.split()
        assert words[0] == "make", command
        assert subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_every_guide_is_run() -> None:
    """No guide is left out of the test below."""
    assert sorted(GUIDES) == sorted((ROOT / "docs" / "guides").glob("*.md"))


@pytest.mark.timeout(600)
def test_the_guides_commands_do_what_they_say(tmp_path: Path) -> None:
    """All guides, one after the other, in one shell, on a fresh platform: each command exits as its guide says."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {
        **os.environ,
        "WHARF_STATE_DIR": str(tmp_path / "state"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
    }
    environment.pop("KUBECONFIG", None)
    script = _script([command for guide in GUIDES for command in commands(guide)])
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=540,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    finally:
        subprocess.run(
            [sys.executable, "-m", "wharfinger.cli.main", "down"], env=environment, capture_output=True, check=False
        )


def _script(listed: list[Command]) -> str:
    """Return one bash script that runs the commands in turn and stops at the first that exits otherwise."""
    lines = ["set -u"]
    has_kubectl = shutil.which("kubectl") is not None
    for command in listed:
        if command.text.startswith(("make ", "source ")) or ("kubectl " in command.text and not has_kubectl):
            continue
        lines += [
            f"printf '%s\\n' {_quoted('$ ' + command.text)}",
            command.text,
            f'code=$?; [ "$code" = {command.code} ] || {{ echo "exited $code, expected {command.code}"; exit 9; }}',
        ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
