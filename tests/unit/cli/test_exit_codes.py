"""The command line's exit codes: 0 yes, 1 no, 2 could not decide; and what a mistyped command says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def wharf(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process."""
    return subprocess.run(
        [sys.executable, "-m", "wharfinger.cli.main", *words], capture_output=True, text=True, check=False
    )


def test_help_is_a_yes() -> None:
    """Asking for help exits 0 and lists every command."""
    done = wharf("--help")
    assert done.returncode == 0
    assert "apply" in done.stdout


def test_a_platform_that_does_not_run_is_a_no(tmp_path: Path) -> None:
    """`wharf status` of a state directory on which nothing runs exits 1."""
    (tmp_path / "version").write_text("1\n")
    assert wharf("status", "--state-dir", str(tmp_path), "-o", "json").returncode == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("status", "--state-dir", "/nowhere"), "not a Wharfinger state directory"),
        (("aply",), "did you mean 'apply'"),
        (("ask", "a", "b"), "expected one of --as"),
        (("get",), "NOUN"),
    ],
)
def test_what_cannot_be_decided_exits_2_and_says_why(words: tuple[str, ...], told: str) -> None:
    """One line, a hint, exit code 2; never a traceback."""
    done = wharf(*words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_newer_state_is_refused_untouched(tmp_path: Path) -> None:
    """A state directory of a later schema version is left as it is."""
    (tmp_path / "version").write_text("99\n")
    done = wharf("up", "--detach", "--state-dir", str(tmp_path))
    assert done.returncode == 2
    assert "schema version 99" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["version"]


def test_the_demo_takes_no_directory_that_it_did_not_make(tmp_path: Path) -> None:
    """It removes its state in the end: a directory with anything in it is refused, and stays as it is."""
    (tmp_path / "version").write_text("1\n")
    done = wharf("demo", "--state-dir", str(tmp_path))
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [p.read_text() for p in tmp_path.iterdir()] == ["1\n"]
