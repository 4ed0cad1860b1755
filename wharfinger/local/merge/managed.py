"""`metadata.managedFields`: who owns which field of a stored object, kept as kube-apiserver keeps it.

`create` and `update` note what a request changed; `apply` merges a configuration into the live object
(server-side apply). Around `ownership` this module holds what Kubernetes 1.37 does beside it: entries
by manager, operation, version and subresource; times; the identity fields that nobody owns; at most
`MAX_UPDATERS` entries of updates; objects that nobody tracks yet; and the way from `kubectl apply` to
`kubectl apply --server-side`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wharfinger.core.clock import Instant, parse_rfc3339, rfc3339
from wharfinger.core.document import Json, parse_json
from wharfinger.core.errors import Conflict, FieldProblem, Malformed, excerpt
from wharfinger.local.merge import comparison, fieldpath, ownership, pathelement, typed
from wharfinger.local.merge.fieldpath import FieldSet, Path
from wharfinger.local.merge.ownership import Contested, Owned, UnknownVersion
from wharfinger.local.merge.schema import Type

MAX_UPDATERS = 10
"""So many entries of updates are kept apart; the oldest beyond are gathered in one per version."""
MAX_NAME_BYTES = 128
"""The longest name of a manager, in bytes of UTF-8."""
ANCIENT, BEFORE_FIRST_APPLY, UNKNOWN = "ancient-changes", "before-first-apply", "unknown"
KUBECTL = "kubectl"
"""The manager for which the annotation of client-side apply is honoured and kept up to date."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
MAX_ANNOTATIONS_BYTES = 256 * 1024

_UNOWNED: FieldSet = fieldpath.parse(
    {
        "f:apiVersion": {},
        "f:kind": {},
        "f:metadata": {
            ".": {},
            **{
                f"f:{name}": {}
                for name in (
                    "clusterName",
                    "creationTimestamp",
                    "generation",
                    "managedFields",
                    "name",
                    "namespace",
                    "resourceVersion",
                    "selfLink",
                    "uid",
                )
            },
        },
    }
)


class Key(NamedTuple):
    """What tells entries apart. An applier has one entry, whatever the version: `version` is empty then."""

    manager: str
    operation: str
    version: str
    subresource: str


_SELF = Key("", "Update", "", "")
"""Stands for the manager of the running update, until what it took is joined to what it had."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """One endpoint: a kind, or a subresource of it, in one version.

    `version` is its apiVersion, `types` the kind's types by apiVersion (versions differ in nothing but
    their apiVersion; entries of others are dropped). `ignored` names what nobody comes to own here:
    `{"f:status": {}}` for the main resource of a kind with a status subresource, for that subresource
    `{"f:metadata": {}, "f:spec": {}}`. `empty` is what an object of the kind has before anything is
    set (nothing, for a custom resource). `kind` is checked in configurations, when it is not empty.
    """

    version: str
    types: Mapping[str, Type]
    subresource: str = ""
    ignored: FieldSet = field(default_factory=dict)
    empty: Mapping[str, Json] | None = None
    kind: str = ""

    def type_of(self, version: str) -> Type:
        """Return the type of objects of `version`; raise `ownership.UnknownVersion`."""
        type_ = self.types.get(version)
        if type_ is None:
            raise UnknownVersion(f"expected one of the versions {sorted(self.types)}, got {excerpt(version)}")
        return type_

    def convert(self, value: Json, source: str, target: str) -> Json:
        """Return `value` as an object of version `target`; raise `ownership.UnknownVersion`."""
        self.type_of(target)
        if source == target or not isinstance(value, dict) or "apiVersion" not in value:
            return value
        return {**value, "apiVersion": target}

    def ownable(self, version: str, fields: FieldSet) -> FieldSet:
        """Return `fields` without the ignored ones."""
        return fieldpath.without(fields, self.ignored)


class ApplyConflict(Conflict):
    """Applying would change fields that others own; each of `fields` names one and its owner."""


class Managers:
    """The entries of one object, read. `owned` and `times` (RFC 3339, or None) change; entries do not."""

    __slots__ = ("_entries", "owned", "times")

    def __init__(self, entries: list[Json] | None = None) -> None:
        self.owned: dict[Key, Owned] = {}
        self.times: dict[Key, str | None] = {}
        self._entries: dict[Key, tuple[Owned, str | None, Json]] = {}
        for entry in entries or ():
            key, owned, time = _decode(entry)
            self.owned[key] = owned
            self.times[key] = time
            self._entries[key] = (owned, time, entry)

    def encode(self) -> list[Json]:
        """Return the entries as they are stored: appliers first, then by time, name, version, subresource."""
        made = []
        for key, owned in self.owned.items():
            time = self.times.get(key)
            before = self._entries.get(key)
            if before is not None and before[0] is owned and before[1] == time:
                made.append(before[2])
            else:
                made.append(_encode(key, owned, time))
        if len(made) > 1:
            made.sort(key=_entry_order)
        return made

    def gather_oldest(self) -> None:
        """Keep at most `MAX_UPDATERS` entries of updates: join the oldest of each version."""
        updaters = [key for key, owned in self.owned.items() if not owned.applied]
        surplus = len(updaters) - MAX_UPDATERS
        if surplus <= 0:
            return
        updaters.sort(key=lambda key: (self.times.get(key) or "", key))
        oldest: dict[str, Key] = {}
        for key in updaters:
            version = self.owned[key].version
            first = oldest.setdefault(version, key)
            if first is key:
                continue
            joined = fieldpath.union(self.owned.pop(first).fields, self.owned.pop(key).fields)
            bucket = oldest[version] = Key(ANCIENT, "Update", version, "")
            if bucket in self.owned:
                # A newer entry of that name: take it in, too, and leave the rest for the next time.
                joined = fieldpath.union(self.owned[bucket].fields, joined)
                surplus = 0
            self.owned[bucket] = Owned(version, joined, applied=False)
            self.times[bucket] = self.times.get(key)
            surplus -= 1
            if surplus <= 0:
                return


def manager_name(field_manager: str, user_agent: str) -> str:
    """Return the manager of a request: `field_manager`, else what is printable of `user_agent` up to "/"."""
    if field_manager:
        return field_manager
    printable = "".join(c for c in user_agent.partition("/")[0] if c.isprintable())
    return printable.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def create(tracking: Tracking, new: Json, *, manager: str, now: Instant) -> Json:
    """Return the object `new`, about to be stored for the first time, with its managedFields.

    `manager` owns all that `new` has and the kind's empty object has not.
    """
    return update(tracking, tracking.empty or {}, new, manager=manager, now=now)


def update(tracking: Tracking, live: Json, new: Json, *, manager: str, now: Instant) -> Json:
    """Return `new`, which is to replace `live`, with its managedFields.

    `manager` comes to own what differs. Entries that `new` itself has count instead of those of
    `live`, when they can be read (clients may prune them); `[]` and `[{}]` end the tracking. Not so
    for a subresource. An object that is not tracked stays so. Where a value does not fit its type,
    the entries stay what they were.
    """
    entries = _entries(live)
    managers = _managers_of_update(tracking, entries, new)
    bare = _with_entries(new, None)
    if not managers.owned and _meta(live).get("uid"):
        return bare
    try:
        _note_update(tracking, _with_entries(live, None), bare, managers, manager, rfc3339(now))
    except typed.Mismatch:
        return _with_entries(new, entries)
    return _with_entries(bare, managers.encode())


def apply(
    tracking: Tracking, live: Json | None, config: Json, *, manager: str, now: Instant, force: bool = False
) -> Json:
    """Return `live` (None: there is no object yet) with `config` applied, and its managedFields.

    The caller defaults and validates the result. Raises `ApplyConflict` when this would change what
    others own, unless `force`; `Malformed` for a configuration of another kind or with managedFields;
    `typed.Mismatch` for one that is not of its type.
    """
    _check_config(tracking, config)
    time = rfc3339(now)
    managers = Managers(_entries(live or {}))
    base = _with_entries(live or dict(tracking.empty or {}), None)
    if not managers.owned:
        _note_update(tracking, dict(tracking.empty or {}), base, managers, BEFORE_FIRST_APPLY, time)
    try:
        typed.check(tracking.types[tracking.version], config)
    except typed.Mismatch as mismatch:
        raise typed.Mismatch(
            f"failed to create typed patch object ({_described(config)}): {mismatch.message}", fields=mismatch.fields
        ) from mismatch
    key = Key(manager or UNKNOWN, "Apply", "", tracking.subresource)
    try:
        merged, owned = ownership.apply(tracking, base, config, tracking.version, managers.owned, key, force=force)
    except Contested as contested:
        if manager != KUBECTL:
            raise _conflict(contested) from contested
        rest = _not_last_applied(tracking, base, contested)
        if rest is not None:
            raise _conflict(rest) from contested
        merged, owned = ownership.apply(tracking, base, config, tracking.version, managers.owned, key, force=True)
    managers.owned = owned
    _strip(managers, key)
    if not comparison.equal(base, merged):
        managers.times[key] = time
    if manager == KUBECTL:
        merged = _with_last_applied(merged, config)
    return _with_entries(merged, managers.encode())


def keep_times(live: Json, new: Json) -> Json:
    """Return `new`; with the managedFields of `live` where these differ in times and nothing else does.

    So that a write that changes nothing can be seen to change nothing.
    """
    before, after = _entries(live), _entries(new)
    if not after or len(before) != len(after) or before == after:
        return new
    if any({**a, "time": None} != {**b, "time": None} for a, b in zip(before, after, strict=True)):
        return new
    kept = _with_entries(new, before)
    return kept if comparison.equal(kept, live) else new


def _note_update(tracking: Tracking, live: Json, new: Json, managers: Managers, manager: str, time: str) -> None:
    key = Key(manager or UNKNOWN, "Update", tracking.version, tracking.subresource)
    if not live and not managers.owned:
        fields = comparison.all_fields(tracking.types[tracking.version], new)
        managers.owned[_SELF] = Owned(tracking.version, tracking.ownable(tracking.version, fields), applied=False)
    else:
        managers.owned = ownership.update(tracking, live, new, tracking.version, managers.owned, _SELF)
    _strip(managers, _SELF)
    mine = managers.owned.pop(_SELF, None)
    if mine is not None:
        before = managers.owned.get(key)
        if before is not None:
            mine = Owned(tracking.version, fieldpath.union(before.fields, mine.fields), applied=False)
        managers.owned[key] = mine
        managers.times[key] = time
        managers.gather_oldest()


def _managers_of_update(tracking: Tracking, entries: list[Json], new: Json) -> Managers:
    if not tracking.subresource:
        sent = _meta(new).get("managedFields")
        if sent in ([], [{}]):
            return Managers()
        if sent and sent != entries:
            try:
                return Managers(_checked(sent))
            except Malformed:
                pass
    try:
        return Managers(entries)
    except Malformed:
        return Managers()


def _checked(entries: Json) -> list[Json]:
    """Return `entries`, which a client sent, in canonical form; raise `Malformed`."""
    if not isinstance(entries, list):
        raise Malformed(f"expected managedFields as a list, got {excerpt(entries)}")
    made = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("operation") not in ("Apply", "Update"):
            raise Malformed("expected a managedFields entry whose operation is `Apply` or `Update`")
        version, time = entry.get("apiVersion"), entry.get("time")
        names = (version, entry.get("manager", ""), entry.get("subresource", ""), time or "")
        if not version or not all(isinstance(name, str) for name in names):
            raise Malformed("expected a managedFields entry with an apiVersion, all its names as text")
        if entry.get("fieldsType") != "FieldsV1":
            raise Malformed(f"expected the fieldsType FieldsV1, got {excerpt(entry.get('fieldsType'))}")
        fields = fieldpath.parse(entry.get("fieldsV1"))
        key = _key(entry)
        made.append(_encode(key, Owned(version, fields, key.operation == "Apply"), time and _second(time)))
    return made


def _second(time: str) -> str:
    return rfc3339(parse_rfc3339(time))


def _key(entry: Json) -> Key:
    operation = entry["operation"]
    version = "" if operation == "Apply" else entry["apiVersion"]
    return Key(entry.get("manager", ""), operation, version, entry.get("subresource", ""))


def _decode(entry: Json) -> tuple[Key, Owned, str | None]:
    try:
        key = _key(entry)
        return key, Owned(entry["apiVersion"], entry["fieldsV1"], key.operation == "Apply"), entry.get("time")
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"expected a managedFields entry, got {excerpt(entry)}") from error


def _encode(key: Key, owned: Owned, time: str | None) -> Json:
    made: dict[str, Any] = {"manager": key.manager} if key.manager else {}
    made["operation"] = key.operation
    made["apiVersion"] = owned.version
    if time is not None:
        made["time"] = time
    made["fieldsType"] = "FieldsV1"
    made["fieldsV1"] = owned.fields
    if key.subresource:
        made["subresource"] = key.subresource
    return made


def _entry_order(entry: Json) -> tuple[str, ...]:
    return (
        entry["operation"],
        entry.get("time") or "",
        entry.get("manager", ""),
        entry["apiVersion"],
        entry.get("subresource", ""),
    )


def _strip(managers: Managers, key: Key) -> None:
    owned = managers.owned.get(key)
    if owned is None:
        return
    fields = fieldpath.difference(owned.fields, _UNOWNED)
    if fields:
        managers.owned[key] = Owned(owned.version, fields, owned.applied)
    else:
        del managers.owned[key]


def _meta(value: Json) -> dict[str, Json]:
    meta = value.get("metadata")
    return meta if isinstance(meta, dict) else {}


def _entries(value: Json) -> list[Json]:
    entries = _meta(value).get("managedFields")
    return entries if isinstance(entries, list) else []


def _with_entries(value: Json, entries: list[Json] | None) -> Json:
    meta = value.get("metadata")
    if not isinstance(meta, dict):
        return {**value, "metadata": {"managedFields": entries}} if entries else value
    if entries:
        return {**value, "metadata": {**meta, "managedFields": entries}}
    if "managedFields" not in meta:
        return value
    return {**value, "metadata": {name: child for name, child in meta.items() if name != "managedFields"}}


def _check_config(tracking: Tracking, config: Json) -> None:
    if not isinstance(config, dict):
        raise Malformed(f"expected an object to apply, got {excerpt(config)}")
    if config.get("apiVersion") != tracking.version or config.get("kind") != (tracking.kind or config.get("kind")):
        raise Malformed(f"invalid object type: {_type_text(config)}")
    if _meta(config).get("managedFields") is not None:
        raise Malformed("metadata.managedFields must be nil")


def _described(value: Json) -> str:
    meta = _meta(value)
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}; {_type_text(value)}"


def _type_text(value: Json) -> str:
    version = str(value.get("apiVersion", ""))
    return f"{version if '/' in version else '/' + version}, Kind={value.get('kind', '')}"


def _not_last_applied(tracking: Tracking, live: Json, contested: Contested[Key]) -> Contested[Key] | None:
    """Return what of `contested` client-side apply did not set last; None when that was all of it.

    Where `live` has no readable annotation of client-side apply, that is all of `contested`.
    """
    type_ = tracking.types[tracking.version]
    annotations = _meta(live).get("annotations") or {}
    try:
        last = parse_json(annotations.get(LAST_APPLIED) or "")
        if not isinstance(last, dict) or last.get("apiVersion") != tracking.version:
            return contested
        typed.check(type_, live)
        typed.check(type_, last)
    except (Malformed, typed.Mismatch):
        return contested
    fields = typed.field_set(type_, last)
    for changed in comparison.compare(type_, last, live):
        fields = fieldpath.difference(fields, changed)
    allowed = set(fieldpath.paths(fields))
    rest = tuple(one for one in contested.held if one.path not in allowed)
    return Contested(rest) if rest else None


def _with_last_applied(value: Json, config: Json) -> Json:
    """Return `value` with `config` as its annotation of client-side apply, if it has one, and room for it."""
    annotations = _meta(value).get("annotations") or {}
    if not annotations.get(LAST_APPLIED):
        return value
    meta = _meta(config)
    if meta.get("annotations"):
        others = {name: text for name, text in meta["annotations"].items() if name != LAST_APPLIED}
        config = {**config, "metadata": {**meta, "annotations": others}}
    annotations = {**annotations, LAST_APPLIED: pathelement.value_text(config) + "\n"}
    size = sum(len(name.encode()) + len((text or "").encode()) for name, text in annotations.items())
    if size > MAX_ANNOTATIONS_BYTES:
        del annotations[LAST_APPLIED]
    return {**value, "metadata": {**_meta(value), "annotations": annotations}}


def _conflict(contested: Contested[Key]) -> ApplyConflict:
    problems = [
        FieldProblem(fieldpath.show(one.path), f"conflict with {_owner(one.manager)}", "FieldManagerConflict")
        for one in contested.held
    ]
    if len(problems) == 1:
        text = f"1 conflict: {problems[0].message}: {problems[0].field}"
    else:
        by_owner: dict[Key, list[Path]] = {}
        for one in contested.held:
            by_owner.setdefault(one.manager, []).append(one.path)
        lines = [f"{len(problems)} conflicts: "]
        for key in sorted(by_owner):
            lines.append(f"conflicts with {_owner(key)}:")
            lines.extend(f"- {fieldpath.show(path)}" for path in by_owner[key])
        text = lines[0] + "\n".join(lines[1:])
    return ApplyConflict(f"Apply failed with {text}", fields=problems)


def _owner(key: Key) -> str:
    shown = pathelement.quoted(key.manager)
    if key.subresource:
        shown += f" with subresource {pathelement.quoted(key.subresource)}"
    return f"{shown} using {key.version}" if key.operation == "Update" else shown
