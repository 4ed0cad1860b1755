"""The rules of schemas in CEL: the compiler that `kinds.structural.rules` asks for. Pure.

`self` and `oldSelf` are typed as far as their schema says, and seen as CEL sees objects: names that are no
identifiers are escaped, numbers are doubles and integers ints whichever way JSON wrote them, and of a whole object's
metadata only the names are there. Times and durations are texts here. An expression that errs is not a yes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid
from wharfinger.kinds.structural import celnames
from wharfinger.kinds.structural.node import Node
from wharfinger.kinds.structural.rules import Expression, OutOfBudget
from wharfinger.policy.cel import Environment, Exceeded, Program

View: TypeAlias = Callable[[Json], Json]
_SCALARS: Final = {"string": "string", "integer": "int", "number": "double", "boolean": "bool"}
_CHARACTERS_A_UNIT: Final = 16
"""How much of an expression's text counts as one unit of work, on top of what its loops count."""


def compile_rule(text: str, node: Node, root: bool, boolean: bool) -> Expression:
    """Return `text` compiled over values of `node`: a rule, or with `boolean` off the wording of one.

    Raises `Invalid` for an expression that does not compile or gives the wrong type, `TooLarge` for a long one.
    """
    kind, view = type_of(node), view_of(node, root=root)
    program, transition = _program(text, kind, boolean)
    if not boolean and program.result_type not in {"STRING", "DYN"}:
        raise Invalid("messageExpression must evaluate to a string")
    base = 1 + len(text) // _CHARACTERS_A_UNIT

    def evaluate(value: Json, old: Json, budget: int) -> tuple[Json, int]:
        variables = {"self": value if view is None else view(value)}
        if transition:
            variables["oldSelf"] = old if view is None else view(old)
        try:
            result, work = program.metered(variables, budget=max(budget - base, 0))
        except Exceeded as error:
            raise OutOfBudget(error.message) from error
        return result, base + work

    return Expression(evaluate, transition)


def _program(text: str, kind: str, boolean: bool) -> tuple[Program, bool]:
    """Return the program, and whether it asks for `oldSelf`: whether it compiles only where there is one."""
    try:
        return _environment(kind, old=False).compile(text, boolean=boolean), False
    except Invalid:
        return _environment(kind, old=True).compile(text, boolean=boolean), True


@lru_cache(maxsize=256)
def _environment(kind: str, *, old: bool) -> Environment:
    variables = {"self": kind}
    if old:
        variables["oldSelf"] = kind
    return Environment(variables)


def type_of(node: Node) -> str:
    """Return the CEL type of values of `node`; `dyn` where the schema leaves it open."""
    kind = node.types[0] if len(node.types) == 1 and not node.nullable else ""
    if kind == "array":
        return f"list({type_of(node.items)})" if node.items is not None else "list(dyn)"
    if kind == "object":
        further = node.additional
        return f"map(string, {type_of(further)})" if isinstance(further, Node) else "map(string, dyn)"
    return _SCALARS.get(kind, "dyn")


def view_of(node: Node, *, root: bool = False) -> View | None:
    """Return what turns a value into what CEL sees of it; None where that is always the value itself.

    A value that CEL sees as it is comes back as the same object: most do, and a copy would cost more than the rule.
    """
    kind = node.types[0] if len(node.types) == 1 else ""
    if kind == "number":
        return lambda value: float(value) if type(value) is int else value
    if kind == "integer":
        return lambda value: int(value) if type(value) is float else value
    if kind == "array" and node.items is not None:
        each = view_of(node.items)
        return None if each is None else _list_view(each)
    if isinstance(node.additional, Node):
        one = view_of(node.additional)
        return None if one is None else _map_view(one)
    return _object_view(node, root=root or node.embedded)


def _list_view(each: View) -> View:
    def see(value: Json) -> Json:
        if type(value) is not list:
            return value
        seen = [each(item) for item in value]
        return seen if any(new is not old for new, old in zip(seen, value, strict=True)) else value

    return see


def _map_view(one: View) -> View:
    def see(value: Json) -> Json:
        if type(value) is not dict:
            return value
        changed = {name: new for name, item in value.items() if (new := one(item)) is not item}
        return {**value, **changed} if changed else value

    return see


def _object_view(node: Node, *, root: bool) -> View | None:
    views = [(name, view) for name, child in node.properties.items() if (view := view_of(child)) is not None]
    named = [(name, celnames.escape(name)) for name in node.properties]
    renamed = [(name, escaped) for name, escaped in named if escaped != name]
    if not views and not renamed and not root:
        return None

    def see(value: Json) -> Json:
        if type(value) is not dict:
            return value
        changed = {
            name: new
            for name, view in views
            if (child := value.get(name)) is not None and (new := view(child)) is not child
        }
        if root and isinstance(value.get("metadata"), dict):
            metadata = value["metadata"]
            changed["metadata"] = {name: metadata[name] for name in ("name", "generateName") if name in metadata}
        seen = {**value, **changed} if changed else value
        present = [pair for pair in renamed if pair[0] in value]
        if present:
            seen = dict(seen)
            for name, escaped in present:
                child = seen.pop(name)
                if escaped is not None:
                    seen[escaped] = child
        return seen

    return see
