"""What a request asks for: its path, verb and options, read from the request line alone. Pure.

The paths and parameters are those of the Kubernetes API conventions; what they hold is judged here,
what they name is looked up later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

from wharfinger.core import causes, selectors
from wharfinger.core.errors import FieldProblem, Malformed, excerpt
from wharfinger.local.api.faults import InvalidObject, MethodNotAllowed

Validation = Literal["Ignore", "Warn", "Strict"]
Propagation = Literal["Orphan", "Background", "Foreground"]

_VERBS_OF_ONE: Final = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "POST": "create"}
_VERBS_OF_MANY: Final = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
LONGEST_MANAGER: Final = 128
_META: Final = "meta.k8s.io"


@dataclass(frozen=True, slots=True)
class Target:
    """The resource, or part of one, that a path names. `namespace` and `name` are empty where there is none."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def resource(self) -> str:
        """`plural.group`, or the plural alone for the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def target(path: str) -> Target | None:
    """Return what the decoded-segment `path` (as on the wire, percent-encoded) names, None when it is no resource's.

    `/api/VERSION/...` is the core group, `/apis/GROUP/VERSION/...` any other; below that
    `PLURAL[/NAME[/SUBRESOURCE]]`, or the same after `namespaces/NAMESPACE/`.
    """
    parts = path.split("/")
    if len(parts) > 3 and parts[1] == "api":
        group, version, rest = "", parts[2], parts[3:]
    elif len(parts) > 4 and parts[1] == "apis":
        group, version, rest = parts[2], parts[3], parts[4:]
    else:
        return None
    if "%" in path:
        rest = [unquote(part) for part in rest]
    if rest[-1] == "":
        rest.pop()
    if not all(rest) or not rest:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and (rest[2] not in {"status", "finalize"} or len(rest) > 3):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return None
    return Target(group, version, rest[0], namespace, *rest[1:])


def verb(method: str, at: Target, query: Query) -> str:
    """Return the API verb (`get`, `list`, `watch`, `create`, ...) of `method` on `at`.

    Raises `MethodNotAllowed` when the method means nothing there.
    """
    found = (_VERBS_OF_ONE if at.name else _VERBS_OF_MANY).get("GET" if method == "HEAD" else method)
    if found is None or (found == "create" and at.name and not at.subresource):
        raise MethodNotAllowed("the server does not allow this method on the requested resource")
    if found == "list" and query.flag("watch"):
        return "watch"
    return found


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a request, each with its first value."""

    values: dict[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        """Return the parameter's first value, empty when it is not there."""
        found = self.values.get(name)
        return found[0] if found else ""

    def flag(self, name: str) -> bool:
        """Return whether the parameter says yes; as in Kubernetes, anything but `0` and `false` does."""
        found = self.values.get(name)
        return found is not None and found[0].lower() not in {"0", "false"}

    def number(self, name: str) -> int | None:
        """Return the parameter as an integer, None when it is absent or empty. Raises `Malformed`."""
        text = self.text(name)
        if not text:
            return None
        if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) < 20):
            raise Malformed(f"expected parameter {name} to be an integer, got {excerpt(text)}")
        return int(text)

    def all(self, name: str) -> tuple[str, ...]:
        """Return every value of the parameter."""
        return self.values.get(name, ())


@lru_cache(maxsize=1024)
def query(raw: bytes) -> Query:
    """Return the parameters of the query string `raw`. Raises `Malformed` when it is not ASCII."""
    if not raw:
        return Query({})
    values: dict[str, tuple[str, ...]] = {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=256)
    except ValueError as error:
        raise Malformed(f"expected a query string, got {excerpt(raw)}") from error
    for name, value in pairs:
        values[name] = (*values.get(name, ()), value)
    return Query(values)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How to write: CreateOptions, UpdateOptions and PatchOptions of meta/v1 in one."""

    dry_run: bool = False
    manager: str = ""
    validation: Validation = "Warn"
    force: bool | None = None


def write_options(asked: Query, kind: str = "PatchOptions", *, apply: bool = False) -> WriteOptions:
    """Return the options of a create, update or patch; `apply` says that it is a server-side apply.

    `kind` is the kind of the options: CreateOptions, UpdateOptions, PatchOptions.

    Raises `InvalidObject` naming each parameter that is wrong.
    """
    problems = _dry_run_problems(asked.all("dryRun"))
    validation = asked.text("fieldValidation") or "Warn"
    if validation not in {"Ignore", "Warn", "Strict"}:
        problems.append(causes.not_supported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn")))
    manager = asked.text("fieldManager")
    if len(manager) > LONGEST_MANAGER:
        problems.append(causes.too_long("fieldManager", LONGEST_MANAGER))
    elif not manager.isprintable():
        problems.append(causes.invalid("fieldManager", manager, "should only contain printable characters"))
    force = asked.flag("force") if "force" in asked.values else None
    if apply and not manager:
        problems.append(causes.required("fieldManager", "is required for apply patch"))
    if not apply and force is not None:
        problems.append(causes.forbidden("force", "may not be specified for non-apply patch"))
    if problems:
        raise InvalidObject(kind, _META, "", problems)
    return WriteOptions(bool(asked.all("dryRun")), manager, validation, force)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How to delete (meta/v1 DeleteOptions). `grace` in seconds, None for the kind's own."""

    dry_run: bool = False
    grace: int | None = None
    propagation: Propagation | None = None
    uid: str | None = None
    resource_version: str | None = None


def delete_options(asked: Query, body: dict[str, object] | None) -> DeleteOptions:
    """Return the options of a delete: those of `body`, a DeleteOptions object, else the parameters.

    Raises `InvalidObject` naming each option that is wrong.
    """
    given: dict[str, object] = dict(body) if body else {}
    if body is None:
        given = {name: asked.text(name) for name in ("propagationPolicy",) if asked.text(name)}
        given["dryRun"] = list(asked.all("dryRun"))
        if (grace := asked.number("gracePeriodSeconds")) is not None:
            given["gracePeriodSeconds"] = grace
        if "orphanDependents" in asked.values:
            given["orphanDependents"] = asked.flag("orphanDependents")
    kind = given.get("kind", "DeleteOptions")
    if kind != "DeleteOptions":
        raise Malformed(f"expected a DeleteOptions object, got kind {excerpt(kind)}")
    dry_run = given.get("dryRun") or []
    problems = _dry_run_problems(tuple(dry_run) if isinstance(dry_run, list) else (dry_run,))
    seconds, policy, orphan = (
        given.get("gracePeriodSeconds"),
        given.get("propagationPolicy"),
        given.get("orphanDependents"),
    )
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int)):
        problems.append(causes.type_invalid("gracePeriodSeconds", seconds, "must be an integer"))
    if policy is not None and orphan is not None:
        problems.append(
            causes.invalid("propagationPolicy", policy, "orphanDependents and propagationPolicy cannot both be set")
        )
    if policy is not None and policy not in ("Orphan", "Background", "Foreground"):
        problems.append(causes.not_supported("propagationPolicy", policy, ("Foreground", "Background", "Orphan")))
    preconditions = given.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        problems.append(causes.type_invalid("preconditions", preconditions, "must be an object"))
        preconditions = {}
    for name in ("uid", "resourceVersion"):
        if not isinstance(preconditions.get(name), str | None):
            problems.append(causes.type_invalid(f"preconditions.{name}", preconditions[name], "must be a string"))
    if problems:
        raise InvalidObject("DeleteOptions", _META, "", problems)
    if orphan is not None:
        policy = "Orphan" if orphan else "Background"
    return DeleteOptions(
        dry_run=bool(dry_run),
        grace=seconds if isinstance(seconds, int) else None,
        propagation=policy,  # type: ignore[arg-type]
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
    )


_EVERY_FIELD: Final = selectors.FieldSelector()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind: by label and by field."""

    labels: selectors.LabelSelector = selectors.EVERYTHING
    fields: selectors.FieldSelector = _EVERY_FIELD

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.labels.everything and self.fields.everything


EVERYTHING: Final = Selection()


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What to list or watch (meta/v1 ListOptions)."""

    selection: Selection = EVERYTHING
    limit: int = 0
    resume: str = ""
    resource_version: int | None = None
    exact: bool = False
    bookmarks: bool = False
    initial_events: bool = False
    timeout: int | None = None


def list_options(asked: Query, *, watch: bool) -> ListOptions:
    """Return the options of a list or a watch. Raises `Malformed` or `Invalid`."""
    version, match, initial = asked.text("resourceVersion"), asked.text("resourceVersionMatch"), None
    if "sendInitialEvents" in asked.values:
        initial = asked.flag("sendInitialEvents")
    problems: list[FieldProblem] = []
    if version and not (version.isascii() and version.isdigit() and len(version) < 20):
        problem = causes.invalid("resourceVersion", version, "expected an integer")
        raise Malformed(f"invalid resource version: {problem}")
    if match not in {"", "Exact", "NotOlderThan"}:
        problems.append(causes.not_supported("resourceVersionMatch", match, ("Exact", "NotOlderThan", "")))
    if watch:
        problems += _watch_problems(match, initial)
    else:
        if initial is not None:
            problems.append(causes.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
        if match and not version:
            text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            problems.append(causes.forbidden("resourceVersionMatch", text))
        if match == "Exact" and version == "0":
            text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            problems.append(causes.forbidden("resourceVersionMatch", text))
        if asked.text("continue") and match:
            text = "resourceVersionMatch is forbidden when continue is provided"
            problems.append(causes.forbidden("resourceVersionMatch", text))
    if problems:
        raise InvalidObject("ListOptions", _META, "", problems)
    limit = asked.number("limit") or 0
    labels, fields = asked.text("labelSelector"), asked.text("fieldSelector")
    return ListOptions(
        selection=selection(labels, fields),
        limit=max(limit, 0),
        resume=asked.text("continue"),
        resource_version=int(version) if version else None,
        exact=match == "Exact" or (limit > 0 and match == "" and version not in {"", "0"}),
        bookmarks=asked.flag("allowWatchBookmarks"),
        initial_events=bool(initial),
        timeout=asked.number("timeoutSeconds"),
    )


def narrowed(options: ListOptions, name: str) -> ListOptions:
    """Return `options` for the one object `name`: a watch of `.../NAME?watch=1`."""
    fields = selectors.parse_fields(f"metadata.name={selectors.escape(name)}")
    return replace(options, selection=replace(options.selection, fields=fields))


@lru_cache(maxsize=1024)
def selection(labels: str, fields: str) -> Selection:
    """Return the selection that the two selector texts make. Raises `Malformed`."""
    return Selection(selectors.parse_labels(labels), selectors.parse_fields(fields))


def _watch_problems(match: str, initial: bool | None) -> list[FieldProblem]:
    if initial is None and match:
        text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        return [causes.forbidden("resourceVersionMatch", text)]
    if initial is not None and match != "NotOlderThan":
        if not match:
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            return [causes.forbidden("resourceVersionMatch", text)]
        return [causes.not_supported("resourceVersionMatch", match, ("NotOlderThan",))]
    return []


def _dry_run_problems(values: tuple[object, ...]) -> list[FieldProblem]:
    return [causes.not_supported("dryRun", value, ("All",)) for value in values if value != "All"]
