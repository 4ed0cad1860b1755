"""A pod's volumes and environment on the host: folders, files of Secrets and ConfigMaps, values of references."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wharfinger.core.errors import HostUnfit, Invalid, NotFound, Unavailable

Object = Mapping[str, Any]
Find = Callable[[str, str, str], Object | None]
"""`(plural, namespace, name)` to the object, None when it is not there."""


def prepare(pod: Object, folder: Path, owner: int | None, find: Find) -> dict[str, tuple[str, bool]]:
    """Make the pod's volumes below `folder`; return name to host path and whether writing is allowed.

    `owner` is the host user that the container's root is, None when it is the caller. Raises `NotFound` when a Secret
    or ConfigMap is not there, `Invalid` for a kind of volume that this node has not, `HostUnfit`.
    """
    made: dict[str, tuple[str, bool]] = {}
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or ():
        name = volume["name"]
        path = folder / name
        try:
            if "hostPath" in volume:
                made[name] = (volume["hostPath"]["path"], True)
                continue
            path.mkdir(parents=True, exist_ok=True)
            if "emptyDir" in volume:
                made[name] = (str(path), True)
            elif "secret" in volume:
                told = volume["secret"]
                _files(path, _data(find, "secrets", namespace, told["secretName"], told.get("optional", False)))
                made[name] = (str(path), False)
            elif "configMap" in volume:
                told = volume["configMap"]
                _files(path, _data(find, "configmaps", namespace, told["name"], told.get("optional", False)))
                made[name] = (str(path), False)
            else:
                kinds = sorted(set(volume) - {"name"})
                raise Invalid(
                    f"volume {name}: expected emptyDir, secret, configMap or hostPath, got {', '.join(kinds)}"
                )
            if owner is not None:
                _give(path, owner)
        except OSError as error:
            raise HostUnfit(f"volume {name}: {error.strerror}") from error
    return made


def environment(pod: Object, container: Mapping[str, Any], ip: str, find: Find) -> dict[str, str]:
    """Return the container's environment, references resolved.

    Raises `NotFound` when what is referred to is not there, `Invalid` for a reference that this node has not.
    """
    namespace = pod["metadata"]["namespace"]
    made: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        for plural, key in (("secrets", "secretRef"), ("configmaps", "configMapRef")):
            if key in source:
                data = _data(find, plural, namespace, source[key]["name"], source[key].get("optional", False))
                made |= {
                    source.get("prefix", "") + name: value.decode("utf-8", "replace") for name, value in data.items()
                }
    for entry in container.get("env") or ():
        told = entry.get("valueFrom")
        made[entry["name"]] = _value(pod, told, ip, find) if told else entry.get("value", "")
    return made


def _value(pod: Object, told: Mapping[str, Any], ip: str, find: Find) -> str:
    meta = pod["metadata"]
    if "fieldRef" in told:
        known = {
            "metadata.name": meta["name"], "metadata.namespace": meta["namespace"], "metadata.uid": meta["uid"],
            "spec.nodeName": pod["spec"].get("nodeName", ""), "status.podIP": ip, "status.hostIP": "127.0.0.1",
            "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        }  # fmt: skip
        path = told["fieldRef"]["fieldPath"]
        if path not in known:
            raise Invalid(f"env: expected one of {', '.join(known)}, got {path}")
        return str(known[path])
    for plural, key in (("secrets", "secretKeyRef"), ("configmaps", "configMapKeyRef")):
        if key in told:
            reference = told[key]
            data = _data(find, plural, meta["namespace"], reference["name"], reference.get("optional", False))
            if reference["key"] not in data and not reference.get("optional"):
                raise NotFound(f"{plural} {reference['name']} has no key {reference['key']}")
            return data.get(reference["key"], b"").decode("utf-8", "replace")
    raise Invalid(f"env: expected fieldRef, secretKeyRef or configMapKeyRef, got {', '.join(told)}")


def _data(find: Find, plural: str, namespace: str, name: str, optional: bool) -> dict[str, bytes]:
    found = find(plural, namespace, name)
    if found is None:
        if optional:
            return {}
        raise NotFound(f"there is no {plural.removesuffix('s')} {namespace}/{name}")
    made = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
    for key, value in (found.get("data") or {}).items():
        made[key] = base64.b64decode(value) if plural == "secrets" else str(value).encode()
    return made


def _files(path: Path, data: Mapping[str, bytes]) -> None:
    for name, value in data.items():
        if "/" in name or name in (".", ".."):
            raise Invalid(f"key {name} cannot be a file name")
        target = path / name
        target.write_bytes(value)
        target.chmod(0o440)


def _give(path: Path, owner: int) -> None:
    os.chown(path, owner, owner)
    for child in path.rglob("*"):
        os.chown(child, owner, owner, follow_symlinks=False)


def remove(folder: Path) -> None:
    """Remove a pod's folder; what cannot be removed now is removed when the node starts again."""
    shutil.rmtree(folder, ignore_errors=True)


def free_space(folder: Path, least: int = 64 * 1024 * 1024) -> None:
    """Raise `Unavailable` when the disk of `folder` has fewer than `least` bytes left."""
    usage = os.statvfs(folder)
    left = usage.f_bavail * usage.f_frsize
    if left < least:
        raise Unavailable(f"no disk space for pods: {left} bytes left", hint="free some space")
