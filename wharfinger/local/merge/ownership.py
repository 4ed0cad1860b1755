"""Who owns which field of an object, and what an update or an apply makes of it.

structured-merge-diff v6, `merge.Updater`, for objects that exist in several versions. An update takes
what it changes. An apply takes what its configuration sets, gives back what it no longer sets (which
is removed when nobody else owns it), and conflicts where it would change what another owns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from wharfinger.core.document import Json
from wharfinger.core.errors import Conflict, FieldProblem, WharfingerError
from wharfinger.local.merge import fieldpath, typed
from wharfinger.local.merge.comparison import SAME, Comparison, compare
from wharfinger.local.merge.fieldpath import EMPTY, FieldSet, Path
from wharfinger.local.merge.merging import merge
from wharfinger.local.merge.schema import Type

Manager = TypeVar("Manager", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Owned:
    """The fields that a manager owns: as which version they are named, and whether it applied them."""

    version: str
    fields: FieldSet
    applied: bool


class UnknownVersion(WharfingerError):
    """There is no such version (any more); who owns fields in it loses them."""


class Versions(Protocol):
    """The versions of one kind."""

    def type_of(self, version: str) -> Type:
        """Return the type of objects of `version`; raise `UnknownVersion`."""
        ...

    def convert(self, value: Json, source: str, target: str) -> Json:
        """Return `value`, an object of version `source`, as one of `target`; raise `UnknownVersion`."""
        ...

    def ownable(self, version: str, fields: FieldSet) -> FieldSet:
        """Return those of `fields`, of `version`, that a manager can own here."""
        ...


@dataclass(frozen=True, slots=True)
class Held(Generic[Manager]):
    """A field that an apply would change, and who owns it."""

    manager: Manager
    path: Path


class Contested(Conflict, Generic[Manager]):
    """An apply that was not forced would change fields that others own: `held`."""

    def __init__(self, held: tuple[Held[Manager], ...]) -> None:
        self.held = held
        super().__init__(
            contested_text([(str(one.manager), one.path) for one in held]),
            fields=[
                FieldProblem(fieldpath.show(one.path), f'conflict with "{one.manager}"', "FieldManagerConflict")
                for one in held
            ],
        )


def contested_text(held: list[tuple[str, Path]]) -> str:
    """Return the conflicts as upstream words them: one on its line, several grouped by manager."""
    if len(held) == 1:
        return f'conflict with "{held[0][0]}": {fieldpath.show(held[0][1])}'
    lines = []
    for manager in sorted({manager for manager, _ in held}):
        lines.append(f'conflicts with "{manager}":')
        lines.extend(f"- {fieldpath.show(path)}" for owner, path in held if owner == manager)
    return "\n".join(lines)


def update(
    versions: Versions,
    live: Json,
    new: Json,
    version: str,
    managers: Mapping[Manager, Owned],
    manager: Manager,
) -> dict[Manager, Owned]:
    """Return who owns what after `manager` made `new` of `live`, both objects of `version`.

    `manager` owns what it changed and what it owned before; the others lose what was changed or
    removed. Raises `typed.Mismatch` where a value does not fit its type.
    """
    made = _reconciled(versions, managers)
    made, changed, _ = _settled(versions, live, new, version, made, manager)
    mine = made.get(manager)
    fields = EMPTY if mine is None else fieldpath.difference(mine.fields, changed.removed)
    fields = fieldpath.union(fieldpath.union(fields, changed.modified), changed.added)
    fields = versions.ownable(version, fields)
    made.pop(manager, None)
    if fields:
        made[manager] = Owned(version, fields, applied=False)
    return made


def apply(
    versions: Versions,
    live: Json,
    config: Json,
    version: str,
    managers: Mapping[Manager, Owned],
    manager: Manager,
    *,
    force: bool = False,
) -> tuple[Json, dict[Manager, Owned]]:
    """Return `live` with `config` applied, and who owns what then; both are objects of `version`.

    Raises `Contested` when this would change fields that others own, unless `force`, which takes
    them; `typed.Mismatch` where a value does not fit its type.
    """
    type_ = versions.type_of(version)
    made = _reconciled(versions, managers)
    merged = merge(type_, live, config)
    last = made.get(manager)
    fields = versions.ownable(version, typed.field_set(type_, config))
    made[manager] = Owned(version, fields, applied=True)
    if last is not None and last.fields:
        merged = pruned(versions, merged, made, manager, last)
    made, _, held = _settled(versions, live, merged, version, made, manager)
    if held and not force:
        raise Contested(held)
    return merged, made


def _reconciled(versions: Versions, managers: Mapping[Manager, Owned]) -> dict[Manager, Owned]:
    """Return the sets of `managers` brought in line with today's schema; unknown versions dropped."""
    made: dict[Manager, Owned] = {}
    for manager, owned in managers.items():
        try:
            type_ = versions.type_of(owned.version)
        except UnknownVersion:
            continue
        fields = typed.reconcile(type_, owned.fields)
        made[manager] = owned if fields is owned.fields else Owned(owned.version, fields, owned.applied)
    return made


def _settled(
    versions: Versions,
    old: Json,
    new: Json,
    version: str,
    managers: dict[Manager, Owned],
    acting: Manager,
) -> tuple[dict[Manager, Owned], Comparison, tuple[Held[Manager], ...]]:
    """Take from everyone but `acting` what changed from `old` to `new`.

    Returns who owns what then, what changed, and what was taken from whom though it is still there.
    """
    changes = {version: _changed(versions, old, new, version)}
    made: dict[Manager, Owned] = {}
    held: list[Held[Manager]] = []
    for manager, owned in managers.items():
        if manager == acting:
            if owned.fields:
                made[manager] = owned
            continue
        changed = changes.get(owned.version)
        if changed is None:
            try:
                before, after = (versions.convert(value, version, owned.version) for value in (old, new))
                changed = changes[owned.version] = _changed(versions, before, after, owned.version)
            except UnknownVersion:
                continue
        if changed is SAME:
            made[manager] = owned
            continue
        taken = fieldpath.intersection(owned.fields, fieldpath.union(changed.modified, changed.added))
        held.extend(Held(manager, path) for path in fieldpath.paths(taken))
        left = fieldpath.difference(fieldpath.difference(owned.fields, taken), changed.removed)
        if left:
            made[manager] = Owned(owned.version, left, owned.applied)
    return made, changes[version], tuple(held)


def _changed(versions: Versions, old: Json, new: Json, version: str) -> Comparison:
    changed = compare(versions.type_of(version), old, new)
    if changed is SAME:
        return SAME
    return Comparison(*(versions.ownable(version, fields) for fields in changed))


def pruned(versions: Versions, merged: Json, managers: dict[Manager, Owned], applier: Manager, last: Owned) -> Json:
    """Return `merged` without what `applier` owned as `last` says and nobody owns any more."""
    mine = managers[applier]
    if mine.version == last.version and not fieldpath.difference(last.fields, mine.fields):
        return merged
    version = last.version
    try:
        before = versions.convert(merged, mine.version, version)
    except UnknownVersion:
        return merged
    type_ = versions.type_of(version)
    lasting = typed.named_members(type_, last.fields)
    pruned = typed.remove(type_, before, lasting)
    pruned, at = put_back(versions, before, pruned, version, managers)
    try:
        pruned = versions.convert(pruned, at, version)
    except UnknownVersion:
        return versions.convert(before, version, mine.version)
    # What was never this applier's stays, even where nobody owns it.
    kept = typed.named_members(type_, typed.field_set(type_, pruned))
    gone = fieldpath.difference(typed.named_members(type_, typed.field_set(type_, before)), kept)
    pruned = typed.remove(type_, before, fieldpath.intersection(gone, lasting))
    return versions.convert(pruned, version, mine.version)


def put_back(
    versions: Versions, merged: Json, pruned: Json, version: str, managers: Mapping[Manager, Owned]
) -> tuple[Json, str]:
    """Return `pruned` with the parts of `merged` that anyone owns put back, and its version then."""
    owned: dict[str, FieldSet] = {}
    for one in managers.values():
        owned[one.version] = fieldpath.union(owned.get(one.version, EMPTY), one.fields)
    # The version pruned in comes first: what is pruned may be needed to convert.
    order = sorted(owned, key=lambda each: each != version)
    for target in order:
        try:
            merged_there = versions.convert(merged, version, target)
            pruned_there = versions.convert(pruned, version, target)
        except UnknownVersion:
            continue
        merged, version = merged_there, target
        type_ = versions.type_of(target)
        present = typed.named_members(type_, typed.field_set(type_, pruned_there))
        kept = fieldpath.union(present, typed.named_members(type_, owned[target]))
        everything = typed.named_members(type_, typed.field_set(type_, merged))
        pruned = typed.remove(type_, merged, fieldpath.difference(everything, kept))
    return pruned, version
