"""A registry that answers on a loopback port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_registry import LocalRegistry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    """A registry with nothing in it, its log empty."""
    made = LocalRegistry(tmp_path / "state").start()
    yield made
    made.stop()
