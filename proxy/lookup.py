"""One question, one answer: who is this person, and what is known of them here."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from proxy.cache.flight import Flight
from proxy.cache.store import EntryStore, Erased, Flushed, Seen
from proxy.outcomes import Answer, Igsid, Outcome, Profile, Reason, StoredOutcome
from proxy.policy import Lifetimes, stamp

__all__ = ["Erased", "Flushed", "ProfileLookup", "Seen", "What"]

Ask = Callable[[Igsid, float], Outcome]
"""Asks Meta about a person, in at most so many seconds."""


class What(StrEnum):
    """What a flush is about. A reason flushes the refusals for that reason."""

    ALL = "all"
    PROFILES = "profiles"
    REFUSALS = "refusals"
    CONSENT_REQUIRED = Reason.CONSENT_REQUIRED.value
    BLOCKED = Reason.BLOCKED.value
    NOT_FOUND = Reason.NOT_FOUND.value
    UNAVAILABLE = Reason.UNAVAILABLE.value

    def covers(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Profile):
            return self in (What.ALL, What.PROFILES)
        return self in (What.ALL, What.REFUSALS) or self.value == outcome.reason.value


class ProfileLookup:
    """Everything the doors ask for, of one Page's people."""

    def __init__(
        self,
        *,
        store: EntryStore,
        flight: Flight,
        ask: Ask,
        lifetimes: Lifetimes,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        """*clock* is epoch seconds; *jitter* draws from [0, 1)."""
        self._store = store
        self._flight = flight
        self._ask = ask
        self._lifetimes = lifetimes
        self._clock = clock
        self._jitter = jitter

    def find(self, igsid: Igsid) -> Answer:
        """Answer from the cache if it may be used, and from Meta if not.

        A fresh entry costs one read of the store. Anything else costs one call
        to Meta, shared by everybody who asks meanwhile.

        Raises:
            LookupFailure: nothing usable is stored, and Meta told nothing.
        """
        return self._flight.find(igsid, self._fetch)

    def inspect(self, igsid: Igsid) -> Seen:
        """What is stored about a person. Asks nobody.

        Raises:
            StoreUnavailable: nobody can tell just now.
        """
        return self._store.look(igsid)

    def erase(self, igsid: Igsid) -> Erased:
        """Drop what is stored about one person, and whatever is under way.

        Raises:
            StoreUnavailable: it cannot be promised that anything is gone.
        """
        return self._store.erase(igsid)

    def flush(
        self, what: What, *, older_than: float | None = None, dry_run: bool = False
    ) -> Flushed:
        """Drop the entries *what* covers that were fetched *older_than* seconds ago.

        Entries that cannot be read go with ``all``, whatever their age.

        Raises:
            StoreUnavailable: some of them may still be there.
        """
        if what is What.ALL and older_than is None:
            return self._store.flush(None, dry_run=dry_run)
        fetched_by = self._clock() - (older_than or 0.0)

        def matches(entry: StoredOutcome | None) -> bool:
            if entry is None:
                return what is What.ALL
            return what.covers(entry.outcome) and entry.fetched_at <= fetched_by

        return self._store.flush(matches, dry_run=dry_run)

    def check_store(self) -> None:
        """Do nothing, if the store is there.

        Raises:
            StoreUnavailable: it is not.
        """
        self._store.ping()

    def _fetch(self, igsid: Igsid, within: float) -> StoredOutcome:
        outcome = self._ask(igsid, within)
        return stamp(outcome, self._clock(), self._lifetimes, self._jitter())
