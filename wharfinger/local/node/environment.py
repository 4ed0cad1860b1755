"""A container's environment and a pod's files: values of references resolved, variables expanded.

Pure but for `find`, through which ConfigMaps and Secrets are read. References are Kubernetes': `fieldRef`,
`resourceFieldRef`, `configMapKeyRef`, `secretKeyRef`, `envFrom`, and `$(NAME)` in values, command and args.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from wharfinger.core.errors import Invalid, NotFound, excerpt
from wharfinger.core.quantity import Quantity

Object = Mapping[str, Any]
Find = Callable[[str, str, str], Object | None]
"""`(plural, namespace, name)` to the object, None when it is not there."""

_KEYED: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_VARIABLE: Final = re.compile(r"\$(\$|\(([^()]*)\))")


def environment(
    pod: Object, container: Mapping[str, Any], ip: str, given: Mapping[str, str], find: Find
) -> dict[str, str]:
    """Return the container's environment: what is `given`, then envFrom, then env, later ones winning.

    Raises `NotFound` when what is referred to is not there, `Invalid` for a reference that this node has not.
    """
    namespace = pod["metadata"]["namespace"]
    made = dict(given)
    for source in container.get("envFrom") or ():
        for plural, key in (("secrets", "secretRef"), ("configmaps", "configMapRef")):
            if source.get(key):
                data = data_of(find, plural, namespace, source[key]["name"], optional=bool(source[key].get("optional")))
                made |= {f"{source.get('prefix') or ''}{name}": _text(value) for name, value in data.items()}
    for entry in container.get("env") or ():
        told = entry.get("valueFrom")
        value = _value(pod, container, told, ip, find) if told else expanded(str(entry.get("value") or ""), made)
        if value is not None:
            made[str(entry["name"])] = value
    return made


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return `text` with `$(NAME)` replaced where NAME is known; `$$` stands for one dollar."""

    def put(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return _VARIABLE.sub(put, text)


def command(container: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Return the container's `command` and `args`, expanded."""
    return {
        field: [expanded(str(word), variables) for word in container.get(field) or ()] for field in ("command", "args")
    }


def field(pod: Object, path: str, ip: str) -> str:
    """Return a field of the pod, as the downward API names it. Raises `Invalid`."""
    meta, spec = pod["metadata"], pod["spec"]
    known = {
        "metadata.name": meta["name"], "metadata.namespace": meta["namespace"], "metadata.uid": meta.get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""), "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": ip, "status.podIPs": ip, "status.hostIP": "127.0.0.1", "status.hostIPs": "127.0.0.1",
    }  # fmt: skip
    if path in known:
        return str(known[path])
    for whole in ("labels", "annotations"):
        if path == f"metadata.{whole}":
            return "".join(f'{key}="{value}"\n' for key, value in sorted((meta.get(whole) or {}).items()))
    match = _KEYED.fullmatch(path)
    if match is None:
        raise Invalid(f"expected a field of the pod such as metadata.name, got {excerpt(path)}")
    return str((meta.get(match[1]) or {}).get(match[2], ""))


def resource(container: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """Return a request or limit of a container in whole multiples of its divisor. Raises `Invalid`."""
    kind, _, name = str(told["resource"]).partition(".")
    if kind not in ("limits", "requests"):
        raise Invalid(f"expected limits.NAME or requests.NAME, got {excerpt(told['resource'])}")
    amounts = (container.get("resources") or {}).get(kind) or {}
    divisor = Quantity.of_json(told.get("divisor") or "1").nanos or 10**9
    return str(-(-Quantity.of_json(amounts.get(name)).nanos // divisor))


def files_of(pod: Object, source: Mapping[str, Any], ip: str, find: Find) -> dict[str, bytes]:
    """Return the files by relative path of a secret, configMap, downwardAPI or projected volume's source.

    Raises `NotFound`, `Invalid`.
    """
    namespace = pod["metadata"]["namespace"]
    for plural, key, name in (("secrets", "secret", "secretName"), ("configmaps", "configMap", "name")):
        if source.get(key) is not None:
            told = source[key]
            where = str(told.get(name) or told.get("name") or "")
            optional = bool(told.get("optional"))
            return _chosen(data_of(find, plural, namespace, where, optional=optional), told.get("items"), optional)
    if source.get("downwardAPI") is not None:
        return {
            _plain(item["path"]): (
                field(pod, item["fieldRef"]["fieldPath"], ip)
                if item.get("fieldRef")
                else resource(_container(pod, item["resourceFieldRef"].get("containerName")), item["resourceFieldRef"])
            ).encode()
            for item in source["downwardAPI"].get("items") or ()
        }
    if source.get("projected") is not None:
        made: dict[str, bytes] = {}
        for part in source["projected"].get("sources") or ():
            made |= files_of(pod, part, ip, find)
        return made
    kinds = ", ".join(sorted(set(source) - {"name"})) or "nothing"
    raise Invalid(f"expected emptyDir, secret, configMap, downwardAPI, projected or hostPath, got {kinds}")


def data_of(find: Find, plural: str, namespace: str, name: str, *, optional: bool) -> dict[str, bytes]:
    """Return the data of a ConfigMap or Secret. Raises `NotFound` unless it is `optional`, `Invalid`."""
    found = find(plural, namespace, name)
    if found is None:
        if optional:
            return {}
        raise NotFound(f"{plural.removesuffix('s')} {excerpt(name)} not found")
    try:
        made = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        for key, value in (found.get("data") or {}).items():
            made[key] = base64.b64decode(value) if plural == "secrets" else str(value).encode()
    except binascii.Error as error:
        raise Invalid(f"{plural} {name}: expected base64") from error
    return made


def _value(pod: Object, container: Object, told: Mapping[str, Any], ip: str, find: Find) -> str | None:
    if told.get("fieldRef"):
        return field(pod, told["fieldRef"]["fieldPath"], ip)
    if told.get("resourceFieldRef"):
        name = told["resourceFieldRef"].get("containerName")
        return resource(_container(pod, name) if name else container, told["resourceFieldRef"])
    for plural, key in (("secrets", "secretKeyRef"), ("configmaps", "configMapKeyRef")):
        if told.get(key):
            reference = told[key]
            optional = bool(reference.get("optional"))
            data = data_of(find, plural, pod["metadata"]["namespace"], reference["name"], optional=optional)
            if reference["key"] in data:
                return _text(data[reference["key"]])
            if optional:
                return None
            raise NotFound(f"{plural.removesuffix('s')} {reference['name']} has no key {reference['key']}")
    raise Invalid(f"env: expected fieldRef, resourceFieldRef, secretKeyRef or configMapKeyRef, got {', '.join(told)}")


def _container(pod: Object, name: str | None) -> Mapping[str, Any]:
    for container in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())):
        if container["name"] == name:
            found: Mapping[str, Any] = container
            return found
    raise Invalid(f"expected a container of the pod, got {excerpt(str(name))}")


def _chosen(data: Mapping[str, bytes], items: Sequence[Mapping[str, Any]] | None, optional: bool) -> dict[str, bytes]:
    if items is None:
        return {_plain(key): value for key, value in data.items()}
    made = {}
    for item in items:
        if item["key"] in data:
            made[_plain(item["path"])] = data[item["key"]]
        elif not optional:
            raise NotFound(f"references non-existent key {excerpt(item['key'])}")
    return made


def _plain(path: str) -> str:
    if not path or path.startswith("/") or any(step in ("", ".", "..") for step in path.split("/")):
        raise Invalid(f"expected a plain relative path, got {excerpt(path)}")
    return path


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
