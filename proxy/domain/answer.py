"""An answer, how it came about, and a caller's cache directives."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import Outcome


class Source(Enum):
    """How an answer came about (RFC 9211)."""

    HIT = auto()
    FETCHED = auto()
    COLLAPSED = auto()
    STALE = auto()
    """The entry from before, because the fetch of a newer one has failed."""


JUST_LEARNED = 2.0
"""Seconds for which an outcome satisfies every caller. ``fetch`` of Node.js and of
browsers sends ``no-cache`` or ``max-age=0`` with every request of some modes."""


@dataclass(frozen=True, slots=True)
class Directives:
    """A caller's cache directives (RFC 9111 §5.2.1); *max_age* is in seconds."""

    no_cache: bool = False
    max_age: float | None = None
    only_if_cached: bool = False

    def allow(self, entry: Entry, now: float) -> bool:
        """Whether the caller accepts *entry*, judged by its age.

        The moment of the fetch is by the clock of another host, perhaps, so it may be
        in the future, but not far: an entry from there is not just learned.
        """
        age = now - entry.fetched_at
        if abs(age) < JUST_LEARNED:
            return True
        if self.no_cache:
            return False
        return self.max_age is None or age <= self.max_age


NO_DIRECTIVES = Directives()


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The result of asking Meta about a person once.

    *usage_percent* is how much of our quota Meta says is used, None where it
    does not say; *token_digest* identifies the Page token that was used without
    revealing it. *graph_version* is the version that answered, such as ``v25.0``.
    *odd_fields* are the names of the profile's fields that could not be read.
    """

    outcome: Outcome | LookupFailure
    usage_percent: float | None
    token_digest: str
    graph_version: str | None = None
    odd_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """An entry and how it came about.

    *stored* is False if the entry could not be stored, so that the next caller
    will not find it. *is_forced* is True if a usable entry was stored and the
    caller wanted a newer one; *failure* is why there is no newer one, with
    Source.STALE.
    """

    entry: Entry
    source: Source
    stored: bool = True
    is_forced: bool = False
    failure: LookupFailure | None = None
