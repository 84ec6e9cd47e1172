"""Batches: one trip, fetches in parallel, and a result for each person."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import fakeredis
import pytest
import redis

from proxy.coordination.bulkhead import CALLS_WITHOUT_STORE
from proxy.coordination.single_flight import SingleFlight
from proxy.domain.answer import Answer, Directives, FetchResult, Source
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    NotCached,
    Overloaded,
    StoreUnavailable,
    TooManyMisses,
)
from proxy.domain.profile import Igsid
from proxy.storage.entry_reader import LONGEST_LOCAL_ENTRY
from proxy.storage.near_cache import NearCache
from tests.helpers.builders import HOUR, a_profile, a_refusal, picture_url
from tests.helpers.fakes import FakeGraph
from tests.helpers.world import World, name_of

PEOPLE = [Igsid(f"12540012345{n:02d}") for n in range(20)]
ADA, BEN, CLEO, DOV = PEOPLE[:4]


def a_world(**options: Any) -> World:
    """Meta knows all of PEOPLE."""
    world = World(**options)
    for igsid in PEOPLE:
        world.graph.outcomes[igsid] = a_profile(igsid=igsid)
    return world


@pytest.fixture
def world() -> World:
    return a_world()


def kind(answer: Answer | Exception) -> object:
    return answer.source if isinstance(answer, Answer) else type(answer)


def test_batch_returns_its_people_in_the_order_asked_for(world) -> None:
    """Cached or not, and each counted by its source."""
    world.graph.outcomes[BEN] = a_refusal(igsid=BEN)
    world.graph.outcomes[CLEO] = GraphUnavailable()
    world.find(DOV)

    found = world.lookup.find_many([DOV, CLEO, BEN, ADA])

    assert [(igsid, kind(answer)) for igsid, answer in found.items()] == [
        (DOV, Source.HIT),
        (CLEO, GraphUnavailable),
        (BEN, Source.FETCHED),
        (ADA, Source.FETCHED),
    ]
    assert world.counted() == {
        ("fetched", "profile"): 2,
        ("fetched", "consent_required"): 1,
        ("hit", "profile"): 1,
        ("none", "graph_unavailable"): 1,
    }


def test_cached_people_cost_one_trip_together(world) -> None:
    """However many they are."""
    world.lookup.find_many(PEOPLE)
    trips = []
    read_many = world.cache.keyspace.read_many

    def counted(kinds, tags, **options):
        trips.append(len(tags))
        return read_many(kinds, tags, **options)

    world.cache.keyspace.read_many = counted
    world.store.read = None

    found = world.lookup.find_many(PEOPLE)

    assert {kind(answer) for answer in found.values()} == {Source.HIT}
    assert trips == [len(PEOPLE)]


def world_with_near_cache() -> tuple[World, fakeredis.FakeServer]:
    """Meta knows all of PEOPLE, local copies are kept; and the store's server."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    server = fakeredis.FakeServer()
    world = World(redis=fakeredis.FakeRedis(server=server), near=near)
    for igsid in PEOPLE:
        world.graph.outcomes[igsid] = a_profile(igsid=igsid)
    return world, server


def test_local_copies_cost_no_trip() -> None:
    """What a batch has read the next request has, alone or in a batch."""
    world, server = world_with_near_cache()
    world.lookup.find_many(PEOPLE)
    world.lookup.find_many(PEOPLE)

    server.connected = False
    found = world.lookup.find_many(PEOPLE)

    assert {kind(answer) for answer in found.values()} == {Source.HIT}
    assert world.find(ADA).source is Source.HIT
    assert world.process_metrics.store_errors["reads"] == 0


def test_entry_that_changes_during_its_read_is_not_copied() -> None:
    """The near cache learns of the read before it is made."""
    world, _ = world_with_near_cache()
    world.find(ADA)
    near, read = world.near, world.cache.keyspace.read

    def overtaken(kinds, tag, **options):
        values = read(kinds, tag, **options)
        near.invalidate([tag])
        return values

    world.cache.keyspace.read = overtaken
    world.find(ADA)
    assert near.size == 0

    world.cache.keyspace.read = read
    world.find(ADA)
    assert near.size == 1


def test_failed_read_is_no_longer_pending() -> None:
    """Otherwise it would stay pending for ever."""
    world, server = world_with_near_cache()
    server.connected = False

    with suppress(StoreUnavailable):
        world.store.read(ADA)
    assert world.near._pending == {}

    world.store.read_many([ADA])
    assert world.near._pending == {}


@pytest.mark.parametrize(("length", "copies"), [(100, 1), (LONGEST_LOCAL_ENTRY, 0)])
def test_very_long_entry_is_not_copied(length: int, copies: int) -> None:
    """Local copies of any length would have no limit in bytes."""
    world, _ = world_with_near_cache()
    world.graph.outcomes[ADA] = a_profile(igsid=ADA, name="x" * length)

    for _ in range(3):
        world.find(ADA)

    assert world.near.size == copies


def test_entry_that_changes_while_its_batch_is_read_is_not_copied() -> None:
    """The others are copied."""
    world, _ = world_with_near_cache()
    near = world.near
    world.lookup.find_many([ADA, BEN])
    near.invalidate(None)
    read_many = world.cache.keyspace.read_many

    def overtaken(kinds, tags, **options):
        values = read_many(kinds, tags, **options)
        near.invalidate([f"default:{ADA}"])
        return values

    world.cache.keyspace.read_many = overtaken

    world.lookup.find_many([ADA, BEN])

    assert world.store.recall(ADA) is None
    assert world.store.recall(BEN)


class MeetingGraph(FakeGraph):
    """Meta, which answers no call before *callers* have asked."""

    def __init__(self, callers: int) -> None:
        super().__init__()
        self.meeting = threading.Barrier(callers)

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        self.meeting.wait(10)
        return super().fetch(igsid, within)


def test_missing_people_are_fetched_in_parallel() -> None:
    """No answer comes before all have been asked about."""
    world = World(graph=MeetingGraph(len(PEOPLE)))
    for igsid in PEOPLE:
        world.graph.outcomes[igsid] = a_profile(igsid=igsid)

    found = world.lookup.find_many(PEOPLE)

    assert {kind(answer) for answer in found.values()} == {Source.FETCHED}
    assert sorted(world.graph.asked) == PEOPLE


class WatchedGraph(FakeGraph):
    """Meta, which records how many calls run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self.now = 0
        self.lock = threading.Lock()

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        result = super().fetch(igsid, within)
        with self.lock:
            self.now -= 1
        return result


def test_batch_makes_no_more_calls_at_once_than_there_are_seats() -> None:
    """The rest wait for their turn."""
    world = World(graph=WatchedGraph(), seats=3)
    for igsid in PEOPLE:
        world.graph.outcomes[igsid] = a_profile(igsid=igsid)

    found = world.lookup.find_many(PEOPLE)

    assert {kind(answer) for answer in found.values()} == {Source.FETCHED}
    assert world.graph.most <= 3


def test_batch_shares_the_flights_of_other_batches(world) -> None:
    """One call for each person, though three batches ask at once."""
    others = World(redis=world.redis, clock=world.clock)
    others.graph.outcomes = world.graph.outcomes
    batches = []

    def ask(lookup) -> None:
        batches.append(lookup.find_many(PEOPLE))

    threads = [
        threading.Thread(target=ask, args=(lookup,))
        for lookup in (world.lookup, world.lookup, others.lookup)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(batches) == 3
    assert sorted(world.graph.asked + others.graph.asked) == PEOPLE


class RecordingFlight(SingleFlight):
    """Flights that note in *begun* who is joined; Ada's and Cleo's time out."""

    def __init__(self, begun: list[Igsid], *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.begun = begun

    def join(self, igsid: Igsid, *args, **kwargs) -> Answer:
        self.begun.append(igsid)
        if igsid in (ADA, CLEO):
            raise GraphTimeout()
        return super().join(igsid, *args, **kwargs)


def test_people_without_a_flight_are_fetched_first() -> None:
    """So that waiting for other flights does not delay the calls we can make."""
    begun: list[Igsid] = []
    world = a_world(new_flight=partial(RecordingFlight, begun))
    for igsid in (ADA, CLEO):
        world.store.take(igsid, "elsewhere", 6.0)
    world.bulkhead._pool._threads = 0

    found = world.lookup.find_many([ADA, BEN, CLEO, DOV])

    assert begun == [BEN, DOV, ADA, CLEO]
    assert list(found) == [ADA, BEN, CLEO, DOV]


def test_each_fetch_of_a_batch_is_charged(world) -> None:
    """Two are allowed; the rest of the batch fails one by one."""
    world.find(ADA)

    found = world.lookup.find_many([ADA, BEN, CLEO, DOV], client="inbox")

    kinds = [kind(answer) for answer in found.values()]
    assert kinds[0] is Source.HIT
    assert sorted(map(str, kinds[1:])) == sorted(
        map(str, [Source.FETCHED, Source.FETCHED, TooManyMisses])
    )


def test_stale_people_are_answered_and_refreshed_later(world) -> None:
    world.lookup.find_many(PEOPLE)
    world.clock.now += HOUR + 1
    world.background.jobs.clear()

    found = world.lookup.find_many(PEOPLE)

    assert {kind(answer) for answer in found.values()} == {Source.HIT}
    assert set(PEOPLE) <= set(world.background.jobs)
    assert world.graph.calls == len(PEOPLE)


def test_directives_hold_for_each_person_of_a_batch(world) -> None:
    """No entry older than wanted, and no call where none is allowed."""
    world.find(ADA)
    world.clock.now += 2

    kept = world.lookup.find_many(
        [ADA, BEN], directives=Directives(only_if_cached=True)
    )
    force = world.lookup.find_many([ADA], directives=Directives(no_cache=True))

    assert [kind(answer) for answer in kept.values()] == [Source.HIT, NotCached]
    assert force[ADA].is_forced
    assert world.graph.asked == [ADA, ADA]


def test_one_deadline_holds_for_the_whole_batch(world) -> None:
    """People it is too late for time out; the deadlines do not add up."""

    class SlowGraph(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            world.clock.now += 4.0
            return super().fetch(igsid, within)

    slow = World(redis=world.redis, clock=world.clock, graph=SlowGraph(), seats=1)
    slow.graph.outcomes = world.graph.outcomes
    slow.bulkhead._pool._threads = 0
    started = world.clock.now

    found = slow.lookup.find_many(PEOPLE[:6])

    assert [kind(answer) for answer in found.values()] == [
        *[Source.FETCHED] * 2,
        *[GraphTimeout] * 4,
    ]
    assert world.clock.now - started <= 12.0


class MeanwhileGraph(FakeGraph):
    """Meta, and what happens elsewhere during the call about one person."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: dict[Igsid, Callable[[], object]] = {}

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        result = super().fetch(igsid, within)
        self.meanwhile.pop(igsid, lambda: None)()
        return result


def world_with_a_slow_batch() -> World:
    """Ada and Ben are cached, Ben as refusing; calls to Meta go one at a time."""
    world = World(graph=MeanwhileGraph())
    for igsid in PEOPLE:
        world.graph.outcomes[igsid] = a_profile(igsid=igsid, name="Before")
    world.graph.outcomes[BEN] = a_refusal(igsid=BEN)
    world.lookup.find_many([ADA, BEN])
    for igsid in (ADA, BEN):
        world.graph.outcomes[igsid] = a_profile(igsid=igsid, name="After")
    world.graph.asked.clear()
    world.bulkhead._pool._threads = 0
    return world


def test_refusal_is_not_answered_after_a_message_during_the_batch() -> None:
    """The message has been acknowledged before the batch is answered."""
    world = world_with_a_slow_batch()
    world.graph.meanwhile[CLEO] = lambda: world.lookup.on_message_received([BEN])

    found = world.lookup.find_many([BEN, CLEO])

    assert name_of(found[BEN]) == "After"
    assert world.graph.asked == [CLEO, BEN]


@pytest.mark.parametrize("erased", [ADA, CLEO], ids=["cached", "just fetched"])
def test_entry_is_not_answered_after_an_erasure_during_the_batch(erased) -> None:
    """Neither the stored entry nor one that the batch itself has fetched."""
    world = world_with_a_slow_batch()

    def erase() -> None:
        world.graph.outcomes[erased] = a_profile(igsid=erased, name="New")
        world.lookup.erase(erased)

    world.graph.meanwhile[DOV] = erase

    found = world.lookup.find_many([ADA, CLEO, DOV])

    assert name_of(found[erased]) == "New"
    assert world.graph.asked == [CLEO, DOV, erased]


def test_picture_that_expires_during_the_batch_is_not_sent() -> None:
    """It was alive when the batch began."""
    world = world_with_a_slow_batch()
    dies_at = world.clock.now + 4
    link = {"profile_pic": picture_url(dies_at), "picture_expires_at": dies_at}
    world.graph.outcomes[CLEO] = a_profile(igsid=CLEO, **link)
    world.find(CLEO)
    world.graph.meanwhile[DOV] = lambda: world.pass_time(4.5)

    found = world.lookup.find_many([CLEO, DOV])

    assert found[CLEO].entry.outcome.profile_pic is None


def test_entry_stored_elsewhere_during_the_batch_is_answered() -> None:
    """It costs no call: the read that would notice an erasure finds it."""
    world = world_with_a_slow_batch()
    world.graph.meanwhile[DOV] = lambda: world.lookup.refresh(ADA)

    found = world.lookup.find_many([ADA, DOV])

    assert name_of(found[ADA]) == "After"
    assert world.graph.asked == [DOV, ADA]


def test_batch_gives_up_after_three_rounds_of_erasures() -> None:
    """Then the person is a failure."""

    class ErasingGraph(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            world.lookup.erase(BEN if igsid == ADA else ADA)
            return super().fetch(igsid, within)

    world = World(graph=ErasingGraph())
    for igsid in (ADA, BEN):
        world.graph.outcomes[igsid] = a_profile(igsid=igsid)
    world.bulkhead._pool._threads = 0

    found = world.lookup.find_many([ADA, BEN])

    assert [kind(answer) for answer in found.values()] == [
        GraphUnavailable,
        Source.FETCHED,
    ]
    assert world.graph.asked == [ADA, BEN, ADA, BEN]


def test_answer_that_could_not_be_stored_is_answered_anyway() -> None:
    """What was never stored cannot have been removed."""
    server = fakeredis.FakeServer()
    world = World(redis=fakeredis.FakeRedis(server=server), graph=MeanwhileGraph())
    world.graph.outcomes[ADA] = a_profile()
    world.graph.meanwhile[ADA] = lambda: setattr(server, "connected", False)

    found = world.lookup.find_many([ADA])

    assert (kind(found[ADA]), found[ADA].stored) == (Source.FETCHED, False)
    assert world.graph.calls == 1


def test_cached_people_are_answered_while_too_many_callers_wait(world) -> None:
    """A batch that may not wait fails only for the missing."""
    world.find(ADA)
    for _ in range(400):
        world.bulkhead._waiters.acquire()

    found = world.lookup.find_many([ADA, BEN])

    assert [kind(answer) for answer in found.values()] == [Source.HIT, Overloaded]


def test_unwanted_entry_is_answered_while_too_many_callers_wait(world) -> None:
    """No caller gets less for having asked for more, in a batch or alone."""
    world.find(ADA)
    world.clock.now += 2
    for _ in range(400):
        world.bulkhead._waiters.acquire()

    found = world.lookup.find_many([ADA, BEN], directives=Directives(no_cache=True))
    alone = world.lookup.find(ADA, directives=Directives(no_cache=True))

    assert [kind(answer) for answer in found.values()] == [Source.STALE, Overloaded]
    assert isinstance(found[ADA].failure, Overloaded)
    assert (alone.source, alone.entry) == (Source.STALE, found[ADA].entry)


def test_local_copies_answer_no_cache_while_the_store_is_away() -> None:
    """Where Meta may not be asked about any more of the people."""
    world, server = world_with_near_cache()
    for _ in range(2):
        world.lookup.find_many(PEOPLE)
    world.clock.now += 2
    server.connected = False

    found = world.lookup.find_many(PEOPLE, directives=Directives(no_cache=True))

    assert [kind(answer) for answer in found.values()] == [
        *[Source.FETCHED] * CALLS_WITHOUT_STORE,
        *[Source.STALE] * (len(PEOPLE) - CALLS_WITHOUT_STORE),
    ]


def test_few_people_are_fetched_while_the_store_is_away() -> None:
    """Four at once; the others are refused as overloaded, without a try."""
    server = fakeredis.FakeServer()
    redis_ = fakeredis.FakeRedis(server=server)
    world = World(redis=redis_, graph=MeetingGraph(CALLS_WITHOUT_STORE))
    for igsid in PEOPLE:
        world.graph.outcomes[igsid] = a_profile(igsid=igsid)
    server.connected = False

    found = world.lookup.find_many(PEOPLE)

    assert [kind(answer) for answer in found.values()] == [
        *[Source.FETCHED] * CALLS_WITHOUT_STORE,
        *[Overloaded] * (len(PEOPLE) - CALLS_WITHOUT_STORE),
    ]
    assert list(found) == PEOPLE


def test_node_that_is_away_fails_only_its_own_people(world) -> None:
    """On a Cluster; people on other nodes are answered as ever."""
    world.find(ADA)
    world.find(BEN)
    node_name = world.cache.nodes.node_name
    world.cache.nodes.node_name = lambda key: "away" if BEN in key else node_name(key)
    read_many = world.cache.keyspace.read_many

    def counted_read(kinds, tags, **options):
        if any(BEN in tag for tag in tags):
            raise redis.ConnectionError()
        return read_many(kinds, tags, **options)

    world.cache.keyspace.read_many = counted_read

    found = world.store.read_many([ADA, BEN])

    assert found[ADA].entry
    assert isinstance(found[BEN], StoreUnavailable)
