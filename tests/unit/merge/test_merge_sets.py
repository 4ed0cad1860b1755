"""Sets of fields: parsers on any input, laws of the algebra, one canonical form."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wharfinger.core.errors import Malformed
from wharfinger.local.merge import fieldpath, pathelement
from wharfinger.local.merge.fieldpath import FieldSet

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(-1e15, 1e15), st.text())
JSON = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3), max_leaves=8
)
ELEMENTS = st.one_of(
    st.sampled_from(["a", "b", "c"]).map(pathelement.field),
    st.sampled_from([1, 2, "x", True]).map(pathelement.item),
    st.sampled_from([0, 1, 10]).map(pathelement.index),
    st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from([1, 9, 10, "y"]), min_size=1).map(
        lambda keys: pathelement.keyed(sorted(keys.items()))
    ),
)
PATHS = st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple)


def make(paths: Any) -> FieldSet:
    """Return the set of these paths."""
    made: FieldSet = {}
    for path in paths:
        made = fieldpath.union(made, fieldpath.of_path(path))
    return made


SETS = st.lists(PATHS, max_size=6).map(make)


def members(fields: FieldSet) -> set[fieldpath.Path]:
    """Return the members of a set."""
    return set(fieldpath.paths(fields))


def is_canonical(fields: FieldSet) -> bool:
    """Say whether a set is in its one form, its order included."""
    return json.dumps(fieldpath.parse(fields)) == json.dumps(fields)


@given(
    st.text(max_size=20)
    | st.builds("{}{}".format, st.sampled_from(["f:", "k:", "v:", "i:", "r:"]), st.text(max_size=20))
)
def test_any_text_is_a_path_element_or_refused(text: str) -> None:
    """Any text gives a canonical element, nothing (an unknown kind) or Malformed; canonical again is the same."""
    try:
        element = pathelement.parse(text)
    except Malformed:
        return
    if element is not None:
        assert pathelement.parse(element) == element
        assert pathelement.order(element)
        assert pathelement.show(element) is not None


@given(JSON)
def test_any_json_is_a_set_or_refused(value: Any) -> None:
    """Any JSON gives a set in canonical form, or Malformed."""
    try:
        fields = fieldpath.parse(value)
    except Malformed:
        return
    assert is_canonical(fields)


@given(JSON)
def test_the_text_of_a_value_is_json_for_it(value: Any) -> None:
    """A value's text inside a path element is JSON that reads as an equal value."""
    assert json.loads(pathelement.value_text(value)) == value


@given(SETS, SETS)
def test_operations_are_those_of_sets_of_paths(a: FieldSet, b: FieldSet) -> None:
    """Union, intersection and difference have just the members that sets of paths have."""
    assert members(fieldpath.union(a, b)) == members(a) | members(b)
    assert members(fieldpath.intersection(a, b)) == members(a) & members(b)
    assert members(fieldpath.difference(a, b)) == members(a) - members(b)
    gone = members(b)
    left = {path for path in members(a) if not any(path[:at] in gone for at in range(1, len(path) + 1))}
    assert members(fieldpath.without(a, b)) == left


@given(SETS, SETS)
def test_results_are_canonical_and_arguments_untouched(a: FieldSet, b: FieldSet) -> None:
    """What an operation returns is in canonical form, equal sets are equal values, arguments stay as they were."""
    before = copy.deepcopy((a, b))
    for operation in (fieldpath.union, fieldpath.intersection, fieldpath.difference, fieldpath.without):
        made = operation(a, b)
        assert is_canonical(made)
        assert json.dumps(made) == json.dumps(make(members(made)))
    assert (a, b) == before
    assert fieldpath.LEAF == {}
    assert fieldpath.EMPTY == {}


@given(SETS, SETS, SETS)
def test_laws_of_sets_hold(a: FieldSet, b: FieldSet, c: FieldSet) -> None:
    """Union and intersection commute, associate and distribute; a set minus itself is empty."""
    union, both = fieldpath.union, fieldpath.intersection
    assert union(a, b) == union(b, a)
    assert both(a, b) == both(b, a)
    assert union(a, union(b, c)) == union(union(a, b), c)
    assert both(a, both(b, c)) == both(both(a, b), c)
    assert both(a, union(b, c)) == union(both(a, b), both(a, c))
    assert union(a, a) == both(a, a) == a
    assert fieldpath.difference(a, a) == fieldpath.without(a, a) == {}


@given(SETS)
def test_leaves_have_nothing_below(fields: FieldSet) -> None:
    """The leaves are the members that begin no other member's path."""
    paths = members(fields)
    assert members(fieldpath.leaves(fields)) == {
        path for path in paths if not any(other != path and other[: len(path)] == path for other in paths)
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (1e21, "1e+21"), (1e-7, "1e-07"), (0.000001, "0.000001"), (1e16, "10000000000000000"), (1.5, "1.5")],
)
def test_floats_are_written_as_go_writes_them(value: float, text: str) -> None:
    """Integral floats have no fraction, exponents begin where Go's do: keys equal to kube-apiserver's."""
    assert pathelement.value_text(value) == text


def test_html_is_escaped_in_values() -> None:
    """<, > and & are escaped in values, as kube-apiserver does; names of keys are not."""
    assert pathelement.item("<&>") == 'v:"\\u003c\\u0026\\u003e"'
    assert pathelement.keyed([("a<", "b")]) == 'k:{"a<":"b"}'


def test_a_lone_surrogate_is_refused() -> None:
    """A key that is not Unicode is refused when read, not when it is sent."""
    with pytest.raises(Malformed):
        fieldpath.parse({'v:"\\ud800"': {}})
