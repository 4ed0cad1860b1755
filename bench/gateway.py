"""What the gateway costs: CPU per request and per streamed token, and the latency that it adds, everything on.

    python -m bench gateway

Everything on means: TLS 1.3 from client and to the replica, an API key, the grant asked and the decision on disk,
guards on prompt and answer, tokens reserved, counted and settled on disk before the answer ends. Caveats: a fake server
that answers at once; all three processes share this machine, so rates are told as CPU of the gateway's process alone
(user and system), of which a core gives a second a second; what the clients measure includes their own and the server's
work. Connections are kept alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench.raw import keep
from tests.authority import TRUST_DOMAIN, Authority, identity
from wharfinger.core.clock import HOUR, rfc3339
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity.source import from_pem
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context, server_context
from wharfinger.inference.callers import Callers
from wharfinger.inference.gateway import Gateway
from wharfinger.inference.http1 import Reply, Request
from wharfinger.inference.ledger import Ledger
from wharfinger.inference.listener import Listener, bind
from wharfinger.inference.routing import build
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.journal import Journal

KEY = "wharf-" + "k" * 40
CALLER, WORKLOAD = identity("ns/red-ml/sa/app"), identity("ns/red-ml/sa/chat")
DIGEST = "sha256:" + "a" * 64
PIECES = [" the", " keeper", " weighs", " every", " crate", " of", " tea", "."] * 16
"""128 pieces: what a streamed answer is made of."""
PROMPT = "What does the wharfinger do when a ship comes in at night? " * 4


def source(folder: Path, name: str) -> Any:
    """Return the identity that the parent wrote for `name`."""
    return from_pem(
        (folder / f"{name}.crt").read_bytes(), (folder / f"{name}.key").read_bytes(), (folder / "ca").read_bytes()
    )


async def answer(request: Request, reply: Reply) -> None:
    """Answer like a model's server, at once."""
    usage = {"prompt_tokens": 60, "completion_tokens": len(PIECES), "total_tokens": 60 + len(PIECES)}
    head = {"id": "x", "created": 1, "model": "m"}
    if b'"stream":true' not in request.body:
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(PIECES)}, "finish_reason": "stop"}
        body = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        reply.send(200, [(b"content-type", b"application/json")], json.dumps(body).encode())
        return
    head["object"] = "chat.completion.chunk"
    reply.start(200, [(b"content-type", b"text/event-stream")])
    for piece in PIECES:
        event = {**head, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
        await reply.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await asyncio.sleep(0)
    await reply.write(b"data: " + json.dumps({**head, "choices": [], "usage": usage}).encode() + b"\n\n")
    await reply.write(b"data: [DONE]\n\n")
    reply.finish()


def gateway(folder: Path, upstream: int) -> Gateway:
    """Return a gateway with one service, everything on."""
    clock, now = SystemClock(), SystemClock().now()
    journal = Journal(folder / "journal")
    callers = Callers(lambda _: SpiffeId(CALLER))
    from wharfinger.identity import apikey

    callers.keys = {apikey.digest(KEY): SpiffeId(CALLER)}
    context = client_context(source(folder, "gateway"), expect=SpiffeId(WORKLOAD))
    made = Gateway(
        Doorkeeper("gateway", journal, clock, SystemIds()), Ledger(journal, clock), clock, callers.identify,
        lambda _: context, b"salt",
    )  # fmt: skip
    grant = {
        "workload": WORKLOAD, "pod": "chat-0", "artifacts": [DIGEST], "callers": [CALLER], "revoked": False,
        "notBefore": rfc3339(now - HOUR), "notAfter": rfc3339(now + HOUR),
    }  # fmt: skip
    endpoint = {"pod": "chat-0", "ready": True, "address": f"127.0.0.1:{upstream}"}
    spec = {"model": "prose", "serviceAccountName": "chat", "callers": [CALLER]}
    meta = {"namespace": "red-ml"}
    table = build(
        [
            {
                "metadata": {**meta, "name": "chat"},
                "spec": spec,
                "status": {"modelDigest": DIGEST, "endpoints": [endpoint]},
            }
        ],
        [{"metadata": {**meta, "name": "g"}, "spec": grant}],
        [{"metadata": {**meta, "name": "p"}, "spec": {"guards": [{"name": "secrets"}, {"name": "pii"}]}}],
        [{"metadata": {"name": "red"}, "spec": {"namespaces": ["red-ml"], "quota": {"tokensPerMinute": 10**12}}}],
        TRUST_DOMAIN,
    )
    made.replace(table)
    return made


async def serve(folder: Path, role: str, upstream: int) -> None:
    """Run one of the two servers until the parent ends it; tell the port."""
    handler = gateway(folder, upstream).handle if role == "gateway" else answer
    listener = Listener(handler, bind("127.0.0.1", 0), server_context(source(folder, role)))
    await listener.start()
    print(listener.port, flush=True)
    await asyncio.Event().wait()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, streamed: bool) -> float:
    """Send a request and read its answer whole; return when its first byte came."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    first = time.perf_counter()
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the gateway answered {head[:200]!r}")
    if streamed:
        await reader.readuntil(b"0\r\n\r\n")
    else:
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    return first


async def drive(
    port: int, context: ssl.SSLContext, connections: int, seconds: float, *, streamed: bool
) -> tuple[int, list[float]]:
    """Ask over `connections` for `seconds`; return how many answers came and the time of each, in milliseconds."""
    say = [{"role": "user", "content": PROMPT}]
    body = json.dumps(
        {"model": "red-ml/chat", "messages": say, "max_tokens": 256, "stream": streamed}, separators=(",", ":")
    ).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "host: g",
        f"authorization: Bearer {KEY}",
        f"content-length: {len(body)}",
    )
    head = "\r\n".join((*lines, "", ""))
    request, until, times = head.encode() + body, time.perf_counter() + seconds, list[float]()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="x", limit=2**22)
        while (began := time.perf_counter()) < until:
            first = await ask(reader, writer, request, streamed)
            times.append((first - began) * 1000)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return len(times), sorted(times)


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(seconds: float = 6.0) -> dict[str, Any]:
    """Return every figure."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as ends:
        folder, authority = Path(name), Authority()
        (folder / "ca").write_bytes(authority.bundle)
        for role, path in (
            ("gateway", "wharfinger/gateway"),
            ("upstream", "ns/red-ml/sa/chat"),
            ("client", "ns/red-ml/sa/app"),
        ):
            certificate, key = authority.pem(path)
            (folder / f"{role}.crt").write_bytes(certificate)
            (folder / f"{role}.key").write_bytes(key)

        def start(role: str, upstream: int = 0) -> tuple[int, int]:
            words = [sys.executable, "-m", "bench.gateway", "serve", role, name, str(upstream)]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            ends.callback(process.wait)
            ends.callback(process.kill)
            assert process.stdout is not None
            return process.pid, int(process.stdout.readline())

        _, upstream = start("upstream")
        pid, port = start("gateway", upstream)
        context = client_context(source(folder, "client"), expect=None)
        run = lambda *args, **more: uvloop.run(drive(*args, **more))  # noqa: E731
        run(port, context, 4, 1.0, streamed=True)
        figures: dict[str, Any] = {}
        for streamed in (False, True):
            before = cpu(pid)
            count, _ = run(port, context, 16, seconds, streamed=streamed)
            spent = cpu(pid) - before
            kind = "streamed" if streamed else "whole"
            figures[f"{kind}: microseconds of CPU per request"] = round(spent / count * 1e6)
            figures[f"{kind}: requests a second per core"] = round(count / spent)
            figures[f"{kind}: requests"] = count
            if streamed:
                figures["streamed: microseconds of CPU per token"] = round(spent / count / len(PIECES) * 1e6, 1)
        _, direct = run(upstream, context, 1, seconds / 2, streamed=True)
        _, through = run(port, context, 1, seconds / 2, streamed=True)
        for name_, share in (("p50", 0.5), ("p99", 0.99)):
            added = through[int(len(through) * share)] - direct[int(len(direct) * share)]
            figures[f"first byte, added {name_}, milliseconds"] = round(added, 2)
        status = Path(f"/proc/{pid}/status").read_text()
        figures["resident memory, MiB"] = int(status.partition("VmRSS:")[2].split()[0]) // 1024
        return figures


def main(arguments: list[str]) -> None:
    """Print the figures; raw as JSON with `-o json`. `serve ROLE FOLDER PORT` is for the processes it starts."""
    if arguments[:1] == ["serve"]:
        uvloop.run(serve(Path(arguments[2]), arguments[1], int(arguments[3])))
        return
    figures = measure()
    keep("gateway", figures)
    if arguments == ["-o", "json"]:
        print(json.dumps(figures, indent=2))
        return
    for name, figure in figures.items():
        print(f"{name}: {figure}")


if __name__ == "__main__":
    main(sys.argv[1:])
