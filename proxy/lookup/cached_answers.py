"""Answers that need no call to Meta: from local copies and from reads of the store."""

from __future__ import annotations

from collections.abc import Callable

from proxy.domain.answer import Answer, Directives, Source
from proxy.domain.entry import Entry, Freshness
from proxy.domain.failures import LookupFailure, NotCached, StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.lookup.refresher import Refresher
from proxy.storage.entries import EntryStore
from proxy.storage.snapshot import Snapshot

ReadResult = Snapshot | StoreUnavailable
"""The result of reading about a person: a snapshot, or that the store is away."""


class CachedAnswers:
    """Answers about one Page's people from the cache alone."""

    def __init__(
        self,
        *,
        store: EntryStore,
        refresher: Refresher,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._refresher = refresher
        self._now = now

    def recall(self, igsid: Igsid, directives: Directives) -> Answer | None:
        """Answer from this process's own local copy, while that is fresh. No trip."""
        entry = self._store.recall_entry(igsid)
        if entry and entry.freshness(self._now()) is Freshness.FRESH:
            return self.hit(entry, directives)
        return None

    def read(self, igsid: Igsid) -> ReadResult:
        """Read what is stored about a person, in one trip."""
        try:
            return self._store.read(igsid)
        except StoreUnavailable as away:
            return away

    def answer(
        self, igsid: Igsid, read_result: ReadResult, directives: Directives
    ) -> Answer | None:
        """Answer from *read_result*; None means that Meta must be asked.

        A stale entry is refreshed afterwards, unless the caller forbids to fetch.

        Raises:
            NotCached: Meta may not be asked.
        """
        entry = self.usable_entry(igsid, read_result)
        answer = self.hit(entry, directives) if entry else None
        if directives.only_if_cached:
            if answer is None:
                raise NotCached()
        elif answer and isinstance(read_result, Snapshot):
            self._refresher.refresh_later(igsid, answer.entry, read_result)
        return answer

    def hit(self, entry: Entry, directives: Directives) -> Answer | None:
        """Answer with *entry*, if the caller's *directives* accept its age."""
        if directives.allow(entry, self._now()):
            return Answer(entry, Source.HIT)
        return None

    def usable_entry(self, igsid: Igsid, read_result: ReadResult) -> Entry | None:
        """The usable entry in *read_result*; in an outage, that of the local copy."""
        if isinstance(read_result, StoreUnavailable):
            return self.usable_in_outage(igsid)
        return usable(read_result.entry, self._now())

    def usable_in_outage(self, igsid: Igsid) -> Entry | None:
        """The usable entry of this process's last local copy. No trip."""
        return usable(self._store.recall_in_outage(igsid), self._now())

    def read_again(self, igsid: Igsid) -> Entry | None:
        """The usable entry of now: the one read before may have been erased since."""
        return self.usable_entry(igsid, self.read(igsid))


def usable(entry: Entry | None, now: float) -> Entry | None:
    """*entry*, unless it has expired."""
    if entry and entry.freshness(now) is not Freshness.EXPIRED:
        return entry
    return None


def in_place_of(failure: LookupFailure, entry: Entry | None) -> Answer:
    """Answer with the cached *entry*, because Meta returned nothing newer.

    Raises:
        LookupFailure: the *failure*, if there is no such entry.
    """
    if entry is None:
        raise failure
    return Answer(entry, Source.STALE, failure=failure)
