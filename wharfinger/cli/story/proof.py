"""Act 6, proof: objects deleted, platform stopped, state moved away; the decision still proves itself, offline."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from wharfinger.cli.story.line import CALLERS, QUESTION
from wharfinger.cli.story.manifests import RESEARCH
from wharfinger.cli.story.stage import Ran, Stage, short
from wharfinger.core.errors import Unavailable

PROOFS: Final = {service: f"{service}.proof.tar" for service in CALLERS}


def prepare(stage: Stage) -> None:
    """Have both callers ask once more, and write the proof of each answer's decision."""
    for service, user in CALLERS.items():
        words = ("--as", f"{RESEARCH}/{user}", "--max-tokens", "24", "-o", "json")
        told = stage.run("ask", f"{RESEARCH}/{service}", QUESTION, *words).json()
        path = stage.work / PROOFS[service]
        ran = stage.run("prove", told["decision"], binary=path)
        size = path.stat().st_size
        stage.check(
            f"proof/{service}",
            f"a proof of what {user} was allowed, {size} bytes",
            ran.command,
            "a proof",
            ran.err.strip() or f"{size} bytes",
            ok=ran.code == 0 and size > 0,
            decision=told["decision"],
        )
        if ran.code:
            raise Unavailable(f"{ran.command}: {ran.err.strip()}")


def tell(stage: Stage) -> None:
    """Delete the objects, stop the platform, move its state away; then verify. Raises the error family."""
    for kind, names in (("inferenceservice", [*CALLERS, "courier", "outside"]), ("model", list(stage.facts["models"]))):
        stage.run("delete", kind, *names, "-n", RESEARCH)
    with tempfile.TemporaryDirectory(prefix="wharfinger-verify-") as folder:
        for name in ("trust-root.json", *PROOFS.values()):
            shutil.copy(stage.work / name, folder)
        ran = stage.run("down")
        moved = stage.directory.with_name(stage.directory.name + ".moved")
        stage.directory.rename(moved)
        stage.check(
            "platform-gone",
            "objects deleted, platform stopped, state moved away",
            ran.command,
            "nothing left to ask",
            ran.err.strip() or "stopped",
            ok=ran.code == 0 and not stage.directory.exists(),
        )
        _verify(stage, Path(folder))
        moved.rename(stage.directory)


def tell_running(stage: Stage) -> None:
    """Verify beside a platform that goes on running."""
    _verify(stage, stage.work)


def _verify(stage: Stage, folder: Path) -> None:
    first, second = (folder / name for name in PROOFS.values())
    ran = _offline(folder, first)
    stage.check(
        "verify",
        "offline: " + short(ran.out, 240),
        ran.command,
        "who, what, which silicon, which caller, which policy",
        short(ran.out or ran.err, 400),
        ok=ran.code == 0 and all(w in ran.out for w in ("spiffe://", "sha256:")),
    )
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    flipped = folder / "flipped.proof.tar"
    flipped.write_bytes(bytes(data))
    ran = _offline(folder, flipped)
    stage.check(
        "verify/flipped-byte",
        f"one byte of the proof changed: {short(ran.err, 120)}",
        ran.command,
        "exit 1, the link named",
        f"exit {ran.code}: {short(ran.err)}",
        ok=ran.code == 1 and bool(ran.err.strip()),
    )
    for part in _parts_that_differ(first, second):
        swapped = folder / "swapped.proof.tar"
        swapped.write_bytes(_swapped(first, second, part))
        ran = _offline(folder, swapped)
        stage.check(
            f"verify/swapped/{part}",
            f"{part} of the other proof: {short(ran.err, 100)}",
            ran.command,
            "exit 1, the link named",
            f"exit {ran.code}: {short(ran.err)}",
            ok=ran.code == 1 and bool(ran.err.strip()),
        )


def _offline(folder: Path, proof: Path) -> Ran:
    """Run `wharf verify` where there is no network, in a folder without a platform."""
    root = folder / "trust-root.json"
    words = ["verify", str(proof), "--trust-root", str(root)]
    command = [sys.executable, "-m", "wharfinger.cli.main", *words]
    cut_off = shutil.which("unshare")
    shown = f"unshare -n wharf verify {proof.name} --trust-root {root.name}"
    if cut_off:
        command = [cut_off, "--net", "--map-root-user", *command]
    done = subprocess.run(command, capture_output=True, cwd=folder, stdin=subprocess.DEVNULL, timeout=60, check=False)
    return Ran(shown, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def _members(proof: Path) -> dict[str, bytes]:
    with tarfile.open(proof) as tar:
        return {m.name: (tar.extractfile(m) or io.BytesIO()).read() for m in tar.getmembers()}


def _parts_that_differ(first: Path, second: Path) -> list[str]:
    one, two = _members(first), _members(second)
    return sorted(name for name in one if name in two and one[name] != two[name])


def _swapped(first: Path, second: Path, part: str) -> bytes:
    """Return the first proof with `part` of the second in its place, as a tar of the same form."""
    other = _members(second)[part]
    made = io.BytesIO()
    with tarfile.open(first) as tar, tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as out:
        for member in tar.getmembers():
            data = other if member.name == part else (tar.extractfile(member) or io.BytesIO()).read()
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return made.getvalue()
