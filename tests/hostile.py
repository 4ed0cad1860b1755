"""A hostile pod: what it tries, and a machine on which it tries it. `python tests/hostile.py FOLDER ISOLATION` says how
each try ended, as JSON; it is run as root and as an ordinary user.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from machine import WITHIN, machine, pod

TRIES = '''
import ctypes, json, os, socket, sys
paths, sock, pids = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
ATTACH, DETACH = 16, 17

def ways(path):
    """Every road to a path of the host that a process may know of."""
    yield path
    for pid in ["1", "self", *map(str, pids), *[p for p in os.listdir("/proc") if p.isdigit()]]:
        for link in ("root", "cwd"):
            yield f"/proc/{pid}/{link}{path}"
    for back in ("/.old", "/..", "/../../.."):
        yield back + path

def reads(path):
    why = "nothing tried"
    for way in ways(path):
        try:
            with open(way, "rb") as held:
                return f"got in by {way}: {held.read(6)!r}"
        except OSError as error:
            why = error.strerror
    libc.unshare(0x10000000)
    for source, target, kind, flags in (("/dev/vda", "/tmp", "ext4", 0), ("/", "/tmp", None, 4096)):
        libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, flags, None)
    try:
        os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0))
        os.open("/tmp/disk", os.O_RDONLY)
        return "got in by the disk"
    except OSError:
        pass
    try:
        with open("/tmp" + path, "rb") as held:
            return "got in by a mount"
    except OSError:
        return "refused: " + why

def connects(path):
    why = "nothing tried"
    for way in ways(path):
        try:
            with socket.socket(socket.AF_UNIX) as held:
                held.connect(way)
                return f"got in by {way}"
        except OSError as error:
            why = str(error)
    return "refused: " + why

def traces(pids):
    why = "nothing tried"
    for pid in pids:
        if libc.ptrace(ATTACH, pid, None, None) == 0:
            os.waitpid(pid, 0x40000000)
            libc.ptrace(DETACH, pid, None, None)
            return f"got in: traced {pid}"
        why = os.strerror(ctypes.get_errno())
        for touch in (lambda: os.kill(pid, 0), lambda: os.pidfd_open(pid), lambda: open(f"/proc/{pid}/mem", "rb")):
            try:
                touch()
                return f"got in: reached {pid}"
            except OSError:
                pass
    return "refused: " + why

print(json.dumps({**{name: reads(path) for name, path in paths.items()}, "socket": connects(sock), "ptrace": traces(pids)}))
'''


def tried(folder: Path, isolation: str) -> dict[str, str]:
    """Return how each try ended on a machine whose state is `folder`."""
    secrets = {"key": "issuer/ca.pem", "kubeconfig": "kubeconfig", "database": "api/objects.db"}
    for name in secrets.values():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
        path.chmod(0o644)
    with machine(folder, isolation=isolation) as here, socket.socket(socket.AF_UNIX) as identity:
        made = here.world.put(pod("neighbour", "sleep", "300"))
        uid = made["metadata"]["uid"]
        here.world.wait(lambda: here.phase("neighbour") == "Running")
        _, where, running = here.issuer.known[uid, "c"]
        where = Path(where)
        (where / "workload.sock").unlink()
        identity.bind(str(where / "workload.sock"))
        (where / "workload.sock").chmod(0o666)
        identity.listen()
        # The launcher, the first process inside and its command; then this process, which stands for the platform.
        children = Path(f"/proc/{running.first}/task/{running.first}/children").read_text().split()
        pids = [running.pid, running.first, *map(int, children), os.getpid()]
        asked = [{name: str(folder / path) for name, path in secrets.items()}, str(where / "workload.sock"), pids]
        here.world.put(pod("hostile", "python3", "-c", TRIES, json.dumps(asked)))
        here.world.wait(lambda: here.phase("hostile") in ("Succeeded", "Failed"), WITHIN)
        found: dict[str, str] = json.loads(here.log("hostile").splitlines()[-1])
        return found


if __name__ == "__main__":
    print(json.dumps(tried(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")))
