"""Validation rules of a schema in CEL (`x-kubernetes-validations`), evaluated. Pure.

Rules stand at any level; `self` is the value there, `oldSelf` what it was. A rule that speaks of `oldSelf` is
asked only where there was a value before, and never inside lists, whose items have no identity here. What an
update leaves as it was is not judged again (ratcheting, KEP-4008). A rule that ends in an error is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from wharfinger.core import causes
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Invalid
from wharfinger.core.printed import quoted
from wharfinger.kinds.kind import Schema
from wharfinger.policy.cel import Environment, Program

_ENVIRONMENT: Final = Environment({"self": "dyn", "oldSelf": "dyn"})
_OLD: Final = re.compile(r"\boldSelf\b")
_STRING: Final = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its program, what to say when it does not hold, and of which field below to say it."""

    program: Program
    message: str
    below: str
    reason: str
    is_transition: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules at one level of a schema and below."""

    here: tuple[Rule, ...] = ()
    fields: dict[str, Rules] = field(default_factory=dict)
    values: Rules | None = None
    items: Rules | None = None

    def __bool__(self) -> bool:
        """Say whether there is a rule at all."""
        return bool(self.here or self.fields or self.values or self.items)

    def problems(self, new: Json, old: Json = None, at: str = "") -> list[FieldProblem]:
        """Return a problem for every rule that `new` breaks; `old` is what was stored, None for nothing."""
        return list(self._broken(new, old, at)) if self else []

    def _broken(self, new: Json, old: Json, at: str) -> Iterator[FieldProblem]:
        if new is None or (old is not None and new == old):
            return
        for rule in self.here:
            if rule.is_transition and old is None:
                continue
            problem = _judge(rule, new, old, at)
            if problem is not None:
                yield problem
        before = old if isinstance(old, dict) else {}
        if isinstance(new, dict):
            for name, below in self.fields.items():
                yield from below._broken(new.get(name), before.get(name), causes.child(at, name))
            if self.values:
                for name, value in new.items():
                    if name not in self.fields:
                        yield from self.values._broken(value, before.get(name), causes.key_of(at, name))
        elif isinstance(new, list) and self.items:
            for index, value in enumerate(new):
                yield from self.items._broken(value, None, causes.item(at, index))


def compile_rules(schema: Schema) -> Rules:
    """Return the rules of `schema`. Raises `Invalid` for one that does not compile."""
    fields = {name: compile_rules(child) for name, child in (schema.get("properties") or {}).items()}
    values, items = schema.get("additionalProperties"), schema.get("items")
    return Rules(
        tuple(_compiled(rule) for rule in schema.get("x-kubernetes-validations") or ()),
        {name: rules for name, rules in fields.items() if rules},
        compile_rules(values) if isinstance(values, dict) else None,
        compile_rules(items) if isinstance(items, dict) else None,
    )


def _compiled(rule: Schema) -> Rule:
    text = rule["rule"]
    return Rule(
        _ENVIRONMENT.compile(text),
        rule.get("message") or f"failed rule: {text}",
        rule.get("fieldPath", ""),
        rule.get("reason", "FieldValueInvalid"),
        _OLD.search(_STRING.sub("", text)) is not None,
    )


def _judge(rule: Rule, new: Json, old: Json, at: str) -> FieldProblem | None:
    where = (at + rule.below).removeprefix(".")
    try:
        if rule.program.holds({"self": new, "oldSelf": old}):
            return None
    except Invalid as error:
        return FieldProblem(where, f"Invalid value: {quoted(_type(new))}: {error.message}")
    match rule.reason:
        case "FieldValueRequired":
            return causes.required(where, rule.message)
        case "FieldValueForbidden":
            return causes.forbidden(where, rule.message)
        case "FieldValueDuplicate":
            return causes.duplicate(where, new)
    # Kubernetes shows what is broken where it is a single value, and leaves out whole objects and lists.
    if isinstance(new, dict | list):
        return FieldProblem(where, f"Invalid value: {rule.message}")
    return causes.invalid(where, new, rule.message)


def _type(value: Json) -> str:
    return "object" if isinstance(value, dict) else "array" if isinstance(value, list) else type(value).__name__
