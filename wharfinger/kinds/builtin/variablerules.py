"""Environment variables, resources and tolerations of pods: what their schemas cannot say (apis/core/validation)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from wharfinger.core import names
from wharfinger.core.causes import child, invalid, item, not_supported, required
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem

EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_SUBSCRIPTED: Final = re.compile(r"([^\[]+)\['([^']*)'\]")
_FIELDS: Final = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
"""Fields of its pod that a variable may hold."""
_LABELS: Final = frozenset(
    {
        *_FIELDS,
        "metadata.annotations",
        "metadata.labels",
        "spec.restartPolicy",
        "spec.schedulerName",
        "status.phase",
        "spec.host",
    }
)
"""Fields that are known at all."""
_AMOUNTS: Final = tuple(
    f"{which}.{name}" for which in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_STANDARD: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_QUOTAS: Final = frozenset(
    {
        *(f"{which}.{name}" for which in ("requests", "limits") for name in _STANDARD),
        *("pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps"),
        *("persistentvolumeclaims", "storage", "requests.storage", "services.nodeports", "services.loadbalancers"),
    }
)
"""Resources that quotas count and containers do not have."""


def check_source(variable: Json, at: str) -> Iterator[FieldProblem]:
    """Yield what is wrong with where the value of the variable at `at` comes from."""
    source = variable.get("valueFrom")
    if source is None:
        return
    path = child(at, "valueFrom")
    checks = [(name, check) for name, check in _SOURCES.items() if source.get(name) is not None]
    for name, check in checks:
        yield from check(source[name], child(path, name))
    if not checks:
        words = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        yield invalid(path, "", f"must specify one of: {words}")
    elif variable.get("value"):
        yield invalid(path, "", "may not be specified when `value` is not empty")
    elif len(checks) > 1:
        yield invalid(path, "", "may not have more than one field specified at a time")


def _check_field(reference: Json, at: str) -> Iterator[FieldProblem]:
    version, path = reference.get("apiVersion", "v1"), reference.get("fieldPath") or ""
    where = child(at, "fieldPath")
    match = _SUBSCRIPTED.fullmatch(path)
    if not version:
        yield required(child(at, "apiVersion"))
    elif not path:
        yield required(where)
    elif version != "v1":
        yield invalid(where, path, f"error converting fieldPath: unsupported pod version: {version}")
    elif match is not None and match[1] in {"metadata.annotations", "metadata.labels"}:
        key = match[2].lower() if match[1] == "metadata.annotations" else match[2]
        for wrong in names.label_key(key):
            yield invalid(at, key, wrong)
    elif match is not None:
        yield invalid(where, path, f"error converting fieldPath: field label does not support subscript: {path}")
    elif path not in _LABELS:
        yield invalid(where, path, f"error converting fieldPath: field label not supported: {path}")
    elif path not in _FIELDS and path != "spec.host":
        yield not_supported(where, path, _FIELDS)


def _check_amount(reference: Json, at: str) -> Iterator[FieldProblem]:
    resource = reference.get("resource") or ""
    if not resource:
        yield required(child(at, "resource"))
    elif resource not in _AMOUNTS and not resource.startswith(("requests.hugepages-", "limits.hugepages-")):
        yield not_supported(child(at, "resource"), resource, _AMOUNTS)


def _check_key(reference: Json, at: str) -> Iterator[FieldProblem]:
    name, key = reference.get("name") or "", reference.get("key") or ""
    for wrong in names.dns_subdomain(name):
        yield invalid(child(at, "name"), name, wrong)
    if not key:
        yield required(child(at, "key"))
    for wrong in names.config_key(key) if key else ():
        yield invalid(child(at, "key"), key, wrong)


def _leave(_reference: Json, _at: str) -> Iterator[FieldProblem]:
    return iter(())


_SOURCES: Final[dict[str, Callable[[Json, str], Iterator[FieldProblem]]]] = {
    "fieldRef": _check_field,
    "resourceFieldRef": _check_amount,
    "configMapKeyRef": _check_key,
    "secretKeyRef": _check_key,
    "fileKeyRef": _leave,
}


def check_resource(name: str, at: str) -> Iterator[FieldProblem]:
    """Yield what is wrong with the name of a resource that a container asks for."""
    wrong = names.label_key(name)
    for text in wrong:
        yield invalid(at, name, text)
    standard = name in _STANDARD or name.startswith("hugepages-")
    if "/" not in name:
        if not wrong and not standard and name not in _QUOTAS:
            yield invalid(at, name, "must be a standard resource type or fully qualified")
        if not standard:
            yield invalid(at, name, "must be a standard resource for containers")
    elif "kubernetes.io/" not in name and (name.startswith("requests.") or names.label_key(f"requests.{name}")):
        yield invalid(at, name, "doesn't follow extended resource name standard")


def check_tolerations(tolerations: Json, at: str) -> Iterator[FieldProblem]:
    """Yield what is wrong with a pod's tolerations."""
    for index, toleration in enumerate(tolerations or ()):
        path = item(at, index)
        key, value, effect = (toleration.get(name) or "" for name in ("key", "value", "effect"))
        operator = toleration.get("operator") or ""
        for wrong in names.label_key(key) if key else ():
            yield invalid(child(path, "key"), key, wrong)
        if not key and operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            yield invalid(child(path, "operator"), operator, text)
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            yield invalid(child(path, "effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
        if operator in {"", "Equal"}:
            problems = names.label_value(value)
            if problems:
                yield invalid(child(path, "operator"), value, ";".join(problems))
        elif operator == "Exists":
            if value:
                yield invalid(child(path, "operator"), value, "value must be empty when `operator` is 'Exists'")
        else:
            yield not_supported(child(path, "operator"), operator, ("Equal", "Exists"))
        if effect and effect not in EFFECTS:
            yield not_supported(child(path, "effect"), effect, EFFECTS)
