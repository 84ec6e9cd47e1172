"""JSON lines on stderr: a constant message, and the values as fields."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

log = logging.getLogger(__name__)

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
    URLs, and with them ids and proofs. What is asked for by name, a line for each
    action of an operator and maybe for each request, is written at every *level*.
    """
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines())
    logging.getLogger().handlers[:] = [lines]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("proxy").setLevel(level.upper())
    log.setLevel(logging.INFO)  # This module's own are `audited` and `log_access`.


def code_of(error: BaseException) -> str:
    """The code that callers see for *error*; the class of what is a bug of ours."""
    return getattr(error, "code", type(error).__name__)


@contextmanager
def audited(action: str, **values: object) -> Iterator[dict[str, object]]:
    """One line for what an operator does within, also if it fails in mid-way.

    Yields the line's fields, to add what is known only in the end. ``result``
    is ``done``, or what `code_of` calls that which was raised.
    """
    line: dict[str, object] = {"action": action} | values
    try:
        yield line
        line["result"] = "done"
    except BaseException as exc:
        line["result"] = code_of(exc)
        raise
    finally:
        log.info("operator", extra=line)


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
    """One line for a request, where the operator wants one for each."""
    log.info(
        "request",
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
    return f"…{igsid[-4:]}"
