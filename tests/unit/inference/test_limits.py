"""Token limits and the ledger: exact in every minute, for callers at the same time, across the death of the process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gatehouse import ALICE, Bench
from wharfinger.core.clock import SECOND, rfc3339_micro
from wharfinger.core.errors import Throttled
from wharfinger.inference import limits
from wharfinger.inference.ledger import Ledger
from wharfinger.inference.routing import build
from wharfinger.policy.journal import Journal, read

NOW = 1_800_000_000 * SECOND


class Hand:
    """A clock set by hand."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> int:
        """Return the time that was set."""
        return self.at

    def monotonic(self) -> int:
        """Return the same."""
        return self.at


def test_no_minute_holds_more_than_the_limit() -> None:
    """The whole limit may go at once; then nothing more until it is a minute old."""
    window = limits.settle(limits.reserve(limits.Window(), 100, 100, "red", NOW), 100, 100, NOW)
    for passed in (0, 1, 30, 60):
        with pytest.raises(Throttled) as refused:
            limits.reserve(window, 100, 1, "red", NOW + passed * SECOND)
        later = NOW + (passed + refused.value.retry_after) * SECOND
        assert limits.reserve(window, 100, 1, "red", later).reserved == 1


def test_what_was_reserved_and_not_used_comes_back() -> None:
    """A reservation counts in full until it settles, then what was used counts."""
    window = limits.reserve(limits.Window(), 100, 80, "red", NOW)
    with pytest.raises(Throttled):
        limits.reserve(window, 100, 30, "red", NOW)
    window = limits.settle(window, 80, 10, NOW)
    assert limits.taken(limits.reserve(window, 100, 90, "red", NOW), NOW) == 100


def test_what_never_fits_is_told_so() -> None:
    """A request above the whole limit is refused with an hour to wait and what to do."""
    with pytest.raises(Throttled) as refused:
        limits.reserve(limits.Window(), 100, 101, "red", NOW)
    assert (refused.value.retry_after, refused.value.hint) == (3600, "ask for fewer max_tokens")


steps = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 60), st.integers(0, 60), st.booleans()), max_size=40)


@settings(max_examples=200)
@given(steps, st.integers(50, 150))
def test_no_order_of_requests_passes_the_limit_in_any_minute(
    told: list[tuple[int, int, int, bool]], limit: int
) -> None:
    """Whatever comes when, used within its reservation: at no instant do the last sixty seconds hold more."""
    window, now, running, used_at = limits.Window(), NOW, list[tuple[int, int]](), list[tuple[int, int]]()
    for pause, tokens, used, settles_now in told:
        now += pause * SECOND
        try:
            window = limits.reserve(window, limit, tokens, "red", now)
        except Throttled:
            continue
        running.append((tokens, min(tokens, used)))
        if settles_now:
            for reserved, spent in running:
                window = limits.settle(window, reserved, spent, now)
                used_at.append((now, spent))
            running = []
        assert sum(spent for at, spent in used_at if now - at < 60 * SECOND) <= limit
    assert window.reserved == sum(reserved for reserved, _ in running)


def service(limit: int, caller_limit: int | None = None) -> Any:
    """Return a service of tenant red."""
    made = build(
        [{"metadata": {"namespace": "red-ml", "name": "chat"}, "spec": {"model": "m", "callers": [ALICE]}}],
        [],
        [
            {
                "metadata": {"namespace": "red-ml", "name": "p"},
                "spec": {"limits": {"callerTokensPerMinute": caller_limit}},
            }
        ],
        [{"metadata": {"name": "red"}, "spec": {"namespaces": ["red-ml"], "quota": {"tokensPerMinute": limit}}}],
        "wharfinger.local",
    )
    return made.services["red-ml/chat"]


def test_a_refusal_takes_nothing_from_the_other_limit(tmp_path: Path) -> None:
    """When the caller's own limit refuses, the tenant's window is as before."""
    ledger = Ledger(Journal(tmp_path), Hand())
    held = ledger.reserve(service(100, 10), ALICE, 10)
    with pytest.raises(Throttled, match="alice"):
        ledger.reserve(service(100, 10), ALICE, 10)
    ledger.release(held)
    ledger.reserve(service(100), ALICE, 100)


def test_what_was_settled_counts_on_after_a_start(tmp_path: Path) -> None:
    """The last minute is read back from the journal; older accounts and foreign records are not counted."""
    clock = Hand()
    ledger = Ledger(Journal(tmp_path), clock)
    record = {
        "kind": "tokens",
        "tenant": "red",
        "namespace": "red-ml",
        "service": "chat",
        "caller": ALICE,
        "tokens": 60,
    }
    ledger.restore(
        [
            {**record, "at": rfc3339_micro(NOW - 300 * SECOND)},
            {**record, "at": rfc3339_micro(NOW - 5 * SECOND)},
            {"kind": "decision", "id": "d"},
            {**record, "at": "yesterday"},
        ]
    )
    ledger.reserve(service(100), ALICE, 40)
    with pytest.raises(Throttled):
        ledger.reserve(service(100), ALICE, 1)


CHILD = """
import json, sys
from pathlib import Path
from tests.unit.inference.test_limits import service
from tests.gatehouse import ALICE
from wharfinger.core.systemclock import SystemClock
from wharfinger.inference.accounts import Account
from wharfinger.inference.ledger import Ledger
from wharfinger.policy.journal import Journal
clock = SystemClock()
ledger = Ledger(Journal(Path(sys.argv[1])), clock)
one = service(10_000)
for number in range(10_000):
    held = ledger.reserve(one, ALICE, 40)
    ledger.reserve(one, ALICE, 1)
    ledger.settle(one, held, Account(f"d{number}", clock.now(), ALICE, 1, 2, True, 1.0, "ok")).result()
    print(number, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 25, 60])
def test_a_kill_loses_nothing_settled_and_frees_what_was_reserved(tmp_path: Path, acknowledged: int) -> None:
    """After kill -9 every account that was acknowledged is there, once; no reservation outlives the process."""
    root = Path(__file__).resolve().parents[3]
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(acknowledged)]
    os.kill(child.pid, signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().splitlines()]
    child.wait()
    journal = Journal(tmp_path)
    records = [r for r in read(tmp_path) if r["kind"] == "tokens"]
    ids = [record["id"] for record in records]
    assert len(set(ids)) == len(ids)
    assert {f"d{number}" for number in told} <= set(ids)
    from wharfinger.core.systemclock import SystemClock

    ledger = Ledger(journal, SystemClock())
    ledger.restore(read(tmp_path))
    ledger.reserve(service(10_000), ALICE, 10_000 - 3 * len(ids))
    with pytest.raises(Throttled):
        ledger.reserve(service(10_000), ALICE, 1)
    journal.close()


def test_sixty_four_callers_together_do_not_pass_the_limit(tmp_path: Path) -> None:
    """64 at once, each for 50 tokens of a limit of 1,000: what is used is the limit at most, the others are 429."""
    bench = Bench(tmp_path)
    bench.set(quota=1000)
    bench.upstream.pieces = [f"w{n} " for n in range(43)]
    statuses: list[int] = []
    gate = threading.Barrier(64)

    def ask() -> None:
        gate.wait()
        say = [{"role": "user", "content": "hello there, all of you?"}]
        body = {"model": "red-ml/chat", "messages": say, "max_tokens": 43, "stream": True}
        status, _ = bench.post(body)
        statuses.append(status)

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.close()
    used = sum(record["tokens"] for record in bench.records("tokens"))
    assert used == 50 * statuses.count(200)
    assert used <= 1000
    assert statuses.count(200) == 20
    assert statuses.count(429) == 44
    assert json.dumps(bench.records("decision")).count("tokens a minute") == 44


def test_a_full_disk_closes_the_door(tmp_path: Path) -> None:
    """Where neither decision nor account can be stored nothing is answered, and no answer under way ends as whole."""
    bench = Bench(tmp_path)
    body = {"model": "red-ml/chat", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    assert bench.post(body)[0] == 200
    bench.upstream.on_last = bench.fill_disk
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        bench.post(body)
    bench.upstream.asked.clear()
    status, answer = bench.post(body)
    assert (status, json.loads(answer)["error"]["code"]) == (500, "HostUnfit")
    assert bench.upstream.asked == []
    bench.close()


def test_a_client_that_leaves_at_any_byte_leaves_nothing_behind(tmp_path: Path) -> None:
    """Gone in the middle of its request or of its answer: no reservation stays, and the next caller is served."""
    bench = Bench(tmp_path)
    bench.set(quota=2_000)
    bench.upstream.pieces = ["word "] * 20
    body = json.dumps(
        {"model": "red-ml/chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 30, "stream": True}
    )
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer alice-key\r\nContent-Length: {len(body)}\r\n\r\n"
    request = (head + body).encode()
    for cut in range(0, len(request), 9):
        with socket.create_connection(("127.0.0.1", bench.port)) as line:
            line.sendall(request[:cut])
    for read_bytes in (0, 1, 40, 150, 400, 900):
        with socket.create_connection(("127.0.0.1", bench.port)) as line:
            line.sendall(request)
            got = 0
            while got < read_bytes and (data := line.recv(min(64, read_bytes - got))):
                got += len(data)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    bench.settle()
    status, answer = bench.post(json.loads(body))
    assert (status, answer.endswith(b"data: [DONE]\n\n")) == (200, True)
    bench.settle()
    ledger = bench.ledger
    assert [window.reserved for window in ledger._windows.values()] == [0]
    assert sum(r["tokens"] for r in bench.records("tokens")) == limits.taken(
        *ledger._windows.values(), bench.clock.now()
    )
    bench.close()
