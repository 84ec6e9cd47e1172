"""Read Meta's quota headers: a percentage used, and a wait."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from proxy.graph.lenient_json import read_json

_BUSINESS = "x-business-use-case-usage"
_APP = "x-app-usage"
_SHARES = ("call_count", "call_volume", "total_time", "total_cputime", "cpu_time")
"""Percentages of a quota. Live replies of graph.instagram.com rename two of them."""

_ESTIMATE = "estimated_time_to_regain_access"
_NOT_OURS = re.compile("(?:ads_|catalog_|whatsapp).*|custom_audience|leadgen")
"""Use cases that no call of ours can count in: other products of the same app."""

_TOO_LARGE = 1e9  # so that a number of 400 digits does not overflow
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)

LONGEST_WAIT = 3600.0
"""Seconds. Quotas are counted over a rolling hour, so a longer wait is a mistake."""

LARGEST_PERCENT = 1000.0
"""Values over 100 are seen (125, say); a larger one than this is a mistake."""


class Usage(NamedTuple):
    """The state of our quota in one reply.

    *percent* is the highest share used of any quota; None if there is no such
    header, which is not zero. *wait* is in seconds; 0.0 means no wait.
    """

    percent: float | None
    wait: float


def read_usage(headers: Mapping[str, str]) -> Usage:
    """Read ``X-Business-Use-Case-Usage``, ``X-App-Usage`` and ``Retry-After``.

    *headers* is read by lower-case names. One header can cover several
    accounts and use cases, and the worst one counts: the highest percentage,
    and the longest wait (Meta counts it in minutes; at most an hour). Use cases
    of other products, such as advertising, do not count. An unreadable value
    counts as absent, because it must not fail a reply that is otherwise good.
    Meta documents no ``Retry-After``; if one comes, it counts.

    Source: https://developers.facebook.com/docs/graph-api/overview/rate-limiting
    """
    cases = [
        *_business_cases(headers.get(_BUSINESS)),
        *_objects([read_json(headers.get(_APP, ""))]),
    ]
    shares = [
        min(share, LARGEST_PERCENT)
        for case in cases
        for share in map(_number, map(case.get, _SHARES))
        if share is not None
    ]
    waits = [60.0 * (_number(case.get(_ESTIMATE)) or 0.0) for case in cases]
    retry_after = headers.get("retry-after", "")
    waits.append(float(retry_after) if _SECONDS.fullmatch(retry_after) else 0.0)
    return Usage(max(shares, default=None), min(max(waits), LONGEST_WAIT))


def _business_cases(header: str | None) -> Iterator[Mapping[str, object]]:
    """Yield the use cases of every account in ``{"<id>": [{...}, ...], ...}``."""
    accounts = read_json(header or "")
    if isinstance(accounts, dict):
        for cases in accounts.values():
            for case in _objects(cases):
                if not _NOT_OURS.fullmatch(str(case.get("type"))):
                    yield case


def _objects(values: object) -> list[dict[str, object]]:
    """Return the objects in *values*, if it is a list."""
    if not isinstance(values, list):
        return []
    return [value for value in values if isinstance(value, dict)]


def _number(value: object) -> float | None:
    """Return *value* as a float if it is a number and not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(min(value, _TOO_LARGE)) if value >= 0 else None
