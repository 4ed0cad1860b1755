"""Validation against a schema, word for word as the API server does it (kube-openapi, validation/validate).

This is the explaining way: it says all that is wrong with a value, and where. Values that are right never need it:
`constraints` answers yes or no first, many times faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from wharfinger.core.document import Json
from wharfinger.core.printed import quoted
from wharfinger.kinds.structural import numbers, patterns
from wharfinger.kinds.structural.correlation import Pair
from wharfinger.kinds.structural.findings import Finding, Findings, Sort, general
from wharfinger.kinds.structural.formats import check_of
from wharfinger.kinds.structural.node import Node
from wharfinger.kinds.structural.sameness import identity, same

_KINDS: Final = {
    dict: ("object", ""),
    list: ("array", ""),
    str: ("string", ""),
    bool: ("boolean", ""),
    int: ("integer", "int64"),
    float: ("number", "float64"),
}


def find(value: Json, node: Node, path: str = "", pair: Pair | None = None) -> Findings:
    """Return what is wrong with `value` by the schema `node`.

    `pair` holds the value that was stored before: what has not changed since is excused.
    """
    found = Findings()
    if value is None:
        _merge(found, type_findings(value, node, path))
        _merge(found, _enum_findings(value, node, path))
        return found
    kind = type(value)
    if node.types or node.format:
        _merge(found, type_findings(value, node, path))
        found.passed += 2 if found.valid else 1
    found.merge(_alternatives(value, node, path, pair))
    found.passed += 1
    if kind is str:
        _step(found, _text_findings(value, node, path))
        check = check_of(node.format)
        if check is not None:
            wrong = not check(value)
            text = f"{path} in body must be of type {node.format}: {quoted(value)}"
            _step(found, [Finding("type", path, value, text)] if wrong else [])
    elif kind is int or kind is float:
        kinds = node.types if len(node.types) == 1 and node.types[0] in {"integer", "number"} else ("",)
        form = node.format if kinds[0] else ""
        _step(found, numbers.check(path, value, node, kinds[0], form))
        found.passed += 1
    elif kind is list:
        _list_findings(found, value, node, path, pair)
    _step(found, _enum_findings(value, node, path))
    if kind is dict:
        _object_findings(found, value, node, path, pair)
    found.passed += 1
    return found


def find_update(pair: Pair) -> Findings:
    """Return what is wrong with the new value of `pair`, excusing what is as it was."""
    assert pair.node is not None
    return _below(pair.new, pair.node, "", pair)


def _merge(found: Findings, wrong: Iterator[Finding] | list[Finding]) -> None:
    for each in wrong:
        found.add(each)


def _step(found: Findings, wrong: Iterator[Finding] | list[Finding]) -> None:
    _merge(found, wrong)
    found.passed += 1


def type_findings(value: Json, node: Node, path: str) -> Iterator[Finding]:
    """Yield the finding that `value` is not of the type that `node` asks for."""
    types = node.types
    wanted = ",".join(types)
    if value is None:
        if types and "null" not in types and not node.nullable:
            yield _mistyped(path, wanted, "null")
        return
    kind, form = _KINDS[type(value)]
    asked = node.format
    fits = (
        kind in types
        or (kind == "number" and "integer" in types and numbers.is_whole(value))
        or (kind == "integer" and "number" in types)
    )
    # Upstream takes a list for a text of any format; what is read into a type of Go's does not.
    textual = kind == "string" or (kind == "array" and not node.typed)
    if node.typed and kind in {"integer", "number"} and "integer" in types:
        fits = _fits_go(value, node)
    if asked and not textual and not fits and form != asked:
        yield _mistyped(path, asked, form)
    elif asked and textual and "number" not in types and "integer" not in types:
        return
    elif not fits:
        yield _mistyped(path, wanted, kind)


def _fits_go(value: float, node: Node) -> bool:
    """Tell whether a number can be read into Go's type: an integer of its width, or any number for a quantity."""
    if len(node.types) > 1:
        return bool(node.pattern) or (type(value) is int and numbers.in_range(value, "integer", "int32"))
    return type(value) is int and numbers.in_range(value, "integer", node.format)


def _mistyped(path: str, wanted: str, got: str) -> Finding:
    return Finding("type", path, got, f"{path} in body must be of type {wanted}: {quoted(got)}")


def _text_findings(value: str, node: Node, path: str) -> Iterator[Finding]:
    if node.max_length is not None and len(value) > node.max_length:
        text = f"{path} in body should be at most {node.max_length} chars long"
        yield Finding("long", path, value, text, node.max_length)
    elif node.min_length is not None and len(value) < node.min_length:
        yield Finding("invalid", path, value, f"{path} in body should be at least {node.min_length} chars long")
    elif node.pattern:
        wrong = patterns.mismatch(node.pattern, value)
        if wrong:
            # A quantity that is none cannot even be read into Go's type.
            sort: Sort = "type" if node.typed and len(node.types) > 1 else "invalid"
            yield Finding(sort, path, value, f"{path} in body should match '{wrong}'")


def _enum_findings(value: Json, node: Node, path: str) -> Iterator[Finding]:
    if node.enum and not any(is_among(value, allowed) for allowed in node.enum):
        text = f"{path} in body should be one of {[*node.enum]}"
        yield Finding("enum", path, value, text, node.enum)


def is_among(value: Json, allowed: Json) -> bool:
    """Tell whether `value` counts as the `allowed` one. Null never does; numbers are compared in the allowed type."""
    if value is None or allowed is None:
        return False
    if type(value) is float and type(allowed) is int:
        return numbers.INT64[0] <= value <= numbers.INT64[1] and int(value) == allowed
    if type(value) is int and type(allowed) is float:
        return value == allowed
    return same(value, allowed)


def _list_findings(found: Findings, value: list[Json], node: Node, path: str, pair: Pair | None) -> None:
    if node.items is not None:
        for index, child in enumerate(value):
            found.merge(_below(child, node.items, f"{path}[{index}]", pair.index(index) if pair else None))
    size = len(value)
    if node.min_items is not None and size < node.min_items:
        found.add(Finding("invalid", path, size, f"{path} in body should have at least {node.min_items} items"))
    if node.max_items is not None and size > node.max_items:
        text = f"{path} in body should have at most {node.max_items} items"
        found.add(Finding("many", path, size, text, node.max_items))
    if node.unique_items and len({identity(child) for child in value}) < size:
        found.add(Finding("invalid", path, None, f"{path} in body shouldn't contain duplicates"))
    found.passed += 2


def _object_findings(found: Findings, value: dict[str, Json], node: Node, path: str, pair: Pair | None) -> None:
    size = len(value)
    if node.min_properties is not None and size < node.min_properties:
        text = f"{path} in body should have at least {node.min_properties} properties"
        found.add(Finding("invalid", path, size, text))
    if node.max_properties is not None and size > node.max_properties:
        text = f"{path} in body should have at most {node.max_properties} properties"
        found.add(Finding("many", path, size, text, node.max_properties))
    for name, child in value.items():
        below = node.properties.get(name)
        if below is not None:
            continue
        if node.additional is False:
            found.add(Finding("invalid", path, name, f"{path}.{name} in body is a forbidden property"))
        elif isinstance(node.additional, Node):
            found.merge(_below(child, node.additional, f"{path}.{name}", pair.key(name) if pair else None))
    for name, below in node.properties.items():
        if name in value:
            where = f"{path}.{name}" if path else name
            found.merge(_below(value[name], below, where, pair.key(name) if pair else None))
    for name in node.required:
        if name not in value:
            found.add(Finding("required", f"{path}.{name}", None, f"{path}.{name} in body is required"))
    found.passed += 1


def _below(value: Json, node: Node, path: str, pair: Pair | None) -> Findings:
    """Validate a child; excuse it when it is what it was."""
    found = find(value, node, path, pair)
    if pair is not None and not found.valid and pair.unchanged:
        return found.excused()
    return found


def _alternatives(value: Json, node: Node, path: str, pair: Pair | None) -> Findings:
    found = Findings()
    if node.any_of:
        _any_of(found, value, node, path, pair)
    if node.one_of:
        _one_of(found, value, node, path, pair)
    if node.all_of:
        results = [find(value, each, path, pair) for each in node.all_of]
        for result in results:
            found.merge(result)
        valid = sum(result.valid for result in results)
        if valid != len(results):
            more = "" if valid else ". None validated"
            found.add(general(f"{quoted(path)} must validate all the schemas (allOf){more}"))
    if node.negated is not None and find(value, node.negated, path, pair).valid:
        found.add(general(f"{quoted(path)} must not validate the schema (not)"))
    found.passed += 1
    return found


def _any_of(found: Findings, value: Json, node: Node, path: str, pair: Pair | None) -> None:
    best: Findings | None = None
    for each in node.any_of:
        result = find(value, each, path, pair)
        if result.valid:
            found.merge(result)
            return
        if best is None or result.passed > best.passed:
            best = result
    found.add(general(f"{quoted(path)} must validate at least one schema (anyOf)"))
    if best is not None:
        found.merge(best)


def _one_of(found: Findings, value: Json, node: Node, path: str, pair: Pair | None) -> None:
    results = [find(value, each, path, pair) for each in node.one_of]
    right = [result for result in results if result.valid]
    if len(right) == 1:
        found.merge(right[0])
        return
    more = f"Found {len(right)} valid alternatives" if right else "Found none valid"
    found.add(general(f"{quoted(path)} must validate one and only one schema (oneOf). {more}"))
    if not right:
        best = results[0]
        for result in results[1:]:
            if result.passed > best.passed:
                best = result
        found.merge(best)
