"""A local API server for the tests of this room, and a client that may do everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from local_api import LocalApi
from world import SetClock


@pytest.fixture(scope="module")
def clock() -> SetClock:
    """The server's clock, set by hand."""
    return SetClock()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, clock: SetClock) -> Iterator[LocalApi]:
    """A server that a module's tests share."""
    made = LocalApi(tmp_path_factory.mktemp("api") / "objects.db", clock=clock).start()
    yield made
    made.stop()
