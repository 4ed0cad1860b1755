"""The bill: every answer once, every second of silicon once, exact to a hundredth of a cent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Served
from world import NOW

from wharfinger.bootstrap.billing import Spending
from wharfinger.controllers.grant import GrantReconciler
from wharfinger.core.clock import DAY, HOUR, MINUTE, SECOND, parse_rfc3339, rfc3339, rfc3339_micro
from wharfinger.govern.billing import Sheet, bill, month_of
from wharfinger.policy.journal import Journal, read

TENANT = {
    "metadata": {"name": "research"},
    "spec": {
        "rates": {"perMillionTokens": "2.50", "perGpuHour": "3.20"},
        "budget": {"monthly": "10", "currency": "EUR"},
    },
}


def tokens(identifier: str, count: int, tenant: str = "research") -> dict[str, Any]:
    """Return an account of an answer."""
    return {"kind": "tokens", "id": identifier, "at": rfc3339_micro(NOW), "tenant": tenant, "tokens": count}


def grant(event: str, uid: str, at: int, device: str = "MIG-1", slices: int = 1) -> dict[str, Any]:
    """Return a record of a grant."""
    return {
        "kind": "gpu",
        "event": event,
        "uid": uid,
        "at": rfc3339_micro(at),
        "tenant": "research",
        "claim": "claim",
        "devices": [{"uuid": device, "slices": slices}],
        "notAfter": rfc3339_micro(NOW + 24 * HOUR),
    }


def line(records: list[dict[str, Any]], now: int) -> Any:
    """Return the bill's one line."""
    [found] = bill(records, [TENANT], now)["tenants"]
    return found


def test_tokens_are_paid_once_at_the_tenants_rate() -> None:
    """An answer whose account is there twice counts once; a million tokens cost what the rate says."""
    found = line([tokens("a", 600_000), tokens("b", 400_000), tokens("a", 600_000)], NOW)
    assert (found["tokens"], found["answers"], found["amount"], found["currency"]) == (1_000_000, 2, "2.5000", "EUR")


def test_a_slice_costs_its_part_of_a_gpu() -> None:
    """Seven hours of a one-seventh slice are one GPU hour."""
    found = line([grant("began", "g", NOW), grant("ended", "g", NOW + 7 * HOUR)], NOW + 9 * HOUR)
    assert (found["gpuHours"], found["amount"]) == ("1.0000", "3.2000")


def test_grants_that_follow_each_other_are_one_use() -> None:
    """A renewal overlaps the old grant: the device is paid once; another device beside it counts too."""
    records = [
        grant("began", "a", NOW, slices=7),
        grant("began", "b", NOW + HOUR, slices=7),
        grant("ended", "a", NOW + 2 * HOUR, slices=7),
        grant("ended", "b", NOW + 3 * HOUR, slices=7),
    ]
    assert line(records, NOW + 5 * HOUR)["gpuHours"] == "3.0000"
    assert line([*records, grant("began", "c", NOW, "MIG-2", 7)], NOW + HOUR)["gpuHours"] == "4.0000"


def test_a_running_grant_is_paid_until_now_and_a_forgotten_one_until_it_ran_out() -> None:
    """Without an end it is open, but never longer than the grant was valid."""
    assert line([grant("began", "g", NOW, slices=7)], NOW + 30 * MINUTE)["gpuHours"] == "0.5000"
    assert line([grant("began", "g", NOW, slices=7)], NOW + 300 * HOUR)["gpuHours"] == "24.0000"


def test_over_budget_is_said() -> None:
    """The line says whether the tenant's budget of this calendar month is passed; another month is another sum."""
    assert line([tokens("a", 4_000_100)], NOW)["budget"] == {"monthly": "10", "spent": "10.0002", "over": True}
    assert line([tokens("a", 4_000_000)], NOW)["budget"] == {"monthly": "10", "spent": "10.0000", "over": False}
    later = line([tokens("a", 4_000_100)], NOW + 31 * DAY)
    assert (later["amount"], later["budget"]["spent"], later["budget"]["over"]) == ("10.0002", "0.0000", False)


def test_a_month_has_its_part_of_a_long_use() -> None:
    """A grant over the turn of the month is paid in each for the hours that lie in it; months end where they should."""
    turn = month_of(NOW).end
    sheet = Sheet()
    for record in (
        {**grant("began", "g", turn - 2 * HOUR, slices=7), "notAfter": rfc3339_micro(turn + 24 * HOUR)},
        grant("ended", "g", turn + HOUR, slices=7),
    ):
        sheet.add(record)
    assert [
        sheet.lines([TENANT], turn + 5 * HOUR, month)[0]["gpuHours"] for month in (month_of(NOW), month_of(turn))
    ] == [
        "2.0000",
        "1.0000",
    ]
    for text, start, end in (
        ("2027-12-31T23:59:59Z", "2027-12-01", "2028-01-01"),
        ("2028-02-29T00:00:00Z", "2028-02-01", "2028-03-01"),
    ):
        period = month_of(parse_rfc3339(text))
        assert (rfc3339(period.start)[:10], rfc3339(period.end)[:10]) == (start, end)


def test_spending_is_followed_not_read_again(tmp_path: Path) -> None:
    """What the journals gain counts at the next question."""
    spending = Spending(tmp_path)
    assert spending(TENANT, NOW) == "0.0000"
    journal = Journal(tmp_path / "gateway")
    for number in range(2):
        journal.append(tokens(str(number), 400_000))
        assert spending(TENANT, NOW) == f"{number + 1}.0000"
    journal.close()


def test_a_tenant_that_is_gone_still_has_its_use() -> None:
    """Records of a tenant without an object are shown, at no rate; a tenant without use has a line of nothing."""
    found = {each["tenant"]: each for each in bill([tokens("a", 5, "old")], [TENANT], NOW)["tenants"]}
    assert (found["old"]["tokens"], found["old"]["amount"]) == (5, "0.0000")
    assert found["research"]["tokens"] == 0


def test_a_little_is_never_written_as_nothing() -> None:
    """Ten tokens cost less than a hundredth of a cent: the amount is above zero."""
    assert float(line([tokens("a", 10)], NOW)["amount"]) > 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), max_size=12))
def test_overlapping_spans_count_as_their_union(spans: list[tuple[int, int]]) -> None:
    """However grants of one device overlap, each second is paid once."""
    records, covered = [], set()
    for number, (start, length) in enumerate(spans):
        began, ended = NOW + start * MINUTE, NOW + (start + length) * MINUTE
        records += [grant("began", str(number), began, slices=7), grant("ended", str(number), ended, slices=7)]
        covered |= set(range(start, start + length))
    records.sort(key=lambda record: record["at"])
    want = f"{len(covered) / 60:.4f}"
    assert abs(float(line(records, NOW + 2 * HOUR)["gpuHours"]) - float(want)) < 0.0002


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Return services that serve."""
    made = Served(tmp_path)
    yield made
    made.close()


def test_the_meter_records_each_grant_once_across_restarts(served: Served, tmp_path: Path) -> None:
    """Began once, ended once; a grant that went while the meter was down ends when it is found gone."""
    journal = Journal(tmp_path / "meter")
    served.world.settle(GrantReconciler(served.world, served.world, journal, ()))
    served.world.settle(GrantReconciler(served.world, served.world, journal, list(read(tmp_path / "meter"))))
    assert [r["event"] for r in read(tmp_path / "meter")] == ["began"] * 3
    served.world.delete("inferenceservices", "research", "assistant")
    served.world.clock.pass_(60 * SECOND)
    served.world.settle(GrantReconciler(served.world, served.world, journal, list(read(tmp_path / "meter"))))
    assert [r["event"] for r in read(tmp_path / "meter")] == ["began"] * 3 + ["ended"]
    tenants = served.world.list("tenants")
    lines = {
        each["tenant"]: each for each in bill(read(tmp_path / "meter"), tenants, served.world.clock.now())["tenants"]
    }
    assert float(lines["research"]["gpuHours"]) > float(lines["support"]["gpuHours"]) > 0
    journal.close()
