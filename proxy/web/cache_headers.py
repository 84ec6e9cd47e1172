"""``Age``, ``Cache-Control`` and ``Cache-Status`` (RFC 9111, RFC 9211)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import floor

from werkzeug.datastructures import Headers

from proxy.domain.answer import Answer, Source
from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import Reason, Refusal

CACHE_NAME = "profile-proxy"
"""The name of this cache in Cache-Status (RFC 9211 §2)."""

MOST_HEADERS = 8192
"""Headers that a `HeaderBySeconds` keeps at most."""


def age(fetched_at: float, now: float) -> int:
    """Whole seconds since the fetch, never negative: clocks of hosts differ."""
    return int(now - fetched_at) if now > fetched_at else 0


def ttl(fresh_until: float, now: float) -> int:
    """Whole seconds for which an entry is fresh, negative once it is stale."""
    return floor(fresh_until - now)


class HeaderBySeconds(dict[int, tuple[str, str]]):
    """A header by its number of seconds, formatted once instead of per response."""

    def __init__(self, make: Callable[[int], tuple[str, str]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, seconds: int) -> tuple[str, str]:
        header = self._make(seconds)
        if len(self) < MOST_HEADERS:
            self[seconds] = header
        return header


AGES = HeaderBySeconds(lambda seconds: ("Age", str(max(0, seconds))))
"""Age, which is never negative."""

MAX_AGES = HeaderBySeconds(
    lambda ttl: ("Cache-Control", f"private, max-age={max(0, ttl)}")
)
"""For how long a caller may cache a profile, or what is made of it.

Counted from the fetch, not from this response: clients subtract Age.
"""


STALE = "private, max-age=0"
"""The Cache-Control of a stale profile. Most caches of clients ignore ``Age``, and
would keep it for as long as a fresh one."""


def cache_control(entry: Entry) -> str:
    """Return the Cache-Control of a fresh profile, or of what is made of it."""
    return MAX_AGES[floor(entry.fresh_until - entry.fetched_at)][1]


def set_headers(headers: Headers, answer: Answer, now: float) -> None:
    """Set the headers of an *answer* that depend on the moment or on the caller."""
    entry = answer.entry
    if now >= entry.fresh_until and not isinstance(entry.outcome, Refusal):
        headers["Cache-Control"] = STALE
    headers["Age"] = str(age(entry.fetched_at, now))
    headers["Cache-Status"] = cache_status(answer, now)


def cache_status(answer: Answer, now: float) -> str:
    """Describe in Cache-Status how the cache handled the request (RFC 9211)."""
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
    """Return the Cache-Status of a hit that is fresh for *ttl* seconds."""
    return f"{CACHE_NAME}; hit; ttl={ttl}"


@cache
def hits_with(detail: str) -> HeaderBySeconds:
    """Return the Cache-Status headers of hits with this *detail*, by ttl.

    The cache is bounded: there are as many details as reasons, and one for none.
    """
    return HeaderBySeconds(lambda ttl: ("Cache-Status", hit_status(ttl) + detail))


def failure_status(failure: LookupFailure) -> str:
    """Return the Cache-Status of a failed lookup (RFC 9211)."""
    forward = ["fwd=uri-miss"] if failure.asked else []
    return "; ".join([CACHE_NAME, *forward, f"detail={failure.code}"])


def detail_of(reason: Reason | None) -> str:
    """Return the last part of Cache-Status: the *reason* of a refusal."""
    return f"; detail={reason.value}" if reason is not None else ""


def refused(entry: Entry) -> Reason | None:
    """Return the reason if *entry* is a refusal."""
    return entry.outcome.reason if isinstance(entry.outcome, Refusal) else None
