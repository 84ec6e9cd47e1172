"""Quota headers, into a percentage and a wait."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_BUSINESS = "x-business-use-case-usage"
_APP = "x-app-usage"
_SHARES = ("call_count", "call_volume", "total_time", "total_cputime", "cpu_time")
"""Percentages of a quota. graph.instagram.com has been seen to name two otherwise."""

_ESTIMATE = "estimated_time_to_regain_access"
_TOO_LARGE = 1e9  # so that a number of 400 digits does not overflow
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)

LONGEST_WAIT = 3600.0
"""Seconds. Quotas are counted over a rolling hour, so a longer wait is a mistake."""

LARGEST_PERCENT = 1000.0
"""Values over 100 are seen (125, say); a larger one than this is a mistake."""


class Usage(NamedTuple):
    """What a reply says of our quota.

    *percent* is the most that is used of any quota, None where nothing is
    said: an absent header is not zero. *wait* is in seconds, 0.0 where no wait
    is asked for.
    """

    percent: float | None
    wait: float


def read_usage(headers: Mapping[str, str]) -> Usage:
    """Read ``X-Business-Use-Case-Usage``, ``X-App-Usage`` and ``Retry-After``.

    *headers* is looked at by lower-case names. One header can speak of several
    accounts and use cases, and the worst rules: the highest percentage, and
    the longest wait (Meta counts it in minutes; at most an hour). What cannot
    be read counts as absent, because it must not fail a reply that is
    otherwise good. Meta documents no ``Retry-After``, but one would be meant.

    Source: https://developers.facebook.com/docs/graph-api/overview/rate-limiting
    """
    cases = [*_business_cases(headers.get(_BUSINESS)), _read(headers.get(_APP))]
    shares = [
        min(share, LARGEST_PERCENT)
        for case in cases
        if isinstance(case, dict)
        for share in map(_number, map(case.get, _SHARES))
        if share is not None
    ]
    waits = [
        60.0 * (_number(case.get(_ESTIMATE)) or 0.0)
        for case in cases
        if isinstance(case, dict)
    ]
    told = headers.get("retry-after", "")
    waits.append(float(told) if _SECONDS.fullmatch(told) else 0.0)
    return Usage(max(shares, default=None), min(max(waits), LONGEST_WAIT))


def _business_cases(header: str | None) -> Iterator[object]:
    """Every use case of every account: ``{"<id>": [{...}, ...], ...}``."""
    accounts = _read(header)
    if isinstance(accounts, dict):
        for cases in accounts.values():
            if isinstance(cases, list):
                yield from cases


def _read(header: str | None) -> object:
    try:
        return json.loads(header or "null")
    except (ValueError, RecursionError):
        return None


def _number(value: object) -> float | None:
    """*value* if it can be a share or a wait: a number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(min(value, _TOO_LARGE)) if value >= 0 else None
