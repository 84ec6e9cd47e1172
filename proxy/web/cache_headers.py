"""How old an answer is, for how long it is good, and how it came about.

What ``Age``, ``Cache-Control`` and ``Cache-Status`` say of it (RFC 9111, RFC 9211).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import floor

from proxy.domain.answer import Answer, Source
from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import Reason, Refusal

CACHE_NAME = "profile-proxy"
"""Who speaks in Cache-Status (RFC 9211 §2)."""

SECONDS_REMEMBERED = 8192
"""Values of a header that says seconds, of which each is made once."""


def age(fetched_at: float, now: float) -> int:
    """Whole seconds since Meta was asked, never negative: clocks of hosts differ."""
    return int(now - fetched_at) if now > fetched_at else 0


def ttl(fresh_until: float, now: float) -> int:
    """Whole seconds for which an entry is fresh, negative once it is stale."""
    return floor(fresh_until - now)


class Seconds(dict[int, tuple[str, str]]):
    """A header by the seconds it says: made once, and not for each answer."""

    def __init__(self, make: Callable[[int], tuple[str, str]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, seconds: int) -> tuple[str, str]:
        header = self._make(seconds)
        if len(self) < SECONDS_REMEMBERED:
            self[seconds] = header
        return header


AGES = Seconds(lambda seconds: ("Age", str(max(0, seconds))))
"""Age, which is never negative."""

KEPT = Seconds(lambda ttl: ("Cache-Control", f"private, max-age={max(0, ttl)}"))
"""For how long a caller may keep a profile, or what is made of it.

Of the entry, not of this moment: it is read together with Age.
"""


def kept_for(entry: Entry) -> str:
    """For how long a caller may keep what is made of a profile."""
    return KEPT[floor(entry.fresh_until - entry.fetched_at)][1]


def cache_status(answer: Answer, now: float) -> str:
    """How the answer came about, in the words of RFC 9211."""
    entry = answer.entry
    forward = "fwd=request" if answer.is_forced else "fwd=uri-miss"
    match answer.source:
        case Source.HIT:
            return hit_status(ttl(entry.fresh_until, now)) + detail_of(refused(entry))
        case Source.STALE:
            failure = answer.failure
            why = failure.code if failure else Reason.UNAVAILABLE.value
            return f"{CACHE_NAME}; fwd=stale; detail={why}"
        case Source.FETCHED:
            parts = [forward, "stored"] if answer.stored else [forward]
        case Source.COLLAPSED:
            parts = [forward, "collapsed"]
    if not answer.stored and not isinstance(entry.outcome, Refusal):
        parts.append("detail=store_unavailable")
    return "; ".join([CACHE_NAME, *parts]) + detail_of(refused(entry))


def hit_status(ttl: int) -> str:
    """That it was a hit, and for how many seconds it is fresh."""
    return f"{CACHE_NAME}; hit; ttl={ttl}"


@cache
def hits_with(detail: str) -> Seconds:
    """Cache-Status of hits with this *detail*, by the seconds for which they are fresh.

    There are as many details as reasons.
    """
    return Seconds(lambda ttl: ("Cache-Status", hit_status(ttl) + detail))


def failure_status(failure: LookupFailure) -> str:
    """How a failure came about, in the words of RFC 9211."""
    forward = ["fwd=uri-miss"] if failure.asked else []
    return "; ".join([CACHE_NAME, *forward, f"detail={failure.code}"])


def detail_of(reason: Reason | None) -> str:
    """What Cache-Status ends with: the *reason* of a refusal."""
    return f"; detail={reason.value}" if reason is not None else ""


def refused(entry: Entry) -> Reason | None:
    """Why *entry* tells nothing of the person, if it does not."""
    return entry.outcome.reason if isinstance(entry.outcome, Refusal) else None
