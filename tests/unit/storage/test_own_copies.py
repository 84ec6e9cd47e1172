"""A process that writes an entry, or learns of a newer one, keeps no older copy of it.

There is no listener here: no message of the store's drops a copy a moment later.
"""

from __future__ import annotations

from collections.abc import Callable

import fakeredis
import pytest

from proxy.domain.entry import Entry
from proxy.domain.failures import GraphTimeout
from proxy.storage.codec import encode
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.near_cache import NearCache
from tests.helpers.builders import ADA, NOW, a_profile, an_entry
from tests.helpers.fakes import no_wait

LEASE = "0123456789abcdef"
NEWER = an_entry(a_profile(name="After"), fetched_at=NOW + 1)


@pytest.fixture
def redis() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis()


@pytest.fixture
def store(redis: fakeredis.FakeRedis) -> EntryStore:
    """With a lease about Ada, and a local copy of her entry."""
    near = NearCache(100, outage_grace=600.0, monotonic=lambda: 0.0)
    near.renew(0.0)
    cache = ProfileCache(host=redis, key_prefix="pp:")
    store = EntryStore(cache, "default", near=near, sleep=no_wait)
    plant(redis, an_entry())
    store.take(ADA, LEASE, 6.0)
    store.read(ADA)
    assert copy_of(store) == an_entry()
    return store


def plant(redis: fakeredis.FakeRedis, entry: Entry) -> None:
    """Write an entry as another process does."""
    redis.set(f"pp:e:{{default:{ADA}}}", encode(entry), px=60_000)


def copy_of(store: EntryStore) -> Entry | None:
    return store.recall_entry(ADA)


WRITES: dict[str, Callable[[EntryStore], bool]] = {
    "put": lambda s: s.put(ADA, NEWER, LEASE, NOW),
    "put again": lambda s: s.put(ADA, NEWER, LEASE, NOW, again=True),
    "fail": lambda s: s.fail(ADA, GraphTimeout(), LEASE, keeping=NEWER, now=NOW),
    "release": lambda s: s.release(ADA, LEASE, keeping=NEWER, now=NOW),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_write_drops_the_copy_of_its_process(store: EntryStore, write) -> None:
    """Before it returns; the next read gets what was written."""
    assert write(store)

    assert copy_of(store) is None
    assert store.read(ADA).entry == NEWER == copy_of(store)


def test_write_is_not_undone_by_a_read_that_began_before(
    store: EntryStore, redis: fakeredis.FakeRedis
) -> None:
    """The read has found the old entry, and ends after the write."""
    keyspace = store._cache.keyspace
    read = keyspace.read

    def overtaken(*args, **options):
        values = read(*args, **options)
        assert store.put(ADA, NEWER, LEASE, NOW)
        return values

    keyspace.read = overtaken
    assert store.read(ADA).entry == an_entry()

    assert copy_of(store) is None


def test_newer_entry_found_with_the_lease_drops_the_copy(
    store: EntryStore, redis: fakeredis.FakeRedis
) -> None:
    """The caller may be answered with it, and must not get the older one later."""
    plant(redis, NEWER)

    assert store.take(ADA, "another lease", 6.0).entry == NEWER

    assert copy_of(store) is None


def test_copy_of_the_entry_found_with_the_lease_stays(store: EntryStore) -> None:
    """For an outage that begins while Meta is asked; so after a failure, too."""
    store.take(ADA, LEASE, 6.0)
    assert copy_of(store) == an_entry()

    assert store.fail(ADA, GraphTimeout(), LEASE, now=NOW)
    assert copy_of(store) == an_entry()
