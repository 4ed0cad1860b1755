"""One server for the tests with kubectl; each test has a namespace of its own by deleting what it made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kube_apiserver import neighbour
from kubectl import Kubectl, WrittenLogs
from local_api import LocalApi


@pytest.fixture(scope="module")
def logs() -> WrittenLogs:
    """What pods have written."""
    return WrittenLogs()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, logs: WrittenLogs) -> Iterator[LocalApi]:
    """A local API server."""
    made = LocalApi(tmp_path_factory.mktemp("api") / "objects.db", logs=logs).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kubectl keeps what it discovered."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def kubectl(api: LocalApi, home: Path) -> Iterator[Kubectl]:
    """Kubectl as the local admin; what a test leaves is deleted."""
    if neighbour("kubectl") is None:
        pytest.skip("kubectl is not built: run make neighbours")
    made = Kubectl(api, home)
    yield made
    kinds = "deployments,jobs,pods,configmaps,secrets,services,inferenceservices,models,resourceclaims"
    made("delete", kinds, "--all", "--grace-period=0", "--force", "--wait=false")
