"""CEL programs: a syntax tree made into nested Python functions.

An evaluation has a meter (the work it may still do), the variables, and one slot for each variable of a macro.
`&&` and `||` swallow the fault of one side where the other decides (langdef, "Logical Operators"); every other
fault ends the evaluation. Bounded: a tree's own size is bounded by its text, loops and values that grow charge
the meter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from wharfinger.core.errors import Invalid, excerpt
from wharfinger.policy.cellibrary import FUNCTIONS
from wharfinger.policy.celsyntax import Call, Fold, ListOf, Literal, MapOf, Name, Node, Select, size
from wharfinger.policy.celvalues import (
    Exhausted,
    Fault,
    Meter,
    TypeName,
    Value,
    arithmetic,
    checked_int,
    compare,
    contains,
    elements,
    equal,
    has_key,
    lookup,
    make_map,
    no_overload,
    type_of,
)

_FOLDING_BUDGET: Final = 1000
TYPE_NAMES: Final = frozenset({"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"})


class Frame:
    """One evaluation under way."""

    __slots__ = ("meter", "slots", "variables")

    def __init__(self, variables: Mapping[str, Value], slots: int, budget: int) -> None:
        self.meter = Meter(budget)
        self.variables = variables
        self.slots: list[Value] = [None] * slots


Step: TypeAlias = Callable[[Frame], Value]


def assemble(tree: Node) -> tuple[Step, int]:
    """Return the function that evaluates `tree`, and how many slots its frame needs.

    Raises `Invalid` for a function that is not offered.
    """
    assembler = _Assembler()
    step = assembler.step(tree, {})
    return step, assembler.slots


class _Assembler:
    def __init__(self) -> None:
        self.slots = 0

    def step(self, node: Node, scope: Mapping[str, int]) -> Step:
        """Return the function of `node`; `scope` maps the variables of the macros around it to slots."""
        match node:
            case Literal(value):
                return lambda frame: value
            case Name(name):
                return _slot(scope[name]) if name in scope else _variable(name)
            case Select(operand, field, test):
                return _select(self.step(operand, scope), field, test)
            case ListOf(items):
                steps = [self.step(item, scope) for item in items]
                return lambda frame: [step(frame) for step in steps]
            case MapOf(entries):
                pairs = [(self.step(key, scope), self.step(value, scope)) for key, value in entries]
                return lambda frame: make_map((key(frame), value(frame)) for key, value in pairs)
            case Call(function, arguments):
                step = _call(function, [self.step(argument, scope) for argument in arguments])
                return _folded(step) if all(isinstance(argument, Literal) for argument in arguments) else step
            case Fold():
                return self._fold(node, scope)

    def _fold(self, node: Fold, scope: Mapping[str, int]) -> Step:
        walked, start = self.step(node.range, scope), self.step(node.start, scope)
        item_slot, result_slot = self.slots, self.slots + 1
        self.slots += 2
        # The result's name may be the item's own (`cel.bind` uses it so): the later one hides the other.
        inside = {**scope, node.item_name: item_slot, node.result_name: result_slot}
        condition, step = self.step(node.condition, inside), self.step(node.step, inside)
        result = self.step(node.result, {**scope, node.result_name: result_slot})
        work = size(node.condition) + size(node.step)

        def fold(frame: Frame) -> Value:
            slots = frame.slots
            items = elements(walked(frame))
            slots[result_slot] = _caught(start, frame)
            for item in items:
                frame.meter.charge(work)
                slots[item_slot] = item
                if condition(frame) is not True:
                    break
                slots[result_slot] = _caught(step, frame)
            return result(frame)

        return fold


def _folded(step: Step) -> Step:
    """Return a step without variables as the value it gives; one that faults still does so each time."""
    try:
        value = step(Frame({}, 0, _FOLDING_BUDGET))
    except (Fault, Exhausted):
        return step
    return lambda frame: value


def _caught(step: Step, frame: Frame) -> Value:
    """Return the value, or the fault as a value: it counts only if the loop's result still depends on it."""
    try:
        return step(frame)
    except Fault as fault:
        return fault


def _slot(index: int) -> Step:
    def read(frame: Frame) -> Value:
        value = frame.slots[index]
        if type(value) is Fault:
            raise value
        return value

    return read


def _variable(name: str) -> Step:
    def read(frame: Frame) -> Value:
        if name in frame.variables:
            return frame.variables[name]
        if name in TYPE_NAMES:
            return TypeName(name)
        raise Fault(f"no such variable: {name}")

    return read


def _select(operand: Step, field: str, test: bool) -> Step:
    if test:
        return lambda frame: has_key(operand(frame), field)

    def select(frame: Frame) -> Value:
        container = operand(frame)
        if not isinstance(container, dict):
            raise Fault(f"expected a map to select {field} from, got {type_of(container)}")
        return lookup(container, field)

    return select


def _call(function: str, arguments: list[Step]) -> Step:
    if function in _LOGIC and len(arguments) == 2:
        return _logic(arguments[0], arguments[1], decides=function == "_||_")
    if function == "_?_:_" and len(arguments) == 3:
        return _conditional(*arguments)
    if function == "@not_strictly_false" and len(arguments) == 1:
        return _not_strictly_false(arguments[0])
    if function in _OPERATORS and len(arguments) == 2:
        operator = _OPERATORS[function]
        one, other = arguments
        return lambda frame: operator(frame.meter, one(frame), other(frame))
    if function == "!_":
        return _negation(arguments[0])
    if function == "-_":
        return _minus(arguments[0])
    known = FUNCTIONS.get(function)
    if known is None:
        raise Invalid(f"the CEL function {excerpt(function)} is not offered")
    return _library(function, known, arguments)


def _library(name: str, function: Callable[..., Value], arguments: list[Step]) -> Step:
    def call(frame: Frame) -> Value:
        frame.meter.charge(1)
        values = [argument(frame) for argument in arguments]
        try:
            return function(frame.meter, *values)
        except TypeError as error:
            # The checker knows the arity of what is typed; a dynamic receiver may miss it.
            raise no_overload(name, *values) from error

    return call


def _logic(left: Step, right: Step, *, decides: bool) -> Step:
    """`||` where `decides` is True, `&&` where it is False: the value that settles it whatever the other side is."""
    name = "_||_" if decides else "_&&_"

    def logic(frame: Frame) -> Value:
        problem: Fault | None = None
        try:
            one = left(frame)
            if one is decides:
                return decides
            if type(one) is not bool:
                problem = no_overload(name, one)
        except Fault as fault:
            problem = fault
        other = right(frame)
        if other is decides:
            return decides
        if problem is not None:
            raise problem
        if type(other) is not bool:
            raise no_overload(name, other)
        return other

    return logic


def _conditional(condition: Step, then: Step, otherwise: Step) -> Step:
    def choose(frame: Frame) -> Value:
        chosen = condition(frame)
        if type(chosen) is not bool:
            raise no_overload("_?_:_", chosen)
        return then(frame) if chosen else otherwise(frame)

    return choose


def _not_strictly_false(condition: Step) -> Step:
    def holds(frame: Frame) -> Value:
        try:
            return condition(frame) is not False
        except Fault:
            return True

    return holds


def _negation(operand: Step) -> Step:
    def negate(frame: Frame) -> Value:
        value = operand(frame)
        if type(value) is not bool:
            raise no_overload("!_", value)
        return not value

    return negate


def _minus(operand: Step) -> Step:
    def minus(frame: Frame) -> Value:
        value = operand(frame)
        if type(value) is int:
            return checked_int(-value)
        if type(value) is float:
            return -value
        raise no_overload("-_", value)

    return minus


def _order(function: str, *wanted: int) -> Callable[[Meter, Value, Value], bool]:
    def ordered(meter: Meter, one: Value, other: Value) -> bool:
        meter.charge(1)
        return compare(function, one, other) in wanted

    return ordered


def _arithmetic(function: str) -> Callable[[Meter, Value, Value], Value]:
    return lambda meter, one, other: arithmetic(meter, function, one, other)


_LOGIC: Final = ("_&&_", "_||_")
_OPERATORS: Final[dict[str, Callable[[Meter, Any, Any], Value]]] = {
    "_==_": equal,
    "_!=_": lambda meter, one, other: not equal(meter, one, other),
    "_<_": _order("_<_", -1),
    "_<=_": _order("_<=_", -1, 0),
    "_>_": _order("_>_", 1),
    "_>=_": _order("_>=_", 0, 1),
    "@in": contains,
    "_[_]": lambda meter, container, key: lookup(container, key),
    **{name: _arithmetic(name) for name in ("_+_", "_-_", "_*_", "_/_", "_%_")},
}
