"""Constraints: a schema compiled to one question, is this value right?

Objects are right far more often than wrong, so the answer yes must be cheap: one closure a node, no paths, no
texts. After a no, `validation` says what is wrong. The two agree on every value; a property test holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from wharfinger.core.document import Json
from wharfinger.kinds.structural import numbers, patterns
from wharfinger.kinds.structural.formats import check_of
from wharfinger.kinds.structural.node import Node
from wharfinger.kinds.structural.sameness import identity
from wharfinger.kinds.structural.validation import is_among, type_findings

Test: TypeAlias = Callable[[Json], bool]

_PLAIN: Final = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": float}


def compile_test(node: Node) -> Test | None:
    """Return the test of values of `node`; None when every value passes."""
    tests: dict[type, Test | None] = {
        str: _text_test(node),
        int: _number_test(node),
        float: _number_test(node),
        list: _list_test(node),
        dict: _object_test(node),
        bool: None,
    }
    kinds = _accepted(node.types, node.format, node.pattern != "", node.typed)
    enum = _enum_test(node)
    alternatives = _alternatives_test(node)
    nothing = _null_passes(node)
    if len(kinds) == len(tests) and nothing and enum is None and alternatives is None and not any(tests.values()):
        return None
    if enum is None and alternatives is None:
        if len(kinds) == 1:
            return _single(kinds[0], tests[kinds[0]], nothing=nothing)
        by_kind = {kind: tests[kind] or _pass for kind in kinds}
        if nothing:
            by_kind[type(None)] = _pass
        return lambda value: by_kind.get(type(value), _fail)(value)
    ways = {kind: tests[kind] for kind in kinds}
    return _full(ways, enum, alternatives, nothing=nothing)


def _pass(_value: Json) -> bool:
    return True


def _fail(_value: Json) -> bool:
    return False


def _single(kind: type, test: Test | None, *, nothing: bool) -> Test:
    if test is None:
        if nothing:
            return lambda value: type(value) is kind or value is None
        return lambda value: type(value) is kind
    if nothing:
        return lambda value: test(value) if type(value) is kind else value is None
    return lambda value: type(value) is kind and test(value)


def _full(ways: dict[type, Test | None], enum: Test | None, alternatives: Test | None, *, nothing: bool) -> Test:
    def right(value: Json) -> bool:
        if value is None:
            return nothing
        kind = type(value)
        if kind not in ways:
            return False
        test = ways[kind]
        if test is not None and not test(value):
            return False
        if enum is not None and not enum(value):
            return False
        return alternatives is None or alternatives(value)

    return right


_SAMPLES: Final[dict[type, tuple[Json, ...]]] = {
    str: ("",),
    int: (0,),
    float: (0.5, 1.0),
    list: ([],),
    dict: ({},),
    bool: (False,),
}


@lru_cache(maxsize=1024)
def _accepted(types: tuple[str, ...], form: str, pattern: bool, typed: bool) -> tuple[type, ...]:
    """Return the Python types of which some value has a type that the schema asks for, given its format."""
    if not types and not form:
        return tuple(_SAMPLES)
    node = Node(types, form, pattern="." if pattern else "", typed=typed)
    return tuple(
        kind
        for kind, samples in _SAMPLES.items()
        if any(next(type_findings(sample, node, ""), None) is None for sample in samples)
    )


def _null_passes(node: Node) -> bool:
    return not node.enum and next(type_findings(None, node, ""), None) is None


def _enum_test(node: Node) -> Test | None:
    allowed = node.enum
    if not allowed:
        return None
    if all(type(each) is str for each in allowed):
        words = frozenset(allowed)
        return lambda value: type(value) is str and value in words
    return lambda value: any(is_among(value, each) for each in allowed)


def _alternatives_test(node: Node) -> Test | None:
    tests: list[Test] = [test for each in node.all_of if (test := compile_test(each)) is not None]
    if node.any_of:
        ways = [compile_test(each) or _pass for each in node.any_of]
        tests.append(lambda value: any(way(value) for way in ways))
    if node.one_of:
        choices = [compile_test(each) or _pass for each in node.one_of]
        tests.append(lambda value: sum(choice(value) for choice in choices) == 1)
    if node.negated is not None:
        negated = compile_test(node.negated) or _pass
        tests.append(lambda value: not negated(value))
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)


def _text_test(node: Node) -> Test | None:
    high, low = node.max_length, node.min_length
    search = patterns.quick(node.pattern) if node.pattern else None
    check = check_of(node.format)
    if high is None and low is None and check is None:
        return search
    least, most = low or 0, high if high is not None else 1 << 62
    if search is None and check is None:
        return lambda value: least <= len(value) <= most

    def right(value: str) -> bool:
        return least <= len(value) <= most and (search is None or search(value)) and (check is None or check(value))

    return right


def _number_test(node: Node) -> Test | None:
    kind = node.types[0] if len(node.types) == 1 and node.types[0] in {"integer", "number"} else ""
    form = node.format if kind else ""
    whole = "integer" in node.types and "number" not in node.types
    limits = [limit for limit in (node.maximum, node.minimum, node.multiple_of) if limit is not None]
    if node.typed and "integer" in node.types:
        return lambda value: (
            next(type_findings(value, node, ""), None) is None
            and (not limits or next(numbers.check("", value, node, kind, form), None) is None)
        )
    if not limits and not whole and not form:
        return None

    def slowly(value: float) -> bool:
        if whole and type(value) is float and not numbers.is_whole(value):
            return False
        return next(numbers.check("", value, node, kind, form), None) is None

    if kind != "integer" or node.multiple_of is not None:
        return slowly
    if not all(type(limit) is int and numbers.in_range(limit, kind, form) for limit in limits):
        return slowly
    low, high = numbers.INT32 if form == "int32" else numbers.INT64
    if node.maximum is not None:
        high = min(high, int(node.maximum) - node.exclusive_maximum)
    if node.minimum is not None:
        low = max(low, int(node.minimum) + node.exclusive_minimum)
    return lambda value: low <= value <= high if type(value) is int else slowly(value)


def _list_test(node: Node) -> Test | None:
    item = compile_test(node.items) if node.items is not None else None
    high, low, unique = node.max_items, node.min_items, node.unique_items
    if item is None and high is None and low is None and not unique:
        return None
    least, most = low or 0, high if high is not None else 1 << 62

    def right(value: list[Json]) -> bool:
        if not least <= len(value) <= most:
            return False
        if item is not None:
            for child in value:
                if not item(child):
                    return False
        return not unique or len({identity(child) for child in value}) == len(value)

    return right


def _object_test(node: Node) -> Test | None:
    tests = {name: compile_test(child) for name, child in node.properties.items()}
    other: Test | None = None
    if node.additional is False:
        other = _fail
    elif isinstance(node.additional, Node):
        other = compile_test(node.additional)
    required, high, low = node.required, node.max_properties, node.min_properties
    if not required and high is None and low is None and other is None and not any(tests.values()):
        return None
    if other is None:
        tests = {name: test for name, test in tests.items() if test is not None}
    test_of = tests.get
    sized = high is not None or low is not None
    least, most = low or 0, high if high is not None else 1 << 62

    def right(value: dict[str, Json]) -> bool:
        for name in required:
            if name not in value:
                return False
        for name, child in value.items():
            test = test_of(name, other)
            if test is not None and not test(child):
                return False
        return not sized or least <= len(value) <= most

    return right
