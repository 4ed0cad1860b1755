"""The console: pages say what objects say, each has its twin, nobody sees it without the token."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import wharfinger.console.app as console
from wharfinger.console import views
from wharfinger.core.clock import MINUTE, SECOND, rfc3339_micro

NOW = 1_800_000_000 * SECOND
DRIVER = "gpu.wharfinger.io"


class Hand:
    """A clock set by hand."""

    def now(self) -> int:
        """Return the time that was set."""
        return NOW

    def monotonic(self) -> int:
        """Return the same."""
        return NOW


class Shelf:
    """A reader of a small cluster: two tenants, one GPU cut in two, one of its slices held."""

    def objects(self) -> views.Objects:
        """Return the objects."""
        return {
            "tenants": [
                {
                    "metadata": {"name": "red"},
                    "spec": {"namespaces": ["red-ml"], "quota": {"gpu": {"memory": "80Gi", "computeSlices": 7}, "tokensPerMinute": 100}},
                    "status": {"used": {"memory": "72Gi", "computeSlices": 1}},
                },
                {"metadata": {"name": "blue"}, "spec": {"namespaces": ["blue-ml"]}},
            ],
            "models": [
                {
                    "metadata": {"name": "prose", "namespace": "red-ml"},
                    "spec": {"artifact": {"repository": "red-ml/prose", "digest": "sha256:" + "a" * 64}},
                    "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Unsigned", "message": "<b>no signature</b>"}]},
                }
            ],
            "resourceslices": [
                {
                    "metadata": {"name": "n1"},
                    "spec": {
                        "driver": DRIVER,
                        "pool": {"name": "n1"},
                        "nodeName": "n1",
                        "devices": [
                            {"name": "gpu-0", "attributes": {"uuid": {"string": "GPU-0"}, "productName": {"string": "H100"}},
                             "capacity": {"memory": {"value": "80Gi"}}},
                            {"name": "gpu-0-1g", "attributes": {"uuid": {"string": "MIG-1"}, "parentUUID": {"string": "GPU-0"},
                             "profile": {"string": "1g.10gb"}, "computeSlices": {"int": 1}}},
                        ],
                    },
                }
            ],
            "resourceclaims": [
                {
                    "metadata": {"name": "c", "namespace": "red-ml"},
                    "status": {
                        "allocation": {"devices": {"results": [{"driver": DRIVER, "pool": "n1", "device": "gpu-0-1g"}]}},
                        "reservedFor": [{"name": "chat-0", "uid": "u"}],
                    },
                }
            ],
        }  # fmt: skip

    def decisions(self) -> Sequence[dict[str, Any]]:
        """Return one refusal."""
        return [
            {"id": "d1", "at": rfc3339_micro(NOW - SECOND), "part": "gateway", "allowed": False, "element": "caller",
             "reason": "not in the grant", "who": "spiffe://x/y", "verb": "call", "what": "m", "tenant": "red"},
        ]  # fmt: skip

    def tokens(self) -> Sequence[dict[str, Any]]:
        """Return two accounts of the last minute and one of before."""
        return [
            {"at": rfc3339_micro(NOW - age), "tenant": "red", "tokens": 40, "ttftMilliseconds": 12.0}
            for age in (SECOND, 2 * SECOND, 5 * MINUTE)
        ]

    def faults(self) -> Sequence[str]:
        """Return nothing."""
        return []


@pytest.fixture
def client() -> TestClient:
    """Return a browser that shows the token."""
    return TestClient(console.app(Shelf(), "let-me-in", Hand()), headers={"Authorization": "Bearer let-me-in"})


@pytest.mark.parametrize("page", console.PAGES)
def test_every_page_has_a_twin_with_the_same_facts(client: TestClient, page: str) -> None:
    """The page and its JSON are rendered from one dictionary; the page shows the equal command."""
    html, twin = client.get(f"/{page}"), client.get(f"/{page}.json")
    assert html.status_code == twin.status_code == 200
    assert twin.json()["command"] in html.text
    assert "default-src 'none'" in html.headers["content-security-policy"]
    assert "http://" not in html.text.replace("http://www.w3.org", "")


@pytest.mark.parametrize("page", [*console.PAGES, *(f"{page}.json" for page in console.PAGES)])
def test_nobody_sees_a_page_without_the_token(page: str) -> None:
    """No token and a wrong one are 401 on every page and twin; the right one becomes a cookie out of scripts' reach."""
    pages = console.app(Shelf(), "let-me-in", Hand())
    browser = TestClient(pages, base_url="https://testserver", follow_redirects=False)
    assert browser.get(f"/{page}").status_code == 401
    assert browser.get(f"/{page}?token=guess").status_code == 401
    answer = browser.get(f"/{page}?token=let-me-in")
    assert answer.status_code == 303
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "Secure" in answer.headers["set-cookie"]
    assert "SameSite=strict" in answer.headers["set-cookie"]
    assert browser.get(f"/{page}").status_code == 200


def test_untrusted_text_is_escaped(client: TestClient) -> None:
    """A condition's message is text, not markup."""
    text = client.get("/overview").text
    assert "&lt;b&gt;no signature&lt;/b&gt;" in text
    assert "<b>no" not in text


def test_the_overview_names_what_needs_attention() -> None:
    """A model that is not ready is there with its reason; decisions of the last quarter hour are counted."""
    shelf = Shelf()
    shown = views.overview(shelf.objects(), shelf.decisions(), shelf.tokens(), ["gateway/00000001.log at byte 7"], NOW)
    assert [(a["kind"], a["name"], a["reason"]) for a in shown["attention"]] == [
        ("evidence", "gateway/00000001.log at byte 7", "Damaged"),
        ("models", "prose", "Unsigned"),
    ]
    tiles = {tile["label"]: (tile["number"], tile["of"]) for tile in shown["tiles"]}
    assert (tiles["allowed, 15 min"], tiles["refused, 15 min"]) == ((0, None), (1, None))
    assert (tiles["GPUs in use"], tiles["models ready"], tiles["tokens, last minute"]) == ((1, 1), (0, 1), (80, None))
    assert [refusal["id"] for refusal in shown["refusals"]] == ["d1"]


def test_the_map_shows_who_holds_which_slice() -> None:
    """The held slice lies on its GPU with its tenant's colour and its pod."""
    node = views.gpus(Shelf().objects())["nodes"][0]
    gpu = node["gpus"][0]
    assert (node["name"], gpu["uuid"], gpu["free"], gpu["left"]) == ("n1", "GPU-0", False, 6)
    assert [(d["uuid"], d["tenant"], d["holder"]) for d in gpu["held"]] == [("MIG-1", "red", "red-ml/chat-0")]


def test_quota_bars_say_used_of_limit() -> None:
    """Bars are in the units that people think in, and red when nearly full."""
    bars = views.tenants(Shelf().objects(), {"red": 80})["tenants"][1]["bars"]
    assert [(b["label"], b["used"], b["limit"], b["percent"]) for b in bars] == [
        ("GPU memory", 72.0, 80.0, 90),
        ("Compute slices", 1.0, 7.0, 14),
        ("Tokens a minute", 80.0, 100.0, 80),
    ]


def test_usage_is_a_point_a_minute() -> None:
    """Tokens add up by minute; a minute without answers has no latency."""
    shown = views.usage(Shelf().tokens(), NOW)
    assert sum(shown["tokens"]) == 120
    assert len(shown["seconds"]) == len(shown["tokens"]) == len(shown["ttftMilliseconds"]) == 30
    assert shown["ttftMilliseconds"].count(None) == 28


def test_vendored_files_are_the_ones_that_were_taken() -> None:
    """What comes from elsewhere is named with version, licence and digest, and is unchanged."""
    static = Path(console.__file__).parent / "static"
    listed = {entry["file"]: entry["sha256"] for entry in json.loads((static / "vendored.json").read_text())}
    for name, digest in listed.items():
        assert hashlib.sha256((static / name).read_bytes()).hexdigest() == digest
    own = {"console.css", "console.js", "vendored.json"}
    others = {p.name for p in static.iterdir() if not re.search(r"LICENSE$", p.name)} - own
    assert others == set(listed)


def test_decisions_can_be_narrowed_to_refusals(client: TestClient) -> None:
    """`?only=` chooses in page and twin alike; anything else than the two words shows all."""
    assert len(client.get("/decisions.json?only=refused").json()["decisions"]) == 1
    assert client.get("/decisions.json?only=allowed").json()["decisions"] == []
    assert len(client.get("/decisions.json?only=<x>").json()["decisions"]) == 1
    assert "&lt;x&gt;" not in client.get("/decisions?only=<x>").text


def test_tables_show_ids_briefly() -> None:
    """Digests are cut and SPIFFE IDs shown by their paths; other text stays."""
    shown = views.brief("spiffe://wharfinger.local/ns/red/sa/a may not load sha256:" + "ab" * 32)
    assert shown == "ns/red/sa/a may not load sha256:abababababab…"
