"""JSON lines on stderr: a constant message, and the values as fields."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


class JsonLines(logging.Formatter):
    """One record as one line of JSON: time, level, message, then its fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def write_to_stderr(level: str) -> None:
    """Send our own records from *level* up to stderr, and others' warnings.

    Libraries stay at WARNING however low *level* is: at DEBUG they print whole
    URLs, and with them ids and proofs.
    """
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines())
    logging.getLogger().handlers[:] = [lines]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("proxy").setLevel(level.upper())


def last_four(igsid: str) -> str:
    """A person's id as logs may show it."""
    return f"…{igsid[-4:]}"
