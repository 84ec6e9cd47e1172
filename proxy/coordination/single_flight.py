"""At most one fetch per person: the lease, and waiting for it.

A flight is one fetch that several callers share. Its name is its lease, a token that
is never used twice. That name is the whole joining rule: a caller reads the store
first, and joins the flight of the lease that it has just read there. An erase, a flush
or a webhook deletes the lease, so later callers see no such flight, in this process or
in any other, however long its leader still waits for Meta.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from proxy.coordination.bulkhead import Bulkhead
from proxy.coordination.flight_leader import LEASE_MARGIN, Fetch, FlightLeader
from proxy.coordination.flight_registry import FlightRegistry, FlightResult
from proxy.coordination.flight_rules import (
    answer_in,
    answers_for,
    failure_of,
    has_news,
    is_newer,
    needs_no_refresh,
)
from proxy.domain.answer import Answer, Source
from proxy.domain.backoff import PLAIN, PauseRule
from proxy.domain.entry import Entry
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    Overloaded,
)
from proxy.domain.profile import Igsid
from proxy.storage.entries import EntryStore
from proxy.storage.snapshot import Lease, Snapshot

FIRST_PAUSE, LONGEST_PAUSE, PAUSE_GROWTH = 0.005, 0.05, 1.5
"""Seconds between two reads of another process's flight, and how they grow."""

FLIGHTS_OF_A_CALLER = 3
"""How often one caller leads: again if the lease was lost while Meta was asked.

By an erase, which is rare, or because a full store has dropped it, which is not.
"""

NO_LEASE = ""
"""The name of the flights without a lease, while the store is away."""

EMPTY_SNAPSHOT = Snapshot(stored_entry=None, lease=None, note=None)


def lease_for(graph_timeout: float) -> float:
    """Return the length of a lease, in seconds."""
    return graph_timeout + LEASE_MARGIN


def max_wait(graph_timeout: float) -> float:
    """Return the longest wait of a caller, in seconds.

    Long enough for the follower of a dead leader to see its successor's answer.
    """
    return 2 * lease_for(graph_timeout)


class SingleFlight:
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
        registry: FlightRegistry | None = None,
        on_unstored: Callable[[Igsid], None] = lambda igsid: None,
    ) -> None:
        """*graph_timeout* in seconds; *now* is epoch seconds.

        *on_unstored* is called with a person about whom Meta was asked, if the result
        was not stored, because the lease was lost.
        """
        self._store = store
        self._graph_timeout = graph_timeout
        self.lease_for = lease_for(graph_timeout)
        self._bulkhead = bulkhead
        self._now = now
        self._monotonic = monotonic
        self._sleep = sleep
        self._registry = registry or FlightRegistry()
        self._leader = FlightLeader(
            store,
            self._registry,
            graph_timeout=graph_timeout,
            lease_for=self.lease_for,
            now=now,
            monotonic=monotonic,
            on_unstored=on_unstored,
        )

    def deadline(self) -> float:
        """Return the moment at which a caller that joins now gives up."""
        return self._monotonic() + max_wait(self._graph_timeout)

    def join(
        self,
        igsid: Igsid,
        snapshot: Snapshot,
        fetch: Fetch,
        *,
        deadline: float,
        rule: PauseRule = PLAIN,
        may_lead: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Answer by one shared *fetch*: lead a flight, or follow the one under way.

        *snapshot* is what the store held a moment ago, without a usable entry; or,
        by a *rule* of forced callers, without one that the caller accepts. Then its
        entry is no answer, but a flight whose lease it shows is as good as one's own,
        and so is every later result. Repeats while flights end without a result.
        *may_lead* raises a LookupFailure for a caller that may only follow.

        Raises:
            LookupFailure: Meta returned no outcome, or too many callers wait.
            StoreUnavailable: the store went away.
        """
        first = snapshot
        previous = snapshot if rule != PLAIN else EMPTY_SNAPSHOT
        flights_led = 0
        with self._bulkhead.waiting():
            while self._monotonic() < deadline:
                result: FlightResult = None
                if snapshot is not previous:
                    result = answer_in(snapshot, previous, self._now())
                if result is None:
                    result = self._failure_in(igsid, snapshot, previous, rule)
                    if result and snapshot is first:
                        # The flight was over before this caller came.
                        result.asked = False
                if result is None:
                    if snapshot.lease:
                        result = self._follow(igsid, snapshot.lease, deadline)
                    elif flights_led < FLIGHTS_OF_A_CALLER:
                        may_lead()
                        result = self._lead(igsid, fetch, deadline, previous, rule)
                        # A snapshot means that another caller took the lease first.
                        flights_led += result is None
                    else:
                        raise GraphUnavailable()
                match result:
                    case Answer():
                        return result
                    case LookupFailure():
                        raise result
                    case Snapshot():
                        snapshot = result
                    case None:
                        snapshot = self._store.read(igsid)
            raise GraphTimeout()

    def refresh(
        self, igsid: Igsid, fetch: Fetch, *, or_begin: bool = False
    ) -> Answer | LookupFailure | None:
        """Fetch a stale entry again, unless a flight does already.

        None means that there was no need. With *or_begin*, fetch a missing entry
        too. Follows no flight, waits for no seat, and leads one flight at most.

        Raises:
            StoreUnavailable: the store went away.
        """

        def is_done(entry: Entry | None, now: float) -> bool:
            return needs_no_refresh(entry, now, or_begin=or_begin)

        try:
            with self._bulkhead.seat(within=0.0):
                result = self._leader.start(igsid, fetch, is_done)
        except Overloaded as overloaded:
            return overloaded
        return None if isinstance(result, Snapshot) else result

    def without_store(self, igsid: Igsid, fetch: Fetch, *, deadline: float) -> Answer:
        """While the store is away: make a few calls, shared within this process.

        Raises:
            LookupFailure: Meta returned no outcome, or too many callers wait.
        """
        with self._bulkhead.waiting():
            while self._monotonic() < deadline:
                # Any flight will do that this process has under way: if an erase
                # has taken its lease meanwhile, it shares nothing it learned.
                shared, is_first = self._registry.enter(igsid, NO_LEASE, any_lease=True)
                if is_first:
                    return self._lead_without_store(igsid, shared, fetch, deadline)
                match self._registry.wait(shared, deadline - self._monotonic()):
                    case Answer() as answer:
                        return answer
                    case LookupFailure() as failure:
                        raise failure
                    case _:
                        # The first found no seat; there may be one by now.
                        continue
        raise GraphTimeout()

    def _failure_in(
        self, igsid: Igsid, snapshot: Snapshot, previous: Snapshot, rule: PauseRule
    ) -> LookupFailure | None:
        """Return the failure in the note of *snapshot*, if it answers the caller.

        It does if its flight has ended since *previous*, which a forced caller read.
        Otherwise it does for as long as *rule* says, unless a flight is under way.
        A note answers for a part of the time that it is stored, so that costs a trip.
        """
        if snapshot.note is None:
            return None
        if rule != PLAIN and has_news(snapshot, previous):
            return failure_of(snapshot.note, snapshot.note.pause)
        if snapshot.lease:
            return None
        note, left = self._store.read_note(igsid)
        if note is None or not (seconds := answers_for(note, left, rule)):
            return None
        return failure_of(note, seconds)

    def _lead(
        self,
        igsid: Igsid,
        fetch: Fetch,
        deadline: float,
        previous: Snapshot,
        rule: PauseRule,
    ) -> FlightResult:
        """Take a seat and start a flight, or return the snapshot of a faster one.

        Only with the time of a whole flight left: a flight cut short would
        fail for all callers that have joined it.
        """

        def is_done(entry: Entry | None, now: float) -> bool:
            return is_newer(entry, previous.entry, now)

        try:
            with self._bulkhead.seat():
                if self._monotonic() + self._graph_timeout > deadline:
                    return GraphTimeout(asked=False)
                return self._leader.start(igsid, fetch, is_done, rule)
        except Overloaded as overloaded:
            return overloaded

    def _follow(self, igsid: Igsid, lease: Lease, deadline: float) -> FlightResult:
        """Wait for a flight's result: from this process's leader, or by polling."""
        shared, is_first = self._registry.enter(igsid, lease)
        if not is_first:
            return self._registry.wait(shared, deadline - self._monotonic())
        result: FlightResult = None
        try:
            result = self._poll(igsid, lease, deadline)
        finally:
            self._registry.leave(igsid, lease, shared, result)
        return result or GraphTimeout()

    def _poll(self, igsid: Igsid, lease: Lease, deadline: float) -> Snapshot | None:
        """Read the store until another process's flight ends; one caller here does so.

        The read that finds the lease gone is later than the one with which each
        follower joined, so all of them may use its snapshot. None: this caller's time
        is up, though maybe not its followers'.
        """
        pause = FIRST_PAUSE
        while self._monotonic() < deadline:
            self._sleep(pause)
            snapshot = self._store.read(igsid)
            if snapshot.lease != lease:
                return snapshot
            pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE)
        return None

    def _lead_without_store(
        self, igsid: Igsid, shared: Future[FlightResult], fetch: Fetch, deadline: float
    ) -> Answer:
        result: FlightResult = None
        try:
            with self._bulkhead.seat_without_store():
                try:
                    fetch_deadline = min(
                        self._monotonic() + self._graph_timeout, deadline
                    )
                    entry = self._leader.fetch_by(fetch_deadline, igsid, fetch)
                    result = Answer(entry, Source.FETCHED, stored=False)
                    return result
                except LookupFailure as failure:
                    result = failure
                    raise
        finally:
            self._registry.leave(igsid, NO_LEASE, shared, result)
