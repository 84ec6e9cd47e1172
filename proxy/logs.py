"""JSON lines on stderr: a constant message, and the values as fields."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

log = logging.getLogger(__name__)

OPERATOR, REQUEST = "operator", "request"
"""The messages of an operator's action and of the access log."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
"""The attributes that every record has; all others are fields of ours."""

_SHOWN_DIGITS = 4
"""Digits of an id that logs show: enough to find a line, too few to find a person."""


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
    """Write our own records from *level* up to stderr, and warnings of libraries.

    Libraries stay at WARNING however low *level* is: at DEBUG they print whole
    URLs, and with them ids and proofs. The lines of operators' actions and of the
    access log are written at every *level*.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("proxy").setLevel(level.upper())
    log.setLevel(logging.INFO)  # This module logs `audited` and `log_access` only.


def code_of(error: BaseException) -> str:
    """The code that callers get for *error*; the name of its class if it is a bug."""
    return getattr(error, "code", type(error).__name__)


@contextmanager
def audited(action: str, **values: object) -> Iterator[dict[str, object]]:
    """Log one line for an operator's action in the block, even if the block raises.

    Yields the line's fields, to which the block can add. ``result`` is ``done``, or
    the `code_of` the error.
    """
    line: dict[str, object] = {"action": action} | values
    try:
        yield line
        line["result"] = "done"
    except BaseException as exc:
        line["result"] = code_of(exc)
        raise
    finally:
        log.info(OPERATOR, extra=line)


def log_access(
    *,
    igsid: str | None,
    status: int,
    cache_status: str | None,
    seconds: float,
    request_id: str,
    method: str = "GET",
    route: str | None = "/profiles/<igsid>",
    page: str | None = "default",
) -> None:
    """Log one line for a request, if ``ACCESS_LOG`` is on (the caller checks)."""
    log.info(
        REQUEST,
        extra={
            "method": method,
            "route": route,
            "page": page,
            "person": last_four(igsid) if igsid else None,
            "status": status,
            "cache_status": cache_status,
            "seconds": round(seconds, 4),
            "request_id": request_id,
        },
    )


def last_four(igsid: str) -> str:
    """A person's id as logs may show it."""
    return f"…{igsid[-_SHOWN_DIGITS:]}"
