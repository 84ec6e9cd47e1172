"""Quota headers, into a wait."""

from __future__ import annotations

import json

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
        usage = json.loads(header or "{}")
        cases = [case for cases in usage.values() for case in cases]
        minutes = [case.get("estimated_time_to_regain_access", 0) for case in cases]
        longest = 60.0 * max(minutes, default=0)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return 0.0
    return min(longest, LONGEST_WAIT) if longest > 0 else 0.0
