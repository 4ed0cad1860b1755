"""Pods, alone and in templates: what they do beyond their schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from wharfinger.core import names
from wharfinger.core.causes import (
    child,
    duplicate,
    forbidden,
    invalid,
    item,
    key_of,
    not_found,
    not_supported,
    required,
)
from wharfinger.core.document import Json
from wharfinger.core.errors import FieldProblem, Malformed
from wharfinger.core.quantity import Quantity
from wharfinger.kinds.builtin.behaviour import Behaviour
from wharfinger.kinds.builtin.corerules import check_port
from wharfinger.kinds.builtin.variablerules import check_resource, check_source, check_tolerations
from wharfinger.kinds.builtin.volumes import SOURCES

_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")
_IMAGE: Final = re.compile(r"[a-z0-9][a-z0-9._:/-]*(?::[A-Za-z0-9_][A-Za-z0-9._-]*)?", re.ASCII)
_FIRST_SOURCES: Final = ("emptyDir", "hostPath", "secret", "nfs", "persistentVolumeClaim", "downwardAPI", "configMap")
"""Kubernetes judges a volume's sources in this order, the rest after."""
_NAMED_SOURCES: Final = {"configMap": "name", "secret": "secretName", "persistentVolumeClaim": "claimName"}
_RESIZABLE: Final = frozenset({"cpu", "memory"})


def default_spec(spec: Json) -> None:
    """Fill in the defaults of a pod's spec that depend on other fields."""
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for volume in spec.get("volumes") or []:
        if not any(source in volume for source in SOURCES):
            volume["emptyDir"] = {}
    for name in _LISTS:
        for container in spec.get(name) or []:
            if not container.get("imagePullPolicy"):
                container["imagePullPolicy"] = _pull_policy(container.get("image") or "")
            if spec.get("hostNetwork"):
                for port in container.get("ports") or []:
                    port.setdefault("hostPort", port.get("containerPort"))


def _pull_policy(image: str) -> str:
    """Without a tag, or with `latest`, the image may be another one tomorrow; a digest never is."""
    last = image.rsplit("/", 1)[-1]
    if "@" in last or _IMAGE.fullmatch(image.partition("@")[0]) is None:
        return "IfNotPresent"
    _, colon, tag = last.partition(":")
    return "Always" if not colon or tag == "latest" else "IfNotPresent"


def _default_pod(new: Json) -> None:
    spec = new.setdefault("spec", {})
    if not spec.get("serviceAccountName") and not spec.get("serviceAccount"):
        spec["serviceAccountName"] = "default"  # what the admission plugin ServiceAccount does in a cluster
    spec.setdefault("enableServiceLinks", True)
    default_spec(spec)
    for name in _LISTS:
        for container in spec.get(name) or []:
            resources = container.setdefault("resources", {})
            limits = resources.get("limits") or {}
            if limits:
                resources["requests"] = {**limits, **(resources.get("requests") or {})}


def _prepare(new: Json, old: Json | None) -> None:
    if old is None:
        new["status"] = {"phase": "Pending", "qosClass": quality_of_service(new["spec"])}
    elif "status" in old:
        new["status"] = old["status"]


def quality_of_service(spec: Json) -> str:
    """Return the pod's quality of service class: Guaranteed, Burstable or BestEffort."""
    guaranteed, anything = True, False
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        anything = anything or any(name in requests or name in limits for name in _RESIZABLE)
        for name in _RESIZABLE:
            if name not in limits or _amount(requests.get(name, limits[name])) != _amount(limits[name]):
                guaranteed = False
    return "BestEffort" if not anything else "Guaranteed" if guaranteed else "Burstable"


def check_spec(spec: Json, at: str) -> list[FieldProblem]:
    """Return what is wrong with the pod spec that stands at the path `at`."""
    problems: list[FieldProblem] = []
    volumes = _check_volumes(spec.get("volumes") or [], child(at, "volumes"), problems)
    claims = {claim.get("name") for claim in spec.get("resourceClaims") or []}
    problems += _check_claims(spec.get("resourceClaims") or [], child(at, "resourceClaims"))
    if not spec.get("containers"):
        problems.append(required(child(at, "containers")))
    seen: set[str] = set()
    for name in _LISTS:
        for index, container in enumerate(spec.get(name) or []):
            path = item(child(at, name), index)
            label = container.get("name", "")
            if not label:
                problems.append(required(child(path, "name")))
            elif label in seen:
                problems.append(duplicate(child(path, "name"), label))
            else:
                problems += [invalid(child(path, "name"), label, wrong) for wrong in names.dns_label(label)]
            seen.add(label)
            problems += _check_container(container, path, volumes, claims)
    problems += _check_identity(spec, at)
    problems += check_tolerations(spec.get("tolerations"), child(at, "tolerations"))
    policy = spec.get("dnsPolicy")
    if policy not in {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"}:
        supported = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
        problems.append(not_supported(child(at, "dnsPolicy"), policy, supported))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        problems.append(
            invalid(child(at, "activeDeadlineSeconds"), deadline, "must be between 1 and 2147483647, inclusive")
        )
    return problems


def _check_identity(spec: Json, at: str) -> Iterator[FieldProblem]:
    for field, check in (
        ("serviceAccountName", names.dns_subdomain),
        ("nodeName", names.dns_subdomain),
        ("hostname", names.dns_label),
        ("subdomain", names.dns_label),
    ):
        value = spec.get(field)
        for wrong in check(value) if value else ():
            yield invalid(child(at, field), value, wrong)
    for key, value in (spec.get("nodeSelector") or {}).items():
        for wrong in names.label_key(key):
            yield invalid(child(at, "nodeSelector"), key, wrong)
        for wrong in names.label_value(value):
            yield invalid(child(at, "nodeSelector"), value, wrong)


def _check_volumes(volumes: Json, at: str, problems: list[FieldProblem]) -> set[str]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        path, name = item(at, index), volume.get("name", "")
        if not name:
            problems.append(required(child(path, "name")))
        else:
            problems += [invalid(child(path, "name"), name, wrong) for wrong in names.dns_label(name)]
        if name in seen:
            problems.append(duplicate(child(path, "name"), name))
        seen.add(name)
        sources = sorted((source for source in volume if source in SOURCES), key=_judged)
        if len(sources) > 1:
            problems.append(forbidden(child(path, sources[1]), "may not specify more than 1 volume type"))
        for source, field in _NAMED_SOURCES.items():
            if sources[:1] == [source] and not (volume[source] or {}).get(field):
                problems.append(required(child(child(path, source), field)))
    return seen


def _judged(source: str) -> tuple[int, str]:
    return (_FIRST_SOURCES.index(source) if source in _FIRST_SOURCES else len(_FIRST_SOURCES), source)


def _check_claims(claims: Json, at: str) -> Iterator[FieldProblem]:
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        path, name = item(at, index), claim.get("name", "")
        if not name:
            yield required(child(path, "name"))
        for wrong in names.dns_label(name) if name else ():
            yield invalid(child(path, "name"), name, wrong)
        if name in seen:
            yield duplicate(child(path, "name"), name)
        seen.add(name)
        if ("resourceClaimName" in claim) == ("resourceClaimTemplateName" in claim):
            yield invalid(path, claim, "must specify exactly one of: resourceClaimName, resourceClaimTemplateName")


def _check_container(container: Json, at: str, volumes: set[str], claims: set[Json]) -> Iterator[FieldProblem]:
    image = container.get("image", "")
    if not image:
        yield required(child(at, "image"))
    elif image != image.strip():
        yield invalid(child(at, "image"), image, "must not have leading or trailing whitespace")
    policy = container.get("imagePullPolicy")
    if policy not in {"Always", "IfNotPresent", "Never"}:
        yield not_supported(child(at, "imagePullPolicy"), policy, ("Always", "IfNotPresent", "Never"))
    for index, variable in enumerate(container.get("env") or []):
        path = item(child(at, "env"), index)
        if not variable.get("name"):
            yield required(child(path, "name"))
        for wrong in names.relaxed_environment_name(variable["name"]) if variable.get("name") else ():
            yield invalid(child(path, "name"), variable["name"], wrong)
        yield from check_source(variable, path)
    yield from _check_mounts(container, at, volumes)
    yield from _check_ports(container, at)
    yield from _check_resources(container.get("resources") or {}, child(at, "resources"), claims)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield from _check_probe(container.get(probe), child(at, probe))


def _check_mounts(container: Json, at: str, volumes: set[str]) -> Iterator[FieldProblem]:
    seen: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        path = item(child(at, "volumeMounts"), index)
        if mount.get("name") not in volumes:
            yield not_found(child(path, "name"), mount.get("name"))
        where = mount.get("mountPath")
        if not where:
            yield required(child(path, "mountPath"))
        elif where in seen:
            yield invalid(child(path, "mountPath"), where, "must be unique")
        seen.add(where)


def _check_ports(container: Json, at: str) -> Iterator[FieldProblem]:
    seen: set[str] = set()
    for index, port in enumerate(container.get("ports") or []):
        path, name = item(child(at, "ports"), index), port.get("name")
        if not name:
            continue
        for wrong in names.port_name(name):
            yield invalid(child(path, "name"), name, wrong)
        if name in seen:
            yield duplicate(child(path, "name"), name)
        seen.add(name)


def _check_resources(resources: Json, at: str, claims: set[Json]) -> Iterator[FieldProblem]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            path = key_of(child(at, field), name)
            yield from check_resource(name, path)
            read = _amount(amount)
            if read is None:
                yield invalid(path, amount, "must be a quantity such as 500m or 2Gi")
            elif read < Quantity.parse("0"):
                yield invalid(path, amount, "must be greater than or equal to 0")
    for name, amount in requests.items():
        asked, most = _amount(amount), _amount(limits[name]) if name in limits else None
        if asked is not None and most is not None and asked > most:
            yield invalid(
                child(at, "requests"),
                amount,
                f"must be less than or equal to {name} limit of {limits[name]}",
            )
    for index, claim in enumerate(resources.get("claims") or []):
        if claim.get("name") not in claims:
            yield not_found(child(item(child(at, "claims"), index), "name"), claim.get("name"))


def _check_probe(probe: Json, at: str) -> Iterator[FieldProblem]:
    if not probe:
        return
    handlers = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if name in probe]
    if not handlers:
        yield required(at, "must specify a handler type")
    for extra in handlers[1:]:
        yield forbidden(child(at, extra), "may not specify more than 1 handler type")
    for name in ("httpGet", "tcpSocket"):
        if name in probe:
            yield from check_port(child(child(at, name), "port"), probe[name].get("port"))


def _amount(value: Json) -> Quantity | None:
    try:
        return Quantity.parse(str(value))
    except Malformed:
        return None


def _check_pod(new: Json, old: Json | None) -> list[FieldProblem]:
    spec = new.get("spec") or {}
    problems = check_spec(spec, "spec")
    if old is not None and len(spec.get("containers") or ()) != len(old["spec"].get("containers") or ()):
        problems.append(forbidden("spec.containers", "pod updates may not add or remove containers"))
    elif old is not None and _fixed(spec, old["spec"]) != _fixed(old["spec"], old["spec"]):
        problems.append(
            forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`,"
                "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to"
                " existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was"
                " previously negative)",
            )
        )
    return problems


def _fixed(spec: Json, old: Json) -> Json:
    """Return the part of `spec` that an update of a pod may not change."""
    fixed = {name: value for name, value in spec.items() if name != "activeDeadlineSeconds"}
    for name in ("containers", "initContainers"):
        fixed[name] = [{**container, "image": ""} for container in spec.get(name) or []]
    kept = [toleration for toleration in spec.get("tolerations") or [] if toleration in (old.get("tolerations") or [])]
    fixed["tolerations"] = kept
    gates = {gate["name"] for gate in spec.get("schedulingGates") or []}
    fixed["schedulingGates"] = sorted(gates - {gate["name"] for gate in old.get("schedulingGates") or []})
    return fixed


POD: Final = Behaviour(
    generation=True,
    graceful=True,
    prepare=_prepare,
    default=_default_pod,
    check=_check_pod,
)
