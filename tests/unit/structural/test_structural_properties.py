"""What holds of every schema and every value: defaulting, pruning, validation and their bounds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.core.document import MAX_DEPTH
from wharfinger.core.errors import Malformed
from wharfinger.kinds.structural import definition, formats, metadata, objectmeta, structure
from wharfinger.kinds.structural.constraints import compile_test
from wharfinger.kinds.structural.findings import MOST
from wharfinger.kinds.structural.node import DEEPEST, read
from wharfinger.kinds.structural.schema import compile_schema, is_monotone
from wharfinger.kinds.structural.validation import find

NAMES = st.sampled_from(["a", "b", "metadata", "kind", "apiVersion", "x-y"])
SCALARS = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "b", "aa", "2026-01-01", "1.2.3.4"])
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "boolean"])
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "nullable": st.booleans(),
        "enum": st.lists(SCALARS, min_size=1, max_size=3),
        "maximum": st.integers(-3, 3) | st.floats(-3, 3),
        "minimum": st.integers(-3, 3) | st.floats(-3, 3),
        "exclusiveMaximum": st.booleans(),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "maxLength": st.integers(0, 2),
        "minLength": st.integers(0, 2),
        "pattern": st.sampled_from(["^a", "b$", "(", "[a-z]+"]),
        "format": st.sampled_from(["date", "ipv4", "int32", "float", "nonsense"]),
        "maxItems": st.integers(0, 2),
        "minItems": st.integers(0, 1),
        "uniqueItems": st.booleans(),
        "maxProperties": st.integers(0, 3),
        "required": st.lists(NAMES, max_size=2),
        "x-kubernetes-preserve-unknown-fields": st.just(True),
        "x-kubernetes-embedded-resource": st.just(True),
        "x-kubernetes-list-type": st.sampled_from(["set", "map", "atomic"]),
        "x-kubernetes-list-map-keys": st.just(["a"]),
        "x-kubernetes-int-or-string": st.just(True),
        "default": VALUES,
    },
)


def _with_children(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    below = st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES,
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "additionalProperties": inner | st.booleans(),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
        },
    )
    return st.builds(lambda limits, children: {**limits, **children}, LIMITS, below)


SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.builds(lambda kind, limits: {**kind, **limits}, st.fixed_dictionaries({}, optional={"type": TYPES}), LIMITS),
    _with_children,
    max_leaves=6,
)


def nested(depth: int, one: Any = 0) -> Any:
    """Return lists and objects within each other, `depth` levels of them."""
    value = one
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, VALUES, st.booleans())
def test_the_quick_answer_is_the_explained_one(document: Any, value: Any, typed: bool) -> None:
    """A value passes the compiled test exactly when the explaining validation finds nothing."""
    schema = compile_schema(document, typed=typed)
    test = compile_test(schema.node)
    assert (test is None or test(value)) == find(value, schema.node).valid


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, VALUES)
def test_defaulting_twice_is_defaulting_once(document: Any, value: Any) -> None:
    """What defaulting has filled in needs nothing more, and is the object's own."""
    schema = compile_schema(document)
    before = copy.deepcopy(document)
    schema.default(value)
    once = copy.deepcopy(value)
    schema.default(value)
    assert value == once
    if isinstance(value, dict):
        value.clear()
    assert document == before


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, VALUES)
def test_pruning_twice_is_pruning_once(document: Any, value: Any) -> None:
    """Asking changes nothing and tells what pruning drops; after that there is nothing unknown."""
    schema = compile_schema(document)
    before = copy.deepcopy(value)
    unknown = schema.unknown(value)
    assert value == before
    assert schema.prune(value) == unknown
    once = copy.deepcopy(value)
    assert schema.prune(value) == []
    assert value == once


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, VALUES, VALUES)
def test_any_value_is_judged(document: Any, value: Any, old: Any) -> None:
    """Any value, new or over any stored one, is right or has problems with a reason and a message."""
    schema = compile_schema(document)
    for problem in [*schema.validate(value), *schema.validate(value, old)]:
        assert problem.reason.startswith("FieldValue")
        assert problem.message


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, VALUES)
def test_what_did_not_change_is_not_judged_again(document: Any, value: Any) -> None:
    """An object that is stored as it was before breaks no constraint, whatever the schema says by now."""
    schema = compile_schema({"type": "object", "properties": {"spec": document}})
    whole = {"spec": value}
    schema.prune(whole)
    if is_monotone(schema.node) and "spec" in whole and not document.get("x-kubernetes-preserve-unknown-fields"):
        kept = schema.mismatches(whole, copy.deepcopy(whole))
        changed = schema.mismatches(whole)
        assert len(kept) <= len(changed)


@settings(max_examples=200, deadline=None)
@given(SCHEMAS)
def test_any_schema_is_structural_or_told_why_not(document: Any) -> None:
    """Judging any readable schema gives problems, not faults."""
    for problem in structure.problems(document, "root"):
        assert problem.field.startswith("root")


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_any_value_is_a_schema_or_malformed(document: Any) -> None:
    """Compiling anything gives a schema or `Malformed`."""
    try:
        compile_schema(document)
    except Malformed:
        return
    assert document is None or isinstance(document, dict)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(objectmeta.FIELDS)), VALUES, max_size=6))
def test_any_metadata_is_read_dropped_or_malformed(value: dict[str, Any]) -> None:
    """Reading metadata gives it in a form that reading leaves as it is; dropping what is wrong always succeeds."""
    kept, _ = objectmeta.decode(copy.deepcopy(value), drop=True)
    assert objectmeta.decode(copy.deepcopy(kept)) == (kept, [])
    try:
        read_all, unknown = objectmeta.decode(value)
    except Malformed:
        return
    assert read_all == kept
    assert isinstance(unknown, list)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(formats.INTRODUCED)), st.text() | st.from_regex(r"[0-9a-f:./@-]{0,20}"))
def test_every_format_answers_every_text(name: str, text: str) -> None:
    """A format says yes or no to any text."""
    check = formats.check_of(name)
    assert check is None or check(text) in {True, False}


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({"spec": st.fixed_dictionaries({}, optional={"group": st.text(), "names": st.just({})})}))
def test_any_definition_is_judged(crd: dict[str, Any]) -> None:
    """A definition with hardly anything in it has problems, not faults."""
    assert definition.validate_create(crd)


def test_a_schema_that_is_too_deep_is_refused() -> None:
    """A schema nested beyond the limit is `Malformed`, and one at the limit compiles and judges."""
    document: Any = {"type": "integer"}
    for _ in range(DEEPEST - 1):
        document = {"type": "array", "items": document}
    schema = compile_schema(document)
    value: Any = "x"
    for _ in range(DEEPEST - 1):
        value = [value]
    assert len(schema.validate(value)) == 1
    for _ in range(2):
        document = {"type": "array", "items": document}
    with pytest.raises(Malformed, match="levels"):
        read(document)


@pytest.mark.parametrize(
    "document",
    [
        {"type": "object"},
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        {"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "set", "items": {}}}},
        {"type": "object", "properties": {"a": {"enum": [nested(MAX_DEPTH - 2)]}}},
    ],
)
def test_a_deep_value_is_walked(document: Any) -> None:
    """A value as deep as a body may be is pruned, defaulted, judged and compared."""
    schema = compile_schema(document)
    value = {"a": [nested(MAX_DEPTH - 2), nested(MAX_DEPTH - 2, 1)]}
    assert isinstance(schema.validate(value, copy.deepcopy(value)), list)
    schema.default(value)
    assert isinstance(schema.prune(value), list)


def test_an_object_that_is_wrong_everywhere_is_told_in_bounds() -> None:
    """However much is wrong, the problems told are few enough to send."""
    items = {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}
    schema = compile_schema({"type": "object", "properties": {"wrong": items, "twice": items}})
    problems = schema.validate({"wrong": list(range(50_000)), "twice": [str(n % 25_000) for n in range(50_000)]})
    assert MOST <= len(problems) <= 2 * MOST
    labels = {f"!{n}": "!" for n in range(20_000)}
    assert len(metadata.problems_on_create({"name": "a", "labels": labels}, namespaced=False)) <= MOST


def test_hostile_patterns_and_formats_take_linear_time() -> None:
    """A pattern that backtracking would never finish, and formats on long texts, are answered."""
    schema = compile_schema({"type": "string", "pattern": "^(a+)+$"})
    assert schema.validate("a" * 50_000 + "!")
    for name in formats.INTRODUCED:
        check = formats.check_of(name)
        for text in ("1" * 200_000, "a." * 100_000, "@" * 100_000, ":" * 100_000):
            assert check is None or check(text) in {True, False}
