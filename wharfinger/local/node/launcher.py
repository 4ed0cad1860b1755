"""Starts one container's process as its plan says, and ends it when the node goes.

A program of its own, single-threaded, standard library only: `python -I launcher.py PLAN_FD NODE_FD`. It makes the
namespaces, builds the container's root from bind mounts, drops every capability, and runs the command below a tiny
init that is process 1 of its own pid namespace. `NODE_FD` is the read end of a pipe whose other end only the node
holds: when the node dies in any way, it reads the end and kills the namespace, so no process outlives its node.

Exit status: the command's own, 128 plus the signal that ended it, 125 when the sandbox could not be built, 127 when
the command is not there.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import stat
import sys
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 1, 38, 24
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
LAST_CAPABILITY = 63
BROKEN, NOT_FOUND = 125, 127

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Read the plan, build the sandbox, run the command, exit as it exits."""
    plan_fd, node_fd = int(sys.argv[1]), int(sys.argv[2])
    with os.fdopen(plan_fd, "rb") as source:
        plan = json.load(source)
    for path in plan["cgroups"]:
        with open(path, "w") as control:
            control.write("0")
    log = os.open(plan["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    child = start(plan, node_fd) if plan["isolation"] == "namespaces" else start_plain(plan, node_fd)
    sys.exit(wait(child, node_fd))


def wait(child: int, node_fd: int) -> int:
    """Return the exit status of `child`; kill it, and all it started, when the node's end of the pipe closes."""
    pidfd = os.pidfd_open(child)
    stopping = False

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    while True:
        watched = [pidfd] if stopping else [pidfd, node_fd]
        try:
            ready, _, _ = select.select(watched, [], [])
        except InterruptedError:
            continue
        if pidfd in ready:
            _, status = os.waitpid(child, 0)
            return status_of(status)
        if not os.read(node_fd, 1):
            stopping = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def status_of(status: int) -> int:
    """Return a wait status as a shell tells it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def start(plan: dict[str, Any], node_fd: int) -> int:
    """Fork into new namespaces; return the pid of the process that waits for the container's process 1.

    As root the mounts are made first and the user namespace is entered last, so that the container has no power over
    its own mounts; an ordinary user needs the user namespace to be allowed to mount at all.
    """
    builder = os.fork()
    if builder != 0:
        return builder
    with failing("namespaces"):
        as_root = plan["base"] is not None
        if not as_root:
            user, group = os.getuid(), os.getgid()
            call(_libc.unshare(CLONE_NEWUSER), "unshare user namespace")
            map_self(user, group)
        call(_libc.unshare(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")
        to_first, from_builder = os.pipe()
        from_first, to_builder = os.pipe()
        first = os.fork()
        if first == 0:
            os.close(from_builder)
            os.close(from_first)
            be_first(plan, node_fd, to_first, to_builder)
        os.close(to_first)
        os.close(to_builder)
        die_with_parent()
        if as_root and os.read(from_first, 1) == b"1":
            map_range(first, plan["base"])
            os.write(from_builder, b"1")
        os.close(from_builder)
        _, status = os.waitpid(first, 0)
        os._exit(status_of(status))


def map_range(pid: int, base: int) -> None:
    """Map the users of a namespace to a range of nobody's (user_namespaces(7)); needs root."""
    write_file(f"/proc/{pid}/uid_map", f"0 {base} 65536")
    write_file(f"/proc/{pid}/gid_map", f"0 {base} 65536")


def map_self(user: int, group: int) -> None:
    """Map root of this process's new namespace to the caller alone (user_namespaces(7))."""
    write_file("/proc/self/setgroups", "deny")
    write_file("/proc/self/uid_map", f"0 {user} 1")
    write_file("/proc/self/gid_map", f"0 {group} 1")


def be_first(plan: dict[str, Any], node_fd: int, from_builder: int, to_builder: int) -> None:
    """Be process 1 of the namespace: build the root, give up every power, run the command, reap, exit as it does."""
    with failing("sandbox"):
        os.close(node_fd)
        call(_libc.unshare(CLONE_NEWNS), "unshare mounts")
        build_root(plan)
        if plan["base"] is not None:
            call(_libc.unshare(CLONE_NEWUSER), "unshare user namespace")
            os.write(to_builder, b"1")
            if os.read(from_builder, 1) != b"1":
                raise OSError("the identities were not mapped")
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        os.close(from_builder)
        os.close(to_builder)
        die_with_parent()
        give_up_powers(plan)
        command = os.fork()
        if command == 0:
            run_command(plan)
        reap(command)


def build_root(plan: dict[str, Any]) -> None:
    """Mount the container's own root and enter it; nothing of the host's tree remains reachable."""
    root = plan["root"]
    libc_mount(None, "/", None, MS_REC | MS_PRIVATE)
    libc_mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")
    for mount in plan["mounts"]:
        bind(mount["source"], root + mount["target"], writable=mount["writable"])
    for name in ("tmp", "dev", "proc"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    libc_mount("tmpfs", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=1g")
    libc_mount("tmpfs", f"{root}/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=1m")
    for path in ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", *plan["devices"]):
        bind(path, f"{root}/dev/{os.path.basename(path)}", writable=True)
    os.makedirs(f"{root}/dev/shm", exist_ok=True)
    libc_mount("tmpfs", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m")
    libc_mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.makedirs(f"{root}/etc", exist_ok=True)
    write_file(f"{root}/etc/passwd", "root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    write_file(f"{root}/etc/group", "root:x:0:\nnogroup:x:65534:\n")
    address = plan["environment"].get("WHARF_POD_IP", "127.0.0.1")
    write_file(f"{root}/etc/hosts", f"127.0.0.1 localhost\n{address} {plan['hostname']}\n")
    call(_libc.sethostname(plan["hostname"].encode(), len(plan["hostname"].encode())), "sethostname")
    os.makedirs(f"{root}/.old", exist_ok=True)
    number = SYS_PIVOT_ROOT[os.uname().machine]
    call(_libc.syscall(number, root.encode(), f"{root}/.old".encode()), "pivot_root")
    os.chdir("/")
    call(_libc.umount2(b"/.old", MNT_DETACH), "umount")
    os.rmdir("/.old")
    libc_mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def bind(source: str, target: str, *, writable: bool) -> None:
    """Show `source` at `target`; a source that is not there is left out, a symbolic link is copied as one."""
    try:
        kind = os.lstat(source)
    except FileNotFoundError:
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISLNK(kind.st_mode):
        if not os.path.lexists(target):
            os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(kind.st_mode):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        with open(target, "w"):
            pass
    libc_mount(source, target, None, MS_BIND | MS_REC)
    if not writable:
        # What the source's mount forbids stays forbidden: a remount in a user namespace may only add to it.
        flags = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        libc_mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | flags)


def give_up_powers(plan: dict[str, Any]) -> None:
    """Drop every capability for good, forbid gaining any, set the limits."""
    for name, value in plan["limits"].items():
        limit = getattr(resource, name)
        _, hard = resource.getrlimit(limit)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))
    for capability in range(LAST_CAPABILITY + 1):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    call(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)(0, 0, 0, 0, 0, 0)
    call(_libc.capset(header, nothing), "capset")


def run_command(plan: dict[str, Any]) -> None:
    """Become the command."""
    try:
        os.setsid()
        os.closerange(3, 256)
        os.chdir(plan["directory"])
        environment = dict(plan["environment"])
        os.environ["PATH"] = environment["PATH"]
        os.execvpe(plan["command"][0], plan["command"], environment)
    except FileNotFoundError:
        print(f"error: {plan['command'][0]}: no such command or directory", file=sys.stderr, flush=True)
        os._exit(NOT_FOUND)
    except OSError as error:
        print(f"error: {plan['command'][0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(126)


def reap(command: int) -> None:
    """Wait for everything that ends here; exit with the command's status when it does. Signals go to the command."""

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(command, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == command:
            os._exit(status_of(status))


def start_plain(plan: dict[str, Any], node_fd: int) -> int:
    """Fork the command without isolation, on a host that has none; return its pid."""
    child = os.fork()
    if child == 0:
        with failing("process"):
            os.close(node_fd)
            die_with_parent()
            call(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
            run_command(plan)
    return child


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent goes."""
    call(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")


def libc_mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount (mount(2))."""
    arguments = [text.encode() if text is not None else None for text in (source, target, kind)]
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() if data is not None else None)
    call(result, f"mount {target}")


def call(result: int, what: str) -> None:
    """Raise `OSError` when a libc call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def write_file(path: str, text: str) -> None:
    """Write a small file."""
    with open(path, "w") as target:
        target.write(text)


@contextlib.contextmanager
def failing(what: str) -> Any:
    """End this process with 125 and one line when something inside fails: it must never go on half built."""
    try:
        yield
    except BaseException as error:
        print(f"error: {what}: {error}", file=sys.stderr, flush=True)
        os._exit(BROKEN)


if __name__ == "__main__":
    main()
