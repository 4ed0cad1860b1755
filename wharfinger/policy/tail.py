"""A journal followed from outside: the records that another process has added since the last look.

Reads each byte once. A last line that is not whole yet is left for the next look; a damaged line ends the following of
that journal, since evidence is not read past a hole, and `damaged` says where.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wharfinger.core.document import parse_json
from wharfinger.core.errors import Corrupt, WharfingerError
from wharfinger.policy.journal import LONGEST_LINE, opened


class Tail:
    """Follows the journal in `directory`, which need not exist yet."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        self._offset = 0
        self.damaged = ""

    def fresh(self) -> Iterator[dict[str, Any]]:
        """Yield the records that were not yielded yet, oldest first."""
        try:
            numbers = sorted(int(p.stem) for p in self._directory.glob("*.log") if p.stem.isdigit())
        except OSError:
            return
        for number in numbers:
            if number < self._number or self.damaged:
                continue
            if number > self._number:
                self._number, self._offset = number, 0
            yield from self._segment(self._directory / f"{number:08}.log")

    def _segment(self, path: Path) -> Iterator[dict[str, Any]]:
        try:
            with opened(path) as lines:
                lines.seek(self._offset)
                while line := lines.readline(LONGEST_LINE + 1):
                    if not line.endswith(b"\n") and len(line) <= LONGEST_LINE:
                        return
                    record = _record(line)
                    if record is None:
                        self.damaged = f"{self._directory.name}/{path.name} at byte {self._offset}"
                        return
                    self._offset += len(line)
                    yield record
        except (OSError, Corrupt) as error:
            self.damaged = f"{self._directory.name}/{path.name}: {error}"


def _record(line: bytes) -> dict[str, Any] | None:
    body = line[9:-1]
    try:
        whole = line[8:9] == b" " and int(line[:8], 16) == zlib.crc32(body)
        value = parse_json(body, limit=LONGEST_LINE) if whole else None
    except (ValueError, WharfingerError):
        return None
    return value if isinstance(value, dict) else None
