"""The work queue: each key once, never to two workers, later again when it failed."""

from __future__ import annotations

import threading
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from world import SetClock

from wharfinger.cluster.workqueue import FIRST_PAUSE, LONGEST_PAUSE, WorkQueue, backoff
from wharfinger.core.clock import MILLISECOND, SECOND


def queue(clock: SetClock | None = None) -> WorkQueue[str]:
    """Return a queue without jitter."""
    return WorkQueue(clock or SetClock(), draw=lambda: 0.0)


def test_a_key_added_twice_is_worked_on_once() -> None:
    """Until it is taken; order is that of the first adding."""
    work = queue()
    for key in ("a", "b", "a"):
        work.add(key)
    assert (work.take(), work.take(), len(work)) == ("a", "b", 0)


def test_a_key_added_while_it_is_worked_on_comes_again_afterwards() -> None:
    """Never to two workers at a time, and the change is not lost."""
    work = queue()
    work.add("a")
    assert work.take() == "a"
    work.add("a")
    assert len(work) == 0
    work.done("a")
    assert work.take() == "a"
    work.done("a")
    assert len(work) == 0


def test_a_failing_key_comes_back_after_pauses_that_double() -> None:
    """And from the first pause again when it has succeeded."""
    work = queue()
    assert [work.failed("a") for _ in range(3)] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    work.succeeded("a")
    assert work.failed("a") == FIRST_PAUSE


def test_a_waiting_key_ripens_with_the_clock() -> None:
    """Not before its time; in the order of times."""
    clock = SetClock()
    work = queue(clock)
    work.add_after("late", 200 * MILLISECOND)
    work.add_after("soon", 100 * MILLISECOND)
    work.add_after("now", 0)
    assert work.take() == "now"
    clock.pass_(SECOND)
    assert (work.take(), work.take()) == ("soon", "late")


def test_a_key_that_waits_and_is_added_is_worked_on_once() -> None:
    """What ripens while it is ready already is not there twice."""
    clock = SetClock()
    work = queue(clock)
    work.add_after("a", SECOND)
    work.add("a")
    clock.pass_(2 * SECOND)
    work.add("b")
    assert (work.take(), work.take(), len(work)) == ("a", "b", 0)


def test_closing_wakes_everybody() -> None:
    """Those who wait get None; nothing is handed out any more."""
    work = queue()
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(work.take())) for _ in range(4)]
    for thread in threads:
        thread.start()
    work.close()
    for thread in threads:
        thread.join(10)
    work.add("a")
    assert got == [None] * 4 and work.take() is None


def test_eight_workers_never_meet_on_a_key() -> None:
    """Under load each key is with one worker at a time, and the last adding of each is worked on."""
    work: WorkQueue[int] = WorkQueue(SetClock(), draw=lambda: 0.0)
    lock, busy, seen, met = threading.Lock(), set(), Counter[int](), []

    def run() -> None:
        while (key := work.take()) is not None:
            with lock:
                if key in busy:
                    met.append(key)
                busy.add(key)
                seen[key] += 1
            with lock:
                busy.discard(key)
            work.done(key)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        work.add(number % 5)
    while len(work):
        pass
    work.close()
    for thread in threads:
        thread.join(10)
    assert met == [] and set(seen) == set(range(5))


@given(st.integers(1, 200), st.floats(0, 0.999))
def test_a_pause_lies_between_half_and_whole(failures: int, draw: float) -> None:
    """Jitter takes half at most; the cap holds."""
    whole = min(LONGEST_PAUSE, FIRST_PAUSE << min(failures - 1, 40))
    assert whole // 2 <= backoff(failures, draw) <= whole <= LONGEST_PAUSE
    assert backoff(0, draw) == 0
