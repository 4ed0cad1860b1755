"""The rules of the house that a machine can hold: purity, sizes, layers' completeness, words."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = sorted(set((Path(__file__).parent / "pure.txt").read_text(encoding="utf-8").split()))
MODULES = sorted((ROOT / "wharfinger").rglob("*.py"))
FORBIDDEN_IMPORTS = {
    "asyncio", "socket", "os", "time", "random", "sqlite3", "subprocess", "ssl", "threading", "secrets", "uuid",
    "shutil", "tempfile", "multiprocessing", "urllib.request", "http.client",
}  # fmt: skip
FORBIDDEN_CALLS = {"open", "input", "print", "exec", "eval"}
FORBIDDEN_ATTRIBUTES = {
    "now", "utcnow", "today", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rglob",
    "glob", "iterdir", "uuid4", "uuid1", "token_bytes", "token_hex",
}  # fmt: skip
ROOMS = {
    "core", "kinds", "cluster", "identity", "policy", "supply", "gpu", "inference", "govern",
    "local", "controllers", "cli", "console", "bootstrap",
}  # fmt: skip
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


def path_of(module: str) -> Path:
    """Return the file of a dotted module name."""
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_stays_pure(module: str) -> None:
    """A pure module imports nothing that does I/O, tells the time or rolls dice, and calls nothing that does."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {node.module or ""}
        elif isinstance(node, ast.Call):
            callee = node.func
            if isinstance(callee, ast.Name):
                assert callee.id not in FORBIDDEN_CALLS, f"{module}:{node.lineno} calls {callee.id}"
            elif isinstance(callee, ast.Attribute) and isinstance(callee.value, ast.Name):
                owner = callee.value.id
                named = owner in ("datetime", "date", "Path", "uuid", "secrets", "path")
                assert not (named and callee.attr in FORBIDDEN_ATTRIBUTES), (
                    f"{module}:{node.lineno} {owner}.{callee.attr}"
                )
            continue
        else:
            continue
        bad = {name for name in names if name in FORBIDDEN_IMPORTS or name.split(".")[0] in FORBIDDEN_IMPORTS}
        assert not bad, f"{module}:{node.lineno} imports {sorted(bad)}"
        adapters = {"wharfinger.core.systemclock", "wharfinger.core.systemids"} & names
        assert not adapters, f"{module}:{node.lineno} imports an adapter"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_small_and_well_named(path: Path) -> None:
    """At most 600 lines a module and 80 a function; a module is named by a noun of the field and says what it is."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 600, "split it"
    assert path.stem not in BANNED_NAMES
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 80, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_test_file_is_small_and_its_tests_say_what_they_prove(path: Path) -> None:
    """At most 500 lines a test file; every test has a sentence."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 500, "split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), f"{node.name} has no sentence"


def test_every_package_has_its_place() -> None:
    """A room that is not in the plan of the house does not exist."""
    rooms = {path.name for path in (ROOT / "wharfinger").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= ROOMS


def test_broad_excepts_stand_in_three_named_places_at_most() -> None:
    """`except Exception` hides faults: only the outermost loops may."""
    places = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                names = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
                if node.type is None or any(
                    isinstance(n, ast.Name) and n.id in ("Exception", "BaseException") for n in names
                ):
                    places.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(places) <= 3, places


def test_no_machine_path_and_no_leftover_is_committed() -> None:
    """What is tracked names no machine's folders and leaves nothing half done."""
    words = ["/" + "work/", "/root" + "/", "TO" + "DO", "FIX" + "ME", "not implemented" + " yet"]
    for word in words:
        found = subprocess.run(
            ["git", "grep", "-nIF", word, "--", ".", ":!requirements.lock"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.stdout == "", f"{word}: {found.stdout[:500]}"
