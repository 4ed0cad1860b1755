"""What every process of the platform does first and last: arguments, logs, death with its parent, readiness.

The supervisor starts a part as `python -m wharfinger.bootstrap.PART --state-dir DIR` and passes the write end of
a pipe in `WHARF_READY_FD`; the part writes one byte when it serves. A part dies when its supervisor dies.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from wharfinger.bootstrap.state import State, check_version
from wharfinger.core import failpoint, logs
from wharfinger.core.errors import Unavailable, WharfingerError

AWAY: Final = 75
"""The exit status of a part that found another one away (sysexits.h, EX_TEMPFAIL): it is worth starting again."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Setting:
    """What a part is told: its name, the state directory, the trust domain and everybody's ports."""

    part: str
    state: State
    trust_domain: str
    ports: dict[str, int]

    @property
    def workload_socket(self) -> Path:
        """The Workload API socket for platform parts."""
        return self.state.run / "issuer.sock"

    def identity(self, part: str) -> str:
        """Return the SPIFFE ID of a platform part."""
        return f"spiffe://{self.trust_domain}/wharfinger/{part}"

    def endpoint(self, part: str) -> str:
        """Return the base URL of a platform part."""
        return f"https://127.0.0.1:{self.ports[part]}"


def setting(part: str, arguments: list[str] | None = None) -> Setting:
    """Read the command line and the state directory of `part`; set up its logs and its death."""
    parser = argparse.ArgumentParser(prog=f"wharfinger {part}")
    parser.add_argument("--state-dir", required=True, type=Path)
    parser.add_argument("--trust-domain", default="wharfinger.local")
    told = parser.parse_args(arguments)
    logs.to_stderr(part)
    state = State(told.state_dir)
    check_version(state)
    _arm_failpoints(part, state)
    ports = json.loads((state.root / "ports.json").read_bytes())
    return Setting(part, state, told.trust_domain, ports)


def _arm_failpoints(part: str, state: State) -> None:
    """Arm what `WHARF_FAILPOINTS` names, each once in the life of a state directory, whatever restarts."""
    for armed in filter(None, os.environ.get("WHARF_FAILPOINTS", "").split(",")):
        mark = state.run / "failpoints" / f"{part}.{armed.partition(':')[0]}"
        if not mark.exists():
            failpoint.arm(armed, partial(_die_once, mark))


def _die_once(mark: Path) -> None:
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    die()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent goes (prctl PR_SET_PDEATHSIG).

    The supervisor says who it is in `WHARF_SUPERVISOR`, since it may be gone before this process can ask.
    """
    parent = int(os.environ.pop("WHARF_SUPERVISOR", "") or os.getppid())
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        die()


def die() -> None:
    """End this process as kill -9 would."""
    os.kill(os.getpid(), signal.SIGKILL)


def ready() -> None:
    """Tell the supervisor that this part serves."""
    descriptor = os.environ.pop("WHARF_READY_FD", "")
    if descriptor:
        os.write(int(descriptor), b"1")
        os.close(int(descriptor))


def run(part: str, body: Callable[[Setting], None]) -> None:
    """Run the process `part`: `body` serves until it is told to stop.

    Exits with one line on our errors: `AWAY` when another part did not answer, else 2.
    """
    die_with_parent()
    try:
        body(setting(part))
    except WharfingerError as error:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        sys.exit(AWAY if isinstance(error, Unavailable) else 2)
