"""What a pod is given and leaves beside its volumes: a pipeline step's inputs and output, a model pod's journal.

The control plane asks for it by annotations that it alone may set. Inputs are artifacts by digest: the node fetches and
verifies them, and the pod sees them read-only. An output is a folder that becomes an artifact when the pod has
succeeded, so that a step never speaks to the registry.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from wharfinger.core.errors import HostUnfit, Invalid, excerpt
from wharfinger.kinds.kind import GROUP
from wharfinger.local.node.devicedoor import GRANT_NEEDED
from wharfinger.local.node.sandbox import Mount

Object = Mapping[str, Any]
INPUTS: Final = f"{GROUP}/inputs"
"""Annotation: JSON of `{VARIABLE: {"repository", "digest"}}`; the pod finds each at `$VARIABLE`."""
OUTPUT: Final = f"{GROUP}/output"
"""Annotation, `true`: the pod writes to `$WHARF_OUTPUT` what is to be stored once it has succeeded."""
INPUT_FOLDER: Final = "/wharf/input"
OUTPUT_FOLDER: Final = "/wharf/output"
JOURNAL_FOLDER: Final = "/wharf/journal"
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Artifacts(Protocol):
    """Where a step's artifacts come from and go to. Methods raise the error family."""

    def fetch(self, repository: str, digest: str, into: Path) -> None:
        """Write the artifact's files below the new folder `into`, every byte verified against `digest`."""
        ...

    def store(self, repository: str, folder: Path) -> str:
        """Store the files below `folder` as an artifact; return its digest. The same files give the same digest."""
        ...


@dataclass(frozen=True, slots=True)
class Input:
    """One artifact that a pod reads: the environment `variable` says where."""

    variable: str
    repository: str
    digest: str


def inputs_of(pod: Object) -> tuple[Input, ...]:
    """Return what the pod's annotation asks for. Raises `Invalid`."""
    told = (pod["metadata"].get("annotations") or {}).get(INPUTS)
    if not told:
        return ()
    try:
        asked = json.loads(told)
        found = tuple(Input(str(v), str(a["repository"]), str(a["digest"])) for v, a in sorted(asked.items()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Invalid(f"{INPUTS}: expected artifacts by variable, got {excerpt(told)}") from error
    for one in found:
        if not _VARIABLE.fullmatch(one.variable) or not _DIGEST.fullmatch(one.digest):
            raise Invalid(f"{INPUTS}: expected a VARIABLE and a sha256 digest, got {excerpt(one.variable)}")
    return found


def gives_output(pod: Object) -> bool:
    """Say whether the pod leaves an artifact."""
    return (pod["metadata"].get("annotations") or {}).get(OUTPUT) == "true"


def keeps_journal(pod: Object) -> bool:
    """Say whether the pod is a door of its own, whose decisions are kept: one that serves under a grant."""
    return bool((pod["metadata"].get("annotations") or {}).get(GRANT_NEEDED))


def repository_of(pod: Object) -> str:
    """Return where the pod's output is stored."""
    return f"{pod['metadata']['namespace']}/steps-{pod['metadata']['name']}"


@dataclass(frozen=True, slots=True)
class Cargo:
    """A pod's cargo on this machine: its own `folder`, the folder of its journal, the owner of what it writes (None
    when that is the caller).
    """

    folder: Path
    journal: Path
    owner: int | None

    def prepare(self, pod: Object, artifacts: Artifacts) -> None:
        """Fetch inputs that are not there yet, make the folders that the pod writes to.

        Raises `Invalid`, `HostUnfit` and what `artifacts` raises.
        """
        for one in inputs_of(pod):
            place = self.folder / "inputs" / one.variable
            if not place.is_dir():
                fresh = place.with_name(f".{one.variable}")
                try:
                    shutil.rmtree(fresh, ignore_errors=True)
                    fresh.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise HostUnfit(f"input {one.variable}: {error.strerror}") from error
                artifacts.fetch(one.repository, one.digest, fresh)
                fresh.rename(place)
        for wanted, place in ((gives_output(pod), self.folder / "output"), (keeps_journal(pod), self.journal)):
            if wanted:
                self._make(place)

    def mounts(self, pod: Object) -> list[Mount]:
        """Return how the pod sees its cargo."""
        shown = [
            Mount(str(self.folder / "inputs" / one.variable), f"{INPUT_FOLDER}/{one.variable}", late=True)
            for one in inputs_of(pod)
        ]
        if gives_output(pod):
            shown.append(Mount(str(self.folder / "output"), OUTPUT_FOLDER, writable=True, late=True))
        if keeps_journal(pod):
            shown.append(Mount(str(self.journal), JOURNAL_FOLDER, writable=True, late=True))
        return shown

    def environment(self, pod: Object, *, isolated: bool) -> dict[str, str]:
        """Return the variables that say where the cargo lies; `isolated` pods see it at paths of their own."""
        made = {
            one.variable: f"{INPUT_FOLDER}/{one.variable}" if isolated else str(self.folder / "inputs" / one.variable)
            for one in inputs_of(pod)
        }
        if gives_output(pod):
            made["WHARF_OUTPUT"] = OUTPUT_FOLDER if isolated else str(self.folder / "output")
        if keeps_journal(pod):
            made["WHARF_JOURNAL"] = JOURNAL_FOLDER if isolated else str(self.journal)
        return made

    def begin(self, pod: Object) -> None:
        """Empty the folder of the output before the step runs: what a run that was cut off left is none of it.

        Raises `HostUnfit`.
        """
        if gives_output(pod):
            shutil.rmtree(self.folder / "output", ignore_errors=True)
            self._make(self.folder / "output")

    def deliver(self, pod: Object, artifacts: Artifacts) -> str:
        """Store what the pod left; return the artifact's digest.

        Raises `Invalid` for anything but files and folders (a link would have the node read what the pod could not),
        and for an empty folder; what `artifacts` raises.
        """
        folder = self.folder / "output"
        files = 0
        for here, names, leaves in os.walk(folder):
            for name in (*names, *leaves):
                path = Path(here, name)
                mode = path.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    where = excerpt(str(path.relative_to(folder)))
                    raise Invalid(f"output {where}: expected a file or folder, got a link or device")
                files += stat.S_ISREG(mode)
        if not files:
            raise Invalid("expected files in $WHARF_OUTPUT, got none")
        return artifacts.store(repository_of(pod), folder)

    def seal(self) -> None:
        """Take the journal over from the pod, which has ended: nothing is added to it any more."""
        if not self.journal.is_dir():
            return
        for here, _, leaves in os.walk(self.journal):
            for path in (Path(here), *(Path(here, leaf) for leaf in leaves)):
                if self.owner is not None:
                    os.chown(path, os.geteuid(), os.getegid(), follow_symlinks=False)
                if not path.is_symlink():
                    path.chmod(0o700 if path.is_dir() else 0o600)

    def unload(self) -> None:
        """Remove what the pod, which has ended, read and left."""
        for name in ("inputs", "output"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _make(self, place: Path) -> None:
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.chmod(0o777)
            if self.owner is not None:
                os.chown(place, self.owner, self.owner)
        except OSError as error:
            raise HostUnfit(f"{place.name}: {error.strerror}") from error
