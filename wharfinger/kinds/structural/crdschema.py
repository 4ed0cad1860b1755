"""The schemas of a CustomResourceDefinition: what they may say (apis/apiextensions/validation).

`structure` judges whether a schema is structural; here are the rules that CRDs have on top of that: which keywords
there are, how list and map types go together, what a validation rule must have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from wharfinger.core.causes import child, duplicate, forbidden, invalid, item, key_of, not_supported, required, too_many
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Invalid, Malformed, TooLarge
from wharfinger.kinds.kind import Schema
from wharfinger.kinds.structural import defaults, fieldpath, structure
from wharfinger.kinds.structural.node import Node, read
from wharfinger.kinds.structural.pruning import META_FIELDS
from wharfinger.kinds.structural.rules import Compile

MOST_SELECTABLE: Final = 8
LIST_TYPE, MAP_KEYS, MAP_TYPE = "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"
RULES: Final = "x-kubernetes-validations"
_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_REASONS: Final = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_AT_ROOT: Final = {
    "description": "Description", "type": "Type", "format": "Format", "title": "Title", "maximum": "Maximum",
    "exclusiveMaximum": "ExclusiveMaximum", "minimum": "Minimum", "exclusiveMinimum": "ExclusiveMinimum",
    "maxLength": "MaxLength", "minLength": "MinLength", "pattern": "Pattern", "maxItems": "MaxItems",
    "minItems": "MinItems", "uniqueItems": "UniqueItems", "multipleOf": "MultipleOf", "required": "Required",
    "items": "Items", "properties": "Properties", "externalDocs": "ExternalDocs", "example": "Example",
    structure.PRESERVE: "XPreserveUnknownFields", RULES: "XValidations",
}  # fmt: skip
"""What may stand at the root of a schema whose status is a subresource, and what messages call it."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What is asked of schemas. All of it of a new definition; of a stored one what it kept before."""

    defaults: bool = True
    valid_types: bool = True
    structural: bool = True
    pruned_defaults: bool = True
    atomic_sets: bool = True
    sound_keys: bool = True
    rules: Compile | None = None
    many_selectable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Context:
    """Where in a schema a check is: whether defaults may stand here, and why not; whether this is metadata; which
    place above keeps `oldSelf` from being known; whether rules are compiled.
    """

    defaults: bool
    why: str = ""
    metadata: bool = False
    apart: str = ""
    rules: bool = False


@dataclass(slots=True)
class Report:
    """What is wrong with a schema, and apart from that with its rules."""

    schema: list[FieldProblem] = field(default_factory=list)
    rules: list[FieldProblem] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take over what another report says."""
        self.schema += other.schema
        self.rules += other.rules


def problems(document: Schema | None, path: str, demands: Demands, *, status: bool) -> list[FieldProblem]:
    """Return what is wrong with the schema whose `openAPIV3Schema` is at `path`; `status` is a subresource or not."""
    if document is None:
        return []
    at = child(path, "openAPIV3Schema")
    found = list(_root_problems(document, at)) if status else []
    if document.get("nullable"):
        found.append(forbidden(child(at, "nullable"), "nullable cannot be true at the root"))
    unreadable: list[FieldProblem] = []
    sound = False
    if demands.structural:
        try:
            wrong = structure.problems(document, at)
            found += wrong or defaults.problems(read(document), at, demands.rules, pruned=demands.pruned_defaults)
            sound = not wrong and len(found) == len(wrong)
        except Malformed as error:
            unreadable = [invalid(at, "", error.message)]
    context = Context(demands.defaults, rules=sound and demands.rules is not None)
    report = _report(document, at, demands, context, root=True)
    found += report.schema + report.rules
    return found or unreadable


def _root_problems(document: Schema, at: str) -> Iterator[FieldProblem]:
    kind = document.get("type")
    if kind is not None and kind not in {"", "object"}:
        text = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
        yield invalid(child(at, "type"), kind, text)
        return
    for name, value in document.items():
        if name not in _AT_ROOT and value is not None and value is not False and value not in ("", [], {}):
            words = " ".join(_AT_ROOT.values())
            text = f"only [{words}] fields are allowed at the root of the schema if the status subresource is enabled"
            yield invalid(at, document, text)
            return


def _report(document: Schema, path: str, demands: Demands, context: Context, *, root: bool = False) -> Report:
    report = Report(list(_keyword_problems(document, path, demands, context)))
    if document.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        report.schema.append(forbidden(child(path, "uniqueItems"), text))
    for below, at, inside in _children(document, path, context, root=root):
        report.add(_report(below, at, demands, inside))
    further, properties = document.get("additionalProperties"), document.get("properties")
    if properties and (further is False or isinstance(further, dict)):
        text = "additionalProperties and properties are mutual exclusive"
        report.schema.append(forbidden(child(path, "additionalProperties"), text))
    if document.get(structure.PRESERVE) is False:
        report.schema.append(invalid(child(path, structure.PRESERVE), False, "must be true or undefined"))
    report.schema += _list_problems(document, path, demands)
    rules = document.get(RULES) or []
    for index, rule in enumerate(rules):
        report.schema += _rule_problems(document, rule, item(child(path, RULES), index))
    if rules and not report.schema and context.rules and demands.rules is not None:
        node = read(document)
        for index, rule in enumerate(rules):
            at = item(child(path, RULES), index)
            report.rules += _compiled_problems(rule, node, at, demands.rules, context, root=root)
    return report


def _children(document: Schema, path: str, context: Context, *, root: bool) -> Iterator[tuple[Schema, str, Context]]:
    """Yield the schemas one level below, each with its path and context."""
    get = document.get
    further, items = get("additionalProperties"), get("items")
    if isinstance(further, dict):
        inside = context
        if context.metadata:
            inside = replace(context, defaults=False, why="inside additionalProperties applying to object metadata")
        yield further, child(path, "additionalProperties"), inside
    for name, below in (get("properties") or {}).items():
        inside = context if get(MAP_TYPE) in {None, "granular", "atomic"} else _apart(context, path)
        if name in META_FIELDS and (root or get(structure.EMBEDDED)):
            inside = replace(inside, metadata=True)
            if root:
                inside = replace(inside, defaults=False, why=f"in top-level {name}")
        yield below, key_of(child(path, "properties"), name), inside
    without = replace(context, rules=False)
    if document.get("not") is not None:
        yield document["not"], child(path, "not"), without
    for name in ("allOf", "oneOf", "anyOf"):
        for index, below in enumerate(get(name) or ()):
            yield below, item(child(path, name), index), without
    for name, below in (get("definitions") or {}).items():
        yield below, key_of(child(path, "definitions"), name), without
    for name, below in (get("dependencies") or {}).items():
        if isinstance(below, dict):
            yield below, key_of(child(path, "dependencies"), name), without
    inside = context if get(LIST_TYPE) == "map" else _apart(context, path)
    if isinstance(items, dict):
        yield items, child(path, "items"), inside
    for index, below in enumerate(items if isinstance(items, list) else ()):
        yield below, item(child(path, "items"), index), inside


def _apart(context: Context, path: str) -> Context:
    return context if context.apart else replace(context, apart=path)


def _keyword_problems(document: Schema, path: str, demands: Demands, context: Context) -> Iterator[FieldProblem]:
    get, kind = document.get, document.get("type") or ""
    if demands.valid_types and kind and kind not in _TYPES:
        yield not_supported(child(path, "type"), kind, _TYPES)
    if get("default") is not None and not context.defaults:
        yield forbidden(child(path, "default"), f"must not be set {context.why}".strip())
    for name in ("id", "patternProperties", "definitions"):
        if get(name):
            yield forbidden(child(path, name), f"{name} is not supported")
    for name in ("additionalItems", "dependencies", "$ref"):
        if get(name) is not None:
            yield forbidden(child(path, name), f"{name} is not supported")
    if kind == "null":
        yield forbidden(child(path, "type"), "type cannot be set to null, use nullable as an alternative")
    if isinstance(get("items"), list):
        yield forbidden(child(path, "items"), "items must be a schema object and not an array")
    if context.metadata and get(structure.EMBEDDED):
        yield forbidden(child(path, structure.EMBEDDED), "must not be used inside of resource meta")


def _list_problems(document: Schema, path: str, demands: Demands) -> Iterator[FieldProblem]:
    kind, listed, mapped = document.get("type") or "", document.get(LIST_TYPE), document.get(MAP_TYPE)
    for name, value, wanted in ((MAP_TYPE, mapped, "object"), (LIST_TYPE, listed, "array")):
        if value is not None and kind != wanted:
            text = f"must be {wanted} if {name} is specified"
            yield invalid(child(path, "type"), kind, text) if kind else required(child(path, "type"), text)
    if mapped is not None and mapped not in {"atomic", "granular"}:
        yield not_supported(child(path, MAP_TYPE), mapped, ("atomic", "granular"))
    items = document.get("items")
    if kind == "array" and demands.atomic_sets and isinstance(items, dict):
        yield from _non_atomic(document, path)
    if listed is not None and listed not in {"atomic", "set", "map"}:
        yield not_supported(child(path, LIST_TYPE), listed, ("atomic", "set", "map"))
    keys = document.get(MAP_KEYS) or []
    if keys and listed != "map":
        text = f"must be map if {MAP_KEYS} is non-empty"
        at = child(path, LIST_TYPE)
        yield required(at, text) if listed is None else invalid(at, listed, text)
    if listed == "map":
        yield from _map_problems(document, path)
    if demands.sound_keys:
        yield from unsound_keys(document, path)


def _non_atomic(document: Schema, path: str) -> Iterator[FieldProblem]:
    """Yield a problem when the items of a set are no wholes."""
    items = document.get("items")
    if document.get(LIST_TYPE) != "set" or not isinstance(items, dict):
        return
    text = "must be atomic as item of a list with x-kubernetes-list-type=set"
    at = child(path, "items")
    if items.get("type") == "array" and items.get(LIST_TYPE) not in {None, "atomic"}:
        yield invalid(child(at, LIST_TYPE), items[LIST_TYPE], text)
    if items.get("type") == "object" and items.get(MAP_TYPE) != "atomic":
        yield invalid(child(at, MAP_TYPE), items.get(LIST_TYPE), text)


def is_non_atomic_set(document: Schema) -> bool:
    """Tell whether a schema is that of a set whose items are no wholes."""
    return any(_non_atomic(document, ""))


def _map_problems(document: Schema, path: str) -> Iterator[FieldProblem]:
    keys, items = document.get(MAP_KEYS) or [], document.get("items")
    if not keys:
        yield required(child(path, MAP_KEYS), "must not be empty if x-kubernetes-list-type is map")
    if items is None:
        yield required(child(path, "items"), "must have a schema if x-kubernetes-list-type is map")
        return
    if not isinstance(items, dict):
        yield invalid(child(path, "items"), items, "must only have a single schema if x-kubernetes-list-type is map")
        return
    kind = items.get("type") or ""
    if kind != "object":
        text = "must be object if parent array's x-kubernetes-list-type is map"
        yield invalid(child(child(path, "items"), "type"), kind, text)
        return
    properties = items.get("properties") or {}
    for index, key in enumerate(keys):
        if key not in properties:
            yield invalid(child(path, MAP_KEYS), keys, "entries must all be names of item properties")
        elif properties[key].get("type") in {"array", "object"}:
            at = child(key_of(child(child(path, "items"), "properties"), key), "type")
            text = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            yield invalid(at, kind, text)
        if key in keys[:index]:
            yield invalid(child(path, MAP_KEYS), keys, "must not contain duplicate entries")


def unsound_keys(document: Schema, path: str = "") -> Iterator[FieldProblem]:
    """Yield what keeps the items of a set or map list from always having a key."""
    listed, items = document.get(LIST_TYPE), document.get("items")
    if listed not in {"set", "map"} or not isinstance(items, dict):
        return
    at = child(path, "items")
    if items.get("nullable"):
        yield forbidden(child(at, "nullable"), f"cannot be nullable when x-kubernetes-list-type is {listed}")
    for key in document.get(MAP_KEYS) or () if listed == "map" else ():
        declared = (items.get("properties") or {}).get(key)
        if declared is None:
            continue
        where = key_of(child(at, "properties"), key)
        if key not in (items.get("required") or ()) and declared.get("default") is None:
            text = f"this property is in {MAP_KEYS}, so it must have a default or be a required property"
            yield required(child(where, "default"), text)
        if declared.get("nullable"):
            yield forbidden(child(where, "nullable"), f"this property is in {MAP_KEYS}, so it cannot be nullable")


def _rule_problems(document: Schema, rule: Schema, path: str) -> Iterator[FieldProblem]:
    text, message = rule.get("rule") or "", rule.get("message") or ""
    if not text.strip():
        yield required(child(path, "rule"), "rule is not specified")
    elif message and not message.strip():
        yield invalid(child(path, "message"), message, "must be non-empty if specified")
    elif _breaks(message.strip()):
        yield invalid(child(path, "message"), message, "must not contain line breaks")
    elif _breaks(text.strip()) and not message.strip():
        yield required(child(path, "message"), "message must be specified if rule contains line breaks")
    wording, where, reason = rule.get("messageExpression") or "", rule.get("fieldPath") or "", rule.get("reason")
    if wording and not wording.strip():
        yield required(child(path, "messageExpression"), "messageExpression must be non-empty if specified")
    if reason is not None and reason not in _REASONS:
        yield not_supported(child(path, "reason"), reason, _REASONS)
    if where and not where.strip():
        yield invalid(child(path, "fieldPath"), where, "must be non-empty if specified")
    if _breaks(where):
        yield invalid(child(path, "fieldPath"), where, "must not contain line breaks")
    if where:
        try:
            node = read(document)
        except Malformed:
            return
        try:
            fieldpath.resolve(where, node)
        except Malformed:
            yield invalid(child(path, "fieldPath"), where, "must be a valid path")


def _breaks(text: str) -> bool:
    return "\n" in text or "\r" in text


def _compiled_problems(
    rule: Schema, node: Node, path: str, compiler: Compile, context: Context, *, root: bool
) -> Iterator[FieldProblem]:
    old = False
    try:
        old = compiler(rule["rule"], node, root, True).transition
    except (Invalid, TooLarge) as error:
        yield invalid(child(path, "rule"), rule, f"compilation failed: {error.message}")
        return
    if rule.get("messageExpression"):
        try:
            compiler(rule["messageExpression"], node, root, False)
        except (Invalid, TooLarge) as error:
            text = f"messageExpression compilation failed: {error.message}"
            yield invalid(child(path, "messageExpression"), rule, text)
    if old and context.apart:
        text = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {context.apart}"
        yield invalid(child(path, "rule"), rule["rule"], text)
    elif not old and rule.get("optionalOldSelf") is not None:
        text = "may not be set if oldSelf is not used in rule"
        yield invalid(child(path, "optionalOldSelf"), rule["optionalOldSelf"], text)


def has(document: Json, holds: Callable[[Schema], bool]) -> bool:
    """Tell whether `holds` is true of a schema or of any within it."""
    if not isinstance(document, dict):
        return False
    if holds(document):
        return True
    below: list[Json] = [document.get(name) for name in ("additionalProperties", "additionalItems", "not")]
    for name in ("properties", "patternProperties", "definitions", "dependencies"):
        below += (document.get(name) or {}).values()
    for name in ("allOf", "anyOf", "oneOf"):
        below += document.get(name) or ()
    items = document.get("items")
    below += items if isinstance(items, list) else [items]
    return any(has(each, holds) for each in below)


def selectable_problems(
    fields: list[Schema], document: Schema, path: str, demands: Demands, version: str
) -> Iterator[FieldProblem]:
    """Yield what is wrong with the fields that a field selector may name."""
    node, seen = read(document), set()
    for index, each in enumerate(fields):
        text, at = each.get("jsonPath") or "", child(item(path, index), "jsonPath")
        if not text:
            yield required(at)
            continue
        try:
            where, found = fieldpath.resolve(text, node, brackets=False)
        except Malformed as error:
            yield invalid(at, text, f"is an invalid path: {error.message}")
            continue
        if where.partition(".")[0].partition("[")[0] == "metadata":
            yield invalid(at, text, "must not point to fields in metadata")
        if not found.types or found.types[0] not in {"string", "boolean", "integer"} or len(found.types) > 1:
            yield invalid(
                at,
                text,
                "must point to a field of type string, boolean or integer. "
                "Enum string fields and strings with formats are allowed.",
            )
        if where in seen:
            yield duplicate(at, text)
        seen.add(where)
    if len(seen) > MOST_SELECTABLE and version not in demands.many_selectable:
        yield too_many(path, len(seen), MOST_SELECTABLE)


UNBOUNDED_COST: Final = 2**64 - 1
_NOTABLE_COST: Final = 1_000_000
_MOST_NOTABLE: Final = 4


def cardinality(schemas: list[Schema]) -> int | None:
    """Return how often a value of the last of `schemas`, each within the one before, can occur; None for any number."""
    times = 1
    for document in schemas[:-1]:
        kind = document.get("type")
        most: int | None = 1
        if kind == "object" and document.get("additionalProperties") is not None:
            most = document.get("maxProperties")
        elif kind == "array":
            most = document.get("maxItems")
        if most is None:
            return None
        times = min(times * max(most, 0), UNBOUNDED_COST)
    return times


def total_cost(costs: list[int]) -> tuple[int, list[int]]:
    """Return what expressions cost together, which saturates, and the few that cost most of it."""
    notable = sorted((cost for cost in costs if cost >= _NOTABLE_COST), reverse=True)
    return min(sum(costs), UNBOUNDED_COST), notable[:_MOST_NOTABLE]
