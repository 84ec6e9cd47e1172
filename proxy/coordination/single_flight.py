"""At most one fetch per person: the lease, and waiting for it.

A flight is one fetch that several callers share. Its name is the lease under
which it is flown, a token that is never used twice. That name is all the joining
rule there is: a caller looks at the store first, and joins the flight whose lease
it has just seen there. An erase, a flush or a webhook deletes the lease, so whoever
comes after sees no such flight, in this process or in any other, however long its
leader still waits for Meta.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace

from proxy.coordination.bulkhead import Bulkhead
from proxy.domain.answer import Answer, Source
from proxy.domain.backoff import postpone
from proxy.domain.entry import Entry, Freshness
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    Overloaded,
    StoreUnavailable,
)
from proxy.domain.freshness import merge, shorten_after_message
from proxy.domain.profile import Igsid
from proxy.logs import last_four
from proxy.storage.entries import EntryStore, Lease, Snapshot

LEASE_OUTLIVES_CALL = 1.0
"""Seconds for which a lease lasts beyond its flight's deadline: time to write."""

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.005, 0.05, 1.5
"""Seconds between two looks at another process's flight, and how they grow."""

FLIGHTS_OF_A_CALLER = 3
"""How often one caller leads: again if the lease was lost while Meta was asked.

By an erase, which is rare, or because a full store has dropped it, which is not.
"""

NO_LEASE = ""
"""The name of the flights that are flown without a lease, while the store is away."""

EMPTY_SNAPSHOT = Snapshot(form=None, lease=None, note=None)

log = logging.getLogger(__name__)

Fetch = Callable[[Igsid, float], Entry]
"""Asks Meta until a moment of the flights' own clock, and stamps the outcome."""

_Landing = Answer | LookupFailure | Snapshot | None
"""How a flight ended for those who shared it: with an answer or a failure, with what
the store then held, or with nothing to tell, which means to look again oneself."""


def lease_for(graph_timeout: float) -> float:
    """For how long a lease is taken, in seconds."""
    return graph_timeout + LEASE_OUTLIVES_CALL


def max_wait(graph_timeout: float) -> float:
    """For how long a caller waits at most, in seconds.

    So that whoever follows a dead leader sees its successor's answer.
    """
    return 2 * lease_for(graph_timeout)


class Flight:
    """Lets one caller fetch, over all processes, and gives its answer to the others."""

    def __init__(
        self,
        store: EntryStore,
        *,
        graph_timeout: float,
        bulkhead: Bulkhead,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """*graph_timeout* in seconds; *now* is epoch seconds, *monotonic* monotonic."""
        self._store = store
        self._graph_timeout = graph_timeout
        self.lease_for = lease_for(graph_timeout)
        self._bulkhead = bulkhead
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = threading.Lock()
        self._flights: dict[Igsid, dict[Lease, Future[_Landing]]] = {}

    def deadline(self) -> float:
        """Until when whoever comes now waits, by the clock of the flights."""
        return self._monotonic() + max_wait(self._graph_timeout)

    def join(
        self,
        igsid: Igsid,
        seen: Snapshot,
        fetch: Fetch,
        *,
        deadline: float,
        force: bool = False,
        may_lead: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Answer by one shared *fetch*: lead, or follow whoever leads.

        *seen* is what the store held a moment ago, without a usable entry, or
        *force*: without one that the caller would have. Then the entry and the note
        in it are no answer, but a flight whose lease it shows is as good as one's
        own, and so is all that has come since. Goes round again while flights end
        with nothing to tell. *may_lead* raises a LookupFailure for a caller who
        may only follow.

        Raises:
            LookupFailure: Meta told nothing, or we are too many.
            StoreUnavailable: the store went away.
        """
        known = seen if force else EMPTY_SNAPSHOT
        with self._bulkhead.waiting():
            flown = 0
            while self._monotonic() < deadline:
                told = None if seen is known else self._told(seen, known)
                if isinstance(told, Answer):
                    return told
                if told is not None:
                    raise told
                if seen.lease:
                    landing = self._follow(igsid, seen.lease, deadline)
                elif flown < FLIGHTS_OF_A_CALLER:
                    may_lead()
                    landing = self._lead(igsid, fetch, deadline, known)
                    # Who was merely not the first to take the lease has not flown.
                    flown += landing is None
                else:
                    raise GraphUnavailable()
                match landing:
                    case Answer():
                        return landing
                    case LookupFailure():
                        raise landing
                    case Snapshot():
                        seen = landing
                    case None:
                        seen = self._store.read(igsid)
            raise GraphTimeout()

    def refresh(
        self, igsid: Igsid, fetch: Fetch, *, or_begin: bool = False
    ) -> Answer | LookupFailure | None:
        """Fetch anew what is stale, unless somebody does; None: there was no need.

        With *or_begin*, fetch what is not there too. Follows nobody, waits for no
        seat, and flies once.

        Raises:
            StoreUnavailable: the store went away.
        """

        def is_done(entry: Entry | None) -> bool:
            now = self._now()
            if not self._is_usable(entry):
                return not or_begin
            assert entry is not None  # It is usable.
            return now < entry.fresh_until or now < entry.refresh_after

        try:
            with self._bulkhead.seat(within=0.0):
                landing = self._take_off(igsid, fetch, is_done)
        except Overloaded as overloaded:
            return overloaded
        return None if isinstance(landing, Snapshot) else landing

    def without_store(self, igsid: Igsid, fetch: Fetch, *, deadline: float) -> Answer:
        """While the store is away: a few calls, shared within this process.

        Raises:
            LookupFailure: Meta told nothing, or we are too many.
        """
        with self._bulkhead.waiting():
            while self._monotonic() < deadline:
                # Any flight will do that this process has under way: if an erase
                # has taken its lease meanwhile, it shares nothing it learned.
                shared, is_first = self._enter_or_join(igsid, NO_LEASE, any_lease=True)
                if is_first:
                    return self._lead_without_store(igsid, shared, fetch, deadline)
                match self._wait(shared, deadline - self._monotonic()):
                    case Answer() as answer:
                        return answer
                    case LookupFailure() as failure:
                        raise failure
                    case _:
                        # The first found no seat; there may be one by now.
                        continue
        raise GraphTimeout()

    def _told(self, seen: Snapshot, known: Snapshot) -> Answer | LookupFailure | None:
        """What *seen* answers a caller to whom *known* was no answer."""
        is_new = self._is_new(known)
        if seen.note and (known.entry or not is_new(seen.entry)):
            # Beside an entry that was known, and is kept with its refresh postponed,
            # the note is the news.
            return seen.note
        if seen.entry and is_new(seen.entry):
            return Answer(seen.entry, Source.COLLAPSED)
        return None

    def _is_new(self, known: Snapshot) -> Callable[[Entry | None], bool]:
        """Whether an entry tells more than the one that was *known*.

        One that is merely to be refreshed later does not: that was held back, and
        Meta was not asked. If it was and told nothing, what it said is another.
        """

        def is_new(entry: Entry | None) -> bool:
            if entry is None or not self._is_usable(entry):
                return False
            before = known.entry
            return before is None or before != replace(
                entry, refresh_after=before.refresh_after
            )

        return is_new

    def _lead(
        self, igsid: Igsid, fetch: Fetch, deadline: float, known: Snapshot
    ) -> _Landing:
        """Take a seat and the lease, and fly; or tell who was faster.

        Only with the time of a whole flight left: a flight cut short would
        fail for everybody who has joined it.
        """
        try:
            with self._bulkhead.seat():
                if self._monotonic() + self._graph_timeout > deadline:
                    return GraphTimeout(asked=False)
                is_new = self._is_new(known)
                return self._take_off(igsid, fetch, is_new, known.note)
        except Overloaded as overloaded:
            return overloaded

    def _take_off(
        self,
        igsid: Igsid,
        fetch: Fetch,
        is_done: Callable[[Entry | None], bool],
        known_note: LookupFailure | None = None,
    ) -> _Landing:
        """Take the lease, look again, and fly unless *is_done* says that is in vain."""
        fetch_deadline = self._monotonic() + self._graph_timeout
        lease = secrets.token_hex(8)
        # Entered before anybody can see the lease, so that whoever sees it finds
        # this flight. If the lease is not taken, nobody ever does.
        shared, _ = self._enter_or_join(igsid, lease)
        landing: _Landing = None
        try:
            seen = self._take(igsid, lease, known_note)
            if seen.lease != lease:
                return seen
            if is_done(seen.entry):
                self._store.release(igsid, lease)
                return seen
            landing = self._fly(igsid, lease, fetch, fetch_deadline, seen)
            return landing
        except LookupFailure as failure:
            # One that is ours alone: the others look again for themselves.
            return failure
        finally:
            self._leave(igsid, lease, shared, landing)

    def _take(
        self, igsid: Igsid, lease: Lease, known_note: LookupFailure | None
    ) -> Snapshot:
        """Take the lease; after a lost reply, ask whether it has become ours."""
        try:
            return self._store.take(igsid, lease, self.lease_for, known_note)
        except StoreUnavailable:
            return self._store.take(igsid, lease, self.lease_for, known_note)

    def _fly(
        self,
        igsid: Igsid,
        lease: Lease,
        fetch: Fetch,
        fetch_deadline: float,
        seen: Snapshot,
    ) -> _Landing:
        """Fetch, and write only what the lease still allows.

        Once the lease is lost, what Meta said may be older than an erase, a
        flush or a message of the person that has been acknowledged since, so
        nobody is answered with it.

        Raises:
            LookupFailure: one that is not to be shared.
        """
        failure: LookupFailure | None = GraphUnavailable()
        try:
            learned = self._fetch_by(fetch_deadline, igsid, fetch)
            failure = None
        except LookupFailure as exc:
            failure = exc
            if not failure.is_shared:
                raise
            return failure
        except StoreUnavailable:
            # At the gate: that says nothing of Meta, and is nobody's answer.
            failure = None
            with suppress(StoreUnavailable):
                self._store.release(igsid, lease)
            raise
        finally:
            # After a bug of ours too: those who wait must not repeat it in turn.
            if failure:
                with suppress(StoreUnavailable):
                    self._fail(igsid, lease, failure, seen.entry)
        now = self._now()
        if seen.has_written:
            learned = shorten_after_message(learned)
        entry = merge(seen.entry, learned, now)
        try:
            again = entry is not learned
            kept = self._store.put(igsid, entry, lease, now, again=again)
        except StoreUnavailable:
            if self._monotonic() >= fetch_deadline + LEASE_OUTLIVES_CALL:
                return None  # Another has led since, or may have.
            return Answer(entry, Source.FETCHED, stored=False)
        if kept:
            return Answer(entry, Source.FETCHED)
        log.info("lease lost while Meta was asked", extra={"person": last_four(igsid)})
        return None

    def _fail(
        self,
        igsid: Igsid,
        lease: Lease,
        failure: LookupFailure,
        known: Entry | None,
    ) -> None:
        now = self._now()
        keeping = None
        if known and known.freshness(now) is Freshness.STALE:
            wait = None if failure.asked else failure.retry_after or 0.0
            keeping = postpone(known, now, wait, failure.said)
        if failure.is_shared:
            self._store.fail(igsid, failure, lease, keeping=keeping, now=now)
        elif keeping:
            self._store.put(igsid, keeping, lease, now, again=True)
        else:
            self._store.release(igsid, lease)

    def _fetch_by(self, fetch_deadline: float, igsid: Igsid, fetch: Fetch) -> Entry:
        """Fetch, unless taking the lease has cost all the time there was."""
        if self._monotonic() >= fetch_deadline:
            raise GraphTimeout(asked=False)
        return fetch(igsid, fetch_deadline)

    def _follow(self, igsid: Igsid, lease: Lease, deadline: float) -> _Landing:
        """Wait for a flight: with those of this process, or as the one who looks."""
        shared, is_first = self._enter_or_join(igsid, lease)
        if not is_first:
            return self._wait(shared, deadline - self._monotonic())
        landing: _Landing = None
        try:
            landing = self._watch(igsid, lease, deadline)
        finally:
            self._leave(igsid, lease, shared, landing)
        return landing or GraphTimeout()

    def _watch(self, igsid: Igsid, lease: Lease, deadline: float) -> Snapshot | None:
        """Look at another process's flight, the only one here to do so, until it ends.

        The look that finds the lease gone is later than anybody's who joined
        on having seen it, so all of them may use what it found. None: time is
        up for us, though maybe not for those who joined.
        """
        pause = FIRST_PAUSE
        while self._monotonic() < deadline:
            self._sleep(pause)
            seen = self._store.read(igsid)
            if seen.lease != lease:
                return seen
            pause = min(pause * GROWTH, LONGEST_PAUSE)
        return None

    def _lead_without_store(
        self, igsid: Igsid, shared: Future[_Landing], fetch: Fetch, deadline: float
    ) -> Answer:
        landing: _Landing = None
        try:
            with self._bulkhead.seat_without_store():
                try:
                    fetch_deadline = min(
                        self._monotonic() + self._graph_timeout, deadline
                    )
                    entry = self._fetch_by(fetch_deadline, igsid, fetch)
                    landing = Answer(entry, Source.FETCHED, stored=False)
                    return landing
                except LookupFailure as failure:
                    landing = failure
                    raise
        finally:
            self._leave(igsid, NO_LEASE, shared, landing)

    def _is_usable(self, entry: Entry | None) -> bool:
        return (
            entry is not None and entry.freshness(self._now()) is not Freshness.EXPIRED
        )

    def _wait(self, shared: Future[_Landing], seconds: float) -> _Landing:
        """What those share who are not the first, for as long as they can wait."""
        try:
            landing = shared.result(timeout=max(0.0, seconds))
        except TimeoutError:
            return GraphTimeout()
        if isinstance(landing, Answer):
            return Answer(landing.entry, Source.COLLAPSED, landing.stored)
        return landing

    def _enter_or_join(
        self, igsid: Igsid, lease: Lease, *, any_lease: bool = False
    ) -> tuple[Future[_Landing], bool]:
        """The flight under *lease* in this process; whether we are its first."""
        with self._lock:
            flights = self._flights.setdefault(igsid, {})
            shared = flights.get(lease)
            if not shared and any_lease:
                shared = next(iter(flights.values()), None)
            if shared:
                return shared, False
            shared = flights[lease] = Future()
            return shared, True

    def _leave(
        self,
        igsid: Igsid,
        lease: Lease,
        shared: Future[_Landing],
        landing: _Landing,
    ) -> None:
        with self._lock:
            flights = self._flights[igsid]
            del flights[lease]
            if not flights:
                del self._flights[igsid]
        shared.set_result(landing)
