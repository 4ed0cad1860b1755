"""What runs on a state directory and how it is: for `wharf status` and scripts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wharfinger.bootstrap import state as states
from wharfinger.bootstrap.state import State
from wharfinger.core.errors import HostUnfit


@dataclass(frozen=True, slots=True)
class Isolated:
    """How pods are kept apart on this machine: `fleet` is `hardware` or `declared`, `isolation` `namespaces` or `none`.

    `reason` says why there is none; `doors` why device files are not shut to who has no grant, empty when they are.
    """

    fleet: str
    isolation: str
    reason: str
    doors: str


def keep_host(state: State, host: Isolated) -> None:
    """Leave word of how this machine keeps pods apart, for `health`. Raises `HostUnfit`."""
    try:
        states.write_file(state.run / "host.json", json.dumps(asdict(host)).encode())
    except OSError as error:
        raise HostUnfit(f"state directory {state.root}: {error.strerror}") from error


def console_token(state: State) -> Path:
    """Return where the token stands that opens the console."""
    return state.of("console") / "token"


def health(directory: Path) -> dict[str, Any]:
    """Return endpoints and the health of each part of the platform on `directory`.

    `{"ok", "stateDir", "kubeconfig", "trustDomain", "console", "host", "endpoints": {part: url}, "parts": {part:
    {"ready", "pid", "restarts", "endpoint", "log", "reason"}}}`; `console` is the address that opens the console, token
    and all, empty where it does not run; `host` has the fields of `Isolated`, empty before the node has said; `ok` is
    true when every part is ready, alive and listens.
    Raises what `state.check_version` raises.
    """
    state = State(directory.absolute())
    states.check_version(state)
    record = states.read_record(state) if states.is_locked(state) else {}
    parts: dict[str, Any] = {}
    for name, part in record.get("parts", {}).items():
        reason = _reason(part)
        parts[name] = {**part, "ready": not reason, "reason": reason}
    return {
        "ok": bool(parts) and all(part["ready"] for part in parts.values()),
        "stateDir": str(state.root),
        "kubeconfig": str(state.kubeconfig),
        "trustDomain": record.get("trustDomain", ""),
        "console": _console(state, parts),
        "host": _host(state) if parts else {},
        "endpoints": {name: part["endpoint"] for name, part in parts.items()},
        "parts": parts,
    }


def _host(state: State) -> dict[str, Any]:
    try:
        told = json.loads((state.run / "host.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _console(state: State, parts: dict[str, Any]) -> str:
    try:
        token = console_token(state).read_text(encoding="ascii").strip()
        return f"{parts['console']['endpoint']}/overview?token={token}"
    except (OSError, ValueError, KeyError):
        return ""


def _reason(part: dict[str, Any]) -> str:
    """Return why the part is not healthy; empty when it is."""
    try:
        os.kill(part["pid"], 0)
    except ProcessLookupError:
        return f"process {part['pid']} is gone"
    except PermissionError:
        pass
    if not part["ready"]:
        return "not ready yet"
    port = int(part["endpoint"].rsplit(":", 1)[1])
    return "" if states.port_is_open(port) else f"nothing listens on port {port}"
