"""The process `api`: Kubernetes REST on SQLite, the only writer of the objects' database."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import REGISTRY

from wharfinger.bootstrap import part
from wharfinger.bootstrap.part import Setting
from wharfinger.controllers.admission import admit
from wharfinger.core.clock import Clock
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity import jwtsvid, serve
from wharfinger.identity.bundle import Bundles
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context
from wharfinger.identity.workloadsource import WorkloadSource
from wharfinger.local.api.authn import Authenticator, VerifyToken
from wharfinger.local.api.nodelogs import NodeLogs
from wharfinger.local.api.server import ApiServer
from wharfinger.local.api.store import DATABASE


def token_verifier(bundles: Callable[[], Bundles], audience: str, clock: Clock) -> VerifyToken:
    """Return what names the holder of a JWT-SVID that is meant for `audience`."""

    def verify(token: str) -> SpiffeId:
        return jwtsvid.verify(token, bundles(), audience, clock.now())

    return verify


def server(setting: Setting, source: SvidSource, verify_token: VerifyToken) -> ApiServer:
    """Return the API server of this platform on its database. Raises `Corrupt` or `HostUnfit`."""
    return ApiServer(
        setting.state.of("api") / DATABASE,
        authenticate=Authenticator(verify_token),
        admit=admit,
        clock=SystemClock(),
        ids=SystemIds(),
        who=setting.identity("api"),
        version=version("wharfinger"),
        logs=NodeLogs(setting.ports["node"], client_context(source, expect=SpiffeId(setting.identity("node")))),
    )


def main(setting: Setting) -> None:
    """Serve until SIGTERM."""
    source = WorkloadSource(setting.workload_socket)
    source.material()
    verify_token = token_verifier(source.jwt_bundles, setting.identity("api"), SystemClock())
    try:
        serve.run(lambda: _serve(setting, source, verify_token))
    finally:
        source.close()


async def _serve(setting: Setting, source: SvidSource, verify_token: VerifyToken) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    api = server(setting, source, verify_token)
    REGISTRY.register(api.metrics)
    front = serve.Server(api.app, source, serve.bind(setting.ports["api"]), ready=api.why_not_ready)
    await api.start()
    await front.start()
    part.ready()
    await stopping.wait()
    api.end_watches()
    await front.stop()
    await api.stop()


if __name__ == "__main__":
    part.run("api", main)
