"""A pod's volumes on the host: folders of its own, files of Secrets and ConfigMaps, and the platform's host paths."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from wharfinger.core.errors import HostUnfit, Unavailable
from wharfinger.local.node.environment import Find, files_of
from wharfinger.local.node.sandbox import Volume

Object = Mapping[str, Any]
LEAST_FREE: Final = 64 * 1024 * 1024
"""Bytes that must be left on the disk before a pod is prepared."""


def prepare(pod: Object, folder: Path, owner: int | None, ip: str, find: Find) -> dict[str, Volume]:
    """Make the pod's volumes below `folder`; return them by name.

    `owner` is the host user that the container's root is, None when it is the caller. Host paths are taken as they
    stand: admission lets nobody but the control plane name one. Raises `NotFound` when a Secret or ConfigMap is not
    there, `Invalid` for a kind of volume that this node has not, `HostUnfit`.
    """
    made: dict[str, Volume] = {}
    for volume in pod["spec"].get("volumes") or ():
        name = volume["name"]
        if volume.get("hostPath"):
            made[name] = Volume(str(volume["hostPath"]["path"]), True)
            continue
        path = folder / name
        writable = volume.get("emptyDir") is not None
        files = {} if writable else files_of(pod, volume, ip, find)
        try:
            path.mkdir(parents=True, exist_ok=True)
            for relative, data in files.items():
                target = path / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                target.chmod(0o644)
            if writable:
                path.chmod(0o777)
                if owner is not None:
                    os.chown(path, owner, owner)
        except OSError as error:
            raise HostUnfit(f"volume {name}: {error.strerror}") from error
        made[name] = Volume(str(path), writable)
    return made


def remove(folder: Path) -> None:
    """Remove a pod's folder; what cannot be removed now is removed when the node starts again."""
    shutil.rmtree(folder, ignore_errors=True)


def check_space(folder: Path, least: int = LEAST_FREE) -> None:
    """Raise `Unavailable` when the disk of `folder` has fewer than `least` bytes left."""
    usage = os.statvfs(folder)
    left = usage.f_bavail * usage.f_frsize
    if left < least:
        raise Unavailable(f"no disk space for pods: {left} bytes left", hint="free some space")
