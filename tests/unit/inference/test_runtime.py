"""The runtime: loads what it verified, serves the gateway alone, asks its grant for every caller."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.authority import Authority, identity
from wharfinger.core.clock import HOUR, rfc3339
from wharfinger.core.digests import sha256
from wharfinger.core.errors import DigestMismatch, Invalid, Malformed
from wharfinger.core.systemclock import SystemClock
from wharfinger.core.systemids import SystemIds
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context, server_context
from wharfinger.inference.language import CONFIG, VOCABULARY, WEIGHTS, train
from wharfinger.inference.listener import Listener, bind
from wharfinger.inference.runtime.__main__ import setting
from wharfinger.inference.runtime.door import RuntimeDoor
from wharfinger.inference.runtime.loading import pull
from wharfinger.inference.runtime.server import Runtime
from wharfinger.policy.doorkeeper import Doorkeeper
from wharfinger.policy.journal import Journal, read
from wharfinger.supply.registry.client import Pulled
from wharfinger.supply.registry.oci import TITLE, Descriptor, Manifest

ALICE = identity("tenant/red/user/alice")
WORKLOAD = identity("ns/red-ml/sa/chat")
MODEL = train({"a.txt": "The wharfinger keeps the wharf. A crane lifts the cargo.\n" * 100})


class Shelf:
    """A registry of one model; `flip` changes one bit of a file after it was pushed."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.blobs: dict[str, bytes] = {}
        layers = []
        for name, data in files.items():
            layers.append(Descriptor.of("application/octet-stream", data, {TITLE: name}))
            self.blobs[layers[-1].digest] = data
        self.manifest = Manifest(config=Descriptor.of("application/json", b"{}"), layers=tuple(layers))
        self.data = self.manifest.encode()
        self.digest = sha256(self.data)

    def flip(self, name: str) -> None:
        """Change the lowest bit of a file's middle byte."""
        blob = next(layer.digest for layer in self.manifest.layers if layer.annotations[TITLE] == name)
        data = bytearray(self.blobs[blob])
        data[len(data) // 2] ^= 1
        self.blobs[blob] = bytes(data)

    def pull_manifest(self, repository: str, reference: str) -> Pulled:
        """Return the manifest, whatever was asked for."""
        return Pulled(self.manifest, reference, self.data)

    def pull_blob(self, repository: str, blob: Descriptor) -> bytes:
        """Return what is stored, unverified."""
        return self.blobs[blob.digest]


def test_what_is_loaded_is_what_was_signed() -> None:
    """The model that comes out of the registry answers as the one that was pushed."""
    shelf = Shelf(MODEL.files())
    loaded = pull(shelf, "red-ml/prose", shelf.digest)
    asked = "what does the wharfinger do?"
    assert list(loaded.generate(asked, most=9)) == list(MODEL.generate(asked, most=9))


@pytest.mark.parametrize("name", [WEIGHTS, VOCABULARY, CONFIG])
def test_one_flipped_bit_in_any_file_is_a_digest_mismatch(name: str) -> None:
    """Whatever the registry itself thinks of its bytes, the replica refuses them and names the file."""
    shelf = Shelf(MODEL.files())
    shelf.flip(name)
    with pytest.raises(DigestMismatch, match=name):
        pull(shelf, "red-ml/prose", shelf.digest)


def test_another_manifest_and_a_model_without_weights_are_refused() -> None:
    """A registry that answers with another artifact is found out; so is an artifact that is no model."""
    shelf = Shelf(MODEL.files())
    with pytest.raises(DigestMismatch, match="manifest"):
        pull(shelf, "red-ml/prose", "sha256:" + "0" * 64)
    other = Shelf({"README.md": b"nothing"})
    with pytest.raises(Malformed, match=r"model\.safetensors"):
        pull(other, "red-ml/prose", other.digest)


ENVIRONMENT = {
    "WHARF_MODEL_REPOSITORY": "red-ml/prose", "WHARF_MODEL_DIGEST": "sha256:" + "0" * 64, "WHARF_MODEL_NAME": "prose",
    "WHARF_NAMESPACE": "red-ml", "WHARF_POD": "chat-0", "WHARF_POD_IP": "127.64.0.2", "WHARF_PORT": "8443",
    "WHARF_API": "https://127.0.0.1:1", "WHARF_REGISTRY": "https://127.0.0.1:2", "WHARF_TRUST_DOMAIN": "test.local",
    "WHARF_JOURNAL": "/journal", "WHARF_DEVICES": "MIG-1,MIG-2",
}  # fmt: skip


def test_the_environment_is_read_strictly() -> None:
    """Everything is there or the variable that is not is named."""
    told = setting(ENVIRONMENT)
    assert (told.api, told.registry, told.device, told.pace) == (("127.0.0.1", 1), ("127.0.0.1", 2), "MIG-1", 0.0)
    for name in ENVIRONMENT.keys() - {"WHARF_DEVICES"}:
        with pytest.raises(Invalid, match=name):
            setting({k: v for k, v in ENVIRONMENT.items() if k != name})
    for name, wrong in (("WHARF_PORT", "http"), ("WHARF_API", "http://127.0.0.1:1"), ("WHARF_REGISTRY", "here")):
        with pytest.raises(Invalid):
            setting({**ENVIRONMENT, name: wrong})


class Replica:
    """A runtime on loopback behind mTLS, with grants that a test may change."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority()
        self.folder = folder
        self.grants = [grant()]
        self.journal = Journal(folder)
        clock = SystemClock()
        keeper = Doorkeeper("runtime", self.journal, clock, SystemIds())
        door = RuntimeDoor(
            keeper, lambda: self.grants, clock,
            gateway=SpiffeId(identity("wharfinger/gateway")), who=WORKLOAD, what="sha256:" + "a" * 64, device="MIG-1",
        )  # fmt: skip
        self.runtime = Runtime("prose", door, clock, SystemIds())
        self.runtime.load(MODEL)
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        context = server_context(self.authority.source("ns/red-ml/sa/chat"), client_certs="required")
        self.listener = Listener(self.runtime.handle, bind("127.0.0.1", 0), context)
        asyncio.run_coroutine_threadsafe(self.listener.start(), self.loop).result()

    def ask(self, who: str = "wharfinger/gateway", caller: str = ALICE, **body: Any) -> http.client.HTTPResponse:
        """Ask as the holder of an SVID of `who`, on behalf of `caller`."""
        context = client_context(self.authority.source(who), expect=SpiffeId(WORKLOAD))
        connection = http.client.HTTPSConnection("127.0.0.1", self.listener.port, context=context, timeout=30)
        told = {"model": "prose", "messages": [{"role": "user", "content": "the wharfinger"}], "max_tokens": 8, **body}
        headers = {"X-Wharf-Caller": caller} if caller else {}
        connection.request("POST", "/v1/chat/completions", json.dumps(told), headers)
        return connection.getresponse()

    def get(self, path: str, who: str) -> tuple[int, str]:
        """Return status and text of a GET by the holder of an SVID of `who`."""
        context = client_context(self.authority.source(who), expect=SpiffeId(WORKLOAD))
        connection = http.client.HTTPSConnection("127.0.0.1", self.listener.port, context=context, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def close(self) -> None:
        """End it."""
        asyncio.run_coroutine_threadsafe(self.listener.stop(grace=0), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.journal.close()


def grant(**changes: Any) -> dict[str, Any]:
    """Return a grant for Alice."""
    now = SystemClock().now()
    return {
        "workload": WORKLOAD, "pod": "chat-0", "artifacts": ["sha256:" + "a" * 64], "callers": [ALICE],
        "claim": {"devices": [{"uuid": "MIG-1"}]}, "notBefore": rfc3339(now - HOUR), "notAfter": rfc3339(now + HOUR),
        "revoked": False, **changes,
    }  # fmt: skip


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    """Return a running replica."""
    made = Replica(tmp_path)
    yield made
    made.close()


def test_the_gateway_is_served_for_a_granted_caller(replica: Replica) -> None:
    """The answer is the model's, and the decision stands in the replica's own journal."""
    told = json.loads(replica.ask().read())
    assert told["choices"][0]["message"]["content"]
    assert told["usage"]["completion_tokens"] == 8
    (stored,) = [r for r in read(replica.folder) if r["kind"] == "decision"]
    assert (stored["who"], stored["part"], stored["allowed"]) == (ALICE, "runtime", True)


@pytest.mark.parametrize("who", ["tenant/red/user/alice", "ns/red-ml/sa/chat", "wharfinger/control"])
def test_nobody_but_the_gateway_is_heard(replica: Replica, who: str) -> None:
    """A caller who may call the model, the workload itself and another part are refused, and that they tried is stored."""
    assert replica.ask(who).status == 403
    (stored,) = [r for r in read(replica.folder) if r["kind"] == "decision"]
    assert (stored["who"], stored["allowed"], stored["element"]) == (identity(who), False, "peer")


def test_without_a_certificate_there_is_no_connection(replica: Replica) -> None:
    """Going around the gateway with plain TLS fails."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", replica.listener.port, context=context, timeout=10)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        connection.request("GET", "/v1/models")
        connection.getresponse().read()


@pytest.mark.parametrize(
    ("changes", "element"),
    [
        ({"callers": [identity("tenant/red/user/bob")]}, "caller"),
        ({"workload": identity("ns/red-ml/sa/other")}, "identity"),
        ({"artifacts": ["sha256:" + "b" * 64]}, "artifact"),
        ({"claim": {"devices": [{"uuid": "MIG-2"}]}}, "device"),
        ({"revoked": True}, "revocation"),
    ],
)
def test_the_gateways_word_is_not_enough(replica: Replica, changes: dict[str, Any], element: str) -> None:
    """Without a grant of its own for just this the replica refuses, and its journal names the element."""
    replica.grants = [grant(**changes)]
    assert replica.ask().status == 403
    (stored,) = [r for r in read(replica.folder) if r["kind"] == "decision"]
    assert (stored["allowed"], stored["element"]) == (False, element)


def test_metrics_are_for_the_platforms_parts(replica: Replica) -> None:
    """A part reads how calls ended; whom the model answers, and the workload itself, may not."""
    replica.ask().read()
    replica.ask(caller="").read()
    status, text = replica.get("/metrics", "wharfinger/control")
    assert status == 200
    for outcome in ("ok", "Forbidden"):
        assert f'wharf_runtime_calls_total{{outcome="{outcome}"}}' in text
    for who in ("tenant/red/user/alice", "ns/red-ml/sa/chat"):
        status, text = replica.get("/metrics", who)
        assert status == 403 and "wharf_runtime_calls" not in text


def test_a_replica_says_why_it_is_not_ready(replica: Replica) -> None:
    """Anyone with an identity may ask; a reason takes the place of the model."""
    assert replica.get("/readyz", "ns/red-ml/sa/other") == (200, "ok\n")
    replica.runtime.refuse("the model is gone")
    assert replica.get("/readyz", "ns/red-ml/sa/other") == (503, "the model is gone\n")


def test_a_request_that_names_no_caller_is_refused(replica: Replica) -> None:
    """The gateway always says who asks; what does not is not from it."""
    assert replica.ask(caller="").status == 403


def test_a_revoked_grant_breaks_the_stream_off(replica: Replica) -> None:
    """In the middle of an answer: the stream ends without an end mark, and why is stored."""
    replica.runtime._pace = 0.01
    answer = replica.ask(stream=True, max_tokens=4000)
    assert answer.readline().startswith(b"data:")
    replica.grants = [grant(revoked=True, revokedReason="by the test")]
    replica.loop.call_soon_threadsafe(replica.runtime.judge_again)
    with pytest.raises((http.client.IncompleteRead, ConnectionError, ssl.SSLError)):
        answer.read()
    stored = [r for r in read(replica.folder) if r["kind"] == "decision"]
    assert [(r["verb"], r["element"]) for r in stored] == [("call", ""), ("stream", "revocation")]
