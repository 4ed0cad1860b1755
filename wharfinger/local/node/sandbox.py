"""What a container's process is given and kept from: the plan that the launcher carries out.

Pure. The plan names namespaces, identity mapping, mounts, limits and the command; the launcher
(`local.node.launcher`) only does what stands here. A path that is not mounted does not exist for the container: the
state directory, the kubeconfig, the keys and the sockets of other pods never are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from wharfinger.core.document import Json

SYSTEM_PATHS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32")
ETC_FILES: Final = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ssl/certs", "/etc/localtime",
    "/etc/nsswitch.conf", "/etc/mime.types",
)  # fmt: skip
PLAIN_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
SOCKET_FOLDER: Final = "/run/spiffe"
SOCKET: Final = f"{SOCKET_FOLDER}/agent.sock"
IDENTITIES_PER_POD: Final = 65536
FIRST_IDENTITY: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Mount:
    """One bind mount: a host path shown at a path of the container."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about one container's process.

    `isolation` is `namespaces` or `none`; `base` the first host user id of the container's range, None when the
    caller is not root and maps itself; `cgroups` the control files that list its processes; `limits` soft and hard
    rlimits by name.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    hostname: str
    isolation: str
    base: int | None
    mounts: Sequence[Mount]
    devices: Sequence[str]
    cgroups: Sequence[str]
    log: str
    root: str
    limits: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Json]:
        """Return the plan as the JSON that the launcher reads."""
        told: dict[str, Any] = asdict(self)
        told["command"], told["environment"] = list(self.command), dict(self.environment)
        return told


@dataclass(frozen=True, slots=True)
class Host:
    """What of the machine every container sees: the interpreter's folders and the package's own, read-only."""

    interpreter: Sequence[str]
    search: str
    isolation: str
    is_root: bool


def plan(
    host: Host,
    *,
    name: str,
    container: Mapping[str, Any],
    environment: Mapping[str, str],
    volumes: Mapping[str, tuple[str, bool]],
    socket_folder: str,
    device_paths: Sequence[str],
    base: int,
    cgroups: Sequence[str],
    folder: str,
) -> Plan:
    """Return the plan of one `container` of the pod `name`.

    `volumes` maps volume names to host path and whether writing is allowed at all; `device_paths` are host device nodes
    shown at the same name below /dev; `folder` is the container's own on the host.
    """
    mounts = [Mount(path, path) for path in dict.fromkeys((*SYSTEM_PATHS, *ETC_FILES, *host.interpreter))]
    mounts.append(Mount(socket_folder, SOCKET_FOLDER))
    for mount in container.get("volumeMounts") or ():
        source, writable = volumes[mount["name"]]
        sub = mount.get("subPath")
        mounts.append(
            Mount(f"{source}/{sub}" if sub else source, mount["mountPath"], writable and not mount.get("readOnly"))
        )
    search = f"{host.search}:/usr/local/bin:/usr/bin:/bin"
    return Plan(
        command=[*(container.get("command") or ()), *(container.get("args") or ())],
        environment={"PATH": search, "HOME": "/tmp", "LANG": "C.UTF-8", **environment},  # noqa: S108  the container's own
        directory=container.get("workingDir") or "/tmp",  # noqa: S108
        hostname=name[:63],
        isolation=host.isolation,
        base=base if host.is_root else None,
        mounts=mounts,
        devices=list(device_paths),
        cgroups=list(cgroups),
        log=f"{folder}/log",
        root=f"{folder}/root",
        limits={"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 4096},
    )


def identity_base(taken: Sequence[int]) -> int:
    """Return the first host user id of a range that no running pod has."""
    used = set(taken)
    base = FIRST_IDENTITY
    while base in used:
        base += IDENTITIES_PER_POD
    return base
