"""The near cache: which local entries may be used when, are kept, and are dropped."""

from __future__ import annotations

import math

import pytest

from proxy.storage.near_cache import (
    SECOND_CHANCES,
    TRUSTED_FOR,
    NearCache,
    PendingRead,
)
from tests.helpers.fakes import FakeClock

KEY = "default:1254001000000001"
GRACE = 600.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.fixture
def near(clock: FakeClock) -> NearCache:
    """A near cache that is trusted at the moment, with room for four entries."""
    near = NearCache(4, outage_grace=GRACE, monotonic=clock)
    near.renew(clock.now)
    return near


def keep(near: NearCache, key: str, lives_for: float = 3600.0) -> None:
    pending = near.begin_read(key)
    assert pending is not None
    near.end_read(key, pending, b"stored", lives_for)


def test_near_cache_keeps_the_entry_that_was_read(near: NearCache) -> None:
    keep(near, KEY)

    entry = near.get(KEY)

    assert entry is not None and entry.stored == b"stored"
    assert (near.hits, near.misses) == (1, 0)


def test_local_entry_ends_when_redis_drops_the_entry(
    near: NearCache, clock: FakeClock
) -> None:
    """Its life counts from before the read: it ends early rather than late."""
    pending = near.begin_read(KEY)
    assert pending is not None
    clock.now += 0.2
    near.end_read(KEY, pending, b"stored", 0.4)

    assert near.get(KEY) is not None
    clock.now += 0.2
    assert near.get(KEY) is None


def test_near_cache_is_bypassed_half_a_second_after_the_last_ping(
    near: NearCache, clock: FakeClock
) -> None:
    """From the sending: a late reply proves nothing about the time between."""
    keep(near, KEY)
    near.renew(clock.now + 0.3)

    clock.now += 0.3 + TRUSTED_FOR - 0.001
    assert near.get(KEY) is not None
    clock.now += 0.001
    assert near.get(KEY) is None
    assert near.bypassed == 1


def test_near_cache_keeps_no_entry_that_was_read_without_trust(
    near: NearCache, clock: FakeClock
) -> None:
    """No invalidation would have arrived after a change."""
    clock.now += TRUSTED_FOR

    assert near.begin_read(KEY) is None


@pytest.mark.parametrize("keys", [[KEY], ["other", KEY], None])
def test_entry_invalidated_during_its_read_is_not_kept(
    near: NearCache, keys: list[str] | None
) -> None:
    """The change may come after the read, and its invalidation before the reply."""
    pending = near.begin_read(KEY)
    assert pending is not None

    near.invalidate(keys)
    near.end_read(KEY, pending, b"from before", 3600.0)

    assert near.get(KEY) is None


def test_entry_read_across_a_reconnection_is_not_kept(
    near: NearCache, clock: FakeClock
) -> None:
    """Its invalidation may have been sent to a connection that is gone."""
    pending = near.begin_read(KEY)
    assert pending is not None

    near.clear()
    near.renew(clock.now)
    near.end_read(KEY, pending, b"from before", 3600.0)

    assert near.get(KEY) is None


def test_cleared_near_cache_keeps_no_entry_until_a_ping_is_answered(
    near: NearCache,
) -> None:
    """Otherwise an entry read now could change without an invalidation."""
    near.clear()

    assert near.begin_read(KEY) is None
    assert not near.is_trusted


def test_entry_invalidated_as_trust_is_renewed_is_not_used(clock: FakeClock) -> None:
    """Trust is checked before the entry is read: between the two it may be dropped."""

    class Overtaken(NearCache):
        """Invalidates and renews, as the listener does, while trust is being read."""

        until = -math.inf
        is_due = False

        @property
        def _trusted_until(self) -> float:
            if self.is_due:
                self.is_due = False
                self.invalidate([KEY])
                self.renew(clock.now)
            return self.until

        @_trusted_until.setter
        def _trusted_until(self, until: float) -> None:
            self.until = until

    near = Overtaken(4, outage_grace=GRACE, monotonic=clock)
    near.renew(clock.now)
    keep(near, KEY)
    clock.now += TRUSTED_FOR
    near.is_due = True

    assert near.get(KEY) is None


def test_local_entry_read_again_unchanged_stays_for_an_outage(
    near: NearCache, clock: FakeClock
) -> None:
    """A process that is slow for a moment still has it when the store goes away."""
    pending = near.begin_read(KEY)
    assert pending is not None
    near.end_read(KEY, pending, b"known", 3600.0)
    clock.now += TRUSTED_FOR

    near.forget(KEY, unless=b"known")
    assert near.get_in_outage(KEY) is not None

    near.forget(KEY, unless=b"newer")
    assert near.get_in_outage(KEY) is None


def test_local_entry_of_a_removed_entry_is_forgotten(near: NearCache) -> None:
    pending = near.begin_read(KEY)
    assert pending is not None
    near.end_read(KEY, pending, b"known", 3600.0)

    near.forget(KEY, unless=None)

    assert near.get_in_outage(KEY) is None


def test_clear_keeps_the_time_of_the_last_reply(near: NearCache) -> None:
    """A reader who finds no local entry must not conclude that the store hangs."""
    near.clear(1007.5)
    assert near.last_reply_at == 1007.5

    near.clear()
    assert near.last_reply_at == 1007.5


def begin(near: NearCache) -> PendingRead:
    pending = near.begin_read(KEY)
    assert pending is not None
    return pending


def test_two_reads_at_once_are_kept_if_they_are_equal(near: NearCache) -> None:
    """From the first that ends, while the other is under way."""
    first, second = begin(near), begin(near)

    near.end_read(KEY, first, b"stored", 3600.0)
    assert near.get(KEY) is not None
    near.end_read(KEY, second, b"stored", 3600.0)

    assert near.get(KEY) is not None
    assert near._pending == {}


@pytest.mark.parametrize("values", [(b"new", b"old"), (b"new", None), (None, b"old")])
def test_of_two_reads_at_once_neither_is_kept_if_they_differ(
    near: NearCache, values: tuple[bytes | None, bytes | None]
) -> None:
    """A third, begun before the second has ended, may have found either."""
    first, second = begin(near), begin(near)
    near.end_read(KEY, first, values[0], 3600.0)
    third = begin(near)

    near.end_read(KEY, second, values[1], 3600.0)
    near.end_read(KEY, third, b"old", 3600.0)

    assert near.get(KEY) is None
    assert near._pending == {}


def test_write_drops_the_local_entry_and_what_is_being_read(near: NearCache) -> None:
    """Reads that began before it may have found the value of before."""
    keep(near, KEY)
    pending = begin(near)

    near.forget(KEY)
    assert near.get(KEY) is None
    near.end_read(KEY, pending, b"from before", 3600.0)

    assert near.get(KEY) is None


def test_value_read_before_a_change_drops_a_later_copy_of_another(
    near: NearCache,
) -> None:
    """The change came in between, and it cannot be told which of both is newer."""
    pending = begin(near)
    near.invalidate([KEY])
    keep(near, KEY)

    near.end_read(KEY, pending, b"other", 3600.0)
    assert near.get(KEY) is None


def test_read_that_fails_leaves_the_others_under_way(near: NearCache) -> None:
    """What they find is kept."""
    first, second = begin(near), begin(near)

    near.cancel_read(KEY, first)
    near.end_read(KEY, second, b"stored", 3600.0)

    assert near.get(KEY) is not None
    assert near._pending == {}


def test_read_that_finds_no_entry_leaves_no_local_entry(near: NearCache) -> None:
    pending = near.begin_read(KEY)
    assert pending is not None

    near.end_read(KEY, pending, None)

    assert near.get(KEY) is None
    assert near._pending == {}


def test_invalidation_drops_the_local_entry(near: NearCache) -> None:
    keep(near, KEY)
    keep(near, "other")

    near.invalidate([KEY, "of another process"])

    assert near.get(KEY) is None
    assert near.get("other") is not None
    assert near.invalidated == 1


def test_invalidation_without_keys_drops_every_local_entry(near: NearCache) -> None:
    """Redis sends one without keys after FLUSHDB."""
    keep(near, KEY)

    near.invalidate(None)

    assert near.get(KEY) is None


def test_near_cache_never_holds_more_than_max_entries(near: NearCache) -> None:
    for number in range(100):
        keep(near, str(number))

    assert near.size == 4
    assert near.evicted == 96


def test_used_entry_stays_while_unused_ones_pass_through(near: NearCache) -> None:
    """A scan over people who are read once does not evict the frequently used."""
    keep(near, KEY)
    for number in range(100):
        assert near.get(KEY) is not None
        keep(near, str(number))

    assert near.get(KEY) is not None


def test_eviction_passes_over_a_bounded_number_of_entries(clock: FakeClock) -> None:
    """However many local entries are in use."""
    near = NearCache(100, outage_grace=GRACE, monotonic=clock)
    near.renew(clock.now)
    for number in range(100):
        keep(near, str(number))
        near.get(str(number))

    keep(near, KEY)

    still_used = sum(entry.used for entry in near._entries.values())
    assert still_used == 100 - SECOND_CHANCES - 1
    assert near.size == 100


def test_local_entries_are_used_in_an_outage_for_outage_grace(
    near: NearCache, clock: FakeClock
) -> None:
    """But no longer than their own life."""
    keep(near, KEY)
    keep(near, "short", lives_for=100.0)

    clock.now += TRUSTED_FOR + 99.0
    assert near.get(KEY) is None
    assert near.get_in_outage(KEY) is not None
    assert near.get_in_outage("short") is not None
    clock.now += 1.0
    assert near.get_in_outage("short") is None
    clock.now = 1000.0 + TRUSTED_FOR + GRACE
    assert near.get_in_outage(KEY) is None


def test_clear_drops_the_local_entries_of_an_outage(near: NearCache) -> None:
    """Any entry may have been removed meanwhile."""
    keep(near, KEY)

    near.clear()

    assert near.get_in_outage(KEY) is None


def test_removed_entry_is_not_served_in_an_outage(
    near: NearCache, clock: FakeClock
) -> None:
    """Whether it was read with trust or without."""
    keep(near, KEY)
    pending = near.begin_read(KEY)
    assert pending is not None
    near.end_read(KEY, pending, None)
    assert near.get_in_outage(KEY) is None

    keep(near, KEY)
    near.forget(KEY, unless=None)
    assert near.get_in_outage(KEY) is None


def test_read_that_failed_leaves_the_local_entry_for_the_outage(
    near: NearCache,
) -> None:
    """A failed read is how an outage is noticed."""
    keep(near, KEY)
    pending = near.begin_read(KEY)
    assert pending is not None

    near.cancel_read(KEY, pending)

    assert near.get_in_outage(KEY) is not None
    assert near._pending == {}


def test_listener_is_started_once_and_with_the_first_read() -> None:
    """Before that, the process may still fork, and threads do not survive a fork."""
    started: list[NearCache] = []
    near = NearCache(4, outage_grace=GRACE, start_listener=started.append)
    assert started == []

    near.begin_read(KEY)
    near.begin_read(KEY)

    assert started == [near]
