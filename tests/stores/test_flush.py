"""Flush and census: passes over all entries, on every kind of store."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from proxy.domain.entry import Entry
from proxy.domain.failures import (
    GraphTimeout,
)
from proxy.domain.profile import Igsid, Reason, Refusal
from proxy.storage.codec import encode
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.flush import Census, Flushed
from tests.helpers.redis_servers import REAL_STORES
from tests.helpers.stored_people import (
    ADA,
    BEN,
    MINUTE,
    NOTHING,
    NOW,
    OURS,
    a_profile,
    a_refusal,
    an_entry,
    crowd,
    fail,
    key,
    keys_in,
    plant,
    store,
)


def some_of_everything(entries: EntryStore, raw: redis.Redis) -> None:
    """Store three profiles, two refusals, a lease, a note, and foreign keys."""
    ada, ben, *rest = (Igsid(f"125400300000000{number}") for number in range(7))
    for igsid in (ada, ben, rest[0]):
        store(entries, an_entry(a_profile(igsid)))
    store(entries, an_entry(a_refusal(Reason.BLOCKED, igsid=rest[1])))
    store(entries, an_entry(a_refusal(Reason.NOT_FOUND, igsid=rest[2])))
    entries.take(rest[3], OURS, MINUTE)
    fail(entries, GraphTimeout(), rest[4])
    for other in FOREIGN:
        raw.set(other, b"theirs")


FOREIGN = {"pp2:e:{default:1}", "e:{default:1}", "pp", "other", "ppe:1"}
GATES = ("pp:g:{default}:throttled", "pp:w:{default:1}", "pp:gate", "pp:es", "pp:ln")


def is_refusal(entry: Entry | None) -> bool:
    return entry is not None and isinstance(entry.outcome, Refusal)


def test_flush_of_all_leaves_only_foreign_keys(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Entries, leases and notes go; entries are counted."""
    some_of_everything(entries, raw)

    assert entries.flush(None) == Flushed(matched=5, deleted=5)

    assert keys_in(raw) == FOREIGN
    assert entries.flush(None) == Flushed(0, 0)


def test_flush_of_some_leaves_the_other_entries(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """But no lease and no note: they may be of a fetch that would match."""
    some_of_everything(entries, raw)

    assert entries.flush(is_refusal) == Flushed(matched=2, deleted=2)

    ours = keys_in(raw) - FOREIGN
    assert len(ours) == 3
    assert all(name.startswith("pp:e:") for name in ours)
    assert entries.flush(is_refusal) == Flushed(0, 0)
    assert entries.flush(lambda entry: True) == Flushed(3, 3)


@pytest.mark.parametrize("matches", [None, is_refusal], ids=["all", "some"])
def test_dry_run_counts_and_removes_nothing(
    entries: EntryStore,
    raw: redis.Redis,
    matches: Callable[[Entry | None], bool] | None,
) -> None:
    """No lease either: a fetch under way goes on."""
    some_of_everything(entries, raw)
    before = keys_in(raw)

    counted = entries.flush(matches, dry_run=True)

    assert counted == Flushed(matched=2 if matches else 5, deleted=0)
    assert keys_in(raw) == before


def test_flush_leaves_gates_and_markers(entries: EntryStore, raw: redis.Redis) -> None:
    """They are ours, but they are not entries."""
    for gate in GATES:
        raw.set(gate, b"x", px=60_000)
    store(entries, an_entry())

    assert entries.flush(None) == Flushed(1, 1)

    assert keys_in(raw) == set(GATES)


def test_flush_calls_matches_with_none_for_an_undecodable_entry(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """So that such an entry can be picked, or left."""
    store(entries, an_entry())
    plant(raw, key("e", BEN), b'{"v":1,"id":"\xff')

    assert entries.flush(lambda entry: entry is not None, dry_run=True).matched == 1
    assert entries.flush(lambda entry: entry is None) == Flushed(1, 1)
    assert keys_in(raw) == {key("e")}


@pytest.mark.parametrize("matches", [None, lambda entry: True], ids=["all", "some"])
def test_fetch_under_way_cannot_bring_back_a_flushed_entry(
    entries: EntryStore, matches: Callable[[Entry | None], bool] | None
) -> None:
    """Its lease has gone with the entry, whether that matched or not."""
    store(entries, an_entry())
    entries.take(ADA, OURS, MINUTE)

    entries.flush(matches)

    assert entries.put(ADA, an_entry(), OURS, NOW) is False
    assert entries.fail(ADA, GraphTimeout(), OURS, now=NOW) is False
    assert entries.read(ADA) == NOTHING


def test_flush_deletes_leases_before_entries(
    entries: EntryStore, cache: ProfileCache, raw: redis.Redis
) -> None:
    """In one pass, a fetch could write behind the cursor an entry that then stays."""
    people = crowd(3000)
    plant_crowd(raw, people)
    written: list[bool] = []

    def write_at_the_first_match(entry: Entry | None) -> bool:
        if not written:
            written.extend(
                entries.put(igsid, an_entry(a_profile(igsid)), OURS, NOW)
                for igsid in people[::10]
            )
        return True

    flushed = entries.flush(write_at_the_first_match)

    assert written == [False] * 300
    assert flushed == Flushed(3000, 3000)
    assert list(cache.keyspace.scan("*")) == []


def plant_crowd(raw: redis.Redis, people: list[Igsid]) -> None:
    """Store an entry for each, and a lease under which it is being fetched again."""
    pipe = raw.pipeline(transaction=False)
    for igsid in people:
        pipe.set(key("e", igsid), encode(an_entry(a_profile(igsid))), ex=3600)
        pipe.set(key("l", igsid), OURS, ex=3600)
    pipe.execute()


def test_flush_leaves_nothing_that_began_before_it(
    entries: EntryStore, cache: ProfileCache, raw: redis.Redis
) -> None:
    """However the writes of many fetches fall between its slices."""
    people = crowd(4000)
    plant_crowd(raw, people)
    barrier = threading.Barrier(5)

    def land(share: list[Igsid]) -> None:
        barrier.wait()
        for igsid in share:
            entries.put(igsid, an_entry(a_profile(igsid)), OURS, NOW)

    with ThreadPoolExecutor(4) as pool:
        landings = [pool.submit(land, people[first::40]) for first in range(4)]
        barrier.wait()
        entries.flush(None)
        for landing in landings:
            landing.result()

    assert list(cache.keyspace.scan("*")) == []


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_flush_never_blocks_the_whole_server(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Slices and UNLINK; KEYS would block other clients, FLUSHDB take others' keys."""
    plant_crowd(raw, crowd(2000))
    raw.config_resetstat()

    entries.flush(None)
    entries.flush(lambda entry: True)

    ran = {command.removeprefix("cmdstat_") for command in raw.info("commandstats")}
    assert ran & {"keys", "flushdb", "flushall", "del"} == set()
    assert {"scan", "unlink"} <= ran


def test_flush_of_one_page_leaves_the_others(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """Their leases too, even of a Page whose name only begins like this one's."""
    shop, shop_2 = entries.of_page("shop"), entries.of_page("shop-2")
    for each in (entries, shop, shop_2):
        store(each, an_entry())
        each.take(BEN, OURS, MINUTE)

    assert shop.flush(None, dry_run=True) == Flushed(1, 0)
    assert shop.flush(None) == Flushed(1, 1)

    assert keys_in(raw) == {
        f"pp:{kind}:{{{page}:{igsid}}}"
        for page in ("default", "shop-2")
        for kind, igsid in (("e", ADA), ("l", BEN))
    }


def test_flush_of_every_page_reaches_pages_not_served_any_more(
    entries: EntryStore, raw: redis.Redis
) -> None:
    """A Page that was removed from the settings has left its entries behind."""
    for page in ("shop", "gone"):
        store(entries.of_page(page), an_entry())
    store(entries, an_entry())

    assert entries.flush(lambda entry: True, every_page=True) == Flushed(3, 3)

    assert keys_in(raw) == set()


def test_census_is_of_one_page(entries: EntryStore) -> None:
    """Another Page's entries are not counted."""
    store(entries, an_entry())
    store(entries.of_page("shop"), an_entry())
    store(entries.of_page("shop"), an_entry(a_profile(BEN)))

    shop = entries.of_page("shop").census(lambda entry: "one", 10)

    assert shop == Census({"one": 2}, True)


@pytest.mark.parametrize("at_most", [2499, 2500])
def test_census_counts_each_entry_once_up_to_a_limit(
    entries: EntryStore, raw: redis.Redis, at_most: int
) -> None:
    """No leases or notes; entries that cannot be decoded are a kind of their own."""
    pipe = raw.pipeline(transaction=False)
    for igsid in crowd(2499):
        pipe.set(key("e", igsid), encode(an_entry(a_profile(igsid))), ex=60)
    pipe.set(key("e"), b"nonsense", ex=60)
    pipe.execute()
    entries.take(Igsid("99999"), OURS, MINUTE)

    census = entries.census(
        lambda entry: "readable" if entry else "unreadable", at_most
    )

    if at_most == 2500:
        assert census == Census({"readable": 2499, "unreadable": 1}, True)
    else:
        assert census.is_complete is False
        assert sum(census.kinds.values()) <= at_most
