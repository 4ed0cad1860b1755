"""Runs a command as an ordinary user (nobody), to whom this interpreter and this package are shown.

Where they lie below a folder that only root enters, the command gets a mount namespace of its own in which that folder
holds nothing else. Used as `python tests/ordinary.py COMMAND...` by root; needs no state of its own.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from pathlib import Path

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[1]
_NEW_MOUNTS, _BIND, _RECURSIVE, _PRIVATE = 0x00020000, 4096, 16384, 1 << 18


def command(*words: str) -> list[str]:
    """Return the command line that runs `words` as nobody."""
    return [sys.executable, "-I", str(Path(__file__).resolve()), *words]


def shut(path: Path) -> Path | None:
    """Return the outermost folder above `path` that others may not enter."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def main() -> None:
    """Show what is needed, become nobody, run."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
        words = [text.encode() if text is not None else None for text in (source, target, kind)]
        if libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data is not None else None) != 0:
            raise OSError(ctypes.get_errno(), f"mount {target}")

    shown = {Path(sys.base_prefix), Path(sys.prefix).resolve(), ROOT}
    if any(shut(path) for path in shown):
        if libc.unshare(_NEW_MOUNTS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        mount("none", "/", None, _RECURSIVE | _PRIVATE)
        held = {path: os.open(path, os.O_PATH) for path in shown if shut(path) is not None}
        for folder in {shut(path) for path in held}:
            mount("tmpfs", str(folder), "tmpfs", 0, "mode=0755")
        for path, descriptor in sorted(held.items()):
            if not path.exists():
                path.mkdir(parents=True)
                mount(f"/proc/self/fd/{descriptor}", str(path), None, _BIND | _RECURSIVE)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.environ["HOME"] = "/"
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
