"""The rules of schemas in CEL: the compiler that `kinds.structural.rules` asks for. Pure.

`self` and `oldSelf` are typed as far as their schema says, and seen as CEL sees objects: names that are no
identifiers are escaped, null fields are not there, numbers are doubles and integers ints whichever way JSON wrote
them, and of a whole object's metadata only the names are there. Times and durations are texts here. An expression
that errs is not a yes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid
from wharfinger.kinds.structural import celnames
from wharfinger.kinds.structural.node import Node
from wharfinger.kinds.structural.pruning import META_FIELDS
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
        seen = value
        for index, item in enumerate(value):
            new = each(item)
            if new is not item:
                seen = list(value) if seen is value else seen
                seen[index] = new
        return seen

    return see


def _map_view(one: View) -> View:
    def see(value: Json) -> Json:
        if type(value) is not dict:
            return value
        seen = value
        for name, item in value.items():
            new = one(item)
            if new is not item:
                seen = dict(value) if seen is value else seen
                seen[name] = new
        return seen

    return see


def _object_view(node: Node, *, root: bool) -> View | None:
    """Return how CEL sees an object with properties: by their escaped names, and not those that are null."""
    names = {name: celnames.escape(name) for name in node.properties}
    views = [
        (name, escaped, view)
        for name, escaped in names.items()
        if escaped is not None and (view := view_of(node.properties[name])) is not None
    ]
    nulls = any(child.nullable for child in node.properties.values())
    reshaped = root or any(escaped != name for name, escaped in names.items())
    if not views and not reshaped and not nulls:
        return None
    if root:
        names.update({name: name for name in META_FIELDS})

    def see(value: Json) -> Json:
        if type(value) is not dict:
            return value
        seen = value
        if reshaped or (nulls and None in value.values()):
            seen = _reshaped(value, names, declared_only=root)
        for name, escaped, view in views:
            child = value.get(name)
            if child is not None:
                new = view(child)
                if new is not child:
                    seen = dict(value) if seen is value else seen
                    seen[escaped] = new
        return seen

    return see


def _reshaped(value: dict[str, Json], names: Mapping[str, str | None], *, declared_only: bool) -> dict[str, Json]:
    """Return an object by its escaped names, without nulls; of a whole resource only what is declared."""
    seen: dict[str, Json] = {}
    for name, child in value.items():
        escaped = names.get(name, None if declared_only else name)
        if child is not None and escaped is not None:
            seen[escaped] = child
    metadata = seen.get("metadata")
    if declared_only and isinstance(metadata, dict):
        seen["metadata"] = {name: metadata[name] for name in ("name", "generateName") if name in metadata}
    return seen
