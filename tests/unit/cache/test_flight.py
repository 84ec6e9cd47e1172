"""One fetch at a time, told step by step: what the processes' tests show at large."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import fakeredis
import pytest
from builders import ADA, NOW, a_profile, a_refusal, an_entry

from proxy.cache.backend import ProfileCache
from proxy.cache.flight import CALLS_WITHOUT_STORE, Flight
from proxy.cache.store import EntryStore, Seen
from proxy.outcomes import (
    Answer,
    GraphTimeout,
    GraphUnavailable,
    Igsid,
    Overloaded,
    Source,
    StoredOutcome,
    StoreUnavailable,
    TokenRejected,
)

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

        def call(*args):
            if name in self.losing:
                self.losing.remove(name)
                method(*args)
                raise StoreUnavailable()
            return method(*args)

        return call


class AwayStore:
    def look(self, igsid: Igsid) -> Seen:
        raise StoreUnavailable()


@pytest.fixture
def store() -> EntryStore:
    cache = ProfileCache(host=fakeredis.FakeRedis(), key_prefix="pp:")
    return EntryStore(cache, "default")


@pytest.fixture
def time() -> Time:
    return Time()


def a_flight(store, time: Time) -> Flight:
    return Flight(
        store,
        graph_timeout=GRAPH_TIMEOUT,
        wall=time.wall,
        clock=time.clock,
        sleep=time.sleep,
    )


def never(igsid: Igsid, within: float) -> StoredOutcome:
    raise AssertionError("Meta must not be asked")


def telling(entry: StoredOutcome):
    return lambda igsid, within: entry


def failing(failure: Exception):
    def fetch(igsid: Igsid, within: float) -> StoredOutcome:
        raise failure

    return fetch


def test_a_fresh_entry_asks_nobody(store, time) -> None:
    """A hit is what is stored, and no lease is taken for it."""
    store.take(ADA, "x", 1)
    store.put(ADA, an_entry(), "x", NOW)

    answer = a_flight(store, time).find(ADA, never)

    assert answer == Answer(an_entry(), Source.HIT)
    assert store.look(ADA).lease is None


def test_a_miss_is_fetched_and_stored(store, time) -> None:
    """The leader has the whole deadline, and leaves the entry and no lease."""
    told = []

    def fetch(igsid: Igsid, within: float) -> StoredOutcome:
        told.append((igsid, within))
        return an_entry()

    answer = a_flight(store, time).find(ADA, fetch)

    assert answer == Answer(an_entry(), Source.FETCHED)
    assert told == [(ADA, GRAPH_TIMEOUT)]
    assert store.look(ADA) == Seen(an_entry(), None, None)


def test_a_stale_entry_is_a_miss(store, time) -> None:
    """What is past its freshness is asked for again."""
    old = an_entry(fetched_at=NOW - 50, fresh_until=NOW, usable_until=NOW + 100)
    store.take(ADA, "x", 1)
    store.put(ADA, old, "x", NOW)

    answer = a_flight(store, time).find(ADA, telling(an_entry()))

    assert answer.source is Source.FETCHED


def test_a_failure_is_told_and_leaves_a_note_but_no_entry(store, time) -> None:
    """Those who wait elsewhere read how it failed; nothing is stored as a fact."""
    failure = TokenRejected()

    with pytest.raises(TokenRejected):
        a_flight(store, time).find(ADA, failing(failure))

    seen = store.look(ADA)
    assert (seen.entry, seen.lease) == (None, None)
    assert isinstance(seen.note, TokenRejected)


def test_a_note_answers_without_asking_meta(store, time) -> None:
    """Callers do not take turns asking a Meta that has just failed."""
    store.take(ADA, "x", 1)
    store.leave_note(ADA, GraphTimeout(), "x")

    with pytest.raises(GraphTimeout):
        a_flight(store, time).find(ADA, never)


def test_a_bug_while_asking_leaves_a_note_for_those_who_wait(store, time) -> None:
    """The bug is the leader's; the others must not repeat it one after the other."""
    with pytest.raises(ZeroDivisionError):
        a_flight(store, time).find(ADA, failing(ZeroDivisionError()))

    assert isinstance(store.look(ADA).note, GraphUnavailable)
    assert store.look(ADA).lease is None


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
    time.meanwhile = [lambda: store.leave_note(ADA, TokenRejected(), "elsewhere")]

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

    def fetch(igsid: Igsid, within: float) -> StoredOutcome:
        if len(told) == 2:
            store.erase(ADA)
        return told.pop(0)

    answer = a_flight(store, time).find(ADA, fetch)

    assert answer.entry.outcome == a_profile(name="After")
    assert store.look(ADA).entry == answer.entry


def test_a_lease_lost_twice_is_a_failure(store, time) -> None:
    """Calls to Meta are counted: two for one caller, then it is told."""
    calls = []

    def fetch(igsid: Igsid, within: float) -> StoredOutcome:
        calls.append(igsid)
        store.erase(ADA)
        return an_entry()

    with pytest.raises(GraphUnavailable):
        a_flight(store, time).find(ADA, fetch)

    assert len(calls) == 2
    assert store.look(ADA) == Seen(None, None, None)


def test_a_lost_reply_to_taking_the_lease_is_made_good(store, time) -> None:
    """The lease was taken though nobody said so: it is found to be ours."""
    answer = a_flight(BrokenStore(store, "take"), time).find(ADA, telling(an_entry()))

    assert answer == Answer(an_entry(), Source.FETCHED)


def test_an_outcome_is_answered_though_it_cannot_be_stored(store, time) -> None:
    """The store went away during the call; the caller still gets what was learned."""
    answer = a_flight(BrokenStore(store, "put"), time).find(ADA, telling(an_entry()))

    assert answer == Answer(an_entry(), Source.FETCHED, stored=False)


def test_callers_of_one_process_share_one_call(store, time) -> None:
    """Twenty threads, one fetch; nineteen say that they were collapsed or hit."""
    calls = []
    looked = threading.Semaphore(0)

    class Counted(BrokenStore):
        def look(self, igsid: Igsid) -> Seen:
            try:
                return store.look(igsid)
            finally:
                looked.release()

    def fetch(igsid: Igsid, within: float) -> StoredOutcome:
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


def test_a_caller_after_an_erase_does_not_join_the_flight_before_it(
    store, time
) -> None:
    """The joining rule: the lease just seen is that flight's, or it is not joined."""
    flight = a_flight(store, time)
    later: list[Answer] = []

    def fetch_before(igsid: Igsid, within: float) -> StoredOutcome:
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


def test_without_a_store_callers_of_a_process_share_one_call(time) -> None:
    """A failure too; the flight has no lease, but it has a name."""
    joined = threading.Event()
    calls = []

    def fetch(igsid: Igsid, within: float) -> StoredOutcome:
        calls.append(igsid)
        assert joined.wait(10)
        raise TokenRejected()

    flight = a_flight(AwayStore(), time)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flight.find, ADA, fetch)
        while not calls:
            pass
        second = pool.submit(flight.find, ADA, fetch)
        while not second.running():
            pass
        joined.set()

        assert isinstance(first.exception(10), TokenRejected)
        assert isinstance(second.exception(10), TokenRejected)
    assert len(calls) <= 2


def test_without_a_store_only_a_few_calls_are_let_through(time) -> None:
    """The seats are few; whoever finds none is told so, and soon."""
    flight = a_flight(AwayStore(), time)
    seated = threading.Barrier(CALLS_WITHOUT_STORE + 1)
    over = threading.Event()

    def fetch(igsid: Igsid, within: float) -> StoredOutcome:
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
