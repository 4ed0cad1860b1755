"""Namespace, ServiceAccount, Secret, ConfigMap, Event, Lease, Service, Node: what they do beyond their schemas."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Final

from wharfinger.core import names
from wharfinger.core.causes import child, duplicate, forbidden, invalid, item, key_of, not_supported, required, too_long
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem
from wharfinger.kinds.builtin.behaviour import Behaviour
from wharfinger.kinds.builtin.variablerules import EFFECTS

LARGEST_DATA: Final = 1024 * 1024
"""Bytes that the values of a ConfigMap or Secret may hold together."""

NAME_LABEL: Final = "kubernetes.io/metadata.name"
_NEEDED_KEYS: Final = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def immutable(path: str, new: Json, old: Json) -> Iterator[FieldProblem]:
    """Yield a problem when the field at `path` changed."""
    if new != old:
        yield invalid(path, new, "field is immutable")


def _prepare_namespace(new: Json, old: Json | None) -> None:
    if old is None:
        spec = new.setdefault("spec", {})
        finalizers = spec.setdefault("finalizers", [])
        if "kubernetes" not in finalizers:
            finalizers.append("kubernetes")
        new["status"] = {"phase": "Active"}
    else:
        new["spec"] = old["spec"]


def _default_namespace(new: Json) -> None:
    name = new["metadata"].get("name")
    if name:
        new["metadata"].setdefault("labels", {})[NAME_LABEL] = name


def _check_config_map(new: Json, old: Json | None) -> list[FieldProblem]:
    data, binary = new.get("data") or {}, new.get("binaryData") or {}
    problems = [invalid(key_of("data", key), key, wrong) for key in data for wrong in names.config_key(key)]
    problems += [invalid(key_of("binaryData", key), key, wrong) for key in binary for wrong in names.config_key(key)]
    problems += [
        invalid(key_of("data", key), key, "duplicate of key present in binaryData") for key in data if key in binary
    ]
    problems += [
        invalid(key_of("binaryData", key), value, "must be base64")
        for key, value in binary.items()
        if _raw(value) is None
    ]
    if _size(data) + sum(len(_raw(value) or b"") for value in binary.values()) > LARGEST_DATA:
        problems.append(too_long("", LARGEST_DATA))
    problems += _sealed(new, old, "data", "binaryData")
    return problems


def _default_secret(new: Json) -> None:
    texts = new.pop("stringData", None)
    if texts:
        data = new.setdefault("data", {})
        for key, text in texts.items():
            data[key] = base64.b64encode(text.encode()).decode()


def _check_secret(new: Json, old: Json | None) -> list[FieldProblem]:
    data = new.get("data") or {}
    problems = [invalid(key_of("data", key), key, wrong) for key in data for wrong in names.config_key(key)]
    # The value may be a secret: a message must not repeat it.
    problems += [
        invalid(key_of("data", key), "<omitted>", "must be base64")
        for key, value in data.items()
        if _raw(value) is None
    ]
    if sum(len(_raw(value) or b"") for value in data.values()) > LARGEST_DATA:
        problems.append(too_long("data", LARGEST_DATA))
    kind = new.get("type", "Opaque")
    problems += [required(key_of("data", key)) for key in _NEEDED_KEYS.get(kind, ()) if key not in data]
    if old is not None:
        problems += immutable("type", kind, old.get("type", "Opaque"))
    problems += _sealed(new, old, "data")
    return problems


def _sealed(new: Json, old: Json | None, *fields: str) -> Iterator[FieldProblem]:
    if old is None or not old.get("immutable"):
        return
    if not new.get("immutable"):
        yield forbidden("immutable", "field is immutable when `immutable` is set")
    for field in fields:
        if (new.get(field) or {}) != (old.get(field) or {}):
            yield forbidden(field, "field is immutable when `immutable` is set")


def _size(data: Json) -> int:
    return sum(len(str(value).encode()) for value in data.values())


def _raw(value: Json) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        return None


def _check_event(new: Json, _old: Json | None) -> list[FieldProblem]:
    named = new["involvedObject"].get("namespace") or "default"
    namespace = new["metadata"].get("namespace") or "default"
    if named != namespace:
        return [invalid("involvedObject.namespace", named, "does not match event.namespace")]
    return []


def _check_lease(new: Json, _old: Json | None) -> list[FieldProblem]:
    spec = new.get("spec") or {}
    holder = spec.get("holderIdentity")
    return [invalid("spec.holderIdentity", holder, "must not be empty")] if holder == "" else []


def _default_service(new: Json) -> None:
    spec = new.setdefault("spec", {})
    for port in spec.get("ports") or []:
        port["targetPort"] = port.get("targetPort") or port.get("port")
    if spec.get("type") != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec.get("type") in {"NodePort", "LoadBalancer"}:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec.get("sessionAffinity") == "ClientIP":
        spec.setdefault("sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 10800}})


def _prepare_service(new: Json, _old: Json | None) -> None:
    """Fill in what the allocator of cluster IPs fills in; here nobody allocates any."""
    spec = new["spec"]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    if spec.get("type") != "ExternalName":
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")


def _check_service(new: Json, old: Json | None) -> list[FieldProblem]:
    spec = new.get("spec") or {}
    ports = spec.get("ports") or []
    problems: list[FieldProblem] = []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        problems.append(required("spec.ports"))
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        problems.append(required("spec.externalName"))
    if spec.get("sessionAffinity") not in {"None", "ClientIP"}:
        problems.append(not_supported("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None")))
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at = item("spec.ports", index)
        name = port.get("name", "")
        if len(ports) > 1 and not name:
            problems.append(required(child(at, "name")))
        if name in seen and name:
            problems.append(duplicate(child(at, "name"), name))
        seen.add(name)
        problems += [invalid(child(at, "name"), name, wrong) for wrong in (names.dns_label(name) if name else ())]
        problems += check_port(child(at, "targetPort"), port.get("targetPort"))
    if old is not None and old.get("spec", {}).get("clusterIP") not in {None, "", spec.get("clusterIP")}:
        problems.append(invalid("spec.clusterIP", spec.get("clusterIP"), "field is immutable"))
    return problems


def check_port(path: str, value: Json) -> Iterator[FieldProblem]:
    """Yield what is wrong with a port given by number or name."""
    if isinstance(value, int) and not 1 <= value <= 65535:
        yield invalid(path, value, "must be between 1 and 65535, inclusive")
    elif isinstance(value, str):
        for wrong in names.port_name(value):
            yield invalid(path, value, wrong)


def _default_node(new: Json) -> None:
    status = new.get("status") or {}
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def _check_node(new: Json, old: Json | None) -> list[FieldProblem]:
    problems: list[FieldProblem] = []
    seen: set[tuple[Json, Json]] = set()
    for index, taint in enumerate((new.get("spec") or {}).get("taints") or []):
        # Kubernetes calls the place so, though taints stand in the spec.
        at = item("metadata.taints", index)
        key, value, effect = (taint.get(name) or "" for name in ("key", "value", "effect"))
        problems += [invalid(child(at, "key"), key, wrong) for wrong in names.label_key(key)]
        wrong_value = names.label_value(value)
        if wrong_value:
            problems.append(invalid(child(at, "value"), value, ";".join(wrong_value)))
        if not effect:
            problems.append(required(child(at, "effect")))
        elif effect not in EFFECTS:
            problems.append(not_supported(child(at, "effect"), effect, EFFECTS))
        mark = (key, effect)
        if mark in seen:
            made = duplicate(at, taint)
            text = f"{made.message}: taints must be unique by key and effect pair"
            problems.append(FieldProblem(at, text, made.reason))
        seen.add(mark)
    provider = (old or {}).get("spec", {}).get("providerID")
    if provider and (new.get("spec") or {}).get("providerID") != provider:
        problems.append(forbidden("spec.providerID", "may not change once it is set"))
    return problems


NAMESPACE: Final = Behaviour(name=names.dns_label, prepare=_prepare_namespace, default=_default_namespace)
CONFIG_MAP: Final = Behaviour(check=_check_config_map)
SECRET: Final = Behaviour(default=_default_secret, check=_check_secret)
EVENT: Final = Behaviour(check=_check_event, create_on_update=True)
LEASE: Final = Behaviour(check=_check_lease, create_on_update=True)
SERVICE: Final = Behaviour(
    name=names.dns_label,
    prepare=_prepare_service,
    default=_default_service,
    check=_check_service,
    create_on_update=True,
)
NODE: Final = Behaviour(default=_default_node, check=_check_node)
SERVICE_ACCOUNT: Final = Behaviour()
