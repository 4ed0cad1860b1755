"""Kubernetes' cases for IntOrString."""

from __future__ import annotations

import json
from collections.abc import Iterator

from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core import intstr
from wharfinger.core.errors import Malformed

LEFT_OUT: dict[str, str] = {}


def checks(row: Row) -> Iterator[Check]:
    """Check one row of intstr.jsonl."""
    refused = isinstance(row.get("error"), str)
    try:
        yield from values(row) if not refused else values({**row, "result": None})
    except Malformed:
        yield "refused", True, refused
    else:
        yield "refused", False, refused


def values(row: Row) -> Iterator[Check]:
    """Check what a row computes."""
    match row["op"]:
        case "parse":
            yield "value", intstr.parse(row["input"]), row["result"]["value"]
        case "unmarshalJSON":
            value = json.loads(row["input"])
            got = intstr.of_json(value["val"] if isinstance(value, dict) and "val" in value else value)
            yield "value", got, row["result"]["value"]
        case "marshalJSON":
            yield "text", json.dumps(intstr.of_json(row["value"]["value"])), row["result"]
        case "intOrPercent":
            yield "amount", intstr.amount(row["value"]["value"]), (row["result"], row["isPercent"])
        case "scaledValue":
            got = intstr.scaled(row["value"]["value"], row["total"], round_up=row["roundUp"])
            yield "scaled", got, row["result"]
        case unknown:
            raise ValueError(unknown)


def test_numbers_or_texts_parse_and_scale_as_kubernetes_does() -> None:
    """Every case of intstr.jsonl holds."""
    count, found = differences("apimachinery/intstr.jsonl", checks)
    assert count > 700
    assert_only_left_out(found, LEFT_OUT)
