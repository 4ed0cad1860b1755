"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386), as kube-apiserver applies them.

It uses json-patch v4, which is more lenient than the RFCs; the same documents come out here:
`replace` also sets a field that is not there, `copy` of one that is not there gives null, `test` for
null holds of it; indexes may be negative; a merge patch must be an object or a list, and drops nulls
inside lists where it does not lay an object over one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from wharfinger.core.document import Json, canonical
from wharfinger.core.errors import Conflict, Invalid, Malformed, TooLarge, excerpt
from wharfinger.local.merge.comparison import equal

MAX_OPERATIONS = 10_000
"""The most operations of one patch."""
MAX_COPIED_BYTES = 3 * 1024 * 1024
"""The most bytes of JSON that the copies of one patch may add."""

_INDEX = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)


def apply(document: Json, operations: Json) -> Json:
    """Return `document` with the JSON patch `operations` applied, all of them or none.

    Raises `Malformed` where `operations` is no JSON patch, `TooLarge` beyond `MAX_OPERATIONS`,
    `Invalid` where one does not apply, a test fails or more than `MAX_COPIED_BYTES` would be copied.
    """
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise Malformed("expected a JSON patch: a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise TooLarge(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}")
    work = _Work(_copied(document))
    for operation in operations:
        work.do(operation)
    return work.document


class _Work:
    """A document that is being patched in place: nobody else has it."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._copied_bytes = 0

    def do(self, operation: dict[str, Json]) -> None:
        """Do one operation of RFC 6902 section 4."""
        kind = operation.get("op")
        steps: dict[Any, Callable[[dict[str, Json]], None]] = {
            "add": self._add,
            "remove": self._remove,
            "replace": self._replace,
            "move": self._move,
            "copy": self._copy,
            "test": self._test,
        }
        step = steps.get(kind) if isinstance(kind, str) else None
        if step is None:
            raise Invalid(f"Unexpected kind: {excerpt(kind)}")
        step(operation)

    def _add(self, operation: dict[str, Json]) -> None:
        _insert(*self._place(operation, "path"), _copied(operation.get("value")))

    def _remove(self, operation: dict[str, Json]) -> None:
        _delete(*self._place(operation, "path"))

    def _replace(self, operation: dict[str, Json]) -> None:
        value = _copied(operation.get("value"))
        if operation.get("path") == "":
            if not isinstance(value, dict | list):
                raise Invalid("replace operation value must be object or array")
            self.document = value
            return
        parent, key = self._place(operation, "path")
        if isinstance(parent, dict):
            parent[key] = value
        else:
            parent[_index(key, len(parent))] = value

    def _move(self, operation: dict[str, Json]) -> None:
        source = self._place(operation, "from")
        value = _get(*source)
        _delete(*source)
        _insert(*self._place(operation, "path"), value)

    def _copy(self, operation: dict[str, Json]) -> None:
        value = _get(*self._place(operation, "from"))
        target = self._place(operation, "path")
        if value is not None:
            self._copied_bytes += len(canonical(value))
        if self._copied_bytes > MAX_COPIED_BYTES:
            raise Invalid(
                "Unable to complete the copy, the accumulated size increase of copy is "
                f"{self._copied_bytes}, exceeding the limit {MAX_COPIED_BYTES}"
            )
        _insert(*target, _copied(value))

    def _test(self, operation: dict[str, Json]) -> None:
        found = self.document if operation.get("path") == "" else _get(*self._place(operation, "path"))
        if not same(found, operation.get("value")):
            raise Invalid(f"testing value {excerpt(operation.get('path'))} failed: test failed")

    def _place(self, operation: dict[str, Json], member: str) -> tuple[Any, str]:
        """Return the object or list, and the key in it, that the pointer in `member` names (RFC 6901)."""
        pointer = operation.get(member)
        if not isinstance(pointer, str):
            raise Invalid(f"{operation['op']} operation failed to decode {member}: missing value")
        parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        found = self.document if parts else None
        for part in parts[:-1]:
            found = _get(found, part) if isinstance(found, dict | list) else None
        if not isinstance(found, dict | list):
            raise Invalid(f"{operation['op']} operation does not apply: doc is missing {member}: {excerpt(pointer)}")
        return found, parts[-1]


def _get(parent: Any, key: str) -> Json:
    return parent.get(key) if isinstance(parent, dict) else parent[_index(key, len(parent))]


def _insert(parent: Any, key: str, value: Json) -> None:
    if isinstance(parent, dict):
        parent[key] = value
    elif key == "-":
        parent.append(value)
    else:
        parent.insert(_index(key, len(parent) + 1), value)


def _delete(parent: Any, key: str) -> None:
    if isinstance(parent, list):
        del parent[_index(key, len(parent))]
    elif key in parent:
        del parent[key]
    else:
        raise Invalid(f"Unable to remove nonexistent key: {excerpt(key)}: missing value")


def _index(key: str, length: int) -> int:
    """Return the index below `length` that `key` names; negative ones count from the end."""
    if _INDEX.fullmatch(key) is None:
        raise Invalid(f"value was not a proper array index: {excerpt(key)}")
    index = int(key)
    if not -length <= index < length:
        raise Invalid(f"Unable to access invalid index: {index}")
    return index + length if index < 0 else index


def _copied(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _copied(child) for name, child in value.items()}
    return [_copied(child) for child in value] if isinstance(value, list) else value


def same(a: Json, b: Json) -> bool:
    """Say whether two values are equal and written alike: 1 and 1.0 are not."""
    if a.__class__ is not b.__class__:
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(child, b[name]) for name, child in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def merge(document: Json, patch: Json) -> Json:
    """Return `document` with the JSON merge patch `patch` applied; raise `Malformed` where it is none."""
    if isinstance(patch, dict):
        return _merged(document, patch) if isinstance(document, dict) else _pruned(patch)
    if isinstance(patch, list):
        return _pruned(patch)
    raise Malformed("Invalid JSON Patch")


def _merged(document: dict[str, Json], patch: dict[str, Json]) -> dict[str, Json]:
    made = dict(document)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
            continue
        before = made.get(name)
        if isinstance(before, dict):
            made[name] = _merged(before, value) if isinstance(value, dict) else value
        else:
            made[name] = _pruned(value)
    return made


def _pruned(value: Json) -> Json:
    """Return `value` without null fields, in lists too."""
    if isinstance(value, dict):
        return {name: _pruned(child) for name, child in value.items() if child is not None}
    return [_pruned(child) for child in value] if isinstance(value, list) else value


def diff(original: dict[str, Json], modified: dict[str, Json]) -> dict[str, Json]:
    """Return the merge patch that makes the object `modified` of the object `original`."""
    patch: dict[str, Json] = {}
    for name, value in modified.items():
        before = original.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            below = diff(before, value)
            if below:
                patch[name] = below
        elif name not in original or not equal(before, value):
            patch[name] = value
    patch.update({name: None for name in original if name not in modified})
    return patch


def three_way(original: Json, modified: Json, current: Json) -> Json:
    """Return the merge patch that brings what changed from `original` to `modified` into `current`.

    All three are objects. Raises `Conflict` where the deletions and the changes contradict.
    """
    change, removal = changes(diff(current, modified)), deletions(diff(original, modified))
    if conflicts(change, removal):
        raise Conflict("expected changes and deletions that go together, got a field with both")
    return merge(removal, change)


def deletions(patch: dict[str, Json]) -> dict[str, Json]:
    """Return the part of a merge patch that deletes fields."""
    made: dict[str, Json] = {}
    for name, value in patch.items():
        below = deletions(value) if isinstance(value, dict) else value
        if value is None or (isinstance(value, dict) and below):
            made[name] = below
    return made


def changes(patch: dict[str, Json]) -> dict[str, Json]:
    """Return the part of a merge patch that sets fields."""
    made: dict[str, Json] = {}
    for name, value in patch.items():
        below = changes(value) if isinstance(value, dict) else value
        if value is not None and (below or not isinstance(value, dict) or not value):
            made[name] = below
    return made


def conflicts(left: Json, right: Json) -> bool:
    """Say whether two values, or merge patches, differ in a part that both have; 1 and 1.0 differ."""
    if isinstance(left, dict):
        return not isinstance(right, dict) or any(
            name in right and conflicts(value, right[name]) for name, value in left.items()
        )
    if isinstance(left, list):
        return not isinstance(right, list) or len(left) != len(right) or any(map(conflicts, left, right))
    return not same(left, right)
