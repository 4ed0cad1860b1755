"""Structured logs: one JSON object a line, on stderr.

Fields: `ts` (RFC 3339), `level`, `part` (the process), `logger`, `msg`, and what the call passed in
`extra={"fields": {...}}`. Secrets, prompts, answers and keys never go into a log: log their digest,
length or the decision's id. The form follows OpenTelemetry's log data model in spirit, names short.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from wharfinger.core.clock import rfc3339_micro


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line; an exception is named by type and message, its trace kept short."""
        line: dict[str, Any] = {
            "ts": rfc3339_micro(int(record.created * 1e9)),
            "level": record.levelname.lower(),
            "part": self._part,
            "logger": record.name,
            "msg": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            line["trace"] = self.formatException(record.exc_info)[-4000:]
        return json.dumps(line, default=str, ensure_ascii=False)


def to_stderr(part: str, level: int = logging.INFO) -> None:
    """Send every log of this process to stderr as JSON lines under the name `part`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(part))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
