"""How long to wait after a failure: with a person, and with all of Meta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from proxy.domain.entry import Entry
from proxy.domain.failures import Cause, LookupFailure
from proxy.domain.profile import GraphError

FIRST_POSTPONEMENT, LONGEST_POSTPONEMENT = 10.0, 600.0
"""Seconds until a failed refresh is tried again: at first, doubling, and at most."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds for which the failure about a person answers: at first, doubling, at most."""


class PauseRule(NamedTuple):
    """For how long of a person's pause a caller is answered by the failure.

    For *share* of it, but for *least* seconds, and never longer than the pause.
    """

    least: float
    share: float

    def answers_for(self, pause: float) -> float:
        """Return for how many seconds of a *pause* the failure answers."""
        return min(pause, max(self.least, pause * self.share))


PLAIN = PauseRule(least=0.0, share=1.0)
"""The rule of callers without a directive, of prefetches and of refreshes."""

FORCED = PauseRule(least=2.0, share=0.5)
"""The rule of callers who want a newer entry, such as by ``no-cache``."""

OPERATOR = PauseRule(least=0.0, share=0.0)
"""The rule of an operator's refresh, which no pause stops."""


def is_about_person(failure: LookupFailure) -> bool:
    """Return whether *failure* counts in the row of failures about one person.

    It does not if Meta was not asked, or if it is about us: a throttle or a dead token
    always is, and so is a failure that closes the gate, which then has a *retry_after*.
    The person must be asked as soon as the gate is open again.
    """
    if failure.cause in (Cause.THROTTLED, Cause.TOKEN_REJECTED):
        return False
    return failure.asked and failure.retry_after is None


def pause_after(failures: int) -> float:
    """Return for how many seconds the last of *failures* in a row answers."""
    return min(FIRST_PAUSE * 2.0 ** min(max(failures - 1, 0), 10), LONGEST_PAUSE)


def postpone(
    entry: Entry,
    now: float,
    wait: float | None,
    said: GraphError | None = None,
) -> Entry:
    """*entry* after a failed refresh, with its next refresh postponed.

    *said* is Meta's error, if it sent one. With *wait*, in seconds, the failure is
    about us, or Meta was not asked at all, which does not count against this person.
    Otherwise the pause doubles with each failure in a row.
    """
    if wait is not None:
        pause = min(max(wait, 1.0), FIRST_POSTPONEMENT)
        last_said = said or entry.last_said
        return replace(entry, refresh_after=now + pause, last_said=last_said)
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

    The gate closes after *failures* about so many different *people* (0: any), with
    no success between, for *first* seconds, and for twice as long each time it closes
    again before a success, up to *longest*. A wait that Meta asks for takes the place
    of that.
    """

    failures: int
    first: float
    longest: float
    people: int = 0


LONGEST_CLOSURE = 3600.0
"""Seconds for which a gate is closed at most, even if Meta asks for longer."""


def backoffs(token_retry: float) -> Mapping[Cause, Backoff]:
    """Every cause and its back-off; *token_retry*, in seconds, is the operator's."""
    return {
        Cause.THROTTLED: Backoff(1, 60.0, 900.0),
        Cause.TOKEN_REJECTED: Backoff(1, token_retry, token_retry),
        # The witnesses decide too: see `proxy.coordination.witnesses`.
        Cause.PERMISSION: Backoff(10, 60.0, 60.0, people=10),
        Cause.UNAVAILABLE: Backoff(5, 5.0, 120.0, people=3),
    }
