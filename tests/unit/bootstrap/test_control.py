"""The control surface over mTLS, asked as the command line asks: the local admin's certificate, errors of the family."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Authority, identity
from served import ALICE, Served

from wharfinger.bootstrap import operations
from wharfinger.bootstrap.control import application
from wharfinger.bootstrap.proving import Prover
from wharfinger.bootstrap.state import State
from wharfinger.core.errors import Denied, HostUnfit, NotFound, Unavailable
from wharfinger.identity import serve
from wharfinger.supply.trustroot import TrustRoot


class Surface:
    """The control surface of a served world, in a thread, and a state directory whose kubeconfig is somebody's."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.served = Served(folder / "evidence")
        self.state = folder / "state"
        self.state.mkdir()
        self._stop: asyncio.Event | None = None
        self._up = threading.Event()
        self._listener = serve.bind()
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=lambda: serve.run(self._serve), daemon=True)
        self._thread.start()
        assert self._up.wait(20)
        self.become("wharfinger/admin")

    def become(self, path: str) -> None:
        """Write the kubeconfig of this identity."""
        chain, key = self.authority.pem(path)
        told = {
            "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "clusters": [{"name": "x", "cluster": _inline("certificate-authority", self.authority.bundle)}],
            "users": [{"name": "x", "user": {**_inline("client-certificate", chain), **_inline("client-key", key)}}],
        }
        (self.state / "kubeconfig").write_text(json.dumps(told))
        (self.state / "ports.json").write_text(json.dumps({"control": self.port, "gateway": self.port}))

    def close(self) -> None:
        """Stop it."""
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self.served.close()

    async def _serve(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        prover = Prover(self.served.evidence, self.served.desk, self.served.world, self.served.notary.clock)
        front = serve.Server(application(prover), self.authority.source("wharfinger/control"), self._listener)
        await front.start()
        self._up.set()
        await self._stop.wait()
        await front.stop()


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surface]:
    """Return a surface."""
    made = Surface(tmp_path_factory.mktemp("control"))
    yield made
    made.close()


def test_the_trust_root_is_given_to_who_is_known(surface: Surface) -> None:
    """What comes is a trust root that reads back."""
    data = operations.request(surface.state, "control", "GET", "/v1/trust-root")
    assert TrustRoot.parse(data).encode() == surface.served.notary.trust.encode()


def test_a_refusal_comes_back_as_the_error_it_is(surface: Surface) -> None:
    """A decision of another platform's tenant is not there for this admin; the hint comes along."""
    decision = surface.served.ask("assistant", ALICE)
    with pytest.raises(NotFound) as caught:
        operations.request(surface.state, "control", "POST", f"/v1/proofs/{decision.id}")
    assert decision.id in caught.value.message
    assert caught.value.hint


def test_another_part_at_the_port_is_not_spoken_to(surface: Surface) -> None:
    """The gateway's port answers with control's identity: the connection is refused before a byte is sent."""
    with pytest.raises(Unavailable, match="gateway does not answer"):
        operations.request(surface.state, "gateway", "GET", "/v1/trust-root")


def test_no_platform_is_said_with_a_hint(surface: Surface, tmp_path: Path) -> None:
    """Without a kubeconfig, or with nobody at the port, the error says what to do."""
    with pytest.raises(HostUnfit) as unfit:
        operations.request(tmp_path, "control", "GET", "/v1/trust-root")
    assert unfit.value.hint
    (surface.state / "ports.json").write_text('{"control": 1}')
    with pytest.raises(Unavailable) as away:
        operations.request(surface.state, "control", "GET", "/v1/trust-root")
    assert "wharf status" in away.value.hint
    surface.become("wharfinger/admin")


def test_errors_of_any_form_become_ours() -> None:
    """A Status keeps its reason; any other text is quoted with its code."""
    told = json.dumps({"kind": "Status", "reason": "Forbidden", "message": "no", "code": 403, "hint": "ask"}).encode()
    error = operations.refusal(403, told)
    assert (type(error), error.message, error.hint) == (Denied, "no", "ask")
    assert "HTTP status 502" in operations.refusal(502, b"<html>").message


def test_a_state_that_is_not_one_names_the_part(tmp_path: Path) -> None:
    """A ports file without the part is damaged, not ignored."""
    from wharfinger.core.errors import Corrupt

    (tmp_path / "ports.json").write_text("{}")
    with pytest.raises(Corrupt, match="control"):
        operations.port_of(State(tmp_path), "control")
    assert identity("x").startswith("spiffe://")


def _inline(name: str, data: bytes) -> dict[str, str]:
    return {f"{name}-data": base64.b64encode(data).decode()}
