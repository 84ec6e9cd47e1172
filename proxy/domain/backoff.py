"""How long to wait after a failure: with a person, and with all of Meta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxy.domain.entry import Entry
from proxy.domain.failures import Cause
from proxy.domain.profile import GraphError

FIRST_POSTPONEMENT, LONGEST_POSTPONEMENT = 10.0, 600.0
"""Seconds until a failed refresh is tried again: at first, doubling, and at most."""


def postpone(
    entry: Entry,
    now: float,
    wait: float | None,
    said: GraphError | None = None,
) -> Entry:
    """*entry* after a failed refresh, with its next refresh postponed.

    With *wait*, Meta was not asked at all, and will not be for so many seconds;
    that does not count as a failure of this person. Otherwise *said* is Meta's
    error, if it sent one, and the pause doubles with each failure in a row.
    """
    if wait is not None:
        pause = min(max(wait, 1.0), FIRST_POSTPONEMENT)
        return replace(entry, refresh_after=now + pause)
    pause = FIRST_POSTPONEMENT * 2.0 ** min(entry.failed_refreshes, 10)
    return replace(
        entry,
        refresh_after=now + min(pause, LONGEST_POSTPONEMENT),
        failed_refreshes=entry.failed_refreshes + 1,
        last_said=said,
    )


@dataclass(frozen=True, slots=True)
class Backoff:
    """The rule by which a cause closes the gate.

    The gate closes after *failures* with no success between, for *first* seconds,
    and for twice as long each time it closes again before a success, up to
    *longest*. A wait that Meta asks for takes the place of that.
    """

    failures: int
    first: float
    longest: float


LONGEST_CLOSURE = 3600.0
"""Seconds for which a gate is closed at most, even if Meta asks for longer."""


def backoffs(token_retry: float) -> Mapping[Cause, Backoff]:
    """Every cause and its back-off; *token_retry*, in seconds, is the operator's."""
    return {
        Cause.THROTTLED: Backoff(1, 60.0, 900.0),
        Cause.TOKEN_REJECTED: Backoff(1, token_retry, token_retry),
        Cause.PERMISSION: Backoff(20, 60.0, 60.0),
        Cause.UNAVAILABLE: Backoff(5, 5.0, 120.0),
    }
