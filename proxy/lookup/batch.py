"""Many people in one request: read together, fetched in parallel, then read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from proxy.coordination.bulkhead import CALLS_WITHOUT_STORE, SEAT_WAIT, Bulkhead
from proxy.coordination.single_flight import FLIGHTS_OF_A_CALLER
from proxy.domain.answer import Answer, Directives
from proxy.domain.entry import Entry
from proxy.domain.failures import (
    GraphUnavailable,
    LookupFailure,
    Overloaded,
    StoreUnavailable,
)
from proxy.domain.profile import Igsid
from proxy.lookup.cached_answers import CachedAnswers, ReadResult, in_place_of, usable
from proxy.lookup.shared_fetch import SharedFetch
from proxy.storage.entries import EntryStore
from proxy.storage.snapshot import Snapshot

T = TypeVar("T")

Result = Answer | LookupFailure
"""Each person's result in a batch: an answer, or the failure in its place."""


class BatchLookup:
    """Answers about many of one Page's people at once."""

    def __init__(
        self,
        *,
        store: EntryStore,
        cached: CachedAnswers,
        shared_fetch: SharedFetch,
        bulkhead: Bulkhead,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._cached = cached
        self._shared_fetch = shared_fetch
        self._bulkhead = bulkhead
        self._now = now

    def find_many(
        self,
        igsids: Sequence[Igsid],
        *,
        client: str | None,
        directives: Directives,
        deadline: float,
    ) -> dict[Igsid, Result]:
        """Find each of *igsids*, and return their results in the same order.

        Fetching can take seconds, so all answers are checked against the store
        afterwards, and people whose entry has gone meanwhile are found again.
        """
        fetch = partial(
            self._shared_fetch.fetch,
            client=client,
            directives=directives,
            deadline=deadline,
        )
        found: dict[Igsid, Result] = {}
        pending = list(igsids)
        for _ in range(FLIGHTS_OF_A_CALLER):
            cached, missing = self._read(pending, directives)
            found |= cached | self._fetch_missing(missing, fetch)
            pending = self._bring_up_to_date(found) if missing else []
            if not pending:
                break
        found |= dict.fromkeys(pending, GraphUnavailable())
        return {igsid: found[igsid] for igsid in igsids}

    def _read(
        self, igsids: list[Igsid], directives: Directives
    ) -> tuple[dict[Igsid, Result], dict[Igsid, ReadResult]]:
        """The results from the cache; and the read results of the missing people."""
        found: dict[Igsid, Result] = {}
        for igsid in igsids:
            if answer := self._cached.recall(igsid, directives):
                found[igsid] = answer
        reads = self._store.read_many([igsid for igsid in igsids if igsid not in found])
        missing: dict[Igsid, ReadResult] = {}
        for igsid, read_result in reads.items():
            result = _result_of(
                partial(self._cached.answer, igsid, read_result, directives)
            )
            if result is None:
                missing[igsid] = read_result
            else:
                found[igsid] = result
        return found, missing

    def _fetch_missing(
        self,
        missing: dict[Igsid, ReadResult],
        fetch: Callable[[Igsid, ReadResult], Answer],
    ) -> dict[Igsid, Result]:
        if not missing:
            return {}
        order, refused = fetch_order(missing)
        found = {igsid: self._overloaded(igsid, missing[igsid]) for igsid in refused}
        jobs = [
            partial(_result_of, partial(fetch, igsid, missing[igsid]))
            for igsid in order
        ]
        try:
            fetched = self._bulkhead.run_parallel(jobs)
        except Overloaded:
            fetched = [self._overloaded(igsid, missing[igsid]) for igsid in order]
        return found | dict(zip(order, fetched, strict=True))

    def _overloaded(self, igsid: Igsid, read_result: ReadResult) -> Result:
        """The cached entry instead of a call to Meta, or that there are too many."""
        entry = self._cached.usable_entry(igsid, read_result)
        return _result_of(
            partial(in_place_of, Overloaded(retry_after=SEAT_WAIT), entry)
        )

    def _bring_up_to_date(self, found: dict[Igsid, Result]) -> list[Igsid]:
        """Bring answers up to date with the store; return the people to find again.

        While the batch waited, some people may have been erased, may have written to
        the business, or their pictures may have expired.
        """
        answers = {i: one for i, one in found.items() if isinstance(one, Answer)}
        overtaken = []
        for igsid, read_result in self._store.read_many(list(answers)).items():
            answer = answers[igsid]
            entry = usable(entry_after_wait(answer, read_result), self._now())
            if entry is None:
                overtaken.append(igsid)
            else:
                found[igsid] = replace(answer, entry=entry)
        return overtaken


def fetch_order(
    missing: dict[Igsid, ReadResult],
) -> tuple[list[Igsid], list[Igsid]]:
    """The people to fetch, those without a flight first; and those to refuse at once.

    While the store is away there are few calls, so the rest of a batch need not
    try: thousands that did would keep the process from its hits.
    """
    away = [i for i in missing if isinstance(missing[i], StoreUnavailable)]
    refused = dict.fromkeys(away[CALLS_WITHOUT_STORE:])
    order = [igsid for igsid in missing if igsid not in refused]
    order.sort(key=lambda igsid: _is_flying(missing[igsid]))
    return order, list(refused)


def entry_after_wait(answer: Answer, read_result: ReadResult) -> Entry | None:
    """The entry that is stored now; the *answer*'s own if that cannot be known."""
    if answer.stored and isinstance(read_result, Snapshot):
        return read_result.entry
    return answer.entry


def _is_flying(read_result: ReadResult) -> bool:
    """Whether another caller's fetch about the person is under way."""
    return isinstance(read_result, Snapshot) and read_result.lease is not None


def _result_of(find: Callable[[], T]) -> T | LookupFailure:
    """Return the result of *find*, or the failure that it raises."""
    try:
        return find()
    except LookupFailure as failure:
        return failure
