"""Identity on the whole platform: rotation, deaths of the issuer, people, and processes that nobody introduced."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from platform_under_test import Platform

from wharfinger.bootstrap.operations import port_of
from wharfinger.bootstrap.state import State
from wharfinger.cluster.endpoint import credentials
from wharfinger.core.errors import Unavailable
from wharfinger.identity.workloadsource import WorkloadSource

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

TENANT = """
apiVersion: v1
kind: Namespace
metadata: {name: research}
---
apiVersion: wharfinger.io/v1alpha1
kind: Tenant
metadata: {name: research}
spec:
  namespaces: [research]
  admins: [ada]
  quota: {gpu: {memory: 10Gi, computeSlices: 1}, tokensPerMinute: 1000}
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose SVIDs live for six seconds."""
    made = Platform(tmp_path_factory.mktemp("identity") / "s", {"WHARF_SVID_SECONDS": "6"})
    made.up()
    made.until("apply", "-f", "-", stdin=TENANT)
    yield made
    made.down()
    until(lambda: made.processes() == {})


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not become so"
        time.sleep(0.2)


def _issued(platform: Platform, part: str) -> int:
    who = f"spiffe://wharfinger.local/wharfinger/{part}"
    return sum(
        1
        for record in platform.records("decision")
        if record["part"] == "issuer" and record["who"] == who and record["what"] == "x509-svid" and record["allowed"]
    )


def test_the_platform_works_over_many_rotations(platform: Platform) -> None:
    """Long after the first SVIDs have expired every part has a new one, each is on record, and requests go through."""
    until(lambda: all(_issued(platform, part) >= 5 for part in ("api", "registry", "node", "control", "gateway")))
    assert json.loads(platform.until("get", "tenants", "-o", "json"))["items"]
    assert json.loads(platform.until("status", "-o", "json"))["ok"]


def test_a_person_comes_with_a_certificate_and_with_a_token(platform: Platform, tmp_path: Path) -> None:
    """The kubeconfig of a person reads their namespace and no other; a JWT-SVID says the same of them."""
    file = tmp_path / "ada"
    platform.until("kubeconfig", "--tenant", "research", "--user", "ada", "-o", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    ada = Platform(platform.directory)
    ada.environment["KUBECONFIG"] = str(file)
    assert ada.wharf("get", "pods", "-n", "research").returncode == 0
    refused = ada.wharf("get", "pods", "-n", "default")
    assert refused.returncode == 1 and "people of research have no part in namespace default" in refused.stderr
    token = platform.until("token", "--tenant", "research", "--user", "ada", "--audience", "api").strip()
    assert _whoami(platform, token) == "spiffe://wharfinger.local/tenant/research/user/ada"
    meant_for_another = platform.until("token", "--tenant", "research", "--user", "ada").strip()
    assert _whoami(platform, meant_for_another) == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tenant", "nowhere", "--user", "ada"), 'no tenant "nowhere"'),
        (("--tenant", "research", "--user", "a/b"), '"a/b"'),
        (("--tenant", "research", "--user", ""), "user: expected a text"),
        (("--tenant", "research", "--user", "ada", "--ttl", "48h"), "from 1 to 86400 seconds"),
        (("--tenant", "research", "--user", "ada", "--ttl", "soon"), "expected a time such as 30m or 8h"),
    ],
)
def test_nobody_is_made_up(platform: Platform, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    """A tenant that is not there, a name that is none, a time too long: exit code 2, no file, what is wrong is named."""
    file = tmp_path / "kubeconfig"
    refused = platform.wharf("kubeconfig", *words, "-o", str(file))
    assert refused.returncode == 2
    assert told in refused.stderr
    assert not file.exists()


def _whoami(platform: Platform, token: str) -> str:
    """Return whom the API server takes the holder of `token` for, empty when it takes them for nobody."""
    state = State(platform.directory)
    context = ssl.create_default_context(cadata=credentials(state.kubeconfig).authorities.decode())
    connection = http.client.HTTPSConnection("localhost", port_of(state, "api"), context=context, timeout=20)
    body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body, headers)
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    return str(told["status"]["userInfo"]["username"]) if answer.status < 400 else ""


def test_a_process_that_nobody_introduced_gets_nothing(platform: Platform) -> None:
    """Even of the same user, with the path of the socket: the kernel says that it is no part of the platform."""
    source = WorkloadSource(platform.directory / "run" / "issuer.sock", wait=3)
    with pytest.raises(Unavailable, match="is no part of the platform"):
        source.material()
    source.close()


def test_an_issuer_that_dies_comes_back_as_itself(platform: Platform, tmp_path: Path) -> None:
    """After kill -9 the same root issues again, the parts are known again, and a certificate from before still holds."""
    root = credentials(platform.directory / "kubeconfig").authorities
    file = tmp_path / "ada"
    platform.until("kubeconfig", "--tenant", "research", "--user", "ada", "-o", str(file))
    before, pid = _issued(platform, "api"), platform.pids()["issuer"]
    assert platform.kill("issuer")
    until(lambda: platform.pids().get("issuer") not in {None, pid} and _issued(platform, "api") >= before + 2)
    platform.until("token", "--tenant", "research", "--user", "ada")
    ada = Platform(platform.directory)
    ada.environment["KUBECONFIG"] = str(file)
    assert ada.wharf("get", "pods", "-n", "research").returncode == 0
    platform.down()
    platform.up()
    assert credentials(platform.directory / "kubeconfig").authorities == root
    assert ada.wharf("get", "pods", "-n", "research").returncode == 0


def test_keys_tokens_and_certificates_reach_no_log(platform: Platform) -> None:
    """No log and no journal holds a private key, a token, or an API key."""
    key = platform.until("apikey", "for-logs", "--for", "research/ada").strip()
    token = platform.until("token", "--tenant", "research", "--user", "ada").strip()
    texts = [
        path.read_text(errors="replace")
        for folder in ("logs", "evidence")
        for path in (platform.directory / folder).rglob("*.log")
    ]
    assert texts
    for text in texts:
        assert key not in text and token not in text and "PRIVATE KEY" not in text
