"""One fetch at a time, step by step; the tests of processes show the same at large."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import fakeredis
import pytest

from proxy.coordination.bulkhead import CALLS_WITHOUT_STORE, Bulkhead
from proxy.coordination.flight_leader import Fetch
from proxy.coordination.flight_registry import FlightRegistry, FlightResult
from proxy.coordination.single_flight import (
    FLIGHTS_OF_A_CALLER,
    NO_LEASE,
    SingleFlight,
    lease_for,
    max_wait,
)
from proxy.domain.answer import Answer, Source
from proxy.domain.backoff import FORCED, OPERATOR, PLAIN, PauseRule
from proxy.domain.entry import Entry
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    Overloaded,
    PermissionMissing,
    StoreUnavailable,
    Throttled,
    TokenRejected,
    TooManyMisses,
)
from proxy.domain.profile import Igsid, Outcome
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.snapshot import Snapshot
from tests.helpers.builders import ADA, NOW, a_profile, a_refusal, an_entry, form_of
from tests.helpers.fakes import no_wait

GRAPH_TIMEOUT = 5.0


class Time:
    """A clock that only ``sleep`` moves; *meanwhile* happens during a sleep."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.meanwhile: list = []

    def now(self) -> float:
        return NOW + self.passed

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds
        if self.meanwhile:
            self.meanwhile.pop(0)()


class BrokenStore:
    """A store that loses the reply of each method in *losing*, once."""

    def __init__(self, store: EntryStore, *losing: str) -> None:
        self._store = store
        self.losing = list(losing)

    def __getattr__(self, name: str):
        method = getattr(self._store, name)

        def call(*args, **kwargs):
            if name in self.losing:
                self.losing.remove(name)
                method(*args, **kwargs)
                raise StoreUnavailable()
            return method(*args, **kwargs)

        return call


class AwayStore:
    def read(self, igsid: Igsid) -> Snapshot:
        raise StoreUnavailable()


@pytest.fixture
def store() -> EntryStore:
    cache = ProfileCache(host=fakeredis.FakeRedis(), key_prefix="pp:")
    return EntryStore(cache, "default", sleep=no_wait)


@pytest.fixture
def time() -> Time:
    return Time()


class Client(SingleFlight):
    """A caller who has just read the store, found nothing usable, and joins."""

    def find(self, igsid: Igsid, fetch: Fetch) -> Answer:
        deadline = self.deadline()
        try:
            snapshot = self._store.read(igsid)
            return self.join(igsid, snapshot, fetch, deadline=deadline)
        except StoreUnavailable:
            return self.without_store(igsid, fetch, deadline=deadline)


def a_flight(
    store,
    time: Time,
    *,
    registry: FlightRegistry | None = None,
    seats: int = 100,
    waiters: int = 400,
) -> Client:
    return Client(
        store,
        graph_timeout=GRAPH_TIMEOUT,
        bulkhead=Bulkhead(seats=seats, waiters=waiters, monotonic=time.monotonic),
        now=time.now,
        monotonic=time.monotonic,
        sleep=time.sleep,
        registry=registry,
    )


def find_forced(
    flight: SingleFlight, store: EntryStore, fetch: Fetch, rule: PauseRule = FORCED
) -> Answer:
    """Find as a caller who does not accept what is stored."""
    deadline = flight.deadline()
    return flight.join(ADA, store.read(ADA), fetch, deadline=deadline, rule=rule)


def never(igsid: Igsid, deadline: float) -> Entry:
    raise AssertionError("Meta must not be asked")


def returning(entry: Entry):
    return lambda igsid, deadline: entry


def failing(failure: Exception):
    def fetch(igsid: Igsid, deadline: float) -> Entry:
        raise failure

    return fetch


def test_flight_fetches_and_stores_a_miss(store, time) -> None:
    """The leader has the whole deadline, and leaves the entry and no lease."""
    calls = []

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        calls.append((igsid, deadline))
        return an_entry()

    answer = a_flight(store, time).find(ADA, fetch)

    assert answer == Answer(an_entry(), Source.FETCHED)
    assert calls == [(ADA, GRAPH_TIMEOUT)]
    assert store.read(ADA) == Snapshot(form_of(an_entry()), None, None)


def test_failed_flight_raises_and_leaves_a_note_but_no_entry(store, time) -> None:
    """Followers elsewhere read how it failed; nothing is stored as a fact."""
    failure = TokenRejected()

    with pytest.raises(TokenRejected):
        a_flight(store, time).find(ADA, failing(failure))

    snapshot = store.read(ADA)
    assert (snapshot.entry, snapshot.lease) == (None, None)
    assert isinstance(snapshot.note.failure, TokenRejected)


def test_note_answers_a_caller_without_a_call_to_meta(store, time) -> None:
    """Callers do not take turns asking a Meta that has just failed."""
    store.take(ADA, "x", 1)
    store.fail(ADA, GraphTimeout(), "x", now=NOW)

    with pytest.raises(GraphTimeout):
        a_flight(store, time).find(ADA, never)


def test_leader_is_told_of_the_pause_that_its_failure_begins(store, time) -> None:
    """As the callers are that the note answers; Meta was asked for this one."""
    with pytest.raises(GraphTimeout) as failed:
        a_flight(store, time).find(ADA, failing(GraphTimeout()))

    assert (failed.value.asked, failed.value.retry_after) == (True, 1.0)


def test_bug_during_a_fetch_leaves_a_note_for_followers(store, time) -> None:
    """The bug is the leader's; the followers must not repeat it one after the other."""
    with pytest.raises(ZeroDivisionError):
        a_flight(store, time).find(ADA, failing(ZeroDivisionError()))

    assert isinstance(store.read(ADA).note.failure, GraphUnavailable)
    assert store.read(ADA).lease is None


def test_follower_waits_for_the_leader_of_another_process(store, time) -> None:
    """It polls until the lease is gone, and answers with the entry it then finds."""
    store.take(ADA, "elsewhere", 6)
    time.meanwhile = [
        lambda: None,
        lambda: store.put(ADA, an_entry(), "elsewhere", NOW),
    ]

    answer = a_flight(store, time).find(ADA, never)

    assert answer == Answer(an_entry(), Source.COLLAPSED)


def test_follower_shares_the_failure_of_another_process(store, time) -> None:
    """The note is the answer of all who waited."""
    store.take(ADA, "elsewhere", 6)
    time.meanwhile = [lambda: store.fail(ADA, TokenRejected(), "elsewhere", now=NOW)]

    with pytest.raises(TokenRejected):
        a_flight(store, time).find(ADA, never)


def test_follower_of_a_dead_leader_leads_next(store, time) -> None:
    """When the lease lapses without a result, a follower leads."""
    store.take(ADA, "dead", GRAPH_TIMEOUT + 1)
    time.meanwhile = [lambda: store.release(ADA, "dead")]

    answer = a_flight(store, time).find(ADA, returning(an_entry()))

    assert answer.source is Source.FETCHED


def test_follower_gives_up_after_two_deadlines_and_two_seconds(store, time) -> None:
    """However long a lease lasts, the wait of a caller is bounded."""
    store.take(ADA, "immortal", 3600)

    with pytest.raises(GraphTimeout):
        a_flight(store, time).find(ADA, never)

    assert 2 * GRAPH_TIMEOUT + 2 <= time.passed < 2 * GRAPH_TIMEOUT + 2.1


def test_caller_leads_only_with_the_time_of_a_whole_flight(store, time) -> None:
    """A call cut short would fail for all who join it, so it is not started."""
    store.take(ADA, "x", 3600)
    late = GRAPH_TIMEOUT + 2.5

    def lapse() -> None:
        if time.passed >= late:
            store.release(ADA, "x")

    time.meanwhile = [lapse] * 1000

    with pytest.raises(GraphTimeout):
        a_flight(store, time).find(ADA, never)


def test_leader_that_lost_its_lease_fetches_again(store, time) -> None:
    """An erase came in between: its first result may be older, and is not answered."""
    results = [an_entry(a_refusal()), an_entry(a_profile(name="After"))]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        if len(results) == 2:
            store.erase(ADA)
        return results.pop(0)

    answer = a_flight(store, time).find(ADA, fetch)

    assert answer.entry.outcome == a_profile(name="After")
    assert store.read(ADA).entry == answer.entry


def test_leader_fails_after_losing_three_leases(store, time) -> None:
    """Calls to Meta are counted: three for one caller, then it fails."""
    calls = []

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        calls.append(igsid)
        store.erase(ADA)
        return an_entry()

    with pytest.raises(GraphUnavailable):
        a_flight(store, time).find(ADA, fetch)

    assert len(calls) == FLIGHTS_OF_A_CALLER == 3
    assert store.read(ADA) == Snapshot(None, None, None)


def test_lease_is_taken_again_after_a_lost_reply(store, time) -> None:
    """The first command took it without a reply: the second finds it to be ours."""
    answer = a_flight(BrokenStore(store, "take"), time).find(ADA, returning(an_entry()))

    assert answer == Answer(an_entry(), Source.FETCHED)


def test_leader_answers_an_outcome_that_cannot_be_stored(store, time) -> None:
    """The store went away during the call; the caller still gets the outcome."""
    answer = a_flight(BrokenStore(store, "put"), time).find(ADA, returning(an_entry()))

    assert answer == Answer(an_entry(), Source.FETCHED, stored=False)


def test_leader_past_its_lease_fetches_again_if_it_cannot_store(store, time) -> None:
    """Its lease has ended, and another may have led since."""
    results = [a_profile(name="Before"), a_profile(name="After")]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        if len(results) == 2:
            time.sleep(lease_for(GRAPH_TIMEOUT))
            store.release(ADA, store.read(ADA).lease)
        return an_entry(results.pop(0))

    answer = a_flight(BrokenStore(store, "put"), time).find(ADA, fetch)

    assert answer.entry.outcome == a_profile(name="After")


def test_callers_of_one_process_share_one_call(store, time) -> None:
    """Twenty threads, one fetch; nineteen answers are collapsed or hits."""
    calls = []
    reads = threading.Semaphore(0)

    class CountedStore(BrokenStore):
        def read(self, igsid: Igsid) -> Snapshot:
            try:
                return store.read(igsid)
            finally:
                reads.release()

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        calls.append(igsid)
        for _ in range(20):
            assert reads.acquire(timeout=10)
        return an_entry()

    flight = a_flight(CountedStore(store), time)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: flight.find(ADA, fetch), range(20)))

    assert len(calls) == 1
    assert [answer.source for answer in answers].count(Source.FETCHED) == 1
    assert {answer.entry for answer in answers} == {an_entry()}


def fetched_after(seconds: float, outcome: Outcome | None = None) -> Entry:
    """*outcome* (by default Ada's profile), fetched *seconds* after NOW."""
    return an_entry(outcome or a_profile(name="After"), fetched_at=NOW + seconds)


def store_usable(store: EntryStore) -> Entry:
    """Store an entry that all other callers accept."""
    store.take(ADA, "x", 1)
    store.put(ADA, an_entry(), "x", NOW)
    return an_entry()


def test_forced_join_fetches_a_usable_entry_again(store, time) -> None:
    """The new entry replaces the stored one."""
    store_usable(store)

    answer = find_forced(a_flight(store, time), store, returning(fetched_after(1)))

    assert answer == Answer(fetched_after(1), Source.FETCHED)
    assert store.read(ADA) == Snapshot(form_of(fetched_after(1)), None, None)


def fail_thrice(store: EntryStore) -> None:
    """The third failure in a row about Ada, of which the note answers for 4 s."""
    store.take(ADA, "x", 1)
    store.fail(ADA, GraphTimeout(), "x", failures=3, pause=4.0, now=NOW)


@pytest.mark.parametrize("rule", [PLAIN, FORCED])
def test_note_answers_with_the_rest_of_its_pause(store, time, rule) -> None:
    """As the time to wait. Meta was not asked for a caller that came afterwards."""
    fail_thrice(store)

    with pytest.raises(GraphTimeout) as failed:
        find_forced(a_flight(store, time), store, never, rule)

    assert failed.value.retry_after == pytest.approx(rule.answers_for(4.0), abs=0.2)
    assert failed.value.asked is False


def test_follower_of_a_failed_flight_is_told_that_meta_was_asked(store, time) -> None:
    store.take(ADA, "elsewhere", 6)
    failure = GraphTimeout()
    time.meanwhile = [lambda: store.fail(ADA, failure, "elsewhere", now=NOW)]

    with pytest.raises(GraphTimeout) as failed:
        a_flight(store, time).find(ADA, never)

    assert failed.value.asked is True


def test_operator_passes_a_note_and_ends_the_row(store, time) -> None:
    """At once, by a result that is a fact."""
    fail_thrice(store)

    answer = find_forced(
        a_flight(store, time), store, returning(an_entry()), rule=OPERATOR
    )

    assert answer.source is Source.FETCHED
    assert store.read(ADA).note is None


@pytest.mark.parametrize(
    ("failure", "failures", "pause"),
    [
        (GraphTimeout(), 4, 8.0),
        (GraphUnavailable(), 4, 8.0),
        (PermissionMissing(), 4, 8.0),
        (ZeroDivisionError(), 4, 8.0),
        (GraphTimeout(asked=False), 3, 1.0),
        (GraphUnavailable(retry_after=5.0), 3, 1.0),
        (PermissionMissing(retry_after=60.0), 3, 1.0),
        (TokenRejected(), 3, 1.0),
        (Throttled(retry_after=60.0), 3, 1.0),
    ],
)
def test_row_grows_only_with_failures_about_the_person(
    store, time, failure, failures, pause
) -> None:
    """One that closes the gate, and so has a wait, or that never asked is about us."""
    fail_thrice(store)
    flight = a_flight(store, time)

    with pytest.raises(type(failure)):
        find_forced(flight, store, failing(failure), rule=OPERATOR)

    note = store.read(ADA).note
    assert (note.failures, note.pause) == (failures, pause)


def test_pause_of_a_row_is_a_minute_at_most(store, time) -> None:
    """1 s, 2 s, 4 s ... 60 s."""
    pauses = []
    for _ in range(12):
        with pytest.raises(GraphTimeout):
            find_forced(
                a_flight(store, time), store, failing(GraphTimeout()), rule=OPERATOR
            )
        pauses.append(store.read(ADA).note.pause)

    assert pauses == [1, 2, 4, 8, 16, 32, *[60] * 6]


def test_plain_caller_follows_a_flight_beside_a_note(store, time) -> None:
    """The lease shows that the pause is over, or was passed."""
    fail_thrice(store)
    store.take(ADA, "elsewhere", 6, OPERATOR)
    time.meanwhile = [lambda: store.put(ADA, an_entry(), "elsewhere", NOW)]

    assert a_flight(store, time).find(ADA, never).source is Source.COLLAPSED


def test_forced_join_shares_a_failure_that_came_meanwhile(store, time) -> None:
    """Its flight began after this caller had come."""
    snapshot = store.read(ADA)
    flight = a_flight(store, time)
    fail_thrice(store)

    with pytest.raises(GraphTimeout) as failed:
        flight.join(ADA, snapshot, never, deadline=flight.deadline(), rule=FORCED)

    assert failed.value.asked is True


@pytest.mark.parametrize("or_begin", [True, False], ids=["prefetch", "refresh"])
def test_background_heeds_the_note(store, time, or_begin) -> None:
    """Until the pause is over, as callers do."""
    store.take(ADA, "x", 1)
    store.put(ADA, a_stale_entry(), "x", NOW)
    fail_thrice(store)

    assert a_flight(store, time).refresh(ADA, never, or_begin=or_begin) is None
    assert store.read(ADA).lease is None


def test_forced_join_follows_a_flight_under_way(store, time) -> None:
    """One call for all who ask at the same moment, in every process."""
    store_usable(store)
    store.take(ADA, "elsewhere", 6)
    time.meanwhile = [lambda: store.put(ADA, fetched_after(1), "elsewhere", NOW)]

    answer = find_forced(a_flight(store, time), store, never)

    assert answer == Answer(fetched_after(1), Source.COLLAPSED)


def test_forced_join_raises_the_failure_beside_a_previous_entry(store, time) -> None:
    """Though the failed flight has written the old entry again, to postpone it."""
    previous = store_usable(store)
    store.take(ADA, "elsewhere", 6)
    postponed = replace(previous, refresh_after=NOW + 10, failed_refreshes=1)
    time.meanwhile = [
        lambda: store.fail(
            ADA, TokenRejected(), "elsewhere", keeping=postponed, now=NOW
        )
    ]

    with pytest.raises(TokenRejected):
        find_forced(a_flight(store, time), store, never)

    assert store.read(ADA).entry == postponed


def test_caller_after_an_erase_does_not_join_the_flight_before_it(store, time) -> None:
    """The joining rule: join only the flight of the lease that was just read."""
    flight = a_flight(store, time)
    later: list[Answer] = []

    def fetch_before(igsid: Igsid, deadline: float) -> Entry:
        store.erase(ADA)
        # A caller of the same process, while the first still waits for Meta.
        later.append(flight.find(ADA, returning(an_entry(a_profile(name="After")))))
        return an_entry(a_profile(name="Before"))

    answer = flight.find(ADA, fetch_before)

    assert later[0].source is Source.FETCHED
    assert answer.entry.outcome == a_profile(name="After")


def test_process_answers_without_a_store(time) -> None:
    """The answer says that nothing is stored."""
    answer = a_flight(AwayStore(), time).find(ADA, returning(an_entry()))

    assert answer == Answer(an_entry(), Source.FETCHED, stored=False)


class ObservedRegistry(FlightRegistry):
    """Sets *joined* when a caller waits for a flight of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.joined = threading.Event()

    def wait(self, shared: Future[FlightResult], seconds: float) -> FlightResult:
        self.joined.set()
        return super().wait(shared, seconds)


def test_callers_without_a_store_share_one_call(time) -> None:
    """A failure too; the flight has no lease, but it has a name."""
    registry = ObservedRegistry()
    flight = a_flight(AwayStore(), time, registry=registry)
    called = threading.Event()

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        called.set()
        assert registry.joined.wait(10)
        raise TokenRejected()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flight.find, ADA, fetch)
        assert called.wait(10)
        second = pool.submit(flight.find, ADA, never)

        assert isinstance(first.exception(10), TokenRejected)
        assert isinstance(second.exception(10), TokenRejected)


def test_calls_without_a_store_are_few(time) -> None:
    """A caller that finds no seat fails, and soon."""
    flight = a_flight(AwayStore(), time)
    seated = threading.Barrier(CALLS_WITHOUT_STORE + 1)
    over = threading.Event()

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        seated.wait(10)
        assert over.wait(10)
        return an_entry()

    with ThreadPoolExecutor(CALLS_WITHOUT_STORE) as pool:
        for n in range(CALLS_WITHOUT_STORE):
            pool.submit(flight.find, Igsid(f"1000{n}"), fetch)
        seated.wait(10)
        try:
            with pytest.raises(Overloaded):
                flight.find(ADA, never)
        finally:
            over.set()


def test_follower_without_a_store_does_not_share_a_missing_seat(time) -> None:
    """It tries for a seat itself."""
    registry = ObservedRegistry()
    flight = a_flight(AwayStore(), time, registry=registry)
    shared, _ = registry.enter(ADA, NO_LEASE)

    with ThreadPoolExecutor(1) as pool:
        follower = pool.submit(flight.find, ADA, returning(an_entry()))
        assert registry.joined.wait(10)
        registry.leave(ADA, NO_LEASE, shared, None)

        assert follower.result(10).source is Source.FETCHED


def test_caller_keeps_its_deadline_when_the_store_goes_away(store, time) -> None:
    """One deadline for both waits: with the store, and without."""
    store.take(ADA, "elsewhere", 3600)

    class VanishingStore(BrokenStore):
        def read(self, igsid: Igsid) -> Snapshot:
            if time.passed > 2 * GRAPH_TIMEOUT:
                raise StoreUnavailable()
            return store.read(igsid)

    deadlines = []

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        deadlines.append(deadline)
        return an_entry()

    a_flight(VanishingStore(store), time).find(ADA, fetch)

    assert deadlines == [max_wait(GRAPH_TIMEOUT)]


def test_caller_that_lost_the_race_for_a_lease_has_led_no_flight(store, time) -> None:
    """Losing the race for a lease is no flight; losing the lease in flight is."""
    results = [an_entry(a_profile(name="Before")), an_entry(a_profile(name="After"))]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        if len(results) == 2:
            store.erase(ADA)
        return results.pop(0)

    class SlowStore(BrokenStore):
        raced = False

        def take(self, igsid: Igsid, lease: str, lease_for: float, _: None) -> Snapshot:
            if not self.raced:
                self.raced = True
                store.take(ADA, "faster", 1)
                snapshot = store.take(igsid, lease, lease_for)
                store.release(ADA, "faster")
                return snapshot
            return store.take(igsid, lease, lease_for)

    answer = a_flight(SlowStore(store), time).find(ADA, fetch)

    assert answer.entry.outcome == a_profile(name="After")


def test_caller_without_a_seat_takes_no_lease_and_leaves_no_note(store, time) -> None:
    """The limit is this process's own, so others must not share the failure."""
    flight = a_flight(store, time, seats=0)

    with pytest.raises(Overloaded):
        flight.find(ADA, never)

    assert store.read(ADA) == Snapshot(None, None, None)


def test_follower_needs_no_seat(store, time) -> None:
    """It waits for another process's call, and makes none."""
    store.take(ADA, "elsewhere", 6)
    time.meanwhile = [lambda: store.put(ADA, an_entry(), "elsewhere", NOW)]

    answer = a_flight(store, time, seats=0).find(ADA, never)

    assert answer.source is Source.COLLAPSED


def test_caller_beyond_the_waiters_fails_at_once(store, time) -> None:
    """Before it takes a lease or asks Meta."""
    with pytest.raises(Overloaded):
        a_flight(store, time, waiters=0).find(ADA, never)


def test_leader_out_of_time_does_not_ask_meta(store, time) -> None:
    """The store took all of it to grant the lease."""

    class SluggishStore(BrokenStore):
        def take(self, igsid: Igsid, lease: str, lease_for: float, _: None) -> Snapshot:
            time.passed += GRAPH_TIMEOUT
            return store.take(igsid, lease, lease_for)

    with pytest.raises(GraphTimeout):
        a_flight(SluggishStore(store), time).find(ADA, never)


def a_stale_entry(**overrides) -> Entry:
    bounds = {"fetched_at": NOW - 50, "fresh_until": NOW, "usable_until": NOW + 100}
    return an_entry(**bounds | overrides)


def test_refresh_leads_but_never_follows(store, time) -> None:
    """Another process's refresh is as good."""
    store.take(ADA, "x", 1)
    store.put(ADA, a_stale_entry(), "x", NOW)
    flight = a_flight(store, time)

    store.take(ADA, "elsewhere", 6)
    theirs = flight.refresh(ADA, never)
    store.release(ADA, "elsewhere")
    ours = flight.refresh(ADA, returning(an_entry()))

    assert theirs is None
    assert ours == Answer(an_entry(), Source.FETCHED)


@pytest.mark.parametrize(
    "entry",
    [
        an_entry(),
        a_stale_entry(refresh_after=NOW + 1),
        a_stale_entry(usable_until=NOW + 0.5),
    ],
    ids=["fresh", "postponed", "about to end"],
)
def test_refresh_that_is_not_due_does_not_ask_meta(store, time, entry) -> None:
    """It releases the lease, and shares no entry that has expired."""
    store.take(ADA, "x", 1)
    store.put(ADA, entry, "x", NOW)
    time.passed = 0.5 if entry.usable_until < NOW + 1 else 0.0

    assert a_flight(store, time).refresh(ADA, never) is None
    assert store.read(ADA).lease is None


def test_caller_joins_a_refresh_under_way(store, time) -> None:
    """The caller's entry has expired meanwhile; one call for both."""
    store.take(ADA, "x", 1)
    store.put(ADA, a_stale_entry(), "x", NOW)
    registry = ObservedRegistry()
    flight = a_flight(store, time, registry=registry)
    called = threading.Event()

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        called.set()
        assert registry.joined.wait(10)
        return an_entry(fetched_at=NOW + 200, fresh_until=NOW + 3600)

    with ThreadPoolExecutor(2) as pool:
        refresh = pool.submit(flight.refresh, ADA, fetch)
        assert called.wait(10)
        time.passed = 200.0
        answer = pool.submit(flight.find, ADA, never).result(10)
        refresh.result(10)

    assert answer.source is Source.COLLAPSED
    assert answer.entry.fetched_at == NOW + 200


def test_unshared_failure_of_a_leader_is_not_its_followers(store, time) -> None:
    """The leader's allowance is spent; its follower leads for itself."""
    registry = ObservedRegistry()
    flight = a_flight(store, time, registry=registry)
    called = threading.Event()

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        called.set()
        assert registry.joined.wait(10)
        raise TooManyMisses(retry_after=60.0)

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(flight.find, ADA, fetch)
        assert called.wait(10)
        follower = pool.submit(flight.find, ADA, returning(an_entry()))

        assert isinstance(leader.exception(10), TooManyMisses)
        assert follower.result(10).source is Source.FETCHED


def test_caller_without_the_store_joins_a_flight_with_it(store, time) -> None:
    """A crowd makes the store seem to hang for some; they must not ask Meta again."""
    registry = ObservedRegistry()
    flight = a_flight(store, time, registry=registry)
    called = threading.Event()

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        called.set()
        assert registry.joined.wait(10)
        return an_entry()

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(flight.find, ADA, fetch)
        assert called.wait(10)
        cut_off = pool.submit(
            flight.without_store, ADA, never, deadline=flight.deadline()
        )

        assert cut_off.result(10) == Answer(an_entry(), Source.COLLAPSED)
        assert leader.result(10).source is Source.FETCHED


def test_caller_that_joined_without_the_store_gets_no_erased_result(
    store, time
) -> None:
    """The flight that lost its lease shares nothing; each follower fetches itself."""
    registry = ObservedRegistry()
    flight = a_flight(store, time, registry=registry)
    called = threading.Event()
    results = [an_entry(a_profile(name="Before")), an_entry(a_profile(name="After"))]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        if len(results) == 2:
            store.erase(ADA)
            called.set()
            assert registry.joined.wait(10)
        return results.pop(0)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(flight.find, ADA, fetch)
        assert called.wait(10)
        cut_off = pool.submit(
            flight.without_store,
            ADA,
            returning(an_entry(a_profile(name="After"))),
            deadline=flight.deadline(),
        )

        assert cut_off.result(10).entry.outcome == a_profile(name="After")


def test_store_failure_at_the_gate_is_not_shared(store, time) -> None:
    """No note says that Meta failed, which was not even asked; the lease is free."""
    flight = a_flight(store, time)
    results = [StoreUnavailable(), an_entry()]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        outcome = results.pop(0)
        if isinstance(outcome, StoreUnavailable):
            raise outcome
        return outcome

    answer = flight.find(ADA, fetch)

    assert answer == Answer(an_entry(), Source.FETCHED, stored=False)
    assert store.read(ADA) == Snapshot(None, None, None)


# The person has written lately


def refused(igsid: Igsid, deadline: float) -> Entry:
    return an_entry(a_refusal())


def test_refusal_after_a_message_is_kept_for_five_seconds(store, time) -> None:
    """Meta may send the message before it shows the person."""
    store.drop_refusals([ADA], 6.0)

    entry = a_flight(store, time).find(ADA, refused).entry

    assert (entry.fresh_until, entry.usable_until) == (NOW + 5.0, NOW + 5.0)
    assert store.read(ADA).entry == entry


def test_refusal_without_a_message_keeps_its_ttl(store, time) -> None:
    """The message of another person changes nothing."""
    store.drop_refusals([Igsid("1254001234567891")], 6.0)

    assert a_flight(store, time).find(ADA, refused).entry == an_entry(a_refusal())


def test_refusal_fetched_before_the_message_is_not_answered(store, time) -> None:
    """Not even to a caller that had asked before it."""
    asked = []

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        asked.append(igsid)
        if len(asked) == 1:
            store.drop_refusals([ADA], 6.0)
            return an_entry(a_refusal())
        return an_entry()

    answer = a_flight(store, time).find(ADA, fetch)

    assert answer.entry == an_entry()
    assert len(asked) == 2


# Fetching before the first request


def test_refresh_fetches_a_missing_entry_only_with_or_begin(store, time) -> None:
    """A refresh as such has nothing to do there."""
    flight = a_flight(store, time)

    assert flight.refresh(ADA, never) is None
    assert flight.refresh(ADA, returning(an_entry()), or_begin=True) == Answer(
        an_entry(), Source.FETCHED
    )
    assert flight.refresh(ADA, never, or_begin=True) is None
    assert store.read(ADA) == Snapshot(form_of(an_entry()), None, None)


def test_refresh_with_or_begin_leaves_a_flight_under_way_alone(store, time) -> None:
    """It follows no flight either."""
    store.take(ADA, "0123456789abcdef", 60.0)

    assert a_flight(store, time).refresh(ADA, never, or_begin=True) is None
