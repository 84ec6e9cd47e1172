"""Near caches, kept true by every kind of store that has client tracking."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import redis

from proxy.domain.failures import StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.storage.codec import decode, encode
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.invalidation_listener import InvalidationListener
from proxy.storage.near_cache import TRUSTED_FOR, NearCache
from tests.helpers.builders import a_profile, an_entry
from tests.helpers.fakes import no_wait
from tests.helpers.processes import wait_until
from tests.helpers.redis_servers import (
    REAL_STORES,
    RedisServer,
    SentinelGroup,
    client_of,
)
from tests.helpers.store_clients import new_client

TRACKED = [store for store in REAL_STORES if store != "cluster"]

_numbers = itertools.count()


class Process(NamedTuple):
    """The store and the near cache of one process of ours."""

    entries: EntryStore
    near: NearCache


Begin = Callable[[str], Process]


@pytest.fixture(scope="session")
def begin(cache_on: Callable[[redis.Redis], ProfileCache]) -> Begin:
    """Begins a process on a store; its listener lives as long as the tests."""

    def begin(url: str) -> Process:
        client = new_client(url, connections=64)
        near = NearCache(
            1000,
            outage_grace=600.0,
            start_listener=InvalidationListener(client, "pp:e:").start,
        )
        process = Process(EntryStore(cache_on(client), "default", near=near), near)
        read_once(process, Igsid("99999"))
        return process

    return begin


@pytest.fixture(scope="session")
def process_on(begin: Begin) -> Callable[[str], Process]:
    """One process for each store, for the tests that do not break the store."""
    begun: dict[str, Process] = {}

    def get(url: str) -> Process:
        if url not in begun:
            begun[url] = begin(url)
        wait_until(lambda: begun[url].near.is_trusted, 10, "near cache is trusted")
        return begun[url]

    return get


@pytest.fixture(params=TRACKED)
def url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def process(url: str, process_on: Callable[[str], Process]) -> Process:
    return process_on(url)


@pytest.fixture
def raw(url: str) -> Iterator[redis.Redis]:
    with client_of(url) as client:
        yield client


@pytest.fixture
def igsid() -> Igsid:
    """A person without an entry."""
    return Igsid(f"1254003{next(_numbers):09d}")


def read_once(process: Process, igsid: Igsid) -> None:
    """A read keeps a local entry, and the first read starts the listener."""
    try:
        process.entries.read(igsid)
    except StoreUnavailable:
        return


def key(igsid: Igsid) -> str:
    return f"pp:e:{{default:{igsid}}}"


def put(raw: redis.Redis, igsid: Igsid, name: str = "Ada", px: int = 60_000) -> None:
    entry = an_entry(a_profile(igsid=igsid, name=name))
    raw.set(key(igsid), encode(entry), px=px)


def put_locally(
    process: Process, raw: redis.Redis, igsid: Igsid, **options: int
) -> None:
    """Store an entry of *igsid*, and make *process* keep a local entry of it.

    The invalidation of the write itself can still be on its way and drop it.
    """
    put(raw, igsid, **options)  # type: ignore[arg-type]

    def is_kept() -> bool:
        read_once(process, igsid)
        return recalled(process, igsid) is not None

    wait_until(is_kept, 5, "there is a local entry")
    time.sleep(0.02)
    wait_until(is_kept, 5, "the local entry stays")


def recalled(process: Process, igsid: Igsid) -> str | None:
    """The name in the local entry of *igsid*, if it may be used."""
    local = process.entries.recall(igsid)
    entry = decode(local.stored, igsid) if local else None
    return getattr(entry.outcome, "name", None) if entry else None


def test_entry_that_was_read_needs_no_second_trip(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    put_locally(process, raw, igsid)

    assert recalled(process, igsid) == "Ada"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw, key: raw.delete(key),
        lambda raw, key: raw.unlink(key),
        lambda raw, key: raw.set(key, b"another", px=60_000),
        lambda raw, key: raw.pexpire(key, 1),
        lambda raw, key: raw.rename(key, "elsewhere"),
        lambda raw, key: raw.flushdb(),
    ],
    ids=["delete", "unlink", "set", "expire", "rename", "flushdb"],
)
def test_every_change_of_an_entry_drops_the_local_entry(
    process: Process, raw: redis.Redis, igsid: Igsid, change: Callable
) -> None:
    """Also a change by another application, which knows nothing of near caches."""
    put_locally(process, raw, igsid)

    change(raw, key(igsid))

    wait_until(lambda: recalled(process, igsid) is None, 5, "the local entry is gone")


def test_local_entry_ends_with_its_entry(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    """By its own clock: Redis may send the invalidation later."""
    put_locally(process, raw, igsid, px=500)

    ends_at = process.near._entries[f"default:{igsid}"].ends_at

    assert ends_at <= time.monotonic() + 0.5


def test_once_erase_returns_no_process_has_a_local_entry(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    """However often it is read meanwhile, and whichever process erases."""
    eraser = EntryStore(process.entries._cache, "default")
    with ThreadPoolExecutor(4) as pool:
        for number in range(3):
            put_locally(process, raw, igsid, name=f"Ada {number}")  # type: ignore[arg-type]
            stop: list[bool] = []

            def read_until_stopped(stop: list[bool] = stop) -> None:
                while not stop:
                    process.entries.recall(igsid)
                    process.entries.read(igsid)

            readers = [pool.submit(read_until_stopped) for _ in range(4)]
            try:
                eraser.erase(igsid)
                assert recalled(process, igsid) is None
                assert process.entries.read(igsid).entry is None
            finally:
                stop.append(True)
            for reader in readers:
                reader.result()


def test_erase_and_flush_wait_until_no_local_entry_is_trusted(
    url: str, cache_on
) -> None:
    """Also in a process without a near cache, because others may have one."""
    waited: list[float] = []
    with new_client(url, connections=4) as client:
        entries = EntryStore(cache_on(client), "default", sleep=waited.append)

        entries.erase(Igsid("1254001000000001"))
        entries.flush(None)
        entries.flush(None, dry_run=True)

    assert waited == [TRUSTED_FOR, TRUSTED_FOR]


def test_erase_on_a_cluster_does_not_wait(cluster_url: str, cache_on) -> None:
    """There are no near caches on a Cluster."""
    waited: list[float] = []
    with new_client(cluster_url, connections=4) as client:
        entries = EntryStore(cache_on(client), "default", sleep=waited.append)

        entries.erase(Igsid("1254001000000001"))

    assert waited == []


def test_lost_connection_clears_the_near_cache(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    """Invalidations may have been missed meanwhile; then the listener reconnects."""
    put_locally(process, raw, igsid)
    tracking = [each for each in raw.client_list() if "t" in each["flags"]]

    for each in tracking:
        raw.client_kill_filter(_id=each["id"])

    wait_until(lambda: process.near.size == 0, 5, "near cache is empty")
    wait_until(lambda: process.near.is_trusted, 5, "near cache is trusted again")
    put_locally(process, raw, igsid)


def test_local_entries_of_a_store_that_hangs_are_for_outages_only(
    begin: Begin, igsid: Igsid
) -> None:
    """Another process may reach it and remove entries; afterwards all are dropped."""
    with RedisServer("tcp") as server, client_of(server.url) as raw:
        process = begin(server.url)
        wait_until(lambda: process.near.is_trusted, 10, "near cache is trusted")
        put_locally(process, raw, igsid)

        server.pause()
        wait_until(lambda: not process.near.is_trusted, 5, "near cache is not trusted")
        assert recalled(process, igsid) is None
        assert process.entries.recall_in_outage(igsid) is not None
        server.kill()
        server.start()

        wait_until(lambda: process.near.is_trusted, 10, "near cache is trusted again")
        assert process.entries.recall_in_outage(igsid) is None


def test_listener_tracks_the_new_master_after_a_fail_over(
    whole: SentinelGroup, begin: Begin, igsid: Igsid
) -> None:
    """Entries of the old one are dropped, and changes in the new one are received."""
    whole.mend()
    process = begin(whole.url)
    wait_until(lambda: process.near.is_trusted, 10, "near cache is trusted")
    old = whole.master
    try:
        with client_of(old.url) as raw:
            put_locally(process, raw, igsid)
        old.pause()
        wait_until(lambda: whole.is_led_by_another_than(old), 15, "another leads")
        wait_until(lambda: process.near.size == 0, 10, "near cache is empty")
        wait_until(lambda: process.near.is_trusted, 10, "the new one is tracked")
        with client_of(whole.master.url) as raw:
            put_locally(process, raw, igsid)
            raw.delete(key(igsid))
        wait_until(
            lambda: recalled(process, igsid) is None, 5, "the local entry is gone"
        )
    finally:
        whole.mend()


def test_store_without_tracking_is_served_without_a_near_cache(
    cache_on, caplog: pytest.LogCaptureFixture, igsid: Igsid
) -> None:
    """It is too old, or denies it: that is logged once, and costs only speed."""
    with RedisServer("tcp") as server, client_of(server.url) as raw:
        raw.execute_command(
            *("ACL", "SETUSER", "us", "on", ">pw", "~*", "+@all", "-client|tracking")
        )
        url = server.url.replace("redis://", "redis://us:pw@")
        waited: list[float] = []

        class Ended(Exception):
            """Ends the listener."""

        def wait_once(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) > 1:
                raise Ended

        with new_client(url, connections=4) as client:
            near = NearCache(10, outage_grace=600.0)
            listener = InvalidationListener(client, "pp:e:", sleep=wait_once)
            with pytest.raises(Ended):
                listener.run(near)
            entries = EntryStore(cache_on(client), "default", near=near, sleep=no_wait)
            put(raw, igsid)
            snapshot = entries.read(igsid)

    assert snapshot.entry is not None and near.size == 0
    assert [each.message for each in caplog.records] == ["near cache off"]


def reader_of(process: Process, igsid: Igsid) -> tuple[EntryStore, list[float]]:
    """A store with a local entry that is trusted for half a second, and its clock."""
    now = [0.0]
    near = NearCache(10, outage_grace=600.0, monotonic=lambda: now[0])
    entries = EntryStore(process.entries._cache, "default", near=near, sleep=no_wait)
    near.renew(0.0)
    entries.read(igsid)
    return entries, now


@pytest.mark.parametrize("is_trusted", [True, False], ids=["trusted", "not trusted"])
def test_entry_that_a_read_has_not_found_is_not_served_in_an_outage(
    process: Process, raw: redis.Redis, igsid: Igsid, is_trusted: bool
) -> None:
    """Otherwise a reader that then loses the store would serve a removed entry."""
    put(raw, igsid)
    entries, now = reader_of(process, igsid)
    assert entries.recall_in_outage(igsid) is not None

    raw.delete(key(igsid))
    now[0] = 0.1 if is_trusted else 1.0
    entries.read(igsid)

    assert entries.recall_in_outage(igsid) is None


def test_read_that_finds_the_same_entry_leaves_it_for_an_outage(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    """A process that is slow for a moment still has it when the store goes away."""
    put(raw, igsid)
    entries, now = reader_of(process, igsid)

    now[0] = 1.0
    entries.read(igsid)

    assert entries.recall_in_outage(igsid) is not None
