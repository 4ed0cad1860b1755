"""What a container's process is given and kept from: the plan that the launcher carries out.

Pure. The plan names namespaces, identity mapping, mounts, devices, limits and the command; the launcher
(`local.node.launcher`) only does what stands here. A path that is not mounted does not exist for the container: the
state directory, the kubeconfig, the keys and the sockets of other pods never are.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid, excerpt
from wharfinger.local.node import seccomp

Isolation = Literal["namespaces", "none"]

IMAGE: Final = "wharfinger.io/host"
"""The image that every container runs in effect: this machine's own system and Python, read-only."""
SYSTEM_PATHS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32")
ETC_PATHS: Final = (
    "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime",
    "/etc/mime.types", "/etc/nsswitch.conf", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
)  # fmt: skip
SOCKET_FOLDER: Final = "/run/spiffe"
SOCKET: Final = f"{SOCKET_FOLDER}/workload.sock"
LAST_WORDS: Final = "/dev/termination-log"
IDENTITIES_PER_POD: Final = 65536
FIRST_IDENTITY: Final = 1_000_000_000
NOBODY: Final = 65534
_TAKEN: Final = ("/", "/proc", "/sys", "/dev", "/.old", "/wharf")
_LIMITS: Final = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 65536}
_MOST_PROCESSES: Final = 1024
"""Of one container: counted by the kernel for each user namespace (where a control group counts too, it is as many)."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One bind mount: a host path shown at a path of the container.

    `within` leads from `source` to what is shown, and may hold what a container wrote: it is followed step by step and
    never through a symbolic link. `late` mounts (volumes) lie over the system's and over /tmp and /dev.
    """

    source: str
    target: str
    writable: bool = False
    within: str = ""
    late: bool = False


@dataclass(frozen=True, slots=True)
class ShownDevice:
    """A device node below the container's /dev: made with these numbers, or the one at `source` on the host."""

    path: str
    major: int
    minor: int
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about one container's process.

    `base` is the first host user id of the container's range, None when the caller is not root and maps only itself;
    `user` and `group` are ids inside. `hidden` are paths of the container that are covered; `cgroups` the control files
    that its processes join; `limits` rlimits by name; `files` small files by path; `attempt` counts restarts.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    hostname: str
    isolation: Isolation
    base: int | None
    user: int
    group: int
    mounts: Sequence[Mount]
    hidden: Sequence[str]
    devices: Sequence[ShownDevice]
    files: Mapping[str, str]
    cgroups: Sequence[str]
    limits: Mapping[str, int]
    seccomp: str
    folder: str
    root: str
    attempt: int

    def document(self) -> dict[str, Json]:
        """Return the plan as the JSON that the launcher reads."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Host:
    """What of this machine matters to containers.

    `mounts` show the interpreter and this package, `search` is the PATH to the interpreter, `state` the real path of
    the state directory, which no mount may show; `reason` says why there is no isolation.
    """

    mounts: Sequence[Mount]
    search: str
    state: str
    machine: str
    is_root: bool
    isolation: Isolation
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of the pod on the host."""

    path: str
    writable: bool


def plan(
    host: Host,
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    *,
    environment: Mapping[str, str],
    volumes: Mapping[str, Volume],
    socket_folder: str,
    devices: Sequence[ShownDevice],
    base: int,
    cgroups: Sequence[str],
    folder: str,
    attempt: int,
    cargo: Sequence[Mount] = (),
) -> Plan:
    """Return the plan of one `container` of `pod`, whose own folder on the host is `folder`.

    Raises `Invalid` for what this node cannot do: no command, a mount path that is taken, an unknown volume.
    """
    command = [*(container.get("command") or ()), *(container.get("args") or ())]
    if not container.get("command"):
        raise Invalid(f"container {container['name']}: expected a command, since image {IMAGE} brings none")
    system = [Mount(path, path) for path in (*SYSTEM_PATHS, *ETC_PATHS)]
    shown = [*system, *host.mounts, Mount(socket_folder, SOCKET_FOLDER)]
    if host.isolation == "none" and container.get("volumeMounts"):
        raise Invalid(f"container {container['name']}: volumes cannot be mounted where there is no isolation")
    shown += [_mounted(container, entry, volumes) for entry in _in_order(container.get("volumeMounts") or ())]
    shown += cargo
    shown.append(Mount(f"{folder}/termination-log", LAST_WORDS, writable=True, late=True))
    user, group = _who(pod, container)
    name = str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63]
    address = environment.get("WHARF_POD_IP", "127.0.0.1")
    return Plan(
        command=command,
        environment={
            "PATH": f"{host.search}:/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8",  # noqa: S108
            "HOSTNAME": name, **environment,
        },
        directory=container.get("workingDir") or "/tmp",  # noqa: S108  the container's own, as are these
        hostname=name,
        isolation=host.isolation,
        base=base if host.is_root else None,
        user=user,
        group=group,
        mounts=shown,
        hidden=[covered for mount in shown if not mount.late and (covered := _within(host.state, mount))],
        devices=list(devices),
        files=_files(user, group, address, name),
        cgroups=list(cgroups),
        limits=_LIMITS if host.isolation == "none" else {**_LIMITS, "RLIMIT_NPROC": _MOST_PROCESSES},
        seccomp=base64.b64encode(seccomp.program(host.machine)).decode("ascii"),
        folder=folder,
        root=f"{folder}/root",
        attempt=attempt,
    )  # fmt: skip


def identity_base(taken: Sequence[int]) -> int:
    """Return the first host user id of a range that no running pod has."""
    used = set(taken)
    base = FIRST_IDENTITY
    while base in used:
        base += IDENTITIES_PER_POD
    return base


def _who(pod: Mapping[str, Any], container: Mapping[str, Any]) -> tuple[int, int]:
    """Return user and group inside the container: root there is nobody outside, so it is the default."""
    told = {**(pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
    user = told.get("runAsUser")
    if user is None:
        user = NOBODY if told.get("runAsNonRoot") else 0
    group = told.get("runAsGroup")
    if group is None:
        group = user
    for value in (user, group):
        if not 0 <= value < IDENTITIES_PER_POD:
            raise Invalid(f"container {container['name']}: expected a user and group below 65536, got {value}")
    return user, group


def _files(user: int, group: int, address: str, name: str) -> dict[str, str]:
    """Return the small files of a container's /etc: who it is, and where."""
    people = f"root:x:0:0:root:/tmp:/bin/sh\nnobody:x:{NOBODY}:{NOBODY}:nobody:/:/bin/false\n"
    groups = f"root:x:0:\nnogroup:x:{NOBODY}:\n"
    if user not in (0, NOBODY):
        people += f"user:x:{user}:{group}:user:/tmp:/bin/sh\n"
    if group not in (0, NOBODY):
        groups += f"user:x:{group}:\n"
    return {"/etc/passwd": people, "/etc/group": groups, "/etc/hosts": f"127.0.0.1 localhost\n{address} {name}\n"}


def _mounted(container: Mapping[str, Any], entry: Mapping[str, Any], volumes: Mapping[str, Volume]) -> Mount:
    target, sub = str(entry["mountPath"]), str(entry.get("subPath") or "")
    steps = target.split("/")
    if not target.startswith("/") or ".." in steps or ".." in sub.split("/") or sub.startswith("/"):
        raise Invalid(f"container {container['name']}: expected a plain absolute mount path, got {excerpt(target)}")
    plain = "/" + "/".join(step for step in steps if step not in ("", "."))
    if plain in _TAKEN or plain.startswith(("/proc/", "/sys/", "/dev/", "/.old/", "/wharf/")):
        raise Invalid(f"container {container['name']}: mount path {plain} is the system's")
    volume = volumes.get(entry["name"])
    if volume is None:
        raise Invalid(f"container {container['name']}: expected a volume of the pod, got {excerpt(entry['name'])}")
    return Mount(volume.path, plain, volume.writable and not entry.get("readOnly"), sub, late=True)


def _in_order(mounts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return mounts with outer ones before inner ones."""
    return sorted(mounts, key=lambda entry: str(entry["mountPath"]).count("/"))


def _within(path: str, mount: Mount) -> str:
    """Return where `mount` would show the host's `path`, empty when it does not."""
    if path == mount.source or path.startswith(f"{mount.source.rstrip('/')}/"):
        return mount.target.rstrip("/") + path[len(mount.source.rstrip("/")) :]
    return ""
