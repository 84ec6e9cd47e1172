"""Timestamps in RFC 3339, in UTC."""

from __future__ import annotations

import time
from functools import lru_cache
from math import floor

_MINUTES = [f"T{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60)]
_SECONDS = [f"{second:02}Z" for second in range(60)]


def format_timestamp(seconds: float | None) -> str | None:
    """Format epoch seconds as RFC 3339 in UTC, in whole seconds, rounded down.

    Tables of all minutes and seconds: `strftime` takes five times as long, and a
    hit from Redis has two timestamps.
    """
    if seconds is None:
        return None
    day, second = divmod(floor(seconds), 86400)
    minute, second = divmod(second, 60)
    return _date(day) + _MINUTES[minute] + _SECONDS[second]


@lru_cache(64)
def _date(day: int) -> str:
    """Return the date *day* days after 1970-01-01; most are recent, so few suffice."""
    return time.strftime("%Y-%m-%d", time.gmtime(day * 86400))
