"""Starts one container's processes as its plan says, keeps their log, and records how they ended.

A program of its own, single-threaded, standard library only: `python -I -S launcher.py run PLAN NODE GUARDIAN`, all
three descriptors. It makes the namespaces, builds the container's root from bind mounts, drops every power, and runs
the command below a tiny init that is process 1 of its own pid namespace. It stays as the container's keeper, apart from
the node, so that a node that is started again finds its containers as they were:

* `NODE` is a socket to the node. The launcher tells it the container's first process (one line of JSON) and the command
  starts only when the node answers, by when the node has made the process known to the issuer.
* `GUARDIAN` is a pidfd of the process without which nothing may run: the platform's supervisor. When it goes, the
  container is killed.
* `state.json` and `exit.json` in the container's folder say what runs and how it ended; `lock` is held for as long as
  any process of the container lives, so that there are never two copies.

`python -I -S launcher.py enter PLAN` runs one command inside a running container (exec probes).

Exit status: the command's own, 128 plus the signal that ended it, 125 when the sandbox could not be built, 126 when the
command may not be executed, 127 when it is not there.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH, AT_EMPTY_PATH, AT_RECURSIVE = 2, 0x1000, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_MOUNT_SETATTR = 442
LAST_CAPABILITY = 63
BROKEN, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
KILL_NOW = signal.SIGQUIT
"""What the node sends to have the container killed; anything gentler is passed on to the command."""
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LOG_BYTES, LOG_FILES, LINE_BYTES = 8 * 1024 * 1024, 2, 16 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Do what the arguments say."""
    os.umask(0o022)
    with os.fdopen(int(sys.argv[2]), "rb") as source:
        plan = json.load(source)
    if sys.argv[1] == "enter":
        enter(plan)
    sys.exit(run(plan, int(sys.argv[3]), int(sys.argv[4])))


def run(plan: dict[str, Any], node: int, guardian: int) -> int:
    """Run the container of `plan` to its end; return its exit status."""
    log = Log(f"{plan['folder']}/{plan['attempt']}.log")
    with failing("sandbox", log):
        lock = os.open(f"{plan['folder']}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if plan["isolation"] == "none":
            call(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
        elif plan["base"] is None:
            user, group = os.getuid(), os.getgid()
            call(_libc.unshare(CLONE_NEWUSER), "unshare user namespace")
            map_self(plan["user"], user, plan["group"], group)
            call(_libc.unshare(CLONE_NEWPID), "unshare pid namespace")
        else:
            call(_libc.unshare(CLONE_NEWPID), "unshare pid namespace")
        output, to_log = os.pipe()
        from_child, to_parent = os.pipe()
        from_parent, to_child = os.pipe()
        child = os.fork()
    if child == 0:
        log.close()
        for descriptor in (node, guardian, output, from_child, to_child):
            os.close(descriptor)
        be_first(plan, to_log, from_parent, to_parent)
    for descriptor in (to_log, to_parent, from_parent):
        os.close(descriptor)
    keeper = Keeper(plan, child, node, guardian, log)
    return keeper.keep(output, from_child, to_child)


class Keeper:
    """The launcher's own loop: the container's log, its start and its end."""

    def __init__(self, plan: dict[str, Any], child: int, node: int, guardian: int, log: Log) -> None:
        self._plan = plan
        self._child = child
        self._pidfd = os.pidfd_open(child)
        self._node = node
        self._guardian = guardian
        self._log = log
        self._started = time.time_ns()
        self._orphaned = self._begun = False
        for number in PASSED_ON:
            signal.signal(number, lambda sent, _: self._send(sent))
        signal.signal(KILL_NOW, lambda *_: self.kill())

    def keep(self, output: int, from_child: int, to_child: int) -> int:
        """Serve descriptors until the container has ended and its log is whole; return its exit status."""
        watched = {output, from_child, self._node, self._guardian, self._pidfd}
        while self._pidfd in watched or output in watched:
            ready, _, _ = select.select(watched, [], [])
            if output in ready and not self._log.take(output):
                watched.discard(output)
            if from_child in ready:
                told = os.read(from_child, 1)
                if told == b"u":
                    map_range(self._child, self._plan["base"])
                    os.write(to_child, b"m")
                else:
                    watched.discard(from_child)
                    if told == b"r":
                        self._tell_node()
            if self._node in ready:
                watched.discard(self._node)
                self._answered(os.read(self._node, 16), to_child)
            if self._guardian in ready:
                watched.discard(self._guardian)
                self._orphaned = True
                self.kill()
            if self._pidfd in ready and self._pidfd in watched:
                watched.discard(self._pidfd)
                status = self._reap()
        self._log.close()
        note = {
            "attempt": self._plan["attempt"], "code": status, "finished": time.time_ns(),
            "begun": self._begun, "orphaned": self._orphaned,
        }  # fmt: skip
        replace_file(f"{self._plan['folder']}/exit.json", json.dumps(note))
        return status

    def kill(self) -> None:
        """End the container and everything in it."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _tell_node(self) -> None:
        """Record the container and tell the node of it. Nobody there to hear it means that it must not start."""
        with open(f"/proc/{os.getpid()}/stat") as told:
            ticks = int(told.read().rpartition(")")[2].split()[19])
        with open("/proc/sys/kernel/random/boot_id") as told:
            boot = told.read().strip()
        state = {
            "attempt": self._plan["attempt"], "pid": os.getpid(), "ticks": ticks, "boot": boot, "first": self._child,
            "pidns": os.stat(f"/proc/{self._child}/ns/pid").st_ino, "started": self._started,
        }  # fmt: skip
        replace_file(f"{self._plan['folder']}/state.json", json.dumps(state))
        try:
            os.write(self._node, json.dumps(state).encode() + b"\n")
        except OSError:
            self.kill()

    def _answered(self, answer: bytes, to_child: int) -> None:
        if answer != b"go":
            self.kill()
            return
        self._begun = True
        with contextlib.suppress(BrokenPipeError):
            os.write(to_child, b"g")
        os.close(to_child)

    def _reap(self) -> int:
        """Return how the child ended; without namespaces, end what it left behind too."""
        _, status = os.waitpid(self._child, 0)
        while self._plan["isolation"] == "none":
            with open(f"/proc/self/task/{os.getpid()}/children") as told:
                left = told.read().split()
            if not left:
                break
            for pid in map(int, left):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        return status_of(status)


class Log:
    """The container's log in the form of the Container Runtime Interface: `TIME stdout F|P LINE`, bounded in size."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "ab")  # noqa: SIM115  held for the container's life
        self._size = self._file.tell()
        self._rest = b""

    def take(self, source: int) -> bool:
        """Take what there is to read from `source`; return False at its end."""
        data = os.read(source, 65536)
        if not data:
            if self._rest:
                self._write([self._rest], b"P")
            return False
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        self._write(lines, b"F")
        while len(self._rest) >= LINE_BYTES:
            self._write([self._rest[:LINE_BYTES]], b"P")
            self._rest = self._rest[LINE_BYTES:]
        return True

    def say(self, text: str) -> None:
        """Add a line of the launcher's own."""
        self._write([text.encode()], b"F")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, lines: list[bytes], tag: bytes) -> None:
        now = time.time_ns()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)).encode() + b".%09dZ" % (now % 10**9)
        whole = []
        for line in lines:
            while len(line) > LINE_BYTES:
                whole.append(moment + b" stdout P " + line[:LINE_BYTES] + b"\n")
                line = line[LINE_BYTES:]
            whole.append(moment + b" stdout " + tag + b" " + line + b"\n")
        data = b"".join(whole)
        with contextlib.suppress(OSError):  # a full disk costs lines, not the container
            if self._size + len(data) > LOG_BYTES and self._size:
                self._rotate()
            self._file.write(data)
            self._file.flush()
            self._size += len(data)

    def _rotate(self) -> None:
        for number in range(LOG_FILES - 1, 0, -1):
            older = f"{self._path}.{number - 1}" if number > 1 else self._path
            with contextlib.suppress(FileNotFoundError):
                os.replace(older, f"{self._path}.{number}")
        self._file.close()
        self._file = open(self._path, "ab")  # noqa: SIM115
        self._size = 0


def be_first(plan: dict[str, Any], to_log: int, from_parent: int, to_parent: int) -> None:
    """Be the container's first process: build its root, give up every power, run the command, reap, exit as it does.

    As root the mounts are made first and the user namespace is entered last, so that the container has no power over
    its own mounts; an ordinary user is in the user namespace already, which is what lets it mount at all.
    """
    os.setsid()
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(to_log, 1)
    os.dup2(to_log, 2)
    os.close(null)
    os.close(to_log)
    with failing("sandbox"):
        controls = [os.open(path, os.O_WRONLY) for path in plan["cgroups"]]
        isolated = plan["isolation"] == "namespaces"
        if isolated:
            call(_libc.unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS), "unshare")
            build_root(plan)
        for control in controls:
            os.write(control, b"0")
            os.close(control)
        if isolated and plan["base"] is not None:
            call(_libc.unshare(CLONE_NEWUSER), "unshare user namespace")
            os.write(to_parent, b"u")
            if os.read(from_parent, 1) != b"m":
                raise OSError("the identities were not mapped")
            become(plan["user"], plan["group"])
        # Armed before the node is told: from here on the launcher's death is this process's.
        call(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
        # Held back until there is somebody to get them: the kernel drops what process 1 has no handler for.
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        os.write(to_parent, b"r")
        os.close(to_parent)
        if os.read(from_parent, 1) != b"g":
            os._exit(BROKEN)
        os.close(from_parent)
        give_up_powers(plan)
        if not isolated:
            execute(plan)
        command = os.fork()
        if command == 0:
            execute(plan)
        reap(command)


def become(user: int, group: int) -> None:
    """Take on an identity of this user namespace."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def map_range(pid: int, base: int) -> None:
    """Map the users of a namespace to a range of nobody's (user_namespaces(7)); needs root."""
    write_file(f"/proc/{pid}/uid_map", f"0 {base} 65536")
    write_file(f"/proc/{pid}/gid_map", f"0 {base} 65536")


def map_self(user: int, outer_user: int, group: int, outer_group: int) -> None:
    """Map one identity of this process's new namespace to the caller (user_namespaces(7))."""
    write_file("/proc/self/setgroups", "deny")
    write_file("/proc/self/uid_map", f"{user} {outer_user} 1")
    write_file("/proc/self/gid_map", f"{group} {outer_group} 1")


def build_root(plan: dict[str, Any]) -> None:
    """Mount the container's own root and enter it; nothing of the host's tree remains reachable."""
    root = plan["root"]
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=4m")
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    for name in ("tmp", "dev", "proc", "etc", ".old"):
        os.mkdir(name, 0o755, dir_fd=top)
    mount("tmpfs", f"{root}/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=1g")
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    shown = [entry for entry in plan["mounts"] if os.path.lexists(entry["source"])]
    for entry in shown:
        if not entry["late"]:
            show(top, entry)
    for path in plan["hidden"]:
        with contextlib.suppress(FileNotFoundError), descended(top, path, make=None) as place:
            mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV | MS_RDONLY, "mode=0000,size=4k")
    build_devices(root, plan["devices"])
    for name, text in plan["files"].items():
        write_file(f"{root}{name}", text)
    before = os.umask(0)
    for entry in shown:
        if entry["late"]:
            show(top, entry)
    os.umask(before)
    name = plan["hostname"].encode()
    call(_libc.sethostname(name, len(name)), "sethostname")
    call(_libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], root.encode(), f"{root}/.old".encode()), "pivot_root")
    os.close(top)
    os.chdir("/")
    call(_libc.umount2(b"/.old", MNT_DETACH), "umount")
    os.rmdir("/.old")
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def build_devices(root: str, devices: list[dict[str, Any]]) -> None:
    """Make /dev: the plain devices of the host, and those of the plan.

    Root makes the nodes themselves, which the control group opens and closes; others show the host's.
    """
    mount("tmpfs", f"{root}/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=1m")
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    for name in ("null", "zero", "full", "random", "urandom"):
        with descended(top, f"/dev/{name}", make="file") as place:
            mount(f"/dev/{name}", place, None, MS_BIND)
    for device in devices:
        os.makedirs(os.path.dirname(root + device["path"]), exist_ok=True)
        if device["source"] is None:
            os.mknod(root + device["path"], stat.S_IFCHR | 0o666, os.makedev(device["major"], device["minor"]))
            os.chmod(root + device["path"], 0o666)  # noqa: S103  the control group opens and closes it
        elif os.path.exists(device["source"]):
            with descended(top, device["path"], make="file") as place:
                mount(device["source"], place, None, MS_BIND)
    os.mkdir(f"{root}/dev/shm", 0o755)
    mount("tmpfs", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m")
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"{root}/dev/{name}")
    os.close(top)


def show(top: int, entry: dict[str, Any]) -> None:
    """Bind one mount of the plan below the root `top`. A symbolic link of the host's system is copied as one."""
    source, target = entry["source"], entry["target"]
    if not entry["late"] and stat.S_ISLNK(os.lstat(source).st_mode):
        with descended(top, os.path.dirname(target), make="folder") as folder, contextlib.suppress(FileExistsError):
            os.symlink(os.readlink(source), f"{folder}/{os.path.basename(target)}")
        return
    start = os.open(source, os.O_PATH)
    try:
        with descended(start, entry["within"], make="folder") as origin:
            kind = "folder" if stat.S_ISDIR(os.stat(origin).st_mode) else "file"
            with descended(top, target, make=kind) as place:
                mount(origin, place, None, MS_BIND | MS_REC)
    finally:
        os.close(start)
    with descended(top, target, make=None) as place:
        forbid = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (0 if entry["writable"] else MOUNT_ATTR_RDONLY)
        set_attributes(place, forbid)


@contextlib.contextmanager
def descended(top: int, path: str, *, make: str | None) -> Iterator[str]:
    """Give the place of `path` below the folder `top` as a path that cannot lead elsewhere.

    Each step is opened by itself and none may be a symbolic link: what a container wrote into its volumes cannot send a
    mount to another place of the host. Missing steps are made when `make` says `folder` or `file` (the last one).
    """
    here = os.dup(top)
    try:
        steps = [step for step in path.split("/") if step not in ("", ".")]
        for number, step in enumerate(steps):
            if step == "..":
                raise OSError(f"{path}: expected no step up")
            last_file = make == "file" and number == len(steps) - 1
            if make is not None:
                with contextlib.suppress(FileExistsError):
                    if last_file:
                        os.close(os.open(step, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=here))
                    else:
                        os.mkdir(step, 0o777, dir_fd=here)
            there = os.open(step, os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = there
            if stat.S_ISLNK(os.fstat(here).st_mode):
                raise OSError(f"{path}: expected no symbolic link at {step}")
        yield f"/proc/self/fd/{here}"
    finally:
        os.close(here)


def set_attributes(place: str, forbid: int) -> None:
    """Forbid writing, set-user-ID and devices on a mount and all mounts below it (mount_setattr(2))."""
    attributes = (ctypes.c_uint64 * 4)(forbid, 0, 0, 0)
    with contextlib.closing(_Descriptor(place)) as mounted:
        result = _libc.syscall(
            SYS_MOUNT_SETATTR, mounted.number, b"", AT_EMPTY_PATH | AT_RECURSIVE, attributes, ctypes.sizeof(attributes)
        )
    call(result, "mount_setattr")


class _Descriptor:
    """An open folder or file, by number."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_PATH)

    def close(self) -> None:
        os.close(self.number)


def give_up_powers(plan: dict[str, Any]) -> None:
    """Drop every capability for good, forbid gaining any, set the limits, refuse dangerous system calls."""
    for name, value in plan["limits"].items():
        limit = getattr(resource, name)
        _, hard = resource.getrlimit(limit)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))
    call(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if plan["isolation"] == "namespaces":
        for capability in range(LAST_CAPABILITY + 1):
            if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                break
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        nothing = (ctypes.c_uint32 * 6)(0, 0, 0, 0, 0, 0)
        call(_libc.capset(header, nothing), "capset")
    program = base64.b64decode(plan["seccomp"])
    if program:
        buffer = ctypes.create_string_buffer(program, len(program))
        filter_program = _Program(len(program) // 8, ctypes.addressof(buffer))
        call(_libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(filter_program), 0, 0), "seccomp")


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def execute(plan: dict[str, Any]) -> None:
    """Become the command."""
    name = plan["command"][0]
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        os.closerange(3, 4096)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        os.chdir(plan["directory"])
        os.environ["PATH"] = plan["environment"].get("PATH", "/usr/bin:/bin")
        os.execvpe(name, plan["command"], plan["environment"])
    except FileNotFoundError as error:
        what = plan["directory"] if error.filename == plan["directory"] else name
        print(f"error: {what}: no such command or directory", file=sys.stderr, flush=True)
        os._exit(NOT_FOUND)
    except OSError as error:
        print(f"error: {name}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(NOT_EXECUTABLE)


def reap(command: int) -> None:
    """Wait for everything that ends here; exit with the command's status when it does. Signals go to the command."""

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(command, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    # The log ends when the command and all that it started have: this process must not hold it open.
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == command:
            os._exit(status_of(status))


def enter(plan: dict[str, Any]) -> None:
    """Run a command in the namespaces of the container whose first process is `plan["first"]`, with its powers."""
    with failing("enter"):
        for path in plan["cgroups"]:
            write_file(path, "0")
        if plan["isolation"] == "namespaces":
            first = os.pidfd_open(plan["first"])
            kinds = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
            call(_libc.setns(first, kinds), "setns")
            os.close(first)
            if plan["base"] is not None:
                become(plan["user"], plan["group"])
        parent = os.getpid()
        call(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
        command = os.fork()
        if command == 0:
            call(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
            if plan["isolation"] != "namespaces" and os.getppid() != parent:
                os._exit(BROKEN)
            give_up_powers(plan)
            execute(plan)
        _, status = os.waitpid(command, 0)
        os._exit(status_of(status))


def status_of(status: int) -> int:
    """Return a wait status as a shell tells it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount (mount(2))."""
    arguments = [text.encode() if text is not None else None for text in (source, target, kind)]
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() if data is not None else None)
    call(result, f"mount {source or ''} {target}")


def call(result: int, what: str) -> None:
    """Raise `OSError` when a libc call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def write_file(path: str, text: str) -> None:
    """Write a small file."""
    with open(path, "w") as target:
        target.write(text)


def replace_file(path: str, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new."""
    write_file(f"{path}.new", text)
    os.replace(f"{path}.new", path)


@contextlib.contextmanager
def failing(what: str, log: Log | None = None) -> Iterator[None]:
    """End this process with 125 and one line when something inside fails: it must never go on half built."""
    try:
        yield
    finally:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, SystemExit):
            told = f"error: {what}: {error}"
            if log is not None:
                log.say(told)
            print(told, file=sys.stderr, flush=True)
            os._exit(BROKEN)


if __name__ == "__main__":
    main()
