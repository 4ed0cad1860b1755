"""A structural schema, compiled: what defaults, prunes and validates the objects of a kind.

Everything is compiled once, to closures: an object that is right costs one walk for each of the three.
"""

from __future__ import annotations

from itertools import islice

from wharfinger.core.causes import invalid
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem
from wharfinger.kinds import kind
from wharfinger.kinds.structural import embedded, formats
from wharfinger.kinds.structural.constraints import compile_test
from wharfinger.kinds.structural.correlation import Pair
from wharfinger.kinds.structural.defaulting import compile_defaults, compile_nulls
from wharfinger.kinds.structural.findings import MOST, causes_of
from wharfinger.kinds.structural.listtypes import compile_uniqueness
from wharfinger.kinds.structural.node import Node, read
from wharfinger.kinds.structural.objectmeta import compile_coercion
from wharfinger.kinds.structural.pruning import compile_pruning
from wharfinger.kinds.structural.rules import Compile, ask, compile_rules
from wharfinger.kinds.structural.validation import find, find_update

_BLOCKING = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)
"""Causes after which the rules of a schema are not asked: their types could not be relied on."""
_UNASKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)


class Schema:
    """The compiled schema of a whole object. Pure and immutable: threads may share it."""

    def __init__(self, node: Node, rules: Compile | None = None) -> None:
        self.node = node
        self._rules = compile_rules(node, rules, root=True) if rules is not None else None
        self._defaults = compile_defaults(node)
        self._nulls = compile_nulls(node)
        self._unknown = compile_pruning(node, root=True)
        self._right = compile_test(node)
        self._repeats = compile_uniqueness(node)
        self._embedded = embedded.compile_check(node)
        self._coerce = compile_coercion(node, root=True)
        self._monotone = is_monotone(node)

    def default(self, value: Json) -> None:
        """Fill in, in place, the defaults of what `value` leaves out or sets to a null that may not be."""
        if self._defaults is not None:
            self._defaults(value)

    def prune(self, value: Json) -> list[str]:
        """Drop, in place, unknown fields and the nulls that may not be; return the paths of the unknown fields."""
        unknown = self._unknown(value, True)
        if self._nulls is not None:
            self._nulls(value)
        return unknown

    def coerce(self, value: Json, *, drop: bool = False) -> list[str]:
        """Bring the metadata of `value` and of objects within it to its form; return the paths of unknown fields.

        Raises `Malformed`, naming the field, for what is of the wrong type, unless `drop` says to drop it.
        """
        unknown: list[str] = []
        if self._coerce is not None:
            self._coerce(value, "", drop, unknown)
        return unknown

    def unknown(self, value: Json) -> list[str]:
        """Return the paths of the fields that the schema does not know, sorted; `value` stays as it is."""
        return self._unknown(value, False)

    def validate(self, value: Json, old: Json = None) -> list[FieldProblem]:
        """Return what is wrong with `value`.

        With `old`, the stored object, what was wrong before and has not changed is excused (ratcheting).
        """
        problems = self.mismatches(value, old)
        if self._embedded is not None:
            problems += self._embedded(value, "")[:MOST]
        if self._repeats is not None:
            repeats = list(islice(self._repeats(value, ""), MOST))
            if repeats and (old is None or not any(self._repeats(old, ""))):
                problems += repeats
        return problems + self._broken_rules(value, old, problems)

    def _broken_rules(self, value: Json, old: Json, before: list[FieldProblem]) -> list[FieldProblem]:
        if self._rules is None:
            return []
        if any(problem.reason in _BLOCKING for problem in before):
            return [invalid("", None, _UNASKED)]
        return ask(self._rules, value, old, self.node).problems

    def validate_status(self, value: Json, old: Json) -> list[FieldProblem]:
        """Return what is wrong with the status of `value`, an object that is otherwise as it is stored in `old`."""
        status = self.node.properties.get("status")
        problems: list[FieldProblem] = []
        if status is not None and "status" in value:
            pair = Pair(value["status"], old.get("status"), status, root=True)
            problems += causes_of(find_update(pair).errors, "status")
        if self._repeats is not None:
            repeats = list(islice(self._repeats(value, ""), MOST))
            if repeats and not any(self._repeats(old, "")):
                problems += repeats
        return problems + self._broken_rules(value, old, problems)

    def mismatches(self, value: Json, old: Json = None, below: str = "") -> list[FieldProblem]:
        """Return where `value` does not match the schema's constraints; `below` is the path of the value.

        Lists that repeat what they may not, embedded objects and rules are not looked at.
        """
        right = self._right
        if right is None or ((old is None or self._monotone) and right(value)):
            return []
        if old is None:
            return causes_of(find(value, self.node).errors, below)
        return causes_of(find_update(Pair(value, old, self.node, root=True)).errors, below)


def is_monotone(node: Node) -> bool:
    """Tell whether excusing a part of a value can only make it more right: no alternative counts on a no."""
    if node.one_of or node.negated is not None:
        return False
    return all(map(is_monotone, node.parts()))


def compile_schema(
    document: kind.Schema | None,
    rules: Compile | None = None,
    *,
    version: formats.Version = formats.LATEST,
    typed: bool = False,
) -> Schema:
    """Return the schema of a kind's `document`; formats are those that `version` of Kubernetes checks.

    `rules` compiles its `x-kubernetes-validations`; without it they are not asked. `typed` says that it is a kind of
    Kubernetes itself, whose objects are read into Go's types. Raises `Malformed` when the schema cannot be read as
    structural.
    """
    node = read(document)
    formats.settle(node, version, typed=typed)
    return Schema(node, rules)
