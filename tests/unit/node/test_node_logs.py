"""Pods' logs as kubectl reads them, who may read them, and `wharf logs --part`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from wharfinger.bootstrap.node import Logs
from wharfinger.cli.logs import logs, of_part
from wharfinger.core.clock import SECOND, parse_rfc3339
from wharfinger.core.errors import Malformed, NotFound
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.local.node import podlogs
from wharfinger.local.node.launcher import Log
from wharfinger.local.node.podlogs import Options

LINES = [
    b"2026-11-25T10:00:00.000000001Z stdout F one\n",
    b"2026-11-25T10:00:01.000000001Z stdout P tw\n",
    b"2026-11-25T10:00:01.000000002Z stdout F o\n",
    b"2026-11-25T10:00:02.000000001Z stdout F three\n",
]


def shown(path: Path, options: Options) -> bytes:
    """Return what a caller sees of a log that is whole."""

    async def read() -> bytes:
        return b"".join([piece async for piece in podlogs.read(path, options, lambda: True)])

    return asyncio.run(read())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log that was rotated after its first line."""
    path = tmp_path / "0.log"
    path.with_name("0.log.1").write_bytes(LINES[0])
    path.write_bytes(b"".join(LINES[1:]))
    return path


def test_lines_are_shown_without_their_frame(log: Path) -> None:
    """A caller sees the lines alone, parts put together, the rotated file first."""
    assert shown(log, Options()) == b"one\ntwo\nthree\n"


def test_lines_are_shown_with_their_times(log: Path) -> None:
    """With timestamps each line, not each part, has its time."""
    assert shown(log, Options(timestamps=True)).splitlines() == [
        b"2026-11-25T10:00:00.000000001Z one",
        b"2026-11-25T10:00:01.000000001Z two",
        b"2026-11-25T10:00:02.000000001Z three",
    ]


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (Options(tail=2), b"two\nthree\n"),
        (Options(tail=0), b""),
        (Options(tail=9), b"one\ntwo\nthree\n"),
        (Options(since=parse_rfc3339("2026-11-25T10:00:02Z")), b"three\n"),
        (Options(limit=5), b"one\nt"),
        (Options(tail=1, follow=True), b"three\n"),
    ],
)
def test_a_part_of_a_log_can_be_asked_for(log: Path, options: Options, seen: bytes) -> None:
    """Tail, since and limit are as kubectl means them."""
    assert shown(log, options) == seen


def test_a_log_is_followed_over_its_rotation(tmp_path: Path) -> None:
    """Following shows every line once, also when the file is rotated meanwhile."""
    path = tmp_path / "0.log"
    writer = Log(str(path))
    writer.say("first")

    async def follow() -> bytes:
        got = b""
        over = asyncio.Event()
        async for piece in podlogs.read(path, Options(follow=True), over.is_set):
            got += piece
            if piece == b"first\n":
                writer.say("second")
                writer._rotate()
                writer.say("third")
                over.set()
        return got

    assert asyncio.run(follow()) == b"first\nsecond\nthird\n"
    writer.close()


def test_a_container_that_has_said_nothing_has_an_empty_log(tmp_path: Path) -> None:
    """A log that is not there is an empty one."""
    assert shown(tmp_path / "0.log", Options()) == b""


def test_parameters_are_read_strictly() -> None:
    """Numbers and flags are checked, times are relative or absolute, not both."""
    told = podlogs.options_of({"follow": "true", "tailLines": "3", "sinceSeconds": "2", "container": "c"}, 10 * SECOND)
    assert told == Options(container="c", follow=True, tail=3, since=8 * SECOND)
    for bad in ({"tailLines": "-1"}, {"follow": "maybe"}, {"sinceSeconds": "1", "sinceTime": "2026-11-25T10:00:00Z"}):
        with pytest.raises(Malformed):
            podlogs.options_of(bad, 0)


class Told:
    """As much of the agent as logs need."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, namespace: str, name: str, uid: str, container: str, *, previous: bool) -> tuple[Told, Path]:
        """Return the one log there is."""
        if name != "web":
            raise NotFound(f"pod {namespace}/{name} does not run here")
        return self, self.path

    def has_ended(self, container: str, log: Path) -> bool:
        """It has."""
        return True


def asked(agent: Told, peer: str, path: str = "/v1/logs", query: str = "namespace=n&pod=web") -> tuple[int, bytes]:
    """Return what the node answers."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "extensions": {"wharfinger.peer": SpiffeId(peer) if peer else None},
    }

    class Still:
        def now(self) -> int:
            return 0

        def monotonic(self) -> int:
            return 0

    app = Logs(agent, "spiffe://t/wharfinger/api", Still())  # type: ignore[arg-type]
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    body = b"".join(m["body"] for m in sent if m["type"] == "http.response.body")  # type: ignore[misc]
    return sent[0]["status"], body  # type: ignore[return-value]


def test_the_node_shows_logs_to_the_api_alone(log: Path) -> None:
    """The API server reads logs; any other identity, or none, is refused; what is not there is told in words."""
    agent = Told(log)
    assert asked(agent, "spiffe://t/wharfinger/api") == (200, b"one\ntwo\nthree\n")
    for peer in ("spiffe://t/wharfinger/gateway", "spiffe://t/ns/n/sa/default", ""):
        status, body = asked(agent, peer)
        assert (status, b"one" in body) == (403, False)
    assert asked(agent, "spiffe://t/wharfinger/api", query="namespace=n&pod=x")[0] == 404
    assert asked(agent, "spiffe://t/wharfinger/api", query="pod=web&tailLines=x")[0] == 400
    assert asked(agent, "spiffe://t/wharfinger/api", path="/v1/pods")[0] == 404


def test_the_log_of_a_part_is_shown(tmp_path: Path) -> None:
    """`--part` reads the part's own file, its end when asked; an unknown part is told, with those there are."""
    (tmp_path / "node.log").write_text("a\nb\nc\n")
    assert b"".join(of_part(tmp_path, "node")) == b"a\nb\nc\n"
    assert b"".join(of_part(tmp_path, "node", tail=1)) == b"c\n"
    for name in ("nod", "../node", ""):
        with pytest.raises(NotFound) as refusal:
            list(of_part(tmp_path, name))
        assert refusal.value.hint == "parts: node"


def test_a_pod_or_a_part_is_asked_for(tmp_path: Path) -> None:
    """Neither, both, or an option of pods with a part is refused."""
    for words in ([], ["web", "--part", "node"], ["--part", "node", "--previous"]):
        done = CliRunner().invoke(logs, [*words, "--state-dir", str(tmp_path)])
        assert done.exception is not None and "expected" in str(done.exception)
