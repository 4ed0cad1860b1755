"""Writing objects: create, update, patch, apply and delete, each as one mutation of a transaction.

The order is kube-apiserver's: what the body says is read strictly or leniently as the caller asked;
what the server owns (UID, times, generation, status) is set by the server; defaults; who owns which field; what
the kind prepares; the rules of metadata, schema and kind; admission; and a write that would change nothing is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from wharfinger.core.causes import forbidden, invalid
from wharfinger.core.clock import Instant, rfc3339
from wharfinger.core.document import Json
from wharfinger.core.errors import Conflict, Denied, FieldProblem, Malformed, excerpt
from wharfinger.core.ids import Ids
from wharfinger.core.printed import quoted
from wharfinger.kinds.condition import condition
from wharfinger.local.api import deletion
from wharfinger.local.api import scale as scales
from wharfinger.local.api.audit import Record
from wharfinger.local.api.body import check_size
from wharfinger.local.api.commit import Held, Transaction, digest
from wharfinger.local.api.faults import InvalidObject, Unpatchable, already_exists, not_found, qualified
from wharfinger.local.api.metadata import coerced, metadata_problems, schema_problems
from wharfinger.local.api.request import DeleteOptions, Target, WriteOptions
from wharfinger.local.api.served import Catalogue, Resource
from wharfinger.local.api.store import Key
from wharfinger.local.merge import managed

UNDELETABLE: Final = frozenset({"default", "kube-system", "kube-public"})
_GENERATED_TRIES: Final = 8
_LONGEST_PREFIX: Final = 58

Admit = Callable[[str, str, str, Json, "Json | None", str, "Lookup"], None]
"""The port of admission: (operation, plural, group, new, old, who, lookup); raises `Denied`, `Invalid`, `Conflict`.

The operation is CREATE, UPDATE or, for a write of the status alone, STATUS.
"""

Lookup = Callable[[str, str, str], "Mapping[str, Json] | None"]
"""How admission reads other objects: (plural, namespace, name) to the object, or to `{"items": [...]}`."""


@dataclass(slots=True)
class Call:
    """One write as it was asked for.

    `warnings` collects what the caller is to be told; `named` is the object's name, once the body has been read.
    """

    who: str
    verb: str
    target: Target
    resource: Resource
    options: WriteOptions
    manager: str
    now: Instant
    repeated: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    named: str = ""

    def key(self, name: str) -> Key:
        """Return where the object `name` of this call's kind and namespace lives."""
        return Key(self.resource.number, self.target.namespace, name)


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write: the object, and whether it is new."""

    held: Held
    created: bool = False
    gone: bool = False


class Objects:
    """Creates, changes and deletes objects. Every method is a step of a mutation; none awaits."""

    def __init__(self, catalogue: Catalogue, ids: Ids, admit: Admit) -> None:
        self._catalogue = catalogue
        self._ids = ids
        self._admit = admit

    # Create

    def create(self, transaction: Transaction, call: Call, value: Json) -> Written:
        """Store the new object `value`.

        Raises `Malformed`, `Invalid`, `AlreadyExists`, `NotFound` (no such namespace), `Denied`.
        """
        transaction.dry = call.options.dry_run
        new = self._read(call, value)
        metadata = new["metadata"]
        self._check_names(call, new)
        if metadata.get("resourceVersion"):
            raise Malformed("resourceVersion should not be set on objects to be created")
        call.named = metadata.get("name", "")
        self._open_namespace(transaction, call)
        self._name(transaction, call, metadata)
        call.named = metadata.get("name", "")
        return self._create(transaction, call, new, lambda made: self._owned_anew(call, made))

    def _owned_anew(self, call: Call, made: Json) -> Json:
        tracking = call.resource.tracking("")
        return managed.create(tracking, made, manager=call.manager, now=call.now)

    def _create(self, transaction: Transaction, call: Call, new: Json, own: Callable[[Json], Json]) -> Written:
        resource, metadata = call.resource, new["metadata"]
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
            metadata.pop(name, None)
        metadata["uid"] = self._ids.uid()
        metadata["creationTimestamp"] = rfc3339(call.now)
        metadata.pop("generation", None)
        if resource.behaviour.generation:
            metadata["generation"] = 1
        if resource.kind.status and "status" in new:
            del new["status"]
            if resource.normalize is not None:
                resource.normalize(new)
        self._default(call, new)
        new = own(new)
        resource.behaviour.prepare(new, None)
        self._judge(transaction, call, new, None, "CREATE")
        key = call.key(metadata["name"])
        if transaction.get(key) is not None:
            raise already_exists(resource.kind.plural, resource.kind.group, metadata["name"])
        held = transaction.create(key, new)
        check_size(held.body)
        self._record(transaction, call, None, held, 201)
        return Written(held, created=True)

    def _name(self, transaction: Transaction, call: Call, metadata: Json) -> None:
        prefix = metadata.get("generateName")
        if metadata.get("name") or not prefix:
            return
        for _ in range(_GENERATED_TRIES):
            metadata["name"] = prefix[:_LONGEST_PREFIX] + self._ids.suffix()
            if transaction.get(call.key(metadata["name"])) is None:
                return
        raise already_exists(call.resource.kind.plural, call.resource.kind.group, metadata["name"])

    def _open_namespace(self, transaction: Transaction, call: Call) -> None:
        """Refuse to create in a namespace that is not there or is going."""
        namespace = call.target.namespace
        if not namespace:
            return
        held = transaction.get(Key(self._catalogue.named("namespaces").number, "", namespace))
        if held is None:
            raise not_found("namespaces", "", namespace)
        if held.value["metadata"].get("deletionTimestamp"):
            name = call.target.name
            raise Denied(
                f'{call.target.resource} "{name}" is forbidden: unable to create new content in namespace {namespace}'
                " because it is being terminated",
                fields=(
                    FieldProblem(
                        "metadata.namespace", f"namespace {namespace} is being terminated", "NamespaceTerminating"
                    ),
                ),
            )

    # Update

    def update(self, transaction: Transaction, call: Call, value: Json) -> Written:
        """Replace the object by `value`; through the status subresource, its status alone.

        Raises as `create`, and `Conflict` when it changed since the caller read it.
        """
        transaction.dry = call.options.dry_run
        new = self._read(call, value)
        self._check_names(call, new)
        held = transaction.get(call.key(call.target.name))
        if held is None:
            if call.resource.behaviour.create_on_update and not call.target.subresource:
                new["metadata"].setdefault("name", call.target.name)
                return self.create(transaction, call, new)
            raise not_found(call.resource.kind.plural, call.resource.kind.group, call.target.name)
        if not call.resource.builtin and not new["metadata"].get("resourceVersion"):
            problem = invalid("metadata.resourceVersion", 0, "must be specified for an update")
            kind = call.resource.kind
            raise InvalidObject(kind.plural, kind.group, call.target.name, [problem])
        return self._replace(transaction, call, held, new)

    def patch(self, transaction: Transaction, call: Call, make: Callable[[Json], Json]) -> Written:
        """Replace the object by what `make` makes of it. Raises as `update`, and what `make` raises."""
        transaction.dry = call.options.dry_run
        held = transaction.get(call.key(call.target.name))
        if held is None:
            raise not_found(call.resource.kind.plural, call.resource.kind.group, call.target.name)
        made = make(held.value)
        try:
            new = self._read(call, made)
        except Malformed as error:
            raise Unpatchable(error.message) from error
        self._check_names(call, new)
        if new["metadata"].get("uid") != held.value["metadata"]["uid"]:
            problem = invalid("metadata.uid", new["metadata"].get("uid", ""), "field is immutable")
            raise self._invalid(call, call.target.name, [problem])
        return self._replace(transaction, call, held, new)

    def apply(self, transaction: Transaction, call: Call, config: Json) -> Written:
        """Apply the configuration `config` server-side: merge it, create the object when there is none.

        Raises as `update`, and `managed.ApplyConflict` when others own what it would change.
        """
        transaction.dry = call.options.dry_run
        config = self._addressed(call, config)
        held = transaction.get(call.key(call.target.name))
        tracking = call.resource.tracking(call.target.subresource)
        force = bool(call.options.force)
        live = held.value if held else None
        merged = _copied(managed.apply(tracking, live, config, manager=call.manager, now=call.now, force=force))
        if held is None:
            if call.target.subresource:
                raise not_found(call.resource.kind.plural, call.resource.kind.group, call.target.name)
            if config["metadata"].get("uid"):
                raise Conflict("uid mismatch: the provided object specified uid, and no existing object was found")
            self._open_namespace(transaction, call)
            entries = merged["metadata"].get("managedFields")
            new = self._read(call, merged)
            return self._create(transaction, call, new, lambda made: _with_entries(made, entries))
        entries = merged["metadata"].get("managedFields")
        new = self._read(call, merged)
        return self._replace(transaction, call, held, new, lambda made: _with_entries(made, entries))

    def _addressed(self, call: Call, config: Json) -> Json:
        """Return the configuration with the name and namespace of the path, which it may leave out."""
        if not isinstance(config, dict) or not isinstance(config.setdefault("metadata", {}), dict):
            raise Malformed(f"expected an object to apply, got {excerpt(config)}")
        self._check_names(call, config)
        config["metadata"].setdefault("name", call.target.name)
        if call.target.namespace:
            config["metadata"].setdefault("namespace", call.target.namespace)
        return config

    def _replace(
        self,
        transaction: Transaction,
        call: Call,
        held: Held,
        new: Json,
        own: Callable[[Json], Json] | None = None,
    ) -> Written:
        resource, old, metadata = call.resource, held.value, new["metadata"]
        before = old["metadata"]
        self._check_preconditions(call, metadata.get("uid"), metadata.get("resourceVersion"), before)
        new = self._kept(call, new, old)
        self._default(call, new)
        if own is not None:
            new = own(new)
        else:
            tracking = resource.tracking(call.target.subresource)
            new = managed.update(tracking, old, new, manager=call.manager, now=call.now)
        if call.target.subresource == "status":
            resource.behaviour.prepare_status(new, old)
        else:
            resource.behaviour.prepare(new, old)
        if resource.behaviour.generation and _wanted(new, resource) != _wanted(old, resource):
            new["metadata"]["generation"] = before.get("generation", 0) + 1
        self._judge(transaction, call, new, old, "UPDATE")
        new = managed.keep_times(old, new)
        if new == old:
            return Written(held)
        return self.store(transaction, call, held, new)

    def _kept(self, call: Call, new: Json, old: Json) -> Json:
        """Return `new` with what this endpoint does not write taken from `old`."""
        before, metadata = old["metadata"], new["metadata"]
        if call.target.subresource == "status":
            kept = {**old, "metadata": dict(before)}
            if call.resource.builtin:
                for name in ("labels", "annotations"):
                    _carry(metadata, kept["metadata"], name)
            _carry(new, kept, "status")
            kept["metadata"].pop("managedFields", None)
            _carry(metadata, kept["metadata"], "managedFields")
            return kept
        added = set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())
        if before.get("deletionTimestamp") and added:
            problem = forbidden(
                "metadata.finalizers",
                f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}",
            )
            raise self._invalid(call, before["name"], [problem])
        for name in _SERVERS:
            _carry(before, metadata, name)
        if call.resource.kind.status:
            _carry(old, new, "status")
        return new

    # Subresources that are not written as the object is

    def scale(
        self, transaction: Transaction, call: Call, make: Callable[[Json], Json] | None, config: Json | None
    ) -> Json:
        """Set the replicas: to those of the Scale that `make` makes of the present one, or apply `config`.

        Returns the Scale. Raises as `update`.
        """
        transaction.dry = call.options.dry_run
        kind, tracking = call.resource.kind, call.resource.tracking("scale")
        held = transaction.get(call.key(call.target.name))
        if held is None:
            raise not_found(kind.plural, kind.group, call.target.name)
        if make is not None:
            wanted = make(scales.of(kind, held.value))
            new = scales.scaled(kind, held.value, wanted)
            sent = wanted.get("metadata") or {}
            versions = {name: sent.get(name) for name in ("uid", "resourceVersion")}
            new = {**_copied(new), "metadata": {**new["metadata"], **versions}}

            def own(made: Json) -> Json:
                entries = held.value["metadata"].get("managedFields")
                if scales.is_owned(kind, entries):
                    live, shown = scales.as_scale_shows(kind, held.value), scales.as_scale_shows(kind, made)
                    noted = managed.update(tracking, live, shown, manager=call.manager, now=call.now)
                    entries = noted["metadata"].get("managedFields")
                return _untimed(_with_entries(made, entries))

            return scales.of(kind, self._replace(transaction, call, held, new, own).held.value)
        config = self._addressed(call, config)
        names = {name: config["metadata"][name] for name in ("name", "namespace") if name in config["metadata"]}
        bare = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": names}
        force = bool(call.options.force)
        change = scales.scaled(kind, bare, config)
        merged = _copied(managed.apply(tracking, held.value, change, manager=call.manager, now=call.now, force=force))
        entries = merged["metadata"].get("managedFields")
        written = self._replace(transaction, call, held, merged, lambda made: _with_entries(made, entries))
        return scales.of(kind, written.held.value)

    def bind(self, transaction: Transaction, call: Call, value: Json) -> Written:
        """Bind a pod to the node that the Binding `value` names. Raises `Conflict` when it is bound already."""
        transaction.dry = call.options.dry_run
        held = transaction.get(call.key(call.target.name))
        if held is None:
            raise not_found("pods", "", call.target.name)
        node = (value.get("target") or {}).get("name")
        if value.get("kind", "Binding") != "Binding" or not isinstance(node, str) or not node:
            raise Malformed("expected a Binding whose target names a node")
        old = held.value
        self._check_preconditions(
            call, value["metadata"].get("uid"), value["metadata"].get("resourceVersion"), old["metadata"]
        )
        if old["spec"].get("nodeName") or old["metadata"].get("deletionTimestamp"):
            taken = old["spec"].get("nodeName", "")
            state = (
                f"already assigned to node {quoted(taken)}" if taken else "being deleted, cannot be assigned to a host"
            )
            raise Conflict(
                f'Operation cannot be fulfilled on pods/binding "{call.target.name}": pod {call.target.name} is {state}'
            )
        status = old.get("status") or {}
        conditions = condition(status.get("conditions"), "PodScheduled", True, "Scheduled", "", 0, call.now)
        new = {
            **old,
            "metadata": dict(old["metadata"]),
            "spec": {**old["spec"], "nodeName": node},
            "status": {**status, "conditions": conditions},
        }
        return self.store(transaction, call, held, new)

    def finalize(self, transaction: Transaction, call: Call, value: Json) -> Written:
        """Set the finalizers of a namespace's spec; the last one gone, a namespace that is going goes."""
        transaction.dry = call.options.dry_run
        held = transaction.get(call.key(call.target.name))
        if held is None:
            raise not_found("namespaces", "", call.target.name)
        old, metadata = held.value, value["metadata"]
        self._check_preconditions(call, metadata.get("uid"), metadata.get("resourceVersion"), old["metadata"])
        finalizers = (value.get("spec") or {}).get("finalizers") or []
        if not isinstance(finalizers, list) or not all(isinstance(name, str) for name in finalizers):
            raise Malformed("expected spec.finalizers to be a list of texts")
        return self.store(transaction, call, held, finalized(old, finalizers))

    def store(self, transaction: Transaction, call: Call, held: Held, new: Json) -> Written:
        """Store `new` over `held`, or let it go when nothing holds it any more."""
        key = Key(call.resource.number, new["metadata"].get("namespace", ""), new["metadata"]["name"])
        if deletion.is_over(new):
            gone = transaction.delete(key, Held(held.body, new))
            self._record(transaction, call, held, None, 200)
            return Written(gone, gone=True)
        written = transaction.update(key, new, held)
        check_size(written.body)
        self._record(transaction, call, held, written, 200)
        return Written(written)

    # Delete

    def delete(self, transaction: Transaction, call: Call, options: DeleteOptions) -> Written:
        """Delete the object, or mark it as going. Raises `NotFound`, `Conflict`, `Denied`."""
        transaction.dry = options.dry_run
        held = transaction.get(call.key(call.target.name))
        if held is None:
            raise not_found(call.resource.kind.plural, call.resource.kind.group, call.target.name)
        return self.delete_held(transaction, call, held, options)

    def delete_held(self, transaction: Transaction, call: Call, held: Held, options: DeleteOptions) -> Written:
        """Delete the object `held`, which the caller has read in this transaction. Raises as `delete`."""
        resource, old = call.resource, held.value
        name = old["metadata"]["name"]
        if resource.kind.plural == "namespaces" and name in UNDELETABLE:
            raise Denied(f'namespaces "{name}" is forbidden: this namespace may not be deleted')
        self._check_preconditions(call, options.uid, options.resource_version, old["metadata"])
        decided = deletion.decide(old, options, call.now, graceful=resource.behaviour.graceful)
        if decided.step == "keep":
            return Written(held)
        if decided.step == "mark":
            return self.store(transaction, call, held, decided.value)
        key = Key(resource.number, old["metadata"].get("namespace", ""), name)
        gone = transaction.delete(key, Held(held.body, decided.value))
        self._record(transaction, call, held, None, 200)
        return Written(gone, gone=True)

    # Steps that several share

    def _read(self, call: Call, value: Json) -> Json:
        """Return the body as an object of the kind: known fields only, metadata well-formed, defaults filled in."""
        kind = call.resource.kind
        if not isinstance(value, dict):
            raise Malformed(f"expected an object of kind {kind.name}, got {excerpt(value)}")
        version, name = value.get("apiVersion"), value.get("kind")
        if version != kind.api_version or name != kind.name:
            if not version and not name and call.resource.builtin:
                value = {**value, "apiVersion": kind.api_version, "kind": kind.name}
            elif version == kind.api_version and isinstance(name, str) and not call.resource.builtin:
                problem = invalid("kind", name, f"must be {kind.name}")
                raise self._invalid(call, str(value["metadata"].get("name", "")), [problem])
            else:
                raise Malformed(
                    f"the API version in the data ({version}, Kind={name}) does not match the expected API version"
                    f" ({kind.api_version}, Kind={kind.name})"
                )
        new, unknown = coerced(call.resource, value)
        self._tell(call, unknown)
        return new

    def _tell(self, call: Call, unknown: list[str]) -> None:
        """Do with unknown and repeated fields what the caller asked for."""
        texts = [*call.repeated, *(f'unknown field "{path}"' for path in unknown)]
        if not texts or call.options.validation == "Ignore":
            return
        if call.options.validation == "Strict":
            kind = call.resource.kind
            raise Malformed(
                f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: '
                f"strict decoding error: {', '.join(texts)}"
            )
        call.warnings += texts

    def _check_names(self, call: Call, value: Json) -> None:
        """Check that the body means the object that the path means; fill in the namespace."""
        metadata, target = value["metadata"], call.target
        name, namespace = metadata.get("name"), metadata.get("namespace")
        if target.name and name not in {None, "", target.name}:
            raise Malformed(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
        if target.name:
            metadata["name"] = target.name
        if not call.resource.kind.namespaced:
            if namespace:
                raise Malformed("namespace may not be set on cluster-scoped objects: expected none")
            metadata.pop("namespace", None)
            return
        if namespace not in {None, "", target.namespace}:
            raise Malformed("the namespace of the provided object does not match the namespace sent on the request")
        metadata["namespace"] = target.namespace

    def _check_preconditions(self, call: Call, uid: Json, version: Json, stored: Json) -> None:
        kind = call.resource.kind
        word = f'Operation cannot be fulfilled on {qualified(kind.plural, kind.group)} "{stored["name"]}"'
        if uid and uid != stored["uid"]:
            raise Conflict(
                f"{word}: Precondition failed: UID in precondition: {uid}, UID in object meta: {stored['uid']}"
            )
        if version and version != stored["resourceVersion"]:
            raise Conflict(
                f"{word}: the object has been modified; please apply your changes to the latest version and try again"
            )

    def _default(self, call: Call, new: Json) -> None:
        """Fill in what the schema and the kind have defaults for."""
        call.resource.schema.default(new)
        call.resource.behaviour.default(new)

    def _judge(self, transaction: Transaction, call: Call, new: Json, old: Json | None, operation: str) -> None:
        """Refuse what breaks a rule: of metadata, of the schema, of the kind, of the platform."""
        resource, is_status = call.resource, call.target.subresource == "status"
        problems = metadata_problems(resource, new, old) + schema_problems(resource, new, old, status=is_status)
        problems = problems or resource.behaviour.check(new, old)
        if problems:
            raise self._invalid(call, str(new["metadata"].get("name", "")), problems)
        if is_status:
            operation = "STATUS"
        group, plural = resource.kind.group, resource.kind.plural
        self._admit(operation, plural, group, new, old, call.who, self._lookup(transaction))

    def _lookup(self, transaction: Transaction) -> Lookup:
        def look(plural: str, namespace: str, name: str) -> Mapping[str, Json] | None:
            number = self._catalogue.named(plural).number
            if name:
                held = transaction.get(Key(number, namespace, name))
                return held.value if held else None
            return {"items": transaction.values(number, namespace or None)}

        return look

    def _invalid(self, call: Call, name: str, problems: Sequence[FieldProblem]) -> InvalidObject:
        return InvalidObject(call.resource.kind.name, call.resource.kind.group, name, problems)

    def _record(self, transaction: Transaction, call: Call, before: Held | None, after: Held | None, code: int) -> None:
        if transaction.dry:
            return
        metadata = (after or before).value["metadata"]  # type: ignore[union-attr]
        transaction.record(
            Record(
                at=call.now,
                who=call.who,
                verb=call.verb,
                resource=call.resource.kind.resource,
                subresource=call.target.subresource,
                namespace=metadata.get("namespace", ""),
                name=metadata["name"],
                uid=metadata["uid"],
                before=digest(before),
                after=digest(after),
                code=code,
                reason="",
            )
        )


_SERVERS: Final = (
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
    "generateName",
)
"""What of metadata only the server sets."""


def _carry(source: Json, target: Json, name: str) -> None:
    """Make `name` in `target` what it is in `source`, absent included."""
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)


def _copied(value: Json) -> Json:
    """Return a copy to change: what merging returns may share parts with what is stored."""
    return orjson.loads(orjson.dumps(value))


def _untimed(value: Json) -> Json:
    """Return the object with the times of updates through `scale` left out, as kube-apiserver leaves them out."""
    entries = [
        {name: part for name, part in entry.items() if name != "time"}
        if entry.get("subresource") == "scale" and entry["operation"] == "Update"
        else entry
        for entry in value["metadata"].get("managedFields") or []
    ]
    return _with_entries(value, sorted(entries, key=lambda entry: (entry["operation"], entry.get("time") or "")))


def _with_entries(value: Json, entries: Json) -> Json:
    if entries:
        value["metadata"]["managedFields"] = entries
    else:
        value["metadata"].pop("managedFields", None)
    return value


def _wanted(value: Json, resource: Resource) -> Json:
    """Return the part of an object whose changes its generation counts."""
    left = {"metadata", "status"} if resource.kind.status else {"metadata"}
    wanted = {name: child for name, child in value.items() if name not in left}
    if resource.behaviour.counts_annotations:
        wanted["metadata"] = value["metadata"].get("annotations")
    return wanted


def finalized(namespace: Json, finalizers: list[str]) -> Json:
    """Return the namespace with these finalizers in its spec."""
    spec = {**(namespace.get("spec") or {}), "finalizers": finalizers}
    if not finalizers:
        del spec["finalizers"]
    return {**namespace, "metadata": dict(namespace["metadata"]), "spec": spec}
