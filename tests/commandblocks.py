"""Reads the command blocks of the documents: what a reader is told to type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EXITS = re.compile(r"\s+# exits ([0-9])$")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a document; `code` is the exit code that the text promises."""

    text: str
    code: int


def commands(path: Path) -> list[Command]:
    """Return the commands of a document in order: lines that start with `$ `."""
    found = []
    for block in _BLOCK.findall(path.read_text(encoding="utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                told = _EXITS.search(line)
                found.append(Command(_EXITS.sub("", line[2:]).strip(), int(told[1]) if told else 0))
    return found
