"""Kubernetes' cases for JSONPath templates."""

from __future__ import annotations

from collections.abc import Iterator

from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core import jsonpath
from wharfinger.core.errors import Malformed


def words(text: str) -> list[str]:
    """Return the words of an output that upstream gives in any order, as its maps have none."""
    return sorted(text.replace("{", " ").replace("}", " ").split())


def checks(row: Row) -> Iterator[Check]:
    """Check one row: the output, or that parsing or filling in is refused."""
    refused = bool(row.get("parseError") or row.get("executeError") or row.get("error"))
    try:
        got = jsonpath.parse(row["template"]).render(row["input"], lenient=row.get("allowMissingKeys", False))
    except Malformed:
        yield "refused", True, refused
        return
    yield "refused", False, refused
    if row.get("unordered"):
        yield "words", words(got), words(row["output"])
    elif "outputs" in row:
        yield "output", words(got), words(row["outputs"][0])
        if len(row["outputs"]) == 2:
            yield "order", got in row["outputs"], True
    else:
        yield "output", got, row["output"]


def test_templates_fill_in_as_kubectl_does() -> None:
    """Every case of the client library's JSONPath holds."""
    count, found = differences("apimachinery/jsonpath.jsonl", checks)
    assert count >= 238
    assert_only_left_out(found, {})


def test_printer_column_paths_fill_in_as_the_api_server_does() -> None:
    """Every case of the dialect of printer columns holds."""
    count, found = differences("apiextensions/jsonpath.jsonl", checks)
    assert count >= 94
    assert_only_left_out(found, {})
