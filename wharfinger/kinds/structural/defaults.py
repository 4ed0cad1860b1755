"""Defaults of a schema: whether they are what the schema asks for, and what is left of them when it has pruned them.

(apiextensions, schema/defaulting ValidateDefaults and PruneDefaults.)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from wharfinger.core.causes import child, invalid, key_of
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Malformed
from wharfinger.kinds.kind import Schema
from wharfinger.kinds.structural import embedded, objectmeta
from wharfinger.kinds.structural.findings import causes_of
from wharfinger.kinds.structural.node import Node, read
from wharfinger.kinds.structural.pruning import META_FIELDS, compile_pruning
from wharfinger.kinds.structural.rules import BUDGET, Compile, ask, compile_rules
from wharfinger.kinds.structural.validation import find

_TYPE = {"kind": "Validation", "apiVersion": "validation/v1"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a default stands in the object around it: names of properties, None for an item of a list."""

    steps: tuple[str | None, ...] = ()

    def below(self, step: str | None) -> Place:
        """Return the place one step further."""
        return Place((*self.steps, step))

    def surround(self, value: Json) -> dict[str, Json]:
        """Return the smallest object with `value` at this place. Raises `Malformed` when that is no object."""
        for step in reversed(self.steps):
            value = [value] if step is None else {step: value}
        if not isinstance(value, dict):
            raise Malformed("object root default value must be of object type")
        return value

    def find(self, value: Json) -> Json:
        """Return what is at this place of `value`; None when nothing is."""
        for step in self.steps:
            if step is None:
                value = value[0] if isinstance(value, list) and value else None
            else:
                value = value.get(step) if isinstance(value, dict) else None
        return value


@dataclass(slots=True)
class _Judge:
    """The checks of one schema's defaults; `left` is the work that rules may still take."""

    compiler: Compile | None
    pruned: bool
    left: int

    def problems(self, node: Node, root: Node, path: str, place: Place, *, inside: bool) -> list[FieldProblem]:
        """Return what is wrong with the defaults of `node` and below; `inside` says that it is metadata."""
        if node.embedded:
            root, place, inside = node, Place(), False
        found: list[FieldProblem] = []
        if node.default is not None:
            at = child(path, "default")
            found += self._metadata(node, root, at, place) if inside else self._own(node, at)
        if self.left < 0:
            return found
        if node.items is not None:
            found += self.problems(node.items, root, child(path, "items"), place.below(None), inside=inside)
        for name, below in node.properties.items():
            if self.left < 0:
                break
            at = key_of(child(path, "properties"), name)
            meta = inside or (node.embedded and name in META_FIELDS)
            found += self.problems(below, root, at, place.below(name), inside=meta)
        return found

    def _metadata(self, node: Node, root: Node, at: str, place: Place) -> list[FieldProblem]:
        """Judge a default within metadata: the object around it must be one."""
        whole = {**_TYPE, **place.surround(copy.deepcopy(node.default))}
        try:
            objectmeta.coerce(whole, root)
        except Malformed as error:
            return [invalid(at, node.default, f"must result in valid metadata: {error.message}")]
        check = embedded.compile_check(root, root=True)
        wrong = check(whole, "") if check is not None else []
        if wrong:
            texts = list(dict.fromkeys(map(str, wrong)))
            text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
            return [invalid(at, node.default, f"must result in valid metadata: {text}")]
        return self._value(node, node.default, at)

    def _own(self, node: Node, at: str) -> list[FieldProblem]:
        value = copy.deepcopy(node.default)
        found = []
        if self.pruned and compile_pruning(node, root=node.embedded)(value, True):
            found.append(invalid(at, node.default, "must not have unknown fields"))
        value = copy.deepcopy(node.default)
        coerce = objectmeta.compile_coercion(node)
        check = embedded.compile_check(node)
        try:
            if coerce is not None:
                coerce(value, at, False, [])
        except Malformed as error:
            return [*found, *error.fields]
        wrong = check(value, at) if check is not None else []
        return [*found, *(wrong or self._value(node, value, at))]

    def _value(self, node: Node, value: Json, at: str) -> list[FieldProblem]:
        found = causes_of(find(value, node).errors, at)
        if found or self.compiler is None:
            return found
        step = compile_rules(node, self.compiler, root=node.embedded)
        if step is None:
            return []
        walk = ask(step, value, value, node, self.left, at)
        problems, left = walk.problems, walk.left
        if not problems:
            # A rule may be asked of a default that comes where nothing was before, too.
            walk = ask(step, value, None, node, self.left, at)
            problems, left = walk.problems, min(left, walk.left)
        self.left = left
        return problems


def problems(
    node: Node,
    path: str = "",
    rules: Compile | None = None,
    *,
    root: bool = True,
    pruned: bool = True,
    budget: int = BUDGET,
) -> list[FieldProblem]:
    """Return what is wrong with the defaults of `node`, the schema at `path`.

    `root` says that it is a whole resource's. With `pruned`, defaults may not hold fields that their schema does
    not know. `rules` compiles rules, which defaults must keep; all together may take `budget`.
    """
    top = replace(node, embedded=True) if root else node
    judge = _Judge(rules, pruned, budget)
    return judge.problems(top, top, path, Place(), inside=False)


def pruned_document(document: Schema) -> Schema:
    """Return a schema with its defaults pruned by itself. Raises `Malformed` when it or a default cannot be."""
    root = read(document)
    return _pruned(document, replace(root, embedded=True), Place())


def _pruned(document: Schema, root: Node, place: Place) -> Schema:
    made = dict(document)
    if document.get("default") is not None:
        try:
            whole = place.surround(copy.deepcopy(document["default"]))
            objectmeta.coerce(whole, root, drop=True)
        except Malformed as error:
            raise Malformed(f"failed to prune default value: {error.message}") from error
        compile_pruning(root, root=True)(whole, True)
        left = place.find(whole)
        made["default"] = left
        if left is None:
            del made["default"]
    if isinstance(document.get("additionalProperties"), dict):
        made["additionalProperties"] = _pruned(document["additionalProperties"], root, place.below("*"))
    if isinstance(document.get("items"), dict):
        made["items"] = _pruned(document["items"], root, place.below(None))
    if document.get("properties"):
        made["properties"] = {
            name: _pruned(below, root, place.below(name)) for name, below in document["properties"].items()
        }
    return made
