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

from proxy.cache.store import EntryStore, Lease, Seen
from proxy.logs import last_four
from proxy.outcomes import (
    Answer,
    Freshness,
    GraphTimeout,
    GraphUnavailable,
    Igsid,
    LookupFailure,
    Overloaded,
    Source,
    StoredOutcome,
    StoreUnavailable,
)

LEASE_OUTLIVES_CALL = 1.0
"""Seconds for which a lease lasts beyond its flight's deadline: time to write."""

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.005, 0.05, 1.5
"""Seconds between two looks at another process's flight, and how they grow."""

CALLS_WITHOUT_STORE = 4
"""Calls to Meta at once, in each process, while the store is away."""

NO_LEASE = ""
"""The name of the flights that are flown without a lease, while the store is away."""

log = logging.getLogger(__name__)

Fetch = Callable[[Igsid, float], StoredOutcome]
"""Asks Meta, in at most so many seconds, and stamps the outcome."""

_Landing = Answer | LookupFailure | Seen | None
"""How a flight ended for those who shared it: with an answer or a failure, with what
the store then held, or with nothing to tell, which means to look again oneself."""


class Flight:
    """Lets one caller fetch, over all processes, and gives its answer to the others."""

    def __init__(
        self,
        store: EntryStore,
        *,
        graph_timeout: float,
        wall: Callable[[], float],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """*graph_timeout* in seconds; *wall* is epoch seconds, *clock* monotonic."""
        self._store = store
        self._graph_timeout = graph_timeout
        self._lease_for = graph_timeout + LEASE_OUTLIVES_CALL
        # So that whoever follows a dead leader sees its successor's answer.
        self._patience = 2 * graph_timeout + 2 * LEASE_OUTLIVES_CALL
        self._wall = wall
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._flights: dict[tuple[Igsid, Lease], Future[_Landing]] = {}
        self._seats = threading.BoundedSemaphore(CALLS_WITHOUT_STORE)

    def find(self, igsid: Igsid, fetch: Fetch) -> Answer:
        """Answer from the store if that is fresh, and else by one shared *fetch*.

        A hit costs one trip to the store. A caller waits at most twice the
        deadline of a flight and two seconds.

        Raises:
            LookupFailure: nothing fresh is stored, and Meta told nothing.
        """
        try:
            seen = self._store.look(igsid)
            if entry := self._fresh(seen):
                return Answer(entry, Source.HIT)
            return self._join(igsid, seen, fetch)
        except StoreUnavailable:
            return self._without_store(igsid, fetch)

    def _join(self, igsid: Igsid, seen: Seen, fetch: Fetch) -> Answer:
        """Lead or follow, and go round again while flights end with nothing to tell."""
        give_up_at = self._clock() + self._patience
        led = 0
        while self._clock() < give_up_at:
            if entry := self._fresh(seen):
                return Answer(entry, Source.COLLAPSED)
            if seen.note:
                raise seen.note
            if seen.lease:
                landing = self._follow(igsid, seen.lease, give_up_at)
            else:
                led += 1
                landing = self._lead(igsid, fetch, give_up_at, last_try=led == 2)
            match landing:
                case Answer():
                    return landing
                case LookupFailure():
                    raise landing
                case Seen():
                    seen = landing
                case None:
                    seen = self._store.look(igsid)
        raise GraphTimeout()

    def _lead(
        self, igsid: Igsid, fetch: Fetch, give_up_at: float, *, last_try: bool
    ) -> _Landing:
        """Take the lease and fly; or tell who was faster.

        Only with the time of a whole flight left: a flight cut short would
        fail for everybody who has joined it.
        """
        deadline = self._clock() + self._graph_timeout
        if deadline > give_up_at:
            return GraphTimeout()
        lease = secrets.token_hex(8)
        # Entered before anybody can see the lease, so that whoever sees it finds
        # this flight. If the lease is not taken, nobody ever does.
        shared, _ = self._enter_or_join(igsid, lease)
        landing: _Landing = None
        try:
            seen = self._take(igsid, lease)
            if seen.lease != lease:
                return seen
            if entry := self._fresh(seen):
                self._store.release(igsid, lease)
                return Answer(entry, Source.HIT)
            landing = self._fly(igsid, lease, fetch, deadline, last_try=last_try)
            return landing
        finally:
            self._leave(igsid, lease, shared, landing)

    def _take(self, igsid: Igsid, lease: Lease) -> Seen:
        """Take the lease; after a lost reply, ask whether it has become ours."""
        try:
            return self._store.take(igsid, lease, self._lease_for)
        except StoreUnavailable:
            return self._store.take(igsid, lease, self._lease_for)

    def _fly(
        self,
        igsid: Igsid,
        lease: Lease,
        fetch: Fetch,
        deadline: float,
        *,
        last_try: bool,
    ) -> _Landing:
        """Fetch, and write only what the lease still allows.

        Once the lease is lost, what Meta said may be older than an erase, a
        flush or a message of the person that has been acknowledged since, so
        nobody is answered with it.
        """
        failure: LookupFailure | None = GraphUnavailable()
        try:
            entry = self._fetch_by(deadline, igsid, fetch)
            failure = None
        except LookupFailure as exc:
            failure = exc
            return failure
        finally:
            # After a bug of ours too: those who wait must not repeat it in turn.
            if failure:
                with suppress(StoreUnavailable):
                    self._store.leave_note(igsid, failure, lease)
        try:
            kept = self._store.put(igsid, entry, lease, self._wall())
        except StoreUnavailable:
            return Answer(entry, Source.FETCHED, stored=False)
        if kept:
            return Answer(entry, Source.FETCHED)
        log.info("lease lost while Meta was asked", extra={"person": last_four(igsid)})
        return GraphUnavailable() if last_try else None

    def _fetch_by(self, deadline: float, igsid: Igsid, fetch: Fetch) -> StoredOutcome:
        """Fetch, unless taking the lease has cost all the time there was."""
        left = deadline - self._clock()
        if left <= 0:
            raise GraphTimeout()
        return fetch(igsid, left)

    def _follow(self, igsid: Igsid, lease: Lease, give_up_at: float) -> _Landing:
        """Wait for a flight: with those of this process, or as the one who looks."""
        shared, is_first = self._enter_or_join(igsid, lease)
        if not is_first:
            return self._wait(shared, give_up_at - self._clock())
        landing: _Landing = None
        try:
            landing = self._watch(igsid, lease, give_up_at)
        finally:
            self._leave(igsid, lease, shared, landing)
        return landing or GraphTimeout()

    def _watch(self, igsid: Igsid, lease: Lease, give_up_at: float) -> Seen | None:
        """Look at another process's flight, the only one here to do so, until it ends.

        The look that finds the lease gone is later than anybody's who joined
        on having seen it, so all of them may use what it found. None: time is
        up for us, though maybe not for those who joined.
        """
        pause = FIRST_PAUSE
        while self._clock() < give_up_at:
            self._sleep(pause)
            seen = self._store.look(igsid)
            if seen.lease != lease:
                return seen
            pause = min(pause * GROWTH, LONGEST_PAUSE)
        return None

    def _without_store(self, igsid: Igsid, fetch: Fetch) -> Answer:
        """While the store is away: a few calls, shared within this process."""
        shared, is_first = self._enter_or_join(igsid, NO_LEASE)
        if is_first:
            landing: _Landing = None
            try:
                landing = self._fetch_in_a_seat(igsid, fetch)
            finally:
                self._leave(igsid, NO_LEASE, shared, landing)
        else:
            landing = self._wait(shared, self._patience)
        if isinstance(landing, Answer):
            return landing
        raise landing if isinstance(landing, LookupFailure) else GraphUnavailable()

    def _fetch_in_a_seat(self, igsid: Igsid, fetch: Fetch) -> Answer | LookupFailure:
        if not self._seats.acquire(blocking=False):
            return Overloaded(retry_after=1.0)
        try:
            entry = fetch(igsid, self._graph_timeout)
            return Answer(entry, Source.FETCHED, stored=False)
        except LookupFailure as failure:
            return failure
        finally:
            self._seats.release()

    def _fresh(self, seen: Seen) -> StoredOutcome | None:
        entry = seen.entry
        if entry and entry.freshness(self._wall()) is Freshness.FRESH:
            return entry
        return None

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
        self, igsid: Igsid, lease: Lease
    ) -> tuple[Future[_Landing], bool]:
        """The flight under *lease* in this process; whether we are its first."""
        with self._lock:
            shared = self._flights.get((igsid, lease))
            if shared:
                return shared, False
            shared = self._flights[igsid, lease] = Future()
            return shared, True

    def _leave(
        self,
        igsid: Igsid,
        lease: Lease,
        shared: Future[_Landing],
        landing: _Landing,
    ) -> None:
        with self._lock:
            del self._flights[igsid, lease]
        shared.set_result(landing)
