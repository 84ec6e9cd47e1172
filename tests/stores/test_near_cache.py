"""Copies that a process keeps of entries, kept true by every kind of store."""

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
from proxy.storage.client_factory import new_client
from proxy.storage.codec import decode, encode
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.near_cache import TRUSTED_FOR, InvalidationListener, NearCache
from tests.helpers.builders import a_profile, an_entry
from tests.helpers.fakes import no_wait
from tests.helpers.processes import wait_until
from tests.helpers.redis_servers import REAL_STORES, Server, Watched, client_of

FOLLOWED = [store for store in REAL_STORES if store != "cluster"]

_numbers = itertools.count()


class Process(NamedTuple):
    """What a process of ours has: the store, and copies of what is in it."""

    entries: EntryStore
    near: NearCache


Begin = Callable[[str], Process]


@pytest.fixture(scope="session")
def begin(cache_on: Callable[[redis.Redis], ProfileCache]) -> Begin:
    """Begins a process on a store; its follower lives as long as the tests."""

    def begin(url: str) -> Process:
        client = new_client(url, connections=64)
        near = NearCache(
            1000, outage_grace=600.0, start=InvalidationListener(client, "pp:e:").start
        )
        process = Process(EntryStore(cache_on(client), "default", near=near), near)
        with_a_look(process, Igsid("99999"))
        return process

    return begin


@pytest.fixture(scope="session")
def process_on(begin: Begin) -> Callable[[str], Process]:
    """One process for each store, for the tests that leave it whole."""
    known: dict[str, Process] = {}

    def get(url: str) -> Process:
        if url not in known:
            known[url] = begin(url)
        wait_until(lambda: known[url].near.is_trusted, 10, "copies are trusted")
        return known[url]

    return get


@pytest.fixture(params=FOLLOWED)
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
    """Somebody of whom nothing is stored yet."""
    return Igsid(f"1254003{next(_numbers):09d}")


def with_a_look(process: Process, igsid: Igsid) -> None:
    """A look keeps a copy, and the first one of all begins to follow."""
    try:
        process.entries.read(igsid)
    except StoreUnavailable:
        return


def key(igsid: Igsid) -> str:
    return f"pp:e:{{default:{igsid}}}"


def put(raw: redis.Redis, igsid: Igsid, name: str = "Ada", px: int = 60_000) -> None:
    entry = an_entry(a_profile(igsid=igsid, name=name))
    raw.set(key(igsid), encode(entry), px=px)


def copied(process: Process, raw: redis.Redis, igsid: Igsid, **how: int) -> None:
    """Have *process* keep a copy of what is stored about *igsid*.

    The message of the write itself can still be on its way and undo it.
    """
    put(raw, igsid, **how)  # type: ignore[arg-type]

    def is_kept() -> bool:
        with_a_look(process, igsid)
        return recalled(process, igsid) is not None

    wait_until(is_kept, 5, "there is a copy")
    time.sleep(0.02)
    wait_until(is_kept, 5, "the copy stays")


def recalled(process: Process, igsid: Igsid) -> str | None:
    """The name of whom the process remembers without a trip."""
    copy = process.entries.recall(igsid)
    entry = decode(copy.stored, igsid) if copy else None
    return getattr(entry.outcome, "name", None) if entry else None


def test_what_was_read_needs_no_second_trip(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    copied(process, raw, igsid)

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
def test_whatever_changes_it_ends_the_copy(
    process: Process, raw: redis.Redis, igsid: Igsid, change: Callable
) -> None:
    """Also by somebody else, who knows nothing of copies."""
    copied(process, raw, igsid)

    change(raw, key(igsid))

    wait_until(lambda: recalled(process, igsid) is None, 5, "the copy is gone")


def test_a_copy_ends_with_its_entry(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    """By its own clock: Redis may tell of the end later."""
    copied(process, raw, igsid, px=500)

    ends_at = process.near._copies[f"default:{igsid}"].ends_at

    assert ends_at <= time.monotonic() + 0.5


def test_once_an_erase_has_answered_no_process_remembers(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    """However hard they are asked meanwhile, and whoever erases."""
    eraser = EntryStore(process.entries._cache, "default")
    with ThreadPoolExecutor(4) as pool:
        for number in range(3):
            copied(process, raw, igsid, name=f"Ada {number}")  # type: ignore[arg-type]
            stop: list[bool] = []

            def hammer(stop: list[bool] = stop) -> None:
                while not stop:
                    process.entries.recall(igsid)
                    process.entries.read(igsid)

            hammers = [pool.submit(hammer) for _ in range(4)]
            try:
                eraser.erase(igsid)
                assert recalled(process, igsid) is None
                assert process.entries.read(igsid).entry is None
            finally:
                stop.append(True)
            for each in hammers:
                each.result()


def test_an_erase_waits_for_those_who_cannot_be_told(url: str, cache_on) -> None:
    """As long as anybody may trust a copy; also from one without copies."""
    waited: list[float] = []
    with new_client(url, connections=4) as client:
        entries = EntryStore(cache_on(client), "default", sleep=waited.append)

        entries.erase(Igsid("1254001000000001"))
        entries.flush(None)
        entries.flush(None, dry_run=True)

    assert waited == [TRUSTED_FOR, TRUSTED_FOR]


def test_on_a_cluster_nobody_waits(cluster_url: str, cache_on) -> None:
    """There are no copies there."""
    waited: list[float] = []
    with new_client(cluster_url, connections=4) as client:
        entries = EntryStore(cache_on(client), "default", sleep=waited.append)

        entries.erase(Igsid("1254001000000001"))

    assert waited == []


def test_a_lost_connection_empties_the_copies(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    """What has changed while nobody could tell is not known; it follows anew."""
    copied(process, raw, igsid)
    tracking = [each for each in raw.client_list() if "t" in each["flags"]]

    for each in tracking:
        raw.client_kill_filter(_id=each["id"])

    wait_until(lambda: process.near.size == 0, 5, "there are no copies")
    wait_until(lambda: process.near.is_trusted, 5, "it follows again")
    copied(process, raw, igsid)


def test_while_the_store_hangs_copies_are_for_outages_only(
    begin: Begin, igsid: Igsid
) -> None:
    """Somebody else may reach it, and remove something; afterwards they are gone."""
    with Server("tcp") as server, client_of(server.url) as raw:
        process = begin(server.url)
        wait_until(lambda: process.near.is_trusted, 10, "copies are trusted")
        copied(process, raw, igsid)

        server.pause()
        wait_until(lambda: not process.near.is_trusted, 5, "no copy is trusted")
        assert recalled(process, igsid) is None
        assert process.entries.recall_in_outage(igsid) is not None
        server.kill()
        server.start()

        wait_until(lambda: process.near.is_trusted, 10, "it follows again")
        assert process.entries.recall_in_outage(igsid) is None


def test_after_a_fail_over_the_new_master_is_followed(
    whole: Watched, begin: Begin, igsid: Igsid
) -> None:
    """What the old one still had is forgotten, and changes in the new one are seen."""
    whole.mend()
    process = begin(whole.url)
    wait_until(lambda: process.near.is_trusted, 10, "copies are trusted")
    old = whole.master
    try:
        with client_of(old.url) as raw:
            copied(process, raw, igsid)
        old.pause()
        wait_until(lambda: whole.is_led_by_another_than(old), 15, "another leads")
        wait_until(lambda: process.near.size == 0, 10, "there are no copies")
        wait_until(lambda: process.near.is_trusted, 10, "the new one is followed")
        with client_of(whole.master.url) as raw:
            copied(process, raw, igsid)
            raw.delete(key(igsid))
        wait_until(lambda: recalled(process, igsid) is None, 5, "the copy is gone")
    finally:
        whole.mend()


def test_a_store_that_tells_nothing_is_served_without_copies(
    cache_on, caplog: pytest.LogCaptureFixture, igsid: Igsid
) -> None:
    """Too old, or closed to us: that is said once, and costs nothing but speed."""
    with Server("tcp") as server, client_of(server.url) as raw:
        raw.execute_command(
            *("ACL", "SETUSER", "us", "on", ">pw", "~*", "+@all", "-client|tracking")
        )
        url = server.url.replace("redis://", "redis://us:pw@")
        waited: list[float] = []

        class Over(Exception):
            """The test has seen enough."""

        def wait_once(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) > 1:
                raise Over

        with new_client(url, connections=4) as client:
            near = NearCache(10, outage_grace=600.0)
            follower = InvalidationListener(client, "pp:e:", sleep=wait_once)
            with pytest.raises(Over):
                follower.run(near)
            entries = EntryStore(cache_on(client), "default", near=near, sleep=no_wait)
            put(raw, igsid)
            seen = entries.read(igsid)

    assert seen.entry is not None and near.size == 0
    assert [each.message for each in caplog.records] == ["near cache off"]


def looked_at(process: Process, igsid: Igsid) -> tuple[EntryStore, list[float]]:
    """Somebody who has a copy, trusted for half a second; and what time it is."""
    now = [0.0]
    near = NearCache(10, outage_grace=600.0, monotonic=lambda: now[0])
    entries = EntryStore(process.entries._cache, "default", near=near, sleep=no_wait)
    near.renew(0.0)
    entries.read(igsid)
    return entries, now


@pytest.mark.parametrize("is_trusted", [True, False], ids=["told", "not told"])
def test_what_a_look_has_not_found_is_no_outage_s_copy(
    process: Process, raw: redis.Redis, igsid: Igsid, is_trusted: bool
) -> None:
    """Of two who read, the one who cannot write next must not tell what is gone."""
    put(raw, igsid)
    entries, now = looked_at(process, igsid)
    assert entries.recall_in_outage(igsid) is not None

    raw.delete(key(igsid))
    now[0] = 0.1 if is_trusted else 1.0
    entries.read(igsid)

    assert entries.recall_in_outage(igsid) is None


def test_a_look_that_finds_the_same_leaves_it_for_an_outage(
    process: Process, raw: redis.Redis, igsid: Igsid
) -> None:
    """A process that is slow for a moment has something when the store goes away."""
    put(raw, igsid)
    entries, now = looked_at(process, igsid)

    now[0] = 1.0
    entries.read(igsid)

    assert entries.recall_in_outage(igsid) is not None
