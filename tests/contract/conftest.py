"""Each test of the contract runs against both servers; a server starts once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kube_apiserver import neighbour
from servers import Adapter, Api, Kubernetes, Local

_numbers = count(1)


@pytest.fixture(scope="session")
def local_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """The local server."""
    made = Local(tmp_path_factory.mktemp("local"))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def kubernetes_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """kube-apiserver with etcd."""
    missing = [name for name in ("etcd", "kube-apiserver") if neighbour(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not built: run make neighbours")
    made = Kubernetes(tmp_path_factory.mktemp("kubernetes"))
    yield made
    made.stop()


@pytest.fixture(params=["local", pytest.param("kubernetes", marks=pytest.mark.neighbours)])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """A server with a fresh namespace."""
    server: Adapter = request.getfixturevalue(f"{request.param}_server")
    made = Api(server, f"contract-{next(_numbers)}")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": made.namespace}}
    reply = made.call("POST", "/api/v1/namespaces", namespace)
    assert reply.status == 201, reply.text
    yield made
    made.close()
