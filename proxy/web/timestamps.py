"""Moments as they are written: RFC 3339, in UTC."""

from __future__ import annotations

import time
from functools import lru_cache
from math import floor

_MINUTES = [f"T{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60)]
_SECONDS = [f"{second:02}Z" for second in range(60)]


def format_timestamp(seconds: float | None) -> str | None:
    """Epoch seconds as RFC 3339 in UTC, whole seconds, rounded down."""
    if seconds is None:
        return None
    day, second = divmod(floor(seconds), 86400)
    minute, second = divmod(second, 60)
    return _date(day) + _MINUTES[minute] + _SECONDS[second]


@lru_cache(64)
def _date(day: int) -> str:
    """The date so many days after the first of 1970; most are of these days."""
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86400))
