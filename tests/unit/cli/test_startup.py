"""What a command costs before it does anything: what it imports, and the memory that it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from local_api import LocalApi

PROGRAM = """
import json, re, sys
from wharfinger.cli.main import main
sys.argv = ["wharf", *sys.argv[1:]]
try:
    code = main()
except SystemExit as ended:
    code = ended.code
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
mebibytes = int(peak[1]) // 1024
print(json.dumps([code or 0, mebibytes, sorted(sys.modules)]), file=sys.stderr)
"""
HEAVY = {
    "asyncio", "cel_expr_python", "cryptography", "h2", "jinja2", "msgspec", "numpy", "orjson", "prometheus_client",
    "re2", "safetensors", "sqlite3", "starlette", "uvicorn", "uvloop",
}  # fmt: skip
NETWORK = {"http.client", "ssl", "yaml"}
MOST_MEBIBYTES = 45


def started(*words: str, **environment: str) -> tuple[int, int, set[str]]:
    """Run a command in a process of its own; return its exit code, its peak memory and what it imported."""
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    code, mebibytes, modules = json.loads(done.stderr.splitlines()[-1])
    return code, mebibytes, set(modules)


@pytest.mark.parametrize("words", [("--help",), ("up", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    """Neither what the platform's processes need nor what speaks to them."""
    code, mebibytes, modules = started(*words)
    assert code == 0
    assert modules & (HEAVY | NETWORK if words == ("--help",) else HEAVY) == set()
    assert mebibytes < MOST_MEBIBYTES


def test_get_reads_through_a_minimal_client(tmp_path: Path) -> None:
    """A real read over TLS imports none of the libraries of the processes, and stays within its memory."""
    api = LocalApi(tmp_path / "objects.db").start()
    try:
        config = api.kubeconfig(tmp_path)
        code, mebibytes, modules = started("get", "models", "-A", KUBECONFIG=str(config), HOME=str(tmp_path))
    finally:
        api.stop()
    assert code == 0
    assert modules & HEAVY == set()
    assert mebibytes < MOST_MEBIBYTES
