"""A miss: one fetch for all who ask meanwhile, and the cached entry if it fails."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial

from proxy.coordination.single_flight import SingleFlight
from proxy.domain.answer import Answer, Directives, Source
from proxy.domain.backoff import FORCED, PLAIN, PauseRule
from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.lookup.cached_answers import CachedAnswers, ReadResult, in_place_of
from proxy.lookup.fetcher import Fetcher
from proxy.storage.snapshot import Snapshot


class SharedFetch:
    """Answers about one Page's people by fetches that concurrent callers share."""

    def __init__(
        self, *, flight: SingleFlight, fetcher: Fetcher, cached: CachedAnswers
    ) -> None:
        self._flight = flight
        self._fetcher = fetcher
        self._cached = cached

    def deadline(self) -> float:
        """The time until which a caller who comes now waits, by the flights' clock."""
        return self._flight.deadline()

    def fetch(
        self,
        igsid: Igsid,
        read_result: ReadResult,
        *,
        client: str | None,
        directives: Directives,
        deadline: float,
    ) -> Answer:
        """Fetch a person by the store's lease, or without the store while it is away.

        Raises:
            LookupFailure: Meta returned nothing, and no usable entry is cached.
        """
        if isinstance(read_result, Snapshot):
            with suppress(StoreUnavailable):
                return self._fetch_with_store(
                    igsid,
                    read_result,
                    client=client,
                    directives=directives,
                    deadline=deadline,
                )
        return self._fetch_without_store(igsid, client, directives, deadline)

    def join(
        self,
        igsid: Igsid,
        snapshot: Snapshot,
        *,
        client: str | None,
        deadline: float,
        rule: PauseRule,
    ) -> Answer:
        """Join the flight about a person: lead it at *client*'s expense, or follow it.

        By a *rule* of forced callers, the entry in *snapshot* is no answer.

        Raises:
            LookupFailure: Meta returned nothing, or there are too many callers.
            StoreUnavailable: the store went away.
        """
        return self._flight.join(
            igsid,
            snapshot,
            partial(self._fetcher.fetch, client=client, is_forced=rule is not PLAIN),
            deadline=deadline,
            may_lead=partial(self._fetcher.check_allowance, client),
            rule=rule,
        )

    def _fetch_with_store(
        self,
        igsid: Igsid,
        snapshot: Snapshot,
        *,
        client: str | None,
        directives: Directives,
        deadline: float,
    ) -> Answer:
        unwanted = self._cached.usable_entry(igsid, snapshot)
        is_forced = unwanted is not None or directives.no_cache
        try:
            answer = self.join(
                igsid,
                snapshot,
                client=client,
                deadline=deadline,
                rule=FORCED if is_forced else PLAIN,
            )
        except LookupFailure as failure:
            entry = self._cached.read_again(igsid) if unwanted else None
            return in_place_of(failure, entry)
        return newer_than(unwanted, answer)

    def _fetch_without_store(
        self,
        igsid: Igsid,
        client: str | None,
        directives: Directives,
        deadline: float,
    ) -> Answer:
        """Answer from the last local copy here, or by one of the few calls allowed."""
        entry = self._cached.usable_in_outage(igsid)
        if entry and (hit := self._cached.hit(entry, directives)):
            return hit
        try:
            self._fetcher.acquire_without_store()
            answer = self._flight.without_store(
                igsid,
                partial(self._fetcher.fetch_without_store, client=client),
                deadline=deadline,
            )
        except LookupFailure as failure:
            entry = self._cached.read_again(igsid) if entry else None
            return in_place_of(failure, entry)
        return replace(answer, is_forced=entry is not None)


def newer_than(unwanted: Entry | None, answer: Answer) -> Answer:
    """*answer*, labelled by whether it is newer than the *unwanted* usable entry."""
    if unwanted is None:
        return answer
    entry = answer.entry
    if entry.refresh_after and entry.fetched_at == unwanted.fetched_at:
        # Meta does not show the person, which delays a refresh, and no more.
        return replace(answer, source=Source.STALE)
    return replace(answer, is_forced=True)
