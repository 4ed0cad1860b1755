"""CEL behind our door: errors are never a yes, work is bounded, what is not known is refused."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfinger.core.errors import Invalid, TooLarge, WharfingerError
from wharfinger.policy import access
from wharfinger.policy.cel import ACCESS, DEVICE, MAX_KEPT, Environment, Unevaluable, condition, device_variables
from wharfinger.policy.celsyntax import read

ANY = Environment({"x": "dyn"})
GPU = {
    "name": "gpu-0",
    "attributes": {
        "type": {"string": "gpu"},
        "index": {"int": 3},
        "healthy": {"bool": True},
        "driverVersion": {"version": "580.95.5"},
        "resource.kubernetes.io/numaNode": {"int": 1},
    },
    "capacity": {"memory": {"value": "80Gi"}},
}


def selects(expression: str, device: dict[str, Any] = GPU) -> bool:
    """Evaluate a device selector."""
    return DEVICE.compile(expression).holds(device_variables("gpu.example", device))


@pytest.mark.parametrize(
    "expression",
    [
        'device.driver == "gpu.example"',
        'device.attributes["gpu.example"].index in [1, 2, 3]',
        'device.attributes["resource.kubernetes.io"].numaNode == 1',
        'device.capacity["gpu.example"].memory.compareTo(quantity("80Gi")) == 0',
        'device.attributes["gpu.example"].driverVersion.isGreaterThan(semver("570.0.0"))',
        'cel.bind(a, device.attributes["gpu.example"], a.healthy && a.type.startsWith("g"))',
        '!("memory" in device.capacity["other.example"])',
        '!("other.example" in device.attributes)',
        'has(device.attributes["gpu.example"].index) && !has(device.attributes["gpu.example"].missing)',
        'device.attributes["gpu.example"].exists(name, name == "type")',
    ],
)
def test_a_device_is_selected(expression: str) -> None:
    """What selectors are made of works on a device of a slice."""
    assert selects(expression)


@pytest.mark.parametrize(
    "expression",
    [
        'device.attributes["gpu.example"].missing == 1',
        'device.attributes["gpu.example"].index.startsWith("3")',
        'device.attributes["gpu.example"].index',
        'device.attributes["gpu.example"].type > 3',
        'device.attributes["gpu.example"].index / 0 == 1',
        'quantity("many").isGreaterThan(quantity("1"))',
        'device.attributes["gpu.example"].type.matches("(")',
        "9223372036854775807 + 1 > 0",
    ],
)
def test_an_error_is_never_a_yes(expression: str) -> None:
    """A missing key, a wrong type, a value that is no bool, an overflow: each raises."""
    with pytest.raises(Unevaluable):
        selects(expression)


def test_the_other_side_of_or_may_decide() -> None:
    """`||` and `&&` swallow an error only where the other side settles the matter, whichever side it is."""
    assert ANY.compile("x.missing || true").holds({"x": {}}) is True
    assert ANY.compile("true || x.missing").holds({"x": {}}) is True
    assert ANY.compile("x.missing && false").holds({"x": {}}) is False
    assert ANY.compile("[1, 2].exists(i, i == 2 || x.missing)").holds({"x": {}}) is True
    for text in ("x.missing || false", "x.missing && true", "[1, 2].all(i, i < 3 && x.missing)"):
        with pytest.raises(Unevaluable):
            ANY.compile(text).holds({"x": {}})


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("1", "must be a bool, not int"),
        ("?!", "Syntax error"),
        ("nobody", "undeclared reference"),
        ("device.owner == 'me'", "undeclared reference"),
        ("timestamp('2026-01-01T00:00:00Z') < timestamp('2027-01-01T00:00:00Z')", "is not offered"),
        ("'a' + 1 == 'b'", "no matching overload"),
    ],
)
def test_what_cannot_be_right_does_not_compile(expression: str, why: str) -> None:
    """Syntax, types, names and functions are checked before anything runs."""
    with pytest.raises(Invalid, match=why):
        DEVICE.compile(expression)
    with pytest.raises(Invalid, match=why):
        DEVICE.compile(expression)


def test_work_is_bounded() -> None:
    """Nested loops and values that double are stopped in little time and memory."""
    ones = "[" + ",".join("1" * 1 for _ in range(100)) + "]"
    loops = f"{ones}.all(a, {ones}.all(b, {ones}.all(c, a == b && b == c)))"
    doubling = "'xxxxxxxxxx'"
    for i in range(24):
        doubling = f"cel.bind(v{i}, {doubling}, v{i} + v{i})"
    for text in (loops, f"size({doubling}) > 0"):
        with pytest.raises(Unevaluable, match="units of work"):
            ANY.compile(text).holds({"x": 1})


def test_a_long_text_is_refused_unread() -> None:
    """The limit is Kubernetes': 10 KiB."""
    with pytest.raises(TooLarge):
        ANY.compile("x == '" + "é" * 5200 + "'")


def test_deep_nesting_is_refused() -> None:
    """Neither the front end nor ours runs out of stack."""
    for text in ("(" * 3000 + "true" + ")" * 3000, "-" * 5000 + "(" * 500 + "x", "[" * 2000 + "]" * 2000 + " == x"):
        with pytest.raises(Invalid):
            ANY.compile(text)
    assert ANY.compile(" || ".join(["x == 1"] * 60)).holds({"x": 1})


@pytest.mark.parametrize("libraries", [{"network"}, {"strings", "Strings"}])
def test_an_unknown_library_is_refused(libraries: set[str]) -> None:
    """The front end would take any name in silence."""
    with pytest.raises(Invalid, match="expected CEL libraries"):
        Environment({}, libraries=libraries)


@pytest.mark.parametrize("kind", ["text", "list", "map(string)", "list(string", "map(string, list(word))", ""])
def test_an_unknown_type_is_refused(kind: str) -> None:
    """A variable has a type that exists."""
    with pytest.raises(Invalid, match="expected a CEL type"):
        Environment({"x": kind})


def test_a_library_that_is_not_asked_for_is_not_there() -> None:
    """An environment offers what it names."""
    with pytest.raises(Invalid, match="undeclared reference to 'quantity'"):
        Environment({}, libraries=["strings"]).compile("quantity('1').isInteger()")


def test_an_attribute_without_a_value_is_refused() -> None:
    """A device that the API would not take is not evaluated."""
    with pytest.raises(Invalid, match="gpu-0"):
        device_variables("d", {"name": "gpu-0", "attributes": {"a": {}}})
    with pytest.raises(Invalid, match="semantic version"):
        device_variables("d", {"name": "gpu-0", "attributes": {"a": {"version": "1.0"}}})
    with pytest.raises(Invalid, match="expected a quantity"):
        device_variables("d", {"name": "gpu-0", "capacity": {"a": {"value": "1Xi"}}})


def test_compiled_programs_are_kept_within_a_limit() -> None:
    """The same text is compiled once; old ones make room."""
    environment = Environment({"x": "int"})
    first = environment.compile("x == 0")
    assert environment.compile("x == 0") is first
    for i in range(1, MAX_KEPT + 1):
        environment.compile(f"x == {i}")
    assert environment.compile("x == 0") is not first


def test_threads_share_an_environment() -> None:
    """Compiling and evaluating from many threads gives each its own answer."""
    environment = Environment({"x": "int"})
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(100):
            program = environment.compile(f"[1, 2, 3].map(y, y * x).exists(z, z == {i % 7})")
            if program.holds({"x": seed}) != ((i % 7) in (seed, 2 * seed, 3 * seed)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_access_conditions_are_this_cel() -> None:
    """An AccessPolicy's condition allows when it is true; when it errs, an Allow does not apply and a Deny does."""

    def policy(effect: str, text: str) -> dict[str, Any]:
        spec = {"effect": effect, "verbs": ["call"], "identities": ["spiffe://w.local/*"], "condition": text}
        return {"kind": "AccessPolicy", "metadata": {"name": effect.lower()}, "spec": spec}

    question = access.Question("spiffe://w.local/tenant/blue/user/ann", "call", "Model", "blue", "m", tenant="blue")
    allow = policy("Allow", 'tenant == "blue" && object.kind == "Model"')
    assert access.decide([allow], question, condition).allowed
    assert not access.decide([policy("Allow", 'object.missing == "x"')], question, condition).allowed
    assert not access.decide([allow, policy("Deny", 'object.missing == "x"')], question, condition).allowed
    assert not access.decide([policy("Allow", "nonsense(")], question, condition).allowed
    with pytest.raises(Invalid):
        ACCESS.compile("caller == 'x'")


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_bool_or_our_error(text: str) -> None:
    """Whatever a tenant writes, the answer is a bool or an error of ours."""
    try:
        answer = ANY.compile(text).holds({"x": 1})
    except WharfingerError:
        return
    assert isinstance(answer, bool)


_LEAVES = st.sampled_from(["x", "1", "2u", "1.5", "'a'", "true", "null", "[]", "{}", "x.a", "[1, 'b']", "{'a': 1}"])
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "%", "==", "<", "&&", "||", "in"]), inner).map(
            lambda parts: f"(dyn({parts[0]}) {parts[1]} dyn({parts[2]}))"
        ),
        st.tuples(inner, inner).map(lambda parts: f"dyn({parts[0]})[dyn({parts[1]})]"),
        st.tuples(inner, st.sampled_from(["all", "exists", "map", "filter"]), inner).map(
            lambda parts: f"dyn({parts[0]}).{parts[1]}(y, dyn({parts[2]}))"
        ),
        inner.map(lambda text: f"size(dyn({text}))"),
        inner.map(lambda text: f"string(dyn({text}))"),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(_TREES, st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers()), st.just({"a": [1]})))
def test_any_evaluation_gives_a_value_or_our_error(text: str, x: Any) -> None:
    """No expression over any value escapes with a foreign exception."""
    try:
        ANY.compile(text, boolean=False).evaluate({"x": x})
    except WharfingerError:
        pass


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_tree_or_refused(data: bytes) -> None:
    """The reader of serialized expressions takes no bytes for granted."""
    try:
        read(data)
    except Invalid:
        pass
