"""JSON lines on stderr: a constant message, and the values as fields."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import NamedTuple

log = logging.getLogger(__name__)

OPERATOR, REQUEST = "operator", "request"
"""The messages of an operator's action and of the access log."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
"""The attributes that every record has; all others are fields of ours."""

_SHOWN_DIGITS = 4
"""Digits of an id that logs show: enough to find a line, too few to find a person."""


class Caller(NamedTuple):
    """The request that a thread works for, and the name of its API key.

    *key* is in parentheses for background work, which no key is charged for.
    """

    request_id: str
    key: str


NO_CALLER = Caller("-", "-")

_caller: ContextVar[Caller] = ContextVar("caller", default=NO_CALLER)


def set_caller(request_id: str, key: str = NO_CALLER.key) -> None:
    """Name the request, and the key, in all lines that follow in this context."""
    _caller.set(Caller(request_id, key))


def clear_caller() -> None:
    """Forget the request: threads serve many, one after the other."""
    _caller.set(NO_CALLER)


def caller() -> dict[str, str]:
    """The fields ``request_id`` and ``key``, for a line that always has them."""
    return _caller.get()._asdict()


def in_background(cause: str, job: Callable[[], None]) -> Callable[[], None]:
    """*job*, whose lines name the request of now, and *cause* in place of a key."""
    named = Caller(_caller.get().request_id, f"({cause})")

    def run() -> None:
        before = _caller.set(named)
        try:
            job()
        finally:
            _caller.reset(before)

    return run


class JsonLines(logging.Formatter):
    """One record as one line of JSON: time, level, message, pid, then its fields.

    Among them are ``request_id`` and ``key``, if the record is about a request.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if _caller.get() is not NO_CALLER:
            line |= caller()
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
    key: str,
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
            "key": key,
        },
    )


class OncePerSecond:
    """Lets one line a second through, and counts those that it leaves out."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._next_at = -1.0
        self._left_out = 0

    def take(self) -> int | None:
        """How many were left out since the last line; None: leave this one out too."""
        with self._lock:
            now = self._monotonic()
            if now < self._next_at:
                self._left_out += 1
                return None
            left_out, self._left_out, self._next_at = self._left_out, 0, now + 1.0
            return left_out


def last_four(igsid: str) -> str:
    """A person's id as logs may show it."""
    return f"...{igsid[-_SHOWN_DIGITS:]}"
