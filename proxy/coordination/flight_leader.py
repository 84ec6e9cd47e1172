"""Lead a flight: take the lease, ask Meta, and write what the lease still allows."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress

from proxy.coordination.flight_registry import FlightRegistry, FlightResult
from proxy.coordination.flight_rules import postponed
from proxy.domain.answer import Answer, Source
from proxy.domain.backoff import (
    FIRST_PAUSE,
    PLAIN,
    PauseRule,
    is_about_person,
    pause_after,
)
from proxy.domain.entry import Entry
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    StoreUnavailable,
)
from proxy.domain.freshness import merge, shorten_after_message
from proxy.domain.profile import Igsid
from proxy.logs import last_four
from proxy.storage.entries import EntryStore
from proxy.storage.snapshot import Lease, Snapshot

LEASE_MARGIN = 1.0
"""Seconds for which a lease lasts beyond its flight's deadline: time to write."""

log = logging.getLogger(__name__)

Fetch = Callable[[Igsid, float], Entry]
"""Asks Meta until a moment of the flights' own clock, and stamps the outcome."""


class FlightLeader:
    """Makes the fetch of a flight, as the only writer of a person's entry."""

    def __init__(
        self,
        store: EntryStore,
        registry: FlightRegistry,
        *,
        graph_timeout: float,
        lease_for: float,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        on_unstored: Callable[[Igsid], None],
    ) -> None:
        """*now* is epoch seconds, *monotonic* the clock of deadlines; in seconds.

        *on_unstored* is called with a person about whom Meta was asked, if the result
        is not stored.
        """
        self._store = store
        self._registry = registry
        self._graph_timeout = graph_timeout
        self._lease_for = lease_for
        self._now = now
        self._monotonic = monotonic
        self._on_unstored = on_unstored

    def start(
        self,
        igsid: Igsid,
        fetch: Fetch,
        is_done: Callable[[Entry | None, float], bool],
        rule: PauseRule = PLAIN,
    ) -> FlightResult:
        """Take the lease, read again, and fetch unless *is_done(entry, now)*.

        By *rule*, a note about the person keeps from taking it.

        Raises:
            StoreUnavailable: the store went away before Meta was asked.
        """
        fetch_deadline = self._monotonic() + self._graph_timeout
        lease = secrets.token_hex(8)
        # Entered before any caller can read the lease, so that every caller that reads
        # it finds this flight. If the lease is not taken, it is never read.
        shared, _ = self._registry.enter(igsid, lease)
        result: FlightResult = None
        try:
            snapshot = self._take(igsid, lease, rule)
            is_ours = snapshot.lease == lease
            log.debug(
                "lease taken" if is_ours else "lease is another's",
                extra={"person": last_four(igsid)},
            )
            if not is_ours:
                return snapshot
            if is_done(snapshot.entry, self._now()):
                self._store.release(igsid, lease)
                return snapshot
            result = self._fetch_and_store(
                igsid, lease, fetch, fetch_deadline, snapshot
            )
            return result
        except LookupFailure as failure:
            # Not shared with followers; they read the store again.
            return failure
        finally:
            self._registry.leave(igsid, lease, shared, result)

    def _take(self, igsid: Igsid, lease: Lease, rule: PauseRule) -> Snapshot:
        """Take the lease; after a lost reply, ask whether it has become ours."""
        try:
            return self._store.take(igsid, lease, self._lease_for, rule)
        except StoreUnavailable:
            return self._store.take(igsid, lease, self._lease_for, rule)

    def _fetch_and_store(
        self,
        igsid: Igsid,
        lease: Lease,
        fetch: Fetch,
        fetch_deadline: float,
        snapshot: Snapshot,
    ) -> FlightResult:
        """Fetch, and write only what the lease still allows.

        Once the lease is lost, Meta's reply may be older than an erase, a flush or a
        message of the person that has been acknowledged since, so it answers no one.

        Raises:
            LookupFailure: one that is not to be shared.
        """
        try:
            fetched = self._fetch_or_note(igsid, lease, fetch, fetch_deadline, snapshot)
        except LookupFailure as failure:
            if not failure.is_shared:
                raise
            return failure
        now = self._now()
        if snapshot.has_written:
            fetched = shorten_after_message(fetched)
        entry = merge(snapshot.entry, fetched, now)
        try:
            again = entry is not fetched
            is_stored = self._store.put(igsid, entry, lease, now, again=again)
        except StoreUnavailable:
            self._report_unstored(igsid)
            if self._monotonic() >= fetch_deadline + LEASE_MARGIN:
                return None  # Another has led since, or may have.
            return Answer(entry, Source.FETCHED, stored=False)
        if is_stored:
            return Answer(entry, Source.FETCHED)
        self._report_unstored(igsid)
        log.info("lease lost while Meta was asked", extra={"person": last_four(igsid)})
        return None

    def _report_unstored(self, igsid: Igsid) -> None:
        with suppress(StoreUnavailable):
            self._on_unstored(igsid)

    def _fetch_or_note(
        self,
        igsid: Igsid,
        lease: Lease,
        fetch: Fetch,
        fetch_deadline: float,
        snapshot: Snapshot,
    ) -> Entry:
        """Fetch; on a failure leave a note in place of the lease, and raise."""
        try:
            return self.fetch_by(fetch_deadline, igsid, fetch)
        except StoreUnavailable:
            # At the gate: that says nothing of Meta, and answers no caller.
            with suppress(StoreUnavailable):
                self._store.release(igsid, lease)
            raise
        except BaseException as exc:
            # After a bug of ours too: the followers must not repeat it in turn.
            failure = exc if isinstance(exc, LookupFailure) else GraphUnavailable()
            with suppress(StoreUnavailable):
                self._note_failure(igsid, lease, failure, snapshot)
            raise

    def _note_failure(
        self,
        igsid: Igsid,
        lease: Lease,
        failure: LookupFailure,
        snapshot: Snapshot,
    ) -> None:
        """Leave a note, which answers for longer the more failures were in a row.

        A failure about us leaves the row as it is, and answers for the shortest pause.
        *failure* then says when the pause is over, unless its cause does.
        """
        now = self._now()
        keeping = postponed(snapshot.entry, failure, now)
        if not failure.is_shared:
            self._store.release(igsid, lease, keeping=keeping, now=now)
            return
        failures, pause = snapshot.note.failures if snapshot.note else 0, FIRST_PAUSE
        if is_about_person(failure):
            failures += 1
            pause = pause_after(failures)
        is_noted = self._store.fail(
            igsid,
            failure,
            lease,
            failures=failures,
            pause=pause,
            keeping=keeping,
            now=now,
        )
        if is_noted and failure.retry_after is None:
            failure.retry_after = pause
        if failure.asked and not is_noted:
            self._report_unstored(igsid)

    def fetch_by(self, fetch_deadline: float, igsid: Igsid, fetch: Fetch) -> Entry:
        """Fetch, unless taking the lease has cost all the time there was."""
        if self._monotonic() >= fetch_deadline:
            raise GraphTimeout(asked=False)
        return fetch(igsid, fetch_deadline)
