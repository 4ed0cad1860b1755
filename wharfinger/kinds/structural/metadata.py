"""The rules of metadata: names, labels, owners, finalizers, and what of them may change (api/validation)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from wharfinger.core import names
from wharfinger.core.causes import child, forbidden, invalid, item, not_supported, required, too_long
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem
from wharfinger.kinds.structural.findings import MOST

LARGEST_ANNOTATIONS: Final = 256 * 1024
"""Bytes of all annotations' names and values."""
LONGEST_MANAGER: Final = 128
LONGEST_SUBRESOURCE: Final = 256
IMMUTABLE: Final = "field is immutable"

_FIXED: Final = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
_BANNED_OWNER: Final = ("v1", "Event")

NameCheck = Callable[[str], list[str]]
"""Says what is wrong with a name; one of `wharfinger.core.names`."""


def problems_on_create(
    metadata: Json, *, namespaced: bool, name: NameCheck = names.dns_subdomain, path: str = "metadata"
) -> list[FieldProblem]:
    """Return what is wrong with the metadata of a new object, its name made already."""
    prefix, own, namespace = (metadata.get(field) or "" for field in ("generateName", "name", "namespace"))
    problems = []
    if prefix:
        wrong = name(names.generated_prefix(prefix))
        problems += [invalid(child(path, "generateName"), prefix, text) for text in wrong]
    if not own:
        problems.append(required(child(path, "name"), "name or generateName is required"))
    else:
        problems += [invalid(child(path, "name"), own, text) for text in name(own)]
    if not namespaced:
        if namespace:
            problems.append(forbidden(child(path, "namespace"), "not allowed on this type"))
    elif not namespace:
        problems.append(required(child(path, "namespace")))
    else:
        problems += [invalid(child(path, "namespace"), namespace, text) for text in names.dns_label(namespace)]
    problems += islice(_always(metadata, path), MOST)
    problems += islice(_finalizer_problems(metadata.get("finalizers") or (), child(path, "finalizers")), MOST)
    return problems


def problems_on_update(metadata: Json, old: Json, *, path: str = "metadata") -> list[FieldProblem]:
    """Return what is wrong with the metadata of an object that replaces one with the metadata `old`."""
    problems = []
    if old.get("deletionTimestamp"):
        added = sorted(set(metadata.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if added:
            words = ", ".join(f'"{name}"' for name in added)
            text = "no new finalizers can be added if the object is being deleted, found new finalizers"
            problems.append(forbidden(child(path, "finalizers"), f"{text} []string{{{words}}}"))
    if not metadata.get("resourceVersion"):
        problems.append(invalid(child(path, "resourceVersion"), "", "must be specified for an update"))
    generation = metadata.get("generation") or 0
    if generation < (old.get("generation") or 0):
        problems.append(invalid(child(path, "generation"), generation, "must not be decremented"))
    for field in _FIXED:
        new = metadata.get(field) or None
        if new != (old.get(field) or None):
            shown = new if new is not None else "" if field in {"name", "namespace", "uid"} else None
            problems.append(invalid(child(path, field), shown, IMMUTABLE))
    problems += islice(_always(metadata, path), MOST)
    return problems


def _always(metadata: Json, path: str) -> Iterator[FieldProblem]:
    generation = metadata.get("generation") or 0
    if generation < 0:
        yield invalid(child(path, "generation"), generation, "must be greater than or equal to 0")
    labels, annotations = metadata.get("labels"), metadata.get("annotations")
    if labels:
        yield from _label_problems(labels, child(path, "labels"))
    if annotations:
        yield from _annotation_problems(annotations, child(path, "annotations"))
    owners, entries = metadata.get("ownerReferences"), metadata.get("managedFields")
    if owners:
        yield from _owner_problems(owners, child(path, "ownerReferences"))
    if entries:
        yield from _entry_problems(entries, child(path, "managedFields"))


def _label_problems(labels: dict[str, str], path: str) -> Iterator[FieldProblem]:
    for name, value in labels.items():
        for text in names.label_key(name):
            yield invalid(path, name, text)
        for text in names.label_value(value):
            yield invalid(path, value, text)


def _annotation_problems(annotations: dict[str, str], path: str) -> Iterator[FieldProblem]:
    size = 0
    for name, value in annotations.items():
        size += len(name.encode("utf-8", "surrogatepass")) + len(value.encode("utf-8", "surrogatepass"))
        for text in names.label_key(name.lower()):
            yield invalid(path, name, text)
    if size > LARGEST_ANNOTATIONS:
        yield too_long(path, LARGEST_ANNOTATIONS)


def _owner_problems(owners: list[Json], path: str) -> Iterator[FieldProblem]:
    first = ""
    for index, owner in enumerate(owners):
        at = item(path, index)
        version = owner.get("apiVersion") or ""
        if version and (version.count("/") > 1 or version.endswith("/")):
            yield invalid(child(at, "apiVersion"), version, "must be <group>/<version> or <version>")
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                yield required(child(at, name), "must not be empty")
        kind = owner.get("kind") or ""
        if (version, kind) == _BANNED_OWNER:
            yield invalid(at, owner, f"/{version}, Kind={kind} is disallowed from being an owner")
        if owner.get("controller"):
            named = f"{kind}/{owner.get('name') or ''}"
            if first:
                text = (
                    'Only one reference can have Controller set to true. Found "true" in references for'
                    f" {first} and {named}"
                )
                yield invalid(path, owners, text)
            else:
                first = named


def _finalizer_problems(finalizers: Iterable[str], path: str) -> Iterator[FieldProblem]:
    for name in finalizers:
        for text in names.label_key(name):
            yield invalid(path, name, text)
    if _ORPHAN in finalizers and _FOREGROUND in finalizers:
        yield invalid(path, list(finalizers), f"finalizer {_ORPHAN} and {_FOREGROUND} cannot be both set")


def _entry_problems(entries: list[Json], path: str) -> Iterator[FieldProblem]:
    for index, entry in enumerate(entries):
        at = item(path, index)
        operation, sort = entry.get("operation") or "", entry.get("fieldsType") or ""
        if not operation:
            yield required(child(at, "operation"), "must not be empty")
        elif operation not in {"Apply", "Update"}:
            yield not_supported(child(at, "operation"), operation, ("Apply", "Update"))
        if sort and sort != "FieldsV1":
            yield invalid(child(at, "fieldsType"), sort, "must be `FieldsV1`")
        manager = entry.get("manager") or ""
        if len(manager.encode("utf-8", "surrogatepass")) > LONGEST_MANAGER:
            yield too_long(child(at, "manager"), LONGEST_MANAGER)
        elif not manager.isprintable():
            yield invalid(child(at, "manager"), manager, "should only contain printable characters")
        if len((entry.get("subresource") or "").encode("utf-8", "surrogatepass")) > LONGEST_SUBRESOURCE:
            yield too_long(child(at, "subresource"), LONGEST_SUBRESOURCE)
