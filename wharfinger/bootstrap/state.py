"""The state directory: one folder that holds all of a platform on one machine.

```
version         schema version; a newer one is refused untouched
lock            held by the supervisor for as long as it runs
kubeconfig      the local admin's, mode 0600
ca.pem          the platform's authorities, for any client
ports.json      the loopback ports, chosen once and kept
run/            sockets, the supervisor's record of its parts
logs/           one file per part
api/ issuer/ registry/ log/ evidence/ node/ fleet/    each part's own
```
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wharfinger.core.errors import Conflict, Corrupt, HostUnfit, Malformed, excerpt

SCHEMA_VERSION: Final = 1
PORTS: Final = ("api", "issuer", "registry", "gateway", "console", "node", "control")
"""The parts that listen on a loopback port."""


def default_directory(environment: Mapping[str, str]) -> Path:
    """Return where state lives unless the user says: `WHARF_STATE_DIR`, else below the XDG state home."""
    told = environment.get("WHARF_STATE_DIR")
    if told:
        return Path(told)
    home = environment.get("XDG_STATE_HOME") or str(Path(environment.get("HOME", "/")) / ".local" / "state")
    return Path(home) / "wharfinger"


@dataclass(frozen=True, slots=True)
class State:
    """An opened state directory."""

    root: Path

    @property
    def kubeconfig(self) -> Path:
        """The local admin's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def run(self) -> Path:
        """Sockets and the supervisor's record; emptied of sockets at start."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log file per part."""
        return self.root / "logs"

    @property
    def evidence(self) -> Path:
        """One journal per part."""
        return self.root / "evidence"

    @property
    def record(self) -> Path:
        """What the supervisor says of itself and its parts, as JSON."""
        return self.run / "supervisor.json"

    def of(self, part: str) -> Path:
        """Return the folder that is `part`'s own."""
        return self.root / part


def prepare(root: Path) -> State:
    """Make or open the state directory `root` for a supervisor.

    Raises `HostUnfit` when it cannot be written, `Conflict` when its version is newer than this program's,
    `Corrupt` when the version cannot be read; in each case nothing has been changed.
    """
    state = State(root.absolute())
    version = state.root / "version"
    try:
        if version.exists():
            check_version(state)
        elif state.root.exists() and any(state.root.iterdir()):
            raise Conflict(
                f"{state.root} is not empty and is not a Wharfinger state directory",
                hint="name another with --state-dir",
            )
        state.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (state.run, state.logs, state.evidence):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not version.exists():
            write_file(version, f"{SCHEMA_VERSION}\n".encode())
        if not os.access(state.root, os.W_OK | os.X_OK):
            raise HostUnfit(f"state directory {state.root} cannot be written", hint="fix its permissions")
    except OSError as error:
        raise HostUnfit(
            f"state directory {state.root}: {error.strerror}", hint="name another with --state-dir"
        ) from error
    return state


def check_version(state: State) -> None:
    """Raise `Conflict` when `state` was written by a newer program, `Corrupt` when its version is not a number."""
    try:
        text = (state.root / "version").read_text(encoding="ascii").strip()
        version = int(text)
    except FileNotFoundError as error:
        raise HostUnfit(f"{state.root} is not a Wharfinger state directory", hint="start one with wharf up") from error
    except (OSError, ValueError) as error:
        raise Corrupt(f"{state.root}/version: expected a number") from error
    if version > SCHEMA_VERSION:
        raise Conflict(
            f"{state.root} has schema version {version}, this program knows {SCHEMA_VERSION}",
            hint="use the program that wrote it, or a newer one; nothing was changed",
        )


def lock(state: State) -> int:
    """Take the lock of `state` for this process's life; return its descriptor.

    Raises `Conflict` when another supervisor holds it.
    """
    descriptor = os.open(state.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Conflict(f"a platform is already running on {state.root}", hint="wharf status shows it") from error
    return descriptor


def is_locked(state: State) -> bool:
    """Say whether a supervisor runs on `state`."""
    try:
        os.close(lock(state))
    except Conflict:
        return True
    except OSError:
        return False
    return False


def ports(state: State, wanted: Mapping[str, int]) -> dict[str, int]:
    """Return a loopback port per part: those `wanted`, those kept from earlier starts, or free ones; keep them.

    Raises `HostUnfit` naming the part when its port is taken.
    """
    path = state.root / "ports.json"
    kept: dict[str, int] = {}
    if path.exists():
        try:
            loaded = json.loads(path.read_bytes())
            kept = {part: int(loaded[part]) for part in PORTS if part in loaded}
        except (ValueError, TypeError, AttributeError) as error:
            raise Corrupt(f"{path.name}: expected an object of ports") from error
    chosen = {**kept, **wanted}
    with _held() as held:
        for part in PORTS:
            chosen[part] = held.bind(part, chosen.get(part, 0))
    write_file(path, json.dumps(chosen, indent=1).encode())
    return chosen


class _held:  # noqa: N801  a context manager, read as a phrase
    """Holds every port until all are chosen, so that no two parts get one."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> _held:
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._sockets:
            held.close()

    def bind(self, part: str, port: int) -> int:
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sockets.append(holder)
        try:
            holder.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise HostUnfit(
                    f"port {port} for {part} is in use", hint=f"choose another: wharf up --port {part}=PORT"
                ) from error
            raise
        return int(holder.getsockname()[1])


def parse_port(text: str) -> tuple[str, int]:
    """Return the part and port that `PART=PORT` names. Raises `Malformed`."""
    part, _, number = text.partition("=")
    if part not in PORTS or not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise Malformed(f"expected PART=PORT with PART one of {', '.join(PORTS)}, got {excerpt(text)}")
    return part, int(number)


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write `data` to `path` at once and durably: a reader sees the old bytes or the new. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_record(state: State) -> dict[str, Any]:
    """Return what the supervisor last said of itself, `{}` when it said nothing. Raises `Corrupt`."""
    try:
        record = json.loads(state.record.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Corrupt(f"{state.record.name}: expected JSON") from error
    return record if isinstance(record, dict) else {}


def port_is_open(port: int) -> bool:
    """Say whether something listens on the loopback `port`."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
