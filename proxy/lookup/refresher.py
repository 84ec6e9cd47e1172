"""Fetches that no caller waits for: the refresh of a stale entry, and the prefetch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial

from proxy.coordination.gate import Gate
from proxy.coordination.gate_state import RefreshCounter
from proxy.coordination.single_flight import SingleFlight
from proxy.domain.answer import Answer
from proxy.domain.entry import Entry, Freshness
from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.logs import caller, code_of, in_background, last_four
from proxy.lookup.fetcher import Fetcher
from proxy.observability.metrics import PageMetrics
from proxy.storage.snapshot import Snapshot

log = logging.getLogger(__name__)


class Refresher:
    """Fetches one Page's people in the background, charged to no API key."""

    def __init__(
        self,
        *,
        page: str,
        flight: SingleFlight,
        fetcher: Fetcher,
        gate: Gate,
        metrics: PageMetrics,
        submit: Callable[[Hashable, Callable[[], None]], bool],
        now: Callable[[], float],
    ) -> None:
        """*submit* runs a job in the background, unless its key is pending there."""
        self._page = page
        self._flight = flight
        self._fetch = partial(fetcher.fetch, in_background=True)
        self._gate = gate
        self._metrics = metrics
        self._submit = submit
        self._now = now

    def refresh_later(self, igsid: Igsid, entry: Entry, snapshot: Snapshot) -> None:
        """Refresh *entry*, read in *snapshot*, in the background if that is due."""
        if is_refresh_due(entry, snapshot, self._now()):
            job = in_background("refresh", partial(self._refresh, igsid))
            self._submit(igsid, job)

    def prefetch_later(self, igsid: Igsid) -> None:
        """Fetch a person, unless a fresh entry is stored by then."""
        job = in_background("prefetch", partial(self._prefetch, igsid))
        self._submit(("prefetch", igsid), job)

    def _prefetch(self, igsid: Igsid) -> None:
        """Callers who ask meanwhile share it; while a note answers, no call is made."""
        with suppress(StoreUnavailable):
            self._flight.refresh(igsid, self._fetch, or_begin=True)

    def _refresh(self, igsid: Igsid) -> None:
        """Refresh, log and count. No caller receives the result."""
        result: Answer | LookupFailure | StoreUnavailable | None
        try:
            result = self._flight.refresh(igsid, self._fetch)
        except StoreUnavailable as away:
            result = away
        if result is None or (isinstance(result, LookupFailure) and not result.asked):
            return  # There was no need, or it was held back.
        if isinstance(result, Exception):
            ended, counter = "failed", RefreshCounter.REFRESH_FAILED
            line = {"person": last_four(igsid), "result": code_of(result)}
            extra = caller() | {"page": self._page} | line
            log.info("refresh failed", extra=extra)
        else:
            ended, counter = "succeeded", RefreshCounter.REFRESHED
        self._metrics.refreshes[ended] += 1
        with suppress(StoreUnavailable):
            self._gate.count(counter)


def is_refresh_due(entry: Entry, snapshot: Snapshot, now: float) -> bool:
    """Whether *entry* is stale, due, and no other fetch is under way.

    Whether a note still answers is only known when the lease is taken.
    """
    is_due = entry.freshness(now) is Freshness.STALE and entry.refresh_after <= now
    return is_due and snapshot.lease is None
