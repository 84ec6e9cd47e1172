"""A Redis Cluster: one node can fail, and slots can move from one to another."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import redis
from redis.crc import key_slot

from proxy.domain.entry import Entry
from proxy.domain.failures import StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.storage.client_factory import REDIS_TIMEOUT
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.flush import Flushed
from proxy.storage.store_guard import PROBED_EVERY
from tests.helpers.builders import HOUR, NOW, a_profile, an_entry
from tests.helpers.fakes import no_wait
from tests.helpers.processes import wait_until
from tests.helpers.redis_servers import ClusterNodes, RedisServer, client_of, free_port
from tests.helpers.store_clients import new_client

LEASE = "0123456789abcdef"
PEOPLE = [Igsid(f"1254002{number:09d}") for number in range(60)]

CacheOn = Callable[[redis.Redis], ProfileCache]


@pytest.fixture
def entries(nodes: ClusterNodes, cache_on: CacheOn) -> Iterator[EntryStore]:
    """All of PEOPLE, on all nodes; a node that hangs is probed on each call."""
    with new_client(nodes.url, connections=8) as client:
        clock = itertools.count(step=PROBED_EVERY).__next__
        entries = EntryStore(
            cache_on(client), "default", monotonic=clock, sleep=no_wait
        )
        for igsid in PEOPLE:
            keep(entries, igsid)
        yield entries
        entries.flush(None)


def key_of(igsid: Igsid) -> str:
    return f"pp:e:{{default:{igsid}}}"


def keep(entries: EntryStore, igsid: Igsid) -> None:
    entries.take(igsid, LEASE, HOUR)
    assert entries.put(igsid, an_entry(a_profile(igsid=igsid)), LEASE, NOW)


def people_on(nodes: ClusterNodes, server: RedisServer) -> list[Igsid]:
    return [igsid for igsid in PEOPLE if nodes.home(key_of(igsid)) is server]


@pytest.fixture
def dead(nodes: ClusterNodes) -> Iterator[Callable[[str], RedisServer]]:
    """Kills or pauses the node that has no replica, until the test is over."""
    victim = min(nodes.primaries[1:], key=lambda server: server.address)

    def make(how: str) -> RedisServer:
        getattr(victim, how)()
        return victim

    yield make
    victim.resume() if victim.is_running else victim.start()
    wait_until(nodes.agree, 20, "the node is back")


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_dead_node_costs_only_its_own_people(
    nodes: ClusterNodes,
    entries: EntryStore,
    dead: Callable[[str], RedisServer],
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    """In time; and nothing about all people is promised."""
    victim = dead(how)
    lost = people_on(nodes, victim)
    elsewhere = [igsid for igsid in PEOPLE if igsid not in lost]
    assert lost and elsewhere

    for igsid in lost[:3]:
        assert (
            seconds_to_fail(lambda igsid=igsid: entries.read(igsid)) < 3 * REDIS_TIMEOUT
        )
        assert (
            seconds_to_fail(lambda igsid=igsid: entries.erase(igsid))
            < 3 * REDIS_TIMEOUT
        )
    for about_all in (
        entries.ping,
        lambda: entries.flush(None),
        lambda: entries.flush(None, dry_run=True),
    ):
        assert seconds_to_fail(about_all) < 4 * REDIS_TIMEOUT

    began = time.monotonic()
    for igsid in elsewhere:
        assert entries.read(igsid).entry is not None
        entries.release(igsid, LEASE)
    entries.erase(elsewhere[0])
    assert time.monotonic() - began < REDIS_TIMEOUT
    assert [record.message for record in our_records(caplog)] == ["store away"]


def seconds_to_fail(ask: Callable[[], object]) -> float:
    """Seconds until it fails."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        ask()
    return time.monotonic() - began


def our_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith("proxy.")]


def test_node_that_is_back_is_used_again(
    nodes: ClusterNodes,
    entries: EntryStore,
    dead: Callable[[str], RedisServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By itself, though it has lost our scripts; logged once."""
    victim = dead("kill")
    igsid = people_on(nodes, victim)[0]
    seconds_to_fail(lambda: entries.read(igsid))

    victim.start()
    wait_until(lambda: works(lambda: keep(entries, igsid)), 10, "it is used")

    wait_until(lambda: works(entries.ping), 10, "all are there")
    assert {record.message for record in our_records(caplog)} == {
        "store away",
        "store back",
    }
    assert entries.read(igsid).entry is not None


def works(ask: Callable[[], object]) -> bool:
    with suppress(StoreUnavailable):
        ask()
        return True
    return False


def test_url_needs_one_live_node(nodes: ClusterNodes, cache_on: CacheOn) -> None:
    """The others are learnt from it."""
    one = "{}:{}".format(*nodes.primaries[2].address)
    dead = [f"127.0.0.1:{free_port()}" for _ in range(2)]

    with new_client(f"redis+cluster://{dead[0]},{dead[1]},{one}", 8) as client:
        entries = EntryStore(cache_on(client), "default", sleep=no_wait)
        for igsid in PEOPLE:
            keep(entries, igsid)
        assert entries.flush(None) == Flushed(len(PEOPLE), len(PEOPLE))


def test_flush_removes_the_keys_of_all_nodes(
    nodes: ClusterNodes, entries: EntryStore
) -> None:
    """Entries as well as leases."""
    for igsid in PEOPLE:
        entries.take(igsid, LEASE, HOUR)
    assert all(people_on(nodes, server) for server in nodes.primaries)

    assert entries.flush(None) == Flushed(len(PEOPLE), len(PEOPLE))

    for server in nodes.primaries:
        with client_of(server.url) as client:
            assert client.keys("pp:[eln]:*") == []


def test_flush_deletes_the_leases_of_all_nodes_before_entries(
    entries: EntryStore,
) -> None:
    """Otherwise a lease on the last node could still write an entry that then stays."""
    for igsid in PEOPLE:
        entries.take(igsid, LEASE, HOUR)
    written: list[bool] = []

    def write_at_the_first_match(entry: Entry | None) -> bool:
        if not written:
            written.extend(
                entries.put(igsid, an_entry(a_profile(igsid=igsid)), LEASE, NOW)
                for igsid in PEOPLE
            )
        return True

    assert entries.flush(write_at_the_first_match) == Flushed(len(PEOPLE), len(PEOPLE))
    assert written == [False] * len(PEOPLE)


class Slot:
    """One slot that a test moves from its node to another and back."""

    def __init__(self, nodes: ClusterNodes, number: int) -> None:
        self.nodes = nodes
        self.number = number
        home = number * 3 // 16_384
        self.home, self.other = nodes.primaries[home], nodes.primaries[home - 1]

    def set(self, server: RedisServer, *words: str) -> None:
        with client_of(server.url) as client:
            client.execute_command("CLUSTER", "SETSLOT", self.number, *words)

    def begin_move(self) -> None:
        """Begin the move: between the two nodes."""
        self.set(self.other, "IMPORTING", name_of(self.home))
        self.set(self.home, "MIGRATING", name_of(self.other))

    def move(self) -> None:
        """Give the slot to the other node."""
        for server in (self.other, *self.nodes.primaries):
            self.set(server, "NODE", name_of(self.other))

    def restore(self) -> None:
        for server in (self.home, *self.nodes.primaries):
            self.set(server, "STABLE")
            self.set(server, "NODE", name_of(self.home))
        wait_until(self.nodes.agree, 10, "all nodes know of it")


def name_of(server: RedisServer) -> str:
    with client_of(server.url) as client:
        return str(client.execute_command("CLUSTER", "MYID").decode())


@pytest.fixture
def slot(nodes: ClusterNodes, entries: EntryStore) -> Iterator[Slot]:
    """The slot of the first of PEOPLE, who is erased."""
    entries.erase(PEOPLE[0])
    slot = Slot(nodes, key_slot(key_of(PEOPLE[0]).encode()))
    yield slot
    slot.restore()


def test_slot_that_has_moved_is_found_at_once(entries: EntryStore, slot: Slot) -> None:
    """Without an error to the caller."""
    slot.move()

    keep(entries, PEOPLE[0])

    assert entries.read(PEOPLE[0]).entry is not None
    assert entries.erase(PEOPLE[0]).entry


def test_flush_fails_while_a_slot_is_being_moved(
    entries: EntryStore, slot: Slot
) -> None:
    """Its keys go one by one to a node that may have been scanned already."""
    slot.begin_move()

    seconds_to_fail(lambda: entries.flush(None))
    seconds_to_fail(lambda: entries.flush(None, dry_run=True))


@pytest.mark.parametrize("dry_run", [False, True])
def test_flush_fails_if_a_slot_moves_meanwhile(
    entries: EntryStore, slot: Slot, dry_run: bool
) -> None:
    """Though all is well before and after it."""
    moved: list[None] = []

    def move_at_the_first_match(entry: Entry | None) -> bool:
        if not moved:
            moved.append(slot.move())
        return True

    seconds_to_fail(lambda: entries.flush(move_at_the_first_match, dry_run=dry_run))

    assert moved


def test_flush_fails_if_a_node_restarts_meanwhile(
    nodes: ClusterNodes, entries: EntryStore
) -> None:
    """Its cursor is not valid any more."""
    restarted: list[RedisServer] = []

    def restart_at_the_first_match(entry: Entry | None) -> bool:
        if not restarted:
            restarted.append(nodes.primaries[1])
            nodes.primaries[1].stop()
            nodes.primaries[1].start()
        return True

    seconds_to_fail(lambda: entries.flush(restart_at_the_first_match))

    wait_until(nodes.agree, 20, "the node is back")
