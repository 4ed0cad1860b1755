"""Rules: `x-kubernetes-validations`, walked along a value (apiextensions, schema/cel).

What an expression means is not known here: a compiler is handed in, so that kinds need no policy. A rule that cannot
be compiled, that errs or that takes too much work refuses the value; only `true` is a yes. A rule that asks for
`oldSelf` is asked only where there is a stored value to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from wharfinger.core.causes import child, invalid, item, key_of, required
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Invalid, Malformed, TooLarge, WharfingerError
from wharfinger.kinds.structural.correlation import Pair
from wharfinger.kinds.structural.fieldpath import resolve
from wharfinger.kinds.structural.findings import MOST
from wharfinger.kinds.structural.node import Node

BUDGET: Final = 300_000
"""Units of work of all rules of one object together; what a unit is, the compiler says."""
CALL_BUDGET: Final = 100_000
"""Units of work of one expression on one value."""
LONGEST_MESSAGE: Final = 5 * 1024
"""Bytes of the text that a messageExpression may give."""
_SPENT: Final = "validation failed due to running out of cost budget, no further validation rules will be run"


class OutOfBudget(Invalid):
    """An expression took more work than it was given."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    `evaluate` takes the value, the stored one (None for none) and a budget; returns the result and the work it took.
    It raises `OutOfBudget`, and another `Invalid` for an error. `transition` says that the expression asks for
    `oldSelf`.
    """

    evaluate: Callable[[Json, Json, int], tuple[Json, int]]
    transition: bool


Compile: TypeAlias = Callable[[str, Node, bool, bool], Expression]
"""The port: compiles an expression over values of a node. The third argument says that the value is a whole resource,
the fourth that the expression is to give a bool and not a text. Raises `Invalid` or `TooLarge`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as compiled; `fault` says why it cannot be asked."""

    text: str
    message: str
    reason: str
    path: str
    asked: Expression | None
    wording: Expression | None
    fault: str


@dataclass(slots=True)
class Walk:
    """One validation under way: what was found, what work is left, whether it has ended."""

    left: int = BUDGET
    problems: list[FieldProblem] = field(default_factory=list)
    excused: list[FieldProblem] = field(default_factory=list)

    def over(self) -> bool:
        """Tell whether no further rule is to be asked."""
        return self.left < 0 or len(self.problems) >= MOST


Step: TypeAlias = Callable[[Json, Json, str, "Pair | None", "Pair | None", Walk], None]
"""Asks the rules of a value: (value, stored value, path, its pair, the nearest pair above it, the walk)."""


def compile_rules(node: Node | None, compiler: Compile, *, root: bool = False) -> Step | None:
    """Return what asks all rules of `node` and below; None when there are none."""
    return None if node is None else _step(node, node, compiler, root=root)


def ask(step: Step, value: Json, old: Json, node: Node, budget: int = BUDGET, path: str = "") -> Walk:
    """Ask the rules of an object at `path`, given the stored one; unchanged parts that broke one before are excused."""
    walk = Walk(budget)
    pair = Pair(value, old, node, root=True) if old is not None else None
    step(value, old, path, pair, None, walk)
    return walk


def _step(narrowing: Node, node: Node, compiler: Compile, *, root: bool) -> Step | None:
    """Compile the rules of `narrowing`, which is `node` itself or stands in its `allOf`."""
    rules = [_compiled(rule, node, compiler, root=root) for rule in narrowing.rules]
    within = [step for each in narrowing.all_of if (step := _step(each, node, compiler, root=root)) is not None]
    properties = {
        name: step
        for name, below in narrowing.properties.items()
        if name in node.properties
        and (step := _step(below, node.properties[name], compiler, root=node.properties[name].embedded)) is not None
    }
    further, items = _further_step(narrowing, node, compiler), None
    if narrowing.items is not None and node.items is not None:
        items = _step(narrowing.items, node.items, compiler, root=node.items.embedded)
    if not (rules or within or properties or further or items):
        return None
    known = node.properties.keys()

    def object_step(value: Json, old: Json, path: str, pair: Pair | None, above: Pair | None, walk: Walk) -> None:
        stored = old if type(old) is dict else {}
        if further is not None:
            for name, below in value.items():
                if name not in known and not walk.over():
                    below_pair, nearest = _pairs(pair, above, name)
                    further(below, stored.get(name), key_of(path, name), below_pair, nearest, walk)
        for name, step in properties.items():
            if name in value and not walk.over():
                below_pair, nearest = _pairs(pair, above, name)
                step(value[name], stored.get(name), child(path, name), below_pair, nearest, walk)

    def ask_all(value: Json, old: Json, path: str, pair: Pair | None, above: Pair | None, walk: Walk) -> None:
        if value is None or walk.over():
            return
        for rule in rules:
            _ask_one(rule, node, value, old, path, pair or above, walk)
            if walk.over():
                return
        for step in within:
            step(value, old, path, None, above, walk)
        kind = type(value)
        if kind is dict:
            object_step(value, old, path, pair, above, walk)
        elif kind is list and items is not None:
            matched = pair if pair is not None else Pair(value, old, node)
            for index, below in enumerate(value):
                if walk.over():
                    return
                one = matched.index(index)
                below_pair, nearest = (one, pair) if pair is not None else (None, above)
                items(below, None if one is None else one.old, item(path, index), below_pair, nearest, walk)

    return ask_all


def _further_step(narrowing: Node, node: Node, compiler: Compile) -> Step | None:
    if isinstance(narrowing.additional, Node) and isinstance(node.additional, Node):
        return _step(narrowing.additional, node.additional, compiler, root=node.additional.embedded)
    return None


def _pairs(pair: Pair | None, above: Pair | None, name: str) -> tuple[Pair | None, Pair | None]:
    if pair is None:
        return None, above
    # What an object is of a kind changes under it: its type fields are never excused.
    return (None, None) if pair.is_type(name) else (pair.key(name), pair)


def _compiled(rule: Mapping[str, Json], node: Node, compiler: Compile, *, root: bool) -> Rule:
    text, message = str(rule.get("rule") or ""), str(rule.get("message") or "").strip()
    path, wording, fault = "", None, ""
    asked: Expression | None = None
    if text.strip():
        try:
            if rule.get("fieldPath"):
                path, _ = resolve(str(rule["fieldPath"]), node)
            asked = compiler(text, node, root, True)
            if rule.get("messageExpression"):
                wording = compiler(str(rule["messageExpression"]), node, root, False)
            if rule.get("optionalOldSelf"):
                raise Malformed("optionalOldSelf is not offered")
        except (Invalid, Malformed, TooLarge) as error:
            asked, fault = None, f"rule compile error: {error.message}"
    return Rule(text.strip(), message, str(rule.get("reason") or ""), path, asked, wording, fault)


def _ask_one(rule: Rule, node: Node, value: Json, old: Json, path: str, near: Pair | None, walk: Walk) -> None:
    kind = node.types[0] if len(node.types) == 1 else ""
    if rule.fault:
        walk.problems.append(invalid(path, kind, rule.fault))
        return
    asked = rule.asked
    if asked is None or (asked.transition and old is None):
        return
    shown = rule.message or rule.text
    try:
        result, work = asked.evaluate(value, old, min(walk.left, CALL_BUDGET))
        walk.left -= work
    except OutOfBudget:
        text = (
            _SPENT
            if walk.left < CALL_BUDGET
            else (
                "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call"
                f" cost exceeds limit for rule: {shown}"
            )
        )
        walk.problems.append(invalid(path, kind, text))
        walk.left = -1
        return
    except WharfingerError as error:
        walk.left -= 1
        walk.problems.append(invalid(path, kind, f"{error.message} evaluating rule: {shown}"))
        return
    if walk.left < 0:
        walk.problems.append(invalid(path, kind, _SPENT))
        return
    if result is True:
        return
    problem = _broken(rule, node, value, old, path, walk)
    unchanged = not asked.transition and near is not None and near.unchanged
    (walk.excused if unchanged else walk.problems).append(problem)


def _broken(rule: Rule, node: Node, value: Json, old: Json, path: str, walk: Walk) -> FieldProblem:
    """Return the problem of a broken rule, in its own words where it has some."""
    detail = rule.message or f"failed rule: {rule.text}"
    if rule.wording is not None:
        detail = _worded(rule.wording, value, old, walk) or detail
    at = f"{path}.{rule.path}" if path and rule.path else path or rule.path
    whole = len(node.types) == 1 and node.types[0] in {"object", "array"}
    match rule.reason:
        case "FieldValueForbidden":
            return FieldProblem(at, f"Forbidden: {detail}", rule.reason)
        case "FieldValueRequired":
            return required(at, detail)
        case "FieldValueDuplicate":
            made = invalid(at, value, "")
            shown = "Duplicate value" if whole else made.message.replace("Invalid value", "Duplicate value", 1)
            return FieldProblem(at, shown.removesuffix(": "), rule.reason)
        case _:
            return FieldProblem(at, f"Invalid value: {detail}") if whole else invalid(at, value, detail)


def _worded(wording: Expression, value: Json, old: Json, walk: Walk) -> str:
    """Return what a messageExpression says; empty where it fails, or says nothing that fits one line."""
    try:
        said, work = wording.evaluate(value, old, min(max(walk.left, 0), CALL_BUDGET))
    except WharfingerError:
        walk.left -= 1
        return ""
    walk.left -= work
    text = said.strip() if isinstance(said, str) else ""
    return "" if "\n" in text or len(text.encode("utf-8", "replace")) > LONGEST_MESSAGE else text
