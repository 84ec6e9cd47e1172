"""With replicas, an answered erase or flush is not undone by a fail-over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import redis

from proxy.domain.entry import Entry
from proxy.domain.failures import StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.embedded import engine
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.flush import Flushed
from proxy.storage.replication import REPLICATED_WITHIN
from tests.helpers.builders import ADA, HOUR, NOW, a_profile, a_refusal, an_entry
from tests.helpers.fakes import no_wait
from tests.helpers.processes import wait_until
from tests.helpers.redis_servers import (
    ClusterNodes,
    RedisServer,
    SentinelGroup,
    client_of,
    has_replicas,
    require,
    start_replicated,
)
from tests.helpers.store_clients import new_client

LEASE = "0123456789abcdef"
WITHIN = REPLICATED_WITHIN + 0.5
"""Seconds: the wait for replicas, and slack for the test."""

CacheOn = Callable[[redis.Redis], ProfileCache]


@pytest.fixture(scope="module", params=["installed", "bundled"])
def pair(request: pytest.FixtureRequest) -> Iterator[list[RedisServer]]:
    """A master and its replica.

    Of the installed server, and of the engine that we bring: servers differ in the
    write that WAIT is about on a connection that has written nothing lately.
    """
    try:
        binary = engine.find_binary() if request.param == "bundled" else None
    except engine.EngineMissing as exc:
        require(False, f"an engine ({exc.why})")
    with start_replicated(binary=binary) as servers:
        yield servers


@pytest.fixture
def entries(pair: list[RedisServer], cache_on: CacheOn) -> Iterator[EntryStore]:
    """The people of that master; none at first."""
    with new_client(pair[0].url, connections=64) as client:
        client.flushdb()
        yield EntryStore(cache_on(client), "default", sleep=no_wait)


@pytest.fixture
def paused(pair: list[RedisServer]) -> Iterator[Callable[[], None]]:
    """Makes the replica hang until the test is over."""
    yield pair[1].pause
    pair[1].resume()
    wait_until(lambda: in_step(pair), 10, "the replica has caught up")


def in_step(pair: list[RedisServer]) -> bool:
    with client_of(pair[0].url) as client:
        return bool(client.wait(1, 100)) and has_replicas(pair[0], 1)


def keep(entries: EntryStore, igsid: Igsid = ADA) -> None:
    entries.take(igsid, LEASE, HOUR)
    assert entries.put(igsid, an_entry(a_profile(igsid=igsid)), LEASE, NOW)


def refuse(entries: EntryStore, igsid: Igsid = ADA) -> None:
    entries.take(igsid, LEASE, HOUR)
    assert entries.put(igsid, an_entry(a_refusal(igsid=igsid)), LEASE, NOW)


def assert_fails_in_time(ask: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        ask()
    assert time.monotonic() - began < WITHIN


def test_erase_reaches_the_replica_before_it_returns(
    entries: EntryStore, pair: list[RedisServer]
) -> None:
    """And not a while later."""
    with client_of(pair[1].url) as replica:
        for _ in range(50):
            keep(entries)
            assert entries.erase(ADA).entry
            assert replica.keys() == []


def test_flush_reaches_the_replica_before_it_returns(
    entries: EntryStore, pair: list[RedisServer]
) -> None:
    """However many slices it took."""
    for number in range(300):
        keep(entries, Igsid(f"1254002{number:09d}"))

    assert entries.flush(None) == Flushed(300, 300)

    with client_of(pair[1].url) as replica:
        assert replica.keys() == []


def test_erase_fails_if_a_replica_does_not_confirm_it(
    entries: EntryStore, paused: Callable[[], None]
) -> None:
    """The replica could be promoted with the person still in it."""
    keep(entries)
    paused()

    assert_fails_in_time(lambda: entries.erase(ADA))


def test_repeated_erase_fails_until_a_replica_confirms_it(
    entries: EntryStore, paused: Callable[[], None]
) -> None:
    """The second one finds nothing, so WAIT alone would be about older writes."""
    keep(entries)
    paused()

    for _ in range(3):
        assert_fails_in_time(lambda: entries.erase(ADA))


def test_erase_fails_on_every_connection_of_the_pool(
    entries: EntryStore, paused: Callable[[], None]
) -> None:
    """WAIT is about the last write of its own connection only."""
    keep(entries)
    barrier = threading.Barrier(8)

    def read_one(_: int) -> None:
        barrier.wait()
        entries.read(ADA)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_one, range(8)))
        paused()
        failed = list(pool.map(lambda _: fails(lambda: entries.erase(ADA)), range(8)))

    assert failed == [True] * 8


def fails(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except StoreUnavailable:
        return True
    return False


@pytest.mark.parametrize("matches", [None, lambda entry: True], ids=["all", "some"])
def test_flush_fails_if_a_replica_does_not_confirm_it(
    entries: EntryStore,
    paused: Callable[[], None],
    matches: Callable[[Entry | None], bool] | None,
) -> None:
    """Even if it finds nothing more to remove. A dry run only counts."""
    keep(entries)
    paused()

    assert entries.flush(matches, dry_run=True) == Flushed(1, 0)
    for _ in range(2):
        assert_fails_in_time(lambda: entries.flush(matches))


def test_reads_and_leases_do_not_wait_for_replicas(
    entries: EntryStore, paused: Callable[[], None]
) -> None:
    """They are as fast as ever, and as easily lost."""
    paused()
    began = time.monotonic()

    keep(entries)

    assert entries.read(ADA).entry is not None
    assert time.monotonic() - began < REPLICATED_WITHIN


def test_drop_refusals_reaches_the_replica_before_it_returns(
    entries: EntryStore, pair: list[RedisServer]
) -> None:
    """Before Meta gets the reply to its webhook, for any number of people."""
    people = [ADA, *(Igsid(f"1254002{number:09d}") for number in range(30))]
    with client_of(pair[1].url) as replica:
        for _ in range(10):
            for igsid in people:
                refuse(entries, igsid)
            entries.drop_refusals(people, 6.0)
            assert replica.keys("pp:e:*") == []
            assert len(replica.keys("pp:w:*")) == len(people)
            entries.erase(ADA)


def test_drop_refusals_fails_if_a_replica_does_not_confirm_it(
    entries: EntryStore, paused: Callable[[], None]
) -> None:
    """And again at the next try; Meta sends the webhook again."""
    refuse(entries)
    paused()

    for _ in range(2):
        assert_fails_in_time(lambda: entries.drop_refusals([ADA], 6.0))


def test_erase_works_again_once_the_replica_is_back(
    entries: EntryStore, pair: list[RedisServer]
) -> None:
    """By itself."""
    keep(entries)
    pair[1].pause()
    assert fails(lambda: entries.erase(ADA))
    pair[1].resume()

    wait_until(lambda: not fails(lambda: entries.erase(ADA)), 10, "an erase")


def test_erase_without_replicas_is_one_trip(tcp_url: str, cache_on: CacheOn) -> None:
    """It neither waits nor writes anything more."""
    with new_client(tcp_url, connections=1) as client:
        client.flushdb()
        entries = EntryStore(cache_on(client), "default", sleep=no_wait)
        keep(entries)
        client.config_resetstat()

        entries.erase(ADA)

        ran = set(client.info("commandstats"))
    assert ran & {"cmdstat_wait", "cmdstat_set", "cmdstat_evalsha"} == set()
    assert {"cmdstat_eval", "cmdstat_info"} <= ran


def test_write_for_confirmation_leaves_no_key(
    entries: EntryStore, pair: list[RedisServer]
) -> None:
    """Neither under our prefix nor elsewhere."""
    entries.erase(ADA)
    entries.flush(None)

    for server in pair:
        with client_of(server.url) as client:
            assert client.keys() == []


# Behind Sentinels


@pytest.fixture
def broken(whole: SentinelGroup) -> Iterator[SentinelGroup]:
    """An empty store behind Sentinels that a test may break; mended afterwards."""
    whole.mend()
    with client_of(whole.master.url) as client:
        client.flushdb()
    yield whole
    whole.mend()


@pytest.mark.parametrize("way", ["erase", "flush"])
def test_erase_and_flush_fail_on_a_former_master(
    broken: SentinelGroup, cache_on: CacheOn, way: str
) -> None:
    """It was cut off, is back, and has not learnt yet that another server leads.

    Both fail until it has become a replica of that one.
    """

    def succeeds(entries: EntryStore) -> bool:
        with suppress(StoreUnavailable):
            entries.erase(ADA) if way == "erase" else entries.flush(None)
            return True
        return False

    with new_client(broken.url, connections=8) as client:
        entries = EntryStore(cache_on(client), "default", sleep=no_wait)
        keep(entries)
        wait_until(lambda: has_replicas(broken.master, 1), 5, "its replica has it")
        old = broken.master
        old.pause()
        wait_until(lambda: broken.is_led_by_another_than(old), 15, "another leads")
        with client_of(broken.master.url) as new:
            assert new.exists(key_of(ADA))

            old.resume()
            wait_until(lambda: succeeds(entries), 10, "it succeeds")

            assert not new.exists(key_of(ADA))


def test_flush_fails_if_a_fail_over_happens_meanwhile(
    broken: SentinelGroup, cache_on: CacheOn
) -> None:
    """Its cursor is of another server."""
    failed_over: list[RedisServer] = []

    def fail_over_at_the_first_match(entry: Entry | None) -> bool:
        if not failed_over:
            old = broken.master
            failed_over.append(old)
            old.kill()
            wait_until(lambda: broken.is_led_by_another_than(old), 15, "another leads")
        return True

    with new_client(broken.url, connections=8) as client:
        entries = EntryStore(cache_on(client), "default", sleep=no_wait)
        keep(entries)

        assert fails(lambda: entries.flush(fail_over_at_the_first_match))

    assert failed_over


# On a Cluster


def key_of(igsid: Igsid) -> str:
    return f"pp:e:{{default:{igsid}}}"


def test_replicas_of_every_node_of_a_cluster_count(
    nodes: ClusterNodes, cache_on: CacheOn
) -> None:
    """An erase waits for those of the person's node, a flush for those of all nodes."""
    replicated_node, *others = nodes.primaries
    person = person_on(nodes, replicated_node)
    with new_client(nodes.url, connections=8) as client:
        entries = EntryStore(cache_on(client), "default", sleep=no_wait)
        keep(entries, person)
        entries.erase(person)
        entries.flush(None)

        nodes.replica.pause()
        try:
            assert fails(lambda: entries.erase(person))
            assert fails(lambda: entries.flush(None))
            assert not any(
                entries.erase(person_on(nodes, other)).entry for other in others
            )
        finally:
            nodes.replica.resume()
    wait_until(
        lambda: has_replicas(replicated_node, 1), 10, "the replica has caught up"
    )


def person_on(nodes: ClusterNodes, server: RedisServer) -> Igsid:
    """A person whose keys are on that node."""
    people = (Igsid(f"1254002{number:09d}") for number in range(100))
    return next(igsid for igsid in people if nodes.home(key_of(igsid)) is server)
