"""A model served by the real processes: for an unmodified client, across the gateway's death, until its bytes change."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from platform_under_test import Platform

from tests.e2e.test_crash import DOMAIN, Story
from wharfinger.cli.story import manifests
from wharfinger.cluster.endpoint import credentials
from wharfinger.identity.source import from_pem
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context

pytestmark = [pytest.mark.e2e, pytest.mark.serial]
SERVICE = f"{manifests.RESEARCH}/assistant"
GATEWAY = f"spiffe://{DOMAIN}/wharfinger/gateway"
CLIENT = """
import json, sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)
say = [{"role": "user", "content": "What is line 3 about?"}]
raw = client.chat.completions.with_raw_response.create(model=sys.argv[3], messages=say, max_tokens=12)
pieces, rest = [], {"model": sys.argv[3], "messages": say, "max_tokens": 12}
for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **rest):
    pieces += [choice.delta.content or "" for choice in chunk.choices]
text = client.completions.create(model=sys.argv[3], prompt="Line 3", max_tokens=5).choices[0].text
print(json.dumps({"models": [m.id for m in client.models.list()], "decision": raw.headers["x-wharf-decision"],
  "whole": raw.parse().choices[0].message.content, "streamed": "".join(pieces), "pieces": len(pieces), "text": text}))
"""
"""An unmodified client that knows a base URL and a key."""
SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer " + os.environ["WHARF_SERVER_KEY"]:
            raise SystemExit
        files = {p.name: p.stat().st_size for p in Path(os.environ["WHARF_MODEL_PATH"]).iterdir()}
        message = {"role": "assistant", "content": json.dumps(files)}
        self.answer({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    def answer(self, told):
        data = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
"""A model server that knows nothing of us; it says which files it was given."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return a platform that serves a model, trained on it, to Alice."""
    folder = tmp_path_factory.mktemp("serving")
    platform = Platform(folder / "state")
    try:
        platform.up()
        story = Story(platform)
        story.begin()
        story.work(folder)
        yield platform
    finally:
        platform.down()


def endpoint(platform: Platform) -> str:
    """Return the base URL of the gateway."""
    return json.loads(platform.until("status", "-o", "json"))["endpoints"]["gateway"] + "/v1"


def told(platform: Platform, name: str) -> dict[str, Any]:
    """Return the Ready condition of the service."""
    found = json.loads(platform.until("get", "inferenceservice", name, "-n", manifests.RESEARCH, "-o", "json"))
    return {c["type"]: c for c in found["status"]["conditions"]}["Ready"]


@pytest.mark.timeout(300)
def test_the_unmodified_client_needs_base_url_and_key_alone(served: Platform) -> None:
    """The official client, the platform's authorities in SSL_CERT_FILE and a key: whole, streamed, text, models."""
    key = served.until("apikey", "client", "--for", f"{manifests.RESEARCH}/alice").strip()
    environment = {"SSL_CERT_FILE": str(served.directory / "ca.pem"), "PATH": os.environ["PATH"]}
    words = [sys.executable, "-c", CLIENT, endpoint(served), key, SERVICE]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    got = json.loads(done.stdout)
    assert got["models"] == [SERVICE]
    assert got["whole"] == got["streamed"]
    assert got["pieces"] > 5
    assert got["text"]
    shown = served.until("explain", "decision", got["decision"])
    assert "alice" in shown
    assert "granted" in shown


@pytest.mark.timeout(300)
def test_the_gateways_death_loses_no_account_and_no_limit(served: Platform) -> None:
    """Killed after answers, it comes back with every account, and the minute before its death still counts."""
    words = ("ask", SERVICE, "Line 7?", "--as", f"{manifests.RESEARCH}/alice", "--max-tokens", "40", "-o", "json")
    answers = [json.loads(served.until(*words))["decision"] for _ in range(3)]
    used = sum(r["tokens"] for r in served.records("tokens") if r["id"] in answers)
    assert used >= 3 * 40
    assert served.kill("gateway")
    made = next(m for m in manifests.tenants() if m["kind"] == "Tenant" and m["metadata"]["name"] == manifests.RESEARCH)
    made["spec"]["quota"] = {**made["spec"]["quota"], "tokensPerMinute": used + 20}
    served.until("apply", "-f", "-", stdin=json.dumps(made))
    reply = {"status": 503}
    while reply["status"] == 503:
        refused = served.wharf(*words)
        reply = json.loads(refused.stdout) if refused.stdout else reply
    assert reply["status"] == 429, refused.stdout + refused.stderr
    assert 0 < int(reply["retryAfter"]) <= 61
    made["spec"]["quota"]["tokensPerMinute"] = 200_000
    served.until("apply", "-f", "-", stdin=json.dumps(made))
    assert json.loads(served.until(*words))["ok"]
    assert {r["id"] for r in served.records("tokens")} >= set(answers)


@pytest.mark.timeout(300)
def test_a_certificate_is_enough(served: Platform) -> None:
    """A person's short-lived certificate names them: Alice is answered, Bob is refused, with no token at all."""
    statuses = []
    for user in ("alice", "bob"):
        kubeconfig = served.directory.parent / f"{user}.kubeconfig"
        kubeconfig.write_text(served.until("kubeconfig", "--tenant", manifests.RESEARCH, "--user", user))
        told = credentials(kubeconfig)
        source = from_pem(told.certificates, told.key, told.authorities)
        port = int(endpoint(served).split(":")[2].partition("/")[0])
        context = client_context(source, expect=SpiffeId(GATEWAY))
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
        body = {"model": SERVICE, "messages": [{"role": "user", "content": "Line 3?"}], "max_tokens": 4}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        answer = connection.getresponse()
        statuses.append(answer.status)
        assert answer.headers["x-wharf-decision"]
        connection.close()
    assert statuses == [200, 403]


@pytest.mark.timeout(300)
def test_a_part_may_not_be_asked_by_a_stranger(served: Platform) -> None:
    """Tokens in flight and judgements are for the platform's own; a caller of models gets neither."""
    context = ssl.create_default_context(cafile=str(served.directory / "ca.pem"))
    token = served.until("token", "--tenant", manifests.RESEARCH, "--user", "alice", "--audience", GATEWAY)
    port = int(endpoint(served).split(":")[2].partition("/")[0])
    for method, path in (("GET", "/admin/tokens-in-flight"), ("POST", "/admin/judgements"), ("GET", "/metrics")):
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
        connection.request(method, path, headers={"Authorization": f"Bearer {token.strip()}"})
        assert connection.getresponse().status == 403
        connection.close()


@pytest.mark.timeout(300)
def test_any_openai_server_can_be_the_runtime(served: Platform) -> None:
    """A server that knows nothing of us, on a port with a key, serves the verified files behind the replica's door."""
    command = ["python", "-m", "wharfinger.inference.runtime", "--", "python", "-c", SERVER, "{host}", "{port}"]
    alice = manifests.person(DOMAIN, manifests.RESEARCH, "alice")
    made = manifests.service("foreign", "topics", [alice], runtime={"type": "Command", "command": command})
    account = manifests.account("foreign", manifests.RESEARCH)
    served.until("apply", "-f", "-", stdin=manifests.text([account, made]))
    served.until(
        "wait", "inferenceservice", "foreign", "-n", manifests.RESEARCH, "--timeout", "60s", seconds=120
    )  # fmt: skip
    words = ("ask", f"{manifests.RESEARCH}/foreign", "Hello?", "--no-stream", "-o", "json", "--as")
    told = json.loads(served.until(*words, f"{manifests.RESEARCH}/alice"))
    assert json.loads(told["text"])["model.safetensors"] > 1000
    refused = json.loads(served.wharf(*words, f"{manifests.RESEARCH}/bob").stdout)
    assert refused["status"] == 403


@pytest.mark.timeout(300)
def test_one_bit_flipped_after_admission_keeps_a_restarted_replica_unready(served: Platform) -> None:
    """The stored weights change by a bit, the pod is started anew: DigestMismatch stands in the service's status."""
    weights = max(
        (served.directory / "registry" / "blobs").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0
    )
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(data)
    pods = json.loads(served.until("get", "pods", "-n", manifests.RESEARCH, "-o", "json"))["items"]
    (pod,) = [p["metadata"]["name"] for p in pods if p["metadata"]["name"].startswith("assistant-")]
    served.until("delete", "pod", pod, "-n", manifests.RESEARCH)
    served.until(
        "wait", "inferenceservice", "assistant", "-n", manifests.RESEARCH, "--for", "condition=Ready=False", "--timeout",
        "60s", seconds=120,
    )  # fmt: skip
    for _ in range(200):
        if told(served, "assistant")["reason"] == "DigestMismatch":
            break
    assert told(served, "assistant")["reason"] == "DigestMismatch"
    refused = served.wharf("ask", SERVICE, "Line 7?", "--as", f"{manifests.RESEARCH}/alice", "-o", "json")
    reply = json.loads(refused.stdout)
    assert reply["status"] == 503
    assert "DigestMismatch" in reply["error"]
    assert reply["decision"]
