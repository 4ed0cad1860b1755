"""Where tests find material from outside: test vectors and traces that are not part of the project."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def material(name: str) -> Path:
    """Return the path of `name` below the shared folder's `conformance` (or of the folder itself for traces and tools).

    Skips the calling test, with the reason, where the material is absent.
    """
    for path in (SHARED / "conformance" / name, SHARED / name):
        if path.exists():
            return path
    pytest.skip(f"outside material {name} is not here: tests read it at ../shared", allow_module_level=True)


def rows(name: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of the lines of `name`."""
    with material(name).open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
