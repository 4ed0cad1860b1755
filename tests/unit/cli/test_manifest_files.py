"""What `wharf apply` reads: YAML and JSON, several documents, Lists; anything else is our error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wharfinger.cli.apply import documents, parse_span
from wharfinger.core.clock import MINUTE, SECOND
from wharfinger.core.errors import Invalid, Malformed, WharfingerError

ONE = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"


def test_every_document_of_a_file_is_an_object() -> None:
    """Empty documents are passed over, the items of a List come one by one."""
    text = f"---\n{ONE}\n---\n---\n{{apiVersion: v1, kind: List, items: [{ONE}, {ONE}]}}\n"
    assert [d["kind"] for d in documents(text)] == ["ConfigMap"] * 3


@pytest.mark.parametrize(
    "text", ["a: [", "just words", "[1, 2]", "{kind: Pod}", "{apiVersion: v1, kind: Pod, metadata: none}", "\x00"]
)
def test_what_is_no_object_is_refused_by_its_place(text: str) -> None:
    """The error says what was expected."""
    with pytest.raises(Malformed, match="expected"):
        list(documents(text))


@given(st.text(max_size=300))
def test_any_text_is_objects_or_our_error(text: str) -> None:
    """No text does anything else."""
    try:
        assert all(isinstance(d, dict) for d in documents(text))
    except WharfingerError:
        pass


def test_times_are_written_as_kubectl_writes_them() -> None:
    """A number and a unit; anything else is refused."""
    assert parse_span("90s") == 90 * SECOND
    assert parse_span("5m") == 5 * MINUTE
    for bad in ("", "5", "m", "-1s", "1.5h", "٣s"):
        with pytest.raises(Invalid):
            parse_span(bad)
