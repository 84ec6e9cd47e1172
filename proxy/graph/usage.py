"""Quota headers, into a wait."""

from __future__ import annotations

import json

_ESTIMATE = "estimated_time_to_regain_access"

LONGEST_WAIT = 3600.0
"""Seconds. Quotas are counted over a rolling hour, so a longer wait is a mistake."""


def wait_asked_for(header: str | None) -> float:
    """Read from ``X-Business-Use-Case-Usage`` how long Meta asks us to wait.

    In seconds (Meta counts in minutes), at most an hour; 0.0 when it asks for
    no wait. One header can speak of several use cases, and then the longest
    wait rules. A header we cannot read must not fail a reply that is otherwise
    good.

    Source: https://developers.facebook.com/docs/graph-api/overview/rate-limiting
    """
    try:
        cases = [
            case for cases in json.loads(header or "{}").values() for case in cases
        ]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return 0.0
    return max(map(_wait_in_case, cases), default=0.0)


def _wait_in_case(case: object) -> float:
    minutes = case.get(_ESTIMATE) if isinstance(case, dict) else None
    if not isinstance(minutes, int | float) or not minutes > 0:
        return 0.0
    return 60.0 * min(minutes, LONGEST_WAIT / 60.0)
