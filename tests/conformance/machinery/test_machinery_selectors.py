"""Kubernetes' cases for label and field selectors."""

from __future__ import annotations

from collections.abc import Iterator

from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core import selectors
from wharfinger.core.errors import Invalid, Malformed
from wharfinger.core.selectors import FieldRequirement, FieldSelector, LabelSelector, Requirement

LEFT_OUT = {
    "upstream compares and joins maps of labels; ours are plain dicts, there is no code for it": """
        1.raised 2.raised 3.raised 4.raised 5.raised 6.raised 7.raised 8.raised
    """,
    "upstream's text ends at a NUL and what follows is dropped; ours refuses it": """
        677.refused 678.refused 679.refused 680.refused 681.refused 682.refused 683.refused 684.refused
        685.refused 686.refused
    """,
    "only the split is asked for: the value's escapes are wrong, and parsing refuses it there too": """
        733.refused
    """,
}


def requirement(row: Row) -> Requirement:
    """Return the requirement of a row."""
    return Requirement(row["key"], row["operator"], tuple(row["values"]))


def shown(selector: LabelSelector) -> list[Row]:
    """Return a label selector as rows show it."""
    return [{"key": r.key, "operator": r.operator, "values": list(r.values)} for r in selector.requirements]


def of_labels(row: Row) -> Iterator[Check]:
    """Check a row about labels."""
    match row["op"]:
        case "parse":
            got = selectors.parse_labels(row["selector"])
            yield "requirements", shown(got), row["requirements"]
            yield "text", str(got), row["string"]
            yield "everything", got.everything, row["empty"]
            yield "nothing", got.nothing, row["matchesNothing"]
        case "match":
            yield "match", selectors.parse_labels(row["selector"]).matches(row["labels"]), row["match"]
        case "matchRequirements":
            built = LabelSelector(tuple(requirement(each) for each in row["requirements"]))
            yield "match", built.matches(row["labels"]), row["match"]
        case "newRequirement":
            made = Requirement.checked(row["key"], row["operator"], row["values"])
            yield "text", str(made), row["string"]
        case "stringOf":
            built = LabelSelector(tuple(requirement(each) for each in row["requirements"]))
            yield "text", str(built), row["string"]
        case "fromSet":
            got = selectors.of_labels(row["set"])
            yield "requirements", shown(got), row["requirements"]
            yield "text", str(got), row["string"]
        case "toLabelsMap":
            yield "labels", selectors.parse_set(row["selector"]), row["labels"]
        case "requiresExactMatch":
            built = LabelSelector(tuple(requirement(each) for each in row["requirements"]))
            yield "exact", built.exact(row["label"]), row["value"]
        case unknown:
            raise ValueError(unknown)


def of_fields(row: Row) -> Iterator[Check]:
    """Check a row about fields."""
    match row["op"]:
        case "parse":
            got = selectors.parse_fields(row["selector"])
            rows = [{"field": r.field, "operator": r.operator, "value": r.value} for r in got.requirements]
            yield "requirements", rows, row["requirements"]
            yield "text", str(got), row["string"]
            yield "everything", got.everything, row["empty"]
        case "match":
            yield "match", selectors.parse_fields(row["selector"]).matches(row["fields"]), row["match"]
        case "matchSet":
            built = FieldSelector(tuple(FieldRequirement(k, "=", v) for k, v in row["set"].items()))
            yield "match", built.matches(row["fields"]), row["match"]
        case "requiresExactMatch":
            built = FieldSelector(tuple(FieldRequirement(**each) for each in row["requirements"]))
            yield "exact", built.exact(row["field"]), row["value"]
        case "escape":
            yield "escaped", selectors.escape(row["input"]), row["result"]
        case "unescape":
            yield "plain", selectors.unescape(row["input"]), row["result"]
        case "splitTerms":
            yield "terms", selectors.split_terms(row["input"]), row["terms"]
        case "splitTerm":
            got = selectors.parse_fields(row["input"])
            operator = "=" if row["operator"] == "==" else row["operator"]
            want = FieldRequirement(row["field"], operator, selectors.unescape(row["value"]))
            yield "term", got.requirements, (want,) if row["field"] or row["value"] else ()
        case unknown:
            raise ValueError(unknown)


def checks(row: Row) -> Iterator[Check]:
    """Check one row of selectors.jsonl."""
    try:
        yield from of_labels(row) if row["kind"] == "labels" else of_fields(row)
    except (Malformed, Invalid):
        yield "refused", True, "error" in row or row.get("ok") is False
    else:
        yield "refused", False, "error" in row


def test_selectors_parse_match_and_print_as_kubernetes_does() -> None:
    """Every case of selectors.jsonl holds, but for those listed with their reason."""
    count, found = differences("apimachinery/selectors.jsonl", checks)
    assert count > 1900
    assert_only_left_out(found, LEFT_OUT)
