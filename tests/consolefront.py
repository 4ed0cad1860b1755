"""The console on loopback over TLS, with a small cluster that has something of everything, and a browser for it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import wharfinger.console.app as console
from tests.authority import Authority
from wharfinger.console import views
from wharfinger.core.clock import MINUTE, SECOND, rfc3339_micro
from wharfinger.core.systemclock import SystemClock
from wharfinger.identity import serve

CHROMIUM = Path("/usr/bin/chromium")
TOKEN = "let-me-in"
DRIVER = "gpu.wharfinger.io"
_TD = "spiffe://wharfinger.local"


def condition(holds: bool, reason: str, message: str = "") -> dict[str, Any]:
    """Return a status with one Ready condition."""
    return {"conditions": [{"type": "Ready", "status": str(holds), "reason": reason, "message": message}]}


class Wharf:
    """A reader of two tenants that share three nodes; `now` is the real time, so that pages are not empty."""

    def __init__(self) -> None:
        self.now = SystemClock().now()

    def objects(self) -> views.Objects:
        """Return the objects."""
        digest = "sha256:" + "4f" * 32
        return {
            "tenants": [
                _made("research", spec={"namespaces": ["research"], "quota": {"gpu": {"memory": "160Gi", "computeSlices": 14}, "tokensPerMinute": 20_000}}, status={"used": {"memory": "60Gi", "computeSlices": 6}}),
                _made("support", spec={"namespaces": ["support"], "quota": {"gpu": {"memory": "40Gi", "computeSlices": 4}, "tokensPerMinute": 2_000}}, status={"used": {"memory": "39Gi", "computeSlices": 4}}),
            ],
            "models": [
                _made("reference", "research", spec={"artifact": {"repository": "research/reference", "digest": digest}},
                      status={**condition(True, "Verified", "signature, provenance and datasets hold"),
                              "signature": {"signer": f"{_TD}/wharfinger/builder", "signedAt": "2026-11-25T20:14:03Z", "logIndex": 7},
                              "provenance": {"builder": f"{_TD}/wharfinger/builder", "run": "research/reference-1", "isolation": "namespaces", "datasets": ["sha256:" + "0c" * 32]}}),
                _made("borrowed", "support", spec={"artifact": {"repository": "support/borrowed", "digest": "sha256:" + "9a" * 32}},
                      status=condition(False, "Unsigned", "no signature of anybody that TrustPolicy production names")),
            ],
            "inferenceservices": [
                _made("assistant", "research", spec={"model": "reference"}, status=condition(True, "Serving", "2 of 2 replicas serve")),
                _made("librarian", "support", spec={"model": "borrowed"}, status=condition(False, "Unverified", "Model borrowed: no signature")),
            ],
            "grants": [_made(f"assistant-{n}", "research", spec={"revoked": n == 2}) for n in range(3)],
            "pods": [_made("trainer", "support", status={"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "over quota: support may hold 4 compute slices, 4 are held and 1 more is asked"}]})],
            "resourceslices": list(_fleet()),
            "resourceclaims": [
                _claim("research", "assistant-0", "node-a", "gpu-0-3g"), _claim("research", "assistant-1", "node-a", "gpu-0-2g"),
                _claim("research", "batch", "node-b", "gpu-1"), _claim("support", "desk-0", "node-a", "gpu-0-1g"), _claim("support", "desk-1", "node-a", "gpu-2-3g"),
            ],
        }  # fmt: skip

    def decisions(self) -> Sequence[dict[str, Any]]:
        """Return calls and refusals of the last minutes."""
        return [
            {"id": f"{n:08x}-aaaa", "at": rfc3339_micro(self.now - n * 7 * SECOND), "part": ("gateway", "registry", "node")[n % 3],
             "allowed": n % 4 != 3, "element": "" if n % 4 != 3 else "caller", "reason": f"granted to {_TD}/ns/research/sa/assistant" if n % 4 != 3 else f"caller {_TD}/tenant/support/user/sam is not in the grant",
             "who": f"{_TD}/tenant/research/user/alice" if n % 4 != 3 else f"{_TD}/tenant/support/user/sam", "verb": "call", "what": "sha256:" + "4f" * 32, "tenant": "research"}
            for n in range(40)
        ]  # fmt: skip

    def tokens(self) -> Sequence[dict[str, Any]]:
        """Return answers of the last half hour."""
        return [
            {"at": rfc3339_micro(self.now - n * MINUTE // 6), "tenant": ("research", "support")[n % 3 == 0], "prompt": 40, "completion": 80 + n % 50,
             "tokens": 120 + n % 50 + (n * n) % 211, "ttftMilliseconds": 18 + (n * 7) % 23}
            for n in range(150)
        ]  # fmt: skip

    def faults(self) -> Sequence[str]:
        """Return nothing: every journal can be read."""
        return []


def _made(name: str, namespace: str = "", **rest: Any) -> dict[str, Any]:
    return {"metadata": {"name": name} | ({"namespace": namespace} if namespace else {}), **rest}


def _claim(namespace: str, pod: str, node: str, device: str) -> dict[str, Any]:
    results = [{"driver": DRIVER, "pool": node, "device": device}]
    return _made(
        pod, namespace, status={"allocation": {"devices": {"results": results}}, "reservedFor": [{"name": pod}]}
    )


def _fleet() -> Iterator[dict[str, Any]]:
    for node, product, memory in (("node-a", "H100", "80Gi"), ("node-b", "H100", "80Gi"), ("node-c", "A100", "40Gi")):
        devices: list[dict[str, Any]] = []
        for gpu in range(4):
            uuid = f"GPU-{node}-{gpu}"
            whole = {"uuid": {"string": uuid}, "productName": {"string": f"NVIDIA {product}"}, "index": {"int": gpu}}
            devices.append({"name": f"gpu-{gpu}", "attributes": whole, "capacity": {"memory": {"value": memory}}})
            for profile in ("1g.10gb", "2g.20gb", "3g.40gb"):
                attributes = {
                    "uuid": {"string": f"MIG-{node}-{gpu}-{profile[0]}"},
                    "parentUUID": {"string": uuid},
                    "profile": {"string": profile},
                }
                devices.append({"name": f"gpu-{gpu}-{profile[:2]}", "attributes": attributes})
        yield _made(node, spec={"driver": DRIVER, "pool": {"name": node}, "nodeName": node, "devices": devices})


@contextmanager
def served(reader: Any = None) -> Iterator[str]:
    """Serve the console with the SVID of a part; give its address, without token."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    pages = console.app(reader or Wharf(), TOKEN, SystemClock())
    front = serve.Server(pages, Authority().source("wharfinger/console"), serve.bind())
    asyncio.run_coroutine_threadsafe(front.start(), loop).result()
    try:
        yield f"https://127.0.0.1:{front.port}"
    finally:
        asyncio.run_coroutine_threadsafe(front.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@contextmanager
def browsing() -> Iterator[tuple[Any, list[str]]]:
    """Give a page of a headless Chromium and the list of everything that went wrong in it; skips where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: make system-packages installs it")
    from playwright.sync_api import sync_playwright

    wrong: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 860}).new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"{request.url}: {request.failure}"))
        page.on("response", lambda got: wrong.append(f"{got.url}: {got.status}") if got.status >= 400 else None)
        try:
            yield page, wrong
        finally:
            browser.close()


def shoot(path: Path) -> None:
    """Take the picture of the console that the README shows: the map of GPUs."""
    with served() as address, browsing() as (page, _):
        page.goto(f"{address}/overview?token={TOKEN}")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=str(path))
        for name in console.PAGES[1:]:
            page.goto(f"{address}/{name}")
            page.wait_for_load_state("networkidle")
            page.screenshot(path=str(path.with_name(f"{path.stem}-{name}{path.suffix}")))


if __name__ == "__main__":
    shoot(Path(sys.argv[1]))
