"""Selectors: which objects a list, a watch, a Deployment or a policy means.

Label selectors come as text (`app=web,tier in (a,b),!draft`) or as a `LabelSelector` object; field
selectors as text only (`metadata.name=x,spec.nodeName!=y`). Both are read once and then match maps of
texts (k8s.io/apimachinery, labels and fields).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from wharfinger.core import names
from wharfinger.core.causes import child, forbidden, invalid, item, key_of, required
from wharfinger.core.errors import FieldProblem, Invalid, Malformed, excerpt

LONGEST_TEXT: Final = 64 * 1024
"""Characters of a selector; longer ones are refused before they are read."""

_BINARY: Final = ("=", "==", "!=", "in", "notin", "gt", "lt")
_SYMBOLS: Final = {">": "gt", "<": "lt"}
_WRITTEN: Final = {"gt": ">", "lt": "<", "in": " in ", "notin": " notin "}
_OBJECT_OPERATORS: Final = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
_TOKEN: Final = re.compile(r"[ \t\r\n]*(==|!=|[=!(),<>]|[^=!(),<> \t\r\n]+)")
_INT64: Final = re.compile(r"[+-]?[0-9]{1,32}", re.ASCII)
_TERM: Final = re.compile(r"(.*?)(!=|==|=)(.*)", re.DOTALL)
_SPECIAL: Final = re.compile(r"([\\,=])")
_ESCAPED_TERM: Final = re.compile(r"(?:[^\\,]|\\.|\\$)*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label.

    `operator` is `in`, `notin`, `=`, `==`, `!=`, `exists`, `!`, `gt` or `lt`; `values` are sorted.
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()

    @classmethod
    def checked(cls, key: str, operator: str, values: Iterable[str]) -> Requirement:
        """Return the requirement; raise `Invalid` that names each field which makes no sense."""
        requirement = cls(key, operator, tuple(sorted(set(values))))
        problems = requirement.problems()
        if problems:
            message = "; ".join(str(problem) for problem in problems)
            raise Invalid(f"expected a label requirement: {message}", fields=problems)
        return requirement

    def problems(self) -> list[FieldProblem]:
        """Return what is wrong with key, operator and values."""
        problems = [invalid("key", self.key, "; ".join(wrong)) for wrong in [names.label_key(self.key)] if wrong]
        count = len(self.values)
        match self.operator:
            case "in" | "notin" if count == 0:
                detail = "for 'in', 'notin' operators, values set can't be empty"
                problems.append(invalid("values", [], detail))
            case "=" | "==" | "!=" if count != 1:
                detail = "exact-match compatibility requires one single value"
                problems.append(invalid("values", list(self.values), detail))
            case "exists" | "!" if count:
                detail = "values set must be empty for exists and does not exist"
                problems.append(invalid("values", list(self.values), detail))
            case "gt" | "lt":
                if count != 1:
                    detail = "for 'Gt', 'Lt' operators, exactly one value is required"
                    problems.append(invalid("values", list(self.values), detail))
                for index, value in enumerate(self.values):
                    if _int64(value) is None:
                        detail = "for 'Gt', 'Lt' operators, the value must be an integer"
                        problems.append(invalid(item("values", index), value, detail))
            case "in" | "notin" | "=" | "==" | "!=" | "exists" | "!":
                pass
            case _:
                problems.append(invalid("operator", self.operator, "not a valid selector operator"))
        for index, value in enumerate(self.values):
            wrong = names.label_value(value)
            if wrong:
                path = key_of(item("values", index), self.key)
                problems.append(invalid(path, value, "; ".join(wrong)))
        return problems

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether `labels` meet the condition; a label that is missing meets `!=`, `notin` and `!`."""
        value = labels.get(self.key)
        match self.operator:
            case "=" | "==" | "in":
                return value is not None and value in self.values
            case "!=" | "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        number = None if value is None else _int64(value)
        bound = _int64(self.values[0]) if len(self.values) == 1 else None
        if number is None or bound is None:
            return False
        return number > bound if self.operator == "gt" else number < bound

    def __str__(self) -> str:
        """Return the text that parses to this."""
        if self.operator in {"exists", "!"}:
            return ("!" if self.operator == "!" else "") + self.key
        values = ",".join(self.values)
        if self.operator in {"in", "notin"}:
            values = f"({values})"
        return self.key + _WRITTEN.get(self.operator, self.operator) + values


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A conjunction of requirements, sorted by key. None means all objects; `nothing` means none."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @property
    def everything(self) -> bool:
        """Whether every object matches."""
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Tell whether an object with these `labels` is meant."""
        if self.nothing:
            return False
        present = labels or {}
        return all(requirement.matches(present) for requirement in self.requirements)

    def exact(self, key: str) -> str | None:
        """Return the one value that the label `key` must have, or None: what an index can look up."""
        for requirement in self.requirements:
            if requirement.key == key:
                if requirement.operator in {"=", "==", "in"} and len(requirement.values) == 1:
                    return requirement.values[0]
                return None
        return None

    def __str__(self) -> str:
        """Return the text that parses to this."""
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING: Final = LabelSelector()
NOTHING: Final = LabelSelector(nothing=True)


def parse_labels(text: str) -> LabelSelector:
    """Return the label selector that `text` spells; empty text means everything.

    Raises `Malformed`, or `Invalid` where the form is right and a key or value is not.
    """
    return _of(_LabelParser(text).requirements())


def of_labels(labels: Mapping[str, str]) -> LabelSelector:
    """Return the selector of the objects that have all these `labels`; raises `Invalid` for bad ones."""
    return _of([Requirement.checked(key, "=", [value]) for key, value in labels.items()])


def of_object(selector: Any) -> LabelSelector:
    """Return the selector that a `metav1.LabelSelector` object means: null nothing, `{}` everything.

    Raises `Invalid`, naming each field.
    """
    if selector is None:
        return NOTHING
    problems = check_object(selector)
    if problems:
        raise Invalid(f"expected a label selector: {problems[0]}", fields=problems)
    requirements = [Requirement(key, "=", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or []:
        operator = _OBJECT_OPERATORS[expression["operator"]]
        values = tuple(sorted(set(expression.get("values") or [])))
        requirements.append(Requirement(expression["key"], operator, values))
    return _of(requirements)


def check_object(selector: Any, field: str = "") -> list[FieldProblem]:
    """Return what is wrong with a `metav1.LabelSelector` object that stands at the path `field`."""
    if not isinstance(selector, dict):
        return [invalid(field, selector, "expected an object with matchLabels and matchExpressions")]
    labels, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    problems = check_labels(labels, child(field, "matchLabels"))
    if not isinstance(expressions, list):
        return [*problems, invalid(child(field, "matchExpressions"), expressions, "expected a list")]
    for index, expression in enumerate(expressions):
        problems.extend(_check_expression(expression, item(child(field, "matchExpressions"), index)))
    return problems


def check_labels(labels: Any, field: str) -> list[FieldProblem]:
    """Return what is wrong with a map of labels that stands at the path `field`."""
    if not isinstance(labels, dict):
        return [invalid(field, labels, "expected an object of texts")]
    problems: list[FieldProblem] = []
    for key, value in labels.items():
        problems.extend(invalid(field, key, wrong) for wrong in names.label_key(key))
        if not isinstance(value, str):
            problems.append(invalid(key_of(field, key), value, "expected text"))
        else:
            problems.extend(invalid(field, value, wrong) for wrong in names.label_value(value))
    return problems


def parse_set(text: str) -> dict[str, str]:
    """Return the labels that `a=x,b=y` spells, as command lines take them.

    Raises `Malformed`, or `Invalid` for a bad key or value.
    """
    labels = {}
    for part in text.split(",") if text else []:
        key, equals, value = part.partition("=")
        if not equals or "=" in value:
            raise Malformed(f"expected labels as key=value,key=value, got {excerpt(part)}")
        requirement = Requirement.checked(key.strip(), "=", [value.strip()])
        labels[requirement.key] = requirement.values[0]
    return labels


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on one field; `operator` is `=` or `!=`."""

    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        """Return the text that parses to this."""
        return self.field + self.operator + escape(self.value)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """A conjunction of conditions on fields; none means all objects."""

    requirements: tuple[FieldRequirement, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether every object matches."""
        return not self.requirements

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Tell whether an object with these `fields` is meant; a field that is missing is empty."""
        for requirement in self.requirements:
            same = fields.get(requirement.field, "") == requirement.value
            if same != (requirement.operator == "="):
                return False
        return True

    def exact(self, field: str) -> str | None:
        """Return the one value that `field` must have, or None: what an index can look up."""
        for requirement in self.requirements:
            if requirement.field == field and requirement.operator == "=":
                return requirement.value
        return None

    def __str__(self) -> str:
        """Return the text that parses to this."""
        return ",".join(str(requirement) for requirement in self.requirements)


def parse_fields(text: str) -> FieldSelector:
    """Return the field selector that `text` spells; empty text means everything. Raises `Malformed`."""
    _check_size(text)
    requirements = []
    for term in sorted(split_terms(text)):
        if not term:
            continue
        match = _TERM.fullmatch(term)
        if match is None:
            raise Malformed(f"expected a field selector as field=value or field!=value, got {excerpt(term)}")
        field, operator, value = match.groups()
        operator = "!=" if operator == "!=" else "="
        if field or value:
            requirements.append(FieldRequirement(field, operator, unescape(value)))
    return FieldSelector(tuple(requirements))


def split_terms(text: str) -> list[str]:
    """Return the terms of a field selector, parted at the commas that no backslash escapes."""
    terms = []
    position = 0
    while text:
        match = _ESCAPED_TERM.match(text, position)
        end = match.end() if match else position
        terms.append(text[position:end])
        if end >= len(text):
            break
        position = end + 1
    return terms


def escape(value: str) -> str:
    r"""Return `value` with `\`, `,` and `=` escaped by a backslash."""
    return _SPECIAL.sub(r"\\\1", value)


def unescape(value: str) -> str:
    """Undo `escape`. Raises `Malformed` for another escape, or a comma or equals sign that has none."""
    if _SPECIAL.search(value) is None:
        return value
    plain = []
    characters = iter(value)
    for char in characters:
        if char in ",=":
            raise Malformed(f"expected a backslash before {char} in a field selector's value")
        if char == "\\":
            char = next(characters, "")
            if char not in {"\\", ",", "="}:
                raise Malformed(f"expected \\\\, \\, or \\= in a field selector, got {excerpt(char)}")
        plain.append(char)
    return "".join(plain)


class _LabelParser:
    """Reads the text of a label selector; one method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        _check_size(text)
        self._tokens = _TOKEN.findall(text.rstrip(" \t\r\n"))
        self._at = 0

    def requirements(self) -> list[Requirement]:
        """Selector = [requirement *("," requirement)]."""
        found: list[Requirement] = []
        while self._peek():
            found.append(self._requirement())
            separator = self._next()
            if not separator:
                break
            if separator != ",":
                raise self._expected("',' or the end", separator)
            if not _is_word(self._peek()) and self._peek() != "!":
                raise self._expected("an identifier after ','", self._peek())
        return found

    def _requirement(self) -> Requirement:
        """Requirement = ["!"] key / key operator values."""
        word = self._next()
        absent = word == "!"
        key = self._next() if absent else word
        if not _is_word(key):
            raise self._expected("an identifier", key)
        wrong = names.label_key(key)
        if wrong:
            problem = invalid("key", key, "; ".join(wrong))
            raise Invalid(f"expected a label's key: {problem.message}", fields=[problem])
        if absent or self._peek() in {"", ","}:
            return Requirement.checked(key, "!" if absent else "exists", ())
        word = self._next()
        operator = _SYMBOLS.get(word, word)
        if operator not in _BINARY or word in {"gt", "lt"}:
            raise self._expected("one of =, ==, !=, in, notin, >, <", word)
        values = self._values() if operator in {"in", "notin"} else [self._value()]
        return Requirement.checked(key, operator, values)

    def _value(self) -> str:
        """Value = [word]."""
        if self._peek() in {"", ","}:
            return ""
        word = self._next()
        if not _is_word(word):
            raise self._expected("a value", word)
        return word

    def _values(self) -> list[str]:
        """Values = "(" value *("," value) ")"; a value may be empty."""
        word = self._next()
        if word != "(":
            raise self._expected("'('", word)
        values = []
        value = ""
        while True:
            word = self._next()
            if word in {",", ")"}:
                values.append(value)
                if word == ")":
                    return values
                value = ""
            elif _is_word(word) and not value:
                value = word
            else:
                raise self._expected("',', ')' or a value", word)

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        word = self._peek()
        self._at += 1
        return word

    @staticmethod
    def _expected(what: str, got: str) -> Malformed:
        return Malformed(f"expected {what} in a label selector, got {excerpt(got) if got else 'its end'}")


def _is_word(token: str) -> bool:
    return bool(token) and token[0] not in "=!(),<>"


def _of(requirements: Iterable[Requirement]) -> LabelSelector:
    return LabelSelector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))


def _check_expression(expression: Any, field: str) -> list[FieldProblem]:
    if not isinstance(expression, dict):
        return [invalid(field, expression, "expected an object with key, operator and values")]
    key, operator = expression.get("key", ""), expression.get("operator", "")
    values = expression.get("values") or []
    problems = []
    if operator in {"In", "NotIn"} and not values:
        problems.append(required(child(field, "values"), "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in {"Exists", "DoesNotExist"} and values:
        detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        problems.append(forbidden(child(field, "values"), detail))
    elif operator not in _OBJECT_OPERATORS:
        problems.append(invalid(child(field, "operator"), operator, "not a valid selector operator"))
    wrong = names.label_key(key) if isinstance(key, str) else ["expected text"]
    problems.extend(invalid(child(field, "key"), key, text) for text in wrong)
    if not isinstance(values, list):
        return [*problems, invalid(child(field, "values"), values, "expected a list")]
    for index, value in enumerate(values):
        wrong = names.label_value(value) if isinstance(value, str) else ["expected text"]
        problems.extend(invalid(item(child(field, "values"), index), value, text) for text in wrong)
    return problems


def _int64(text: str) -> int | None:
    if _INT64.fullmatch(text) is None:
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def _check_size(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise Malformed(f"expected a selector of at most {LONGEST_TEXT} characters, got {len(text)}")
