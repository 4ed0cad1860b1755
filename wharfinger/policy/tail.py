"""A journal followed from outside: the records that another process has added since the last look.

Reads each byte once. A last line that is not whole yet is left for the next look; a damaged line ends the following of
that journal, since evidence is not read past a hole, and `damaged` says where.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from wharfinger.core.document import parse_json
from wharfinger.core.errors import Corrupt, WharfingerError
from wharfinger.policy.journal import LONGEST_LINE, opened


class Tail:
    """Follows the journal in `directory`, which need not exist yet.

    `kinds` are the kinds of record that are wanted, all by default: what else there is is checked, not parsed. The
    first look begins at most `segments` segments before the end, so that years of evidence are not read for a page.
    """

    def __init__(self, directory: Path, kinds: Collection[str] = (), segments: int = 2**31) -> None:
        self._directory = directory
        self._marks = tuple(b'"kind":"%b"' % kind.encode() for kind in kinds)
        self._segments = segments
        self._number = 0
        self._offset = 0
        self.damaged = ""

    def fresh(self) -> Iterator[dict[str, Any]]:
        """Yield the records that were not yielded yet, oldest first."""
        try:
            numbers = sorted(int(p.stem) for p in self._directory.glob("*.log") if p.stem.isdigit())
        except OSError:
            return
        if not self._number:
            numbers = numbers[-self._segments :]
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
                    wanted = not self._marks or any(mark in line for mark in self._marks)
                    record = _record(line, parsed=wanted)
                    if record is None:
                        self.damaged = f"{self._directory.name}/{path.name} at byte {self._offset}"
                        return
                    self._offset += len(line)
                    if wanted:
                        yield record
        except (OSError, Corrupt) as error:
            self.damaged = f"{self._directory.name}/{path.name}: {error}"


def _record(line: bytes, *, parsed: bool) -> dict[str, Any] | None:
    """Return the record of a line, an empty one where it is not to be `parsed`; None for a damaged line."""
    body = line[9:-1]
    try:
        whole = line[8:9] == b" " and int(line[:8], 16) == zlib.crc32(body)
        if whole and not parsed:
            return {}
        value = parse_json(body, limit=LONGEST_LINE) if whole else None
    except (ValueError, WharfingerError):
        return None
    return value if isinstance(value, dict) else None
