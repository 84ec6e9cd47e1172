"""One fetch at a time, told step by step: what the processes' tests show at large."""

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
    Flight,
    lease_for,
    max_wait,
)
from proxy.domain.answer import Answer, Source
from proxy.domain.entry import Entry
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    Overloaded,
    StoreUnavailable,
    TokenRejected,
    TooManyMisses,
)
from proxy.domain.profile import Igsid, Outcome
from proxy.storage.entries import EntryStore, Snapshot
from proxy.storage.flask_cache import ProfileCache
from tests.helpers.builders import ADA, NOW, a_profile, a_refusal, an_entry, form_of
from tests.helpers.fakes import no_wait

GRAPH_TIMEOUT = 5.0


class Time:
    """A clock that only ``sleep`` moves; *meanwhile* happens during a sleep."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.meanwhile: list = []

    def wall(self) -> float:
        return NOW + self.passed

    def clock(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds
        if self.meanwhile:
            self.meanwhile.pop(0)()


class BrokenStore:
    """A store that is away, or that loses the replies it is told to lose."""

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


class Client(Flight):
    """Somebody who has just looked, found nothing usable, and joins."""

    def find(self, igsid: Igsid, fetch: Fetch) -> Answer:
        deadline = self.deadline()
        try:
            seen = self._store.read(igsid)
            return self.join(igsid, seen, fetch, deadline=deadline)
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
        bulkhead=Bulkhead(seats=seats, waiters=waiters, monotonic=time.clock),
        now=time.wall,
        monotonic=time.clock,
        sleep=time.sleep,
        registry=registry,
    )


def find_anew(flight: Flight, store: EntryStore, fetch: Fetch) -> Answer:
    """As somebody asks to whom what is stored does not count."""
    deadline = flight.deadline()
    return flight.join(ADA, store.read(ADA), fetch, deadline=deadline, force=True)


def never(igsid: Igsid, deadline: float) -> Entry:
    raise AssertionError("Meta must not be asked")


def telling(entry: Entry):
    return lambda igsid, deadline: entry


def failing(failure: Exception):
    def fetch(igsid: Igsid, deadline: float) -> Entry:
        raise failure

    return fetch


def test_a_miss_is_fetched_and_stored(store, time) -> None:
    """The leader has the whole deadline, and leaves the entry and no lease."""
    told = []

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        told.append((igsid, deadline))
        return an_entry()

    answer = a_flight(store, time).find(ADA, fetch)

    assert answer == Answer(an_entry(), Source.FETCHED)
    assert told == [(ADA, GRAPH_TIMEOUT)]
    assert store.read(ADA) == Snapshot(form_of(an_entry()), None, None)


def test_a_failure_is_told_and_leaves_a_note_but_no_entry(store, time) -> None:
    """Those who wait elsewhere read how it failed; nothing is stored as a fact."""
    failure = TokenRejected()

    with pytest.raises(TokenRejected):
        a_flight(store, time).find(ADA, failing(failure))

    seen = store.read(ADA)
    assert (seen.entry, seen.lease) == (None, None)
    assert isinstance(seen.note, TokenRejected)


def test_a_note_answers_without_asking_meta(store, time) -> None:
    """Callers do not take turns asking a Meta that has just failed."""
    store.take(ADA, "x", 1)
    store.fail(ADA, GraphTimeout(), "x", now=NOW)

    with pytest.raises(GraphTimeout):
        a_flight(store, time).find(ADA, never)


def test_a_bug_while_asking_leaves_a_note_for_those_who_wait(store, time) -> None:
    """The bug is the leader's; the others must not repeat it one after the other."""
    with pytest.raises(ZeroDivisionError):
        a_flight(store, time).find(ADA, failing(ZeroDivisionError()))

    assert isinstance(store.read(ADA).note, GraphUnavailable)
    assert store.read(ADA).lease is None


def test_a_follower_waits_for_the_leader_of_another_process(store, time) -> None:
    """It looks until the lease is gone, and answers with what is then there."""
    store.take(ADA, "elsewhere", 6)
    time.meanwhile = [
        lambda: None,
        lambda: store.put(ADA, an_entry(), "elsewhere", NOW),
    ]

    answer = a_flight(store, time).find(ADA, never)

    assert answer == Answer(an_entry(), Source.COLLAPSED)


def test_a_follower_shares_the_failure_of_another_process(store, time) -> None:
    """The note is the answer of those who waited."""
    store.take(ADA, "elsewhere", 6)
    time.meanwhile = [lambda: store.fail(ADA, TokenRejected(), "elsewhere", now=NOW)]

    with pytest.raises(TokenRejected):
        a_flight(store, time).find(ADA, never)


def test_a_follower_of_a_dead_leader_succeeds_it(store, time) -> None:
    """When the lease lapses with nothing to show, a follower leads."""
    store.take(ADA, "dead", GRAPH_TIMEOUT + 1)
    time.meanwhile = [lambda: store.release(ADA, "dead")]

    answer = a_flight(store, time).find(ADA, telling(an_entry()))

    assert answer.source is Source.FETCHED


def test_a_follower_gives_up_after_two_deadlines_and_two_seconds(store, time) -> None:
    """However long a lease lasts, a caller's patience has an end."""
    store.take(ADA, "immortal", 3600)

    with pytest.raises(GraphTimeout):
        a_flight(store, time).find(ADA, never)

    assert 2 * GRAPH_TIMEOUT + 2 <= time.passed < 2 * GRAPH_TIMEOUT + 2.1


def test_nobody_leads_without_the_time_of_a_whole_flight(store, time) -> None:
    """A call cut short would fail for all who join it, so it is not begun."""
    store.take(ADA, "x", 3600)
    late = GRAPH_TIMEOUT + 2.5

    def lapse() -> None:
        if time.passed >= late:
            store.release(ADA, "x")

    time.meanwhile = [lapse] * 1000

    with pytest.raises(GraphTimeout):
        a_flight(store, time).find(ADA, never)


def test_what_was_learned_under_a_lost_lease_is_not_answered(store, time) -> None:
    """An erase came in between: ask again, once, and answer with that."""
    told = [an_entry(a_refusal()), an_entry(a_profile(name="After"))]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        if len(told) == 2:
            store.erase(ADA)
        return told.pop(0)

    answer = a_flight(store, time).find(ADA, fetch)

    assert answer.entry.outcome == a_profile(name="After")
    assert store.read(ADA).entry == answer.entry


def test_a_lease_lost_again_and_again_is_a_failure(store, time) -> None:
    """Calls to Meta are counted: three for one caller, then it is told."""
    calls = []

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        calls.append(igsid)
        store.erase(ADA)
        return an_entry()

    with pytest.raises(GraphUnavailable):
        a_flight(store, time).find(ADA, fetch)

    assert len(calls) == FLIGHTS_OF_A_CALLER == 3
    assert store.read(ADA) == Snapshot(None, None, None)


def test_a_lost_reply_to_taking_the_lease_is_made_good(store, time) -> None:
    """The lease was taken though nobody said so: it is found to be ours."""
    answer = a_flight(BrokenStore(store, "take"), time).find(ADA, telling(an_entry()))

    assert answer == Answer(an_entry(), Source.FETCHED)


def test_an_outcome_is_answered_though_it_cannot_be_stored(store, time) -> None:
    """The store went away during the call; the caller still gets what was learned."""
    answer = a_flight(BrokenStore(store, "put"), time).find(ADA, telling(an_entry()))

    assert answer == Answer(an_entry(), Source.FETCHED, stored=False)


def test_a_leader_that_overslept_answers_nothing_it_cannot_store(store, time) -> None:
    """Whether its lease was still its own nobody can tell, and it has ended."""
    told = [a_profile(name="Before"), a_profile(name="After")]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        if len(told) == 2:
            time.sleep(lease_for(GRAPH_TIMEOUT))
            store.release(ADA, store.read(ADA).lease)
        return an_entry(told.pop(0))

    answer = a_flight(BrokenStore(store, "put"), time).find(ADA, fetch)

    assert answer.entry.outcome == a_profile(name="After")


def test_callers_of_one_process_share_one_call(store, time) -> None:
    """Twenty threads, one fetch; nineteen say that they were collapsed or hit."""
    calls = []
    looked = threading.Semaphore(0)

    class Counted(BrokenStore):
        def read(self, igsid: Igsid) -> Snapshot:
            try:
                return store.read(igsid)
            finally:
                looked.release()

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        calls.append(igsid)
        for _ in range(20):
            assert looked.acquire(timeout=10)
        return an_entry()

    flight = a_flight(Counted(store), time)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: flight.find(ADA, fetch), range(20)))

    assert len(calls) == 1
    assert [answer.source for answer in answers].count(Source.FETCHED) == 1
    assert {answer.entry for answer in answers} == {an_entry()}


def after(seconds: float, outcome: Outcome | None = None) -> Entry:
    """*outcome* (Ada's profile), learned so many seconds later than NOW."""
    return an_entry(outcome or a_profile(name="After"), fetched_at=NOW + seconds)


def store_before(store: EntryStore) -> Entry:
    """Something that everybody else is content with."""
    store.take(ADA, "x", 1)
    store.put(ADA, an_entry(), "x", NOW)
    return an_entry()


def test_what_is_usable_is_fetched_anew_for_whom_it_does_not_count(store, time) -> None:
    """And takes the place of what was there."""
    store_before(store)

    answer = find_anew(a_flight(store, time), store, telling(after(1)))

    assert answer == Answer(after(1), Source.FETCHED)
    assert store.read(ADA) == Snapshot(form_of(after(1)), None, None)


def test_a_note_does_not_count_either(store, time) -> None:
    """It tells of an earlier flight, and is gone when the next one begins."""
    store.take(ADA, "x", 1)
    store.fail(ADA, GraphTimeout(), "x", now=NOW)

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        assert store.read(ADA).note is None
        return an_entry()

    assert find_anew(a_flight(store, time), store, fetch).source is Source.FETCHED


def test_who_wants_it_anew_follows_whoever_fetches_already(store, time) -> None:
    """One call for all who ask at the same moment, in every process."""
    store_before(store)
    store.take(ADA, "elsewhere", 6)
    time.meanwhile = [lambda: store.put(ADA, after(1), "elsewhere", NOW)]

    answer = find_anew(a_flight(store, time), store, never)

    assert answer == Answer(after(1), Source.COLLAPSED)


def test_who_wants_it_anew_is_told_the_failure_and_not_what_was_there(
    store, time
) -> None:
    """Though the failed flight has written the old entry again, to postpone it."""
    known = store_before(store)
    store.take(ADA, "elsewhere", 6)
    postponed = replace(known, refresh_after=NOW + 10, failed_refreshes=1)
    time.meanwhile = [
        lambda: store.fail(
            ADA, TokenRejected(), "elsewhere", keeping=postponed, now=NOW
        )
    ]

    with pytest.raises(TokenRejected):
        find_anew(a_flight(store, time), store, never)

    assert store.read(ADA).entry == postponed


def test_a_caller_after_an_erase_does_not_join_the_flight_before_it(
    store, time
) -> None:
    """The joining rule: the lease just seen is that flight's, or it is not joined."""
    flight = a_flight(store, time)
    later: list[Answer] = []

    def fetch_before(igsid: Igsid, deadline: float) -> Entry:
        store.erase(ADA)
        # A caller of the same process, while the first still waits for Meta.
        later.append(flight.find(ADA, telling(an_entry(a_profile(name="After")))))
        return an_entry(a_profile(name="Before"))

    answer = flight.find(ADA, fetch_before)

    assert later[0].source is Source.FETCHED
    assert answer.entry.outcome == a_profile(name="After")


def test_without_a_store_a_process_still_answers(time) -> None:
    """Nothing is stored and nobody pretends it was."""
    answer = a_flight(AwayStore(), time).find(ADA, telling(an_entry()))

    assert answer == Answer(an_entry(), Source.FETCHED, stored=False)


class ObservedRegistry(FlightRegistry):
    """Sets *joined* when a caller waits for a flight of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.joined = threading.Event()

    def wait(self, shared: Future[FlightResult], seconds: float) -> FlightResult:
        self.joined.set()
        return super().wait(shared, seconds)


def test_without_a_store_callers_of_a_process_share_one_call(time) -> None:
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


def test_without_a_store_only_a_few_calls_are_let_through(time) -> None:
    """The seats are few; whoever finds none is told so, and soon."""
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


def test_without_a_store_nobody_is_told_that_another_found_no_seat(time) -> None:
    """Who followed the one without a seat tries for a seat itself."""
    registry = ObservedRegistry()
    flight = a_flight(AwayStore(), time, registry=registry)
    shared, _ = registry.enter(ADA, NO_LEASE)

    with ThreadPoolExecutor(1) as pool:
        follower = pool.submit(flight.find, ADA, telling(an_entry()))
        assert registry.joined.wait(10)
        registry.leave(ADA, NO_LEASE, shared, None)

        assert follower.result(10).source is Source.FETCHED


def test_a_caller_whose_store_goes_away_waits_no_longer_for_it(store, time) -> None:
    """One patience for all of it: with the store, and without."""
    store.take(ADA, "elsewhere", 3600)

    class GoesAway(BrokenStore):
        def read(self, igsid: Igsid) -> Snapshot:
            if time.passed > 2 * GRAPH_TIMEOUT:
                raise StoreUnavailable()
            return store.read(igsid)

    deadlines = []

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        deadlines.append(deadline)
        return an_entry()

    a_flight(GoesAway(store), time).find(ADA, fetch)

    assert deadlines == [max_wait(GRAPH_TIMEOUT)]


def test_who_was_only_slower_than_another_may_still_look_again(store, time) -> None:
    """Losing the race for a lease is no flight; losing the lease in flight is."""
    told = [an_entry(a_profile(name="Before")), an_entry(a_profile(name="After"))]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        if len(told) == 2:
            store.erase(ADA)
        return told.pop(0)

    class Slow(BrokenStore):
        raced = False

        def take(self, igsid: Igsid, lease: str, lease_for: float, _: None) -> Snapshot:
            if not self.raced:
                self.raced = True
                store.take(ADA, "faster", 1)
                seen = store.take(igsid, lease, lease_for)
                store.release(ADA, "faster")
                return seen
            return store.take(igsid, lease, lease_for)

    answer = a_flight(Slow(store), time).find(ADA, fetch)

    assert answer.entry.outcome == a_profile(name="After")


def test_without_a_seat_nobody_leads_and_nobody_else_is_told(store, time) -> None:
    """No lease is taken and no note is left: the limit is this process's own."""
    flight = a_flight(store, time, seats=0)

    with pytest.raises(Overloaded):
        flight.find(ADA, never)

    assert store.read(ADA) == Snapshot(None, None, None)


def test_whoever_needs_no_call_needs_no_seat(store, time) -> None:
    """A follower waits for another process's call, and makes none."""
    store.take(ADA, "elsewhere", 6)
    time.meanwhile = [lambda: store.put(ADA, an_entry(), "elsewhere", NOW)]

    answer = a_flight(store, time, seats=0).find(ADA, never)

    assert answer.source is Source.COLLAPSED


def test_when_there_is_no_room_to_wait_a_caller_is_told_at_once(store, time) -> None:
    """Before anything is taken or asked."""
    with pytest.raises(Overloaded):
        a_flight(store, time, waiters=0).find(ADA, never)


def test_a_lease_that_ended_before_the_call_is_not_flown(store, time) -> None:
    """The store took its time over the taking; Meta is not asked."""

    class Sluggish(BrokenStore):
        def take(self, igsid: Igsid, lease: str, lease_for: float, _: None) -> Snapshot:
            time.passed += GRAPH_TIMEOUT
            return store.take(igsid, lease, lease_for)

    with pytest.raises(GraphTimeout):
        a_flight(Sluggish(store), time).find(ADA, never)


def a_stale_entry(**overrides) -> Entry:
    bounds = {"fetched_at": NOW - 50, "fresh_until": NOW, "usable_until": NOW + 100}
    return an_entry(**bounds | overrides)


def test_a_refresh_leads_but_never_follows(store, time) -> None:
    """Somebody else's is as good."""
    store.take(ADA, "x", 1)
    store.put(ADA, a_stale_entry(), "x", NOW)
    flight = a_flight(store, time)

    store.take(ADA, "elsewhere", 6)
    theirs = flight.refresh(ADA, never)
    store.release(ADA, "elsewhere")
    ours = flight.refresh(ADA, telling(an_entry()))

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
def test_a_refresh_that_is_not_due_asks_nobody(store, time, entry) -> None:
    """It gives the lease back, and shares nothing that has ended."""
    store.take(ADA, "x", 1)
    store.put(ADA, entry, "x", NOW)
    time.passed = 0.5 if entry.usable_until < NOW + 1 else 0.0

    assert a_flight(store, time).refresh(ADA, never) is None
    assert store.read(ADA).lease is None


def test_a_caller_joins_a_refresh_that_is_under_way(store, time) -> None:
    """Whose entry ends meanwhile; one call for both."""
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


def test_a_failure_that_is_its_leaders_alone_is_not_its_followers(store, time) -> None:
    """The leader's allowance is spent; who followed leads for itself."""
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
        follower = pool.submit(flight.find, ADA, telling(an_entry()))

        assert isinstance(leader.exception(10), TooManyMisses)
        assert follower.result(10).source is Source.FETCHED


def test_a_caller_who_cannot_reach_the_store_joins_who_could(store, time) -> None:
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


def test_who_joined_without_the_store_is_not_told_what_an_erase_overtook(
    store, time
) -> None:
    """The flight that lost its lease shares nothing; whoever joined asks itself."""
    registry = ObservedRegistry()
    flight = a_flight(store, time, registry=registry)
    called = threading.Event()
    told = [an_entry(a_profile(name="Before")), an_entry(a_profile(name="After"))]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        if len(told) == 2:
            store.erase(ADA)
            called.set()
            assert registry.joined.wait(10)
        return told.pop(0)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(flight.find, ADA, fetch)
        assert called.wait(10)
        cut_off = pool.submit(
            flight.without_store,
            ADA,
            telling(an_entry(a_profile(name="After"))),
            deadline=flight.deadline(),
        )

        assert cut_off.result(10).entry.outcome == a_profile(name="After")


def test_a_store_that_goes_away_at_the_gate_is_nobodys_answer(store, time) -> None:
    """No note says that Meta failed, which was not even asked; the lease is free."""
    flight = a_flight(store, time)
    told = [StoreUnavailable(), an_entry()]

    def fetch(igsid: Igsid, deadline: float) -> Entry:
        outcome = told.pop(0)
        if isinstance(outcome, StoreUnavailable):
            raise outcome
        return outcome

    answer = flight.find(ADA, fetch)

    assert answer == Answer(an_entry(), Source.FETCHED, stored=False)
    assert store.read(ADA) == Snapshot(None, None, None)


# Somebody has written lately


def refused(igsid: Igsid, deadline: float) -> Entry:
    return an_entry(a_refusal())


def test_consent_that_lags_behind_the_message_is_asked_for_again_soon(
    store, time
) -> None:
    """Meta may tell of the message before it shows the person."""
    store.drop_refusals([ADA], 6.0)

    entry = a_flight(store, time).find(ADA, refused).entry

    assert (entry.fresh_until, entry.usable_until) == (NOW + 5.0, NOW + 5.0)
    assert store.read(ADA).entry == entry


def test_others_are_not_asked_for_again_so_soon(store, time) -> None:
    """Without a message, nothing has changed."""
    store.drop_refusals([Igsid("1254001234567891")], 6.0)

    assert a_flight(store, time).find(ADA, refused).entry == an_entry(a_refusal())


def test_a_refusal_learned_before_the_message_is_nobodys_answer(store, time) -> None:
    """Not even that of whoever had asked before."""
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


# Fetching before anybody asks


def test_what_is_not_there_is_begun_when_that_is_wanted(store, time) -> None:
    """A refresh as such has nothing to do there."""
    flight = a_flight(store, time)

    assert flight.refresh(ADA, never) is None
    assert flight.refresh(ADA, telling(an_entry()), or_begin=True) == Answer(
        an_entry(), Source.FETCHED
    )
    assert flight.refresh(ADA, never, or_begin=True) is None
    assert store.read(ADA) == Snapshot(form_of(an_entry()), None, None)


def test_nobody_begins_what_somebody_does_already(store, time) -> None:
    """It follows nobody either."""
    store.take(ADA, "0123456789abcdef", 60.0)

    assert a_flight(store, time).refresh(ADA, never, or_begin=True) is None
