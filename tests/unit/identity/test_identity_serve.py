"""Serving by SVID: what every process answers beside its own, to whom, and who is seen at the other end."""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter
from trust_domain import CONTROL, DOMAIN, TRAINER, Domain

from wharfinger.core.errors import HostUnfit
from wharfinger.identity import serve
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context

API = SpiffeId.part(DOMAIN, "api")


async def _application(scope: serve.Scope, _receive: serve.Receive, send: serve.Send) -> None:
    """Answer with whoever is seen."""
    body = str(serve.peer_of(scope)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Served:
    """A server with a registry of its own, and requests to it."""

    def __init__(self, folder: Path) -> None:
        self.domain = Domain(folder)
        self.why_not: str | None = None
        registry = CollectorRegistry()
        Counter("calls", "Calls.", registry=registry).inc()
        source = self.domain.source(API)

        async def start() -> serve.Server:
            server = serve.Server(_application, source, serve.bind(), ready=lambda: self.why_not, registry=registry)
            await server.start()
            return server

        self.server = self.domain.loop.run(start())

    def get(self, path: str, who: SpiffeId | None) -> tuple[int, str]:
        """Return status and body of a GET as `who`, None for one without a certificate."""
        if who is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            context = client_context(self.domain.source(who), expect=API)
        connection = http.client.HTTPSConnection("127.0.0.1", self.server.port, context=context, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body

    def close(self) -> None:
        """Stop it."""
        self.domain.loop.run(self.server.stop())
        self.domain.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Start a server."""
    made = Served(tmp_path)
    yield made
    made.close()


def test_the_application_sees_who_calls(served: Served) -> None:
    """A caller with an SVID is seen by its SPIFFE ID, one without by nothing."""
    assert served.get("/", CONTROL) == (200, str(CONTROL))
    assert served.get("/", None) == (200, "None")


def test_liveness_and_readiness_are_for_anyone(served: Served) -> None:
    """A process that cannot do its work says why, with 503, and goes on living."""
    for who in (CONTROL, TRAINER, None):
        assert served.get("/livez", who) == (200, "ok\n")
        assert served.get("/readyz", who) == (200, "ok\n")
    served.why_not = "the database is locked"
    assert served.get("/readyz", None) == (503, "the database is locked\n")
    assert served.get("/livez", None) == (200, "ok\n")


def test_metrics_are_for_the_platforms_parts(served: Served) -> None:
    """Metrics tell of every tenant: a workload, a person and nobody get 403."""
    status, text = served.get("/metrics", CONTROL)
    assert status == 200 and "calls_total 1.0" in text
    for who in (TRAINER, SpiffeId.person(DOMAIN, "research", "ada"), None):
        assert served.get("/metrics", who)[0] == 403


def test_a_port_that_is_taken_is_named(served: Served) -> None:
    """The error names the port and what to do."""
    with pytest.raises(HostUnfit, match=f"port {served.server.port} of 127") as refused:
        serve.bind(served.server.port)
    assert refused.value.hint


def test_run_ends_when_its_work_does() -> None:
    """`run` drives a process's main to its end."""
    seen: list[str] = []

    async def main() -> None:
        await asyncio.sleep(0)
        seen.append("done")

    serve.run(main)
    assert seen == ["done"]
