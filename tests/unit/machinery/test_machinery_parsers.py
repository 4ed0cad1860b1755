"""The parsers of the core on any text, and what must hold of what they read."""

from __future__ import annotations

import json
import string
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wharfinger.core import addresses, age, causes, intstr, jsonpath, names, printed, selectors
from wharfinger.core.errors import Invalid, Malformed, WharfingerError
from wharfinger.core.quantity import LARGEST_EXPONENT, Format, Quantity

NEAR_QUANTITY = st.text(alphabet="0123456789.+-eEinumkKMGTP ", max_size=30)
NEAR_SELECTOR = st.text(alphabet="abc/.=!<>(), \\in\x00é", max_size=40)
NEAR_PATH = st.text(alphabet="{}[]().*@$?'\"\\:,<>=! ab01-range\n", max_size=40)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)
QUANTITIES = st.builds(Quantity, st.integers(-(10**30), 10**30), st.sampled_from(Format))


@given(st.text() | NEAR_QUANTITY)
def test_any_text_is_a_quantity_or_malformed(text: str) -> None:
    """Parsing any text gives a quantity or `Malformed`, and what it gives survives its canonical form."""
    try:
        quantity = Quantity.parse(text)
    except Malformed:
        return
    again = Quantity.parse(str(quantity))
    assert again == quantity or quantity.format is Format.BINARY_SI
    assert str(again) == str(quantity)


@given(JSON)
def test_any_json_value_is_a_quantity_or_malformed(value: object) -> None:
    """Reading any decoded JSON value gives a quantity or `Malformed`."""
    try:
        Quantity.of_json(value)
    except Malformed:
        return


@given(QUANTITIES)
def test_a_quantity_is_what_its_canonical_form_says(quantity: Quantity) -> None:
    """The canonical form loses nothing, but where the parser caps binary amounts at 2^63 - 1."""
    if quantity.format is Format.BINARY_SI and abs(quantity.nanos) > (2**63 - 1) * 10**9:
        return
    assert Quantity.parse(str(quantity)) == quantity


@given(QUANTITIES, QUANTITIES)
def test_quantities_add_and_compare_exactly(a: Quantity, b: Quantity) -> None:
    """Sums, differences and order are those of the exact numbers."""
    exact_a, exact_b = Fraction(a.decimal), Fraction(b.decimal)
    assert Fraction((a + b).decimal) == exact_a + exact_b
    assert Fraction((a - b).decimal) == exact_a - exact_b
    assert (a < b) == (exact_a < exact_b)
    assert (a == b) == (hash(a) == hash(b))


@given(QUANTITIES, st.integers(-9, 30))
def test_rounding_never_goes_towards_zero(quantity: Quantity, scale: int) -> None:
    """A rounded quantity is a multiple of its scale, as large as before, and less than one unit larger."""
    rounded = quantity.round_up(scale)
    unit = Fraction(10) ** scale
    assert Fraction(rounded.decimal) % unit == 0
    assert 0 <= abs(Fraction(rounded.decimal)) - abs(Fraction(quantity.decimal)) < unit
    assert rounded.scaled(scale) == Fraction(rounded.decimal) / unit


def test_a_short_text_cannot_ask_for_a_huge_number() -> None:
    """An exponent beyond the limit is refused before anything is computed."""
    with pytest.raises(Malformed, match="exponent"):
        Quantity.parse("1e9999999999")
    assert Quantity.parse(f"1e-{LARGEST_EXPONENT}") == Quantity(1)


@given(st.text() | NEAR_SELECTOR)
def test_any_text_is_a_label_selector_or_refused(text: str) -> None:
    """Parsing any text gives a selector, whose own text gives the same one, or `Malformed` or `Invalid`."""
    try:
        selector = selectors.parse_labels(text)
    except (Malformed, Invalid):
        return
    assert selectors.parse_labels(str(selector)) == selector
    selector.matches({"a": "b"})
    selector.matches(None)


@given(st.text() | NEAR_SELECTOR)
def test_any_text_is_a_field_selector_or_malformed(text: str) -> None:
    """Parsing any text gives a selector, whose own text gives the same one, or `Malformed`."""
    try:
        selector = selectors.parse_fields(text)
    except Malformed:
        return
    assert selectors.parse_fields(str(selector)).matches({}) == selector.matches({})


@given(st.text())
def test_escaping_a_field_value_can_be_undone(value: str) -> None:
    """`unescape` undoes `escape`, and the escaped value stays one term."""
    escaped = selectors.escape(value)
    assert selectors.unescape(escaped) == value
    assert len(selectors.split_terms("x=" + escaped)) == 1


@given(JSON)
def test_any_value_is_a_selector_object_or_invalid(value: object) -> None:
    """Any JSON value in place of a LabelSelector gives a selector or `Invalid` that names fields."""
    for candidate in (value, {"matchLabels": value}, {"matchExpressions": value}, {"matchExpressions": [value]}):
        try:
            selectors.of_object(candidate).matches({"a": "b"})
        except Invalid as error:
            assert error.fields


def test_a_null_selector_object_matches_nothing_and_an_empty_one_everything() -> None:
    """Null and empty differ, as in every Kubernetes API that has a selector."""
    assert not selectors.of_object(None).matches({})
    assert selectors.of_object({}).matches({})
    chosen = selectors.of_object(
        {"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]}
    )
    assert chosen.matches({"app": "x", "tier": "web"})
    assert not chosen.matches({"app": "x", "tier": "db"})


@given(st.text())
def test_every_name_check_answers_any_text(text: str) -> None:
    """No check raises; lone surrogates included, each gives a list."""
    for check in (
        names.dns_label, names.dns_subdomain, names.dns_1035_label, names.label_key, names.label_value,
        names.config_key, names.environment_name, names.relaxed_environment_name, names.port_name, names.percent,
        names.http_header, names.decimal_integer, names.path_segment, names.domain_prefixed_path,
        names.fully_qualified_domain_name, addresses.address, addresses.prefix, addresses.interface_address,
    ):  # fmt: skip
        assert isinstance(check(text), list)
    addresses.address_warnings("f", text)
    addresses.prefix_warnings("f", text)


@given(st.text(alphabet=string.hexdigits + ":./", max_size=45))
def test_a_canonical_address_has_no_warnings(text: str) -> None:
    """What the strict checks accept, the warnings let pass."""
    if not addresses.address(text):
        assert addresses.address_warnings("f", text) == []
    if not addresses.prefix(text):
        assert addresses.prefix_warnings("f", text) == []


@given(st.text() | st.from_regex(r"[+-]?[0-9]{0,40}%?"), st.integers(-(10**6), 10**6))
def test_any_text_is_a_number_or_stays_text(text: str, total: int) -> None:
    """A command line's text becomes a 32-bit number or stays as it is; scaling it works or is `Malformed`."""
    value = intstr.parse(text)
    assert value == text or isinstance(value, int)
    try:
        low, high = (intstr.scaled(value, total, round_up=up) for up in (False, True))
    except Malformed:
        return
    assert 0 <= high - low <= 1


@settings(max_examples=300)
@given(st.text() | NEAR_PATH, JSON)
def test_any_text_is_a_template_or_malformed(text: str, value: object) -> None:
    """Parsing any text and filling it in from any value gives text or `Malformed`."""
    try:
        template = jsonpath.parse(text)
        assert isinstance(template.render(value), str)
    except Malformed:
        pass


def test_a_template_that_multiplies_its_results_is_cut_off() -> None:
    """Descents and wildcards in a row cannot fill the memory."""
    deep: object = 0
    for _ in range(150):
        deep = [deep, 0]
    with pytest.raises(Malformed, match="at most"):
        jsonpath.parse("{..[*]..[*]..[*]}").render(deep)


def reads_back(read: object, value: object) -> bool:
    """Tell whether `read` is `value`, where a double may have been written without a point, as Go writes it."""
    if isinstance(value, float):
        return isinstance(read, int | float) and float(read) == value
    if isinstance(value, list):
        return isinstance(read, list) and len(read) == len(value) and all(map(reads_back, read, value))
    if isinstance(value, dict):
        return (
            isinstance(read, dict) and read.keys() == value.keys() and all(reads_back(read[n], value[n]) for n in value)
        )
    return read == value


@given(JSON)
@example(4.404714226839919e16)
@example(1e20)
def test_values_print_as_json_that_reads_back(value: object) -> None:
    """The printed JSON is JSON of the same value: a double reads back as the same double."""
    assert reads_back(json.loads(printed.as_json(value)), value)


@given(st.text(), st.text(), JSON)
def test_causes_show_any_value_on_one_line(field: str, detail: str, value: object) -> None:
    """A cause of any value has a message that starts with Kubernetes' words and holds no control characters."""
    problem = causes.invalid(field, value, "detail")
    assert problem.message.startswith("Invalid value: ")
    assert all(char.isprintable() for char in printed.quoted(detail))


@given(st.integers(-(10**20), 10**20))
def test_an_age_has_two_units_at_most(span: int) -> None:
    """Any length of time is shown in two units or as invalid."""
    text = age.human_duration(span)
    assert text == "<invalid>" or sum(char.isalpha() for char in text) in {1, 2}


def test_errors_of_the_parsers_are_of_the_one_family() -> None:
    """What the parsers raise is a `WharfingerError` with a stable code."""
    for read in (Quantity.parse, selectors.parse_labels, selectors.parse_fields, jsonpath.parse):
        with pytest.raises(WharfingerError) as caught:
            read("{a b")
        assert caught.value.code in {"BadRequest", "Invalid"}
