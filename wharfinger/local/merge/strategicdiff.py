"""Making strategic merge patches: from two documents, and from three as `kubectl apply` does.

apimachinery `strategicpatch.CreateTwoWayMergePatch` and `CreateThreeWayMergePatch`: what is made here
is what `strategic.apply` takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from wharfinger.core.document import Json
from wharfinger.core.errors import Conflict, Malformed, excerpt
from wharfinger.local.merge import strategic
from wharfinger.local.merge.jsonpatch import same
from wharfinger.local.merge.strategic import (
    DELETE,
    DELETE_FROM,
    DIRECTIVE,
    MERGE,
    REPLACE,
    RETAIN_KEYS,
    SET_ORDER,
    Field,
    Shape,
)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which differences a patch is to hold."""

    changes: bool = True
    deletions: bool = True
    order: bool = True
    retain_keys: bool = False


def two_way(original: Json, modified: Json, shape: Shape) -> Json:
    """Return the patch that makes `modified` of `original`, both objects of `shape`; raise `Malformed`."""
    return _diff_maps(original, modified, shape, _Wanted())


def three_way(original: Json, modified: Json, current: Json, shape: Shape, *, overwrite: bool = True) -> Json:
    """Return the patch that brings what changed from `original` to `modified` into `current`.

    It removes what `modified` lacks of `original`, and sets what `current` has otherwise than
    `modified`. Raises `Conflict`, unless `overwrite`, where `current` changed the same since
    `original`; `Malformed` where a list cannot be merged or a field is not of `shape`.
    """
    changes = _diff_maps(current, modified, shape, _Wanted(deletions=False))
    deletions = _diff_maps(original, modified, shape, _Wanted(changes=False))
    patch = strategic.join(deletions, changes, shape)
    if not overwrite:
        changed = _diff_maps(original, current, shape, _Wanted(order=False))
        if conflicts(patch, changed, shape):
            raise Conflict("expected fields that nobody else changed since, got a patch that changes some otherwise")
    return patch


def conflicts(left: Json, right: Json, shape: Shape) -> bool:
    """Say whether two patches change a part of an object of `shape` differently; raise `Malformed`."""
    return _conflict(left, right, Field(shape))


def _diff_maps(original: dict[str, Json], modified: dict[str, Json], shape: Shape, wanted: _Wanted) -> dict[str, Json]:
    patch: dict[str, Json] = {}
    for name, value in modified.items():
        if name not in original:
            if wanted.changes:
                patch[name] = value
            continue
        before = original[name]
        if name == DIRECTIVE:
            if not isinstance(before, str) or not isinstance(value, str):
                raise Malformed(f"expected a text as the value of {DIRECTIVE}")
            if before != value:
                patch[name] = value
        elif isinstance(value, dict) and isinstance(before, dict):
            _diff_map_field(name, before, value, shape, wanted, patch)
        elif isinstance(value, list) and isinstance(before, list):
            _diff_list_field(name, before, value, shape, wanted, patch)
        elif wanted.changes and not same(before, value):
            patch[name] = value
    if wanted.deletions:
        patch.update({name: None for name in original if name not in modified})
    if wanted.retain_keys:
        kept = sorted(name for name, value in modified.items() if value is not None)
        cleared = any(value is not None and name not in modified for name, value in original.items())
        if kept and (patch or cleared):
            patch[RETAIN_KEYS] = kept
    return patch


def _diff_map_field(
    name: str, before: dict[str, Json], after: dict[str, Json], shape: Shape, wanted: _Wanted, patch: dict[str, Json]
) -> None:
    if same(before, after) and (shape.fields is None or name not in shape.fields):
        return
    field = shape.of(name)
    if field.strategy == REPLACE:
        if wanted.changes:
            patch[name] = after
        return
    below = _diff_maps(before, after, field.below, replace(wanted, retain_keys=field.retain_keys))
    if below:
        patch[name] = below


def _diff_list_field(
    name: str, before: list[Json], after: list[Json], shape: Shape, wanted: _Wanted, patch: dict[str, Json]
) -> None:
    if same(before, after) and (shape.fields is None or name not in shape.fields):
        return
    field = shape.of(name)
    if field.strategy != MERGE:
        if wanted.changes and not same(before, after):
            patch[name] = after
        return
    if not before:
        if after and wanted.changes:
            patch[name] = after
        return
    if strategic.element_kind(before, after) is dict:
        wanted = replace(wanted, retain_keys=field.retain_keys)
        items, order = _diff_lists_of_maps(before, after, field, wanted)
        gone: list[Json] = []
    else:
        items, gone, order = _diff_lists_of_scalars(before, after, wanted)
    made = {name: items, f"{DELETE_FROM}/{name}": gone, f"{SET_ORDER}/{name}": order}
    patch.update({directive: listed for directive, listed in made.items() if listed})


def _diff_lists_of_maps(
    before: list[Json], after: list[Json], field: Field, wanted: _Wanted
) -> tuple[list[Json], list[Json]]:
    """Return the items that a patch of the list needs, and the order of `after` where it needs that."""
    key = field.merge_key
    identity = strategic.identifier(key)
    lefts, rights = (sorted(items, key=lambda item: _text(identity(item)[1])) for items in (before, after))
    changed: list[Json] = []
    gone: list[Json] = []
    left = right = 0
    while left < len(lefts) or right < len(rights):
        old = _text(lefts[left][key]) if left < len(lefts) else None
        new = _text(rights[right][key]) if right < len(rights) else None
        if old == new:
            below = _diff_maps(lefts[left], rights[right], field.below, wanted)
            if below:
                changed.append({**below, key: rights[right][key]})
            left += 1
            right += 1
        elif old is None or (new is not None and old > new):
            if wanted.changes:
                changed.append(rights[right])
            right += 1
        else:
            if wanted.deletions:
                gone.append({key: lefts[left][key], DIRECTIVE: DELETE})
            left += 1
    same_order = list(map(identity, before)) == list(map(identity, after))
    items = strategic.arrange(changed, after, key) + gone
    needed = (wanted.changes and (bool(items) or not same_order)) or (wanted.deletions and bool(items))
    return items, [{key: item[key]} for item in after] if wanted.order and needed else []


def _diff_lists_of_scalars(
    before: list[Json], after: list[Json], wanted: _Wanted
) -> tuple[list[Json], list[Json], list[Json]]:
    """Return the items to add, those to delete, and the order of `after` where the patch needs it."""
    lefts, rights = sorted(before, key=_text), sorted(after, key=_text)
    added: list[Json] = []
    gone: list[Json] = []
    left = right = 0
    while left < len(lefts) or right < len(rights):
        old = _text(lefts[left]) if left < len(lefts) else None
        new = _text(rights[right]) if right < len(rights) else None
        if old == new:
            left += 1
            right += 1
        elif old is None or (new is not None and old > new):
            added.append(rights[right])
            right += 1
        else:
            gone.append(lefts[left])
            left += 1
    gone = list(strategic.positions(gone, lambda item: (item.__class__, item)))
    gone = [item for _, item in gone] if wanted.deletions else []
    added = strategic.arrange(added, after, "") if wanted.changes else []
    # Upstream compares with the sorted list: an order that is not the sorted one is always said.
    needed = (wanted.deletions and bool(gone)) or (wanted.changes and not same(lefts, after))
    return added, gone, after if wanted.order and needed else []


def _conflict(left: Json, right: Json, field: Field) -> bool:
    if isinstance(left, dict):
        if not isinstance(right, dict) or left.get(DIRECTIVE) != right.get(DIRECTIVE):
            return True
        return field.strategy != REPLACE and _maps_conflict(left, right, field.below)
    if isinstance(left, list):
        return not isinstance(right, list) or _lists_conflict(left, right, field)
    return not same(left, right)


def _maps_conflict(left: dict[str, Json], right: dict[str, Json], shape: Shape) -> bool:
    for name, value in left.items():
        if name in (DIRECTIVE, RETAIN_KEYS) or name not in right:
            continue
        field = shape.of(name) if isinstance(value, dict | list) else Field(shape)
        if _conflict(value, right[name], field):
            return True
    return False


def _lists_conflict(left: list[Json], right: list[Json], field: Field) -> bool:
    kind = strategic.element_kind(left, right)
    inner = Field(field.below)
    if field.strategy == MERGE:
        if kind is not dict:
            return False
        identity = strategic.identifier(field.merge_key)
        there = {_text(identity(item)[1]): item for item in right}
        here = {_text(identity(item)[1]): item for item in left}
        return any(name in there and _conflict(item, there[name], inner) for name, item in here.items())
    if len(left) != len(right):
        return True
    if kind is not dict:
        left, right = (sorted({_text(item): item for item in items}) for items in (left, right))
    return len(left) != len(right) or any(_conflict(a, b, inner) for a, b in zip(left, right, strict=True))


def _text(value: Any) -> str:
    """Return `value` as Go prints it, by which upstream sorts."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        raise Malformed(f"expected a scalar, got {excerpt(value)}")
    return str(value)
